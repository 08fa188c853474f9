"""Dividing: which data centers take which part of a caller's picks.  Pure.

Invariant: where the flows give a share to a data center in which somebody answers, only such take part, by their shares.
Where none of those does, since a death came sooner than the row that follows from it, the policy decides: `never` keeps
calls at home, else they go to whoever answers.  Who does not answer for certain, the last known, comes after all of them.
What is dark to this caller (`darkness`) takes no part while there is anybody else that the policy allows.
"""

from collections.abc import Iterator, Mapping, Sequence

from dislocate.core.balance.endpoints import ANSWERED
from dislocate.core.balance.place import Place
from dislocate.core.boundary.balance import Route, Spill


def parts_of(route: Route, places: Mapping[str, Place]) -> list[tuple[Place, float]]:
    """Places and their parts, in any unit, nearest first as far as the route says; empty: nobody may be used."""
    shared = [
        (places[share.datacenter], share.share)
        for share in route.shares
        if share.share > 0.0 and share.datacenter in places and places[share.datacenter].members
    ]
    answering = [(place, part) for place, part in shared if place.grade < ANSWERED]
    if answering:
        return _lit(answering, route, places) or answering
    home = places.get(route.home)
    at_home = [(home, 1.0)] if home is not None and home.members else []
    if route.policy.spill is Spill.NEVER:
        return at_home or shared
    if at_home and at_home[0][0].grade < ANSWERED:
        return at_home
    anybody = [(place, 1.0) for place in places.values() if place.members]
    elsewhere = [(place, part) for place, part in anybody if place.grade < ANSWERED]
    return elsewhere or shared or at_home or anybody


def _lit(parts: list[tuple[Place, float]], route: Route, places: Mapping[str, Place]) -> list[tuple[Place, float]]:
    """The same without those that are dark.  What went there goes where there is room: flows fill what is near first, so
    that is the farthest that has a part, and whoever answers and has none, by their members; home only if it must."""
    lit = [(place, part) for place, part in parts if not place.darkness.is_dark]
    if len(lit) == len(parts) or route.policy.spill is Spill.NEVER:
        return lit
    lost = sum(part for place, part in parts if place.darkness.is_dark)
    bright = [place for place in places.values() if is_bright(place)]
    full = [route.home, *(place.datacenter for place, _ in lit[:-1])]
    room = [place for place in bright if place.datacenter not in full] or bright
    members = sum(len(place.members) for place in room)
    more = {place.datacenter: lost * len(place.members) / members for place in room}
    kept = [(place, part + more.pop(place.datacenter, 0.0)) for place, part in lit]
    return [*kept, *((places[name], part) for name, part in more.items())]


def is_bright(place: Place) -> bool:
    """Whether somebody there answers, and connections are made."""
    return bool(place.members) and place.grade < ANSWERED and not place.darkness.is_dark


def bounds_of(parts: Sequence[tuple[Place, float]]) -> tuple[tuple[float, Place], ...]:
    """(upper bound, place), so that a number in 0..1 names each place as often as its part says."""
    total = sum(part for _, part in parts)
    bounds: list[tuple[float, Place]] = []
    upper = 0.0
    for place, part in parts:
        upper += part / total
        bounds.append((upper, place))
    return (*bounds[:-1], (2.0, bounds[-1][1])) if bounds else ()


def in_order(first: Place, route: Route | None, places: Mapping[str, Place]) -> Iterator[Place]:
    """Where a call may go that cannot go to `first`: the other data centers with a share, nearest first, then, unless the
    policy forbids, all in which somebody answers."""
    yield first
    told = {first.datacenter: first}
    for share in route.shares if route is not None else ():
        place = places.get(share.datacenter)
        if share.share > 0.0 and place is not None and place.members and place.datacenter not in told:
            told[place.datacenter] = place
            yield place
    if route is None or route.policy.spill is Spill.NEVER:
        return
    for place in places.values():
        if place.members and place.grade < ANSWERED and place.datacenter not in told:
            yield place


def why_nobody(route: Route, places: Mapping[str, Place]) -> str:
    """Why there is nobody, in words."""
    if any(place.members for place in places.values()):
        return f"nobody is in {route.home}, and its policy keeps calls there (spill = never)"
    if route.instances:
        return f"its instances, {len(route.instances)}, are all in maintenance"
    return "nobody is registered"
