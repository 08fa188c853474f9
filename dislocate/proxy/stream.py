"""A stream: two connected sockets and the bytes between them, each direction by itself.

Invariants:
- A direction holds at most one buffer of bytes that were read and not yet written (or one pipe of them, see below); while
  it does, nothing more is read, so a reader that stops stops its writer, by TCP's own means.
- The end of one direction (FIN) is passed on after its last byte and says nothing of the other.
- A reset of either side resets the other: whoever sees a clean end has seen every byte.
- A socket leaves the loop as soon as both of its directions are over; `ended` is called once, when both sockets have.

A read that fills the buffer tells that the direction carries bulk: from then on the kernel moves its bytes through a pipe,
without a copy through this process, for less than half of the CPU; small pieces are cheaper copied, so a direction that has
had only such for a while goes back.  Takes no decision where to connect.
"""

import socket
from collections.abc import Callable
from enum import Enum
from struct import pack

from dislocate.proxy.loop import ERR, HUP, IN, OUT, Loop, Ready
from dislocate.proxy.pipe import Pipe

BUFFER = 65536  # bytes: as much as a pipe holds; four times as much measured no faster
SMALL = 16384  # bytes: copying less than this costs less than a second system call a piece
PATIENCE = 16  # small pieces in a row, after which they are copied again
NO_LINGER = pack("ii", 1, 0)


class End(Enum):
    """How a stream ended."""

    CLOSED = "closed"  # both directions to their ends
    SILENT = "silent"  # the same, but the endpoint ended first and had said nothing
    RESET_BY_CLIENT = "reset by client"
    RESET_BY_ENDPOINT = "reset by endpoint"
    IDLE = "idle"
    CUT = "cut"  # by us: the time to end was over


class Stream:
    """Bytes between `client` and `endpoint`, both connected and non-blocking; they are closed here.

    `buffer`, of `BUFFER` bytes, may be shared: nothing stays in it between two events."""

    __slots__ = ("_client", "_ended", "_endpoint", "_is_silent", "_moved", "_moved_at", "answered", "asked", "loop")

    def __init__(
        self,
        loop: Loop,
        client: socket.socket,
        endpoint: socket.socket,
        buffer: bytearray,
        ended: Callable[["Stream", End], None],
    ) -> None:
        self.loop = loop
        self.asked = loop.now  # when the endpoint could begin to answer, nanoseconds
        self.answered = 0  # when it did; 0: it has not
        self._ended = ended
        self._is_silent = False
        self._moved = 0  # bytes, when it was last asked how idle this is
        self._moved_at = loop.now
        self._client, self._endpoint = Side(self, client), Side(self, endpoint)
        there, back = Way(self._client, self._endpoint, buffer), Way(self._endpoint, self._client, buffer)
        self._client.join(there, back)
        self._endpoint.join(back, there)

    def begin(self, first: bytes = b"") -> None:
        """Pass bytes on; to the endpoint, `first` before the client's."""
        self._client.watch()
        self._endpoint.watch()
        if first:
            self._client.reads.say(first)

    @property
    def sent(self) -> int:
        """Bytes so far, from the client."""
        return self._client.reads.moved

    @property
    def received(self) -> int:
        """Bytes so far, from the endpoint."""
        return self._endpoint.reads.moved

    @property
    def held(self) -> int:
        """Bytes that were read and are not written yet."""
        return self._client.reads.held + self._endpoint.reads.held

    def idle(self, now: int) -> int:
        """Nanoseconds since bytes moved; counted in steps, from one call of this to the next."""
        moved = self.sent + self.received
        if moved != self._moved:
            self._moved, self._moved_at = moved, now
        return now - self._moved_at

    def cut(self, end: End) -> None:
        """Reset both sides now, because of `end`."""
        is_over = self._client.is_over and self._endpoint.is_over
        self._client.abort()
        self._endpoint.abort()
        if not is_over:
            self._ended(self, end)

    def reset_by(self, side: "Side") -> None:
        """`side` was reset by its peer, so the other is."""
        self.cut(End.RESET_BY_CLIENT if side is self._client else End.RESET_BY_ENDPOINT)

    def began(self, side: "Side") -> None:
        """The first bytes came from `side`."""
        if side is self._endpoint:
            self.answered = self.loop.now
        elif not self.answered:
            self.asked = self.loop.now

    def read_whole(self, side: "Side") -> None:
        """`side` has said its last."""
        if side is self._endpoint and not side.reads.moved and not self._client.reads.is_read:
            self._is_silent = True

    def settle(self) -> None:
        """A side is over."""
        if self._client.is_over and self._endpoint.is_over:
            self._ended(self, End.SILENT if self._is_silent else End.CLOSED)


class Side:
    """One socket of a stream: what the loop is to tell of it, and its end."""

    __slots__ = (
        "_events",
        "_is_muted",
        "connection",
        "fd",
        "is_over",
        "is_written",
        "loop",
        "reads",
        "stream",
        "writes",
    )

    reads: "Way"  # what is read here
    writes: "Way"  # what is written here

    def __init__(self, stream: Stream, connection: socket.socket) -> None:
        self.stream = stream
        self.loop = stream.loop
        self.connection = connection
        self.fd = connection.fileno()
        self.is_written = False  # to its end
        self.is_over = False
        self._events = IN
        self._is_muted = False

    def join(self, reads: "Way", writes: "Way") -> None:
        self.reads, self.writes = reads, writes

    def watch(self) -> None:
        self.loop.watch(self.fd, IN, self.reads.first)

    def handle_by(self, ready: Ready) -> None:
        if not self.is_over:
            self.loop.handlers[self.fd] = ready

    def want(self) -> None:
        """Let the loop tell what can be gone on with, and nothing else."""
        if self.is_over:
            return
        events = 0 if self.reads.is_read or self.reads.held else IN
        if self.writes.held:
            events |= OUT
        if self._is_muted:
            if events:
                self._is_muted = False
                self.loop.unmute(self.fd, events)
        elif events != self._events:
            self.loop.change(self.fd, events)
        self._events = events

    def handle(self, events: int) -> None:
        """Anything but bytes that came."""
        if events & ERR:
            self.stream.reset_by(self)
            return
        if events & OUT:
            self.writes.go_on()
        if self.is_over or not events & (IN | HUP):
            return
        if self._events & IN:
            self.reads.ready(IN)
        elif events & HUP:  # its end waits behind what the other side does not take, and would be told all the while
            self._is_muted = True
            self.loop.mute(self.fd)

    def finish(self) -> None:
        """Nothing more will be written here."""
        if self.is_over or self.is_written:
            return
        self.is_written = True
        try:
            self.connection.shutdown(socket.SHUT_WR)
        except OSError:
            self.stream.reset_by(self)
            return
        self.settle()

    def settle(self) -> None:
        """Leave the loop if both directions are over."""
        if self.reads.is_read and self.is_written and not self.is_over:
            self._leave()
            self.stream.settle()

    def abort(self) -> None:
        """Leave so that the peer sees a reset, never a clean end."""
        if not self.is_over:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
            self._leave()
        self.reads.clear()

    def _leave(self) -> None:
        self.is_over = True
        self.loop.drop(self.connection, is_watched=not self._is_muted)


class Way:
    """One direction: from `source`, where it is read, to `sink`."""

    __slots__ = (
        "_buffer",
        "_pipe",
        "_receive",
        "_rest",
        "_send",
        "_small",
        "_view",
        "is_read",
        "moved",
        "ready",
        "sink",
        "source",
    )

    ready: Ready  # what is called when there are bytes: `copy` or `splice`

    def __init__(self, source: Side, sink: Side, buffer: bytearray) -> None:
        self.source = source
        self.sink = sink
        self.moved = 0  # bytes that were read
        self.is_read = False  # to its end
        self.ready = self.copy
        self._receive = source.connection.recv_into
        self._send = sink.connection.send
        self._buffer = buffer
        self._view = memoryview(buffer)
        self._rest: bytes | memoryview = b""  # was read, and `sink` would not take it yet
        self._pipe: Pipe | None = None
        self._small = 0

    @property
    def held(self) -> int:
        """Bytes that the sink has to take before more is read."""
        return len(self._rest) + (self._pipe.held if self._pipe is not None else 0)

    def first(self, events: int) -> None:
        """As `ready`, until bytes came."""
        self.ready(events)
        if self.moved:
            self.source.stream.began(self.source)
            self.source.handle_by(self.ready)

    def copy(self, events: int) -> None:
        """Read once and write it at once, which the sink nearly always takes whole."""
        if events != IN:
            self.source.handle(events)
            return
        try:
            size = self._receive(self._buffer)
        except BlockingIOError:
            return
        except OSError:
            self.source.stream.reset_by(self.source)
            return
        if not size:
            self._end()
            return
        self.moved += size
        view = self._view[:size]
        try:
            sent = self._send(view)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.sink.stream.reset_by(self.sink)
            return
        if sent != size:
            self._rest = bytes(view[sent:])
            self._want()
        if size == BUFFER:
            self._begin_bulk()

    def splice(self, events: int) -> None:
        """As `copy`, through the pipe."""
        if events != IN:
            self.source.handle(events)
            return
        pipe = self._pipe
        assert pipe is not None
        try:
            size = pipe.fill(self.source.fd)
        except BlockingIOError:
            return
        except OSError:
            self.source.stream.reset_by(self.source)
            return
        if not size:
            self._end()
            return
        self.moved += size
        if not self._pour(pipe):
            return
        if pipe.held:
            self._want()
            return
        self._small = self._small + 1 if size < SMALL else 0
        if self._small == PATIENCE:
            self._end_bulk()

    def say(self, data: bytes) -> None:
        """Write `data` before anything that is read."""
        self._rest = data
        self.go_on()

    def go_on(self) -> None:
        """The sink takes more."""
        if self._rest:
            try:
                sent = self._send(self._rest)
            except BlockingIOError:
                sent = 0
            except OSError:
                self.sink.stream.reset_by(self.sink)
                return
            self._rest = memoryview(self._rest)[sent:] if sent < len(self._rest) else b""
        elif self._pipe is not None and not self._pour(self._pipe):
            return
        self._want()
        if self.is_read and not self.held:
            self.clear()
            self.sink.finish()

    def clear(self) -> None:
        """Nothing will be read any more, or what was is of no use."""
        self._rest = b""
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None

    def _want(self) -> None:
        self.source.want()
        self.sink.want()

    def _end(self) -> None:
        """The source has ended."""
        self.is_read = True
        stream = self.source.stream
        stream.read_whole(self.source)
        self.source.want()
        self.source.settle()
        if not self.held:
            self.clear()
            self.sink.finish()

    def _pour(self, pipe: Pipe) -> bool:
        """False when that reset the stream."""
        try:
            pipe.pour(self.sink.fd)
        except BlockingIOError:
            return True
        except OSError:
            self.sink.stream.reset_by(self.sink)
            return False
        return True

    def _begin_bulk(self) -> None:
        try:
            self._pipe = Pipe(BUFFER)
        except OSError:  # no descriptors left: copied it is
            return
        self._small = 0
        self.ready = self.splice
        self.source.handle_by(self.ready)

    def _end_bulk(self) -> None:
        self.clear()
        self.ready = self.copy
        self.source.handle_by(self.ready)
