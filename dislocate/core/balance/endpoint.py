"""An endpoint: one instance as one caller knows it, and what its calls taught.

It outlives routes: what was learned stays while its key and address do.  Calls are not counted when they begin, but told
by what is in flight and what ended, so that the hot path adds as little as can be.
"""

from collections.abc import Iterable
from enum import Enum
from itertools import islice
from typing import TYPE_CHECKING

from dislocate.core.balance import latency
from dislocate.core.balance.hashing import digest
from dislocate.core.boundary.balance import Outcomes
from dislocate.core.boundary.views import InstanceView
from dislocate.core.identity import Path
from dislocate.core.units import SECOND

if TYPE_CHECKING:
    from dislocate.core.balance.place import Place

SAMPLES = 256  # latest durations kept of an endpoint
LOOKED_AT = 64  # endpoints that stand for all, where there are more
ENOUGH = 20  # durations; fewer say nothing of a 95th percentile


class Outcome(Enum):
    """How a call ended."""

    OK = "ok"
    FAILED = "failed"  # an answer that says so, or a connection that broke
    TIMED_OUT = "timed_out"
    REFUSED = "refused"  # no connection was made: trying again costs no budget
    CANCELLED = "cancelled"  # the caller lost interest: says nothing, save that it took so long at least


class Endpoint:
    """One instance as one caller knows it."""

    __slots__ = (
        "address",
        "cancelled",
        "consecutive",
        "cost",
        "datacenter",
        "ejected_until",
        "ejections",
        "failed",
        "failed_judged",
        "failed_told",
        "forgotten",
        "hurt",
        "instance",
        "inverse",
        "key",
        "node",
        "pending",
        "place",
        "point",
        "port",
        "returned_at",
        "samples",
        "seen_up_at",
        "sound",
        "stamp",
        "succeeded_judged",
        "succeeded_told",
        "view",
    )

    def __init__(self, key: str, view: InstanceView) -> None:
        self.key = key  # 'dc/node/id'
        self.datacenter: str = view.datacenter
        self.node: Path = view.node
        self.instance: str = view.id
        self.address: str = view.address
        self.port: int = view.port
        self.view = view  # as the last route that named it said
        self.place: Place | None = None  # where it may be used; None: not at present
        self.pending = 0  # calls in flight
        self.cost = latency.LEAST  # seconds: peak EWMA
        self.stamp = 0  # when a call last said something; 0: none did
        self.hurt = 0  # successes it needs until an error is forgotten
        self.sound = self.cost  # before that error
        self.inverse = 1.0  # mean weight over its own: what one call in flight counts
        self.samples: list[float] = []  # seconds of the latest calls that succeeded; cut each second
        self.forgotten = 0  # that were cut
        self.succeeded_told = self.succeeded_judged = 0
        self.failed = self.failed_told = self.failed_judged = 0
        self.cancelled = 0
        self.consecutive = 0  # failures in a row
        self.ejections = 0  # in a row
        self.ejected_until = 0  # 0: it is not
        self.returned_at = 0
        self.seen_up_at: int | None = None  # None: not up
        self.point = digest(key)  # its place on the ring of the aperture

    def score(self) -> float:
        """Seconds a further call is expected to take: the lower the better."""
        return (self.pending * self.inverse + 1.0) * self.cost

    @property
    def succeeded(self) -> int:
        return self.forgotten + len(self.samples)

    @property
    def ended(self) -> int:
        """Calls that did, well or not."""
        return self.forgotten + len(self.samples) + self.failed + self.cancelled

    def clear(self) -> None:
        """Nothing is held against it any more."""
        if self.hurt:
            self.cost = self.sound
        self.hurt = self.consecutive = self.ejected_until = 0

    def cut(self) -> None:
        """Forget all but the latest durations."""
        many = len(self.samples) - SAMPLES
        if many > 0:
            self.forgotten += many
            del self.samples[:many]

    def outcomes(self) -> Outcomes | None:
        """How its calls went since this was last asked; None: none ended."""
        succeeded = self.succeeded - self.succeeded_told
        failed = self.failed - self.failed_told
        if not succeeded + failed:
            return None
        latest = self.samples[-succeeded:] if succeeded else []
        self.succeeded_told, self.failed_told = self.succeeded, self.failed
        p99 = latency.percentile(sorted(latest), 0.99) if latest else 0.0
        return Outcomes(self.node, self.instance, succeeded + failed, failed, p99)

    def grow_old(self, now: int) -> None:
        """What was learned of it counts less, the longer nothing came."""
        gap = now - self.stamp
        if self.stamp and gap > 0:
            tau = latency.hurt_tau(self.consecutive) if self.hurt else latency.TAU
            self.cost = max(latency.LEAST, self.cost * latency.decay(gap / (tau * SECOND)))
            self.stamp = now

    def peak(self, elapsed: float, now: int) -> bool:
        """A call took longer than expected: that is expected from now on.  Whether it was the first call of all."""
        is_first = not self.stamp
        self.cost = max(elapsed, latency.LEAST)
        self.stamp = now
        return is_first

    def learn(self, elapsed: float, now: int, outcome: Outcome, timeout: float) -> None:
        """A call ended, and not simply well; it took so many seconds, the timeout at most."""
        if outcome is Outcome.OK:
            self.consecutive = 0
            self.hurt -= 1
            self.cost = max(elapsed, self.cost / latency.TRUST, latency.LEAST)
            self.samples.append(elapsed)
        elif outcome is Outcome.CANCELLED:
            self.cancelled += 1
            self.cost = max(self.cost, elapsed)
            return
        else:
            if not self.hurt:
                self.sound = self.cost
            self.failed += 1
            self.consecutive += 1
            self.hurt = latency.HURT
            self.cost = latency.after_error(self.cost, elapsed, timeout)
        self.stamp = now

    def __repr__(self) -> str:
        return f"Endpoint({self.key}, {self.pending} in flight, {self.cost * 1000.0:.1f} ms)"


def percentile_95(endpoints: Iterable[Endpoint]) -> int | None:
    """Nanoseconds that one in twenty of their latest calls took; None: they are too few."""
    kept = [elapsed for endpoint in islice(endpoints, LOOKED_AT) for elapsed in endpoint.samples[-SAMPLES:]]
    return round(latency.percentile(sorted(kept), 0.95) * SECOND) if len(kept) >= ENOUGH else None
