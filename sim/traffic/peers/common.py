"""What several peers' policies have in common: who may be used, retry budgets as documented, and the order of nearness."""

from collections.abc import Sequence

from dislocate.core.streams import Stream
from sim.traffic.balancer import Call, Ended, Known, Place, Setting, Told


def nearest_first(setting: Setting) -> dict[str, tuple[str, ...]]:
    """For each data center all of them, by round trip, itself first."""
    plan = setting.plan
    return {
        here: tuple(sorted(plan.datacenters, key=lambda there: (plan.round_trip(here, there), there)))
        for here in plan.datacenters
    }


class Healthy:
    """The places that health checks call up, by data center; looked up anew only when something has changed."""

    def __init__(self, setting: Setting) -> None:
        self._places = setting.places
        self.all: dict[str, tuple[Place, ...]] = {
            name: tuple(place for place in setting.places if place.datacenter == name)
            for name in setting.plan.datacenters
        }
        self.up = self.all
        self.everywhere = setting.places

    def refresh(self) -> None:
        self.up = {name: tuple(one for one in places if one.known is Known.UP) for name, places in self.all.items()}
        self.everywhere = tuple(place for places in self.up.values() for place in places)


class LeastRequest:
    """Power of two choices on a caller's own active requests (Envoy's least request with equal weights)."""

    def __init__(self, setting: Setting) -> None:
        self._active = [[0] * len(setting.places) for _ in setting.callers]
        self._stream = setting.streams["least request"]

    def pick(self, call: Call, places: Sequence[Place]) -> Place:
        """One of `places`, which are not empty; who has failed this call only when there is nobody else."""
        chosen = without(places, call.tried) or places
        active, stream = self._active[call.caller.at], self._stream
        one, other = chosen[int(stream.unit() * len(chosen))], chosen[int(stream.unit() * len(chosen))]
        place = one if active[one.at] <= active[other.at] else other
        active[place.at] += 1
        return place

    def done(self, call: Call) -> None:
        assert call.place is not None
        self._active[call.caller.at][call.place.at] -= 1


class Budget:
    """Retries a caller may make: `ratio` of its calls and `per_second` besides, over ten seconds (Finagle's RetryBudget)."""

    def __init__(self, ratio: float, per_second: float) -> None:
        self._ratio = ratio
        self._per_second = per_second
        self._calls = [0] * 10
        self._retries = [0] * 10

    def begun(self) -> None:
        self._calls[-1] += 1

    def take(self) -> bool:
        if sum(self._retries) >= self._ratio * sum(self._calls) + 10 * self._per_second:
            return False
        self._retries[-1] += 1
        return True

    def second(self) -> None:
        """A second has passed."""
        self._calls = [*self._calls[1:], 0]
        self._retries = [*self._retries[1:], 0]


def without(places: Sequence[Place], tried: tuple[Place, ...]) -> Sequence[Place]:
    """`places` but those that were tried already."""
    return [place for place in places if place not in tried] if tried else places


def weighted(stream: Stream, weights: Sequence[float]) -> int:
    """A position, by weight; the first where all are zero."""
    left = stream.unit() * sum(weights)
    for at, weight in enumerate(weights):
        left -= weight
        if left < 0:
            return at
    return 0


class Plain:
    """A policy without reports: only health moves it."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.healthy = Healthy(setting)

    def done(self, call: Call, now: int, ended: Ended) -> None:
        """Nothing is learnt from calls."""

    def tick(self, now: int, told: Sequence[Told | None]) -> None:
        """Nothing is learnt from reports."""

    def changed(self, now: int) -> None:
        self.healthy.refresh()
