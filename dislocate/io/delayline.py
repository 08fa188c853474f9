"""A delay line: what was put in for an instant is run at that instant, what was put in first goes first among equals.

One greenlet and one heap.  Runs late rather than early, and everything that is due in one go.
"""

import logging
from collections.abc import Callable
from heapq import heappop, heappush

import gevent
from gevent.event import Event

from dislocate.core.units import SECOND
from dislocate.io import clock

log = logging.getLogger(__name__)


class DelayLine:
    """Holds callables until their time; they must not block."""

    def __init__(self, now: clock.Now = clock.monotonic) -> None:
        self._now = now
        self._heap: list[tuple[int, int, Callable[[], object]]] = []
        self._order = 0
        self._changed = Event()
        self._empty = Event()
        self._empty.set()
        self._greenlet = gevent.spawn(self._run)

    def __len__(self) -> int:
        return len(self._heap)

    def put(self, at: int, run: Callable[[], object]) -> None:
        """Call `run` at `at` (monotonic nanoseconds) or as soon as possible after it."""
        self._order += 1
        heappush(self._heap, (at, self._order, run))
        self._empty.clear()
        if self._heap[0][1] == self._order:
            self._changed.set()

    def flush(self, timeout: float) -> None:
        """Wait until the line is empty, `timeout` seconds at most."""
        with gevent.Timeout(timeout, False):
            self._empty.wait()

    def stop(self) -> None:
        """Forget what still waits."""
        self._greenlet.kill()
        self._heap.clear()

    def _run(self) -> None:
        while True:
            wait = (self._heap[0][0] - self._now()) / SECOND if self._heap else None
            if wait is None or wait > 0:
                self._changed.clear()
                self._changed.wait(wait)
                continue
            run = heappop(self._heap)[2]
            try:
                run()
            except Exception:  # one bad parcel must not stop the line for all others
                log.exception("a delayed %r failed", run)
            if not self._heap:
                self._empty.set()
            elif len(self._heap) % 64 == 0:
                gevent.sleep(0)  # a long backlog must not starve the hub
