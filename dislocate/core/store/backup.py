"""Backups: a whole store in one file, and what may be read from such a file.

The file is a first line that says what it is, a header (2 bytes of length, msgpack), the records of all keys and leases as
a snapshot's stream has them, and 16 bytes of BLAKE2b over everything before.  Sessions are not in it: what has been asked
stays asked, whatever is restored.

Does not know the group that it is restored into: `check_group` compares, and a restore that says `force` skips it.
"""

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from itertools import chain
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from dislocate.core.boundary.store import KeyValue
from dislocate.core.consensus.messages import GroupId
from dislocate.core.errors import LocalError
from dislocate.core.store.commands import RestoreChunk
from dislocate.core.store.records import KEYS, LEASES, SUM_BYTES, read_key, read_lease
from dislocate.core.store.snapshot import SnapshotCutter, read_stream
from dislocate.core.tunables import RESTORE_BYTES, SNAPSHOT_CHUNK, STORE_KEYS

if TYPE_CHECKING:
    from dislocate.core.store.machine import StoreMachine

FORMAT = 1
_FIRST_LINE = b"dislocate store backup\n"
_SUM_BYTES = 16
_CHUNK = SNAPSHOT_CHUNK - 1024  # bytes: a command around it stays below the size of one append
_EXPECTED = "a file that `dislocate store backup` of this version wrote, whole: fetch it again, or take an older one"


class BackupHeader(Struct, frozen=True, array_like=True):
    """Where a backup comes from."""

    format: int
    group: str  # UUID in hex
    epoch: int
    revision: int
    keys: int
    leases: int
    branch: int = 0


class Backup(Struct, frozen=True):
    """What a backup says."""

    header: BackupHeader
    keys: tuple[KeyValue, ...]  # in order
    leases: tuple[tuple[int, int], ...]  # (id, ttl), in order


def backup_parts(machine: "StoreMachine", group: GroupId) -> Iterator[bytes]:
    """All keys and leases of a store, as of its revision, in parts, for who has other things to do between two of them: true
    to the moment of this call."""
    header = BackupHeader(
        FORMAT,
        group.uuid.hex(),
        group.epoch,
        machine.revision,
        len(machine.keys),
        len(machine.leases),
        group.branch,
    )
    encoded = msgspec.msgpack.encode(header)
    head = _FIRST_LINE + len(encoded).to_bytes(2, "big") + encoded
    return _summed(chain((head,), SnapshotCutter(machine, whole=False)))


def _summed(parts: Iterable[bytes]) -> Iterator[bytes]:
    """The parts, and then their checksum."""
    checksum = blake2b(digest_size=_SUM_BYTES)
    for part in parts:
        checksum.update(part)
        yield part
    yield checksum.digest()


def read_header(data: bytes) -> BackupHeader:
    """Where a backup comes from, if the file is whole.  Raises `LocalError`."""
    return _checked(data)[0]


def read_backup(data: bytes) -> Backup:
    """What is in the file.  Raises `LocalError` for a file that is none, or is damaged."""
    header, stream_at = _checked(data)
    keys: list[KeyValue] = []
    leases: list[tuple[int, int]] = []
    for record in read_stream(data[stream_at:-_SUM_BYTES], "backup"):
        payload = (record.value or b"")[SUM_BYTES:]  # its own checksum says nothing that the file's has not said
        if record.key.startswith(KEYS):
            keys.append(read_key(record.key, payload))
        elif record.key.startswith(LEASES):
            leases.append(read_lease(record.key, payload))
        else:
            raise LocalError("backup", got=record.key, expected=_EXPECTED)
    if (len(keys), len(leases)) != (header.keys, header.leases):
        raise LocalError("backup", got=f"{len(keys)} keys and {len(leases)} leases", expected=_EXPECTED)
    return Backup(header, tuple(keys), tuple(leases))


def check_group(header: BackupHeader, group: GroupId) -> None:
    """Raises `LocalError` when a backup is of another group, or of another epoch of this one."""
    if header.group != group.uuid.hex():
        raise LocalError(
            "backup",
            got=f"group {header.group}",
            expected=f"a backup of group {group.uuid.hex()}; restore another with --force",
        )
    if header.epoch != group.epoch:
        raise LocalError(
            "backup",
            got=f"epoch {header.epoch}",
            expected=f"a backup of epoch {group.epoch}: a forced recovery lies between; restore it with --force",
        )
    if header.branch != group.branch:
        raise LocalError(
            "backup",
            got=f"branch {header.branch:010x}",
            expected=f"a backup of branch {group.branch:010x}: another server was recovered by force; restore it with --force",
        )


def restore_chunks(data: bytes, restore: int) -> tuple[RestoreChunk, ...]:
    """A backup as commands, the first one to be proposed first.  Raises `LocalError` for what `read_backup` would not read."""
    read_backup(data)
    chunks = -(-len(data) // _CHUNK)
    return tuple(
        RestoreChunk(restore, number, chunks, data[number * _CHUNK : (number + 1) * _CHUNK]) for number in range(chunks)
    )


def _checked(data: bytes) -> tuple[BackupHeader, int]:
    """(header, where the stream begins)."""
    if not data.startswith(_FIRST_LINE):
        raise LocalError("backup", got=f"{len(data)} bytes that begin otherwise", expected=_EXPECTED)
    if len(data) > RESTORE_BYTES:
        raise LocalError("backup", got=f"{len(data)} bytes", expected=f"a file of at most {RESTORE_BYTES} bytes")
    if blake2b(data[:-_SUM_BYTES], digest_size=_SUM_BYTES).digest() != data[-_SUM_BYTES:]:
        raise LocalError("backup", got="a wrong checksum: the file is damaged or cut off", expected=_EXPECTED)
    header_at = len(_FIRST_LINE) + 2
    stream_at = header_at + int.from_bytes(data[len(_FIRST_LINE) : header_at], "big")
    try:
        header = msgspec.msgpack.decode(data[header_at:stream_at], type=BackupHeader)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise LocalError("backup", got=str(error), expected=_EXPECTED) from error
    if header.format != FORMAT:
        raise LocalError(
            "backup", got=f"format {header.format}", expected=f"format {FORMAT}: use the version that wrote it"
        )
    if header.keys > STORE_KEYS:
        raise LocalError("backup", got=f"{header.keys} keys", expected=f"at most {STORE_KEYS} keys")
    return header, stream_at
