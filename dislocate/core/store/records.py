"""Records: the durable form of the store, the same on disk, in a snapshot and in a backup.

    store/k/KEY    a key: created, modified, version, lease (8 bytes each), then the value
    store/l/ID     a lease (16 hex digits): its ttl
    store/meta     how far the log is applied, and what all other records must add up to
    store/r/CHUNK  a part of a restore that is under way (8 hex digits)
    store/s/PATH   a session: the last askings of one agent

Each value begins with 8 bytes of BLAKE2b over the record's key and the rest, so a damaged record is named and not applied.
For keys and leases the same 64 bits are what the store's digest adds up: two stores with equal digests have equal records.
Key records have a fixed head, so that the length of a whole snapshot is known without encoding it.
"""

import struct
from hashlib import blake2b
from struct import Struct as Layout

import msgspec
from msgspec import Struct

from dislocate.core.boundary.store import KeyValue
from dislocate.core.boundary.values import StoredRecord
from dislocate.core.errors import LocalError

KEYS, LEASES, META, CHUNKS, SESSIONS = "store/k/", "store/l/", "store/meta", "store/r/", "store/s/"
STORE = "store/"  # begins all of them
FORMAT = 1
MASK = (1 << 64) - 1
SUM_BYTES = 8

_NUMBERS = Layout(">QQQQ")
_TTL = Layout(">Q")
KEY_OVERHEAD = len(KEYS) + SUM_BYTES + _NUMBERS.size  # bytes of a key's record besides its text and value

MEND = (
    "an undamaged record: stop this agent, remove its state directory and add it again (`dislocate servers add`), or, "
    "when no other server has the store, `dislocate store restore` a backup"
)


class Staging(Struct, frozen=True, array_like=True):
    """A restore that is under way."""

    restore: int
    chunks: int
    received: int  # how many
    index: int  # of the entry that brought the latest chunk


class Meta(Struct, frozen=True, array_like=True):
    """What the other records belong to and add up to."""

    format: int
    index: int  # applied
    revision: int
    feature_level: int
    digest: int
    keys: int
    leases: int
    sessions: int
    staging: Staging | None = None


def fingerprint(record_key: str, payload: bytes) -> int:
    """64 bits of a record, equal on every machine."""
    return int.from_bytes(blake2b(f"{record_key}\0".encode() + payload, digest_size=8).digest(), "big")


def key_payload(kv: KeyValue) -> bytes:
    return _NUMBERS.pack(kv.created, kv.modified, kv.version, kv.lease) + kv.value


def key_fingerprint(kv: KeyValue) -> int:
    """What a key adds to the digest."""
    head = _NUMBERS.pack(kv.created, kv.modified, kv.version, kv.lease)
    text = f"store/k/{kv.key}\0".encode()
    return int.from_bytes(blake2b(text + head + kv.value, digest_size=8).digest(), "big")


def read_key(record_key: str, payload: bytes) -> KeyValue:
    """The key in a payload that `opened` gave.  Raises `LocalError`."""
    if len(payload) < _NUMBERS.size:
        raise damaged(record_key, f"{len(payload)} bytes")
    created, modified, version, lease = _NUMBERS.unpack_from(payload)
    # A key that was changed once has one number, not two equal ones: a store of 100,000 keys is 3 MB smaller.
    return KeyValue(
        record_key[len(KEYS) :],
        payload[_NUMBERS.size :],
        created,
        created if modified == created else modified,
        version,
        lease,
    )


def lease_record_key(lease: int) -> str:
    return f"{LEASES}{lease:016x}"


def lease_payload(ttl: int) -> bytes:
    return _TTL.pack(ttl)


def lease_fingerprint(lease: int, ttl: int) -> int:
    """What a lease adds to the digest."""
    return fingerprint(lease_record_key(lease), _TTL.pack(ttl))


def read_lease(record_key: str, payload: bytes) -> tuple[int, int]:
    """(id, ttl).  Raises `LocalError`."""
    try:
        return int(record_key[len(LEASES) :], 16), _TTL.unpack(payload)[0]
    except (ValueError, struct.error) as error:
        raise damaged(record_key, str(error)) from error


def sealed(record_key: str, payload: bytes, known: int | None = None) -> StoredRecord:
    """A record with its checksum, which is its fingerprint where that is `known`."""
    found = fingerprint(record_key, payload) if known is None else known
    return StoredRecord(record_key, found.to_bytes(SUM_BYTES, "big") + payload)


def opened(record: StoredRecord) -> tuple[int, bytes]:
    """(fingerprint, payload).  Raises `LocalError` naming the record when it is damaged."""
    value = record.value
    if value is None or len(value) < SUM_BYTES:
        raise damaged(record.key, "no checksum")
    payload = value[SUM_BYTES:]
    found = fingerprint(record.key, payload)
    if found.to_bytes(SUM_BYTES, "big") != value[:SUM_BYTES]:
        raise damaged(record.key, "a wrong checksum")
    return found, payload


def damaged(record_key: str, got: object) -> LocalError:
    return LocalError(record_key, got=got, expected=MEND)


def encode_meta(meta: Meta) -> bytes:
    return msgspec.msgpack.encode(meta)


def read_meta(payload: bytes) -> Meta:
    """Raises `LocalError`, also for a format of another version."""
    try:
        meta = msgspec.msgpack.decode(payload, type=Meta)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise damaged(META, str(error)) from error
    if meta.format != FORMAT:
        raise LocalError(META, got=f"format {meta.format}", expected=f"format {FORMAT}: run the version that wrote it")
    return meta
