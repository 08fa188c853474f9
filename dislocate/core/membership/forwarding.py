"""Forwarding: what is news in one data center is told to the others.

Each relay tells every fact once to each other data center, on one of its links there; with three relays a fact crosses
three times, on different links, and what is lost all the same is repaired by digests.  A fact goes
- from the data center that it is about to all others;
- from any other data center only to those that do not reach its origin themselves (the mesh may be partial),
  never into one that it crossed, and over FORWARD_HOPS data centers at most.

Invariant: what is queued is bounded; what does not fit is dropped and counted, for repair to bring.  Suspicions and
relays' reports never leave their data center.
"""

from collections.abc import Iterator

from msgspec import Raw

from dislocate.core.balance.messages import FlowReport
from dislocate.core.catalog.messages import DrainOrder, InstanceRecord, LoadNote, Manifest
from dislocate.core.membership.messages import (
    Alive,
    Dead,
    FactsForwarded,
    Left,
    Restarting,
    Suspect,
    WanReport,
)
from dislocate.core.packing import ENVELOPE_ROOM, packed
from dislocate.core.tunables import FORWARD_HOPS, MESSAGE_BUDGET
from dislocate.core.wire import Fact, encode_fact

QUEUE_LIMIT = 20_000  # facts; about 4 MB, more than one data center says in a batch when all of it restarts
PATH_BYTES = FORWARD_HOPS * 66  # names of data centers are at most 63 bytes
_STAY_HOME = (Suspect, WanReport)


def origin_of(fact: Fact) -> str:
    """The data center that speaks in `fact`; empty when any may have (an operator forgets members from anywhere)."""
    match fact:
        case Alive():
            return fact.record.node.datacenter
        case Dead() | Left() | Restarting():
            return fact.node.datacenter
        case InstanceRecord() | Manifest() | LoadNote():
            return fact.owner.datacenter
        case FlowReport():
            return fact.relay.datacenter
        case DrainOrder():
            return fact.issuer.datacenter
        case _:
            return ""


def is_needed(origin: str, path: tuple[str, ...], target: str, target_reaches: tuple[str, ...]) -> bool:
    """Whether a fact from `origin` that crossed `path` (our own data center last) should go on to `target`."""
    if target in path or len(path) > FORWARD_HOPS:
        return False
    return origin in ("", path[-1]) or (origin != target and origin not in target_reaches)


class Forwarding:
    """What waits for the next batch."""

    def __init__(self, datacenter: str) -> None:
        self._own = datacenter
        # (origin, path) -> facts, encoded; equal facts once.
        self._waiting: dict[tuple[str, tuple[str, ...]], dict[bytes, None]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, via: tuple[str, ...], fact: Fact) -> bool:
        """Queue a fact that crossed the data centers `via`; False when the queue is full."""
        if isinstance(fact, _STAY_HOME):
            return True
        if self._count >= QUEUE_LIMIT:
            return False
        origin = origin_of(fact)
        path = (*via, self._own)
        if not via and origin not in ("", self._own):
            path = (origin, self._own)  # it came by gossip from another relay of ours, which does not say how it came
        waiting = self._waiting.setdefault((origin, path), {})
        encoded = bytes(encode_fact(fact))
        if encoded not in waiting:
            waiting[encoded] = None
            self._count += 1
        return True

    def messages_for(self, target: str, target_reaches: tuple[str, ...]) -> Iterator[FactsForwarded]:
        """What waits for `target`, in messages that fit."""
        for (origin, path), waiting in self._waiting.items():
            if is_needed(origin, path, target, target_reaches):
                for facts in packed(map(Raw, waiting), MESSAGE_BUDGET - ENVELOPE_ROOM - PATH_BYTES):
                    yield FactsForwarded(path, facts)

    def clear(self) -> None:
        self._waiting = {}
        self._count = 0
