"""An alarm for one sleeper: the shortest way from 'there is something to do' to the greenlet that does it.

gevent's Event makes a list, a link and a Timeout for each wait, 20 us of a busy hub; this has one timer, and moves it only
when it would ring too late.
"""

from math import inf
from time import monotonic
from typing import Any

import gevent
from gevent import getcurrent


class Alarm:
    """One greenlet waits; whoever is on the hub may ring.  A ring before the wait is not lost."""

    def __init__(self) -> None:
        self._has_rung = False
        self._sleeper: Any = None
        self._waits = 0  # so far: the number of the one that lasts, or was the last
        self._timer: Any = None
        self._timer_at = inf  # monotonic seconds

    def ring(self) -> None:
        """Wake the sleeper when the hub goes on."""
        if not self._has_rung and self._sleeper is not None:
            gevent.get_hub().loop.run_callback(self._wake, self._waits)
        self._has_rung = True

    def clear(self) -> None:
        """Forget that it has rung."""
        self._has_rung = False

    def wait(self, seconds: float = inf) -> None:
        """Until it rings, for at most so many seconds, and sometimes less: look, and wait again."""
        if not self._has_rung:
            if seconds != inf:
                self._set_timer(seconds)
            self._sleeper = getcurrent()
            self._waits += 1
            try:
                gevent.get_hub().switch()
            finally:
                self._sleeper = None
        self._has_rung = False

    def _wake(self, wait: int) -> None:
        """Unless a kill or a Timeout took the sleeper out first: it may wait for something else by now."""
        if self._sleeper is not None and wait == self._waits:
            self._sleeper.switch()

    def _set_timer(self, seconds: float) -> None:
        at = monotonic() + seconds
        if at >= self._timer_at:
            return
        if self._timer is not None:
            self._timer.close()
        self._timer_at = at
        self._timer = gevent.get_hub().loop.timer(seconds)
        self._timer.start(self._time_over, update=True)

    def _time_over(self) -> None:
        self._timer_at = inf
        self.ring()
