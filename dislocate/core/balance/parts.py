"""Parts: how much of a data center's traffic each instance should get.  One pure function for everybody who cannot pick call
by call: DNS, HAProxy, nginx, a reader of `flows`.

Invariants: parts are 0 or more and add up to 1 wherever a data center with a share has anybody who may be used; an instance
gets its data center's share by its weight; who may not be used now has no part at all (None), who may be and is where no
share goes is spare (0).

Knows no panic: who cannot tell a dead instance by its calls has nothing but its check.  Does not know slow start, which needs
a memory, nor load: a picker sees both call by call.
"""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from dislocate.core.balance.endpoints import ANSWERED, by_datacenter, grade, usable
from dislocate.core.boundary.balance import Route, Spill
from dislocate.core.boundary.views import InstanceView
from dislocate.core.identity import Path


class InstancePart(Struct, frozen=True):
    """What one instance gets: 0..1 of the traffic; None: nothing, it is out."""

    instance: InstanceView
    part: float | None


def parts(route: Route) -> tuple[InstancePart, ...]:
    """All instances of `route`, in their order, each with its part."""
    places = by_datacenter(route.instances)
    chosen = {name: members for name, group in places.items() if (members := usable(group))}
    found: dict[tuple[Path, str], float] = {}
    if route.policy.spill is not Spill.NEVER:
        found.update(((spare.node, spare.id), 0.0) for spare in usable(route.instances))
    divided = _divided(route, chosen)
    whole = sum(divided.values())
    for name, share in divided.items():
        weights = [float(instance.weight) for instance in chosen[name]]
        if not any(weights):  # all that are left have weight 0
            weights = [1.0] * len(weights)
        unit = share / whole / sum(weights)
        for instance, weight in zip(chosen[name], weights, strict=True):
            found[instance.node, instance.id] = unit * weight
    return tuple(InstancePart(each, found.get((each.node, each.id))) for each in route.instances)


def _divided(route: Route, chosen: Mapping[str, Sequence[InstanceView]]) -> dict[str, float]:
    """What each data center gets, as a picker divides it: by shares among those that answer; else whoever answers."""
    shares = {
        share.datacenter: share.share for share in route.shares if share.share > 0.0 and share.datacenter in chosen
    }
    answering = [name for name, members in chosen.items() if grade(members) < ANSWERED]
    live = {name: share for name, share in shares.items() if name in answering}
    if live:
        return live
    at_home = {route.home: 1.0} if route.home in chosen else {}
    if route.policy.spill is Spill.NEVER:
        return shares or at_home
    if route.home in answering:
        return at_home
    return dict.fromkeys(answering, 1.0) or shares or at_home or dict.fromkeys(chosen, 1.0)
