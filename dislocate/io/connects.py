"""TCP connects that are tried and closed at once: is anybody listening there?

Each takes at most `CONNECT_TIMEOUT`, a bounded number run at a time, and one that finds no place is dropped and answered as
timed out, which proves nothing.  A name is looked up within the same time.
"""

import errno
from collections.abc import Callable

import gevent
from gevent import socket
from gevent.pool import Pool

from dislocate.core.boundary.inputs import ConnectTried
from dislocate.core.boundary.values import ConnectOutcome
from dislocate.core.errors import LocalError
from dislocate.core.identity import Address, split_address
from dislocate.core.tunables import CONNECT_TIMEOUT
from dislocate.core.units import SECOND
from dislocate.io.shaping import Shaping

CONNECTS = 64  # at a time: a data center that dies at once is verified in a few turns

UNREACHABLE = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN)


class Connects:
    """The pool of attempts."""

    def __init__(self, deliver: Callable[[ConnectTried], object], shaping: Shaping | None = None) -> None:
        self.dropped = 0
        self._deliver = deliver
        self._shaping = shaping
        self._pool = Pool(CONNECTS)

    def attempt(self, address: Address) -> None:
        """Answered by `ConnectTried`.  Returns at once."""
        if self._pool.free_count():
            self._pool.spawn(self._attempt, address)
        else:
            self.dropped += 1
            self._deliver(ConnectTried(address, ConnectOutcome.TIMED_OUT))

    def stop(self) -> None:
        self._pool.kill()

    def _attempt(self, address: Address) -> None:
        outcome = ConnectOutcome.TIMED_OUT
        with gevent.Timeout(CONNECT_TIMEOUT / SECOND, False):
            outcome = self._shaped_connect(address)
        self._deliver(ConnectTried(address, outcome))

    def _shaped_connect(self, address: Address) -> ConnectOutcome:
        if self._shaping is None:
            return _connect(address)
        delay = self._shaping.connect_delay(address)
        if delay is not None:
            gevent.sleep(delay / SECOND)
            outcome = _connect(address)
            if self._shaping.connect_delay(address) is not None:
                return outcome
        gevent.sleep(CONNECT_TIMEOUT / SECOND)  # cut: the caller's timeout ends this
        return ConnectOutcome.TIMED_OUT


def _connect(address: Address) -> ConnectOutcome:
    try:
        socket.create_connection(split_address(address)).close()
    except ConnectionRefusedError:
        return ConnectOutcome.REFUSED
    except TimeoutError:
        return ConnectOutcome.TIMED_OUT
    except (OSError, LocalError, UnicodeError) as error:
        is_known = isinstance(error, socket.gaierror | LocalError | UnicodeError)
        is_known = is_known or getattr(error, "errno", 0) in UNREACHABLE
        return ConnectOutcome.UNREACHABLE if is_known else ConnectOutcome.TIMED_OUT
    return ConnectOutcome.ACCEPTED
