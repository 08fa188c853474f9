"""Parts: how much of a data center's traffic each instance should get.  One pure function for everybody who cannot pick call
by call: DNS, HAProxy, nginx, a reader of `flows`.

Invariants: parts are 0 or more and add up to 1 wherever a data center with a share has anybody who may be used; an instance
gets its data center's share by its weight; who may not be used now has no part at all (None), who may be and is where no
share goes is spare (0).  Panic holds within a data center, as for a picker (`endpoints`).

Does not know slow start, which needs a memory, nor load: a picker sees both call by call.
"""

from msgspec import Struct

from dislocate.core.balance.endpoints import by_datacenter, panics, usable
from dislocate.core.boundary.balance import Route, Spill
from dislocate.core.boundary.views import InstanceView


class InstancePart(Struct, frozen=True):
    """What one instance gets: 0..1 of the traffic; None: nothing, it is out."""

    instance: InstanceView
    part: float | None


def parts(route: Route) -> tuple[InstancePart, ...]:
    """All instances of `route`, in their order, each with its part."""
    panic = panics(route.instances)
    shares = {share.datacenter: share.share for share in route.shares if share.share > 0.0}
    places = by_datacenter(route.instances)
    chosen = {name: usable(places[name], panic) for name in shares if name in places}
    if route.policy.spill is not Spill.NEVER:
        spare = [instance for instance in usable(route.instances) if instance.datacenter not in chosen]
        chosen.update(by_datacenter(spare))
    spread = sum(shares.get(name, 0.0) for name, instances in chosen.items() if instances)
    found: dict[tuple[str, str], float] = {}
    for name, instances in chosen.items():
        share = shares.get(name, 0.0) / spread if spread else 0.0
        weights = [float(instance.weight) for instance in instances]
        if not any(weights):
            weights = [1.0] * len(weights)
        whole = sum(weights)
        for instance, weight in zip(instances, weights, strict=True):
            found[instance.node, instance.id] = share * weight / whole
    return tuple(InstancePart(each, found.get((each.node, each.id))) for each in route.instances)
