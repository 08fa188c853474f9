"""Our sockets and how they are used: every option has its reason, and no other file sets one.

`Socket` waits on gevent's hub, as zmq.green's does at several times the price (20 us a message, most of it flags of enums,
timeouts and repeated looks at the state).  Everything runs on one hub; sockets and messages never cross threads (pyzmq
#1782, #950).  Only one greenlet may wait on each direction of a socket (pyzmq #1154): each reader is one greenlet, and but
for a dialler's hello, which is sent before anybody else may send, every send is NOBLOCK and cannot wait.  Nobody forks:
libzmq's I/O thread would not be there.
"""

from collections.abc import Iterator
from secrets import token_hex
from time import monotonic
from typing import Any, Protocol

import gevent
import zmq
from zmq.backend import Socket as Backend
from zmq.utils.monitor import parse_monitor_message

from dislocate.core.identity import Address, NodeId, split_address
from dislocate.core.tunables import MESSAGE_BUDGET
from dislocate.io.alarm import Alarm
from dislocate.io.links.frames import routing_id

ZAP_DOMAIN = "links"
HEARTBEAT_PERIOD = 5.0  # seconds; a ZMTP ping costs 9 bytes each way
HEARTBEAT_TIMEOUT = 15.0  # seconds: three pings, far above any RTT; the core's own heartbeats notice long before
DIAL_TIMEOUT = 5.0  # seconds: connect, greetings, CURVE and hello; six round trips, and a lost SYN or two (1 s + 2 s)
SEND_QUEUE = (
    64  # messages a peer, at most 4 MiB: small, so that a peer that stopped reading is noticed, not buffered for
)
RECEIVE_QUEUE = 256  # messages a peer, before TCP slows the sender down
CURVE_OVERHEAD = 256  # bytes; an encrypted frame is 33 longer (RFC 26), and MAXMSGSIZE is compared with that
BURST_MESSAGES = 64  # a busy receive loop never yields by itself: 900 queued messages were 0 switches
BURST_TIME = 0.001  # seconds

_POLL_AGAIN = 1.0  # seconds: should news of a change be missed after all, as zmq.green fears (it looks each 11.6 s)


class Socket(zmq.Socket[bytes]):
    """A socket that one greenlet may wait on, to receive or to send.  `recv_multipart` gives frames, not bytes.

    ZMQ_FD tells of a change once (it is edge triggered), and any call may take that news: whoever receives goes on until
    there is nothing more, and after a send the state is looked at for the one who waits (pyzmq #199)."""

    _changed: Any = None  # class attributes: pyzmq takes others for socket options
    _watchers: tuple[Any, ...] = ()

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._changed = Alarm()
        loop = gevent.get_hub().loop
        self._watchers = (loop.io(self.getsockopt(zmq.FD), 1), loop.timer(_POLL_AGAIN, _POLL_AGAIN))
        for watcher in self._watchers:
            watcher.start(self._changed.ring)

    def close(self, linger: int | None = None) -> None:
        watchers, self._watchers = self._watchers, ()
        for watcher in watchers:
            watcher.stop()
            watcher.close()
        super().close(linger)
        if self._changed is not None:
            self._changed.ring()

    def send_multipart(self, parts: list[bytes], flags: int = 0) -> None:  # type: ignore[override]
        """With NOBLOCK raises `zmq.Again` instead of waiting until it can be sent."""
        while True:
            self._changed.clear()
            try:
                self._send(parts)
                return
            except zmq.Again:
                if flags & _NOBLOCK:
                    raise
            self._changed.wait()

    def _send(self, parts: list[bytes]) -> None:
        try:
            for part in parts[:-1]:
                Backend.send(self, part, _NOBLOCK | _MORE)
            Backend.send(self, parts[-1], _NOBLOCK)
        finally:
            if not self.closed and Backend.get(self, _EVENTS) & _READABLE:
                self._changed.ring()

    def wait(self) -> None:
        """Until something has changed since the last call to receive or send."""
        self._changed.wait()

    def received(self) -> list[zmq.Frame] | None:
        """A message that has arrived; None when there is none.  To ask first is cheaper than `zmq.Again`, which imports."""
        self._changed.clear()
        if not Backend.get(self, _EVENTS) & _READABLE:
            return None
        frames = [Backend.recv(self, _NOBLOCK, False)]
        while frames[-1].more:
            frames.append(Backend.recv(self, _NOBLOCK, False))
        return frames

    def recv_multipart(self, flags: int = 0) -> list[zmq.Frame]:  # type: ignore[override]
        """With NOBLOCK raises `zmq.Again` instead of waiting for a message."""
        while (frames := self.received()) is None:
            if flags & _NOBLOCK:
                raise zmq.Again
            self._changed.wait()
        return frames


# Plain numbers: an operation on zmq's enums takes longer than a message.
_NOBLOCK, _MORE, _EVENTS, _READABLE = int(zmq.NOBLOCK), int(zmq.SNDMORE), int(zmq.EVENTS), int(zmq.POLLIN)


class Context(zmq.Context[Socket]):
    """Makes those."""

    _socket_class = Socket


class Keys(Protocol):
    """A CURVE25519 key pair, 32 raw bytes each: `io.keyring.NodeKeys`."""

    @property
    def public(self) -> bytes: ...

    @property
    def secret(self) -> bytes: ...


def new_context() -> Context:
    """One context for each `Links`: a context has one ZAP endpoint."""
    context = Context(io_threads=1)  # 50,000 messages a second are more than an agent ever sends
    context.linger = 0  # before any socket exists: with linger, term() blocks the whole hub, by default for ever
    return context


def new_acceptor(context: Context, bind: Address, keys: Keys) -> Socket:
    """The ROUTER that others dial, not bound yet.  The ZAP greenlet must be listening before it is (libzmq #2594)."""
    socket = _new_socket(context, zmq.ROUTER, bind, keys)
    socket.curve_server = True
    socket.zap_domain = ZAP_DOMAIN.encode()
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)  # without it, no ZAP answer means "let them in"
    socket.router_mandatory = True  # else a message to a peer that is gone, or whose queue is full, vanishes silently
    socket.router_handover = True  # else a second connection of one name goes nowhere, without an error (libzmq #4503)
    return socket


def new_dialler(context: Context, node: NodeId, address: Address, keys: Keys, server_key: bytes) -> Socket:
    """A DEALER that will only ever talk to the holder of `server_key`, not connected yet."""
    socket = _new_socket(context, zmq.DEALER, address, keys)
    socket.curve_serverkey = server_key
    socket.identity = routing_id(node, token_hex(8))
    socket.immediate = True  # else messages queue up to an end that was never reached: 1,000 were accepted to nowhere
    # A failed or lost connection is the core's business: it decides whether and where to dial again.
    socket.setsockopt(
        zmq.RECONNECT_STOP, zmq.RECONNECT_STOP_CONN_REFUSED | zmq.RECONNECT_STOP_HANDSHAKE_FAILED
    )  # refused: the connection attempt ends without CONNECT_RETRIED, which is how the monitor tells it from others
    socket.reconnect_ivl = 60_000  # ms; by then we have closed the socket
    return socket


def new_gate(context: Context) -> Socket:
    """Where libzmq asks who may come in (RFC 27): one a context."""
    socket = context.socket(zmq.REP)
    socket.bind("inproc://zeromq.zap.01")
    return socket


def _new_socket(context: Context, kind: int, address: Address, keys: Keys) -> Socket:
    socket = context.socket(kind)
    socket.curve_publickey = keys.public
    socket.curve_secretkey = keys.secret
    socket.sndhwm = SEND_QUEUE
    socket.rcvhwm = RECEIVE_QUEUE
    socket.maxmsgsize = MESSAGE_BUDGET + CURVE_OVERHEAD
    socket.handshake_ivl = int(DIAL_TIMEOUT * 1000)
    # Half-open TCP (a host without power sends no FIN); must precede bind and connect (libzmq #3060).  They only free
    # the socket: whether somebody lives is decided by the core's own heartbeats.
    socket.heartbeat_ivl = int(HEARTBEAT_PERIOD * 1000)
    socket.heartbeat_timeout = socket.heartbeat_ttl = int(HEARTBEAT_TIMEOUT * 1000)
    socket.ipv6 = ":" in split_address(address)[0]
    return socket


def endpoint(address: Address) -> str:
    """'tcp://host:port' as libzmq wants it.  (It sets TCP_NODELAY by itself.)"""
    split_address(address)
    return f"tcp://{address}"


def messages(socket: Socket) -> Iterator[list[zmq.Frame]]:
    """Every message until the socket is closed, for the one greenlet that waits on it; yields to others when busy."""
    count, burst_began = 0, monotonic()
    while not socket.closed:
        frames = socket.received()
        if frames is None:
            socket.wait()
            count, burst_began = 0, monotonic()
            continue
        yield frames
        count += 1
        if count >= BURST_MESSAGES or monotonic() - burst_began > BURST_TIME:
            gevent.sleep(0)
            count, burst_began = 0, monotonic()


def waiting_messages(socket: Socket, limit: int) -> Iterator[list[zmq.Frame]]:
    """What has already arrived, without waiting: at most `limit` messages.  May be asked by any greenlet."""
    for _ in range(limit):
        frames = None if socket.closed else socket.received()
        if frames is None:
            return
        yield frames


class Monitor:
    """What libzmq's I/O thread sees happen to the connections of one socket."""

    def __init__(self, context: Context, socket: Socket, events: int) -> None:
        self._socket = socket
        where = f"inproc://monitor-{token_hex(8)}"
        socket.monitor(where, events)  # a narrow mask: the I/O thread would block on a full queue of unread events
        self._pair = context.socket(zmq.PAIR)
        self._pair.connect(where)

    def next(self, timeout: float | None = None) -> tuple[int, int] | None:
        """The next (event, value), or None after `timeout` seconds or when the monitor is closed."""
        try:
            with gevent.Timeout(timeout, False):
                event = parse_monitor_message([frame.bytes for frame in self._pair.recv_multipart()])
                return event["event"], event["value"]
        except zmq.ZMQError:
            if not self._pair.closed:
                raise
        return None

    @property
    def closed(self) -> bool:
        return self._pair.closed

    def close(self) -> None:
        """Before the socket is closed: an event for a reader that is gone would block the I/O thread."""
        if not self._pair.closed:
            if not self._socket.closed:
                self._socket.disable_monitor()
            self._pair.close()
