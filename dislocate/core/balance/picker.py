"""The picker: which instance this call of this caller goes to, and what its end teaches.

A machine of its own, fed with routes: the data center by shares, in a sequence of low discrepancy, so that few calls
already follow the flows; there the better of two by calls in flight and peak EWMA of latency, within the caller's
aperture; or, with a key, the member that a consistent hash with bounded load names.

Invariants: where any instance was ever known that may be used, a pick names one, if only the last known; `done` counts
once, whenever it comes; a clock that jumps costs at most a second's worth of averages.  Nothing here locks: callers in
several threads hold a lock around `pick` and `done`.

A pick and its report are the hot path: it adds, compares and draws once; whatever can wait is done in `_tick`, once a
second, by whoever picks next.  Source: Finagle (peak EWMA, aperture, budgets), SRE book (throttle), Envoy (ejection).
"""

from collections.abc import Container, Iterator
from enum import Enum

from msgspec import Struct

from dislocate.core.balance import latency
from dislocate.core.balance.budget import RetryBudget
from dislocate.core.balance.ejection import JUDGED_EACH
from dislocate.core.balance.endpoints import ANSWERED, UP, by_datacenter, grade, panics, usable
from dislocate.core.balance.errors import NoEndpoint, RetriesSpent, Throttled
from dislocate.core.balance.hashing import SPAN, digest
from dislocate.core.balance.place import SAMPLES, Endpoint, Place, ring_offset
from dislocate.core.balance.throttle import WINDOW, Throttle
from dislocate.core.boundary.balance import Policy, Route, Spill, Usage
from dislocate.core.streams import Stream
from dislocate.core.tunables import OUTCOMES_TOLD
from dislocate.core.units import SECOND

__all__ = ["Endpoint", "Outcome", "Picked", "Picker"]

GOLDEN = 0.6180339887498949  # its multiples fill the unit interval as evenly as any sequence can
LONG_AGO = -(1 << 62)
HEDGE_SAMPLES = 20  # fewer say nothing of a 95th percentile
HEDGE_ENDPOINTS = 64
STALE = 10 * SECOND  # a route that nobody confirmed for so long is said to be old


class Outcome(Enum):
    """How a call ended."""

    OK = "ok"
    FAILED = "failed"  # an answer that says so, or a connection that broke
    TIMED_OUT = "timed_out"
    REFUSED = "refused"  # no connection was made: trying again costs no budget
    CANCELLED = "cancelled"  # the caller lost interest: says nothing, save that it took so long at least


OK = Outcome.OK


class Picked(Struct):
    """A call under way: give it back to `done`, once."""

    endpoint: Endpoint
    began: int
    _picker: "Picker"
    _other: Endpoint | None = None
    _note: str = ""
    is_done: bool = False

    @property
    def why(self) -> str:
        """The reasons in a sentence; numbers are those of the moment of asking."""
        return self._picker.reasons(self.endpoint, self._other, self._note, self.began)


class Picker:
    """Picks for one service.  `caller` places the aperture: the same name, the same place; none: anywhere."""

    def __init__(self, service: str, stream: Stream, caller: str = "") -> None:
        self.service = service
        self.route: Route | None = None
        self._stream = stream
        self._bits = stream.bits
        self._offset = ring_offset(caller) if caller else stream.unit()
        self._turn = stream.unit()
        self._endpoints: dict[str, Endpoint] = {}
        self._places: dict[str, Place] = {}
        self._first = Place("", self._offset, stream)  # where all picks go, unless they are split
        self._is_split = False
        self._spread: tuple[tuple[float, Place], ...] = ()  # (upper bound in 0..1, place)
        self._nobody = "no route has come yet: is the agent there?"
        self._policy = Policy()
        self._timeout = self._policy.timeout / SECOND
        self._confirmed = 0  # when the route was last known to be current
        self._lost_at: int | None = None  # since when nobody is registered; None: somebody is
        self._since = 0  # [since, until): no second is over, and nothing is unusual
        self._until = 0
        self._judged_at = 0
        self._begun = self._begun_before = self._begun_told = 0  # first attempts: all, until this second, until told
        self._retried = self._retried_before = self._retried_told = 0
        self._kept = self._kept_before = 0  # picks that named nobody
        self._accepted = self._accepted_before = 0
        self._over = 0  # calls that ended otherwise than well
        self._moot = self._moot_before = 0  # calls that burdened nobody: refused connections, cancelled ones
        self._told_at: int | None = None
        self._budget = RetryBudget()
        self._throttle = Throttle()
        self._hedge: int | None = None

    # ---- what the agent says

    def update(self, route: Route, now: int) -> None:
        """Take a route; what was learned of endpoints that stay is kept."""
        before, self.route = self.route, route
        self._confirmed = now
        self._policy = route.policy
        self._timeout = max(1e-3, route.policy.timeout / SECOND)
        if self._told_at is None:
            self._told_at = now
        if not route.instances and any(place.members for place in self._places.values()):
            self._lost_at = now if self._lost_at is None else self._lost_at
        else:
            self._lost_at = None
            if before is None or before.instances != route.instances or before.policy != route.policy:
                self._settle(route, now, is_first=before is None)
        self._divide(route)
        if not route.policy.hedge:
            self._hedge = None

    def confirm(self, now: int) -> None:
        """The agent said that nothing has changed."""
        self._confirmed = max(self._confirmed, now)

    def age(self, now: int) -> int:
        """Nanoseconds since the route was last known to be current."""
        return max(0, now - self._confirmed)

    # ---- a call

    def pick(self, now: int, *, key: str = "", exclude: Container[str] = (), retry: bool = False) -> Picked:
        """The endpoint for a call that begins `now`.

        `exclude` holds keys of endpoints that others are preferred to (those tried before); `key` asks for the same
        endpoint each time; `retry` says that the call is tried again and takes a token of the budget, which is wrong
        after REFUSED only.  Raises `NoEndpoint`, `Throttled`, `RetriesSpent`."""
        if not self._since <= now < self._until or key or exclude or retry:
            return self._pick_with_care(now, key, exclude, retry)
        self._begun += 1
        place = self._first
        if self._is_split:
            turn = self._turn + GOLDEN
            if turn >= 1.0:
                turn -= 1.0
            self._turn = turn
            for bound, where in self._spread:
                if turn < bound:
                    place = where
                    break
        first, second = place.table[self._bits(place.width)]
        if (second.pending * second.inverse + 1.0) * second.cost < (first.pending * first.inverse + 1.0) * first.cost:
            first, second = second, first
        if first.hurt:
            first = self._again(place, first)
        first.pending += 1
        return Picked(first, now, self, second)

    def done(self, picked: Picked, now: int, outcome: Outcome = OK) -> None:
        """The call ended; a second time says nothing."""
        if picked.is_done:
            return
        picked.is_done = True
        endpoint = picked.endpoint
        endpoint.pending -= 1
        if outcome is not OK or endpoint.hurt:
            self._learn(endpoint, picked.began, now, outcome)
            return
        self._accepted += 1
        elapsed = (now - picked.began) * 1e-9
        cost = endpoint.cost
        if 0.0 <= elapsed < cost:
            x = (now - endpoint.stamp) * 1e-10
            endpoint.cost = elapsed + (cost - elapsed) / (1.0 + x + x * x * 0.5)
            endpoint.stamp = now
        else:
            elapsed = self._peak(endpoint, elapsed, now)
        at = endpoint.succeeded
        endpoint.samples[at & 255] = elapsed
        endpoint.succeeded = at + 1

    def hedge_after(self) -> int | None:
        """Nanoseconds after which an idempotent call may be tried a second time, `retry=True`; None: do not."""
        return self._hedge

    def usage(self, now: int) -> Usage | None:
        """What was done since this was last asked; None: nothing."""
        elapsed = now - self._told_at if self._told_at is not None else 0
        if elapsed <= 0:
            self._told_at = now
            return None
        begun, retried = self._begun - self._begun_told, self._retried - self._retried_told
        outcomes = [told for endpoint in self._endpoints.values() if (told := endpoint.outcomes()) is not None]
        self._told_at = now
        if not begun and not retried and not outcomes:
            return None
        self._begun_told, self._retried_told = self._begun, self._retried
        outcomes.sort(key=lambda told: (-told.calls, told.node, told.instance))
        scale = SECOND / elapsed
        return Usage(self.service, begun * scale, retried * scale, tuple(outcomes[:OUTCOMES_TOLD]))

    # ---- why

    def reasons(self, endpoint: Endpoint, other: Endpoint | None, note: str, began: int) -> str:
        """A sentence for people."""
        parts = [note or _compared(endpoint, other)]
        route = self.route
        if route is not None:
            share = next((one.share for one in route.shares if one.datacenter == endpoint.datacenter), 0.0)
            parts.append(f"{share:.0%} of the traffic from {route.home} goes to {endpoint.datacenter}")
        if self._lost_at is not None:
            parts.append(
                f"nobody is registered any more: last known good, {max(0, began - self._lost_at) / SECOND:.0f} s old"
            )
        place = endpoint.place
        if self._lost_at is None and place is not None and place.grade >= ANSWERED:
            parts.append(f"nobody better is known: it is {endpoint.view.status.value}")
        if self.age(began) > STALE:
            parts.append(f"the agent was last heard {self.age(began) / SECOND:.0f} s ago")
        return "; ".join(parts)

    # ---- the slower ways

    def _pick_with_care(self, now: int, key: str, exclude: Container[str], retry: bool) -> Picked:
        if not self._since <= now < self._until:
            self._tick(now)
        calls = self._begun - self._begun_before
        if not retry:
            self._begun += 1
        elif not self._spread:
            raise NoEndpoint(self.service, self._nobody)
        if self._throttle.part and self._stream.unit() < self._throttle.part:
            self._kept += not retry
            raise Throttled(self.service, self._throttle.part)
        if not self._spread:
            self._kept += 1
            raise NoEndpoint(self.service, self._nobody)
        if retry:
            if not self._budget.take(self._policy.retries, calls):
                allowed = self._budget.allowed(self._policy.retries, calls)
                raise RetriesSpent(self.service, self._budget.spent(), allowed)
            self._retried += 1
        endpoint, other, note = self._chosen(key, exclude)
        endpoint.ready()
        endpoint.pending += 1
        return Picked(endpoint, now, self, other, note)

    def _chosen(self, key: str, exclude: Container[str]) -> tuple[Endpoint, Endpoint | None, str]:
        if key:
            return self._chosen_by_key(key, exclude)
        self._turn = (self._turn + GOLDEN) % 1.0
        place = self._at(self._turn)
        first, second = place.table[self._bits(place.width)]
        if second.score() < first.score():
            first, second = second, first
        if first.hurt:
            first = self._again(place, first)
        if not exclude or first.key not in exclude:
            return first, second, ""
        if second.key not in exclude:
            return second, None, f"{first.key} is excluded"
        for where in self._in_order(place):
            left = [endpoint for endpoint in where.members if endpoint.key not in exclude]
            left = [endpoint for endpoint in left if not endpoint.ejected_until] or left
            if left:
                well = [endpoint for endpoint in left if not endpoint.hurt] or left
                at = self._stream.below(len(well))
                first = min(well[at:] + well[:at], key=Endpoint.score)
                return first, None, "the best of those not excluded"
        return first, second, "all others are excluded too"

    def _chosen_by_key(self, key: str, exclude: Container[str]) -> tuple[Endpoint, Endpoint | None, str]:
        number = digest(key)
        home = self._at((number * 0x9E3779B97F4A7C15 % (1 << 64)) / SPAN)
        last: Endpoint | None = None
        for where in self._in_order(home):
            for endpoint, bound in where.by_key(number, 1.0 + self._in_flight() * self._part_of(where)):
                last = last or endpoint
                if endpoint.key not in exclude and endpoint.pending < bound:
                    return endpoint, None, "its key leads there"
        first = last or home.drawn[0]
        return first, None, "its key leads there, and all others are excluded"

    def _in_flight(self) -> int:
        return self._begun + self._retried - self._kept - self._accepted - self._over

    def _part_of(self, place: Place) -> float:
        lower = 0.0
        for bound, where in self._spread:
            if where is place:
                return min(1.0, bound) - lower
            lower = bound
        return 1.0

    def _at(self, turn: float) -> Place:
        return next((place for bound, place in self._spread if turn < bound), self._spread[-1][1])

    def _in_order(self, first: Place) -> Iterator[Place]:
        """`first`, then the other places with a share, nearest first."""
        yield first
        for _, place in self._spread:
            if place is not first:
                yield place

    def _again(self, place: Place, chosen: Endpoint) -> Endpoint:
        """Draw anew while who was drawn failed lately, as often as it takes to miss with 1 % (Finagle's maxEffort)."""
        part = place.hurt_part()
        missed = part * part
        odds = missed
        while odds < 0.25 and chosen.hurt:  # above a half nobody is a suspect: then all fail
            first, second = place.table[self._bits(place.width)]
            better = second if second.score() < first.score() else first
            if not better.hurt or better.score() < chosen.score():
                chosen = better
            if odds <= 0.01:
                break
            odds *= missed
        return chosen

    def _peak(self, endpoint: Endpoint, elapsed: float, now: int) -> float:
        """A call that took longer than expected, or less than nothing; the seconds it counts as."""
        if elapsed < 0.0:  # the clock went back meanwhile: its duration is unknown
            return endpoint.cost
        elapsed = min(elapsed, self._timeout)  # longer is no latency: a clock that leapt, or a stream
        is_first = not endpoint.stamp
        endpoint.cost = max(elapsed, latency.LEAST)
        endpoint.stamp = now
        if is_first and endpoint.place is not None:
            endpoint.place.assume()
        return elapsed

    def _learn(self, endpoint: Endpoint, began: int, now: int, outcome: Outcome) -> None:
        """What is not a success of an endpoint in good standing."""
        self._over += outcome is not OK
        elapsed = min(max(0.0, (now - began) / SECOND), self._timeout)
        if outcome is OK:
            self._accepted += 1
            endpoint.consecutive = 0
            endpoint.hurt -= 1
            endpoint.cost = max(elapsed, endpoint.cost / latency.TRUST, latency.LEAST)
            endpoint.samples[endpoint.succeeded & (SAMPLES - 1)] = elapsed
            endpoint.succeeded += 1
        elif outcome is Outcome.CANCELLED:
            self._moot += 1
            endpoint.cost = max(endpoint.cost, elapsed)
            return
        else:
            self._moot += outcome is Outcome.REFUSED
            endpoint.failed += 1
            endpoint.consecutive += 1
            endpoint.hurt = latency.HURT
            endpoint.cost = latency.after_error(endpoint.cost, elapsed, self._timeout)
            eject = self._policy.eject
            if 0 < eject.consecutive <= endpoint.consecutive and endpoint.place is not None:
                endpoint.place.eject(endpoint, now, self._policy)
        endpoint.stamp = now

    # ---- once a second

    def _tick(self, now: int) -> None:
        went_back = now < self._since
        whole = 0 if went_back else (now - self._since) // SECOND
        if went_back:
            for place in self._places.values():
                place.rest(now)
            self._judged_at = min(self._judged_at, now)
            self._confirmed = min(self._confirmed, now)
        begun = self._begun - self._begun_before
        retried = self._retried - self._retried_before
        if whole:
            self._turn_second(min(whole, WINDOW), begun, retried)
        if whole or went_back:
            self._since = now
            self._look_after(now, (begun + retried) / max(1.0, whole))
        quick = self._spread and not self._throttle.part
        self._until = self._since + SECOND if quick else self._since

    def _turn_second(self, whole: int, begun: int, retried: int) -> None:
        moot = self._moot - self._moot_before
        kept = self._kept - self._kept_before
        accepted = self._accepted - self._accepted_before
        self._budget.turn(whole, begun - kept)
        wanted = max(0, begun + retried - moot)
        self._throttle.turn(whole, wanted, max(0, wanted - kept), accepted, self._policy.throttle)
        self._begun_before, self._retried_before = self._begun, self._retried
        self._kept_before, self._moot_before, self._accepted_before = self._kept, self._moot, self._accepted

    def _look_after(self, now: int, rate: float) -> None:
        policy = self._policy
        is_judging = now - self._judged_at >= JUDGED_EACH
        for place in self._places.values():
            if place.members:
                place.tick(now, policy, rate, policy.capacity)
                if is_judging:
                    place.judge(now, policy)
        if is_judging:
            self._judged_at = now
        if policy.hedge:
            self._hedge = self._percentile_95()

    def _percentile_95(self) -> int | None:
        drawn = [endpoint for _, place in self._spread for endpoint in place.drawn][:HEDGE_ENDPOINTS]
        kept = [elapsed for endpoint in drawn for elapsed in endpoint.latest(SAMPLES)]
        return round(latency.percentile(sorted(kept), 0.95) * SECOND) if len(kept) >= HEDGE_SAMPLES else None

    # ---- a new route

    def _settle(self, route: Route, now: int, is_first: bool) -> None:
        known = self._endpoints
        self._endpoints = {}
        for view in route.instances:
            key = f"{view.node}/{view.id}"
            endpoint = known.get(key)
            if endpoint is None or (endpoint.address, endpoint.port) != (view.address, view.port):
                endpoint = Endpoint(key, view)
            endpoint.view = view
            if view.status not in UP:
                endpoint.seen_up_at = None
            elif endpoint.seen_up_at is None:
                endpoint.seen_up_at = LONG_AGO if is_first else now
            self._endpoints[key] = endpoint
        panic = panics(route.instances)
        found = by_datacenter(route.instances)
        for name in sorted({*found, *self._places}):
            place = self._places.get(name)
            if place is None:
                place = self._places[name] = Place(name, self._offset, self._stream)
            views = found.get(name, ())
            members = [self._endpoints[f"{view.node}/{view.id}"] for view in usable(views, panic)]
            place.settle(members, grade(views), now, route.policy)

    def _divide(self, route: Route) -> None:
        """Which places take which part of the picks."""
        parts = self._parts(route)
        total = sum(part for _, part in parts)
        bounds: list[tuple[float, Place]] = []
        upper = 0.0
        for place, part in parts:
            upper += part / total
            bounds.append((upper, place))
        if bounds:
            bounds[-1] = (2.0, bounds[-1][1])
        self._spread = tuple(bounds)
        self._first = bounds[0][1] if bounds else self._first
        self._is_split = len(bounds) > 1
        self._until = self._since  # the next pick looks
        self._nobody = (
            "all of its instances are in maintenance" if route.instances and not self._any() else self._absent(route)
        )

    def _parts(self, route: Route) -> list[tuple[Place, float]]:
        places = self._places
        shared = [
            (places[share.datacenter], share.share)
            for share in route.shares
            if share.share > 0.0 and share.datacenter in places and places[share.datacenter].members
        ]
        answering = [(place, part) for place, part in shared if place.grade < ANSWERED]
        if answering:
            return answering
        home = places.get(route.home)
        at_home = [(home, 1.0)] if home is not None and home.members else []
        if route.policy.spill is Spill.NEVER:
            return shared or at_home
        elsewhere = [(place, 1.0) for place in places.values() if place.members and place.grade < ANSWERED]
        if home is not None and (home, 1.0) in elsewhere:
            return at_home
        return elsewhere or shared or at_home or [(place, 1.0) for place in places.values() if place.members]

    def _any(self) -> bool:
        return any(place.members for place in self._places.values())

    def _absent(self, route: Route) -> str:
        if self._any() and route.policy.spill is Spill.NEVER:
            return f"nobody lives in {route.home}, and its policy keeps calls there (spill = never)"
        return "nobody is registered"


def _compared(endpoint: Endpoint, other: Endpoint | None) -> str:
    if other is None or other is endpoint:
        return f"drawn by weight: {_told(endpoint)}"
    return f"the better of two: {_told(endpoint)}, rather than {other.key}: {_told(other)}"


def _told(endpoint: Endpoint) -> str:
    return f"{endpoint.pending} in flight, {endpoint.cost * 1000.0:.3g} ms"
