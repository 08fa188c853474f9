"""What agents say to each other about the store, besides what servers say in `consensus`.

`Asked` and `Answered` carry every request from the agent that was asked to a server that can answer, those of one instant
together.  `Follow` and what
follows it keep a prefix current on an agent that is no server.
"""

from typing import TypeAlias

from msgspec import Struct

from dislocate.core.boundary.requests import Done, Refused
from dislocate.core.boundary.store import KeyChange, KeyValue, StoreRequest, StoreResult
from dislocate.core.consensus.messages import GroupId, ServerId
from dislocate.core.identity import NodeId, Path
from dislocate.core.store.commands import RestoreChunk


class Part(Struct, frozen=True, array_like=True):
    """A message, or part of one."""


class StoreGroup(Part, frozen=True, tag=12):
    """A fact, gossiped everywhere: which group keeps the store, and who its servers are as of `index` of its log.  The
    higher (epoch, index) wins; another uuid is another store, and not listened to."""

    group: GroupId
    index: int
    members: tuple[ServerId, ...]  # voters, of both sides of a change, and learners; sorted


class BackupPart(Part, frozen=True, tag=104, gc=False):
    """A slice of the whole store; part 0 makes a new copy, whatever `copy` says.  -> BackupSlice."""

    copy: int
    part: int


class BackupSlice(Part, frozen=True, tag=104):
    """Slice `part` of a copy; `last`: that was all of it."""

    copy: int
    part: int
    last: bool
    data: bytes
    revision: int  # as of which the copy is


StoreAsk: TypeAlias = StoreRequest | RestoreChunk | BackupPart


class Asked(Part, frozen=True, tag=61):
    """Do this for me; sent again, with the same `seq`, when nobody answered."""

    seq: int  # of the asker's start, from 1
    floor: int  # what is below has been answered
    request: StoreAsk
    asker: NodeId | None = None  # set by a server that passes it on; None: the sender


class Answered(Part, frozen=True, tag=62):
    """The answer to `Asked(seq)`, or (`result` None) where to ask instead."""

    seq: int
    result: StoreResult | BackupSlice | Done | Refused | None
    leader: Path | None = None
    reason: str = ""  # why there is no result
    doubt: bool = False  # it may have been done all the same
    asker: NodeId | None = None  # whose asking it was, when it was passed on
    elsewhere: bool = False  # it will not help here for a while: ask another server
    unlogged: bool = False  # this refusal never saw the log: it says nothing of the same asking sent before


class AskedTogether(Part, frozen=True, tag=72):
    """Several `Asked`, in order."""

    asked: tuple[Asked, ...]


class AnsweredTogether(Part, frozen=True, tag=73):
    """Several `Answered`, in order."""

    answered: tuple[Answered, ...]


class AskingEnded(Part, frozen=True, tag=63, gc=False):
    """Nobody waits for the answer any more."""

    seq: int
    asker: NodeId | None = None


class GroupAsked(Part, frozen=True, tag=64):
    """Which group do you know, and what have you promised?  With the same of the asker, where it is to be a server."""

    disk: int  # of the asker; 0: not durable yet
    servers: tuple[Path, ...]  # its configured list
    promised: tuple[ServerId, ...]  # the one set that it promised, durably
    group: GroupId | None = None  # that it belongs to


class GroupTold(Part, frozen=True, tag=65):
    """The answer to `GroupAsked`; also sent when something changed."""

    group: GroupId | None  # that this agent belongs to
    disk: int
    servers: tuple[Path, ...]
    promised: tuple[ServerId, ...]
    leader: Path | None = None
    members: tuple[ServerId, ...] = ()  # voters and learners, as last heard of; only what was committed
    members_at: int = 0  # index in the log at which they became so: the newer one holds
    level: int = 1  # the highest feature level that this agent speaks


class StateTold(Part, frozen=True, tag=71, gc=False):
    """After entry `index` my state has this digest; `agreed`: a majority's has.  The answer to a leader's is one's own."""

    group: GroupId
    index: int
    digest: int
    agreed: bool = False


class Follow(Part, frozen=True, tag=66):
    """Tell me what happens below `prefix` after `revision`; 0: tell me all of it first."""

    group: GroupId
    prefix: str
    revision: int


class Unfollow(Part, frozen=True, tag=67):
    prefix: str


class FollowedState(Part, frozen=True, tag=68):
    """Everything below `prefix` as of `revision`, in parts; `first` begins anew, `last` makes it whole."""

    prefix: str
    revision: int
    keys: tuple[KeyValue, ...]
    first: bool
    last: bool
    age: int  # nanoseconds that the sender may be behind the leader


class FollowedChanges(Part, frozen=True, tag=69):
    """What changed below `prefix` after `since` up to `revision`; without changes, that there were none."""

    prefix: str
    since: int
    revision: int
    changes: tuple[KeyChange, ...]
    age: int
    leader: Path | None = None  # of the store, as the sender knows
