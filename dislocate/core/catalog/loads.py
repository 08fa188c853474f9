"""Load: how busy this host's instances are, told to everybody, coarsely and seldom.

Invariants: a note is sent only when the load moved by a level since the last note, and at most once in `LOAD_MIN_INTERVAL`
per instance; the last value of a burst is always sent in the end.  An instance that reports nothing is covered by one note
for the whole host, until callers say how calls to it go (`called`): then it has a note of its own, with the host's
utilization.  What instances say of errors and p99 is not listened to: callers know.  Soft state: never stored.
"""

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from dislocate.core.boundary.values import Load
from dislocate.core.catalog.messages import LoadNote
from dislocate.core.catalog.owner import HOST, Owner
from dislocate.core.outbox import Outbox, Timer
from dislocate.core.tunables import ERRORS_STEP, LATENCY_STEP, LOAD_LEVELS, LOAD_MIN_INTERVAL


class LoadDue(Timer, frozen=True):
    """A note that had to wait may be sent."""

    instance_id: str


def quantized(load: Load) -> Load:
    """`load` in levels of utilization, and two to three significant bits of the rest."""
    return Load(
        round(load.utilization * LOAD_LEVELS) / LOAD_LEVELS,
        _coarse(load.in_flight),
        _coarse(load.rate),
        min(1.0, _steps(load.errors, ERRORS_STEP)),
        _steps(load.p99, LATENCY_STEP),
    )


def moved(told: Load, load: Load) -> bool:
    """Whether `load` is a whole level away from what was told: no toggling at the border of two levels."""
    return (
        abs(load.utilization - told.utilization) >= 1.0 / LOAD_LEVELS
        or _differs(told.in_flight, load.in_flight)
        or _differs(told.rate, load.rate)
        or _differs(told.errors / ERRORS_STEP, load.errors / ERRORS_STEP)
        or _differs(told.p99 / LATENCY_STEP, load.p99 / LATENCY_STEP)
    )


def _steps(number: float, step: float) -> float:
    """`number` to two or three significant bits, in whole steps; never 0 unless it is less than half a step."""
    return round(_coarse(number / step) * step, 6)


def _coarse(count: float) -> int:
    whole = round(count)
    shift = max(0, whole.bit_length() - 3)
    return (whole + (1 << shift >> 1)) >> shift << shift


def _differs(told: float, count: float) -> bool:
    return abs(count - told) >= max(1.0, told / 8.0)


class Loads:
    """The loads of this host's instances."""

    def __init__(self, out: Outbox, own: Owner, changed: Callable[[Owner, str], None]) -> None:
        self._out = out
        self._own = own
        self._changed = changed
        self._stamp = 0
        self._latest: dict[str, Load] = {}
        self._calls: dict[str, tuple[float, float]] = {}  # (errors, p99) of instances that callers told of
        self._free_at: dict[str, int] = {}  # when the next note about an instance may be sent
        self._waiting: dict[str, None] = {}

    def timers(self) -> dict[type, Callable[[Any], None]]:
        return {LoadDue: self._due}

    def report(self, instance_id: str, load: Load) -> None:
        """An instance, or with HOST the host, says how busy it is."""
        self._latest[instance_id] = load
        self._tell(instance_id)
        if instance_id == HOST:
            for called in self._calls:
                if called not in self._latest:
                    self._tell(called)

    def called(self, instance_id: str, errors: float, p99: float) -> None:
        """Callers say how calls to an instance go: the part that failed, and seconds."""
        if errors or p99 or instance_id in self._calls:
            self._calls[instance_id] = (errors, p99)
            self._tell(instance_id)

    def _load_of(self, instance_id: str) -> Load | None:
        """What is known now; None: nothing."""
        load = self._latest.get(instance_id)
        if instance_id not in self._calls:
            return None if load is None else replace(load, errors=0.0, p99=0.0)
        errors, p99 = self._calls[instance_id]
        return replace(load or self._latest.get(HOST) or Load(), errors=errors, p99=p99)

    def introduce(self) -> None:
        """The first instance came: now somebody wants to know the load of the host."""
        if HOST in self._latest and HOST not in self._own.loads:
            self._tell(HOST)

    def forget(self, instance_id: str) -> None:
        """The instance went away."""
        self._latest.pop(instance_id, None)
        self._calls.pop(instance_id, None)
        self._free_at.pop(instance_id, None)

    def _due(self, timer: LoadDue) -> None:
        self._waiting.pop(timer.instance_id, None)
        if self._load_of(timer.instance_id) is not None:
            self._tell(timer.instance_id)

    def _tell(self, instance_id: str) -> None:
        if not self._own.said.records:
            return
        load = self._load_of(instance_id)
        if load is None:
            return
        told = self._own.loads.get(instance_id)
        if (told is not None and not moved(told.load, load)) or instance_id in self._waiting:
            return
        now = self._out.now
        free_at = self._free_at.get(instance_id, now)
        if now < free_at:
            self._waiting[instance_id] = None
            self._out.arm(free_at, LoadDue(instance_id))
            return
        self._free_at[instance_id] = now + LOAD_MIN_INTERVAL
        self._stamp += 1
        note = LoadNote(self._out.node, instance_id, self._stamp, quantized(load))
        self._own.keep_load(note)
        self._changed(self._own, instance_id)
        self._out.spread(f"l/{self._own.path}/{instance_id}", note)
