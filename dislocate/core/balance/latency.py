"""Latency: what a call's duration does to what an endpoint is expected to cost, and percentiles of what was seen.

Peak EWMA (Finagle): a longer call counts at once, a shorter one by and by, with `TAU`.  Invariant: an error never makes
an endpoint look faster than it did (brpc#3367: a host that fails fast attracts traffic); it costs at least the timeout.
Trust wears that off: each success divides what the error left by `TRUST`, and idleness by a shorter tau, the shorter the
fewer errors there were in a row.  With `TAU` alone, one error among thousands of calls would keep an endpoint out for a
minute, and a service whose callers send it one bad request in a hundred would lose half of its capacity.

Decay is 1 / (1 + x + x^2/2) where others write exp(-x): within 1 % of that below 0.4 tau, without a table or a series,
exactly rounded on every machine, and between 0 and 2 even for an x below 0, which a clock that went back makes.
"""

from collections.abc import Sequence
from math import ceil

TAU = 10.0  # seconds; Finagle's decayTime
HURT_TAU = 2.0  # seconds, after HURT_ROW errors in a row: what they left is gone in some fifteen seconds
HURT_ROW = 5
HURT = 8  # successes after which nothing is left of an error
TRUST = 4.0
LEAST = 1e-6  # seconds: what decayed to nothing still has an order
CAP = 16.0  # timeouts


def decay(x: float) -> float:
    """The part that is left after x taus; x >= 0."""
    return 1.0 / (1.0 + x * (1.0 + 0.5 * x))


def after_error(cost: float, elapsed: float, timeout: float) -> float:
    """Seconds that an endpoint is expected to cost after an error."""
    return min(max(timeout, 2.0 * cost, elapsed), CAP * timeout)


def hurt_tau(consecutive: int) -> float:
    """Seconds by which what errors left decays, after so many in a row."""
    return HURT_TAU * min(HURT_ROW, max(1, consecutive)) / HURT_ROW


def percentile(ordered: Sequence[float], part: float) -> float:
    """The nearest-rank percentile of an ascending sequence that is not empty."""
    return ordered[max(0, ceil(part * len(ordered)) - 1)]
