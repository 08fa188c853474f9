"""Latency: what a call's duration does to what an endpoint is expected to cost, and percentiles of what was seen.

Peak EWMA (Finagle): a longer call counts at once, a shorter one by and by, with `TAU`.  Invariant: an error never makes
an endpoint look faster than it did (brpc#3367: a host that fails fast attracts traffic); it costs at least the timeout.
Trust wears that off: each success divides what the error left by `TRUST`, and idleness by a shorter tau, so that one
error among thousands of calls does not keep an endpoint out for a minute.

Decay is 1 / (1 + x + x^2/2), the reciprocal of exp(x) to its second order: within 1 % below half a tau, without a
table or a series, and exactly rounded on every machine.
"""

from collections.abc import Sequence
from math import ceil

TAU = 10.0  # seconds; Finagle's decayTime
HURT_TAU = 2.0  # seconds: what an error left is gone in a dozen of seconds, if nobody asks
HURT = 8  # successes after which nothing is left of an error
TRUST = 4.0
LEAST = 1e-6  # seconds: what decayed to nothing still has an order
CAP = 16.0  # timeouts


def decay(x: float) -> float:
    """The part that is left after x taus; x >= 0."""
    return 1.0 / (1.0 + x + x * x * 0.5)


def after_error(cost: float, elapsed: float, timeout: float) -> float:
    """Seconds that an endpoint is expected to cost after an error."""
    return min(max(timeout, 2.0 * cost, elapsed), CAP * timeout)


def percentile(ordered: Sequence[float], part: float) -> float:
    """The nearest-rank percentile of an ascending sequence that is not empty."""
    return ordered[max(0, ceil(part * len(ordered)) - 1)]
