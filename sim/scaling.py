"""A fluid model of scaling: demand comes, instances carry it or it is dropped, and a rule says how many there are to be.

One second a step: `capacity` requests a second for each instance that is up, one that was asked for `boot` seconds ago;
what is offered above that is dropped, nothing queues.  An instance that is to go is gone at once, those that boot first.
Our rule is `core.scaling`, as it is; the peers are written from their documentation, with their defaults:

- HPA on utilization: Kubernetes' "Horizontal Pod Autoscaling" (sync of 15 s, tolerance of 10 %, pods that are not ready count
  as idle on the way up, the most of 300 s of recommendations on the way down, at most doubled or 4 more in 15 s);
- target tracking: AWS' "Target tracking scaling policies" (three minutes above the target, then proportional; fifteen minutes
  below 0.9 of it, in gradually with a cooldown of 300 s; those that warm up are not measured, and hold back the way in).

Invariant: a trace depends on its shape, seed and length alone, so all rules see the same demand.  Knows no network, no
queues and one data center: what spills, and what waits, is the business of scenarios.
"""

from collections import deque
from collections.abc import Callable, Sequence
from math import ceil, sqrt
from typing import Protocol, TypeAlias

from msgspec import Struct

from dislocate.core.boundary.scaling import ScalePolicy
from dislocate.core.numeric import exp
from dislocate.core.scaling import Action, Facts, Track, decide, wants
from dislocate.core.streams import Stream, Streams
from dislocate.core.units import SECOND

CAPACITY = 100.0  # requests a second of an instance
BOOT = 60  # seconds
TARGET = 0.7
NOISE = 0.09  # of demand, standard deviation
REMEMBERS = 20.0  # seconds over which the noise forgets
BUSY = 0.9  # utilization above which callers notice


class Sight(Struct, frozen=True):
    """What a rule sees at one second."""

    second: int
    offered: float  # requests a second
    utilization: float  # 0..1 of the instances that are up: it saturates
    up: int
    wanted: int  # up and booting


class Rule(Protocol):
    """How many instances there are to be."""

    def look(self, sight: Sight) -> int: ...


Shape: TypeAlias = Callable[[int, Stream], float]


class Outcome(Struct, frozen=True, kw_only=True):
    """What a rule made of a trace."""

    dropped: float  # part of all that was offered
    busy: int  # seconds above BUSY
    cost: float  # instance seconds, over those of a fleet that is always exactly at its target load
    reversals: int  # changes of direction


# ---- demand


def step(second: int, base: float = 1000.0) -> float:
    """2.5 times for half of the time."""
    return base * (2.5 if 1800 <= second % 7200 < 5400 else 1.0)


def ramp(second: int, base: float = 1000.0) -> float:
    """Up to four times within half an hour, a while there, and down again."""
    at = second % 7200
    if at < 1200:
        return base
    if at < 3000:
        return base * (1 + 3 * (at - 1200) / 1800)
    if at < 4200:
        return 4 * base
    return base * max(1.0, 4 - 3 * (at - 4200) / 1800)


def spikes(second: int, base: float = 1000.0) -> float:
    """Twice as much for a minute in each eight."""
    return base * (2.0 if 240 <= second % 480 < 300 else 1.0)


def wave(second: int, period: int, base: float = 2000.0, depth: float = 0.6) -> float:
    """Up and down by `depth`: a sine, of which the simulator needs no more than that it looks like one."""
    at = (second % period) / period * 2
    half = 4 * (at % 1) * (1 - at % 1)  # a parabola that is within 6 % of the sine
    swing = depth if at < 1 else -depth
    return base * (1 + swing * half)


SHAPES: dict[str, tuple[int, Callable[[int], float]]] = {
    "step": (7200, step),
    "ramp": (7200, ramp),
    "spikes": (7200, spikes),
    "hour": (7200, lambda second: wave(second, 3600)),
    "day": (86_400, lambda second: wave(second, 86_400)),
}


def trace(shape: str, seed: int) -> list[float]:
    """Requests a second, by second: the shape, shifted and scaled a little by the seed, with noise that remembers."""
    length, curve = SHAPES[shape]
    stream = Streams(f"scaling/{seed}")[shape]
    scale, shift = 0.7 + 0.6 * stream.unit(), stream.below(240)
    keeps = exp(-1 / REMEMBERS)
    spread = NOISE * sqrt(1 - keeps * keeps)
    noise, demand = 0.0, []
    for second in range(length):
        noise = keeps * noise + spread * _bell(stream)
        demand.append(max(0.0, scale * curve(max(0, second - shift)) * (1 + noise)))
    return demand


def _bell(stream: Stream) -> float:
    """About normal, mean 0 and deviation 1: four uniform draws."""
    return (sum(stream.unit() for _ in range(4)) - 2) * sqrt(3.0)


# ---- the fleet


def run(rule: Rule, demand: Sequence[float], *, boot: int = BOOT, capacity: float = CAPACITY) -> Outcome:
    """What becomes of `demand`; it begins with as many instances as the first minute asks for."""
    up = ceil(sum(demand[:60]) / 60 / (capacity * TARGET))
    booting: deque[tuple[int, int]] = deque()  # (second at which they are up, how many)
    dropped = cost = 0.0
    busy = reversals = direction = 0
    for second, offered in enumerate(demand):
        while booting and booting[0][0] <= second:
            up += booting.popleft()[1]
        room = up * capacity
        dropped += max(0.0, offered - room)
        busy += offered > BUSY * room
        wanted = up + sum(count for _, count in booting)
        cost += wanted
        desired = rule.look(Sight(second, offered, min(1.0, offered / room) if room else 1.0, up, wanted))
        turn = (desired > wanted) - (desired < wanted)
        reversals += bool(turn and direction and turn != direction)
        direction = turn or direction
        if desired > wanted:
            booting.append((second + boot, desired - wanted))
        else:
            up -= _without(booting, wanted - desired)
    offered_in_all = sum(demand)
    ideal = offered_in_all / (capacity * TARGET)
    return Outcome(dropped=dropped / offered_in_all, busy=busy, cost=cost / ideal, reversals=reversals)


def _without(booting: deque[tuple[int, int]], count: int) -> int:
    """Take away those that boot, latest first; how many of the others have to go."""
    while count and booting:
        at, some = booting.pop()
        if some > count:
            booting.append((at, some - count))
            return 0
        count -= some
    return count


# ---- rules


class Ours:
    """`core.scaling`, looking each five seconds."""

    def __init__(self, policy: ScalePolicy | None = None, look_each: int = 5) -> None:
        self.policy = policy or ScalePolicy(target_load=TARGET, capacity=CAPACITY, max=1000)
        self._each = look_each
        self._track = Track(0)
        self._actions: list[Action] = []

    def look(self, sight: Sight) -> int:
        now = sight.second * SECOND
        facts = Facts(datacenter="here", offered=sight.offered, running=sight.wanted)
        self._track.observe(now, facts, self.policy.up_window)
        if sight.second % self._each:
            return sight.wanted
        want = wants(self.policy, (facts,), {"here": self._track.load()}).get("here")
        verdict = decide(self.policy, facts, self._track, want, sight.wanted, actions=self._actions, now=now)
        if verdict.changes:
            self._actions.append(Action(now, sight.wanted, verdict.desired))
        return verdict.desired


class Hpa:
    """Kubernetes' horizontal pod autoscaler on utilization, with its defaults."""

    def __init__(self, target: float = TARGET) -> None:
        self._target = target
        self._seen: deque[float] = deque(maxlen=15)  # its metrics are means of about a sync period
        self._recommended: deque[tuple[int, int]] = deque()
        self._past: deque[tuple[int, int]] = deque()  # (second, pods): for how fast it may grow

    def look(self, sight: Sight) -> int:
        self._seen.append(sight.utilization)
        if sight.second % 15:
            return sight.wanted
        recommended = self._recommend(sight)
        self._recommended.append((sight.second, recommended))
        while self._recommended[0][0] <= sight.second - 300:
            self._recommended.popleft()
        self._past.append((sight.second, sight.wanted))
        while self._past[0][0] < sight.second - 15:
            self._past.popleft()
        if recommended > sight.wanted:
            before = min(pods for _, pods in self._past)
            return min(recommended, max(2 * before, before + 4))
        return min(sight.wanted, max(count for _, count in self._recommended))

    def _recommend(self, sight: Sight) -> int:
        ratio = sum(self._seen) / len(self._seen) / self._target
        unready = sight.wanted - sight.up
        if not unready or ratio <= 1:
            return sight.wanted if abs(ratio - 1) <= 0.1 else max(1, ceil(ratio * sight.up))
        damped = ratio * sight.up / sight.wanted  # those that are not ready do nothing yet
        if damped <= 1.1:
            return sight.wanted
        return max(sight.wanted, ceil(damped * sight.wanted))


class TargetTracking:
    """AWS' target tracking, with its defaults."""

    def __init__(self, target: float = TARGET, warm_up: int = BOOT, cooldown: int = 300) -> None:
        self._target = target
        self._warm_up = warm_up
        self._cooldown = cooldown
        self._minute: list[float] = []
        self._points: deque[float] = deque(maxlen=15)
        self._grew_at = -warm_up
        self._shrunk_at = -cooldown

    def look(self, sight: Sight) -> int:
        self._minute.append(sight.utilization)
        if len(self._minute) < 60:
            return sight.wanted
        point = sum(self._minute) / 60
        self._minute = []
        self._points.append(point)
        if len(self._points) >= 3 and min(list(self._points)[-3:]) > self._target:
            desired = ceil(sight.up * point / self._target)
            if desired > sight.wanted:
                self._grew_at = sight.second
                return desired
        is_low = len(self._points) == 15 and max(self._points) < 0.9 * self._target
        is_warm = sight.second - self._grew_at >= self._warm_up
        if is_low and is_warm and sight.second - self._shrunk_at >= self._cooldown:
            self._shrunk_at = sight.second
            return max(1, ceil(sight.wanted * point / self._target))
        return sight.wanted


RULES: dict[str, Callable[[], Rule]] = {"dislocate": Ours, "HPA": Hpa, "target tracking": TargetTracking}
