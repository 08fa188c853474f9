"""What a report said that certainly did not arrive: the next one tells it too.  Pure.

Outcomes are owed, since somebody counts them (health as callers see it, gates of config runs).  Rates are not: they say what
is offered now, and those of a second ago are of no interest any more.
"""

from collections.abc import Iterable, Sequence

from dislocate.core.boundary.balance import Outcomes, Usage
from dislocate.core.tunables import OUTCOMES_TOLD


def with_owed(owed: Iterable[Usage], new: Sequence[Usage]) -> list[Usage]:
    """`new` with the outcomes of `owed` added to it, the busiest first."""
    found = {usage.service: usage for usage in new}
    for usage in owed:
        if usage.outcomes:
            now = found.get(usage.service, Usage(usage.service, 0.0))
            outcomes = _added(usage.outcomes + now.outcomes)
            found[usage.service] = Usage(now.service, now.offered, now.retries, outcomes)
    return list(found.values())


def _added(outcomes: Iterable[Outcomes]) -> tuple[Outcomes, ...]:
    sums: dict[tuple[str, str], Outcomes] = {}
    for one in outcomes:
        known = sums.get((one.node, one.instance), Outcomes(one.node, one.instance, 0, 0, 0.0))
        calls, failed = known.calls + one.calls, known.failed + one.failed
        sums[one.node, one.instance] = Outcomes(one.node, one.instance, calls, failed, max(known.p99, one.p99))
    return tuple(sorted(sums.values(), key=lambda one: (-one.calls, one.node, one.instance))[:OUTCOMES_TOLD])
