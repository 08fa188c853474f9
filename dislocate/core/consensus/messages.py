"""What servers say to each other, what they keep on disk, and who they are.

A server is a path with a disk: a wiped disk is another server (etcd#12359: a member that forgot its vote under its old
name votes twice).  The group's id is on every message; whoever belongs to another is not listened to.
"""

from typing import TypeAlias

from msgspec import Struct

from dislocate.core.identity import Path


class Part(Struct, frozen=True, array_like=True):
    """Part of a message, or kept on disk."""


class ServerId(Part, frozen=True, order=True, gc=False):
    """One disk of one agent, for life."""

    path: Path
    disk: int  # 63 random bits, drawn when the disk is first used

    def __str__(self) -> str:
        return f"{self.path}@{self.disk:016x}"


class GroupId(Part, frozen=True, gc=False):
    """Which log this is.  A forced recovery keeps the uuid and raises the epoch; a lower epoch is history.  Two servers that
    were recovered from one epoch, each without the other, are two branches: neither listens to the other."""

    uuid: bytes  # 16 bytes: hash of the set of servers that promised each other to found it
    epoch: int = 0
    branch: int = (
        0  # which server was recovered, and from where: a hash of 39 bits; 0: none was, or by an older version
    )

    def splits_from(self, other: "GroupId") -> bool:
        """Whether both come from one group and neither is the other's history."""
        return (self.uuid, self.epoch) == (other.uuid, other.epoch) and self.branch != other.branch


class Configuration(Part, frozen=True):
    """Who votes.  Joint while `outgoing` is not empty: then both sets must agree (Raft thesis, 4.3)."""

    voters: tuple[ServerId, ...]  # sorted
    outgoing: tuple[ServerId, ...] = ()  # the voters before, sorted
    learners: tuple[ServerId, ...] = ()  # get the log and do not vote; sorted


class Entry(Part, frozen=True, gc=False):
    """One entry of the log."""

    term: int
    index: int
    data: bytes = b""  # a command of the store; empty: nothing, by which a new leader commits what it found
    configuration: Configuration | None = None  # instead of data


class HardState(Part, frozen=True, gc=False):
    """What must be durable before a vote leaves."""

    term: int
    voted_for: ServerId | None = None


# ---- the messages; each is wrapped in `Consensus`


class VoteAsked(Part, frozen=True, tag=1, gc=False):
    """May I lead?  `pre`: would you say yes, were I to ask (PreVote: asking disturbs nobody)."""

    last_index: int
    last_term: int
    pre: bool
    transferred: bool = False  # the leader itself asked for this election: its lease does not speak against it


class VoteGiven(Part, frozen=True, tag=2, gc=False):
    granted: bool
    pre: bool
    disk_full: bool = False  # why a promise of a vote was refused: nothing can be made durable here for the moment


class Append(Part, frozen=True, tag=3):
    """Entries after (prev_index, prev_term); without any, a heartbeat."""

    prev_index: int
    prev_term: int
    entries: tuple[Entry, ...]
    commit: int
    round: int  # grows with each message of this leader: answers echo it, which confirms leadership and measures RTT
    largest_rtt: int = 0  # nanoseconds, among the voters, as the leader measured: silence is judged by it
    age: int = 0  # nanoseconds since this leader last knew for sure that it led, and had all that was committed
    echo: int = (
        0  # the last round that the receiver answered: this was said after that answer, however long it was on its way
    )


class Appended(Part, frozen=True, tag=4, gc=False):
    """`accepted`: the log agrees up to `index`, durably.  Else: look again at `index`, where the term here is `term_there`."""

    accepted: bool
    index: int
    term_there: int
    round: int
    quorum_rtt: int = 0  # nanoseconds that this server would need for a majority: is it placed better than the leader?
    has_looked: bool = False  # what it refused its log does not have; it is not that a snapshot is being installed


class SnapshotChunk(Part, frozen=True, tag=5):
    """Part of a snapshot, for who is behind the compacted log."""

    index: int
    entry_term: int
    configuration: Configuration
    digest: int  # of the log up to `index`, see `EntriesApplied`
    chunk: int  # number of this chunk, from 0
    chunks: int
    data: bytes
    round: int


class SnapshotReceived(Part, frozen=True, tag=6, gc=False):
    """Chunks before `next_chunk` of the snapshot at `index` are here; `next_chunk` == chunks: it is installed, durably."""

    index: int
    next_chunk: int
    round: int


class LeadNow(Part, frozen=True, tag=7, gc=False):
    """The leader hands over: ask for votes at once (thesis, 3.10)."""


class DiskForgot(Part, frozen=True, tag=8, gc=False):
    """You acknowledged the entry at `index`, and do not have it any more: your disk is an older copy of itself.  Said only to
    who said `has_looked`: older servers do not know it."""

    index: int
    entry_term: int  # 0: not known any more


RaftMessage: TypeAlias = (
    VoteAsked | VoteGiven | Append | Appended | SnapshotChunk | SnapshotReceived | LeadNow | DiskForgot
)


class Consensus(Part, frozen=True, tag=60):
    """A message from one server to another."""

    group: GroupId
    origin: ServerId
    to: ServerId
    term: int
    body: RaftMessage
