"""Picture: what one node knows of a service, put together for the solver, and the row that follows from it.  Pure.

Of each data center: the numbers that its relay told last; who lives there, as this node's own catalog says, so that a death
counts at once; and what requests to it cost.  A report that is older than REPORT_HALVES counts half, and half again.

`live` is taken as the data center's own relay told it while this node knows of as much weight there (a slow start runs on
one clock then, and equal reports make equal rows); when the two differ, somebody just died or came, and the own catalog
counts.
"""

from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

from dislocate.core.balance.believing import bound_of
from dislocate.core.balance.endpoints import by_datacenter, lives
from dislocate.core.balance.flows import Costs, Place, Row, aged, capacity_of, cost_of, solve, within_reach
from dislocate.core.balance.gathering import Numbers, endpoint_capacity
from dislocate.core.balance.messages import FlowReport
from dislocate.core.balance.nearby import nearest_shares
from dislocate.core.boundary.balance import PlaceInput, Policy, Spill
from dislocate.core.boundary.views import InstanceView
from dislocate.core.tunables import BELIEVED_OF_DATACENTER, REPORT_HALVES


class Told(Struct, frozen=True):
    """What is known of one data center: its numbers, of which report, and since when."""

    numbers: Numbers
    epoch: int  # 0: no report came
    as_of: int
    costs: Mapping[str, int | None]  # as it says, in the order of its row; empty: it said nothing


class Picture(Struct, frozen=True):
    """The inputs of a row, and the row."""

    inputs: tuple[PlaceInput, ...]  # nearest first
    row: Row
    is_known: bool  # somebody says what instances can carry


def told_by(report: FlowReport, as_of: int) -> Told:
    """What a relay said."""
    numbers = Numbers(
        demand=report.demand,
        endpoint_capacity=report.endpoint_capacity,
        concurrency=report.concurrency,
        live=report.live,
        weight=report.weight,
        backlog=report.backlog,
    )
    costs = {place.datacenter: place.cost if place.cost >= 0 else None for place in report.places}
    return Told(numbers, report.epoch, as_of, costs)


def picture(
    home: str,
    instances: Sequence[InstanceView],
    told: Mapping[str, Told],
    rtts: Mapping[str, int | None],
    policy: Policy,
    warm: Callable[[Sequence[InstanceView]], float],
    now: int,
) -> Picture:
    """`told` by data center, `home` among them; `rtts` from `home` to those that it reaches; `warm`: the weight of
    instances in slow start, as this node sees it."""
    places = by_datacenter(instances)
    names = sorted({*places, *told, home})
    living = {name: tuple(filter(lives, places.get(name, ()))) for name in names}
    each = _endpoint_capacities(names, living, told, policy)
    costs = _costs(home, names, told, rtts, policy, now)
    inputs = [
        _input(name, living[name], told.get(name), each[name], costs[home].get(name), policy, warm, now)
        for name in names
    ]
    inputs.sort(
        key=lambda place: (place.cost is None, place.tier, place.cost or 0, place.datacenter != home, place.datacenter)
    )
    is_known = any(place.endpoint_capacity > 0.0 for place in inputs)
    row = _row(home, inputs, costs, policy) if is_known else None
    if row is None or not row.shares or (policy.spill is Spill.NEVER and not living[home]):
        shares = nearest_shares(home, instances, policy, costs[home])
        rho = policy.target_load if row is None else row.rho
        row = Row(shares, (), rho, row is not None and row.overload)
    return Picture(tuple(inputs), row, is_known)


def _row(home: str, inputs: Sequence[PlaceInput], costs: Costs, policy: Policy) -> Row | None:
    together = within_reach(home, [place.datacenter for place in inputs], costs)
    places = [Place(one.datacenter, one.demand, one.capacity) for one in inputs if one.datacenter in together]
    return solve(sorted(places, key=lambda place: place.datacenter), costs, policy).get(home)


def _endpoint_capacities(
    names: Sequence[str], living: Mapping[str, Sequence[InstanceView]], told: Mapping[str, Told], policy: Policy
) -> dict[str, float]:
    """Of one endpoint of weight 1, by data center: as the policy says, else as its relay measured, else as its instances say,
    else the least that is known of another data center; 0: nobody knows anything.  They run the same program, so of one that
    is far above the others no more is believed than BELIEVED_OF_DATACENTER times the lower median."""
    if policy.capacity > 0.0:
        return dict.fromkeys(names, policy.capacity)
    found: dict[str, float] = {}
    for name in names:
        said = told[name].numbers.endpoint_capacity if name in told else 0.0
        found[name] = said or endpoint_capacity(living[name])
    known = [one for one in found.values() if one > 0.0]
    bound = bound_of(known, BELIEVED_OF_DATACENTER)
    least = min(known, default=0.0)
    return {name: min(one or least, bound) for name, one in found.items()}


def _input(
    name: str,
    living: Sequence[InstanceView],
    told: Told | None,
    each: float,
    cost: int | None,
    policy: Policy,
    warm: Callable[[Sequence[InstanceView]], float],
    now: int,
) -> PlaceInput:
    numbers, epoch, as_of = (Numbers(), 0, now) if told is None else (told.numbers, told.epoch, told.as_of)
    age = now - as_of if epoch else 0
    weight = float(sum(instance.weight for instance in living))
    agrees = epoch > 0 and age < REPORT_HALVES and numbers.weight == weight
    live = numbers.live if agrees else warm(living)
    capacity = aged(capacity_of(each, live, numbers.backlog), age) if live > 0.0 else 0.0
    return PlaceInput(
        datacenter=name,
        epoch=epoch,
        demand=aged(numbers.demand, age),
        served=sum(instance.load.rate for instance in living if instance.load is not None),
        endpoint_capacity=each,
        live=live,
        backlog=numbers.backlog,
        capacity=capacity,
        cost=cost,
        tier=policy.tiers.get(name, 0),
        as_of=as_of,
    )


def _costs(
    home: str,
    names: Sequence[str],
    told: Mapping[str, Told],
    rtts: Mapping[str, int | None],
    policy: Policy,
    now: int,
) -> dict[str, dict[str, int | None]]:
    """From each data center to each: from home as measured here; from others as they say, else by way of home.  Who has
    not been heard of for long reaches nobody."""
    own = {name: cost_of(rtts[name], name, policy) for name in names if name in rtts}
    own[home] = cost_of(0, home, policy)
    costs: dict[str, dict[str, int | None]] = {home: own}
    for source in names:
        if source == home:
            continue
        said = told.get(source)
        is_fresh = said is None or now - said.as_of < REPORT_HALVES
        costs[source] = {source: cost_of(0, source, policy)}
        there = rtts.get(source)
        for name in names if is_fresh else ():
            if name == source:
                continue
            if said is not None and name in said.costs:
                costs[source][name] = said.costs[name]
            elif there is not None and name in own and rtts.get(name, 0 if name == home else None) is not None:
                costs[source][name] = cost_of(there + (rtts.get(name) or 0), name, policy)
    return costs
