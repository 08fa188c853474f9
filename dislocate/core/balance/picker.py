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

from collections.abc import Container
from operator import itemgetter

from dislocate.core.balance.books import Books
from dislocate.core.balance.dividing import bounds_of, in_order, parts_of, why_nobody
from dislocate.core.balance.ejection import JUDGED_EACH
from dislocate.core.balance.endpoint import Endpoint, Outcome, percentile_95
from dislocate.core.balance.endpoints import ANSWERED, UP, by_datacenter, grade, panics, usable
from dislocate.core.balance.errors import NoEndpoint, Throttled
from dislocate.core.balance.hashing import SPAN, digest
from dislocate.core.balance.picked import DONE, REACHED, Known, Picked
from dislocate.core.balance.place import Place, ring_offset
from dislocate.core.balance.throttle import WINDOW
from dislocate.core.boundary.balance import Policy, Route, Usage
from dislocate.core.boundary.values import Status
from dislocate.core.streams import Stream
from dislocate.core.units import SECOND

__all__ = ["Endpoint", "Outcome", "Picked", "Picker"]

GOLDEN = 0.6180339887498949  # its multiples fill the unit interval as evenly as any sequence can
LONG_AGO = -(1 << 62)
DRAWS = 4  # before all are looked through for one that is not excluded
ODD = 0x9E3779B97F4A7C15  # the golden ratio of 64 bits: a key's data center is independent of its place on a ring
MASK = (1 << 64) - 1
BEST = itemgetter(0, 1, 2, 3, 4, 5)
BY_KEY = "its key leads there"

OK = Outcome.OK


class Picker:
    """Picks for one service.  `caller` places the aperture: the same name, the same place; none: anywhere."""

    def __init__(self, service: str, stream: Stream, caller: str = "") -> None:
        self.service = service
        self._known = Known()
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
        self._since = 0  # [since, until): no second is over, and nothing is unusual
        self._until = 0
        self._judged_at = 0
        self._books = Books(service)
        self._hedge: int | None = None

    # ---- what the agent says

    @property
    def route(self) -> Route | None:
        """The last one that was taken."""
        return self._known.route

    def update(self, route: Route, now: int) -> None:
        """Take a route; what was learned of endpoints that stay is kept."""
        known = self._known
        before, known.route = known.route, route
        known.confirmed = now
        self._policy = route.policy
        self._timeout = max(1e-3, route.policy.timeout / SECOND)
        self._books.begin(now)
        if not route.instances and any(place.members for place in self._places.values()):
            known.lost_at = now if known.lost_at is None else known.lost_at
        else:
            known.lost_at = None
            if before is None or before.instances != route.instances or before.policy != route.policy:
                self._settle(route, now, before)
        self._divide(route)
        if not route.policy.hedge:
            self._hedge = None

    def confirm(self, now: int) -> None:
        """The agent said that nothing has changed."""
        self._known.confirmed = max(self._known.confirmed, now)

    def age(self, now: int) -> int:
        """Nanoseconds since the route was last known to be current."""
        return self._known.age(now)

    # ---- a call

    def pick(self, now: int, *, key: str = "", exclude: Container[str] = (), retry: bool = False) -> Picked:
        """The endpoint for a call that begins `now`.

        `exclude` holds keys of endpoints that others are preferred to (those tried before); `key` asks for the same
        endpoint each time, whatever the policy's algorithm; without one, `hash` is `p2c`.  `retry` says that the call is
        tried again and takes a token of the budget, which is wrong after REFUSED only.  Raises `NoEndpoint`, `Throttled`,
        `RetriesSpent`."""
        if not self._since <= now < self._until or key or exclude or retry:
            return self._pick_with_care(now, key, exclude, retry)
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
        return Picked(first, now, self._known, second)

    def done(self, picked: Picked, now: int, outcome: Outcome = OK) -> None:
        """The call ended; a second time says nothing."""
        if picked.stage:  # it ended before, or its connection was made
            if picked.stage == DONE:
                return
            self._books.reached -= 1
        picked.stage = DONE
        endpoint = picked.endpoint
        endpoint.pending -= 1
        if outcome is not OK or endpoint.hurt:
            self._learn(endpoint, picked.began, now, outcome)
            return
        elapsed = (now - picked.began) * 1e-9
        cost = endpoint.cost
        if 0.0 <= elapsed < cost:
            x = (now - endpoint.stamp) * 1e-10  # taus: the next line is `latency.decay`
            endpoint.cost = elapsed + (cost - elapsed) / (1.0 + x * (1.0 + 0.5 * x))
            endpoint.stamp = now
        else:
            elapsed = self._peak(endpoint, elapsed, now)
        endpoint.samples.append(elapsed)

    def reached(self, picked: Picked) -> None:
        """A connection was made: it is accepted and its data center within reach, however long it stays open.  Once."""
        if picked.stage:
            return
        picked.stage = REACHED
        self._books.reached += 1
        if picked.endpoint.place is not None:
            picked.endpoint.place.reached += 1

    def hedge_after(self) -> int | None:
        """Nanoseconds after which an idempotent call may be tried a second time, `retry=True`; None: do not."""
        return self._hedge

    def usage(self, now: int) -> Usage | None:
        """What was done since this was last asked; None: nothing."""
        return self._books.usage(now)

    # ---- the slower ways

    def _pick_with_care(self, now: int, key: str, exclude: Container[str], retry: bool) -> Picked:
        if not self._since <= now < self._until:
            self._tick(now)
        books = self._books
        if not self._spread:
            books.kept += not retry
            raise NoEndpoint(self.service, self._nobody)
        if books.throttled and self._stream.unit() < books.throttled:
            books.kept += not retry
            raise Throttled(self.service, books.throttled)
        if retry:
            books.take_token(now, self._policy.retries)
        if self._known.dark and not (exclude or retry):
            trial = self._trial(now, key)
            if trial is not None:
                return trial
        endpoint, other, note = self._chosen(key, exclude)
        endpoint.pending += 1
        return Picked(endpoint, now, self._known, other, note)

    def _trial(self, now: int, key: str) -> Picked | None:
        """The call that is to find out whether a data center that nothing reached is reached again, where one is due."""
        for name in self._known.dark:
            place = self._places[name]
            if place.drawn and place.grade < ANSWERED and place.darkness.takes_trial(now):
                untried = [one for one in place.drawn if not one.hurt] or place.drawn
                endpoint = place.led_by(digest(key))[0] if key else self._stream.choice(untried)
                endpoint.pending += 1
                note = f"a trial: no connection to {name} was made lately"
                trial = Picked(endpoint, now, self._known, None, note)
                place.darkness.tries(trial)
                return trial
        return None

    def _chosen(self, key: str, exclude: Container[str]) -> tuple[Endpoint, Endpoint | None, str]:
        if key:
            return self._chosen_by_key(key, exclude)
        self._turn = (self._turn + GOLDEN) % 1.0
        place = self._at(self._turn)
        if exclude and place.hurt_part() > 0.5:  # perhaps nothing reaches it, though the row does not know that yet
            order = in_order(place, self._known.route, self._places)
            place = next((one for one in order if one.hurt_part() <= 0.5 and not one.darkness.is_dark), place)
        for _ in range(DRAWS):
            first, second = place.table[self._bits(place.width)]
            if second.score() < first.score():
                first, second = second, first
            if first.hurt:
                first = self._again(place, first)
            if not exclude or first.key not in exclude:
                return first, second, ""
            if second.key not in exclude and not second.hurt:
                return second, None, f"{first.key} is excluded"
        left = self._left(place, exclude)
        return (left, None, "the best of those not excluded") if left else (first, None, "all others are excluded too")

    def _left(self, place: Place, exclude: Container[str]) -> Endpoint | None:
        """The best of all that are not excluded: within reach rather than in good standing, that rather than near, near
        rather than quick."""
        places = in_order(place, self._known.route, self._places)
        left = [
            (
                where.darkness.is_dark,
                endpoint.ejected_until > 0,
                endpoint.hurt > 0,
                nearness,
                endpoint.score(),
                self._stream.bits(16),
                endpoint,
            )
            for nearness, where in enumerate(places)
            for endpoint in where.members
            if endpoint.key not in exclude
        ]
        return min(left, key=BEST)[-1] if left else None

    def _chosen_by_key(self, key: str, exclude: Container[str]) -> tuple[Endpoint, Endpoint | None, str]:
        number = digest(key)
        home = self._at((number * ODD & MASK) / SPAN) if self._is_split else self._first
        first, is_free = home.led_by(number)
        if is_free and not exclude:
            return first, None, BY_KEY
        for where in in_order(home, self._known.route, self._places):
            for endpoint, is_free in where.by_key(number):
                if is_free and endpoint.key not in exclude:
                    return endpoint, None, BY_KEY
        return first, None, "its key leads there, and nobody else may take it"

    def _at(self, turn: float) -> Place:
        for bound, place in self._spread:
            if turn < bound:
                return place
        return self._first

    def _again(self, place: Place, chosen: Endpoint) -> Endpoint:
        """Draw anew while who was drawn failed lately, as often as it takes to miss with 1 % (Finagle's maxEffort)."""
        part = place.hurt_part()
        missed = part * part
        odds = missed
        while part <= 0.5 and chosen.hurt:  # above a half nobody is a suspect: then all fail
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
        if endpoint.peak(elapsed, now) and endpoint.place is not None:
            endpoint.place.assume()
        return elapsed

    def _learn(self, endpoint: Endpoint, began: int, now: int, outcome: Outcome) -> None:
        """What is not a success of an endpoint in good standing."""
        elapsed = min(max(0.0, (now - began) / SECOND), self._timeout)
        endpoint.learn(elapsed, now, outcome, self._timeout)
        self._books.moot += outcome in (Outcome.REFUSED, Outcome.CANCELLED)
        place = endpoint.place
        if place is None:
            return
        if outcome in (Outcome.REFUSED, Outcome.TIMED_OUT):
            grows_dark = place.unanswered(endpoint, now, is_refused=outcome is Outcome.REFUSED)
            if grows_dark and self._known.route is not None:
                self._divide(self._known.route)
        if 0 < self._policy.eject.consecutive <= endpoint.consecutive:
            place.eject(endpoint, now, self._policy)

    # ---- once a second

    def _tick(self, now: int) -> None:
        went_back = now < self._since
        whole = 0 if went_back else (now - self._since) // SECOND
        if went_back:
            for place in self._places.values():
                place.rest(now)
            self._judged_at = min(self._judged_at, now)
            self._known.confirmed = min(self._known.confirmed, now)
        if whole or went_back:
            self._since = now
            sent = self._books.turn(min(whole, WINDOW), self._policy.throttle, self._timeout) if whole else 0
            self._look_after(now, sent / max(1, whole))
        quick = self._spread and not self._books.throttled
        self._until = self._since + SECOND if quick else self._since

    def _look_after(self, now: int, rate: float) -> None:
        for endpoint in self._endpoints.values():
            endpoint.cut()
        lit = [name for name in self._known.dark if self._places[name].lights_up(now)]
        if lit and self._known.route is not None:
            self._divide(self._known.route)
        policy = self._policy
        is_judging = now - self._judged_at >= JUDGED_EACH
        for place in self._places.values():
            if place.members:
                place.tick(now, policy, rate)
                if is_judging:
                    place.judge(now, policy)
        if is_judging:
            self._judged_at = now
        if policy.hedge:
            self._hedge = percentile_95(endpoint for _, place in self._spread for endpoint in place.drawn)

    # ---- a new route

    def _settle(self, route: Route, now: int, before: Route | None) -> None:
        known = self._endpoints
        self._endpoints = {}
        for view in route.instances:
            key = f"{view.node}/{view.id}"
            endpoint = known.get(key)
            if endpoint is None or (endpoint.address, endpoint.port) != (view.address, view.port):
                endpoint = Endpoint(key, view)
            endpoint.view = view
            if view.status not in UP:
                if view.status is not Status.UNATTENDED:  # an agent that restarts makes no instance fresh
                    endpoint.seen_up_at = None
            elif endpoint.seen_up_at is None:
                endpoint.seen_up_at = LONG_AGO if before is None else now
                endpoint.clear()  # it came up anew
            self._endpoints[key] = endpoint
        self._books.settle(self._endpoints)
        changes_policy = before is None or before.policy != route.policy
        panic = panics(route.instances)
        found = by_datacenter(route.instances)
        for name in sorted({*found, *self._places}):
            place = self._places.get(name)
            if place is None:
                place = self._places[name] = Place(name, self._offset, self._stream)
            views = found.get(name, ())
            members = [self._endpoints[f"{view.node}/{view.id}"] for view in usable(views, panic)]
            place.settle(members, grade(views), now, route.policy, changes_policy)

    def _divide(self, route: Route) -> None:
        """Which places take which part of the picks."""
        self._known.dark = tuple([name for name, place in self._places.items() if place.darkness.is_dark])
        bounds = bounds_of(parts_of(route, self._places))
        if bounds:
            self._first = bounds[0][1]
        self._spread = bounds
        self._is_split = len(bounds) > 1
        self._until = self._since  # the next pick looks
        self._nobody = "" if bounds else why_nobody(route, self._places)
