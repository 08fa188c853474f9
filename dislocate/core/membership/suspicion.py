"""Suspicion: how long silence must last before it counts as death, and whose word it rests on.

Invariant: a silent member is declared dead only after `timeout()` of suspicion; each further accuser shortens that wait,
but never below `minimum()`.  A refused connection is no silence: see `refusal`.

Source: Lifeguard (arXiv 1707.00788), section 4, with memberlist's multiplier.  Does not gossip and does not know time:
the caller passes both in.
"""

from collections.abc import Iterable

from dislocate.core.identity import Path
from dislocate.core.numeric import ln, log10
from dislocate.core.tunables import PROBE_PERIOD, SUSPICION_CONFIRMATIONS, SUSPICION_MAX_FACTOR, SUSPICION_MULTIPLIER

ACCUSERS_KEPT = SUSPICION_CONFIRMATIONS + 1  # the first and K that confirm: one more would shorten nothing


def confirmations_needed(population: int) -> int:
    """K: how many further accusers bring the wait down to its minimum."""
    return min(SUSPICION_CONFIRMATIONS, max(0, population - 2))


def minimum(population: int, period: int = PROBE_PERIOD, multiplier: int = SUSPICION_MULTIPLIER) -> int:
    """The shortest suspicion among `population` members alive and suspect before the window, nanoseconds."""
    return int(multiplier * max(1.0, log10(max(1, population))) * period)


def timeout(
    confirmations: int, population: int, period: int = PROBE_PERIOD, multiplier: int = SUSPICION_MULTIPLIER
) -> int:
    """How long a member confirmed suspect by so many further accusers has to answer, nanoseconds."""
    low = minimum(population, period, multiplier)
    needed = confirmations_needed(population)
    if confirmations >= needed:
        return low
    high = SUSPICION_MAX_FACTOR * low
    return max(low, int(high - (high - low) * ln(confirmations + 1) / ln(needed + 1)))


class Suspicion:
    """One suspicion of one incarnation of a member, as this node runs it."""

    __slots__ = ("accusers", "armed", "incarnation", "population", "refused_by", "settled", "started")

    def __init__(self, incarnation: int, population: int, started: int) -> None:
        self.incarnation = incarnation
        self.population = population
        self.started = started  # moved on by as long as this process was stalled
        self.accusers: dict[Path, None] = {}
        self.armed = 0  # when the earliest timer under way fires; 0: none is
        self.settled = False  # it would be declared dead now, were it not for the brake
        self.refused_by: tuple[Path, ...] = ()  # settled by refusals, of these observers

    def add(self, accusers: Iterable[Path]) -> bool:
        """Merge; whether one of `accusers` was new and still counts."""
        before = len(self.accusers)
        for path in accusers:
            if len(self.accusers) < ACCUSERS_KEPT:
                self.accusers[path] = None
        return len(self.accusers) > before

    def deadline(self, period: int, multiplier: int) -> int:
        """When it counts as death."""
        return self.started + timeout(len(self.accusers) - 1, self.population, period, multiplier)

    @property
    def sorted_accusers(self) -> tuple[Path, ...]:
        return tuple(sorted(self.accusers))
