"""One host's disk: an ordered log of transactions, of which a crash keeps a prefix.

Invariant: answered and synced survives everything but `wipe` and `go_back`; answered and not synced survives the death of
the process and not that of the host, unless the kernel had the time to write it back; what was not answered may or may not
be there, but never without what was written before it.
(SQLite in WAL mode promises exactly that: a later sync makes all earlier transactions durable.)  Once a write has failed
all later ones of that process fail too, as in `io.disk`, even when the disk is mended.  A full disk is another matter: it
refuses what is written while it is full, keeps and reads what it has, and takes writes again as soon as there is room.

Does not know time: `submit` says how long it takes, the world answers the node then.
"""

from msgspec import Struct

from dislocate.core.boundary.effects import Store
from dislocate.core.boundary.values import StoredRecord
from dislocate.core.streams import Stream
from dislocate.core.units import MICROSECOND, SECOND

SYNC = 2_000 * MICROSECOND  # an fsync on a server's SSD takes 0.5 to 5 ms
WRITTEN_BACK = 30 * SECOND  # Linux's vm.dirty_expire_centisecs
WRITE = 100 * MICROSECOND  # into the page cache, by another thread
FAILS = "the disk fails"
FULL = "full: no space is left on the device"  # an agent tells the two apart by the first word
SHARED_LIMIT = 50_000  # records; all are forgotten when there are more


class Write(Struct, eq=False):
    """One transaction on its way."""

    records: tuple[StoredRecord, ...]
    sync: bool
    at: int
    answered: bool = False


class SharedRecords:
    """Equal records, kept once for all disks of a world: what agents remember of each other is the same on each."""

    def __init__(self) -> None:
        self._records: dict[StoredRecord, StoredRecord] = {}

    def same(self, record: StoredRecord) -> StoredRecord:
        """The first of all equal to `record`."""
        if len(self._records) >= SHARED_LIMIT:
            self._records.clear()
        return self._records.setdefault(record, record)


class Disk:
    """The records of one host, and the boot number of its agent's last start."""

    def __init__(self, stream: Stream, shared: SharedRecords | None = None) -> None:
        self._stream = stream
        self._shared = shared or SharedRecords()
        self._kept: dict[str, bytes] = {}  # durable
        self._log: list[Write] = []  # not durable yet, in order
        self._free_at = 0
        self.boot = 0
        self.is_failing = False
        self.is_full = False
        self.is_damaged = False  # noticed at the next start, which fails until the disk is replaced
        self.factor = 1.0  # how many times slower than a good one
        self.stalled_until = 0  # the device answers nothing before
        self._is_distrusted = False  # a write failed since the last start: the agent writes no more, see `io.disk`
        self.generation = 1  # how many disks this host has had
        self._copied: tuple[int, dict[str, bytes]] | None = None  # what it had when it was copied: boot and records
        self.went_back = False  # it is an older copy of itself
        self._lost: list[dict[str, bytes]] = []  # what each disk before this one had

    def submit(self, store: Store, now: int) -> tuple[Write, int]:
        """Begin a transaction; returns it and when it will be over."""
        takes = (SYNC if store.sync else WRITE) * self._stream.between(512, 2048) // 1024
        if self.factor != 1.0:
            takes = int(takes * self.factor)
        self._free_at = max(self._free_at, now) + takes
        self._write_back(now)
        write = Write(tuple(map(self._shared.same, store.records)), store.sync, now)
        self._log.append(write)
        return write, self._free_at

    def complete(self, write: Write) -> str:
        """Its time is over: empty when it was made, else why nothing of it was."""
        if self.is_failing or self._is_distrusted:
            self._is_distrusted = True
            self._log.remove(write)
            return FAILS
        if self.is_full:
            self._log.remove(write)
            return FULL
        write.answered = True
        if write.sync:
            self._keep(self._log.index(write) + 1)
        return ""

    def process_died(self) -> None:
        """What the kernel had is kept; what had not been handed over is torn off somewhere."""
        answered = sum(write.answered for write in self._log)
        self._tear(answered)

    def power_lost(self) -> None:
        """What was synced is kept, and perhaps more."""
        self._tear(0)

    def wipe(self) -> None:
        """A new disk: nothing is kept, not even the boot number."""
        self._lost.append(self._kept)
        self._kept = {}
        self._log.clear()
        self.boot = 0
        self.generation += 1
        self.is_damaged = self.went_back = False

    def copy(self) -> None:
        """Somebody copies what is on it: a snapshot of the host, or of the file."""
        records = dict(self._kept)
        for write in self._log:
            if write.answered:
                _apply(write, records)
        self._copied = self.boot, records

    def go_back(self) -> None:
        """The copy takes the place of what is there, which ran on since."""
        if self._copied is not None:
            self.boot, records = self._copied
            self._kept = dict(records)
            self._log.clear()
            self.went_back = True

    def durable(self, key: str) -> bytes | None:
        """What is under `key` whatever happens now, short of `wipe`."""
        return self._kept.get(key)

    def durable_before(self, key: str) -> tuple[bytes, ...]:
        """What was under `key` on each disk before this one when that was lost."""
        return tuple(kept[key] for kept in self._lost if key in kept)

    def records(self) -> tuple[StoredRecord, ...]:
        """What a start finds, by key."""
        return tuple(StoredRecord(key, self._kept[key]) for key in sorted(self._kept))

    def _write_back(self, now: int) -> None:
        """What was answered long ago is durable, and no more in the log."""
        count = 0
        while count < len(self._log) and self._log[count].answered and now - self._log[count].at > WRITTEN_BACK:
            count += 1
        self._keep(count)

    def _tear(self, at_least: int) -> None:
        count = at_least + self._stream.below(len(self._log) - at_least + 1)
        if self.is_failing or self.is_full or self._is_distrusted:
            count = at_least
        self._is_distrusted = False
        self._keep(count)
        self._log.clear()

    def _keep(self, count: int) -> None:
        for write in self._log[:count]:
            _apply(write, self._kept)
        del self._log[:count]


def _apply(write: Write, records: dict[str, bytes]) -> None:
    for record in write.records:
        if record.value is None:
            records.pop(record.key, None)
        else:
            records[record.key] = record.value
