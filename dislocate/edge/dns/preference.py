"""Preference: which instances a caller here should be told of, nearest first.  One pure function.

Invariants: as in `core.balance.endpoints`, whose grades these are, over all data centers together: an answer is empty only
when every instance is in maintenance.
"""

from collections.abc import Mapping
from itertools import groupby

from dislocate.core.balance.endpoints import usable
from dislocate.core.boundary.views import DatacenterView, InstanceView


def rank(
    instances: tuple[InstanceView, ...], home: str, datacenters: Mapping[str, DatacenterView]
) -> tuple[tuple[InstanceView, ...], ...]:
    """The instances worth telling, grouped by data center: home first, then by RTT, those without a measure last.

    Within a group the order of `ServiceView` stays: passing before warning.  An instance of weight 0 is left out while
    there are others."""

    def distance(instance: InstanceView) -> tuple[bool, bool, int, str]:
        view = datacenters.get(instance.datacenter)
        rtt = None if view is None else view.rtt
        return instance.datacenter != home, rtt is None, rtt or 0, instance.datacenter

    chosen = sorted(usable(instances), key=distance)
    return tuple(tuple(group) for _, group in groupby(chosen, key=lambda instance: instance.datacenter))
