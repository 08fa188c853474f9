"""Endpoints: which of the instances known may be used, best first.  Pure functions.

Invariants: an answer is empty only when every instance is in maintenance; one that is not up, or cannot be reached, is
used only where no better one is known (last known good: an empty answer for one second bricked a pool, haproxy#3400).

Grades, of which the first that has anybody counts:

1. passing or warning, its agent alive      2. the same, its agent suspected      3. unattended
4. one of those in an unreachable data center      5. draining      6. critical or starting: the last known

Panic (Envoy, threshold 50 %): where less than half of a whole service lives, its checks are no longer believed, and all
that is not draining is used.  That is about the endpoints of a data center that has a share; which has one is decided
before, from what lives (`flows`): other data centers come first.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

from dislocate.core.boundary.balance import Policy
from dislocate.core.boundary.values import Status
from dislocate.core.boundary.views import InstanceView
from dislocate.core.tunables import PANIC_BELOW, SLOW_START_LEAST

UP = (Status.PASSING, Status.WARNING)
_LAST_KNOWN = (Status.CRITICAL, Status.STARTING)
_JUDGED = (*UP, Status.UNATTENDED, Status.CRITICAL)  # who starts, drains or is in maintenance says nothing of health

_GRADES: tuple[Callable[[InstanceView], bool], ...] = (
    lambda i: i.reachable and i.status in UP and not i.suspected,
    lambda i: i.reachable and i.status in UP,
    lambda i: i.reachable and i.status is Status.UNATTENDED,
    lambda i: i.status in UP or i.status is Status.UNATTENDED,
    lambda i: i.status is Status.DRAINING,
    lambda i: i.status in _LAST_KNOWN,
)
NOBODY = len(_GRADES)  # worse than every grade
ANSWERED = 3  # grades below this one are of instances that probably answer


def grade(instances: Iterable[InstanceView]) -> int:
    """The best grade that any of `instances` has, 0 the best; NOBODY where none may be used at all."""
    known = tuple(instances)
    return next((at for at, is_of in enumerate(_GRADES) if any(map(is_of, known))), NOBODY)


def usable(instances: Sequence[InstanceView], panic: bool = False) -> tuple[InstanceView, ...]:
    """Those of the best grade that has anybody, in their order; one of weight 0 is left out while there are others.

    With `panic`, all that can be reached and neither drain nor start, whatever their checks say."""
    if panic:
        alike = [i for i in instances if i.reachable and i.status in _JUDGED]
    else:
        best = grade(instances)
        alike = [] if best == NOBODY else [i for i in instances if _GRADES[best](i)]
    return tuple([i for i in alike if i.weight] or alike) or (usable(instances) if panic else ())


def panics(instances: Iterable[InstanceView]) -> bool:
    """Whether less than half of a whole service lives, of what can be reached."""
    judged = [i for i in instances if i.reachable and i.status in _JUDGED]
    living = sum(i.status in UP and not i.suspected for i in judged)
    return living < PANIC_BELOW * len(judged)


def lives(instance: InstanceView) -> bool:
    """Whether it carries load: up, attended, not suspected, not out by its weight.  Its data center may be out of reach."""
    return instance.status in UP and not instance.suspected and instance.weight > 0


def up_weight(instance: InstanceView, seen_up_at: int, now: int, policy: Policy) -> float:
    """Its weight in slow start: a tenth at first, all of it after `policy.slow_start` (Envoy's formula, aggression 1)."""
    if policy.slow_start <= 0:
        return float(instance.weight)
    grown = (now - seen_up_at) / policy.slow_start
    return instance.weight * min(1.0, max(SLOW_START_LEAST, grown))


def by_datacenter(instances: Iterable[InstanceView]) -> dict[str, tuple[InstanceView, ...]]:
    """The instances of each data center, by name in order; within one their order stays."""
    ordered = sorted(instances, key=lambda instance: instance.datacenter)
    return {name: tuple(group) for name, group in groupby(ordered, key=lambda instance: instance.datacenter)}
