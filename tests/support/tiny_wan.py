"""A few nodes in a heap of virtual time: enough to watch data centers talk.  Links stay half-dead while they are cut."""

from collections.abc import Callable
from heapq import heappop, heappush

from dislocate.core.boundary.effects import CloseLink, Notify, OpenLink, SendDatagram, SendMessage, TryConnect
from dislocate.core.boundary.events import Event
from dislocate.core.boundary.inputs import (
    ConnectTried,
    DatagramReceived,
    Input,
    LinkLost,
    LinkOpened,
    MessageReceived,
    TimeReached,
)
from dislocate.core.boundary.settings import Recovered, Settings
from dislocate.core.boundary.values import ConnectOutcome
from dislocate.core.identity import Address, NodeId, Path
from dislocate.core.node import Node
from dislocate.core.streams import Streams
from dislocate.core.units import MILLISECOND, SECOND

LAN = MILLISECOND // 4
DIAL_TIMEOUT = 3 * SECOND


def address(path: Path) -> Address:
    """Where the agent listens; its links are 'there'."""
    return path.replace("/", ".") + ":49701"


def path_at(address: Address) -> Path:
    return address.partition(":")[0].replace(".", "/")


class TinyWan:
    """Nodes by path; delays one way, by pair of data centers."""

    def __init__(self, delays: dict[frozenset[str], int], seed: str = "tiny") -> None:
        self.now = 0
        self.nodes: dict[Path, Node] = {}
        self.events: dict[Path, list[tuple[int, Event]]] = {}
        self.links: set[frozenset[Path]] = set()
        self.cuts: set[tuple[str, str]] = set()  # (from, to), directional
        self.bytes = 0  # sent
        self._delays = delays
        self._seed = seed
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._order = 0
        self._alarms: dict[Path, int] = {}

    def add(self, path: Path, *seeds: Path, boot: int = 1) -> Node:
        datacenter, name = path.split("/")
        settings = Settings(
            node=NodeId(datacenter, name, boot),
            nonce=boot,
            gossip=address(path),
            links=address(path),
            seeds=tuple(map(address, seeds)),
        )
        node = self.nodes[path] = Node(settings, Streams(f"{self._seed}/{path}"), Recovered())
        self.events[path] = []
        self._carry_out(path, node.start(self.now))
        return node

    def kill(self, path: Path) -> None:
        del self.nodes[path]
        for link in sorted(self.links, key=sorted):
            if path in link:
                self._lose(link, "reset")

    def cut(self, one: str, other: str, *, oneway: bool = False) -> None:
        self.cuts.add((one, other))
        if not oneway:
            self.cuts.add((other, one))

    def heal(self) -> None:
        self.cuts.clear()

    def run(self, duration: int, until: Callable[[], bool] | None = None) -> bool:
        """Let `duration` pass, or less when `until` holds (looked at every 100 ms); returns whether it holds."""
        end = self.now + duration
        while self.now < end:
            step = min(end, self.now + 100 * MILLISECOND)
            while self._queue and self._queue[0][0] <= step:
                self.now, _, act = heappop(self._queue)
                act()
            self.now = step
            if until is not None and until():
                return True
        return until is None or until()

    # ---- the world

    def _later(self, delay: int, act: Callable[[], None]) -> None:
        self._order += 1
        heappush(self._queue, (self.now + delay, self._order, act))

    def _delay(self, one: Path, other: Path) -> int | None:
        """One way; None while it is cut."""
        a, b = one.split("/")[0], other.split("/")[0]
        if (a, b) in self.cuts:
            return None
        return LAN if a == b else self._delays[frozenset((a, b))]

    def _give(self, path: Path, input_: Input) -> None:
        node = self.nodes.get(path)
        if node is not None:
            self._carry_out(path, node.handle(input_, self.now))

    def _carry_out(self, path: Path, effects: list) -> None:
        for effect in effects:
            match effect:
                case SendDatagram():
                    self.bytes += len(effect.data)
                    to, received = path_at(effect.address), DatagramReceived(address(path), effect.data)
                    delay = self._delay(path, to)
                    if delay is not None:
                        self._later(delay, lambda to=to, received=received: self._give(to, received))
                case SendMessage():
                    self.bytes += len(effect.data)
                    delay, to = self._delay(path, effect.peer.path), effect.peer.path
                    if delay is not None and frozenset((path, to)) in self.links:
                        received = MessageReceived(self.nodes[path].settings.node, effect.data)
                        self._later(delay, lambda to=to, received=received: self._give(to, received))
                case OpenLink():
                    self._dial(path, effect.peer)
                case TryConnect():
                    alive = path_at(effect.address) in self.nodes
                    tried = ConnectTried(effect.address, ConnectOutcome.ACCEPTED if alive else ConnectOutcome.REFUSED)
                    self._later(2 * LAN, lambda tried=tried: self._give(path, tried))
                case CloseLink():
                    self._lose(frozenset((path, effect.peer.path)), "closed", by=path)
                case Notify():
                    self.events[path].append((self.now, effect.event))
        self._arm(path)

    def _arm(self, path: Path) -> None:
        deadline = self.nodes[path].deadline()
        if self._alarms.get(path, -1) <= self.now or deadline < self._alarms[path]:
            self._alarms[path] = max(deadline, self.now + 1)
            self._later(self._alarms[path] - self.now, lambda: self._give(path, TimeReached()))

    def _dial(self, path: Path, peer: NodeId) -> None:
        there, back = self._delay(path, peer.path), self._delay(peer.path, path)
        link = frozenset((path, peer.path))
        if there is None or back is None or peer.path not in self.nodes:
            self._later(DIAL_TIMEOUT, lambda: link in self.links or self._give(path, LinkLost(peer, "timed out")))
        elif link not in self.links:
            self._later(3 * there, lambda: self._open(path, peer.path))

    def _open(self, one: Path, other: Path) -> None:
        link = frozenset((one, other))
        if one in self.nodes and other in self.nodes and link not in self.links:
            self.links.add(link)
            self._give(one, LinkOpened(self.nodes[other].settings.node))
            self._give(other, LinkOpened(self.nodes[one].settings.node))

    def _lose(self, link: frozenset[Path], reason: str, by: Path = "") -> None:
        self.links.discard(link)
        one, other = sorted(link)
        for path, peer in ((one, other), (other, one)):
            if path != by and path in self.nodes and self._delay(peer, path) is not None:
                lost = LinkLost(NodeId(*peer.split("/"), 1), reason)
                self._later(LAN, lambda path=path, lost=lost: self._give(path, lost))
