"""Links: who is linked to whom, over which connection, and what the core is told of it.

Invariant: to each peer there is at most one link, over one connection, whichever side dialled; so a link keeps order,
and whatever ends its connection ends the link.  Both sides report `LinkOpened` only after hello and welcome; each
`OpenLink` is answered once; `LinkLost` follows every message that arrived before it.

When both sides dial at once, the dial of the lesser `NodeId` becomes the link: its owner lets the other's hello wait, in
case its own dial fails (a firewall may pass one direction only), and the other gives its own dial up for it.  A hello
on top of an open link means that the peer has given the old one up, unless it is stale: see `frames.Welcome`.

Decides nothing about liveness: a lost link is only a trigger for the core to look closer.
"""

from collections import Counter
from collections.abc import Callable

import gevent
import zmq

from dislocate.core.boundary.inputs import Input, LinkLost, SendFailed
from dislocate.core.boundary.values import Refusal
from dislocate.core.errors import LocalError
from dislocate.core.identity import Address, NodeId, Path
from dislocate.core.tunables import MESSAGE_BUDGET
from dislocate.io.links.accepted import Accepted, Acceptor
from dislocate.io.links.dialled import TIMED_OUT, Dialled
from dislocate.io.links.frames import (
    LENGTH,
    LINK_PROTOCOL,
    PACKS,
    Control,
    Goodbye,
    Hello,
    Welcome,
    encode_control,
    pack,
    speaks_our_protocol,
)
from dislocate.io.links.news import Link, News, Shaper, Unshaped
from dislocate.io.links.sockets import Keys, new_context
from dislocate.io.links.zap import Gatekeeper


class Links:
    """The links of one agent.  Every call returns at once; `counters` says what happened how often.

    `deliver` is called on the hub, possibly from within `open` and `send`: it must only take the input, not act on it."""

    def __init__(
        self,
        *,
        node: NodeId,
        bind: Address,
        keys: Keys,
        known_key: Callable[[bytes], Path | None],
        deliver: Callable[[Input], None],
        shaping: Shaper | None = None,
    ) -> None:
        """Listens at `bind`.  `known_key` gives the path that an alive record binds to a public key.

        Raises `LocalError` when `bind` cannot be had."""
        self.node = node
        self.counters: Counter[str] = Counter()
        self._keys = keys
        self._deliver = deliver
        self._shaping: Shaper = shaping or Unshaped()
        self._news = News(deliver, shaping, self._drop)
        self._links: dict[Path, Link] = {}
        self._dials: dict[Path, Dialled] = {}  # not answered yet
        self._waiting: dict[Path, tuple[Accepted, Hello]] = {}  # hellos that hope for our own dial to fail
        self._unsent: dict[Link, None] = {}  # those with something to send before the hub goes on
        self._attempts = 0
        self._context = new_context()
        # Before the ROUTER is bound: a handshake that nobody answers would be let in or hang (libzmq #2594).
        self._gatekeeper = Gatekeeper(self._context, known_key, self.counters)
        try:
            self._acceptor = Acceptor(
                self._context,
                bind,
                keys,
                self.counters,
                said=self._dialler_said,
                received=self._message_from_dialler,
                ended=self._dialler_gone,
            )
        except LocalError:
            self._gatekeeper.close()
            self._context.destroy(0)
            raise

    # ---- what the core asks for

    def open(self, peer: NodeId, address: Address, public_key: bytes) -> None:
        """Dial `peer`, unless a link or a dial to this start of it exists; answered by `LinkOpened` or `LinkLost`."""
        link, dial = self._links.get(peer.path), self._dials.get(peer.path)
        known = link.peer if link else dial.peer if dial else None
        if known == peer:
            return
        if known is not None and known.boot > peer.boot:
            self._dial_failed(peer, "a newer start of it is linked")
            return
        if link is not None:
            self._lose(link, "its newer start is dialled")
        elif dial is not None:
            self._give_up(dial, "its newer start is dialled")
        self._dial(peer, address, public_key)

    def close(self, peer: NodeId) -> None:
        """End the link or dial to `peer`; only the other side reports it lost."""
        path = peer.path
        dial, link = self._dials.get(path), self._links.get(path)
        if dial is not None and dial.peer == peer:
            del self._dials[path]
            dial.close()
            if path in self._waiting:
                self._acceptor.dismiss(self._waiting.pop(path)[0], "closed")
        elif link is not None and link.peer == peer:
            self._send_waiting()
            del self._links[path]
            if isinstance(link.connection, Dialled):
                link.connection.close()
            else:
                self._acceptor.dismiss(link.connection, "closed")

    def send(self, peer: NodeId, data: bytes) -> None:
        """Send on the open link to `peer`, at the latest when this greenlet gives way; `SendFailed` says when that cannot
        be, in the order of the calls."""
        link = self._links.get(peer.path)
        if len(data) > MESSAGE_BUDGET:
            self._send_failed(peer, Refusal.TOO_LARGE)
        elif link is None or link.peer != peer:
            self._send_failed(peer, Refusal.GONE)
        elif not self._shaping.send_message(peer, len(data), lambda: self._send_now(link, data)):
            self._send_failed(peer, Refusal.BACKPRESSURE)

    def become(self, node: NodeId) -> None:
        """This agent took a higher boot: every link and dial under the old one ends, and the core dials anew."""
        self._send_waiting()
        self.node = node
        for dial in list(self._dials.values()):
            self._give_up(dial, "this agent took a higher boot")
        for link in list(self._links.values()):
            if not isinstance(link.connection, Dialled):
                self._acceptor.dismiss(link.connection, "this agent took a higher boot")
            self._lose(link, "this agent took a higher boot")

    def stop(self) -> None:
        """Close everything, report nothing more.  What is still queued is lost: say goodbye before."""
        self._deliver = lambda _input: None
        self._news.stop()
        for dial in [*self._dials.values(), *(link.connection for link in self._links.values())]:
            if isinstance(dial, Dialled):
                dial.close()
        self._dials.clear()
        self._links.clear()
        self._acceptor.close()
        self._gatekeeper.close()
        self._context.destroy(0)  # returns at once, since every socket is closed; else it would block the hub

    # ---- dialled connections

    def _dial(self, peer: NodeId, address: Address, public_key: bytes) -> None:
        self._attempts += 1
        self.counters["dials"] += 1
        try:
            self._dials[peer.path] = Dialled(
                self._context,
                Hello(LINK_PROTOCOL, self.node, peer, self._attempts),
                address,
                self._keys,
                public_key,
                reachable=not self._shaping.is_cut(peer),
                said=self._acceptor_said,
                received=self._message_from_acceptor,
                ended=self._dialled_ended,
            )
        except (zmq.ZMQError, LocalError) as error:  # an address or key that cannot be one
            self._dial_failed(peer, f"cannot dial: {error}")

    def _acceptor_said(self, dial: Dialled, frame: Control) -> None:
        pending = self._dials.get(dial.peer.path) is dial
        if type(frame) is Goodbye:
            dial.end(f"the peer closed it: {frame.reason}")
        elif type(frame) is Welcome and pending:
            if frame.node != dial.peer or not speaks_our_protocol(frame.protocol):
                dial.end(f"answered by {frame.node}, link protocol {frame.protocol}")
            else:
                self._welcomed(dial, frame)
        else:
            self.counters["unexpected_frames"] += 1

    def _welcomed(self, dial: Dialled, welcome: Welcome) -> None:
        path = dial.peer.path
        del self._dials[path]
        dial.is_open = True
        self._opened(Link(dial.peer, dial, welcome.attempt, packs=welcome.protocol[1] >= PACKS))
        if path in self._waiting:
            self._hello(*self._waiting.pop(path))  # stale, unless the peer has dialled again since

    def _message_from_acceptor(self, dial: Dialled, data: bytes) -> None:
        link = self._links.get(dial.peer.path)
        if link is None or link.connection is not dial:
            self.counters["unlinked_messages"] += 1
        else:
            self._received(link, data)

    def _dialled_ended(self, dial: Dialled, reason: str) -> None:
        path = dial.peer.path
        link = self._links.get(path)
        if self._dials.get(path) is dial:
            del self._dials[path]
            if path not in self._waiting or not self._accept(*self._waiting.pop(path)):
                self._dial_failed(dial.peer, reason)
        elif link is not None and link.connection is dial:
            self._lose(link, reason)

    def _give_up(self, dial: Dialled, reason: str) -> None:
        del self._dials[dial.peer.path]
        dial.close()
        self._dial_failed(dial.peer, reason)

    # ---- accepted connections

    def _dialler_said(self, connection: Accepted, frame: Control) -> None:
        if type(frame) is Hello:
            self._hello(connection, frame)
        else:
            self.counters["unexpected_frames"] += 1

    def _hello(self, connection: Accepted, hello: Hello) -> None:
        if not connection.identity.startswith(f"{hello.node}#".encode()):
            self.counters["impostors"] += 1
            return
        objection = self._objection(hello)
        if objection:
            self.counters["hellos_refused"] += 1
            self._acceptor.dismiss(connection, objection)
            return
        link, dial = self._links.get(connection.path), self._dials.get(connection.path)
        if link is not None:
            self._lose(link, "the peer dialled anew")
        if dial is not None and dial.peer == hello.node and self.node < hello.node:
            self._waiting[connection.path] = (connection, hello)
            return
        if dial is not None and dial.peer == hello.node:
            del self._dials[connection.path]
            dial.close()
        elif dial is not None:
            self._give_up(dial, "its newer start dialled us")
        self._accept(connection, hello)

    def _objection(self, hello: Hello) -> str:
        """Why no link may come of this hello; '' when one may."""
        if hello.to != self.node:
            return f"this is {self.node}"
        if not speaks_our_protocol(hello.protocol):
            return f"link protocol {LINK_PROTOCOL} is spoken here"
        link, dial = self._links.get(hello.node.path), self._dials.get(hello.node.path)
        known = link.peer if link else dial.peer if dial else None
        if known is not None and known.boot > hello.node.boot:
            return f"a newer start is known: {known}"
        if link is not None and link.peer == hello.node and hello.attempt <= link.peer_attempt:
            return "stale: another connection became the link"
        return ""

    def _accept(self, connection: Accepted, hello: Hello) -> bool:
        try:
            self._acceptor.send(connection, encode_control(Welcome(LINK_PROTOCOL, self.node, self._attempts)))
        except zmq.ZMQError:  # it is gone already
            self.counters["welcomes_unsent"] += 1
            return False
        self._opened(Link(hello.node, connection, hello.attempt, packs=hello.protocol[1] >= PACKS))
        return True

    def _message_from_dialler(self, connection: Accepted, data: bytes) -> None:
        link = self._links.get(connection.path)
        if link is None or link.connection is not connection:
            self.counters["unlinked_messages"] += 1
            self._acceptor.dismiss(connection, "no link")
        else:
            self._received(link, data)

    def _dialler_gone(self, connection: Accepted) -> None:
        path = connection.path
        if path in self._waiting and self._waiting[path][0] is connection:
            del self._waiting[path]
        link = self._links.get(path)
        if link is not None and link.connection is connection:
            self._lose(link, "disconnected")

    # ---- either way

    def _opened(self, link: Link) -> None:
        self._links[link.peer.path] = link
        self.counters["links_opened"] += 1
        self._news.opened(link)

    def _lose(self, link: Link, reason: str) -> None:
        self._drop(link)
        self._news.lost(link, reason)

    def _drop(self, link: Link) -> None:
        if self._links.get(link.peer.path) is link:
            del self._links[link.peer.path]
            self.counters["links_lost"] += 1
        if isinstance(link.connection, Dialled):
            link.connection.close()

    def _received(self, link: Link, data: bytes) -> None:
        if len(data) > MESSAGE_BUDGET:
            self.counters["oversized_messages"] += 1
            return
        self.counters["messages_received"] += 1
        self._news.received(link, data)

    def _dial_failed(self, peer: NodeId, reason: str) -> None:
        self.counters["dials_failed"] += 1
        failed = LinkLost(peer, reason)
        if reason == TIMED_OUT:  # our own patience: known here whatever the network does
            self._deliver(failed)
        else:
            self._shaping.report_link(peer, lambda: self._deliver(failed))

    def _send_now(self, link: Link, data: bytes) -> None:
        if self._links.get(link.peer.path) is not link:
            self.counters["messages_lost_under_way"] += 1  # shaped, and the link ended meanwhile; `LinkLost` said so
            return
        if link.unsent and link.unsent_size + LENGTH.size + len(data) > MESSAGE_BUDGET:
            self._send_link(link)
        if not self._unsent:
            gevent.get_hub().loop.run_callback(self._send_waiting)
        self._unsent[link] = None
        link.unsent.append(data)
        link.unsent_size += LENGTH.size + len(data)

    def _send_waiting(self) -> None:
        """Send what was said since the hub last went on: to each peer as few messages as hold it."""
        while self._unsent:
            self._send_link(next(iter(self._unsent)))

    def _send_link(self, link: Link) -> None:
        payloads, link.unsent, link.unsent_size = link.unsent, [], 0
        del self._unsent[link]
        if self._links.get(link.peer.path) is not link:
            self.counters["messages_lost_under_way"] += len(payloads)
            return
        for together in [payloads] if link.packs else [[payload] for payload in payloads]:
            self._send_together(link, together)

    def _send_together(self, link: Link, payloads: list[bytes]) -> None:
        try:
            if isinstance(link.connection, Dialled):
                link.connection.send(pack(payloads))
            else:
                self._acceptor.send(link.connection, pack(payloads))
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EAGAIN, zmq.EHOSTUNREACH):
                raise
            reason = Refusal.GONE if error.errno == zmq.EHOSTUNREACH else Refusal.BACKPRESSURE
            for _ in payloads:
                self._tell_failed(link.peer, reason)
        else:
            self.counters["messages_sent"] += len(payloads)
            self.counters["bytes_sent"] += sum(map(len, payloads))

    def _send_failed(self, peer: NodeId, reason: Refusal) -> None:
        self._send_waiting()  # their failures come first
        self._tell_failed(peer, reason)

    def _tell_failed(self, peer: NodeId, reason: Refusal) -> None:
        self.counters[f"sends_failed_{reason.name.lower()}"] += 1
        self._deliver(SendFailed(peer, reason))
