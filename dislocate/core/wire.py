"""The wire: one envelope a datagram or message, msgpack, append-only arrays with integer tags.

An envelope has one body, said to this peer, and carries facts, said to everybody in time.  Facts stay encoded until they
are looked at: a node sends the same bytes many times and a fleet hears the same bytes many times, so both ways are
memoized (facts are frozen; nothing can change them).  Whatever cannot be understood is a `PeerError`, counted and dropped.
"""

from typing import TypeAlias

import msgspec
from msgspec import Raw, Struct

from dislocate.core.balance.messages import CallsTold, FlowReport, UsageTold
from dislocate.core.catalog.messages import (
    DrainOrder,
    InstanceRecord,
    LedgerDigest,
    LedgerInventory,
    LoadNote,
    Manifest,
    Repaired,
)
from dislocate.core.consensus.messages import Consensus
from dislocate.core.errors import PeerError
from dislocate.core.identity import NodeId, Path
from dislocate.core.membership.messages import (
    Ack,
    Alive,
    Dead,
    FactsForwarded,
    Forgotten,
    Hello,
    ItIsI,
    Left,
    LinkHeartbeat,
    Nack,
    Ping,
    PingRequest,
    RefusalCheck,
    RefusalVerdict,
    RelayedAck,
    Restarting,
    Suspect,
    WanReport,
    Welcome,
    WhoIsThere,
)
from dislocate.core.runs.messages import VisitAnswered, VisitAsked, VisitEnded, VisitOutput
from dislocate.core.store.messages import (
    Answered,
    AnsweredTogether,
    Asked,
    AskedTogether,
    AskingEnded,
    Follow,
    FollowedChanges,
    FollowedState,
    GroupAsked,
    GroupTold,
    StateTold,
    StoreGroup,
    Unfollow,
)
from dislocate.core.tunables import MESSAGE_BUDGET, PROTOCOL

FRAGMENT_SIZE = MESSAGE_BUDGET - 512  # bytes: room for the envelope around it
FRAGMENTS_LIMIT = 2_048  # of one envelope: a whole store of the largest size, and its names


class Fragment(Struct, frozen=True, array_like=True, tag=70, gc=False):
    """Part of an envelope that is larger than a message.  Links keep order, so parts follow each other."""

    number: int  # tells two envelopes apart
    part: int
    parts: int
    data: bytes


Fact: TypeAlias = (
    Alive
    | Suspect
    | Dead
    | Left
    | Restarting
    | Forgotten
    | WanReport
    | InstanceRecord
    | Manifest
    | LoadNote
    | DrainOrder
    | StoreGroup
    | FlowReport
)
Message: TypeAlias = (
    Ping
    | Ack
    | PingRequest
    | RelayedAck
    | Nack
    | RefusalCheck
    | RefusalVerdict
    | Hello
    | Welcome
    | WhoIsThere
    | ItIsI
    | LinkHeartbeat
    | FactsForwarded
    | LedgerDigest
    | LedgerInventory
    | Repaired
    | Consensus
    | Asked
    | Answered
    | AskingEnded
    | GroupAsked
    | GroupTold
    | StateTold
    | Follow
    | Unfollow
    | FollowedState
    | FollowedChanges
    | Fragment
    | AskedTogether
    | AnsweredTogether
    | VisitAsked
    | VisitOutput
    | VisitAnswered
    | VisitEnded
    | UsageTold
    | CallsTold
)


class Envelope(Struct, frozen=True, gc=False, array_like=True):
    """What one datagram or message holds."""

    version: int
    sender: NodeId
    body: Message | None = None  # None: it only carries facts
    facts: tuple[Raw, ...] = ()


class Reassembly:
    """Envelopes that arrive in fragments, one at a time from each peer."""

    def __init__(self) -> None:
        self._parts: dict[Path, list[Fragment]] = {}

    def add(self, peer: Path, fragment: Fragment) -> bytes | None:
        """The whole envelope with its last part, else None.  A part out of order ends what was there: its link ended."""
        parts = self._parts.setdefault(peer, [])
        if fragment.part == 0:
            parts.clear()
        elif not parts or (fragment.number, fragment.part) != (parts[-1].number, parts[-1].part + 1):
            self.forget(peer)
            return None
        parts.append(fragment)
        if len(parts) > FRAGMENTS_LIMIT:
            self.forget(peer)
        elif len(parts) >= fragment.parts:
            self.forget(peer)
            return b"".join(part.data for part in parts)
        return None

    def forget(self, peer: Path) -> None:
        """The link to `peer` ended."""
        self._parts.pop(peer, None)


UNREADABLE = (
    msgspec.MsgspecError,
    UnicodeDecodeError,
    RecursionError,
)  # what decoding may raise, whoever made the bytes

_encoder = msgspec.msgpack.Encoder()
_envelope_decoder = msgspec.msgpack.Decoder(Envelope)
_fact_decoder: msgspec.msgpack.Decoder[Fact] = msgspec.msgpack.Decoder(Fact)

_FACT_MEMO_LIMIT = 50_000


class FactMemo:
    """Decoded facts by their bytes, senders and words by themselves; forgets all when full.  Owned by a node, or shared by
    the nodes of one world: all are frozen, so that sharing changes nothing but memory."""

    def __init__(self) -> None:
        self._facts: dict[bytes, Fact] = {}
        self._nodes: dict[NodeId, NodeId] = {}
        self._words: dict[str, str] = {}

    def decode(self, raw: Raw | bytes, source: str) -> Fact:
        """The fact in `raw`.  Raises `PeerError` naming `source`."""
        key = bytes(raw)
        fact = self._facts.get(key)
        if fact is None:
            try:
                fact = _fact_decoder.decode(key)
            except UNREADABLE as error:
                raise PeerError(source, f"unreadable fact: {error}") from error
            if len(self._facts) >= _FACT_MEMO_LIMIT:
                self._facts.clear()
            if type(fact) is not WanReport:  # which ages, so that its bytes seldom come twice
                self._facts[key] = fact
        return fact

    def same(self, node: NodeId) -> NodeId:
        """The first of all equal to `node`: its path has been put together."""
        if len(self._nodes) >= _FACT_MEMO_LIMIT:
            self._nodes.clear()
        return self._nodes.setdefault(node, node)

    def same_words(self, words: str) -> str:
        """The first of all texts equal to `words`: in a large world most of what nodes remember is the same."""
        if len(self._words) >= _FACT_MEMO_LIMIT:
            self._words.clear()
        return self._words.setdefault(words, words)


def encode_fact(fact: Fact) -> Raw:
    """The fact as it travels inside envelopes."""
    return Raw(_encoder.encode(fact))


def encode_envelope(sender: NodeId, body: Message | None, facts: tuple[Raw, ...] = ()) -> bytes:
    """One envelope in our highest version."""
    return _encoder.encode(Envelope(PROTOCOL[1], sender, body, facts))


def decode_envelope(data: bytes, source: str) -> Envelope:
    """The envelope in `data`.  Raises `PeerError` naming `source` for anything else."""
    try:
        envelope = _envelope_decoder.decode(data)
    except UNREADABLE as error:
        raise PeerError(source, f"unreadable envelope: {error}") from error
    if envelope.version < PROTOCOL[0]:
        raise PeerError(source, f"protocol version {envelope.version}, at least {PROTOCOL[0]} is spoken here")
    return envelope


def encoded_size(value: object) -> int:
    """Bytes that `value` takes on the wire."""
    return len(_encoder.encode(value))
