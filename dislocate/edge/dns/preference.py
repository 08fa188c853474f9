"""Preference: which instances a caller here should be told of, in which order and with which weight.  Pure.

Invariants: as in `core.balance.endpoints`, whose grades these are: an answer is empty only when every instance is in
maintenance, or a policy keeps traffic at home and nobody is there.  Whoever has a part of the traffic has a weight of it,
and none is 0, which SRV takes for 'hardly ever'.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from msgspec import Struct

from dislocate.core.balance.endpoints import usable
from dislocate.core.balance.parts import InstancePart
from dislocate.core.boundary.values import Status
from dislocate.core.boundary.views import DatacenterView, InstanceView

WEIGHTS = 1_000  # shared out among those with a part of the traffic: to a tenth of a percent


class Told(Struct, frozen=True):
    """An instance that is named, with its weight among those of its priority."""

    instance: InstanceView
    weight: int


def by_weight(instances: Iterable[InstanceView]) -> tuple[Told, ...]:
    """As registered: for who names a data center, and for who is spare."""
    return tuple(Told(instance, max(1, instance.weight)) for instance in instances)


def by_part(
    given: Iterable[InstancePart], home: str, datacenters: Mapping[str, DatacenterView]
) -> list[tuple[Told, ...]]:
    """First those with a part of the traffic, of all data centers, nearest first; then, data center by data center, the
    spare ones."""
    found = tuple(given)
    busy = {(each.instance.node, each.instance.id): each.part for each in found if each.part}
    groups = by_distance((each.instance for each in found if each.part), home, datacenters)
    sharing = tuple(
        Told(instance, max(1, round(WEIGHTS * busy[instance.node, instance.id])))
        for group in groups
        for instance in group
    )
    spare = by_distance((each.instance for each in found if each.part == 0.0), home, datacenters)
    return [*([sharing] if sharing else []), *map(by_weight, spare)]


def best_first(told: Sequence[Told]) -> list[tuple[Told, int]]:
    """For who can carry no weight, and takes the first: of each data center those that pass have turn 0, those that warn
    turn 1.  In each turn a data center has the weight of all that are told of it, so that shares hold for the first too."""
    turns: dict[tuple[str, Status], int] = {}
    statuses: Counter[str] = Counter()
    of_place: Counter[str] = Counter()
    of_turn: Counter[tuple[str, Status]] = Counter()
    for each in told:
        name = each.instance.datacenter
        place = (name, each.instance.status)
        if place not in turns:
            turns[place] = statuses[name]
            statuses[name] += 1
        of_place[name] += each.weight
        of_turn[place] += each.weight
    found: list[tuple[Told, int]] = []
    for each in told:
        place = (each.instance.datacenter, each.instance.status)
        weight = max(1, round(each.weight * of_place[place[0]] / of_turn[place]))
        found.append((Told(each.instance, weight), turns[place]))
    return found


def rank(
    instances: tuple[InstanceView, ...], home: str, datacenters: Mapping[str, DatacenterView]
) -> tuple[tuple[InstanceView, ...], ...]:
    """The instances worth telling, grouped by data center: home first, then by RTT, those without a measure last.

    Within a group the order of `ServiceView` stays: passing before warning.  An instance of weight 0 is left out while
    there are others."""
    return by_distance(usable(instances), home, datacenters)


def by_distance(
    instances: Iterable[InstanceView], home: str, datacenters: Mapping[str, DatacenterView]
) -> tuple[tuple[InstanceView, ...], ...]:
    """All of `instances`, grouped and in order as by `rank`."""

    def distance(instance: InstanceView) -> tuple[bool, bool, int, str]:
        view = datacenters.get(instance.datacenter)
        rtt = None if view is None else view.rtt
        return instance.datacenter != home, rtt is None, rtt or 0, instance.datacenter

    ordered = sorted(instances, key=distance)
    return tuple(tuple(group) for _, group in groupby(ordered, key=lambda instance: instance.datacenter))
