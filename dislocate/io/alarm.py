"""An alarm for one sleeper: the shortest way from 'there is something to do' to the greenlet that does it.

gevent's Event makes a list, a link and a Timeout for each wait, 20 us of a busy hub; this makes a timer.
"""

from typing import Any

import gevent
from gevent import getcurrent


class Alarm:
    """One greenlet waits; whoever is on the hub may ring.  A ring before the wait is not lost."""

    def __init__(self) -> None:
        self._has_rung = False
        self._sleeper: Any = None

    def ring(self) -> None:
        """Wake the sleeper when the hub goes on."""
        self._has_rung = True
        sleeper, self._sleeper = self._sleeper, None
        if sleeper is not None:
            gevent.get_hub().loop.run_callback(sleeper.switch)

    def clear(self) -> None:
        """Forget that it has rung."""
        self._has_rung = False

    def wait(self, seconds: float | None = None) -> None:
        """Until it rings, for at most so many seconds, and sometimes a little less: look, and wait again."""
        if not self._has_rung:
            hub = gevent.get_hub()
            timer = None if seconds is None else hub.loop.timer(seconds)
            self._sleeper = getcurrent()
            if timer is not None:
                timer.start(self.ring, update=True)
            try:
                hub.switch()
            finally:
                self._sleeper = None
                if timer is not None:
                    timer.stop()
                    timer.close()
        self._has_rung = False
