"""Facts: what the leader's node knows of a service, as the rule of scaling wants it.

What each data center is to carry is what callers there offer, since spilling is for seconds and instances for good.  Demand of
a place that is not scaled, and what would not fit below `max`, counts where the flows send it.  Of a service whose callers
all come by DNS or another proxy and tell nothing, what instances get counts where they get it.  Pure.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from dislocate.core.balance.fits import asked_for
from dislocate.core.boundary.balance import PlaceInput, ServiceFlows
from dislocate.core.boundary.scaling import ProcessDriver, ScaleDecision, ScalePolicy
from dislocate.core.boundary.values import Status
from dislocate.core.boundary.views import InstanceView
from dislocate.core.scaling import Facts

GOING = (Status.DRAINING, Status.MAINTENANCE, Status.CRITICAL, Status.UNATTENDED)
UNHEARD = 1 << 60  # nanoseconds: the age of what was never reported


class FlowsDoor(Protocol):
    """`balance.part.FlowViews`, as far as it is needed here."""

    def of(self, service: str) -> ServiceFlows | None: ...


def facts_of(
    policy: ScalePolicy,
    datacenters: Sequence[str],
    flows: ServiceFlows | None,
    instances: Sequence[InstanceView],
    now: int,
) -> tuple[Facts, ...]:
    """Of each data center that is scaled, in their order."""
    inputs = {one.datacenter: one for one in flows.inputs} if flows is not None else {}
    demand = demands(policy, datacenters, flows, inputs) if flows is not None else {}
    return tuple(
        Facts(
            datacenter=name,
            offered=demand.get(name, 0.0),
            capacity=_capacity(inputs.get(name), inputs),
            running=sum(counts_of(policy, instances, name).values()),
            errors=_errors([one for one in instances if one.datacenter == name]),
            age=_age(name, inputs, now),
        )
        for name in datacenters
    )


def demands(
    policy: ScalePolicy, scaled: Sequence[str], flows: ServiceFlows, inputs: Mapping[str, PlaceInput]
) -> dict[str, float]:
    """By data center that is scaled: requests a second, first attempts, that it is to have instances for."""
    found = dict.fromkeys(scaled, 0.0)
    if _is_untold(inputs):
        return {name: inputs[name].served if name in inputs else 0.0 for name in found}
    shares = {row.source: {share.datacenter: share.share for share in row.target} for row in flows.rows}
    for source, place in inputs.items():
        others = {name: share for name, share in shares.get(source, {}).items() if name in found and name != source}
        whole = sum(others.values())
        carries = policy.max * _per_instance(policy, place, inputs)
        rest = place.demand
        if source in found:
            rest = max(0.0, place.demand - carries) if whole and carries else 0.0
            found[source] += place.demand - rest
        for name, share in others.items():
            found[name] += rest * share / whole if whole else 0.0
    return found


def _per_instance(policy: ScalePolicy, place: PlaceInput, inputs: Mapping[str, PlaceInput]) -> float:
    return (policy.capacity or _capacity(place, inputs)) * policy.target_load


def _capacity(place: PlaceInput | None, inputs: Mapping[str, PlaceInput]) -> float:
    """Requests a second of one instance: as measured there, else the least that was measured elsewhere; 0: nowhere."""
    if place is not None and place.endpoint_capacity > 0:
        return place.endpoint_capacity
    return min((one.endpoint_capacity for one in inputs.values() if one.endpoint_capacity > 0), default=0.0)


def _is_untold(inputs: Mapping[str, PlaceInput]) -> bool:
    """Whether instances get something, and no caller tells of it."""
    demand, served = asked_for(inputs.values())
    return demand <= 0.0 < served


def _age(name: str, inputs: Mapping[str, PlaceInput], now: int) -> int:
    """Relays tell of a service only while somebody calls it there: silence after a zero, or while others are heard, is nobody
    calling.  (That a data center is cut off is known otherwise, and freezes.)"""
    if _is_untold(inputs):
        return 0  # of instances that live, which say so themselves
    ages = {one.datacenter: max(0, now - one.as_of) for one in inputs.values() if one.epoch}
    place = inputs.get(name)
    if place is None or name not in ages:
        return min(ages.values(), default=UNHEARD)
    return 0 if place.demand <= 0 else ages[name]


def _errors(instances: Sequence[InstanceView]) -> float:
    """The part of calls that fails, weighted by how many come."""
    loads = [one.load for one in instances if one.load is not None]
    rate = sum(load.rate for load in loads)
    return sum(load.errors * load.rate for load in loads) / rate if rate > 0 else 0.0


def counts_of(policy: ScalePolicy, instances: Sequence[InstanceView], datacenter: str) -> dict[str, int]:
    """By node: instances that are there or boot, without those that are going.  Of driver `process`, those that agents run for
    scaling: others bear the service's name too."""
    is_own = isinstance(policy.driver, ProcessDriver)
    found: dict[str, int] = {}
    for one in instances:
        if one.datacenter != datacenter or one.status in GOING:
            continue
        if is_own and not is_scaled(one):
            continue
        found[one.node] = found.get(one.node, 0) + 1
    return found


def is_scaled(instance: InstanceView) -> bool:
    """Whether an agent runs it as a process of its service's name, as driver `process` does."""
    return instance.meta.get("process") == instance.service


def scaled_datacenters(
    policy: ScalePolicy,
    decided: Mapping[str, ScaleDecision],
    instances: Sequence[InstanceView],
    places: Sequence[str],
) -> tuple[str, ...]:
    """Those that the policy names; else where it is decided already, has instances, or (`places`) nodes of its driver."""
    if policy.datacenters:
        return policy.datacenters
    there = {*decided, *(one.datacenter for one in instances), *places}
    return tuple(sorted(there))
