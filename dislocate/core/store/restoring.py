"""Restoring: a backup that comes in parts, and what the store becomes when the last one is there.

Invariants: nothing of a restore shows, in keys or digest, before all of its parts are applied; then everything is as the
backup says, in one revision above the store's and above the backup's.  A key that differs in anything from the present one
is new: created and changed by that revision, as if it had been deleted and put.  So no fencing token of before the restore
is given out again, and whoever held a lock finds that he does not.  What has been asked stays asked: sessions are kept.

Parts are held in memory and in records, bounded by `RESTORE_BYTES`; a restore that does not go on for `RESTORE_PATIENCE`
entries is given up, and a new one takes the place of an unfinished one.
"""

from collections.abc import Mapping

from dislocate.core.boundary.requests import Refused
from dislocate.core.boundary.store import KeyValue
from dislocate.core.store.backup import Backup
from dislocate.core.store.commands import RestoreChunk
from dislocate.core.store.keys import Keys
from dislocate.core.store.records import CHUNKS, Staging, damaged
from dislocate.core.tunables import RESTORE_BYTES, RESTORE_PATIENCE

# A lease of a backup may have an id that this log has yet to reach (the backup is of another group).  It gets one that no
# log reaches, and that a JSON number still holds.
_OUT_OF_REACH = 1 << 52

_BEGIN_AGAIN = "begin the restore again"


def chunk_record_key(number: int) -> str:
    return f"{CHUNKS}{number:08x}"


def number_of_chunk(record_key: str) -> int:
    """Raises `LocalError`."""
    try:
        return int(record_key[len(CHUNKS) :], 16)
    except ValueError as error:
        raise damaged(record_key, str(error)) from error


class Restoring:
    """The parts that have come of the one restore that is under way."""

    def __init__(self) -> None:
        self.staging: Staging | None = None
        self.chunks: dict[int, bytes] = {}  # by number; they come in any order, the first one first
        self.dirty: dict[int, None] = {}  # numbers of chunks
        self._size = 0

    def add(self, part: RestoreChunk, index: int) -> bytes | Refused | None:
        """The whole, when this was all that was missing; None when more is to come."""
        if part.chunk == 0 and (self.staging is None or self.staging.restore != part.restore):
            self.give_up()
            self.staging = Staging(part.restore, part.chunks, 0, index)
        staging = self.staging
        if staging is None or staging.restore != part.restore or staging.chunks != part.chunks:
            return Refused("conflict", "restore", f"another restore came between: {_BEGIN_AGAIN}")
        if part.chunk in self.chunks:
            return None
        if self._size + len(part.data) > RESTORE_BYTES:
            return self._ended(Refused("storage", "backup", f"a backup has at most {RESTORE_BYTES >> 20} MiB"))
        self.chunks[part.chunk] = part.data
        self._size += len(part.data)
        self.dirty[part.chunk] = None
        self.staging = Staging(part.restore, part.chunks, len(self.chunks), index)
        if len(self.chunks) < part.chunks:
            return None
        whole = b"".join(self.chunks[number] for number in range(part.chunks))
        self.give_up()
        return whole

    def wait(self, index: int) -> None:
        """The log is at `index`: a restore that was left alone for too long is given up."""
        if self.staging is not None and index - self.staging.index > RESTORE_PATIENCE:
            self.give_up()

    def give_up(self) -> None:
        self.dirty.update(dict.fromkeys(self.chunks))
        self.chunks = {}
        self.staging = None
        self._size = 0

    def recover(self, staging: Staging | None, chunks: Mapping[int, bytes]) -> None:
        self.staging = staging
        self.chunks = dict(chunks)
        self._size = sum(map(len, self.chunks.values()))

    def _ended(self, refused: Refused) -> Refused:
        self.give_up()
        return refused


def restored_leases(backup: Backup, index: int) -> dict[int, tuple[int, int]]:
    """By the id in the backup: (id here, ttl); ids that entries after `index` would take are moved out of reach."""
    moved: dict[int, tuple[int, int]] = {
        lease: (lease, ttl) for lease, ttl in backup.leases if not _is_ahead(lease, index)
    }
    taken = set(moved)
    for lease, ttl in backup.leases:
        if _is_ahead(lease, index):
            new = _OUT_OF_REACH + lease
            while new in taken:
                new += 1
            taken.add(new)
            moved[lease] = (new, ttl)
    return moved


def restored_keys(
    keys: Keys, backup: Backup, leases: dict[int, tuple[int, int]], revision: int
) -> dict[str, KeyValue | None]:
    """What has to change, in the order of the names."""
    wanted = {kv.key: kv for kv in backup.keys}
    names, present = keys.copied()
    touched: dict[str, KeyValue | None] = {}
    for name in sorted({**wanted, **dict.fromkeys(names)}):
        kv = wanted.get(name)
        if kv is None:
            touched[name] = None
            continue
        lease = leases[kv.lease][0] if kv.lease else 0
        old = present.get(name)
        same = old is not None and (old.value, old.lease) == (kv.value, lease)
        if not same or old is None or (old.created, old.modified, old.version) != (kv.created, kv.modified, kv.version):
            touched[name] = KeyValue(name, kv.value, revision, revision, 1, lease)
    return touched


def _is_ahead(lease: int, index: int) -> bool:
    return index <= lease < _OUT_OF_REACH
