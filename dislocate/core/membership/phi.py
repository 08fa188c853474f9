"""Phi: how surprising a silence is on a link that used to speak regularly.

`value(now)` is -log10 of the probability that a heartbeat comes still later than now, if intervals stay as they were: 1
is one wrong suspicion in ten, 8 one in a hundred million.  Intervals are taken as normally distributed over a window.

Invariant: silences that were long enough to be judged (`UNREACHABLE_FLOOR`) never enter the window, so that an outage does
not teach the detector patience.  Sums are integers, so a replay agrees to the last bit.

Source: Hayashibara et al., "The phi accrual failure detector" (2004), with Akka's floor on the deviation.  The normal
tail is Börjesson and Sundberg's (1979), relative error below 0.3 % everywhere.  Does not judge: see `standing`.
"""

from collections import deque
from enum import Enum
from math import sqrt

from dislocate.core.numeric import LN10, exp, ln
from dislocate.core.tunables import (
    PHI_MIN_STD,
    PHI_SUSPECT,
    PHI_UNREACHABLE,
    PHI_WINDOW,
    UNREACHABLE_FLOOR,
)

_TAIL_A, _TAIL_B = 0.339, 5.510  # Börjesson and Sundberg, equation 13
_LN_SQRT_TWO_PI = 0.9189385332046727


class Standing(Enum):
    """What a silence means."""

    LIVE = "live"
    SUSPECT = "suspect"  # not worth queueing facts on: repair brings them when it speaks again
    SILENT = "silent"  # for this observer the other side is unreachable


LIVE, SUSPECT, SILENT = Standing  # asked with each heartbeat: Python 3.11 takes long to find a member by its name


def surprise(deviations: float) -> float:
    """-log10 of the chance that a standard normal exceeds `deviations`."""
    if deviations < 0.0:
        return -ln(1.0 - exp(-_minus_ln_tail(-deviations))) / LN10
    return _minus_ln_tail(deviations) / LN10


def _minus_ln_tail(x: float) -> float:
    return x * x / 2.0 + _LN_SQRT_TWO_PI + ln((1.0 - _TAIL_A) * x + _TAIL_A * sqrt(x * x + _TAIL_B))


def standing(phi: float, silence: int) -> Standing:
    """The verdict on a silence of `silence` nanoseconds with suspicion level `phi`."""
    if phi >= PHI_UNREACHABLE and silence >= UNREACHABLE_FLOOR:
        return SILENT
    return SUSPECT if phi >= PHI_SUSPECT else LIVE


class Phi:
    """The heartbeats of one peer."""

    __slots__ = ("_intervals", "_squares", "_sum", "last")

    def __init__(self, period: int, now: int) -> None:
        self.last = now  # when the peer last spoke, or we began to listen
        self._intervals: deque[int] = deque()
        self._sum = 0
        self._squares = 0
        # Akka's start: as if two heartbeats had come, a quarter of the period too early and too late.
        self._remember(period - period // 4)
        self._remember(period + period // 4)

    def heartbeat(self, now: int) -> None:
        """The peer spoke."""
        interval = now - self.last
        self.last = now
        if interval < UNREACHABLE_FLOOR:
            self._remember(interval)

    def stalled(self, gap: int) -> None:
        """This process stood still for `gap`: that silence was ours."""
        self.last += gap

    def value(self, now: int) -> float:
        """The suspicion level at `now`."""
        count = len(self._intervals)
        mean = self._sum / count
        variance = (count * self._squares - self._sum * self._sum) / (count * count)
        deviation = max(float(PHI_MIN_STD), sqrt(max(0.0, variance)))
        return surprise((now - self.last - mean) / deviation)

    def standing(self, now: int) -> Standing:
        silence = now - self.last
        if silence * len(self._intervals) <= self._sum:
            return LIVE  # as long as usual, phi is 0.3 at most: nearly always, and without a logarithm
        return standing(self.value(now), silence)

    def _remember(self, interval: int) -> None:
        self._intervals.append(interval)
        self._sum += interval
        self._squares += interval * interval
        if len(self._intervals) > PHI_WINDOW:
            oldest = self._intervals.popleft()
            self._sum -= oldest
            self._squares -= oldest * oldest
