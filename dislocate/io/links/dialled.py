"""A connection that we dialled: one DEALER, one greenlet that reads it and one that watches it.

Invariant: `ended` is called once, after every message that had arrived, unless `close` was called first; after either
the socket is closed.  It never reconnects by itself: whoever wants the link dials anew.
"""

from collections.abc import Callable
from time import monotonic

import gevent
import zmq

from dislocate.core.errors import PeerError
from dislocate.core.identity import Address, NodeId
from dislocate.io.links.frames import PACKED, Control, Hello, decode_control, encode_control, unpack
from dislocate.io.links.sockets import (
    DIAL_TIMEOUT,
    RECEIVE_QUEUE,
    Context,
    Keys,
    Monitor,
    endpoint,
    messages,
    new_dialler,
    waiting_messages,
)

_EVENTS = (
    zmq.EVENT_CLOSED
    | zmq.EVENT_CONNECT_RETRIED
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)
_HANDSHAKE_FAILURES = {
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: "not authenticated",  # the only trace of it: no call ever fails (libzmq #2329)
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "handshake failed: another key or no agent answers there",
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: "handshake failed: another key or no agent answers there",
}
TIMED_OUT = "timed out"
_RETRY_NOTICE = 0.02  # seconds; CONNECT_RETRIED is written by the same function of libzmq, right after CLOSED


class Dialled:
    """The connection, from the dial on.  `said(self, frame)` and `received(self, data)` are called for what arrives."""

    def __init__(
        self,
        context: Context,
        hello: Hello,
        address: Address,
        keys: Keys,
        server_key: bytes,
        *,
        reachable: bool,
        said: Callable[["Dialled", Control], None],
        received: Callable[["Dialled", bytes], None],
        ended: Callable[["Dialled", str], None],
    ) -> None:
        self.peer: NodeId = hello.to
        self.address = address
        self.is_open = False
        self._said = said
        self._received = received
        self._ended = ended
        self._socket = new_dialler(context, hello.node, address, keys, server_key)
        self._monitor = Monitor(context, self._socket, _EVENTS)
        if reachable:  # else a rehearsed cut keeps us from it: nothing happens until the dial times out
            self._socket.connect(endpoint(address))
        self._reader = gevent.spawn(self._read, hello)
        self._watcher = gevent.spawn(self._watch, monotonic() + DIAL_TIMEOUT)

    def send(self, parts: list[bytes]) -> None:
        """Raises `zmq.Again` when the queue is full."""
        self._socket.send_multipart(parts, zmq.NOBLOCK)

    def close(self) -> None:
        """Close without a word; what is queued may be lost."""
        if not self._socket.closed:
            self._monitor.close()
            self._socket.close()

    def _read(self, hello: Hello) -> None:
        try:
            self._socket.send_multipart(encode_control(hello))  # waits until the handshake is done
        except zmq.ZMQError:
            if self._socket.closed:
                return
            raise
        for frames in messages(self._socket):
            self._take([frame.bytes for frame in frames])

    def _take(self, parts: list[bytes]) -> None:
        try:
            if len(parts) == 1 or (len(parts) == 2 and parts[0] == PACKED):
                for payload in unpack(parts, self.peer.path):
                    self._received(self, payload)
            else:
                self._said(self, decode_control(parts, self.peer.path))
        except PeerError as error:
            self.end(error.reason)

    def _watch(self, give_up_at: float) -> None:
        while not self._monitor.closed:
            event = self._monitor.next(None if self.is_open else max(0.0, give_up_at - monotonic()))
            if event is not None:
                self.end(self._reason(event[0]))
            elif not self.is_open and monotonic() >= give_up_at:
                self.end(TIMED_OUT)

    def _reason(self, event: int) -> str:
        if event in _HANDSHAKE_FAILURES:
            return _HANDSHAKE_FAILURES[event]
        if event == zmq.EVENT_CLOSED and not self._monitor.closed:
            retried = self._monitor.next(_RETRY_NOTICE)
            return "refused" if retried is None else "unreachable"
        return "disconnected"

    def end(self, reason: str) -> None:
        """Hand over what came before the end, then end."""
        for frames in waiting_messages(self._socket, RECEIVE_QUEUE):
            self._take([frame.bytes for frame in frames])
        if not self._socket.closed:
            self.close()
            self._ended(self, reason)
