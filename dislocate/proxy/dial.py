"""From a client that was accepted to a stream: pick an endpoint, connect, and where that fails another one.

A connect that fails costs the client nothing but its time, and the retry budget nothing at all: no byte was passed on yet.
The client is not read before there is somebody to read it to; one that hangs up meanwhile is noticed.  What fails for want
of this host's own descriptors, ports or memory is not held against the endpoint.
"""

import errno
import socket
from collections.abc import Callable
from functools import partial

from msgspec.structs import replace

from dislocate.core.balance.errors import NoEndpoint, RetriesSpent, Throttled
from dislocate.core.balance.picker import Outcome, Picked, Picker
from dislocate.core.boundary.balance import Algorithm
from dislocate.proxy.header import Peer, proxy_header
from dislocate.proxy.loop import ERR, HUP, OUT, Loop
from dislocate.proxy.names import Host, Names
from dislocate.proxy.settings import Limits
from dislocate.proxy.stream import NO_LINGER, End, Stream
from dislocate.proxy.tally import Tally

MOST_TRIED = 8  # endpoints for one client: in a data center where half are dead, one client of 256 is turned away
_OURS = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL))
_OUTCOMES = {
    End.CLOSED: Outcome.OK,
    End.IDLE: Outcome.OK,
    End.CUT: Outcome.CANCELLED,
    End.RESET_BY_CLIENT: Outcome.CANCELLED,
    End.SILENT: Outcome.FAILED,
    End.RESET_BY_ENDPOINT: Outcome.FAILED,
}


class Exchange:
    """All connections for one service in this process: those that are being made, and streams."""

    def __init__(
        self, loop: Loop, picker: Picker, limits: Limits, names: Names, buffer: bytearray, left: Callable[[], None]
    ) -> None:
        self.loop = loop
        self.picker = picker
        self.limits = limits
        self.names = names
        self.tally = Tally()
        self.trouble = ""  # of the latest client that got nobody
        self.dials: set[Dial] = set()
        self.streams: dict[Stream, Picked] = {}
        self._buffer = buffer
        self._left = left  # called when a client is gone

    def serve(self, client: socket.socket, peer: Peer) -> None:
        """`client`, just accepted, non-blocking."""
        self.tally.accepted += 1
        dial = Dial(self, client, peer)
        self.dials.add(dial)
        dial.begin()

    def counted(self, age: float, trouble: str) -> Tally:
        """What was done so far, with what open streams have moved."""
        streams = list(self.streams)
        return replace(
            self.tally,
            open=self.open,
            connected=dict(self.tally.connected),
            sent=self.tally.sent + sum(stream.sent for stream in streams),
            received=self.tally.received + sum(stream.received for stream in streams),
            age=round(age, 3),
            trouble=trouble,
        )

    def reset_idle(self, idle: int) -> None:
        """End the streams on which nothing moved for `idle` nanoseconds."""
        now = self.loop.now
        for stream in [stream for stream in self.streams if stream.idle(now) >= idle]:
            stream.cut(End.IDLE)

    def cut(self, end: End) -> None:
        """End everything now."""
        for dial in list(self.dials):
            dial.cancel()
        for stream in list(self.streams):
            stream.cut(end)

    @property
    def open(self) -> int:
        return len(self.dials) + len(self.streams)

    def connected(self, dial: "Dial", picked: Picked, endpoint: socket.socket) -> None:
        self.dials.discard(dial)
        place = picked.endpoint.datacenter
        self.tally.connected[place] = self.tally.connected.get(place, 0) + 1
        header = proxy_header(dial.peer, dial.client.getsockname()[:2]) if self.limits.is_proxy_header_sent else b""
        stream = Stream(self.loop, dial.client, endpoint, self._buffer, self._ended)
        self.streams[stream] = picked
        self.picker.reached(picked)
        stream.begin(header)

    def refused(self, dial: "Dial") -> None:
        """`dial` ended without a connection; its client was told by a reset."""
        self.dials.discard(dial)
        self._left()

    def _ended(self, stream: Stream, end: End) -> None:
        picked = self.streams.pop(stream)
        tally = self.tally
        tally.sent += stream.sent
        tally.received += stream.received
        match end:
            case End.SILENT:
                tally.silent += 1
            case End.RESET_BY_CLIENT:
                tally.reset_by_client += 1
            case End.RESET_BY_ENDPOINT:
                tally.reset_by_endpoint += 1
            case End.IDLE:
                tally.idle += 1
            case End.CUT:
                tally.cut += 1
        outcome, now = _OUTCOMES[end], self.loop.now
        if outcome is Outcome.OK:
            # What a call costs is how long the endpoint takes to begin its answer: a stream may be a pool's, idle for hours.
            picked.began = now - max(0, stream.answered - stream.asked)
        self.picker.done(picked, now, outcome)
        self._left()


class Dial:
    """One client on its way to an endpoint."""

    __slots__ = (
        "_began",
        "_endpoint",
        "_exchange",
        "_is_over",
        "_loop",
        "_number",
        "_picked",
        "_tried",
        "client",
        "peer",
    )

    def __init__(self, exchange: Exchange, client: socket.socket, peer: Peer) -> None:
        self.client = client
        self.peer = peer
        self._exchange = exchange
        self._loop = exchange.loop
        self._began = self._loop.now
        self._tried: list[str] = []  # keys
        self._number = 0  # of the try, for what comes late
        self._picked: Picked | None = None
        self._endpoint: socket.socket | None = None
        self._is_over = False

    def begin(self) -> None:
        self._loop.watch(self.client.fileno(), 0, self._hung_up)
        self._go_on()

    def cancel(self) -> None:
        """The client is not to be served any more."""
        if self._picked is not None:
            self._exchange.picker.done(self._picked, self._loop.now, Outcome.CANCELLED)
        self._give_up()

    # ---- one try

    def _go_on(self) -> None:
        """Try endpoints until one is being connected to, or there is none left."""
        while not self._is_over and self._picked is None:
            picked = self._pick()
            if picked is None:
                return
            self._picked = picked
            self._number += 1
            host = self._exchange.names.known(picked.endpoint.address)
            if host is None:
                self._exchange.names.find(picked.endpoint.address, partial(self._found, self._number))
                self._loop.at(self._loop.now + self._exchange.limits.connect_timeout, partial(self._late, self._number))
            else:
                self._connect(picked, host)

    def _pick(self) -> Picked | None:
        exchange = self._exchange
        try:
            if len(self._tried) >= MOST_TRIED:
                raise NoEndpoint(
                    exchange.picker.service, f"{MOST_TRIED} endpoints were tried: {', '.join(self._tried)}"
                )
            picked = exchange.picker.pick(self._loop.now, key=self._key(), exclude=self._tried)
            if picked.endpoint.key in self._tried:
                exchange.picker.done(picked, self._loop.now, Outcome.CANCELLED)
                raise NoEndpoint(exchange.picker.service, f"all were tried: {', '.join(self._tried)}")
        except (NoEndpoint, Throttled, RetriesSpent) as error:
            exchange.tally.unserved += 1
            exchange.trouble = str(error)
            self._give_up()
            return None
        return picked

    def _key(self) -> str:
        """Who connects, where endpoints are to be chosen by that."""
        route = self._exchange.picker.route
        return self.peer[0] if route is not None and route.policy.algorithm is Algorithm.HASH else ""

    def _found(self, number: int, host: Host | None) -> None:
        if self._is_over or number != self._number or self._picked is None:
            return
        if host is None:
            self._failed()
        else:
            self._connect(self._picked, host)
        self._go_on()

    def _connect(self, picked: Picked, host: Host) -> None:
        try:
            endpoint = socket.socket(host.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError as error:
            self._failed(error.errno or 0)
            return
        endpoint.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._endpoint = endpoint
        code = endpoint.connect_ex((host.address, picked.endpoint.port))
        if code not in (0, errno.EINPROGRESS):
            self._failed(code)
            return
        self._loop.watch(endpoint.fileno(), OUT, self._answered)
        self._loop.at(self._loop.now + self._exchange.limits.connect_timeout, partial(self._late, self._number))

    def _answered(self, events: int) -> None:
        endpoint, picked = self._endpoint, self._picked
        assert endpoint is not None
        assert picked is not None
        code = endpoint.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code or not events & OUT:
            self._failed(code)
            self._go_on()
            return
        self._is_over = True
        self._exchange.connected(self, picked, endpoint)

    def _late(self, number: int) -> None:
        if not self._is_over and number == self._number and self._picked is not None:
            self._failed(errno.ETIMEDOUT)
            self._go_on()

    def _failed(self, code: int = 0) -> None:
        """The try is over."""
        picked, self._picked = self._picked, None
        assert picked is not None
        self._drop_endpoint()
        exchange = self._exchange
        if code in _OURS:
            exchange.picker.done(picked, self._loop.now, Outcome.CANCELLED)
            exchange.tally.unserved += 1
            exchange.tally.short += 1
            exchange.trouble = f"this host: {errno.errorcode[code]}"
            self._give_up()
            return
        exchange.tally.failed_connects += 1
        self._tried.append(picked.endpoint.key)
        exchange.picker.done(picked, self._loop.now, Outcome.REFUSED)

    # ---- the end

    def _hung_up(self, events: int) -> None:
        """The client was reset while it waited."""
        if events & (ERR | HUP):
            self._exchange.tally.reset_by_client += 1
            self.cancel()

    def _give_up(self) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._picked = None
        self._drop_endpoint()
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        self._loop.drop(self.client)
        self._exchange.refused(self)

    def _drop_endpoint(self) -> None:
        endpoint, self._endpoint = self._endpoint, None
        if endpoint is not None:
            self._loop.drop(endpoint, is_watched=endpoint.fileno() in self._loop.handlers)
