"""An entrance: one listening socket, and whom it lets in.

Where all streams are taken or descriptors are short, nobody is accepted: clients wait in the kernel's queue, which is bounded
too, and none is accepted only to be turned away.
"""

import errno
import socket
from collections.abc import Callable

from dislocate.core.errors import LocalError
from dislocate.core.units import MILLISECOND
from dislocate.proxy.header import Peer
from dislocate.proxy.loop import IN, Loop
from dislocate.proxy.settings import Listen

BACKLOG = 4096  # the kernel takes the smaller of this and net.core.somaxconn
AT_ONCE = 64  # clients accepted before streams have their turn
BREATH = 100 * MILLISECOND  # until descriptors may be there again
_GONE = frozenset(
    (errno.ECONNABORTED, errno.EPROTO, errno.EINTR, errno.ENETDOWN, errno.EHOSTUNREACH, errno.ENETUNREACH)
)

Serve = Callable[[socket.socket, Peer], None]


def listen_at(listen: Listen, is_one_of_many: bool = False) -> socket.socket:
    """A socket that is bound for `listen` and does not listen yet.  Raises `LocalError` where that cannot be."""
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_one_of_many:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what it accepts inherits both
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        bound.bind((listen.host, listen.port))
    except OSError as error:
        bound.close()
        expected = f"an address of this host that is free ({(error.strerror or str(error)).lower()})"
        raise LocalError("--listen", got=str(listen), expected=expected) from None
    return bound


class Entrance:
    """Accepts from `bound` and hands over to `serve`."""

    def __init__(self, loop: Loop, bound: socket.socket, has_room: Callable[[], bool], serve: Serve) -> None:
        self._loop = loop
        self._bound = bound
        self._has_room = has_room
        self._serve = serve
        self._is_paused = False
        self._is_closed = False

    @property
    def port(self) -> int:
        return int(self._bound.getsockname()[1])

    def open(self) -> None:
        """Raises `LocalError` where somebody else listens there by now."""
        try:
            self._bound.listen(BACKLOG)
        except OSError as error:
            host, port = self._bound.getsockname()[:2]
            expected = f"an address of this host that is free ({(error.strerror or str(error)).lower()})"
            raise LocalError("--listen", got=f"{host}:{port}", expected=expected) from None
        self._loop.watch(self._bound.fileno(), IN, self._ready)

    def go_on(self) -> None:
        """There may be room again."""
        if self._is_paused and not self._is_closed and self._has_room():
            self._is_paused = False
            self._loop.change(self._bound.fileno(), IN)

    def close(self) -> None:
        """Accept who had connected already, as far as there is room, and nobody after them."""
        if not self._is_closed:
            while self._accept():
                pass
            self._is_closed = True
            self._loop.drop(self._bound)

    def _ready(self, _events: int) -> None:
        for _ in range(AT_ONCE):
            if not self._accept():
                return

    def _accept(self) -> bool:
        if not self._has_room():
            self._pause()
            return False
        try:
            client, peer = self._bound.accept()
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in _GONE:  # descriptors or memory: later
                self._pause()
                self._loop.at(self._loop.now + BREATH, self.go_on)
                return False
            return True
        client.setblocking(False)
        self._serve(client, peer[:2])
        return True

    def _pause(self) -> None:
        if not self._is_paused:
            self._is_paused = True
            self._loop.change(self._bound.fileno(), 0)
