"""What the parts of a node do in one turn: effects in order, timers, and what waits for the disk.

The node sets `now` before it calls a part; a part calls the verbs here and returns nothing.  Timers are never cancelled,
only outdated: each carries the incarnation, sequence or version it was set for, and whoever gets it back checks that.
"""

from collections.abc import Callable
from heapq import heappop, heappush

from msgspec import Raw, Struct

from dislocate.core.boundary.effects import (
    CancelTask,
    CloseLink,
    Effect,
    Notify,
    OpenLink,
    Reply,
    RunCheck,
    RunTask,
    SendDatagram,
    SendMessage,
    Store,
    TryConnect,
)
from dislocate.core.boundary.events import Event, InputDropped
from dislocate.core.boundary.requests import Result
from dislocate.core.boundary.runs import Task
from dislocate.core.boundary.values import CheckSpec, StoredRecord
from dislocate.core.errors import Bug
from dislocate.core.identity import Address, NodeId
from dislocate.core.rumors import Rumors
from dislocate.core.tunables import DATAGRAM_BUDGET, MESSAGE_BUDGET
from dislocate.core.wire import FRAGMENT_SIZE, Fact, Fragment, Message, encode_envelope, encoded_size

NEVER = 1 << 62


class Timer(Struct, frozen=True, array_like=True):
    """Base of all timers: a frozen note to oneself."""


class Outbox:
    """The verbs of a node's parts."""

    def __init__(self, node: NodeId, rumors: Rumors) -> None:
        self.node = node
        self.rumors = rumors
        self.now = 0
        self.kept_since: int | None = None  # since then the kernel kept what is handled now
        self._room = DATAGRAM_BUDGET - len(encode_envelope(node, None)) - 2  # the head of a long array of facts
        self.members = 1  # alive and suspect in this data center, self included; membership keeps it
        self.effects: list[Effect] = []
        self.counters: dict[str, int] = {}
        self.via: tuple[str, ...] = ()  # data centers that the facts of this turn crossed; the node sets it
        self.told: list[Event] = []  # this turn's events; the node reads them at its end
        self.news: list[tuple[tuple[str, ...], Fact]] = []  # what this turn spread; the relay drains it at its end
        self._clock: tuple[int, int] | None = None  # (unix, now) of the last ClockRead
        self._timers: list[tuple[int, int, Timer]] = []
        self._timer_seq = 0
        self._outdated: dict[int, None] = {}  # numbers of timers that still wait
        self._claims: dict[NodeId, dict[str, None]] = {}  # which parts want the link to a peer
        self.reset: list[NodeId] = []  # links that this turn closed whoever wanted them; the node drains it at its end
        self._fragmented = 0
        self._store_seq = 0
        self._awaiting: dict[int, tuple[Callable[[], None], Callable[[str], None]]] = {}

    # ---- the network

    def send(self, address: Address, body: Message | None) -> None:
        """Send `body` with as many rumours as fit."""
        self.send_facts(address, body, self.rumors.take(self.room(body), self.members) if self.rumors.count else ())

    def room(self, body: Message | None) -> int:
        """Bytes that a datagram with `body` has left for facts."""
        return self._room - encoded_size(body)

    def send_facts(self, address: Address, body: Message | None, facts: tuple[Raw, ...]) -> None:
        """Send `body` with exactly these facts, which the caller has measured."""
        data = encode_envelope(self.node, body, facts)
        if len(data) > DATAGRAM_BUDGET:
            raise Bug(f"datagram of {len(data)} bytes")
        self.effects.append(SendDatagram(address, data))

    def send_message(self, peer: NodeId, body: Message, facts: tuple[Raw, ...] = ()) -> None:
        """Send on an open link, without rumours; what is larger than a message goes in fragments."""
        data = encode_envelope(self.node, body, facts)
        if len(data) > MESSAGE_BUDGET:
            self._send_fragments(peer, data)
            return
        self.effects.append(SendMessage(peer, data))

    def _send_fragments(self, peer: NodeId, data: bytes) -> None:
        self._fragmented += 1
        count = -(-len(data) // FRAGMENT_SIZE)
        for part in range(count):
            slice_ = data[part * FRAGMENT_SIZE : (part + 1) * FRAGMENT_SIZE]
            fragment = Fragment(self._fragmented, part, count, slice_)
            self.effects.append(SendMessage(peer, encode_envelope(self.node, fragment)))

    def open_link(self, peer: NodeId, address: Address, public_key: bytes, *, owner: str) -> None:
        """Dial `peer` on behalf of one part of the node, which thereby claims the link."""
        self.claim_link(peer, owner)
        self.effects.append(OpenLink(peer, address, public_key))

    def claim_link(self, peer: NodeId, owner: str) -> None:
        """`owner` needs the link to `peer`, whoever dialled it: it stays when others close it."""
        self._claims.setdefault(peer, {})[owner] = None

    def close_link(self, peer: NodeId, *, owner: str) -> None:
        """`owner` needs the link no more; it is closed when nobody does."""
        claims = self._claims.get(peer, {})
        claims.pop(owner, None)
        if not claims:
            self._claims.pop(peer, None)
            self.effects.append(CloseLink(peer))

    def is_claimed(self, peer: NodeId) -> bool:
        """Whether any part needs the link to `peer`."""
        return peer in self._claims

    def release_link(self, peer: NodeId, *, owner: str) -> None:
        """`owner` needs the link no more; it stays open: whoever dialled it closes it."""
        claims = self._claims.get(peer, {})
        claims.pop(owner, None)
        if not claims:
            self._claims.pop(peer, None)

    def reset_link(self, peer: NodeId) -> None:
        """The link is stuck: close it, and let every part find out."""
        self._claims.pop(peer, None)
        self.effects.append(CloseLink(peer))
        self.reset.append(peer)

    def link_lost(self, peer: NodeId) -> None:
        """The world ended the link: nobody holds it."""
        self._claims.pop(peer, None)

    def try_connect(self, address: Address) -> None:
        self.effects.append(TryConnect(address))

    def spread(self, key: str, fact: Fact) -> None:
        """`fact` is news: gossip it here and, where this node is a relay, to the other data centers."""
        self.rumors.put(key, fact)
        self.news.append((self.via, fact))

    # ---- this host

    def run_check(self, check_id: str, spec: CheckSpec) -> None:
        self.effects.append(RunCheck(check_id, spec))

    def run_task(self, task_id: str, task: Task) -> None:
        self.effects.append(RunTask(task_id, task))

    def cancel_task(self, task_id: str) -> None:
        self.effects.append(CancelTask(task_id))

    def notify(self, event: Event) -> None:
        self.effects.append(Notify(event))
        self.told.append(event)

    def reply(self, request_id: int, result: Result) -> None:
        self.effects.append(Reply(request_id, result))

    def drop(self, source: str, reason: str) -> None:
        """Count and report something from outside that could not be used."""
        self.count("input_dropped")
        self.notify(InputDropped(source, reason))

    def count(self, name: str, by: int = 1) -> None:
        self.counters[name] = self.counters.get(name, 0) + by

    # ---- the disk

    def store(
        self,
        records: tuple[StoredRecord, ...],
        *,
        sync: bool,
        then: Callable[[], None] | None = None,
        failed: Callable[[str], None] | None = None,
    ) -> None:
        """Make `records` durable; `then` runs in the turn of `Stored`, `failed` in that of `StoreFailed`."""
        self._store_seq += 1
        self._awaiting[self._store_seq] = (then or _nothing, failed or _ignore)
        self.effects.append(Store(self._store_seq, records, sync))

    def stored(self, seq: int) -> None:
        then, _ = self._awaiting.pop(seq)
        then()

    def store_failed(self, seq: int, reason: str) -> None:
        _, failed = self._awaiting.pop(seq)
        self.count("store_failed")
        failed(reason)

    # ---- time

    @property
    def arrived(self) -> int:
        """When what is handled now arrived, at the earliest: now, unless the kernel kept it for a process that stood still."""
        return self.now if self.kept_since is None else self.kept_since

    def read_clock(self, unix_ns: int) -> None:
        self._clock = (unix_ns, self.now)

    def unix(self) -> int:
        """Wall time in nanoseconds as last read, carried forward; 0 before the first reading."""
        return 0 if self._clock is None else self._clock[0] + self.now - self._clock[1]

    def arm(self, at: int, timer: Timer) -> int:
        """Give `timer` back at `at` or later.  Returns its number, for `outdate`."""
        self._timer_seq += 1
        heappush(self._timers, (at, self._timer_seq, timer))
        return self._timer_seq

    def outdate(self, number: int) -> None:
        """The timer of this number would find nothing to do: it need not wake anybody.  For those that nearly always are
        outdated; whoever gets one back checks that all the same."""
        self._outdated[number] = None
        self._skip_outdated()

    def _skip_outdated(self) -> None:
        while self._outdated and self._timers and self._timers[0][1] in self._outdated:
            del self._outdated[heappop(self._timers)[1]]

    def deadline(self) -> int:
        return self._timers[0][0] if self._timers else NEVER

    def due(self) -> Timer | None:
        """The next timer whose time has come."""
        if not self._timers or self._timers[0][0] > self.now:
            return None
        timer = heappop(self._timers)[2]
        self._skip_outdated()
        return timer


def _nothing() -> None:
    pass


def _ignore(_reason: str) -> None:
    pass
