"""The event loop: file descriptors, deadlines and calls from other threads, one thing at a time.

Raw epoll, level-triggered, one callable a descriptor: the same CPU a byte as a hub's watchers, and no hub that signals,
threads and forks would have to be kept apart from.  Invariant: a descriptor that was dropped is closed only when all events
that came with it have been dealt with, so an event never meets a younger owner of the same number.  Timers are not
cancelled, only outdated: who set one looks whether it still matters.
"""

import os
import select
import socket
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from threading import RLock
from time import monotonic_ns

from dislocate.core.units import MILLISECOND

IN, OUT, ERR, HUP = select.EPOLLIN, select.EPOLLOUT, select.EPOLLERR, select.EPOLLHUP
BATCH = 256  # events at a time: what became ready meanwhile is not kept waiting by those that came first

Ready = Callable[[int], None]


class Loop:
    """One thread's events.  Only `soon` and `stop` may be called from elsewhere."""

    def __init__(self) -> None:
        self.handlers: dict[int, Ready] = {}
        self.now = monotonic_ns()  # when the events at hand were fetched
        self._epoll = select.epoll()
        self._alarm = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._alarm_lock = RLock()  # re-entrant: a signal may come while this thread holds it
        self._calls: deque[Callable[[], object]] = deque()
        self._timers: list[tuple[int, int, Callable[[], object]]] = []
        self._numbers = count()
        self._dropped: list[socket.socket] = []
        self._is_over = False
        self.watch(self._alarm, IN, self._woken)
        self.change = self._epoll.modify

    def watch(self, fd: int, events: int, ready: Ready) -> None:
        """From now on call `ready` with what is the matter whenever one of `events`, an error or a hang-up is."""
        if fd in self.handlers:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self.handlers[fd] = ready

    def mute(self, fd: int) -> None:
        """Nothing of `fd` is told any more, not even a hang-up, until `unmute`."""
        self._epoll.unregister(fd)

    def unmute(self, fd: int, events: int) -> None:
        self._epoll.register(fd, events)

    def drop(self, connection: socket.socket, is_watched: bool = True) -> None:
        """Close it, once the events at hand are dealt with."""
        fd = connection.fileno()
        if is_watched:
            self._epoll.unregister(fd)
        self.handlers.pop(fd, None)
        self._dropped.append(connection)

    def at(self, due: int, call: Callable[[], object]) -> None:
        """Call at `due`, monotonic nanoseconds, or soon after."""
        heappush(self._timers, (due, next(self._numbers), call))

    def soon(self, call: Callable[[], object]) -> None:
        """Call between two events.  From any thread, and from a signal handler."""
        self._calls.append(call)
        self._wake()

    def stop(self) -> None:
        """`run` returns.  From any thread."""
        self._is_over = True
        self._wake()

    def run(self) -> None:
        """Until `stop`; then everything that the loop itself holds is closed."""
        poll, handlers, timers, dropped = self._epoll.poll, self.handlers, self._timers, self._dropped
        while not self._is_over:
            happened = poll(self._patience() if timers else None, BATCH)
            self.now = monotonic_ns()
            for fd, events in happened:
                ready = handlers.get(fd)
                if ready is not None:
                    ready(events)
            while timers and timers[0][0] <= self.now:
                heappop(timers)[2]()
            if dropped:
                self._close_dropped()
        self._close_dropped()
        self._epoll.close()
        with self._alarm_lock:
            os.close(self._alarm)
            self._alarm = -1

    def _patience(self) -> float:
        """Seconds until the first timer; never so short that the kernel's rounding would make us turn in circles."""
        return max(MILLISECOND, self._timers[0][0] - self.now) / 1e9

    def _wake(self) -> None:
        with self._alarm_lock:
            if self._alarm >= 0:
                os.eventfd_write(self._alarm, 1)

    def _woken(self, _events: int) -> None:
        os.eventfd_read(self._alarm)
        while self._calls:
            self._calls.popleft()()

    def _close_dropped(self) -> None:
        for connection in self._dropped:
            connection.close()
        self._dropped.clear()
