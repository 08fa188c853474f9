"""What a server keeps on disk besides the applied state: term and vote, and the log.  (`promises` keeps who it is.)

    raft/hard           term and vote: `HardState`
    raft/base           the last entry that is only in the applied state: `Base`
    raft/applied        how far `store/...` is applied: `Applied`
    log/<index, hex>    one `Entry` each

All of it is written in order, in transactions of which a crash keeps a prefix (`io.disk`).  Invariant: every index from
base to the end of the log is there, and the applied state lies between.  A gap is damage, told with its mend.
"""

from collections.abc import Iterable
from typing import TypeVar

import msgspec
from msgspec import Struct

from dislocate.core.boundary.values import StoredRecord
from dislocate.core.consensus.duties import Save
from dislocate.core.consensus.messages import Configuration, Entry, HardState
from dislocate.core.consensus.promises import APPLIED_KEY as APPLIED
from dislocate.core.consensus.promises import BASE_KEY as BASE
from dislocate.core.consensus.promises import HARD_KEY as HARD
from dislocate.core.consensus.promises import LOG_PREFIX as LOG
from dislocate.core.consensus.promises import STORE_PREFIX as STATE
from dislocate.core.consensus.promises import is_of_store, log_key
from dislocate.core.errors import LocalError

T = TypeVar("T")

_encode = msgspec.msgpack.Encoder().encode


class Base(Struct, frozen=True, array_like=True):
    """Where the log begins: entries up to `index` are gone."""

    index: int
    term: int
    configuration: Configuration


NO_BASE = Base(0, 0, Configuration(()))


class AppliedUpTo(Struct, frozen=True, array_like=True):
    """How far the saved state goes."""

    index: int
    term: int
    digest: int  # chained over all entries ever applied
    unix: int = 0  # wall time, nanoseconds, at which that was known to be all there was; 0: not known


class Found(Struct, frozen=True, kw_only=True):
    """What one start found of a server's part."""

    base: Base
    hard: HardState
    applied: AppliedUpTo
    entries: tuple[Entry, ...]
    state: tuple[StoredRecord, ...]

    @classmethod
    def of_founding(cls, configuration: Configuration) -> "Found":
        """A log with entry 1, the same on every server that founded the group."""
        return cls(
            base=NO_BASE,
            hard=HardState(1),
            applied=AppliedUpTo(0, 0, 0),
            entries=(Entry(1, 1, configuration=configuration),),
            state=(),
        )


def hard_record(hard: HardState) -> StoredRecord:
    return StoredRecord(HARD, _encode(hard))


def base_record(base: Base) -> StoredRecord:
    return StoredRecord(BASE, _encode(base))


def applied_record(applied: AppliedUpTo) -> StoredRecord:
    return StoredRecord(APPLIED, _encode(applied))


def records_of(save: Save) -> dict[str, bytes | None]:
    """What a save changes, by key."""
    changes: dict[str, bytes | None] = {}
    if save.hard is not None:
        changes[HARD] = _encode(save.hard)
    if save.drop_from:
        changes |= {log_key(index): None for index in range(save.drop_from, save.drop_to + 1)}
    changes |= {log_key(entry.index): _encode(entry) for entry in save.entries}
    return changes


def find(records: Iterable[StoredRecord]) -> Found | None:
    """A server's part of the disk; None where nothing was written yet.  Raises `LocalError` for what is damaged."""
    texts = {record.key: record.value for record in records if record.value is not None and is_of_store(record.key)}
    if not texts:
        return None
    base = _decoded(texts, BASE, Base) if BASE in texts else NO_BASE
    hard = _decoded(texts, HARD, HardState) if HARD in texts else HardState(0)
    applied = _decoded(texts, APPLIED, AppliedUpTo) if APPLIED in texts else AppliedUpTo(base.index, base.term, 0)
    keys = sorted(key for key in texts if key.startswith(LOG))
    entries = tuple(_decoded(texts, key, Entry) for key in keys)
    for expected, entry in enumerate(entries, base.index + 1):
        if entry.index != expected:
            raise _damaged(log_key(expected), f"is missing: {log_key(entry.index)} follows")
    last = entries[-1].index if entries else base.index
    if not base.index <= applied.index <= last:
        raise _damaged(APPLIED, f"is {applied.index}, the log has {base.index} to {last}")
    state = tuple(StoredRecord(key, value) for key, value in texts.items() if key.startswith(STATE))
    return Found(base=base, hard=hard, applied=applied, entries=entries, state=state)


def _decoded(texts: dict[str, bytes], key: str, kind: type[T]) -> T:
    try:
        return msgspec.msgpack.decode(texts[key], type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _damaged(key, f"cannot be read: {error}") from error


def _damaged(key: str, what: str) -> LocalError:
    return LocalError(
        "node.state_dir",
        got=f"a store whose record {key} {what}",
        expected=(
            "a sound disk.  Move state.db (and its -wal and -shm) away and start: the agent is a new server then, which "
            "`dislocate servers add DC/NAME` puts in the place of the old one"
        ),
    )
