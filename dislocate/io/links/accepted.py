"""Connections that others dialled: one ROUTER for all of them.

Invariant: what a connection says is handed on only while the path in its routing id is the path that its key is bound to
(its User-Id); all else is counted and dropped.  `ended` is called once for each connection that said hello, after every
message that had arrived on it.

libzmq tells the end of a connection by its file descriptor, and tells a message's descriptor too (SRCFD; libzmq #977,
#1296): that is how the two are matched.  A descriptor is reused at once, so all that is waiting is read before an end is
believed: the I/O thread had written it before it wrote the event.
"""

from collections import Counter
from collections.abc import Callable

import gevent
import zmq

from dislocate.core.errors import LocalError, PeerError
from dislocate.core.identity import Address, Path
from dislocate.io.links.frames import PACKED, Control, Goodbye, decode_control, encode_control, path_of, unpack
from dislocate.io.links.sockets import (
    BURST_MESSAGES,
    RECEIVE_QUEUE,
    Context,
    Keys,
    Monitor,
    endpoint,
    messages,
    new_acceptor,
    waiting_messages,
)

# Whoever does not even speak CURVE never comes to the gatekeeper, which counts those with a key that nobody knows.
_STRANGERS = zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL


class Accepted:
    """One connection that somebody dialled."""

    __slots__ = ("descriptor", "identity", "path")

    def __init__(self, identity: bytes, path: Path, descriptor: int) -> None:
        self.identity = identity
        self.path = path
        self.descriptor = descriptor


class Acceptor:
    """The ROUTER, the greenlet that reads it and the one that watches it."""

    def __init__(
        self,
        context: Context,
        bind: Address,
        keys: Keys,
        counters: Counter[str],
        *,
        said: Callable[[Accepted, Control], None],
        received: Callable[[Accepted, bytes], None],
        ended: Callable[[Accepted], None],
    ) -> None:
        self._counters = counters
        self._said = said
        self._received = received
        self._ended = ended
        self._connections: dict[bytes, Accepted] = {}
        self._by_descriptor: dict[int, Accepted] = {}
        self._socket = new_acceptor(context, bind, keys)
        self._monitor = Monitor(context, self._socket, zmq.EVENT_DISCONNECTED | _STRANGERS)
        try:
            self._socket.bind(endpoint(bind))
        except zmq.ZMQError as error:
            self.close()
            raise LocalError("ports.links", got=f"{bind}: {error}", expected="an address of this host, free") from error
        self._reader = gevent.spawn(self._read)
        self._watcher = gevent.spawn(self._watch)

    def send(self, connection: Accepted, parts: list[bytes]) -> None:
        """Raises `zmq.Again` when the queue is full and `zmq.ZMQError` (EHOSTUNREACH) when the connection is gone.

        NOBLOCK: a waiting mandatory send to a peer that leaves may hang for ever (libzmq #2348)."""
        self._socket.send_multipart([connection.identity, *parts], zmq.NOBLOCK)

    def dismiss(self, connection: Accepted, reason: str) -> None:
        """Ask the other end to close: a ROUTER cannot.  If its queue is full it is asked again when it next speaks."""
        try:
            self.send(connection, encode_control(Goodbye(reason)))
        except zmq.ZMQError:
            self._counters["goodbyes_unsent"] += 1

    def close(self) -> None:
        if not self._socket.closed:
            self._monitor.close()
            self._socket.close()

    def _read(self) -> None:
        for frames in messages(self._socket):
            self._take(frames)

    def _take(self, frames: list[zmq.Frame]) -> None:
        identity, *parts = [frame.bytes for frame in frames]
        connection = self._connection(identity, frames[-1])
        if connection is None:
            return
        try:
            if len(parts) == 1 or (len(parts) == 2 and parts[0] == PACKED):
                for payload in unpack(parts, connection.path):
                    self._received(connection, payload)
            else:
                self._said(connection, decode_control(parts, connection.path))
        except PeerError:
            self._counters["unreadable"] += 1

    def _connection(self, identity: bytes, frame: zmq.Frame) -> Accepted | None:
        """Where this came from, or None for somebody who claims another's name."""
        descriptor = int(frame.get(zmq.SRCFD))
        known = self._by_descriptor.get(descriptor)
        if known is not None and known.identity == identity:
            return known
        path = path_of(identity)
        if not path or path != frame.get("User-Id"):
            self._counters["impostors"] += 1
            return None
        for stale in (known, self._connections.get(identity)):  # its end was not reported, or it was taken over
            if stale is not None:
                self._forget(stale)
        connection = Accepted(identity, path, descriptor)
        self._connections[identity] = self._by_descriptor[descriptor] = connection
        return connection

    def _watch(self) -> None:
        while not self._monitor.closed:
            event = self._monitor.next()
            if event is None:
                continue
            kind, value = event
            if kind & _STRANGERS:
                self._counters["handshakes_failed"] += 1  # its value is a code, no descriptor
            elif value in self._by_descriptor:
                self._take_waiting()
                connection = self._by_descriptor.get(value)
                if connection is not None:
                    self._forget(connection)

    def _take_waiting(self) -> None:
        """Read all that any connection had said by now; each has a bounded queue and a fair turn."""
        for count, frames in enumerate(waiting_messages(self._socket, RECEIVE_QUEUE * (len(self._connections) + 1)), 1):
            self._take(frames)
            if count % BURST_MESSAGES == 0:
                gevent.sleep(0)

    def _forget(self, connection: Accepted) -> None:
        if self._connections.get(connection.identity) is connection:
            del self._connections[connection.identity]
        if self._by_descriptor.get(connection.descriptor) is connection:
            del self._by_descriptor[connection.descriptor]
        self._ended(connection)
