"""Explain: why callers are sent where they are sent, in sentences with numbers.  Pure."""

from collections.abc import Iterable

from dislocate.core.balance.fits import asked_for
from dislocate.core.boundary.balance import FlowRow, PlaceInput, Policy, Share, Spill
from dislocate.core.tunables import FLOW_FRESH, MEASURED_FROM, REPORT_HALVES, SHARE_STEP
from dislocate.core.units import MILLISECOND, SECOND, format_duration

UNTOLD = 0.2  # of what instances get; less may be a second that one has counted and the other has not
_SPILL = {
    Spill.NEVER: "The policy lets no traffic leave its data center (spill 'never').",
    Spill.DEAD: "The policy lets traffic leave its data center only while nothing lives there (spill 'dead').",
    Spill.LOAD: "",
}
_UNKNOWN_GOES = {
    Spill.NEVER: "all stays where it is",
    Spill.DEAD: "all goes to the nearest data center that has somebody",
    Spill.LOAD: "all goes to the nearest data center that has somebody",
}


def explain(
    row: FlowRow, places: Iterable[PlaceInput], policy: Policy, now: int, *, is_known: bool, problem: str = ""
) -> tuple[str, ...]:
    """Sentences.  `is_known`: somebody says what instances can carry; `problem`: of the policy."""
    told = tuple(places)
    lines = [_whose(row, now), _SPILL[policy.spill]]
    if not is_known:
        lines.append(
            f"No instance anywhere is loaded above {MEASURED_FROM:.0%}, and the policy says no capacity, so that nobody knows "
            f"what one can carry: {_UNKNOWN_GOES[policy.spill]}."
        )
    else:
        lines.append(_whole(row, told, policy))
    shares = {share.datacenter: share.share for share in row.shares}
    lines += [_place(place, shares.get(place.datacenter, 0.0), row.source, now, is_known) for place in told]
    lines += _strangers(policy, told)
    lines.append(_untold(told))
    lines.append(_movement(row))
    if not row.shares:
        lines.append("Nobody who could answer is known anywhere.")
    if problem:
        lines.append(f"The newest policy is not followed, the last good one is: {problem}.")
    return tuple(line for line in lines if line)


def _whose(row: FlowRow, now: int) -> str:
    if row.epoch:
        age = (now - row.as_of) / SECOND
        return f"{row.computed_by}, the first relay of {row.source}, computed this row; its word is {age:.1f} s old."
    silent = f"no relay of {row.source} said anything in the last {format_duration(FLOW_FRESH)}"
    return f"Computed by {row.computed_by} itself: {silent}."


def _whole(row: FlowRow, places: tuple[PlaceInput, ...], policy: Policy) -> str:
    demand = sum(place.demand for place in places)
    capacity = sum(place.capacity for place in places)
    offered = f"{_rate(demand)} are offered in all data centers, which can carry {_rate(capacity)}"
    if capacity <= 0.0:
        return f"{_rate(demand)} are offered in all data centers, and nobody is left who could carry any of it."
    if row.overload:
        return f"{offered}. What {row.source} offers does not fit where it may go: it is spread by capacity."
    if row.rho > policy.target_load:
        return f"{offered}: each is loaded to {row.rho:.0%}, more than the {policy.target_load:.0%} aimed at."
    return f"{offered}: each is given {row.rho:.0%} of what it can carry, the nearest first."


def _place(place: PlaceInput, share: float, source: str, now: int, is_known: bool) -> str:
    name = place.datacenter
    if place.cost is None:
        return f"{name} cannot be reached from {source}: nothing goes there."
    words = [f"{name} gets {share:.0%}"]
    if name != source:
        words.append(f"cost {place.cost / MILLISECOND:.1f} ms" + (f", tier {place.tier}" if place.tier else ""))
    words.append(f"{_rate(place.demand)} offered there")
    if place.live <= 0.0:
        words.append("nobody lives there")
    elif is_known:
        words.append(f"{_count(place.live)} of {_rate(place.endpoint_capacity)} each carry {_rate(place.capacity)}")
    else:
        words.append(f"{_count(place.live)} there")
    if place.backlog > 0.0:
        words.append(f"{place.backlog:.0f} requests wait")
    age = now - place.as_of
    if place.epoch and age >= REPORT_HALVES:
        words.append(
            f"last heard of {age / SECOND:.0f} s ago, so it counts {1 / (1 << min(60, age // REPORT_HALVES)):.0%}"
        )
    return f"{words[0]}: {', '.join(words[1:])}."


def _strangers(policy: Policy, places: tuple[PlaceInput, ...]) -> list[str]:
    """Of what the policy says of data centers where nobody is: a name may be misspelled."""
    present = {place.datacenter for place in places}
    found: dict[str, list[str]] = {}
    for what, table in (("tier", policy.tiers), ("price", policy.prices)):
        for name, number in table.items():
            if name not in present:
                found.setdefault(name, []).append(f"{what} {number:g}")
    return [
        f"{name} ({', '.join(words)} in the policy): nobody serves or calls it there, so that this counts for nothing now."
        for name, words in sorted(found.items())
    ]


def _untold(places: tuple[PlaceInput, ...]) -> str:
    """What comes and no caller tells of is not weighed, which who waits for spilling should know."""
    demand, served = asked_for(places)
    if served - demand <= UNTOLD * served:
        return ""
    return (
        f"Instances get {_rate(served)}, more than callers tell of: who comes by DNS, HAProxy or nginx follows these shares "
        "and moves none of them."
    )


def _movement(row: FlowRow) -> str:
    now, then = _by_name(row.shares), _by_name(row.target)
    moving = [name for name in then if abs(then[name] - now.get(name, 0.0)) >= SHARE_STEP]
    return f"Moving to {', '.join(f'{name} {then[name]:.0%}' for name in moving)}." if moving else ""


def _by_name(shares: tuple[Share, ...]) -> dict[str, float]:
    return {share.datacenter: share.share for share in shares}


def _count(live: float) -> str:
    return f"{live:.0f} endpoints" if abs(live - round(live)) < 0.05 else f"{live:.1f} endpoints (some just started)"


def _rate(rate: float) -> str:
    return f"{rate:,.0f} req/s" if rate >= 10 or rate == 0 else f"{rate:.1f} req/s"
