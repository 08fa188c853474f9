"""Repair: two views that differ are made equal by telling each what the other knows.

A conversation, begun by whoever hears a digest that is not its own:

    LedgerDigest          here are my 64 bucket sums
    LedgerInventory       these differ; here is all that I have in them      (to a stranger's empty buckets: facts at once)
    Repaired + facts      what I know of the entries that differ
    LedgerInventory       and these are they: tell me what you know
    Repaired + facts      that is all

Invariants:
- A fingerprint does not say who is right, so both tell and the precedence of the facts decides; whoever repeats it learns
  nothing and says nothing.  Equal views are silent.
- One conversation never costs more than SLICES packets of inventory and BURST of facts a leg; `more` asks the receiver,
  whose ledger just grew, to go on.
- Conversations are begun at most once in REPAIR_MIN_INTERVAL with a peer; while they change nothing here, more and more
  rarely, with anybody.  Any change of the ledger ends that patience.

Between agents of one data center it runs on datagrams, between data centers on links; the source of a message says which.
A fact that outgrows its carrier is counted and left out: owners bound their records at registration and split their
manifests, so that it cannot happen without a bug in an owner.
"""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from msgspec import Raw, Struct

from dislocate.core.boundary.settings import Settings
from dislocate.core.catalog.ledger import BUCKETS, Ledger
from dislocate.core.catalog.messages import LedgerDigest, LedgerInventory, Repaired
from dislocate.core.identity import Address, NodeId, Path
from dislocate.core.membership.members import Members
from dislocate.core.outbox import Outbox
from dislocate.core.packing import ENVELOPE_ROOM, packed
from dislocate.core.streams import Streams
from dislocate.core.tunables import DATAGRAM_BUDGET, MESSAGE_BUDGET, REPAIR_MIN_INTERVAL
from dislocate.core.units import MILLISECOND, SECOND
from dislocate.core.wire import Fact, Message, encode_fact

BURST = 32  # packets: 37 kB of datagrams fit any socket buffer; 2 MiB on a link
SPACING_MIN = 250 * MILLISECOND  # between conversations with different peers
SPACING_MAX = 30 * SECOND  # reached by doubling while they change nothing
PEERS_REMEMBERED = 256
SLICES = 16  # packets of inventory a conversation; each may be answered by as many of facts as its entries need
INVENTORY_HEAD = 288  # bytes beside the entries: two keys with the longest names, 64 buckets
ENTRY_OVERHEAD = 12  # bytes: array head, string head, a 64-bit fingerprint

Entries = tuple[tuple[str, int], ...]


class Begun(Struct):
    """The last conversation begun with one peer."""

    at: int
    wait: int
    seen: tuple[int, int]  # our total and the peer's, when it began


class Repair:
    """Compares ledgers with peers."""

    def __init__(self, settings: Settings, streams: Streams, out: Outbox, members: Members, ledger: Ledger) -> None:
        self._out = out
        self._ledger = ledger
        self._stream = streams["repair"]
        # By the first word of a ledger key: what this node knows of that path, as facts.
        self.providers: dict[str, Callable[[Path], list[Fact]]] = {}
        self._begun: dict[Path, Begun] = {}
        self._differed: dict[Path, None] = {}  # peers on links whose last digest was not ours
        self._last_at = -SPACING_MAX
        self._last_total = 0
        self._spacing = SPACING_MIN

    def timers(self) -> dict[type, Callable[[Any], None]]:
        return {}

    def start(self) -> None: ...

    # ---- when to talk

    def compare(self, peer: NodeId, source: Address | None, digest: int) -> None:
        """`peer` said the total of its ledger; where it differs from ours, start a repair (not too often per peer)."""
        if digest == self._ledger.total:
            self._begun.pop(peer.path, None)
            self._differed.pop(peer.path, None)
            if source is not None:
                self._out.rumors.agreed()
            return
        if source is None and peer.path not in self._differed:
            _remember(self._differed, peer.path, None)  # on a long link the first mismatch is news under way
            return
        if self._may_begin(peer.path, digest):
            self._begin(peer, source)

    def _may_begin(self, path: Path, digest: int) -> bool:
        now, total = self._out.now, self._ledger.total
        if total != self._last_total:
            self._spacing = SPACING_MIN
        if now - self._last_at < self._spacing:
            return False
        begun, seen = self._begun.get(path), (total, digest)
        wait = REPAIR_MIN_INTERVAL
        if begun is not None:
            if begun.seen == seen:
                wait = min(2 * begun.wait, SPACING_MAX)
            if now - begun.at < wait:
                return False
        _remember(self._begun, path, Begun(now, wait, seen))
        self._spacing = SPACING_MIN if total != self._last_total else min(2 * self._spacing, SPACING_MAX)
        return True

    def _begin(self, peer: NodeId, source: Address | None, *, goes_on: bool = False) -> None:
        self._last_at, self._last_total = self._out.now, self._ledger.total
        self._out.count("repairs_begun")
        self._say(peer, source, LedgerDigest(tuple(self._ledger.buckets), goes_on))

    # ---- the legs of a conversation

    def on_digest(self, sender: NodeId, source: Address | None, body: LedgerDigest) -> None:
        if len(body.buckets) != BUCKETS:
            self._out.drop(sender.path, f"a digest of {len(body.buckets)} buckets")
            return
        mine = self._ledger.buckets
        turn = self._stream.below(BUCKETS)  # so that a burst that ends early does not always tell the same
        order = [(turn + i) % BUCKETS for i in range(BUCKETS)]
        differing = [i for i in order if mine[i] != body.buckets[i]]
        is_stranger = body.goes_on or not _have_met(mine, body.buckets)
        empty_there = [i for i in differing if body.buckets[i] == 0] if is_stranger else []
        self._tell(sender, source, [key for i in empty_there for key, _ in self._ledger.entries(i)])
        for slice_ in islice(self._slices([i for i in differing if i not in empty_there], source), SLICES):
            self._say(sender, source, slice_)

    def on_inventory(self, sender: NodeId, source: Address | None, body: LedgerInventory) -> None:
        listed = dict(body.entries)
        known = ((key, value, self._ledger.get(key)) for key, value in body.entries)
        differing = {key: mine or 0 for key, value, mine in known if mine != value}
        if body.complete:
            for bucket in dict.fromkeys(body.buckets):
                for key, value in self._ledger.entries(bucket) if 0 <= bucket < BUCKETS else ():
                    in_range = body.after < key and (not body.until or key <= body.until)
                    if in_range and key not in listed:
                        differing[key] = value
        if not differing:
            return
        self._tell(sender, source, list(differing))
        if body.answer:
            for batch in islice(_batches(tuple(differing.items()), _room(source) - INVENTORY_HEAD), SLICES):
                self._say(sender, source, LedgerInventory((), batch, False, False))

    def on_repaired(self, sender: NodeId, source: Address | None, body: Repaired) -> None:
        """The facts are in; go on where the other side stopped, as long as that teaches something."""
        if body.more and self._ledger.total != self._last_total:
            self._begin(sender, source, goes_on=True)

    # ---- what to say

    def _tell(self, peer: NodeId, source: Address | None, keys: list[str]) -> None:
        """Facts about `keys`: members before their catalogs, since nobody takes a catalog of an unknown owner."""
        ordered = [key for key in keys if key.startswith("m/")] + [key for key in keys if not key.startswith("m/")]
        room = _room(source)
        facts = (fact for key in ordered for fact in self._facts(key, room))
        batches = list(islice(packed(facts, room), BURST + 1))
        for i, batch in enumerate(batches[:BURST]):
            self._out.count("repair_facts", len(batch))
            self._say(peer, source, Repaired(i + 1 == BURST < len(batches)), batch)

    def _facts(self, key: str, room: int) -> Iterator[Raw]:
        """What this node knows of `key`, without what cannot be carried."""
        word, _, path = key.partition("/")
        provider = self.providers.get(word)
        for fact in provider(path) if provider is not None else ():
            encoded = encode_fact(fact)
            if len(memoryview(encoded)) <= room:
                yield encoded
            else:
                self._out.count("repair_fact_too_large")

    def _slices(self, buckets: list[int], source: Address | None) -> Iterator[LedgerInventory]:
        """The inventory of `buckets`: several to a slice where they fit, several slices to a bucket where it does not."""
        room = _room(source) - INVENTORY_HEAD
        held: list[int] = []
        entries: list[tuple[str, int]] = []
        size = 0
        for bucket in buckets:
            batches = list(_batches(tuple(self._ledger.entries(bucket)), room))
            if len(batches) > 1:
                yield from _ranges(bucket, batches)
                continue
            content = batches[0] if batches else ()
            length = sum(map(_size, content)) + 2
            if held and size + length > room:
                yield LedgerInventory(tuple(held), tuple(entries), True, True)
                held, entries, size = [], [], 0
            held.append(bucket)
            entries += content
            size += length
        if held:
            yield LedgerInventory(tuple(held), tuple(entries), True, True)

    def _say(self, peer: NodeId, source: Address | None, body: Message, facts: tuple[Raw, ...] = ()) -> None:
        if source is None:
            self._out.send_message(peer, body, facts)
        else:
            self._out.send_facts(source, body, facts)


def _have_met(mine: list[int], theirs: tuple[int, ...]) -> bool:
    """Whether two ledgers share anything.  Only a stranger is told everything at once: whoever knows us and has nothing in
    a bucket may know that its members are dead, and only the inventory of it makes him say so."""
    return any(one and one == other for one, other in zip(mine, theirs, strict=True))


def _room(source: Address | None) -> int:
    """Bytes of facts or entries that fit a packet beside its head."""
    return (MESSAGE_BUDGET if source is None else DATAGRAM_BUDGET) - ENVELOPE_ROOM


def _size(entry: tuple[str, int]) -> int:
    return len(entry[0]) + ENTRY_OVERHEAD


def _batches(entries: Entries, room: int) -> Iterator[Entries]:
    """`entries` in order, in batches of at most `room` bytes."""
    start, size = 0, 0
    for i, entry in enumerate(entries):
        if size + _size(entry) > room and i > start:
            yield entries[start:i]
            start, size = i, 0
        size += _size(entry)
    if start < len(entries):
        yield entries[start:]


def _ranges(bucket: int, batches: list[Entries]) -> Iterator[LedgerInventory]:
    """One bucket in several slices, whose ranges together cover all keys."""
    after = ""
    for batch in batches:
        until = "" if batch is batches[-1] else batch[-1][0]
        yield LedgerInventory((bucket,), batch, True, True, after, until)
        after = until


def _remember(memory: dict[Path, Any], path: Path, value: object) -> None:
    """Newest last; the oldest is forgotten when there are too many."""
    memory.pop(path, None)
    if len(memory) >= PEERS_REMEMBERED:
        del memory[next(iter(memory))]
    memory[path] = value
