"""Gathering: what a relay knows of one service in its own data center, a second at a time.

    demand       what all hosts here say that their callers offer, smoothed (EWMA 0.3)
    capacity     of one endpoint of weight 1: rate / utilization where that is above 0.2, smoothed (EWMA 0.2); the last good
                 value while all idle.  Alike for how many requests it serves at a time.  Of one instance no more is believed
                 than a few times what its peers say (`believing`)
    backlog      requests in flight beyond what the endpoints can serve at a time, where they are saturated; of one endpoint
                 no more than what takes away all that it carries itself

Invariant: the numbers that are told change only when one of them moved by FLOW_MOVED; rows are computed from those told,
so that who hears them computes the same.
"""

from collections.abc import Iterable

from msgspec import Struct

from dislocate.core.balance.believing import VOICES, bound_of
from dislocate.core.boundary.views import InstanceView
from dislocate.core.identity import Path
from dislocate.core.tunables import (
    BACKLOG_DRAIN,
    BELIEVED,
    BELIEVED_OF_IDLE,
    CAPACITY_SMOOTHING,
    DEMAND_SMOOTHING,
    FLOW_MOVED,
    HINT_FROM,
    MEASURED_FROM,
    SATURATED_FROM,
    USAGE_GONE,
)
from dislocate.core.units import SECOND

SMALL = 0.5  # requests, or requests a second that are offered: a smaller difference is noise


class Numbers(Struct, frozen=True):
    """One service in one data center."""

    demand: float = 0.0
    endpoint_capacity: float = 0.0  # 0: unknown
    concurrency: float = 0.0  # 0: unknown
    live: float = 0.0
    weight: float = 0.0  # `live` without slow start
    backlog: float = 0.0


def endpoint_capacity(instances: Iterable[InstanceView]) -> float:
    """Requests a second of one endpoint of weight 1, as those that are loaded enough say; 0: none is.  Where they are few,
    those that idle say what order of magnitude may be believed."""
    measured: list[tuple[float, float]] = []
    idle: list[float] = []
    for instance in instances:
        load = instance.load
        if load is None or load.rate <= 0.0 or instance.weight <= 0:
            continue
        if load.utilization > MEASURED_FROM:
            measured.append((load.rate, load.utilization * instance.weight))
        elif load.utilization > HINT_FROM:
            idle.append(load.rate / (load.utilization * instance.weight))
    voices = [rate / used for rate, used in measured]
    few = bound_of(voices + idle, BELIEVED_OF_IDLE)
    return _average(measured, few if len(voices) < VOICES else bound_of(voices, BELIEVED))


def concurrency(instances: Iterable[InstanceView]) -> float:
    """Requests that one endpoint of weight 1 serves at a time, as those say that are loaded but not saturated; 0: none is."""
    measured: list[tuple[float, float]] = []
    for instance in instances:
        load = instance.load
        if load is None or load.in_flight <= 0 or instance.weight <= 0:
            continue
        if MEASURED_FROM < load.utilization < SATURATED_FROM:
            measured.append((load.in_flight, load.utilization * instance.weight))
    return _average(measured, bound_of([requests / used for requests, used in measured], BELIEVED))


def _average(measured: Iterable[tuple[float, float]], bound: float) -> float:
    """(what was done, by how much of an endpoint) of each: what one whole endpoint does; 0: nobody says anything."""
    done, whole = 0.0, 0.0
    for amount, used in measured:
        done += amount if amount / used <= bound else bound * used
        whole += used
    return done / whole if whole > 0.0 else 0.0


def backlog(instances: Iterable[InstanceView], each: float, carries: float = 0.0) -> float:
    """Requests that wait at saturated endpoints which serve `each` at a time and carry `carries` a second, 0: unknown; 0 where
    `each` is unknown."""
    if each <= 0.0:
        return 0.0
    most = carries * BACKLOG_DRAIN / SECOND if carries > 0.0 else float("inf")
    loads = [(one.load, one.weight) for one in instances if one.load is not None]
    waiting = [
        min(load.in_flight - each * weight, most * max(1, weight))
        for load, weight in loads
        if load.utilization >= SATURATED_FROM
    ]
    return sum(max(0.0, requests) for requests in waiting)


def smoothed(before: float, now: float, gain: float) -> float:
    """`before` moved towards `now`; the first value counts whole."""
    return now if before <= 0.0 else before + gain * (now - before)


def _learned(before: float, measured: float) -> float:
    """What is known after a second that says `measured`.  Where few instances speak, what was known is another voice: no
    second counts as more than BELIEVED times that."""
    believed = min(measured, BELIEVED * before) if before > 0.0 else measured
    return smoothed(before, believed, CAPACITY_SMOOTHING)


def has_moved(told: float, now: float, small: float = 0.0) -> bool:
    """Whether `now` is clearly another number; of two that are above 0, a difference below `small` is none."""
    return abs(now - told) > max(FLOW_MOVED * abs(told), small if told and now else 0.0)


class Gathering:
    """One service in the relay's data center."""

    def __init__(self) -> None:
        self.told = Numbers()  # what the last report said, or the next one says
        self.epoch = 0  # of `told`; 0: nothing was measured yet
        self._usages: dict[Path, tuple[float, int]] = {}  # by host: first attempts a second, and when it said so
        self._demand = 0.0
        self._capacity = 0.0
        self._concurrency = 0.0

    def offered(self, host: Path, rate: float, now: int) -> None:
        """Callers of `host` offer so much."""
        self._usages[host] = (rate, now)

    def second(self, living: tuple[InstanceView, ...], now: int) -> None:
        """A second went by; `living` are the endpoints here that carry load."""
        self._usages = {host: usage for host, usage in self._usages.items() if now - usage[1] < USAGE_GONE}
        offered = sum(rate for rate, _ in self._usages.values())
        self._demand = smoothed(self._demand, offered, DEMAND_SMOOTHING) if self._usages else 0.0
        if measured := endpoint_capacity(living):
            self._capacity = _learned(self._capacity, measured)
        if measured := concurrency(living):
            self._concurrency = _learned(self._concurrency, measured)

    def tell(self, living: tuple[InstanceView, ...], live: float) -> bool:
        """See whether the numbers moved since they were told; if so they are told anew.  `live`: weighted, in slow start."""
        new = Numbers(
            demand=self._demand,
            endpoint_capacity=self._capacity,
            concurrency=self._concurrency,
            live=live,
            weight=float(sum(instance.weight for instance in living)),
            backlog=backlog(living, self._concurrency, self._capacity),
        )
        if self.epoch and not _is_other(self.told, new):
            return False
        self.told = new
        self.epoch += 1
        return True

    @property
    def is_called(self) -> bool:
        """Whether anybody here offers anything."""
        return self._demand > 0.0


def _is_other(told: Numbers, new: Numbers) -> bool:
    return (
        has_moved(told.demand, new.demand, SMALL)
        or has_moved(told.endpoint_capacity, new.endpoint_capacity)
        or has_moved(told.backlog, new.backlog, SMALL)
        or abs(new.live - told.live) > FLOW_MOVED * told.live
        or new.weight != told.weight
        or (new.live >= new.weight) is not (told.live >= told.weight)
    )
