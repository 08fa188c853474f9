"""Latency alone, as Finagle's P2C with peak EWMA does it over every instance of every data center.

    cost = rtt where that is higher, else an average that decays in 10 s;  load = cost * (pending + 1)

An instance without history costs next to nothing until it has something pending, then very much.  Five failures in a row
and it is left alone for 5 s, doubled up to 300 s (failure accrual).  Retries: 20 % of calls and 10 a second.
Sources: Finagle's PeakEwma, RetryBudget and FailureAccrual (balancing.md, 1.2).
"""

from collections.abc import Sequence

from msgspec import Struct

from dislocate.core.numeric import exp
from dislocate.core.units import SECOND
from sim.traffic.balancer import Call, Ended, Place, Setting, Told
from sim.traffic.peers.common import Budget, Plain, without

DECAY = 10 * SECOND
PENALTY = float((1 << 63) >> 16)
CONSECUTIVE = 5
REVIVAL = (5 * SECOND, 300 * SECOND)


class Seen(Struct):
    """One instance as one caller knows it."""

    cost: float = 0.0
    at: int = 0
    pending: int = 0
    failures: int = 0
    marked: int = 0  # how often in a row
    dead_until: int = 0


class PeakEwma(Plain):
    """Power of two choices on peak EWMA, over everything."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._seen = [[Seen() for _ in setting.places] for _ in setting.callers]
        self._budgets = [Budget(0.2, 10.0) for _ in setting.callers]
        self._stream = setting.streams["p2c"]

    def choose(self, call: Call, now: int, *, retry: bool) -> Place | None:
        budget = self._budgets[call.caller.at]
        if retry and not budget.take():
            return None
        if not call.attempt:
            budget.begun()
        hosts = without(self.healthy.everywhere, call.tried) or self.healthy.everywhere
        if not hosts:
            return None
        seen, unit, count = self._seen[call.caller.at], self._stream.unit, len(hosts)
        for _ in range(5):  # maxEffort
            one, other = hosts[int(unit() * count)], hosts[int(unit() * count)]
            first, second = seen[one.at], seen[other.at]
            if first.dead_until <= now or second.dead_until <= now:
                break
        if first.dead_until > now:
            place = other
        elif second.dead_until > now:
            place = one
        else:
            place = one if _load(first, now) <= _load(second, now) else other
        seen[place.at].pending += 1
        return place

    def done(self, call: Call, now: int, ended: Ended) -> None:
        assert call.place is not None
        seen = self._seen[call.caller.at][call.place.at]
        seen.pending -= 1
        _observe(seen, float(now - call.sent), now)
        if ended is Ended.OK:
            seen.failures = seen.marked = 0
            return
        seen.failures += 1
        if seen.failures >= CONSECUTIVE:
            seen.failures = CONSECUTIVE - 1  # after revival one more is enough
            seen.dead_until = now + min(REVIVAL[1], REVIVAL[0] << seen.marked)
            seen.marked = min(seen.marked + 1, 10)

    def tick(self, now: int, told: Sequence[Told | None]) -> None:
        for budget in self._budgets:
            budget.second()


def _observe(seen: Seen, took: float, now: int) -> None:
    if took > seen.cost:
        seen.cost = took
    else:
        weight = exp(-(now - seen.at) / DECAY)
        seen.cost = seen.cost * weight + took * (1.0 - weight)
    seen.at = now


def _load(seen: Seen, now: int) -> float:
    if seen.cost == 0.0 and seen.pending:
        return PENALTY + seen.pending
    # As the original, which observes 0 before it answers: what was not heard of for long is forgiven.
    return seen.cost * exp(-(now - seen.at) / DECAY) * (seen.pending + 1)
