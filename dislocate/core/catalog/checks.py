"""Checks: when the checks of own instances run, and what their results and heartbeats do.

Invariants: one run in flight per instance; intervals are jittered, so that a fleet does not check in step; a result of an
earlier registration of the same id is ignored.  An instance with a ttl check calls in itself: its word counts at once, and
so does its silence.
"""

from collections.abc import Callable
from typing import Any

from dislocate.core.boundary.inputs import CheckCompleted
from dislocate.core.boundary.values import CheckSpec, Status
from dislocate.core.catalog.instance import OwnInstance
from dislocate.core.outbox import Outbox, Timer
from dislocate.core.streams import Stream
from dislocate.core.tunables import CHECK_JITTER, CHECK_MIN_PAUSE, STARTING_PACE
from dislocate.core.units import SECOND, format_duration

OUTPUT_LIMIT = 4_096  # characters


class CheckDue(Timer, frozen=True):
    """Run the check; outdated when the instance was registered anew."""

    instance_id: str
    epoch: int


class TtlDue(Timer, frozen=True):
    """The instance should have called in; outdated likewise."""

    instance_id: str
    epoch: int


def pause_before_next(spec: CheckSpec, status: Status, stream: Stream) -> int:
    """Nanoseconds from the start of one run to the next: the interval, or less while the instance is starting."""
    pace = min(spec.interval, STARTING_PACE) if status is Status.STARTING else spec.interval
    jitter = int(pace * CHECK_JITTER)
    return pace + stream.between(-jitter, jitter)


class Checks:
    """The checks of this host's instances."""

    def __init__(
        self,
        stream: Stream,
        out: Outbox,
        find: Callable[[str], OwnInstance | None],
        judged: Callable[[OwnInstance], None],
    ) -> None:
        self._stream = stream
        self._out = out
        self._find = find
        self._judged = judged  # called when the health of an instance changed

    def timers(self) -> dict[type, Callable[[Any], None]]:
        return {CheckDue: self._due, TtlDue: self._ttl_due}

    def begin(self, instance: OwnInstance, *, spread: bool) -> None:
        """Start checking; `spread`: many start at once, so the first runs are dispersed over a second."""
        spec = instance.spec.check
        if spec is None:
            return
        if spec.ttl:
            instance.called_at = self._out.now
            self._out.arm(self._out.now + spec.ttl, TtlDue(instance.id, instance.epoch))
        elif spread:
            delay = self._stream.below(min(spec.interval, SECOND))
            self._out.arm(self._out.now + delay, CheckDue(instance.id, instance.epoch))
        else:
            self._run(instance, spec)

    def completed(self, completed: CheckCompleted) -> None:
        """A result came in."""
        instance_id, _, epoch = completed.check_id.rpartition("#")
        instance = self._find(instance_id)
        if instance is None or str(instance.epoch) != epoch or not instance.is_checking or instance.spec.check is None:
            self._out.count("check_results_outdated")
            return
        now = self._out.now
        instance.is_checking = False
        instance.output = completed.outcome.output[:OUTPUT_LIMIT]
        if instance.health.observe(completed.outcome.status, now):
            self._tell(instance, instance.output or "check " + completed.outcome.status.value)
        pause = pause_before_next(instance.spec.check, instance.health.status, self._stream)
        at = max(instance.called_at + pause, now + CHECK_MIN_PAUSE)
        self._out.arm(at, CheckDue(instance.id, instance.epoch))

    def heartbeat(self, instance: OwnInstance, status: Status, output: str) -> None:
        """The instance calls in."""
        instance.called_at = self._out.now
        instance.output = output[:OUTPUT_LIMIT]
        if instance.health.declare(status, self._out.now):
            self._tell(instance, instance.output or "heartbeat says " + status.value)

    def _due(self, timer: CheckDue) -> None:
        instance = self._find(timer.instance_id)
        if instance is None or instance.epoch != timer.epoch or instance.is_checking or instance.spec.check is None:
            return
        self._run(instance, instance.spec.check)

    def _run(self, instance: OwnInstance, spec: CheckSpec) -> None:
        instance.is_checking = True
        instance.called_at = self._out.now
        self._out.run_check(f"{instance.id}#{instance.epoch}", spec)

    def _tell(self, instance: OwnInstance, cause: str) -> None:
        is_held = instance.health.damping.is_holding
        instance.cause = f"flapping, held down until it is quiet: {cause}" if is_held else cause
        self._judged(instance)

    def _ttl_due(self, timer: TtlDue) -> None:
        instance = self._find(timer.instance_id)
        if instance is None or instance.epoch != timer.epoch or instance.spec.check is None:
            return
        ttl, now = instance.spec.check.ttl, self._out.now
        if now < instance.called_at + ttl:
            self._out.arm(instance.called_at + ttl, timer)
            return
        if instance.health.declare(Status.CRITICAL, now):
            self._tell(instance, f"no heartbeat for {format_duration(ttl)}")
        self._out.arm(now + ttl, timer)
