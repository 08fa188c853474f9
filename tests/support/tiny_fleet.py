"""A fleet in memory for unit tests of the core: virtual time, one fixed delay, and the faults that membership must survive.

Not the simulator: no jitter, no disks, no scenario.  Same inputs, same order, same result each time.
"""

from collections.abc import Callable
from heapq import heappop, heappush

from dislocate.core.boundary.effects import CloseLink, Effect, Notify, OpenLink, Reply, SendDatagram, SendMessage, Store
from dislocate.core.boundary.effects import TryConnect as Connect
from dislocate.core.boundary.events import Event
from dislocate.core.boundary.inputs import (
    ConnectTried,
    DatagramReceived,
    Input,
    LinkLost,
    LinkOpened,
    MessageReceived,
    Requested,
    SendFailed,
    Stored,
    StoreFailed,
    TimeReached,
)
from dislocate.core.boundary.requests import Request, Result
from dislocate.core.boundary.settings import Recovered, Settings
from dislocate.core.boundary.values import ConnectOutcome, MemberState, Refusal, StoredRecord
from dislocate.core.identity import NodeId, Path
from dislocate.core.node import Node
from dislocate.core.streams import Streams
from dislocate.core.units import MILLISECOND, SECOND, parse_duration
from dislocate.core.wire import FactMemo

DELAY = MILLISECOND // 10


class Host:
    """A machine, its agent, and what is wrong with them."""

    def __init__(self, settings: Settings, node: Node) -> None:
        self.settings = settings
        self.node = node
        self.runs = True  # False: killed; its kernel refuses
        self.is_there = True  # False: the machine is gone; nothing answers
        self.inbox: list[Input] | None = None  # not None: stopped (SIGSTOP), its kernel goes on accepting
        self.wake = -1  # the timer that counts
        self.links: dict[Path, NodeId] = {}
        self.events: list[tuple[int, Event]] = []
        self.results: dict[int, Result] = {}
        self.stored: list[StoredRecord] = []
        self.disk_says = ""  # why its disk stores nothing; empty: it stores


class TinyFleet:
    """Hosts by path; 'fra/a1' listens on 'fra-a1:1' for gossip and 'fra-a1:2' for links unless told otherwise."""

    def __init__(self, size: int = 0, *, seeds: int = 1, **settings: object) -> None:
        self.now = 0
        self.hosts: dict[Path, Host] = {}
        self.loses: Callable[[Path, Path], bool] = lambda _source, _target: False  # asked for each datagram and connect
        self.delay: Callable[[Path, Path], int] = lambda _source, _target: DELAY  # one way
        self.cuts_links = False  # whether what is lost is lost on open links too
        self._at: dict[str, Path] = {}
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0
        self._memo = FactMemo()
        for i in range(1, size + 1):
            self.start(f"fra/a{i}", seeds=tuple(f"fra-a{j}:1" for j in range(1, seeds + 1)), **settings)
            self.run("20ms")

    # ---- what tests do

    def start(self, path: Path, *, boot: int = 1, nonce: int = 0, host: str = "", **settings: object) -> Host:
        """Start, or start again, an agent."""
        dc, name = path.split("/")
        host = host or path.replace("/", "-")
        recovered = Recovered(records=settings.pop("records", ()))  # type: ignore[arg-type]
        node_id = NodeId(dc, name, boot)
        given = Settings(node=node_id, nonce=nonce or boot, gossip=f"{host}:1", links=f"{host}:2", **settings)  # type: ignore[arg-type]
        before = self._at.get(given.gossip)
        started = Host(given, Node(given, Streams(f"{path}/{boot}/{host}"), recovered, self._memo))
        key = path if path not in self.hosts or before == path else f"{path}@{host}"
        self.hosts[key] = started
        self._at[given.gossip] = self._at[given.links] = key
        self._perform(key, started, started.node.start(self.now))
        return started

    def run(self, duration: str) -> None:
        end = self.now + parse_duration(duration)
        while self._heap and self._heap[0][0] <= end:
            self.now, _, act = heappop(self._heap)
            act()
        self.now = end

    def run_until(self, claim: Callable[[], bool], within: str) -> int:
        """Nanoseconds until `claim` held, by the millisecond; fails when it did not."""
        begin, end = self.now, self.now + parse_duration(within)
        while not claim():
            assert self.now < end, f"not within {within}"
            self.run("1ms")
        return self.now - begin

    def kill(self, path: Path) -> None:
        """SIGKILL: ports refuse from now on, and the kernel closes its links."""
        host = self.hosts[path]
        host.runs = False
        for other, peer in list(host.links.items()):
            self._end_link(path, other, peer)

    def vanish(self, path: Path) -> None:
        self.hosts[path].runs = self.hosts[path].is_there = False

    def pause(self, path: Path) -> None:
        self.hosts[path].inbox = []

    def resume(self, path: Path) -> None:
        host = self.hosts[path]
        waiting, host.inbox = host.inbox or [], None
        for input_ in [*waiting, TimeReached()]:
            self.give(path, input_)

    def cut(self, one: list[Path], other: list[Path]) -> None:
        """Nothing passes between the two sides, in either direction, until `heal`."""
        a, b = set(one), set(other)
        self.loses = lambda source, target: (source in a and target in b) or (source in b and target in a)

    def heal(self) -> None:
        self.loses = lambda _source, _target: False

    def request(self, path: Path, request: Request, number: int = 1) -> None:
        self.give(path, Requested(number, request))

    def give(self, path: Path, input_: Input) -> None:
        host = self.hosts[path]
        if host.inbox is not None:
            if type(input_) is not TimeReached:
                host.inbox.append(input_)
        elif host.runs:
            self._perform(path, host, host.node.handle(input_, self.now))

    # ---- what tests ask

    def running(self) -> list[Path]:
        return [path for path, host in self.hosts.items() if host.runs and host.inbox is None]

    def state(self, observer: Path, path: Path) -> MemberState | None:
        member = self.hosts[observer].node._members.get(path)
        return None if member is None else member.state

    def everyone_says(self, path: Path, state: MemberState | None) -> bool:
        return all(self.state(observer, path) is state for observer in self.running() if observer != path)

    def is_whole(self) -> bool:
        """Every running agent holds every other, and nobody else, for alive."""
        running = self.running()
        return all(
            self.hosts[path].node._members.living("fra") == len(running)
            and all(self.state(path, other) is MemberState.ALIVE for other in running)
            for path in running
        )

    def events(self, kind: type, since: int = 0) -> list[tuple[int, Path, Event]]:
        return [
            (at, path, event)
            for path, host in self.hosts.items()
            for at, event in host.events
            if type(event) is kind and at >= since
        ]

    # ---- the world

    def _later(self, delay: int, act: Callable[[], None]) -> None:
        self._count += 1
        heappush(self._heap, (self.now + delay, self._count, act))

    def _give_later(self, delay: int, path: Path, input_: Input) -> None:
        self._later(delay, lambda: self.give(path, input_))

    def _perform(self, path: Path, host: Host, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case SendDatagram(address, data):
                    self._datagram(path, host, address, data)
                case Connect(address):
                    self._connect(path, address)
                case OpenLink(peer, address):
                    self._open_link(path, host, peer, address)
                case CloseLink(peer):
                    if peer.path in host.links:
                        del host.links[peer.path]
                        self._end_link(path, peer.path, host.settings.node)
                case SendMessage(peer, data):
                    if peer.path in host.links and not (self.cuts_links and self.loses(path, peer.path)):
                        received = MessageReceived(host.settings.node, data)
                        self._give_later(self.delay(path, peer.path), peer.path, received)
                case Notify(event):
                    host.events.append((self.now, event))
                case Reply(number, result):
                    host.results[number] = result
                case Store(seq) if host.disk_says:
                    self._give_later(DELAY, path, StoreFailed(seq, host.disk_says))
                case Store(seq, records):
                    host.stored += records
                    self._give_later(DELAY, path, Stored(seq))
                case _:
                    pass
        if host.node.deadline() != host.wake:
            wake = host.wake = host.node.deadline()
            self._later(max(0, wake - self.now), lambda: host.wake == wake and self._ring(path, host))

    def _ring(self, path: Path, host: Host) -> None:
        host.wake = -1
        if self.hosts[path] is host:
            self.give(path, TimeReached())

    def _datagram(self, source: Path, host: Host, address: str, data: bytes) -> None:
        target = self._at.get(address)
        if target is None or self.loses(source, target) or not self.hosts[target].is_there:
            return
        if self.hosts[target].runs:
            self._give_later(self.delay(source, target), target, DatagramReceived(host.settings.gossip, data))
        elif not self.loses(target, source):
            self._give_later(2 * DELAY, source, SendFailed(address, Refusal.REFUSED))

    def _reaches(self, source: Path, target: Path | None) -> bool:
        return (
            target is not None
            and self.hosts[target].is_there
            and not self.loses(source, target)
            and not self.loses(target, source)
        )

    def _connect(self, source: Path, address: str) -> None:
        target = self._at.get(address)
        if target is None or not self._reaches(source, target):
            self._give_later(SECOND // 2, source, ConnectTried(address, ConnectOutcome.TIMED_OUT))
            return
        outcome = ConnectOutcome.ACCEPTED if self.hosts[target].runs else ConnectOutcome.REFUSED
        self._give_later(2 * DELAY, source, ConnectTried(address, outcome))

    def _open_link(self, source: Path, host: Host, peer: NodeId, address: str) -> None:
        target = self._at.get(address)
        if target is None or not self._reaches(source, target) or not self.hosts[target].runs:
            self._give_later(2 * DELAY, source, LinkLost(peer, "could not connect"))
        elif peer.path not in host.links:
            host.links[target] = peer
            self.hosts[target].links[source] = host.settings.node
            self._give_later(2 * DELAY, source, LinkOpened(peer))
            self._give_later(2 * DELAY, target, LinkOpened(host.settings.node))

    def _end_link(self, path: Path, other: Path, peer: NodeId) -> None:
        host = self.hosts[path]
        host.links.pop(other, None)
        held = self.hosts[other].links.pop(path, None)
        if held is not None and self.hosts[other].runs and self._reaches(path, other):
            self._give_later(DELAY, other, LinkLost(host.settings.node, "closed"))
