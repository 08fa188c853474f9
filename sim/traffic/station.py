"""A station: one instance as queueing theory sees it.  Workers, a queue before them, and how long serving takes.

Invariant: what was received is answered exactly once: served, failed at once, turned away, or lost when it dies.
An answer that nobody waits for any more still costs its work, which is what makes retry storms.  Does not know networks,
callers or health.
"""

from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Any, TypeAlias

from dislocate.core.streams import Stream
from dislocate.core.units import MICROSECOND
from sim.schedule import Schedule
from sim.traffic.chances import ServiceTime

FAST_ERROR = 200 * MICROSECOND  # to say that something is wrong takes no work


class Answer(Enum):
    """What became of a request at its station."""

    SERVED = "served"
    FAILED = "failed"  # it said that it could not
    TURNED_AWAY = "turned away"  # the queue was full
    LOST = "lost"  # the process died with it


Answered: TypeAlias = Callable[[Any, Answer], None]


class Station:
    """One instance."""

    __slots__ = (
        "_answered",
        "_busy_ns",
        "_changed_at",
        "_jobs",
        "_schedule",
        "_stream",
        "_waiting",
        "busy",
        "fails",
        "failures",
        "is_stopped",
        "is_up",
        "life",
        "limit",
        "received",
        "served",
        "service_time",
        "slowness",
        "workers",
    )

    def __init__(
        self,
        schedule: Schedule,
        stream: Stream,
        answered: Answered,
        *,
        workers: int,
        service_time: ServiceTime,
        limit: int = 0,
    ) -> None:
        """`limit`: of requests that wait; 0: none.  `answered` is told of each request what became of it."""
        self._schedule = schedule
        self._stream = stream
        self._answered = answered
        self.workers = workers
        self.service_time = service_time
        self.limit = limit
        self.slowness = 1.0  # serving takes so many times as long
        self.fails = 0.0  # part of all requests that are answered with an error, at once
        self.is_up = True
        self.is_stopped = False  # SIGSTOP: accepts and does nothing
        self.life = 0  # grows with each death and stop: what was begun before does not end after
        self.busy = 0
        self.received = self.served = self.failures = 0
        self._jobs: dict[int, Any] = {}  # being served, by number of reception
        self._waiting: deque[tuple[int, Any]] = deque()
        self._busy_ns = 0
        self._changed_at = 0

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def in_system(self) -> int:
        """Requests that are here: being served or waiting."""
        return self.busy + len(self._waiting)

    def receive(self, job: Any) -> None:
        """A request has come.  Only while it is up."""
        self.received = number = self.received + 1
        if self.fails and self._stream.chance(self.fails):
            self.failures += 1
            self._schedule.call(self._schedule.now + FAST_ERROR, self._said, job, Answer.FAILED)
        elif self.busy < self.workers and not self.is_stopped:
            self._account()
            self.busy += 1
            self._begin(number, job)
        elif self.limit and len(self._waiting) >= self.limit:
            self.failures += 1
            self._answered(job, Answer.TURNED_AWAY)
        else:
            self._waiting.append((number, job))

    def die(self) -> None:
        """SIGKILL: whoever waits hears that the connection is gone."""
        self._account()
        lost = [*self._jobs.values(), *(job for _, job in self._waiting)]
        self._jobs.clear()
        self._waiting.clear()
        self.is_up = self.is_stopped = False
        self.busy = 0
        self.life += 1
        for job in lost:
            self._answered(job, Answer.LOST)

    def start(self) -> None:
        """A new process, with nothing to do."""
        self._account()
        self.is_up = True

    def stop(self) -> None:
        """SIGSTOP."""
        if self.is_up and not self.is_stopped:
            self._account()
            self.is_stopped = True
            self.life += 1
            self.busy = 0
            self._waiting.extendleft(reversed(self._jobs.items()))  # they begin anew: close enough to a pause
            self._jobs.clear()

    def go_on(self) -> None:
        """SIGCONT."""
        if self.is_stopped:
            self._account()
            self.is_stopped = False
            while self._waiting and self.busy < self.workers:
                self.busy += 1
                self._begin(*self._waiting.popleft())

    def take_busy(self) -> int:
        """Nanoseconds of work done, of all workers, since the last asking."""
        self._account()
        done, self._busy_ns = self._busy_ns, 0
        return done

    def _begin(self, number: int, job: Any) -> None:
        takes = self.service_time.draw(self._stream)
        if self.slowness != 1.0:
            takes = int(takes * self.slowness)
        self._jobs[number] = job
        self._schedule.call(self._schedule.now + takes, self._end, number, self.life)

    def _end(self, number: int, life: int, _: None) -> None:
        if life != self.life:
            return
        job = self._jobs.pop(number)
        self.served += 1
        if self._waiting:
            self._begin(*self._waiting.popleft())
        else:
            self._account()
            self.busy -= 1
        self._answered(job, Answer.SERVED)

    def _said(self, job: Any, answer: Answer, _: None) -> None:
        self._answered(job, answer)

    def _account(self) -> None:
        now = self._schedule.now
        self._busy_ns += self.busy * (now - self._changed_at)
        self._changed_at = now
