"""Fits: whether the others can carry a service when a data center is drained, with the numbers in words.  Pure."""

from collections.abc import Collection, Iterable

from msgspec import Struct

from dislocate.core.balance.flows import LITTLE
from dislocate.core.boundary.balance import PlaceInput, ServiceFlows, Spill
from dislocate.core.tunables import FIT_LOAD


class Fit(Struct, frozen=True, kw_only=True):
    """Whether the others can carry a service when a data center is drained."""

    service: str
    datacenter: str
    fits: bool
    demand: float  # requests a second, of all data centers
    capacity: float  # of the others, requests a second
    words: str


def fits_without(flows: ServiceFlows, datacenter: str, gone: Collection[str] = ()) -> Fit:
    """Whether the traffic of a service fits when nothing may go to `datacenter`, nor to those that are `gone`: the others,
    loaded to FIT_LOAD, carry all that callers everywhere offer, or what instances get where that is more: who comes by DNS or
    through another proxy tells nothing.  Where capacity is unknown, whether anybody else lives."""
    left = [place for place in flows.inputs if place.datacenter != datacenter and place.datacenter not in gone]
    others = [place for place in left if place.cost is not None]
    demand, served = asked_for(flows.inputs)
    demand = max(demand, served)
    capacity = sum(place.capacity for place in others)
    known = all(place.endpoint_capacity > 0.0 for place in others if place.live > 0.0)
    if not any(place.live > 0.0 for place in others):
        fits, words = demand <= LITTLE and not _lives(flows.inputs), f"nobody of {flows.service} lives anywhere else"
    elif flows.policy.spill is Spill.NEVER:
        here = next((max(one.demand, one.served) for one in flows.inputs if one.datacenter == datacenter), 0.0)
        fits = here <= LITTLE
        words = f"the policy of {flows.service} is spill 'never': {here:.0f} requests a second would have nowhere to go"
    elif not known or capacity <= 0.0:
        fits, words = True, f"nobody says what {flows.service} can carry; it lives in {_names(others)} too"
    else:
        fits = demand <= FIT_LOAD * capacity
        carry = "carries" if sum(place.live > 0.0 for place in others) == 1 else "carry"
        room = f"{_names(others)} {carry} {FIT_LOAD * capacity:.0f} requests a second at {FIT_LOAD:.0%} load"
        come = "are offered" if demand > served else "come, whoever sends them"
        words = f"{flows.service}: {demand:.0f} requests a second {come}, {room}"
    return Fit(service=flows.service, datacenter=datacenter, fits=fits, demand=demand, capacity=capacity, words=words)


def asked_for(places: Iterable[PlaceInput]) -> tuple[float, float]:
    """Requests a second in all data centers: that callers tell, and that instances get."""
    told = tuple(places)
    return sum(place.demand for place in told), sum(place.served for place in told)


def _lives(places: Iterable[PlaceInput]) -> bool:
    return any(place.live > 0.0 for place in places)


def _names(places: Iterable[PlaceInput]) -> str:
    names = [place.datacenter for place in places if place.live > 0.0]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
