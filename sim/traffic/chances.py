"""How long serving takes: draws from distributions, as integer nanoseconds, the same on every machine.

A distribution is a table of quantiles made once with `core.numeric`; a draw is one index.  Source: simulation.md, 5.4.
What a table of 4,096 cuts off of an exponential is beyond nine times its mean, one request in eight thousand.
"""

from functools import cache
from statistics import NormalDist
from typing import Protocol

from msgspec import Struct

from dislocate.core.numeric import exp, ln
from dislocate.core.streams import Stream

BITS = 12
QUANTILES = 1 << BITS


class ServiceTime(Protocol):
    """How long one request keeps one worker busy."""

    @property
    def mean(self) -> int:
        """Nanoseconds."""
        ...

    def draw(self, stream: Stream) -> int: ...


class Fixed(Struct, frozen=True):
    """Always the same."""

    mean: int

    def draw(self, _stream: Stream) -> int:
        return self.mean


class Exponential(Struct, frozen=True):
    """Without memory: most are short, some are several times the mean."""

    mean: int

    def draw(self, stream: Stream) -> int:
        return int(self.mean * _exponential()[stream.bits(BITS)])


class Lognormal(Struct, frozen=True):
    """What measured services look like: a middle, and a long tail that `sigma` stretches."""

    mean: int
    sigma: float = 0.7

    def draw(self, stream: Stream) -> int:
        return int(self.mean * _lognormal(self.sigma)[stream.bits(BITS)])


def exponential(stream: Stream, mean: float) -> int:
    """One draw, for gaps between arrivals."""
    return int(mean * _exponential()[stream.bits(BITS)])


def _scaled(quantiles: list[float]) -> tuple[float, ...]:
    """With a mean of one, whatever the table has cut off."""
    mean = sum(quantiles) / len(quantiles)
    return tuple(value / mean for value in quantiles)


@cache
def _exponential() -> tuple[float, ...]:
    return _scaled([-ln(1.0 - (at + 0.5) / QUANTILES) for at in range(QUANTILES)])


@cache
def _lognormal(sigma: float) -> tuple[float, ...]:
    normal = NormalDist()
    return _scaled([exp(sigma * round(normal.inv_cdf((at + 0.5) / QUANTILES), 9)) for at in range(QUANTILES)])
