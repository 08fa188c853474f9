"""News: what the core is told of its links, at the time when it would be known.

On a rehearsed network (`io.shaping`) news takes as long as the data does, and waits while the link is cut.  ZeroMQ's own
heartbeats still pass such a cut, so their timeout is rehearsed too: a link that has been cut for that long is lost, and
nothing that waited on it is ever delivered.  On the real network everything passes at once.
"""

from collections.abc import Callable, Iterable
from typing import Protocol

import gevent

from dislocate.core.boundary.inputs import Input, LinkLost, LinkOpened, MessageReceived
from dislocate.core.identity import NodeId
from dislocate.io.links.accepted import Accepted
from dislocate.io.links.dialled import Dialled
from dislocate.io.links.sockets import HEARTBEAT_TIMEOUT

_CUT_CHECK = 1.0  # seconds


class Shaper(Protocol):
    """What links ask of `io.shaping.Shaping`: when, and whether, something happens on a rehearsed network."""

    def send_message(self, peer: NodeId, size: int, send: Callable[[], object]) -> bool:
        """Call `send` in its time, in order; False when too much waits already."""
        ...

    def receive_message(self, peer: NodeId, deliver: Callable[[], object]) -> None: ...

    def report_link(self, peer: NodeId, deliver: Callable[[], object]) -> None:
        """Call `deliver` when the news that a link opened or ended would be known here."""
        ...

    def is_cut(self, peer: NodeId) -> bool: ...


class Unshaped:
    """The network as it is."""

    def send_message(self, peer: NodeId, size: int, send: Callable[[], object]) -> bool:
        send()
        return True

    def receive_message(self, peer: NodeId, deliver: Callable[[], object]) -> None:
        deliver()

    def report_link(self, peer: NodeId, deliver: Callable[[], object]) -> None:
        deliver()

    def is_cut(self, peer: NodeId) -> bool:
        return False


class Link:
    """A link that opened, until its end has been told."""

    __slots__ = ("connection", "cut_for", "is_severed", "packs", "peer", "peer_attempt", "unsent", "unsent_size")

    def __init__(self, peer: NodeId, connection: Dialled | Accepted, peer_attempt: int, *, packs: bool) -> None:
        self.peer = peer
        self.connection = connection
        self.peer_attempt = peer_attempt  # the peer's last dial when this opened; a hello with no greater one is stale
        self.packs = packs  # several messages in one are understood
        self.unsent: list[bytes] = []  # said in this turn, on its way in this turn
        self.unsent_size = 0
        self.cut_for = 0.0  # seconds
        self.is_severed = False  # told as lost by a rehearsed cut: nothing more is told of it


class News:
    """`sever` is asked to drop a link that a rehearsed cut has ended."""

    def __init__(
        self, deliver: Callable[[Input], object], shaping: Shaper | None, sever: Callable[[Link], object]
    ) -> None:
        self._deliver = deliver
        self._shaping: Shaper = shaping or Unshaped()
        self._sever = sever
        self._untold: dict[Link, None] = {}  # opened, their end not told yet
        self._watcher = gevent.spawn(self._watch_cuts) if shaping is not None else None

    def opened(self, link: Link) -> None:
        self._untold[link] = None
        self._shaping.report_link(link.peer, lambda: self._tell(link, LinkOpened(link.peer)))

    def received(self, link: Link, data: bytes) -> None:
        received = MessageReceived(link.peer, data)
        self._shaping.receive_message(link.peer, lambda: self._tell(link, received))

    def lost(self, link: Link, reason: str) -> None:
        def tell() -> None:
            self._untold.pop(link, None)
            self._tell(link, LinkLost(link.peer, reason))

        self._shaping.report_link(link.peer, tell)

    def stop(self) -> None:
        """Tell nothing more."""
        self._deliver = lambda _input: None
        if self._watcher is not None:
            self._watcher.kill(block=False)

    def _tell(self, link: Link, input_: Input) -> None:
        if not link.is_severed:
            self._deliver(input_)

    def _watch_cuts(self) -> None:
        while True:
            gevent.sleep(_CUT_CHECK)
            self._end_silent(list(self._untold))

    def _end_silent(self, links: Iterable[Link]) -> None:
        for link in links:
            link.cut_for = link.cut_for + _CUT_CHECK if self._shaping.is_cut(link.peer) else 0.0
            if link.cut_for >= HEARTBEAT_TIMEOUT:
                self._untold.pop(link, None)
                self._sever(link)
                self._tell(link, LinkLost(link.peer, "no heartbeat"))
                link.is_severed = True
