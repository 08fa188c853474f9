"""What a server keeps on disk about its group, and what follows from a promised set: the same on every server.

A promise is the sorted set of all servers of the list, each with its disk.  The group's uuid is a hash over it, so whoever
shows the uuid shows that everybody in the set promised it; the first entry of the log is the set as a configuration.
"""

from collections.abc import Iterable
from enum import Enum
from hashlib import blake2b
from typing import TypeVar

import msgspec

from dislocate.core.boundary.values import StoredRecord
from dislocate.core.consensus.messages import Configuration, Entry, GroupId, HardState, Part, ServerId
from dislocate.core.errors import LocalError

DISK_KEY = "raft/disk"
PROMISE_KEY = "raft/promise"
GROUP_KEY = "raft/group"
HARD_KEY = "raft/hard"
BASE_KEY = "raft/base"  # the last entry that is only in the applied state
APPLIED_KEY = "raft/applied"  # how far `store/...` is applied
DIVERGED_KEY = "raft/diverged"  # what is here of the state is wrong: it is never served again
LOG_PREFIX = "log/"
STORE_PREFIX = "store/"

# `StoredGroup.members_at` of who was let in by a message to its disk and has not seen the configuration that says so:
# no configuration that it is told of is newer, until one names it.
UNSETTLED = 1 << 62

T = TypeVar("T")


class Standing(Enum):
    """Where an agent stands towards its group."""

    OUTSIDE = "outside"  # its disk was never in it
    MEMBER = "member"
    REMOVED = "removed"  # it was; it stays out, and comes back only as another disk
    SUPERSEDED = "superseded"  # a forced recovery elsewhere went on without it; the same holds


class StoredGroup(Part, frozen=True):
    """`raft/group`: the group of this agent's life."""

    group: GroupId
    members: tuple[ServerId, ...] = ()
    members_at: int = 0
    standing: Standing = Standing.OUTSIDE
    log_epoch: int = (
        0  # of what `log/` and `store/` hold; lower than the group's: history, kept until it is let in again
    )
    log_branch: int = 0  # the same


def log_key(index: int) -> str:
    return f"{LOG_PREFIX}{index:016x}"


def is_of_store(key: str) -> bool:
    """Whether a record is the log or what was made of it, which a disk that is let in anew must not have."""
    return key in (HARD_KEY, BASE_KEY, APPLIED_KEY, DIVERGED_KEY) or key.startswith((LOG_PREFIX, STORE_PREFIX))


def uuid_of(promised: tuple[ServerId, ...]) -> bytes:
    """The 16 bytes that name the group which these servers found."""
    return blake2b("\n".join(str(server) for server in promised).encode(), digest_size=16).digest()


def first_entry(promised: tuple[ServerId, ...]) -> Entry:
    """Entry 1, in term 1 that nobody was elected in: nobody writes another one there."""
    return Entry(term=1, index=1, configuration=Configuration(voters=promised))


def founding_records(stored: StoredGroup, promised: tuple[ServerId, ...]) -> tuple[StoredRecord, ...]:
    """What makes a promiser a member, in one transaction."""
    return (
        record(GROUP_KEY, stored),
        record(HARD_KEY, HardState(term=1)),
        record(log_key(1), first_entry(promised)),
    )


def members_of(configuration: Configuration) -> tuple[ServerId, ...]:
    """Voters of both halves and learners, sorted."""
    return tuple(sorted({*configuration.voters, *configuration.outgoing, *configuration.learners}))


def next_disk(server: ServerId, stored: StoredGroup) -> int:
    """Who is out comes back as another disk: this one, the same if it is computed again after a crash."""
    text = f"{server} is out of {stored.group.uuid.hex()} {stored.group.epoch} {stored.members_at}"
    return (int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> 1) or 1


def record(key: str, value: object) -> StoredRecord:
    return StoredRecord(key, msgspec.msgpack.encode(value))


def read(records: Iterable[StoredRecord], key: str, type_: type[T]) -> T | None:
    """The record under `key`, None where there is none.  Raises `LocalError` when it cannot be read."""
    for one in records:
        if one.key == key and one.value is not None:
            try:
                return msgspec.msgpack.decode(one.value, type=type_)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise LocalError(
                    "node.state_dir",
                    got=f"record {key!r}, which cannot be read: {error}",
                    expected="what this or an older agent wrote: run the newer one again, or move state.db (and its -wal "
                    "and -shm) away and `dislocate servers add` this agent anew",
                ) from error
    return None
