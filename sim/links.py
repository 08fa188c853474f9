"""Links between agents: ZeroMQ over TCP as the core sees it, by the rules of `io.links`.

To each peer there is at most one link, whichever side dialled.  When both dial at once, the dial of the lesser `NodeId`
becomes the link.  An open link keeps order and loses nothing.  It ends in three ways: somebody closed it (the other side
hears of it one delay later), the process at the other end died (its kernel says so), or nothing was heard for
`HEARTBEAT_TIMEOUT`: a cut, a stopped process or a vanished host look alike, and until then the link is half open and what
is sent on it waits, as much as kernels and ZeroMQ keep; the rest is pushed back.

Does not know nodes: it delivers inputs to processes through `deliver`, never within the call that asked.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

from dislocate.core.boundary.effects import CloseLink, OpenLink, SendMessage
from dislocate.core.boundary.inputs import Input, LinkLost, LinkOpened, MessageReceived, SendFailed
from dislocate.core.boundary.values import Refusal
from dislocate.core.identity import Address, NodeId, Path
from dislocate.core.tunables import MESSAGE_BUDGET
from dislocate.core.units import SECOND
from dislocate.linkmodel import LINKS, RETRANSMISSION_TIMEOUT, Link
from sim.dials import Dial, Dials
from sim.network import Network
from sim.process import Machine, Process
from sim.schedule import Schedule

HEARTBEAT_TIMEOUT = 15 * SECOND  # ZMQ_HEARTBEAT_TIMEOUT of `io.links`
SEND_QUEUE = 64  # messages that ZeroMQ keeps for one peer (`io.links`), once
KERNEL_BUFFERS = (
    2 << 20
)  # bytes are full; 1.9 to 3.2 MB were taken for a stopped peer on loopback with Linux's defaults

Deliver: TypeAlias = Callable[[Process, Input], None]


class Backlog:
    """What one end has sent and the other has not read."""

    __slots__ = ("held", "queued", "unread")

    def __init__(self) -> None:
        self.unread = 0  # bytes
        self.queued = 0  # messages that the kernels had no room for
        self.held = 0  # bytes of `unread` that a stopped process has before it

    def take(self, size: int) -> bool:
        """Whether there is room for one more message."""
        if self.unread + size > KERNEL_BUFFERS:
            if self.queued >= SEND_QUEUE:
                return False
            self.queued += 1
        self.unread += size
        return True

    def was_read(self, size: int) -> None:
        self.unread -= size
        self.queued = 0 if self.unread <= KERNEL_BUFFERS else max(0, self.queued - 1)


class Connection:
    """One TCP connection after its handshake; end 0 dialled."""

    __slots__ = (
        "backlogs",
        "closing",
        "deaf_since",
        "ends",
        "goodbye",
        "is_ready",
        "last",
        "names",
        "opened",
        "sent",
        "unsent",
        "was_cut",
    )

    def __init__(self, dialler: Process, acceptor: Process) -> None:
        self.ends = (dialler, acceptor)
        self.names = (dialler.node_id, acceptor.node_id)  # which start each end said that it is
        self.is_ready = False  # the dialler has heard the end of the handshake, or given up
        self.opened = [False, False]  # what each end believes
        self.last = [0, 0]  # when the last message from each end arrives
        self.sent = [0, 0]  # messages from each end
        self.backlogs = (Backlog(), Backlog())  # of what each end sent
        # From each end, numbered: what met a cut, or waits behind such; TCP keeps trying.
        self.unsent: tuple[list[tuple[int, bytes]], list[tuple[int, bytes]]] = ([], [])
        self.deaf_since: list[int | None] = [None, None]  # since when each end hears nothing
        self.was_cut = [False, False]  # that is because of a cut: after it, TCP's next retransmission is awaited
        self.goodbye = ""  # an acceptor cannot close: it asks the dialler to, and says why
        self.closing = [False, False]  # the news that the other end is gone is on its way to this end

    def side(self, process: Process) -> int:
        return 0 if self.ends[0] is process else 1

    def peer_of(self, process: Process) -> NodeId:
        """Who is at the other end."""
        return self.names[1 - self.side(process)]


class Links:
    """All links of one world."""

    def __init__(
        self, schedule: Schedule, network: Network, machines: Mapping[Address, Machine], deliver: Deliver
    ) -> None:
        self._schedule = schedule
        self._network = network
        self._machines = machines  # by link address
        self._deliver = deliver
        self._dials = Dials(schedule, network, said_hello=self._hello, failed=self._dial_failed)
        self._waiting: dict[tuple[Process, Path], Dial] = {}  # hellos that hope for the acceptor's own dial to fail

    # ---- opening

    def open(self, process: Process, effect: OpenLink) -> None:
        """Dial, unless a link or a dial to this start of the peer exists; answered by `LinkOpened` or `LinkLost`."""
        peer = effect.peer
        link, dial = process.links.get(peer.path), self._dials.find(process, peer.path)
        known = self._known(process, peer.path)
        if known == peer:
            return
        if known is not None and known.boot > peer.boot:
            self._tell(process, LinkLost(peer, "a newer start of it is linked"))
            return
        if link is not None:
            self._end(link, link.side(process), "its newer start is dialled")
        elif dial is not None:
            self._dials.fail(dial, "its newer start is dialled")
        self._dials.begin(process, effect, self._machines.get(effect.address))

    def _known(self, process: Process, path: Path) -> NodeId | None:
        """Which start of `path` this process is linked to, or dials."""
        link, dial = process.links.get(path), self._dials.find(process, path)
        return link.peer_of(process) if link is not None else dial.effect.peer if dial is not None else None

    def _hello(self, dial: Dial) -> None:
        """A dialler whom the acceptor knows asks it for a link."""
        acceptor, peer = dial.acceptor, dial.dialler.node_id
        known = self._known(acceptor, peer.path)
        if dial.effect.peer != acceptor.node_id:
            self._dials.refuse(dial, f"the peer closed it: this is {acceptor.node_id}")
            return
        if known is not None and known.boot > peer.boot:
            self._dials.refuse(dial, f"the peer closed it: a newer start is known: {known}")
            return
        link, own = acceptor.links.get(peer.path), self._dials.find(acceptor, peer.path)
        if link is not None:
            self._end(link, link.side(acceptor), "the peer dialled anew")
        if own is not None and own.effect.peer == peer and acceptor.node_id < peer:
            self._waiting[acceptor, peer.path] = dial
            return
        if own is not None and own.effect.peer == peer:
            self._dials.abandon(own)
        elif own is not None:
            self._dials.fail(own, "its newer start dialled us")
        self._accept(dial)

    def _accept(self, dial: Dial) -> None:
        back = self._link(dial.acceptor.machine, dial.dialler.machine).segment(0, self._schedule.now)
        if back is None:
            return
        connection = Connection(dial.dialler, dial.acceptor)
        connection.last[1] = back + 1  # nothing overtakes the welcome
        self._opened(connection, 1)
        self._schedule.call(back, self._welcomed, dial, connection)

    def _welcomed(self, dial: Dial, connection: Connection, _: None) -> None:
        connection.is_ready = True
        if self._dials.is_under_way(dial):
            self._dials.abandon(dial)
            self._waiting.pop((dial.dialler, dial.path), None)  # its dialler has given it up for this one
            self._opened(connection, 0)
        self.refresh([connection])

    def _opened(self, connection: Connection, end: int) -> None:
        process, peer = connection.ends[end], connection.names[1 - end]
        connection.opened[end] = True
        process.links[peer.path] = connection
        self._tell(process, LinkOpened(peer))

    def _dial_failed(self, dial: Dial, reason: str) -> None:
        waiting = self._waiting.pop((dial.dialler, dial.path), None)
        if waiting is not None and self._dials.is_under_way(waiting):
            self._accept(waiting)
        else:
            self._tell(dial.dialler, LinkLost(dial.effect.peer, reason))

    # ---- messages

    def send(self, process: Process, effect: SendMessage) -> None:
        """Answered by `SendFailed` when it will not arrive, and else by nothing."""
        connection = process.links.get(effect.peer.path)
        if len(effect.data) > MESSAGE_BUDGET:
            self._tell(process, SendFailed(effect.peer, Refusal.TOO_LARGE))
            return
        end = 0 if connection is None else connection.side(process)
        if connection is None or connection.names[1 - end] != effect.peer:
            self._tell(process, SendFailed(effect.peer, Refusal.GONE))
            return
        if not connection.backlogs[end].take(len(effect.data)):
            self._tell(process, SendFailed(effect.peer, Refusal.BACKPRESSURE))
            return
        connection.sent[end] += 1
        self._transmit(connection, end, (connection.sent[end], effect.data))

    def _transmit(self, connection: Connection, end: int, message: tuple[int, bytes]) -> None:
        process, peer = connection.ends[end], connection.ends[1 - end]
        link = self._link(process.machine, peer.machine)
        arrival = None if connection.unsent[end] else link.segment(len(message[1]), self._schedule.now)
        if arrival is None:
            connection.unsent[end].append(message)
            return
        connection.last[end] = arrival = max(connection.last[end], arrival)
        self._schedule.call(arrival, self._arrived, connection, end, message)

    def _arrived(self, connection: Connection, end: int, message: tuple[int, bytes]) -> None:
        process, peer = connection.ends[end], connection.ends[1 - end]
        if not connection.opened[1 - end] or not peer.machine.is_powered:
            return
        if self._link(process.machine, peer.machine).is_cut(LINKS):
            connection.unsent[end].append(message)
            return
        if peer.is_paused:
            connection.backlogs[end].held += len(message[1])
        else:
            connection.backlogs[end].was_read(len(message[1]))
        self._deliver(peer, MessageReceived(connection.names[end], message[1]))

    def _tell(self, process: Process, input_: Input) -> None:
        """Now, but after the effects of the turn that may be under way."""
        self._schedule.call(self._schedule.now, self._told, process, input_)

    def _told(self, process: Process, input_: Input, _: None) -> None:
        self._deliver(process, input_)

    # ---- ending

    def close(self, process: Process, effect: CloseLink) -> None:
        """End the link or dial to this start of the peer, without a `LinkLost` on this side."""
        path = effect.peer.path
        if self._known(process, path) != effect.peer:
            return
        connection, dial = process.links.pop(path, None), self._dials.find(process, path)
        if connection is not None:
            end = connection.side(process)
            connection.opened[end] = False
            connection.goodbye = "the peer closed it: closed" if end == 1 else ""
            self.refresh([connection])
        elif dial is not None:
            self._dials.abandon(dial)
            if (waiting := self._waiting.pop((process, path), None)) is not None:
                self._dials.refuse(waiting, "the peer closed it: closed")

    def become(self, process: Process, node_id: NodeId) -> None:
        """The agent took a higher boot: every link and dial under the old one ends, as `io.links` does it."""
        reason = "this agent took a higher boot"
        process.node_id = node_id
        for dial in self._dials.of(process):
            self._dials.fail(dial, reason)
        for connection in list(process.links.values()):
            end = connection.side(process)
            connection.goodbye = f"the peer closed it: {reason}" if end == 1 else ""
            self._end(connection, end, reason)

    def process_died(self, process: Process) -> None:
        """Its kernel closes all of its links, where the host still runs."""
        self._dials.process_died(process)
        for key in [key for key in self._waiting if key[0] is process]:
            self._dials.refuse(self._waiting.pop(key), "disconnected")
        connections = list(process.links.values())
        for connection in connections:
            connection.opened[connection.side(process)] = False
        process.links.clear()
        self.refresh(connections)

    def process_resumed(self, process: Process) -> None:
        """It listens again; for what it did not hear while it was stopped it waits anew."""
        self._dials.process_resumed(process)
        connections = list(process.links.values())
        for connection in connections:
            end = connection.side(process)
            backlog = connection.backlogs[1 - end]
            backlog.was_read(backlog.held)
            backlog.held = 0
            connection.deaf_since[end] = None
        self.refresh(connections)

    def refresh(self, connections: Iterable[Connection]) -> None:
        """Something changed between these ends: see who is deaf from now on, who is no more, and who learns of an end."""
        for connection in connections:
            if connection.is_ready:
                for end in (0, 1):
                    self._refresh_end(connection, end)

    def _refresh_end(self, connection: Connection, end: int) -> None:
        process, peer = connection.ends[end], connection.ends[1 - end]
        if not connection.opened[end]:
            return
        now = self._schedule.now
        inward = self._link(peer.machine, process.machine)
        is_cut = inward.is_cut(LINKS)
        is_silent = is_cut or not peer.machine.is_powered
        if not is_silent and not connection.opened[1 - end]:
            self._tell_end(connection, end, inward)
        if is_silent or peer.is_paused:
            if connection.deaf_since[end] is None:
                connection.deaf_since[end] = now
                self._schedule.call(now + HEARTBEAT_TIMEOUT, self._heartbeat_missed, connection, end, now)
            connection.was_cut[end] |= is_cut
            return
        since = connection.deaf_since[end]
        if since is not None and connection.was_cut[end]:
            self._schedule.call(next_retransmission(since, now), self._retransmitted, connection, end, since)
        else:
            self._hears(connection, end)

    def _retransmitted(self, connection: Connection, end: int, since: int) -> None:
        process, peer = connection.ends[end], connection.ends[1 - end]
        is_cut = self._link(peer.machine, process.machine).is_cut(LINKS)
        if connection.deaf_since[end] == since and not is_cut:
            self._hears(connection, end)

    def _hears(self, connection: Connection, end: int) -> None:
        """This end hears the other again: what waited is sent, in order."""
        connection.deaf_since[end] = None
        connection.was_cut[end] = False
        unsent = connection.unsent[1 - end]
        if unsent and connection.opened[1 - end]:
            waiting = sorted(unsent)
            unsent.clear()
            for message in waiting:
                self._transmit(connection, 1 - end, message)

    def _tell_end(self, connection: Connection, end: int, inward: Link) -> None:
        """The other end is closed and its host there: a FIN or RST arrives after what was sent before."""
        if connection.closing[end]:
            return
        arrival = inward.segment(0, self._schedule.now)
        if arrival is not None:
            connection.closing[end] = True
            self._schedule.call(max(arrival, connection.last[1 - end]), self._end_arrived, connection, end)

    def _end_arrived(self, connection: Connection, end: int, _: None) -> None:
        process, peer = connection.ends[end], connection.ends[1 - end]
        connection.closing[end] = False
        if self._link(peer.machine, process.machine).is_cut(LINKS):
            self._refresh_end(connection, end)
            return
        self._end(connection, end, connection.goodbye or "disconnected")

    def _heartbeat_missed(self, connection: Connection, end: int, since: int) -> None:
        process = connection.ends[end]
        if connection.deaf_since[end] == since and not process.is_paused:
            self._end(connection, end, "no heartbeat")

    def _end(self, connection: Connection, end: int, reason: str) -> None:
        process, peer = connection.ends[end], connection.names[1 - end]
        if not connection.opened[end] or not process.is_running:
            return
        connection.opened[end] = False
        if process.links.get(peer.path) is connection:
            del process.links[peer.path]
        self._tell(process, LinkLost(peer, reason))
        self.refresh([connection])

    def _link(self, origin: Machine, target: Machine) -> Link:
        return self._network.rows[origin.index][target.index]


def next_retransmission(since: int, now: int) -> int:
    """When TCP tries again at `now` or later, having lost a segment at `since`: each time after twice as long."""
    wait = RETRANSMISSION_TIMEOUT
    at = since + wait
    while at < now:
        wait *= 2
        at += wait
    return at
