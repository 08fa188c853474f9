"""How busy a server is, as the balancer wants to know it: utilization, requests in flight, requests a second.

Utilization is the larger of two: the part of its workers that were busy on average since the last reading, and the part of
one core that the process used.  By Little's law rate / utilization is then what the server can do, whether its requests wait
for others or compute.  In flight counts those that wait for a worker too, so that a backlog is seen.  Pure.
"""

from collections.abc import Callable

from msgspec import Struct


class Reading(Struct, frozen=True):
    """The time since the reading before."""

    utilization: float  # 0..1
    in_flight: int  # now
    rate: float  # requests a second that ended


class Meter:
    """`workers`: requests that are worked on at a time at most.  Clocks give seconds, `cpu` those that were computed."""

    def __init__(self, workers: int, clock: Callable[[], float], cpu: Callable[[], float]) -> None:
        self.in_flight = 0
        self._workers = workers
        self._clock = clock
        self._cpu = cpu
        self._busy = 0.0  # seconds of workers since the last reading
        self._ended = 0
        self._moved = self._read_at = clock()
        self._computed = cpu()

    def begin(self) -> None:
        self._add()
        self.in_flight += 1

    def end(self) -> None:
        self._add()
        self.in_flight -= 1
        self._ended += 1

    def read(self) -> Reading:
        self._add()
        computed = self._cpu()
        elapsed = max(1e-6, self._moved - self._read_at)
        busy = self._busy / (elapsed * self._workers)
        core = (computed - self._computed) / elapsed
        reading = Reading(round(min(1.0, max(busy, core, 0.0)), 4), self.in_flight, round(self._ended / elapsed, 3))
        self._busy, self._ended, self._read_at, self._computed = 0.0, 0, self._moved, computed
        return reading

    def _add(self) -> None:
        now = self._clock()
        self._busy += (now - self._moved) * min(self.in_flight, self._workers)
        self._moved = now
