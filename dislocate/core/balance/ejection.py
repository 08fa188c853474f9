"""Passive ejection: when a caller stops using an endpoint that fails, whatever its health check says.  Pure rules.

Invariants: never more than half of a data center's endpoints, nor more than `at_most` of them, save that one always may
(Envoy's outlier detection).  What is down or drained by others' word is no ejection and not counted here.
"""

from collections.abc import Sequence
from math import sqrt

from dislocate.core.boundary.balance import Eject
from dislocate.core.streams import Stream
from dislocate.core.units import SECOND

JUDGED_EACH = 10 * SECOND  # success ratios are compared so often
JUDGED_CALLS = 100  # an endpoint with fewer calls in that time is not judged
JUDGED_HOSTS = 5  # fewer have no deviation worth the name
MARGIN = 0.05  # below the mean at least: where all do well, the least well does well too
JITTER = 0.2


def room(endpoints: int, eject: Eject) -> int:
    """How many of a data center's endpoints may be ejected at a time."""
    return min(max(1, int(eject.at_most * endpoints)), endpoints // 2)


def duration(times: int, eject: Eject, stream: Stream) -> int:
    """Nanoseconds that the `times`th ejection in a row lasts, 20 % more or less, so that callers do not return at once."""
    whole = min(eject.base * times, eject.longest)
    return round(whole * (1.0 - JITTER + 2.0 * JITTER * stream.unit()))


def outliers(ratios: Sequence[float], sigma: float) -> tuple[int, ...]:
    """Positions of the success ratios that are too far below the mean, worst first."""
    if sigma <= 0.0 or len(ratios) < JUDGED_HOSTS:
        return ()
    mean = sum(ratios) / len(ratios)
    deviation = sqrt(sum((ratio - mean) * (ratio - mean) for ratio in ratios) / len(ratios))
    least = min(mean - sigma * deviation, mean - MARGIN)
    return tuple(sorted((at for at, ratio in enumerate(ratios) if ratio < least), key=lambda at: (ratios[at], at)))
