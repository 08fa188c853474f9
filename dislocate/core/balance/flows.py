"""Flows: which part of each data center's traffic goes to which data center.  Pure; no time, no state.

A waterfill.  The capacity of a data center is what its live endpoints carry, less what it takes to work off what waits
there; each is given the part `rho` of it, so that queues stay short and what waits gets done:

    C_d = c_d * n_d - Q_d / T          rho = clamp(sum D / sum C + 0.02, target_load, 1)

Pairs of a source and a data center are served in the order (tier, class of cost, at home or not, source, data center):
each takes what is left of the source's demand and of the room at the data center.  Costs within max(1 ms, 10 %) are one
class, in which names decide: jitter reorders nothing.  What is left in the end is spread by capacity: overload, where
shedding is the callers' throttle's job.

A source whose traffic may not leave (`Spill`) goes first, since nothing else can be done with it.

Invariant: without overload, the flows into d add up to rho * C_d at most; a source's flows add up to its demand wherever
it reaches anybody.  Equal inputs make equal rows, on every machine.

Source: research 3.1 ("wf2"), measured there: a fixed ladder of rho and smoothed capacities made p99 forty times worse on
sudden loss.  Who is out of reach, and what is known of whom, is decided by the caller.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from msgspec import Struct

from dislocate.core.boundary.balance import Policy, Share, Spill
from dislocate.core.tunables import (
    BACKLOG_DRAIN,
    CAPACITY_LEAST,
    COST_CLASS,
    COST_CLASS_PARTS,
    REPORT_HALVES,
    RHO_MARGIN,
)
from dislocate.core.units import HOUR, SECOND

# Nanoseconds from a source (first) to a data center (second); None, or absent: it cannot be reached.
Costs: TypeAlias = Mapping[str, Mapping[str, int | None]]

LITTLE = 1e-9  # requests a second: below it, rounding


def _class_bounds() -> tuple[int, ...]:
    bounds = [0]
    while bounds[-1] < HOUR:
        bounds.append(bounds[-1] + max(COST_CLASS, bounds[-1] // COST_CLASS_PARTS))
    return tuple(bounds)


_BOUNDS = _class_bounds()


class Place(Struct, frozen=True):
    """One data center, as the solver needs it."""

    datacenter: str
    demand: float  # requests a second that callers there offer
    capacity: float  # requests a second; 0: nobody there


class Row(Struct, frozen=True):
    """One source's row, unsmoothed."""

    shares: tuple[Share, ...]  # nearest first; empty: nobody can be reached
    flows: tuple[tuple[str, float], ...]  # requests a second, in the same order
    rho: float
    overload: bool


# ---- the inputs


def capacity_of(endpoint_capacity: float, live: float, backlog: float) -> float:
    """Requests a second of a data center, while its backlog is worked off within BACKLOG_DRAIN."""
    whole = endpoint_capacity * live
    return max(min(CAPACITY_LEAST, whole), whole - max(0.0, backlog) * SECOND / BACKLOG_DRAIN)


def aged(value: float, age: int) -> float:
    """What is left of a number that was told `age` nanoseconds ago: halved each REPORT_HALVES."""
    return value / (1 << min(60, max(0, age) // REPORT_HALVES))


def cost_of(rtt: int | None, datacenter: str, policy: Policy) -> int | None:
    """Nanoseconds, with the price of requests there."""
    return None if rtt is None else rtt + round(policy.prices.get(datacenter, 0.0) * policy.price_weight)


def cost_class(cost: int) -> int:
    """The class of a cost: those of 1 ms each at first, then of a tenth each."""
    return bisect_right(_BOUNDS, cost)


def is_other_cost(before: int | None, cost: int | None) -> bool:
    """Whether `cost` is clearly another than `before`, so that rows should be computed with it."""
    if before is None or cost is None:
        return before is not cost
    return abs(cost - before) > max(COST_CLASS, before // COST_CLASS_PARTS)


# ---- the solver


def within_reach(home: str, places: Iterable[str], costs: Costs) -> tuple[str, ...]:
    """`home` and all that reach it, or are reached from it, over whatever is between: they share their capacity."""
    names = sorted({*places, home})
    found = {home: None}
    waiting = [home]
    while waiting:
        one = waiting.pop()
        for other in names:
            if other not in found and (_reaches(costs, one, other) or _reaches(costs, other, one)):
                found[other] = None
                waiting.append(other)
    return tuple(sorted(found))


def solve(places: Sequence[Place], costs: Costs, policy: Policy) -> dict[str, Row]:
    """The rows of all `places`, by source."""
    room_of = {place.datacenter: place.capacity for place in places}
    demand = sum(place.demand for place in places)
    capacity = sum(room_of.values())
    rho = min(1.0, max(policy.target_load, demand / capacity + RHO_MARGIN)) if capacity > 0.0 else 1.0
    room = {name: rho * room_of[name] for name in room_of}
    left = {place.datacenter: place.demand for place in places}
    flows: dict[tuple[str, str], float] = {}
    bound = [name for name in sorted(left) if _is_bound(name, room_of, policy)]
    for name in bound:  # first, since nothing else may be done with it; what does not fit is left, for its own place
        flows[name, name] = taken = min(left[name], room[name])
        room[name] -= taken
        left[name] -= taken
    order = _order([name for name in left if name not in bound], room_of, costs, policy)
    for source, datacenter in order:
        taken = min(left[source], room[datacenter])
        if taken > 0.0:
            flows[source, datacenter] = flows.get((source, datacenter), 0.0) + taken
            left[source] -= taken
            room[datacenter] -= taken
    rows: dict[str, Row] = {}
    for place in places:
        name = place.datacenter
        reached = [name] if name in bound else [d for s, d in order if s == name]
        rows[name] = _row(place, reached, room_of, room, flows, left[name], rho)
    return rows


def _row(
    place: Place,
    reached: list[str],
    capacity: Mapping[str, float],
    room: Mapping[str, float],
    flows: Mapping[tuple[str, str], float],
    left: float,
    rho: float,
) -> Row:
    """`reached`: where this source's requests may go, nearest first."""
    source = place.datacenter
    own = {name: flows.get((source, name), 0.0) for name in reached}
    overload = left > LITTLE * max(1.0, place.demand)
    if overload:
        total = sum(capacity[name] for name in reached)
        if total > 0.0:
            own = {name: flow + left * capacity[name] / total for name, flow in own.items()}
        elif reached:
            own[reached[0]] += left
    whole = sum(own.values())
    if (
        whole <= LITTLE and reached
    ):  # nobody calls yet: home comes before what others spill there, others when they have room
        free = [name for name in reached if name == source or room[name] > LITTLE]
        return Row((Share((free or reached)[0], 1.0),), (), rho, overload)
    kept = [(name, flow) for name, flow in own.items() if flow > 0.0]
    return Row(tuple(Share(name, flow / whole) for name, flow in kept), tuple(kept), rho, overload)


def _is_bound(name: str, capacity: Mapping[str, float], policy: Policy) -> bool:
    """Whether traffic of this data center stays there, however much it is."""
    return policy.spill is Spill.NEVER or (policy.spill is Spill.DEAD and capacity[name] > 0.0)


def _order(
    sources: Iterable[str], capacity: Mapping[str, float], costs: Costs, policy: Policy
) -> list[tuple[str, str]]:
    """All pairs that may carry traffic, in the order in which they are served."""
    pairs = []
    for source in sources:
        for datacenter, carries in capacity.items():
            cost = costs.get(source, {}).get(datacenter)
            if carries > 0.0 and cost is not None:
                tier = policy.tiers.get(datacenter, 0)
                pairs.append((tier, cost_class(cost), source != datacenter, source, datacenter))
    return [(source, datacenter) for *_, source, datacenter in sorted(pairs)]


def _reaches(costs: Costs, source: str, datacenter: str) -> bool:
    return costs.get(source, {}).get(datacenter) is not None
