"""Preference: which instances a caller here should be told of, nearest first.  One pure function.

Invariants: an answer is empty only when every instance is in maintenance; an instance that is not up, or cannot be
reached, is named only when no better one is known anywhere in scope (last known good: an empty answer for one second
bricked a pool, haproxy#3400).  Grades, of which the first that has anybody counts:

1. passing or warning, its agent alive      2. the same, its agent suspected      3. unattended
4. one of those in an unreachable data center      5. draining      6. critical or starting: the last known
"""

from collections.abc import Mapping
from itertools import groupby

from dislocate.core.boundary.values import Status
from dislocate.core.boundary.views import DatacenterView, InstanceView

_UP = (Status.PASSING, Status.WARNING)
_LAST_KNOWN = (Status.CRITICAL, Status.STARTING)


def rank(
    instances: tuple[InstanceView, ...], home: str, datacenters: Mapping[str, DatacenterView]
) -> tuple[tuple[InstanceView, ...], ...]:
    """The instances worth telling, grouped by data center: home first, then by RTT, those without a measure last.

    Within a group the order of `ServiceView` stays: passing before warning.  An instance of weight 0 is left out while
    there are others."""
    grade = next((found for wanted in _GRADES if (found := [i for i in instances if wanted(i)])), [])
    chosen = [instance for instance in grade if instance.weight] or grade

    def distance(instance: InstanceView) -> tuple[bool, bool, int, str]:
        view = datacenters.get(instance.datacenter)
        rtt = None if view is None else view.rtt
        return instance.datacenter != home, rtt is None, rtt or 0, instance.datacenter

    chosen.sort(key=distance)
    return tuple(tuple(group) for _, group in groupby(chosen, key=lambda instance: instance.datacenter))


_GRADES = (
    lambda i: i.reachable and i.status in _UP and not i.suspected,
    lambda i: i.reachable and i.status in _UP,
    lambda i: i.reachable and i.status is Status.UNATTENDED,
    lambda i: i.status in _UP or i.status is Status.UNATTENDED,
    lambda i: i.status is Status.DRAINING,
    lambda i: i.status in _LAST_KNOWN,
)
