"""Nearby: the data center that traffic goes to while nobody knows what instances can carry.  Pure.

The nearest one that has somebody, among those whose best instances are of the best grade known anywhere; where traffic
may not leave (`Spill.NEVER`), this one, whatever lives in it.
"""

from collections.abc import Mapping, Sequence

from dislocate.core.balance.endpoints import ANSWERED, NOBODY, by_datacenter, grade, usable
from dislocate.core.boundary.balance import Policy, Share, Spill
from dislocate.core.boundary.views import InstanceView


def nearest_shares(
    home: str, instances: Sequence[InstanceView], policy: Policy, costs: Mapping[str, int | None]
) -> tuple[Share, ...]:
    """All to one data center; empty where nobody is anywhere, or nobody here that callers may use.

    `costs` are nanoseconds from `home`, with price; absent or None: not known, and farther than any other."""
    places = by_datacenter(instances)
    here = places.get(home, ())
    if policy.spill is Spill.NEVER or (policy.spill is Spill.DEAD and grade(here) < ANSWERED):
        return (Share(home, 1.0),) if grade(here) < NOBODY else ()
    names = dict.fromkeys(instance.datacenter for instance in usable(instances))

    def distance(name: str) -> tuple[int, bool, bool, int, str]:
        cost = costs.get(name)
        return policy.tiers.get(name, 0), name != home, cost is None, cost or 0, name

    return (Share(min(names, key=distance), 1.0),) if names else ()
