"""Quality: how calls to this host's instances go, as callers everywhere see them.

Invariants: what callers say is added up over some ten seconds (each second counts CALLS_KEPT of the one after), the p99 as
their mean, weighted by calls; where nobody says anything for CALLS_GONE, nothing is known any more, and that is told as 0.
"""

from math import isfinite

from msgspec import Struct

from dislocate.core.balance.callers import CALLS_LIMIT, LONGEST_CALL
from dislocate.core.tunables import CALLS_GONE, CALLS_KEPT, CALLS_SMOOTHING


class Quality(Struct, frozen=True):
    """Of one instance."""

    errors: float = 0.0  # part of the calls that failed
    p99: float = 0.0  # seconds, of those that did not


class _Calls:
    """To one instance."""

    __slots__ = ("calls", "failed", "heard", "p99", "slow", "worked")

    def __init__(self) -> None:
        self.calls = 0.0
        self.failed = 0.0
        self.p99 = 0.0
        self.worked = 0  # calls of this second that have a p99
        self.slow = 0.0  # their p99s, times their calls
        self.heard = 0


def is_sound(calls: int, failed: int, p99: float) -> bool:
    """Whether a caller can have measured it."""
    return 0 <= failed <= calls <= CALLS_LIMIT and isfinite(p99) and 0.0 <= p99 <= LONGEST_CALL


class Qualities:
    """Of all instances of this host that are called."""

    def __init__(self) -> None:
        self._calls: dict[str, _Calls] = {}

    def __len__(self) -> int:
        return len(self._calls)

    def told(self, instance: str, calls: int, failed: int, p99: float, now: int) -> None:
        """A host's callers say how it went."""
        known = self._calls.setdefault(instance, _Calls())
        known.heard = now
        known.calls += calls
        known.failed += failed
        if p99 > 0.0 and calls > failed:
            known.worked += calls - failed
            known.slow += p99 * (calls - failed)

    def second(self, now: int) -> dict[str, Quality]:
        """A second went by: how all of them are doing.  Those of whom nobody speaks any more are among them once."""
        found: dict[str, Quality] = {}
        for instance in sorted(self._calls):
            known = self._calls[instance]
            if now - known.heard >= CALLS_GONE:
                del self._calls[instance]
                found[instance] = Quality()
                continue
            if known.worked:
                latest = known.slow / known.worked
                known.p99 = latest if known.p99 <= 0.0 else known.p99 + CALLS_SMOOTHING * (latest - known.p99)
            found[instance] = Quality(known.failed / known.calls if known.calls > 0.0 else 0.0, known.p99)
            known.calls *= CALLS_KEPT
            known.failed *= CALLS_KEPT
            known.worked, known.slow = 0, 0.0
        return found
