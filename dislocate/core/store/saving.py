"""Saving: a store as records, all of them or those that changed, and a store from records.

Invariant: records that are stored together with what changed since, each time in one transaction, are at every moment those
of one index of the log; what is read back is checked against what the meta record says all of it adds up to, so that a
record that is missing, too many or of another time is found.  The form of a record is told in `records`.
"""

from collections.abc import Iterable, Iterator

import msgspec
from msgspec import Struct

from dislocate.core.boundary.store import KeyValue
from dislocate.core.boundary.values import StoredRecord
from dislocate.core.errors import LocalError
from dislocate.core.store import records
from dislocate.core.store.keys import Keys
from dislocate.core.store.leases import Leases
from dislocate.core.store.records import CHUNKS, KEYS, LEASES, MASK, META, SESSIONS, Meta, damaged, sealed
from dislocate.core.store.restoring import Restoring, chunk_record_key, number_of_chunk
from dislocate.core.store.sessions import Sessions


class Position(Struct, frozen=True):
    """What a store is besides its parts."""

    index: int  # applied
    revision: int
    feature_level: int


class Parts(Struct):
    """What a store consists of."""

    keys: Keys
    leases: Leases
    sessions: Sessions
    restoring: Restoring

    @property
    def digest(self) -> int:
        """64 bits over all keys and leases."""
        return (self.keys.digest + self.leases.digest) & MASK

    def forget_dirty(self) -> None:
        """The disk has it all."""
        self.keys.dirty.clear()
        self.leases.dirty.clear()
        self.sessions.dirty.clear()
        self.restoring.dirty.clear()


def changed_records(parts: Parts, position: Position) -> Iterator[StoredRecord]:
    """What is not on disk yet."""
    yield from _key_records(parts, parts.keys.dirty)
    yield from _lease_records(parts, parts.leases.dirty)
    yield sealed(META, _meta(parts, position))
    yield from _chunk_records(parts, parts.restoring.dirty)
    yield from _session_records(parts, parts.sessions.dirty)


def key_records(parts: Parts) -> Iterator[StoredRecord]:
    """All keys, in order."""
    return _key_records(parts, parts.keys.copied()[0])


def other_payloads(parts: Parts, position: Position) -> Iterator[tuple[str, bytes]]:
    """All besides keys, not sealed, in the order of the records' keys, which is after those of all keys."""
    for lease in sorted(parts.leases.living):
        yield records.lease_record_key(lease), records.lease_payload(parts.leases.living[lease].ttl)
    yield META, _meta(parts, position)
    for number, chunk in sorted(parts.restoring.chunks.items()):
        yield chunk_record_key(number), chunk
    for path, payload in parts.sessions.records(parts.sessions.paths()):
        assert payload is not None
        yield SESSIONS + path, payload


def record_keys(parts: Parts) -> Iterator[str]:
    """The key of every record that the disk has of this store now, or when what is dirty has been stored."""
    names, _ = parts.keys.copied()
    yield from (KEYS + name for name in dict.fromkeys([*names, *parts.keys.dirty]))
    yield from map(records.lease_record_key, dict.fromkeys([*parts.leases.living, *parts.leases.dirty]))
    yield META
    yield from map(chunk_record_key, dict.fromkeys([*parts.restoring.chunks, *parts.restoring.dirty]))
    yield from (SESSIONS + path for path in dict.fromkeys([*parts.sessions.paths(), *parts.sessions.dirty]))


def read_parts(stored: Iterable[StoredRecord]) -> tuple[Parts, Position]:
    """What these records are; an empty store without any.  Raises `LocalError` naming the record that is damaged."""
    read = _Read(stored)
    meta = read.meta
    parts = Parts(Keys(read.keys), Leases(read.leases), Sessions(), Restoring())
    if meta is None:
        return parts, Position(0, 0, 1)
    for kv in read.keys:
        if kv.lease and kv.lease not in parts.leases.living:
            raise damaged(KEYS + kv.key, f"lease {kv.lease}, which is not there")
        parts.leases.move(None, kv)
    try:
        parts.sessions.recover(read.sessions)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise damaged(SESSIONS, str(error)) from error
    parts.restoring.recover(meta.staging, read.chunks)
    staged = meta.staging.received if meta.staging is not None else 0
    wanted = (meta.keys, meta.leases, meta.sessions, staged, meta.digest)
    found = (len(parts.keys), len(parts.leases.living), len(parts.sessions), len(read.chunks), parts.digest)
    if found != wanted:
        raise damaged(META, f"keys, leases, sessions, chunks and digest {wanted}, where {found} were found")
    return parts, Position(meta.index, meta.revision, meta.feature_level)


class _Read:
    """Records, by what they are."""

    def __init__(self, stored: Iterable[StoredRecord]) -> None:
        self.meta: Meta | None = None
        self.keys: list[KeyValue] = []
        self.leases: list[tuple[int, int]] = []
        self.sessions: list[tuple[str, bytes]] = []
        self.chunks: dict[int, bytes] = {}
        for record in stored:
            key = record.key
            if not key.startswith(records.STORE):
                continue
            _, payload = records.opened(record)
            if key.startswith(KEYS):
                self.keys.append(records.read_key(key, payload))
            elif key.startswith(LEASES):
                self.leases.append(records.read_lease(key, payload))
            elif key.startswith(SESSIONS):
                self.sessions.append((key[len(SESSIONS) :], payload))
            elif key.startswith(CHUNKS):
                self.chunks[number_of_chunk(key)] = payload
            elif key == META:
                self.meta = records.read_meta(payload)
            else:
                raise LocalError(
                    key, got="an unknown kind of record", expected="the version of the agent that wrote it"
                )
        if self.meta is None and (self.keys or self.leases or self.sessions or self.chunks):
            raise damaged(META, "nothing")


def _key_records(parts: Parts, names: Iterable[str]) -> Iterator[StoredRecord]:
    for name in names:
        kv = parts.keys.get(name)
        if kv is None:
            yield StoredRecord(KEYS + name, None)
        else:
            yield sealed(KEYS + name, records.key_payload(kv), parts.keys.dirty.get(name))


def _lease_records(parts: Parts, ids: Iterable[int]) -> Iterator[StoredRecord]:
    for lease in ids:
        key, living = records.lease_record_key(lease), parts.leases.living.get(lease)
        yield StoredRecord(key, None) if living is None else sealed(key, records.lease_payload(living.ttl))


def _chunk_records(parts: Parts, numbers: Iterable[int]) -> Iterator[StoredRecord]:
    chunks = parts.restoring.chunks
    for number in numbers:
        key = chunk_record_key(number)
        yield sealed(key, chunks[number]) if number in chunks else StoredRecord(key, None)


def _session_records(parts: Parts, paths: Iterable[str]) -> Iterator[StoredRecord]:
    for path, payload in parts.sessions.records(paths):
        key = SESSIONS + path
        yield StoredRecord(key, None) if payload is None else sealed(key, payload)


def _meta(parts: Parts, position: Position) -> bytes:
    meta = Meta(
        records.FORMAT,
        position.index,
        position.revision,
        position.feature_level,
        parts.digest,
        len(parts.keys),
        len(parts.leases.living),
        len(parts.sessions),
        parts.restoring.staging,
    )
    return records.encode_meta(meta)
