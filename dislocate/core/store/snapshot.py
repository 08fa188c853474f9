"""Snapshots: all records of a store as one stream, in chunks.

The stream is every record in the order of its key: length of key (2 bytes) and of value (4), key, value.  A cutter is made
at one moment and stays true to it while the store goes on: it copies references, not values, and encodes a chunk when it
is asked for.  How many chunks there are is known from the start, since the length of a key's record follows from `size`.
Any chunk may be asked for again.
"""

from collections.abc import Iterable, Iterator, Sequence
from struct import Struct as Layout
from typing import TYPE_CHECKING

from dislocate.core.boundary.values import StoredRecord
from dislocate.core.errors import LocalError
from dislocate.core.store.keys import size_of
from dislocate.core.store.records import KEY_OVERHEAD, KEYS, LEASES, STORE, SUM_BYTES, key_payload, sealed
from dislocate.core.tunables import SNAPSHOT_CHUNK

if TYPE_CHECKING:
    from dislocate.core.store.machine import StoreMachine

_LENGTHS = Layout(">HI")
_KEY_FRAME = _LENGTHS.size + KEY_OVERHEAD  # bytes of a key's record in the stream, besides its text and value


class SnapshotCutter:
    """The store as it is now, in chunks of `size` bytes, the last one shorter; or, not `whole`, its keys and leases only."""

    def __init__(self, machine: "StoreMachine", size: int = SNAPSHOT_CHUNK, *, whole: bool = True) -> None:
        self.index = machine.index
        self.revision = machine.revision
        self._size = size
        self._names, self._values = machine.keys.copied()
        rest = machine.payloads_besides_keys()
        self._rest = [one for one in rest if whole or one[0].startswith(LEASES)]
        self._records = len(self._names) + len(self._rest)
        in_keys = machine.keys.size + len(self._names) * _KEY_FRAME
        self.length = in_keys + sum(map(self._length, range(len(self._names), self._records)))
        self._starts = [(0, 0)]  # of each chunk known so far: (record, bytes of it that belong to the chunk before)

    def __len__(self) -> int:
        return max(1, -(-self.length // self._size))

    def __iter__(self) -> Iterator[bytes]:
        for number in range(len(self)):
            yield self[number]

    def __getitem__(self, number: int, /) -> bytes:
        """Chunk `number`, from 0; no other one is encoded for it."""
        at, skip = self._start(number)
        parts: list[bytes] = []
        room = self._size
        while room and at < self._records:
            part = self._frame(at)[skip : skip + room]
            parts.append(part)
            room -= len(part)
            at, skip = at + 1, 0
        return b"".join(parts)

    def _start(self, number: int) -> tuple[int, int]:
        """Where chunk `number` begins, which follows from the records' lengths."""
        while len(self._starts) <= number:
            at, skip = self._starts[-1]
            skip += self._size
            while at < self._records and skip >= (length := self._length(at)):
                at, skip = at + 1, skip - length
            self._starts.append((at, skip))
        return self._starts[number]

    def _length(self, at: int) -> int:
        """Bytes of record `at` in the stream."""
        if at < len(self._names):
            return _KEY_FRAME + size_of(self._values[self._names[at]])
        key, payload = self._rest[at - len(self._names)]
        return _LENGTHS.size + len(key.encode()) + SUM_BYTES + len(payload)

    def _frame(self, at: int) -> bytes:
        if at >= len(self._names):
            return framed(sealed(*self._rest[at - len(self._names)]))
        kv = self._values[self._names[at]]
        return framed(sealed(KEYS + kv.key, key_payload(kv)))


def framed(record: StoredRecord) -> bytes:
    """One record in the stream."""
    key, value = record.key.encode(), record.value or b""
    return _LENGTHS.pack(len(key), len(value)) + key + value


def read_stream(data: bytes, field: str = "snapshot") -> Iterator[StoredRecord]:
    """The records in a stream.  Raises `LocalError` naming `field` when it ends early or is no stream."""
    at, end = 0, len(data)
    while at < end:
        value_at = end + 1
        if at + _LENGTHS.size <= end:
            key_length, value_length = _LENGTHS.unpack_from(data, at)
            key_at = at + _LENGTHS.size
            value_at = key_at + key_length
        if value_at > end or value_at + value_length > end:
            raise LocalError(field, got=f"{end} bytes", expected="all of it: it ends within a record, so send it again")
        try:
            key = data[key_at:value_at].decode()
        except UnicodeDecodeError as error:
            raise LocalError(
                field, got=str(error), expected="keys of UTF-8: it was damaged, so send it again"
            ) from error
        at = value_at + value_length
        yield StoredRecord(key, data[value_at:at])


def join_chunks(chunks: Iterable[bytes]) -> tuple[StoredRecord, ...]:
    """The store's records in a whole snapshot.  Raises `LocalError`."""
    return tuple(record for record in read_stream(b"".join(chunks)) if record.key.startswith(STORE))


def replacing_records(old: "StoreMachine", records: Sequence[StoredRecord]) -> tuple[StoredRecord, ...]:
    """What makes a disk that has, or is about to have, the records of `old` have those of a snapshot, as they came: to seal
    a big store's anew would take as long as to read it."""
    kept = {record.key for record in records}
    gone = [StoredRecord(key, None) for key in old.record_keys() if key not in kept]
    return (*gone, *records)
