"""Links between agents: ZeroMQ over TCP as the core sees it.

Opening takes two round trips and needs an agent that listens, knows the dialler and holds the key that was dialled.  An
open link keeps order and loses nothing.  It ends in three ways: somebody closed it (the other side hears of it one delay
later), the process at the other end died (its kernel says so), or nothing was heard for `HEARTBEAT_TIMEOUT`: a cut, a
stopped process or a vanished host look alike, and until then the link is half open and what is sent on it waits.

Does not know nodes: it delivers inputs to processes through `deliver`.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

from dislocate.core.boundary.effects import CloseLink, OpenLink, SendMessage
from dislocate.core.boundary.inputs import Input, LinkLost, LinkOpened, MessageReceived, SendFailed
from dislocate.core.boundary.values import Refusal
from dislocate.core.identity import Address, Path
from dislocate.core.units import SECOND
from dislocate.linkmodel import RETRANSMISSION_TIMEOUT, Channel, Link
from sim.network import Network
from sim.process import Machine, Process
from sim.schedule import Schedule

HEARTBEAT_TIMEOUT = 15 * SECOND  # ZMQ_HEARTBEAT_TIMEOUT of `io.links`
HANDSHAKE_TIMEOUT = 5 * SECOND  # after which a dial without an answer is given up
HIGH_WATER_MARK = 1_000  # messages that wait for one peer: ZeroMQ's default

Deliver: TypeAlias = Callable[[Process, Input], None]


class Dial:
    """One attempt to open a link."""

    __slots__ = ("acceptor", "dialler", "effect")

    def __init__(self, dialler: Process, effect: OpenLink) -> None:
        self.dialler = dialler
        self.effect = effect
        self.acceptor: Process | None = None  # who listened when the SYN came


class Connection:
    """One TCP connection after its handshake; end 0 dialled."""

    __slots__ = ("closing", "deaf_since", "ends", "is_ready", "last", "opened", "sent", "unsent", "was_cut")

    def __init__(self, dialler: Process, acceptor: Process) -> None:
        self.ends = (dialler, acceptor)
        self.is_ready = False  # the dialler has heard the end of the handshake, or given up
        self.opened = [False, False]  # what each end believes
        self.last = [0, 0]  # when the last message from each end arrives
        self.sent = [0, 0]  # messages from each end
        # From each end, numbered: what met a cut, or waits behind such; TCP keeps trying.
        self.unsent: tuple[list[tuple[int, bytes]], list[tuple[int, bytes]]] = ([], [])
        self.deaf_since: list[int | None] = [None, None]  # since when each end hears nothing
        self.was_cut = [False, False]  # that is because of a cut: after it, TCP's next retransmission is awaited
        self.closing = [False, False]  # the news that the other end is gone is on its way to this end

    def side(self, process: Process) -> int:
        return 0 if self.ends[0] is process else 1


class Links:
    """All links of one world."""

    def __init__(
        self, schedule: Schedule, network: Network, machines: Mapping[Address, Machine], deliver: Deliver
    ) -> None:
        self._schedule = schedule
        self._network = network
        self._machines = machines  # by link address
        self._deliver = deliver
        self._dials: dict[tuple[Process, Path], Dial] = {}  # under way, by dialler and peer

    # ---- opening

    def open(self, process: Process, effect: OpenLink) -> None:
        key = (process, effect.peer.path)
        machine = self._machines.get(effect.address)
        existing = process.links.get(effect.peer.path)
        if existing is not None and machine is not None and machine.process in existing.ends:
            return
        if key in self._dials:
            return
        dial = self._dials[key] = Dial(process, effect)
        now = self._schedule.now
        self._schedule.call(now + HANDSHAKE_TIMEOUT, self._dial_failed, dial, "timed out")
        if machine is not None and (arrival := self._segment(process.machine, machine, now)) is not None:
            self._schedule.call(arrival, self._dial_arrived, dial, machine)

    def _dial_arrived(self, dial: Dial, machine: Machine, _: None) -> None:
        origin = dial.dialler.machine
        back = self._segment(machine, origin, self._schedule.now)
        if not machine.is_powered or back is None:
            return
        if machine.process is None:
            self._schedule.call(back, self._dial_failed, dial, "refused")
            return
        dial.acceptor = machine.process
        if (again := self._segment(origin, machine, back)) is not None:
            self._schedule.call(again, self._dial_accepted, dial, machine.process)

    def _dial_accepted(self, dial: Dial, acceptor: Process, _: None) -> None:
        dialler = dial.dialler
        # A stopped acceptor shakes no hands, CURVE says nothing to a stranger: the dialler's timeout tells both.
        if acceptor.is_paused or not acceptor.is_running or not self._is_under_way(dial):
            return
        if not _know_each_other(dial, acceptor):
            return
        back = self._segment(acceptor.machine, dialler.machine, self._schedule.now)
        if back is None:
            return
        self._dials.pop((acceptor, dialler.node_id.path), None)  # both dialled: the first handshake to get here wins
        self._replace(acceptor, dialler.node_id.path)
        connection = Connection(dialler, acceptor)
        self._opened(connection, 1)
        self._schedule.call(back, self._dial_ready, dial, connection)

    def _dial_ready(self, dial: Dial, connection: Connection, _: None) -> None:
        dialler = dial.dialler
        connection.is_ready = True
        if self._is_under_way(dial) and connection.opened[1]:
            del self._dials[dialler, dial.effect.peer.path]
            self._replace(dialler, dial.effect.peer.path)
            self._opened(connection, 0)
        self.refresh([connection])

    def _replace(self, process: Process, path: Path) -> None:
        older = process.links.get(path)
        if older is not None:
            self._end(older, older.side(process), "replaced by a new link")

    def _opened(self, connection: Connection, end: int) -> None:
        process, peer = connection.ends[end], connection.ends[1 - end]
        connection.opened[end] = True
        process.links[peer.node_id.path] = connection
        self._deliver(process, LinkOpened(peer.node_id))

    def _dial_failed(self, dial: Dial, reason: str, _: None) -> None:
        if self._is_under_way(dial):
            del self._dials[dial.dialler, dial.effect.peer.path]
            self._deliver(dial.dialler, LinkLost(dial.effect.peer, reason))

    def _is_under_way(self, dial: Dial) -> bool:
        return self._dials.get((dial.dialler, dial.effect.peer.path)) is dial

    # ---- messages

    def send(self, process: Process, effect: SendMessage) -> None:
        connection = process.links.get(effect.peer.path)
        if connection is None or not connection.opened[connection.side(process)]:
            self._schedule.call(self._schedule.now, self._failed, process, SendFailed(effect.peer, Refusal.GONE))
            return
        end = connection.side(process)
        peer = connection.ends[1 - end]
        waiting = len(connection.unsent[end]) + (len(peer.waiting) if peer.is_paused else 0)
        if waiting >= HIGH_WATER_MARK:
            self._schedule.call(
                self._schedule.now, self._failed, process, SendFailed(effect.peer, Refusal.BACKPRESSURE)
            )
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
        if self._link(process.machine, peer.machine).is_cut(Channel.LINKS):
            connection.unsent[end].append(message)
            return
        self._deliver(peer, MessageReceived(process.node_id, message[1]))

    def _failed(self, process: Process, failed: SendFailed, _: None) -> None:
        self._deliver(process, failed)

    # ---- ending

    def close(self, process: Process, effect: CloseLink) -> None:
        """Without a `LinkLost` on this side."""
        self._dials.pop((process, effect.peer.path), None)
        connection = process.links.pop(effect.peer.path, None)
        if connection is not None:
            connection.opened[connection.side(process)] = False
            self.refresh([connection])

    def process_died(self, process: Process) -> None:
        """Its kernel closes all of its links, where the host still runs."""
        for key in [key for key in self._dials if key[0] is process]:
            del self._dials[key]
        connections = list(process.links.values())
        for connection in connections:
            connection.opened[connection.side(process)] = False
        process.links.clear()
        self.refresh(connections)

    def process_resumed(self, process: Process) -> None:
        """It listens again; for what it did not hear while it was stopped it waits anew."""
        connections = list(process.links.values())
        for connection in connections:
            connection.deaf_since[connection.side(process)] = None
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
        is_cut = inward.is_cut(Channel.LINKS)
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
        is_cut = self._link(peer.machine, process.machine).is_cut(Channel.LINKS)
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
        if self._link(peer.machine, process.machine).is_cut(Channel.LINKS):
            self._refresh_end(connection, end)
            return
        self._end(connection, end, "closed" if peer.is_running else "reset")

    def _heartbeat_missed(self, connection: Connection, end: int, since: int) -> None:
        process = connection.ends[end]
        if connection.deaf_since[end] == since and not process.is_paused:
            self._end(connection, end, "no heartbeat")

    def _end(self, connection: Connection, end: int, reason: str) -> None:
        process, peer = connection.ends[end], connection.ends[1 - end]
        if not connection.opened[end] or not process.is_running:
            return
        connection.opened[end] = False
        if process.links.get(peer.node_id.path) is connection:
            del process.links[peer.node_id.path]
        self._deliver(process, LinkLost(peer.node_id, reason))
        self.refresh([connection])

    def _segment(self, origin: Machine, target: Machine, now: int) -> int | None:
        return self._link(origin, target).segment(0, now)

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


def _know_each_other(dial: Dial, acceptor: Process) -> bool:
    """CURVE and ZAP: the acceptor holds the key that was dialled, and its member table has the dialler's."""
    view = acceptor.node.member(dial.dialler.node_id.path)
    return (
        view is not None
        and view.public_key == dial.dialler.machine.public_key
        and acceptor.machine.public_key == dial.effect.public_key
        and acceptor.node_id.path == dial.effect.peer.path
    )
