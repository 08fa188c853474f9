"""What callers saw: times and shares over a run, and second by second.

A call that failed counts among the times with what it took until it failed; an error is no low latency, so errors stand
beside them as a figure of their own.
"""

from collections.abc import Sequence
from typing import TypeAlias

from msgspec import Struct

from dislocate.core.units import MILLISECOND, SECOND
from sim.traffic.plan import Plan

FAILED = -1
Ending: TypeAlias = tuple[
    int, int, int, int
]  # begun, took (ns), data center of the caller and of who served, or FAILED


class Measured(Struct, frozen=True):
    """One run."""

    calls: int  # measured: begun after the warm-up, and ended
    p50: float  # milliseconds
    p99: float
    crossing: float  # part of the calls served that another data center served
    errors: float  # part of all calls
    attempts: float  # per call begun, over the whole run


class Second(Struct, frozen=True):
    """What callers of one data center began in one second."""

    at: int  # seconds
    calls: int
    p99: float  # milliseconds
    shares: tuple[float, ...]  # by data center that served; what is missing failed


def percentile(ordered: Sequence[int], part: float) -> float:
    """Milliseconds; nearest rank, of values in order."""
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] / MILLISECOND if ordered else 0.0


def measured(ends: Sequence[Ending], plan: Plan, begun: int, attempts: int) -> Measured:
    """Of all calls that began after the warm-up."""
    counted = [end for end in ends if end[0] >= plan.warm_up]
    took = sorted(end[1] for end in counted)
    served = [end for end in counted if end[3] != FAILED]
    crossed = sum(end[2] != end[3] for end in served)
    return Measured(
        calls=len(counted),
        p50=percentile(took, 0.5),
        p99=percentile(took, 0.99),
        crossing=crossed / max(1, len(served)),
        errors=1 - len(served) / max(1, len(counted)),
        attempts=attempts / max(1, begun),
    )


def by_second(ends: Sequence[Ending], plan: Plan, home: int) -> list[Second]:
    """Of the callers of data center number `home`."""
    buckets: dict[int, list[Ending]] = {}
    for end in ends:
        if end[2] == home:
            buckets.setdefault(end[0] // SECOND, []).append(end)
    count = len(plan.datacenters)
    return [
        Second(
            at=at,
            calls=len(bucket),
            p99=percentile(sorted(end[1] for end in bucket), 0.99),
            shares=tuple(sum(end[3] == there for end in bucket) / len(bucket) for there in range(count)),
        )
        for at, bucket in sorted(buckets.items())
    ]
