"""A place: the endpoints of one data center that a caller may use, what it learned of each, and the table it draws from.

Invariant: whoever stands in `table` is usable by the catalog's word and not ejected, save where all that is usable would be
ejected otherwise.
"""

from collections.abc import Iterator, Sequence
from operator import attrgetter

from dislocate.core.balance import aperture
from dislocate.core.balance.believing import bound_of
from dislocate.core.balance.darkness import Darkness
from dislocate.core.balance.ejection import JUDGED_CALLS, duration, outliers, room
from dislocate.core.balance.endpoint import LOOKED_AT, Endpoint
from dislocate.core.balance.endpoints import ANSWERED, NOBODY, UP, up_weight
from dislocate.core.balance.hashing import SPAN, Ring, digest
from dislocate.core.boundary.balance import Algorithm, Policy
from dislocate.core.streams import Stream
from dislocate.core.tunables import BELIEVED

BUSY = 0.2  # utilization below which it says nothing of capacity
LIGHTEST = 0.01  # of the mean weight: what is in flight is divided by no less


_POINT = attrgetter("point", "key")


class Place:
    """The usable endpoints of one data center."""

    __slots__ = (
        "_capacity",
        "_in_flight",
        "_offered",
        "_offset",
        "_ring",
        "_settled",
        "_stream",
        "_uncounted",
        "_weights",
        "darkness",
        "datacenter",
        "drawn",
        "ejected",
        "grade",
        "is_warming",
        "members",
        "reached",
        "silent",
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
        self.darkness = Darkness()
        self.reached = 0  # connections that were made, for calls that may stay open long
        self.silent = 0  # calls that nobody answered
        self._weights: list[float] = []
        self._settled: list[tuple[Endpoint, int, int | None]] = []
        self._offset = offset
        self._stream = stream
        self._ring: Ring | None = None
        self._offered = 0.0
        self._capacity = 0.0
        self._in_flight = 0  # when they were last counted
        self._uncounted = 1 << 30  # picks by key since then

    def settle(self, members: Sequence[Endpoint], grade: int, now: int, policy: Policy, changes_policy: bool) -> None:
        """These are usable from now on."""
        if grade < ANSWERED <= self.grade:
            self.darkness.end(self._answers())  # it is said to be reached again
        self.grade = grade
        settled = [(endpoint, endpoint.view.weight, endpoint.seen_up_at) for endpoint in members]
        if settled == self._settled and not changes_policy:
            self._capacity = policy.capacity or _measured(self.members)
            return
        self._settled = settled
        answers = self._answers()
        for endpoint in self.members:
            endpoint.place = None
        self.members = tuple(sorted(members, key=_POINT))
        for endpoint in self.members:
            endpoint.place = self
        self.silent += self._answers() - answers  # that others are counted now is no answer
        self.ejected = [endpoint for endpoint in self.members if endpoint.ejected_until]
        while len(self.ejected) > room(len(self.members), policy.eject):
            self._pardon(min(self.ejected, key=attrgetter("ejected_until", "key")), now)
        self._ring = None
        self._capacity = policy.capacity or _measured(self.members)
        self.units = self._wanted(policy)
        self.assume()
        self.draw_up(now, policy)

    def draw_up(self, now: int, policy: Policy) -> None:
        """Make the table anew."""
        members = self.members
        if not members:
            self.drawn, self.table, self.width = (), (), 0
            return
        self._weigh(now, policy)
        available = [not endpoint.ejected_until for endpoint in members]
        covered = aperture.window(available, self._offset, self.units)
        self.drawn = tuple(members[at] for at, _ in covered)
        weights = [max(1e-3, part) * self._weights[at] for at, part in covered]
        mean = sum(weights) / len(weights)
        for endpoint, weight in zip(self.drawn, weights, strict=True):
            endpoint.inverse = mean / max(weight, LIGHTEST * mean)
        if policy.algorithm is Algorithm.WEIGHTED:
            self.table = aperture.single_table(self.drawn, weights)
        else:
            self.table = aperture.pair_table(self.drawn, weights, self._stream)
        self.width = (len(self.table) - 1).bit_length()

    def tick(self, now: int, policy: Policy, offered: float) -> None:
        """A second is over, in which so many calls a second were sent: costs decay, errors are forgotten, who was ejected
        returns, the aperture fits what is sent."""
        for endpoint in self.members:
            endpoint.grow_old(now)
        self.assume()
        self._forgive()
        returning = [
            endpoint
            for endpoint in self.ejected
            if not now < endpoint.ejected_until <= now + 2 * max(policy.eject.longest, policy.eject.base)
        ]
        for endpoint in returning:
            self._pardon(endpoint, now)
        self._offered = offered
        wanted = self._wanted(policy)
        fits = wanted <= self.units <= 2 * wanted
        if not fits:
            self.units = wanted
        if returning or self.is_warming or not fits:
            self.draw_up(now, policy)

    def rest(self, now: int) -> None:
        """The clock went back: what was stamped lies in its future."""
        for endpoint in self.members:
            endpoint.stamp = min(endpoint.stamp, now)
            endpoint.returned_at = min(endpoint.returned_at, now)
            if endpoint.seen_up_at is not None:
                endpoint.seen_up_at = min(endpoint.seen_up_at, now)

    def unanswered(self, endpoint: Endpoint, now: int, *, is_refused: bool) -> bool:
        """A call to `endpoint` ended without an answer.  Whether nothing reaches this place, as it seems now."""
        self.silent += 1
        if is_refused and not self.darkness.is_dark:
            self.darkness.refused(endpoint.key, self._answers(), len(self.members), now)
            return self.darkness.is_dark
        return False

    def lights_up(self, now: int) -> bool:
        """Whether it was dark until now, and somebody there has answered."""
        return self.darkness.is_dark and self.darkness.ends(self._answers(), now)

    def _answers(self) -> int:
        return sum([endpoint.succeeded + endpoint.failed for endpoint in self.members]) - self.silent + self.reached

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

    def led_by(self, number: int) -> tuple[Endpoint, bool]:
        """The first to be asked to take a key, and whether it can."""
        ring = self._ring or self._ring_of_members()
        at = ring.first(number)
        endpoint = self.members[at]
        if endpoint.ejected_until:
            return endpoint, False
        return endpoint, not endpoint.pending or endpoint.pending < ring.bound(at, self._counted())

    def by_key(self, number: int) -> Iterator[tuple[Endpoint, bool]]:
        """Endpoints in the order in which they are asked to take a key, each with whether it can."""
        ring = self._ring_of_members()
        in_flight = self._counted()
        for at in ring.walk(number):
            endpoint = self.members[at]
            yield endpoint, not endpoint.ejected_until and endpoint.pending < ring.bound(at, in_flight)

    def _counted(self) -> int:
        """Calls in flight with one more; counted anew so seldom that it costs no more than all the rest."""
        if self._uncounted >= len(self.members) // 8:
            self._in_flight, self._uncounted = sum([endpoint.pending for endpoint in self.members]), 0
        self._uncounted += 1
        return self._in_flight + self._uncounted

    def _ring_of_members(self) -> Ring:
        if self._ring is None:
            self._ring = Ring([(endpoint.key, max(1e-3, float(endpoint.view.weight))) for endpoint in self.members])
        return self._ring

    def hurt_part(self) -> float:
        """The part of those drawn from that failed lately; of many, some stand for all."""
        some = self.drawn[:LOOKED_AT]
        return sum([endpoint.hurt > 0 for endpoint in some]) / max(1, len(some))

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
        endpoint.clear()
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
        if not hurt:
            return
        well = [endpoint.cost for endpoint in self.members if not endpoint.hurt]
        usual = sum(well) / len(well) if well else min(endpoint.cost for endpoint in hurt)
        for endpoint in hurt:
            if endpoint.cost <= usual:
                endpoint.hurt = 0

    def _wanted(self, policy: Policy) -> int:
        return aperture.width(len(self.members), policy.aperture, self._offered, self._capacity)


def _measured(members: Sequence[Endpoint]) -> float:
    """Requests a second that one of them can do, by what they say of their load; 0: they say too little."""
    loads = [endpoint.view.load for endpoint in members]
    able = [load.rate / load.utilization for load in loads if load is not None and load.utilization > BUSY]
    bound = bound_of(able, BELIEVED)
    return sum(min(one, bound) for one in able) / len(able) if able else 0.0


def ring_offset(caller: str) -> float:
    """Where a caller's aperture begins, 0..1."""
    return digest(caller) / SPAN
