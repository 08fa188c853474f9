"""How much is asked for, and when: rates over time, as the callers of one data center offer them.

A rate is a pure function of time with a known highest value, so that arrivals can be drawn by thinning.
"""

from typing import Protocol

from msgspec import Struct

from dislocate.core.streams import Stream
from dislocate.core.units import HOUR, SECOND
from sim.traffic.chances import exponential


class Demand(Protocol):
    """Calls a second of all callers of one data center together."""

    @property
    def peak(self) -> float:
        """Never more than this."""
        ...

    def at(self, now: int) -> float: ...


class Steady(Struct, frozen=True):
    """The same all the time: an open-loop Poisson process."""

    rate: float

    @property
    def peak(self) -> float:
        return self.rate

    def at(self, _now: int) -> float:
        return self.rate


class Diurnal(Struct, frozen=True):
    """A day: between `low` and `high`, highest at `noon`, and time zones are other noons."""

    low: float
    high: float
    noon: int = 12 * HOUR
    day: int = 24 * HOUR

    @property
    def peak(self) -> float:
        return self.high

    def at(self, now: int) -> float:
        away = abs((now - self.noon) / self.day - round((now - self.noon) / self.day)) * 2.0  # 0 at noon, 1 at midnight
        bell = 1.0 - away * away * (3.0 - 2.0 * away)  # a smooth step: no libm
        return self.low + (self.high - self.low) * bell


class FlashCrowd(Struct, frozen=True):
    """`rate`, and from `begin` a climb to `times` as much within `climb`, for `lasting`, and as fast back."""

    rate: float
    times: float
    begin: int
    lasting: int
    climb: int = 2 * SECOND

    @property
    def peak(self) -> float:
        return self.rate * max(1.0, self.times)

    def at(self, now: int) -> float:
        up = min(1.0, max(0.0, (now - self.begin) / self.climb))
        down = min(1.0, max(0.0, (now - self.begin - self.lasting) / self.climb))
        return self.rate * (1.0 + (self.times - 1.0) * (up - down))


def next_arrival(demand: Demand, part: float, now: int, stream: Stream) -> int:
    """When the next call comes of a caller with so big a `part` of the demand; thinning (Lewis and Shedler 1979)."""
    peak = demand.peak * part
    at = now
    while True:
        at += 1 + exponential(stream, SECOND / peak)
        if stream.unit() * demand.peak <= demand.at(at):
            return at


class Keys(Struct, frozen=True):
    """What is asked about: one of `count` keys, the first of them as often as `hot` says."""

    count: int
    hot: float = 0.0

    def draw(self, stream: Stream) -> str:
        if self.hot and stream.chance(self.hot):
            return "k0"
        return f"k{stream.below(self.count)}"
