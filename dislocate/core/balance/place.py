"""A place: the endpoints of one data center that a caller may use, what it learned of each, and the table it draws from.

An endpoint outlives routes: what was learned of it stays while its key and address do.  Invariant: whoever stands in
`table` is usable by the catalog's word and not ejected, save where all that is usable would be ejected otherwise.
"""

from collections.abc import Iterator, Sequence
from operator import attrgetter

from dislocate.core.balance import aperture, latency
from dislocate.core.balance.ejection import JUDGED_CALLS, duration, outliers, room
from dislocate.core.balance.endpoints import NOBODY, UP, up_weight
from dislocate.core.balance.hashing import SPAN, Ring, digest
from dislocate.core.boundary.balance import Algorithm, Outcomes, Policy
from dislocate.core.boundary.views import InstanceView
from dislocate.core.identity import Path
from dislocate.core.streams import Stream
from dislocate.core.units import SECOND

SAMPLES = 256  # latest durations kept of an endpoint; a power of two
LIGHTEST = 0.01  # of the mean weight: what is in flight is divided by no less


class Endpoint:
    """One instance as one caller knows it."""

    __slots__ = (
        "address",
        "consecutive",
        "cost",
        "datacenter",
        "ejected_until",
        "ejections",
        "failed",
        "failed_judged",
        "failed_told",
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
        "stamp",
        "succeeded",
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
        self.inverse = 1.0  # mean weight over its own: what one call in flight counts
        self.samples: list[float] = []  # seconds of calls that succeeded, a ring; SAMPLES long once it is drawn from
        self.succeeded = self.succeeded_told = self.succeeded_judged = 0
        self.failed = self.failed_told = self.failed_judged = 0
        self.consecutive = 0  # failures in a row
        self.ejections = 0  # in a row
        self.ejected_until = 0  # 0: it is not
        self.returned_at = 0
        self.seen_up_at: int | None = None  # None: not up
        self.point = digest(key)  # its place on the ring of the aperture

    def score(self) -> float:
        """Seconds a further call is expected to take: the lower the better."""
        return (self.pending * self.inverse + 1.0) * self.cost

    def ready(self) -> None:
        """It may be drawn from now on."""
        if not self.samples:
            self.samples = [0.0] * SAMPLES

    def outcomes(self) -> Outcomes | None:
        """How its calls went since this was last asked; None: none ended."""
        succeeded = self.succeeded - self.succeeded_told
        failed = self.failed - self.failed_told
        if not succeeded + failed:
            return None
        latest = self.latest(succeeded)
        self.succeeded_told, self.failed_told = self.succeeded, self.failed
        p99 = latency.percentile(sorted(latest), 0.99) if latest else 0.0
        return Outcomes(self.node, self.instance, succeeded + failed, failed, p99)

    def latest(self, wanted: int) -> list[float]:
        """The durations of its last `wanted` successes, as far as they are kept."""
        kept = min(wanted, self.succeeded, SAMPLES)
        return [self.samples[at & (SAMPLES - 1)] for at in range(self.succeeded - kept, self.succeeded)]

    def __repr__(self) -> str:
        return f"Endpoint({self.key}, {self.pending} in flight, {self.cost * 1000.0:.1f} ms)"


_POINT = attrgetter("point", "key")
_COST = attrgetter("cost")


class Place:
    """The usable endpoints of one data center."""

    __slots__ = (
        "_offset",
        "_ring",
        "_stream",
        "_weights",
        "datacenter",
        "drawn",
        "ejected",
        "grade",
        "is_warming",
        "members",
        "table",
        "units",
        "width",
    )

    def __init__(self, datacenter: str, offset: float, stream: Stream) -> None:
        self.datacenter = datacenter
        self.grade = NOBODY
        self.members: tuple[Endpoint, ...] = ()  # in the order of the aperture's ring
        self.drawn: tuple[Endpoint, ...] = ()  # those of the aperture that are not ejected
        self.ejected: list[Endpoint] = []
        self.table: tuple[tuple[Endpoint, Endpoint], ...] = ()
        self.width = 0  # bits that a draw takes: the table's length is a power of two
        self.units = 0  # endpoints that the aperture is wide
        self.is_warming = False
        self._weights: list[float] = []
        self._offset = offset
        self._stream = stream
        self._ring: Ring | None = None

    def settle(self, members: Sequence[Endpoint], grade: int, now: int, policy: Policy) -> None:
        """These are usable from now on."""
        for endpoint in self.members:
            endpoint.place = None
        self.members = tuple(sorted(members, key=_POINT))
        self.grade = grade
        for endpoint in self.members:
            endpoint.place = self
        self.ejected = [endpoint for endpoint in self.members if endpoint.ejected_until]
        while len(self.ejected) > room(len(self.members), policy.eject):
            self._pardon(min(self.ejected, key=attrgetter("ejected_until", "key")), now)
        self._ring = None
        self.assume()
        self.draw_up(now, policy)

    def draw_up(self, now: int, policy: Policy, offered: float = 0.0, capacity: float = 0.0) -> None:
        """Make the table anew."""
        members = self.members
        if not members:
            self.drawn, self.table, self.width = (), (), 0
            return
        self._weigh(now, policy)
        available = [not endpoint.ejected_until for endpoint in members]
        self.units = aperture.width(len(members), policy.aperture, offered, capacity)
        covered = aperture.window(available, self._offset, self.units)
        self.drawn = tuple(members[at] for at, _ in covered)
        weights = [max(1e-3, part) * self._weights[at] for at, part in covered]
        mean = sum(weights) / len(weights)
        for endpoint, weight in zip(self.drawn, weights, strict=True):
            endpoint.inverse = mean / max(weight, LIGHTEST * mean)
            endpoint.ready()
        if policy.algorithm is Algorithm.WEIGHTED:
            self.table = aperture.single_table(self.drawn, weights)
        else:
            self.table = aperture.pair_table(self.drawn, weights, self._stream)
        self.width = (len(self.table) - 1).bit_length()

    def tick(self, now: int, policy: Policy, offered: float, capacity: float) -> None:
        """A second is over: costs decay, errors are forgotten, who was ejected returns."""
        for endpoint in self.members:
            _age(endpoint, now)
        self.assume()
        self._forgive()
        returning = [
            endpoint
            for endpoint in self.ejected
            if not now < endpoint.ejected_until <= now + 2 * max(policy.eject.longest, policy.eject.base)
        ]
        for endpoint in returning:
            self._pardon(endpoint, now)
        wanted = aperture.width(len(self.members), policy.aperture, offered, capacity)
        if returning or self.is_warming or wanted > self.units or 2 * wanted < self.units:
            self.draw_up(now, policy, offered, capacity)

    def rest(self, now: int) -> None:
        """The clock went back: what was stamped lies in its future."""
        for endpoint in self.members:
            endpoint.stamp = min(endpoint.stamp, now)
            endpoint.returned_at = min(endpoint.returned_at, now)
            if endpoint.seen_up_at is not None:
                endpoint.seen_up_at = min(endpoint.seen_up_at, now)

    def eject(self, endpoint: Endpoint, now: int, policy: Policy) -> bool:
        """Use it no more for a while, if there is room for that."""
        if endpoint.ejected_until or len(self.ejected) >= room(len(self.members), policy.eject):
            return False
        lasted = policy.eject.longest
        endpoint.ejections = endpoint.ejections + 1 if now - endpoint.returned_at < lasted else 1
        endpoint.ejected_until = max(1, now + duration(endpoint.ejections, policy.eject, self._stream))
        self.ejected.append(endpoint)
        self.draw_up(now, policy)
        return True

    def judge(self, now: int, policy: Policy) -> None:
        """Compare the success ratios since this was last done."""
        judged: list[Endpoint] = []
        ratios: list[float] = []
        for endpoint in self.members:
            succeeded = endpoint.succeeded - endpoint.succeeded_judged
            calls = succeeded + endpoint.failed - endpoint.failed_judged
            endpoint.succeeded_judged, endpoint.failed_judged = endpoint.succeeded, endpoint.failed
            if calls >= JUDGED_CALLS and not endpoint.ejected_until:
                judged.append(endpoint)
                ratios.append(succeeded / calls)
        for at in outliers(ratios, policy.eject.success_sigma):
            self.eject(judged[at], now, policy)

    def by_key(self, number: int, in_flight: float) -> Iterator[tuple[Endpoint, int]]:
        """Endpoints in the order in which they are asked to take a key, each with the calls it may have in flight,
        where all of them are to have so many."""
        if self._ring is None:
            self._ring = Ring([(endpoint.key, max(1e-3, float(endpoint.view.weight))) for endpoint in self.members])
        for at in self._ring.walk(number):
            endpoint = self.members[at]
            if not endpoint.ejected_until:
                yield endpoint, self._ring.bound(at, in_flight)

    def hurt_part(self) -> float:
        """The part of those drawn from that failed lately."""
        return sum(endpoint.hurt > 0 for endpoint in self.drawn) / len(self.drawn)

    def _weigh(self, now: int, policy: Policy) -> None:
        self.is_warming = False
        self._weights = []
        for endpoint in self.members:
            view = endpoint.view
            weight = float(view.weight)
            if endpoint.seen_up_at is not None:
                weight = up_weight(view, endpoint.seen_up_at, now, policy)
                self.is_warming = self.is_warming or weight < view.weight
            self._weights.append(max(weight, 1e-3))

    def _pardon(self, endpoint: Endpoint, now: int) -> None:
        """It returns, and warms up as one that is fresh."""
        endpoint.ejected_until = endpoint.consecutive = endpoint.hurt = 0
        endpoint.returned_at = now
        if endpoint.view.status in UP:
            endpoint.seen_up_at = now
        self.ejected.remove(endpoint)

    def assume(self) -> None:
        """Who was never asked is taken to be as fast as the others are on average."""
        known = [endpoint.cost for endpoint in self.members if endpoint.stamp and not endpoint.hurt]
        if known and len(known) < len(self.members):
            mean = sum(known) / len(known)
            for endpoint in self.members:
                if not endpoint.stamp:
                    endpoint.cost = mean

    def _forgive(self) -> None:
        """Who failed and was left alone so long that it is expected to cost what the others do is no suspect any more."""
        hurt = [endpoint for endpoint in self.members if endpoint.hurt]
        if hurt:
            well = [endpoint.cost for endpoint in self.members if not endpoint.hurt]
            usual = sum(well) / len(well) if well else min(hurt, key=_COST).cost
            for endpoint in hurt:
                if endpoint.cost <= usual:
                    endpoint.hurt = 0


def _age(endpoint: Endpoint, now: int) -> None:
    """What was learned of it counts less, the longer nothing came."""
    gap = now - endpoint.stamp
    if endpoint.stamp and gap > 0:
        tau = latency.HURT_TAU if endpoint.hurt else latency.TAU
        endpoint.cost = max(latency.LEAST, endpoint.cost * latency.decay(gap / (tau * SECOND)))
        endpoint.stamp = now


def ring_offset(caller: str) -> float:
    """Where a caller's aperture begins, 0..1."""
    return digest(caller) / SPAN
