"""state.db: one SQLite file of records, opened, checked, read, changed and checkpointed.

Invariants: a commit makes all of its changes, or none.  One that is synced (WAL, `synchronous=FULL`) makes all commits
before it durable too, since they are frames of one log in one order; a crash keeps a prefix of them.  What is read is what
was written: each record carries a CRC-32 of its key and value, because SQLite checks the form of its pages but not what is
in them (0.6 us a record, a fifth of what writing it costs; a start reads 100 MiB in half a second with it).

Errors fall in three kinds, see `commit`; what is damaged, locked or unreadable at the start is a `LocalError` with its mend.
Nothing is ever reset or deleted.  Does not know threads: one at a time uses it.
"""

import logging
import sqlite3
from pathlib import Path as FilePath
from time import monotonic
from zlib import crc32

from dislocate.core.boundary.values import StoredRecord
from dislocate.core.errors import DislocateError, LocalError
from dislocate.io.waltail import lost_commits

ROWS = 256  # in one statement, a power of two: SQLite before 3.32 takes 999 parameters
STATEMENTS = 32  # prepared and kept: those of each power of two, 150 bytes a parameter
SCHEMA_VERSION = 2  # 1: records without checksums
BUSY_TIMEOUT = 2.0  # seconds: somebody looks into the file with the sqlite3 tool
OVERFLOW = 4_092  # bytes of a value on a page of its own
IN_TREE = 489  # bytes that a value which is too large for the tree's pages keeps there, at least
LOG_LIMIT = 64 << 20  # bytes: a log that was longer is cut when it begins anew; between checkpoints it has half of it
LARGE = 64 << 20  # bytes: from here on checking may take more than a second (100 MiB: 0.1 s, 1.2 s from a cold disk)

FIELD = "node.state_dir"

log = logging.getLogger(__name__)


class StorageFull(DislocateError):
    """There is no space.  Nothing was changed; the same may succeed when there is."""


class StorageRefused(DislocateError):
    """SQLite does not do it, as when somebody else keeps the file locked.  Nothing was changed."""


class StorageBroken(DislocateError):
    """The disk failed: nobody knows what is on it (after a failed fsync the kernel forgets the error) but a new start."""


class Database:
    """An open, sound file.  Raises `LocalError` when it cannot be had."""

    def __init__(self, path: FilePath, *, kernel_ran_on: bool = False, brings_home: bool = True) -> None:
        """`kernel_ran_on`: what earlier processes wrote is as they left it, synced or not.  `brings_home`: what they left in
        the log goes home now, which may need space; else the first checkpoint does it."""
        self.path = path
        if kernel_ran_on:
            _check_log(path)
        self.connection = _open(path)
        self._is_synchronous = True
        self._tree_pages = 0.0  # about so many were logged since the last checkpoint
        self._value_pages = 0  # and so many that belong to large values alone
        self._unbrought = 0  # and so many before it
        self._pages_per_change = 1.0  # of the tree, as the last checkpoint found
        if brings_home:
            self._bring_home_found()

    def load(self) -> tuple[StoredRecord, ...]:
        """All records, in order of their keys."""
        records, damaged = [], []
        try:
            for key, value, crc in self.connection.execute("SELECT key, value, crc FROM records ORDER BY key"):
                if crc is not None and crc != checksum(key, value):
                    damaged.append(key)
                records.append(StoredRecord(key, value))
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise damage(self.path, error) from error
        if damaged:
            raise damage(self.path, f"the checksum of {len(damaged)} of {len(records)} records, first {damaged[0]!r}")
        return tuple(records)

    def claim_boot(self, unix_ms: int) -> int:
        """The number of this start, durable: above all earlier ones here, and not below the wall clock, so that a wiped
        disk does not lock the node out."""
        try:
            row = self.connection.execute("SELECT value FROM facts WHERE name = 'boot'").fetchone()
            boot = max(unix_ms, row[0] + 1 if row else 0)
            self.connection.execute("BEGIN IMMEDIATE")
            self.connection.execute("INSERT OR REPLACE INTO facts VALUES ('boot', ?)", (boot,))
            self.connection.execute("COMMIT")
        except sqlite3.Error as error:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            raise (no_space if _is_full(error) else unwritable)(self.path, error) from error
        return boot

    def commit(self, changes: dict[str, bytes | None], *, sync: bool) -> None:
        """Put and (None) delete, all or nothing; with `sync` it is durable, and all before it.

        Raises `StorageFull`, `StorageRefused`, `StorageBroken`."""
        statements = _statements(changes)
        try:
            if sync is not self._is_synchronous:
                # Takes effect only outside of a transaction; NORMAL writes to the log and leaves the fsync to others.
                self.connection.execute(f"PRAGMA synchronous = {'FULL' if sync else 'NORMAL'}")
                self._is_synchronous = sync
            if len(statements) == 1:  # a transaction by itself: each statement has to get back the interpreter lock
                self.connection.execute(*statements[0])
            elif statements:
                self.connection.execute("BEGIN IMMEDIATE")
                for statement in statements:
                    self.connection.execute(*statement)
                self.connection.execute("COMMIT")
        except (sqlite3.Error, OverflowError) as error:
            self._roll_back(error)
        self._tree_pages += 2 + len(changes) * self._pages_per_change
        self._value_pages += sum([pages_alone(value) for value in changes.values() if value is not None])

    @property
    def logged(self) -> int:
        """About how many pages a checkpoint would have to bring home."""
        return self._unbrought + self._value_pages + round(self._tree_pages)

    def checkpoint(self) -> None:
        """Bring what is in the log home into the file, as far as readers let us, so that the log begins anew.

        SQLite would do it at the end of a commit, which then waits for it, and ignore a failed fsync of the file, upon
        which the log is reused as if all were well.  Raises as `commit`."""
        try:
            _, logged, brought = self.connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except sqlite3.Error as error:
            self._logged_before(0)  # not at once again
            raise self._kind(error) from error
        if self._tree_pages:
            of_tree = logged - self._unbrought - self._value_pages
            self._pages_per_change = min(1.0, max(0.02, self._pages_per_change * of_tree / self._tree_pages))
        self._logged_before(logged - brought)

    def _logged_before(self, pages: int) -> None:
        self._unbrought, self._value_pages, self._tree_pages = pages, 0, 0.0

    def _bring_home_found(self) -> None:
        """What an earlier process left in the log, else many that are killed soon make it longer and longer."""
        try:
            self.checkpoint()
        except StorageBroken as error:
            self.close()
            raise unwritable(self.path, error) from error
        except (StorageFull, StorageRefused):
            pass  # the next one finds more to do

    def close(self) -> None:
        self.connection.close()

    def _roll_back(self, error: Exception) -> None:
        """Raises what `error` means, or worse."""
        failure = self._kind(error)
        try:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
        except sqlite3.Error as second:
            raise StorageBroken(f"{self.path}: {error}; rolling back failed too: {second}") from error
        raise failure from error

    def _kind(self, error: Exception) -> DislocateError:
        code = getattr(error, "sqlite_errorcode", 0)
        kind: type[DislocateError] = StorageRefused
        if code & 0xFF in (sqlite3.SQLITE_IOERR, *_DAMAGE):
            kind = StorageBroken
        elif _is_full(error):
            kind = StorageFull
        return kind(f"{self.path}: {error}")


_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_INDEX_SIZE = (
    sqlite3.SQLITE_IOERR | 19 << 8
)  # SQLITE_IOERR_SHMSIZE: the index of the log cannot be made as large as it is


def _is_full(error: Exception) -> bool:
    code = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF == sqlite3.SQLITE_FULL or code == _INDEX_SIZE


def checksum(key: str, value: bytes) -> int:
    return crc32(value, crc32(key.encode()))


def pages_alone(value: bytes) -> int:
    """How many pages hold nothing but a part of `value`; 0 for one that is small enough for those of the tree."""
    return -((IN_TREE - len(value)) // OVERFLOW) if len(value) > OVERFLOW // 4 else 0


def _statements(changes: dict[str, bytes | None]) -> list[tuple[str, list[object]]]:
    """Many rows a statement, and as many as a power of two, by repeating one, so that few statements need to be prepared:
    preparing 64 rows takes as long as inserting them."""
    puts = [(key, value) for key, value in changes.items() if value is not None]
    drops = [key for key, value in changes.items() if value is None]
    statements: list[tuple[str, list[object]]] = []
    for at in range(0, len(puts), ROWS):
        rows = puts[at : at + ROWS]
        parameters: list[object] = []
        for key, value in rows:
            parameters += (key, value, checksum(key, value))
        spare = _power_of_two(len(rows)) - len(rows)
        if spare:
            smallest = min(range(len(rows)), key=lambda row: len(rows[row][1])) * 3
            parameters += parameters[smallest : smallest + 3] * spare
        places = ", ".join(["(?, ?, ?)"] * (len(rows) + spare))
        statements.append((f"INSERT OR REPLACE INTO records (key, value, crc) VALUES {places}", parameters))
    for at in range(0, len(drops), ROWS):
        keys: list[object] = [*drops[at : at + ROWS]]
        keys += keys[:1] * (_power_of_two(len(keys)) - len(keys))
        statements.append((f"DELETE FROM records WHERE key IN ({', '.join('?' * len(keys))})", keys))
    return statements


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()


def _open(path: FilePath) -> sqlite3.Connection:
    try:
        path.touch(mode=0o600)
        path.chmod(0o600)  # before SQLite opens it: its log and index get the mode that the database has then
        # Used by one thread at a time: the main one before the writer's first commit, the writer's from then on.
        connection = sqlite3.connect(
            path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False, cached_statements=STATEMENTS
        )
    except (OSError, sqlite3.Error) as error:
        raise unwritable(path, error) from error
    try:
        _check(connection, path)
        _prepare(connection, path)
    except sqlite3.DatabaseError as error:
        connection.close()
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        raise (damage if code in _DAMAGE else no_space if _is_full(error) else unwritable)(path, error) from error
    except BaseException:
        connection.close()
        raise
    return connection


def _check_log(path: FilePath) -> None:
    """Before SQLite opens it, which would take a damaged place for the end, and bring home what is before it."""
    file = path.with_name(path.name + "-wal")
    try:
        with file.open("rb") as opened:
            lost = lost_commits(opened)
    except FileNotFoundError:
        return
    except OSError as error:
        raise unwritable(file, error) from error
    if lost:
        raise damage(file, f"{lost} commits are behind a damaged place" if lost > 0 else "its header")


def _check(connection: sqlite3.Connection, path: FilePath) -> None:
    size = path.stat().st_size
    if size >= LARGE:
        log.info("checking %s, %d MiB", path, size >> 20)
    began = monotonic()
    findings = [row[0] for row in connection.execute("PRAGMA quick_check(3)")]
    if findings != ["ok"]:
        raise damage(path, "; ".join(findings))
    if monotonic() - began >= 1:
        log.info("checking %s took %.1f s", path, monotonic() - began)
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise LocalError(
            FIELD,
            got=f"{path} of format {version}, written by a newer agent",
            expected=f"format {SCHEMA_VERSION} at most: run the newer agent, or name another directory",
        )


def _prepare(connection: sqlite3.Connection, path: FilePath) -> None:
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise unwritable(path, f"a file system on which SQLite has no write-ahead log, only '{mode}'")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA wal_autocheckpoint = 0")  # see `Database.checkpoint`
    connection.execute(f"PRAGMA journal_size_limit = {LOG_LIMIT}")
    connection.execute(
        "PRAGMA cache_spill = OFF"
    )  # nothing of a transaction is logged before its commit: see `waltail`
    connection.execute("PRAGMA secure_delete = FAST")  # some builds write freed pages for the sake of zeros
    if connection.execute("PRAGMA user_version").fetchone()[0] == SCHEMA_VERSION:
        return  # a start on a full disk needs no space for what is there
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("CREATE TABLE IF NOT EXISTS records (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID")
    connection.execute("CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID")
    if "crc" not in {row[1] for row in connection.execute("PRAGMA table_info(records)")}:
        connection.execute("ALTER TABLE records ADD COLUMN crc INTEGER")  # NULL: written without one
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.execute("COMMIT")


def damage(path: FilePath, reason: object) -> LocalError:
    return LocalError(
        FIELD,
        got=f"{path}, which is damaged: {reason}",
        expected=(
            "a sound file.  Move the damaged one (and its -wal and -shm) away: the agent then starts empty, takes part "
            "at once, and its services are to be registered again; a server of the store is then replaced by "
            "`dislocate servers add DC/NAME`; `sqlite3 FILE .recover` may save what was in it"
        ),
    )


class OutOfSpace(LocalError):
    """There is no space for a start.  Nothing was changed."""


def no_space(path: FilePath, reason: object) -> OutOfSpace:
    return OutOfSpace(
        FIELD,
        got=f"{path}: the disk is full ({reason})",
        expected=f"free space: make room on the disk of {path.parent} (1 MiB is enough to start), then start it again",
    )


def unwritable(path: FilePath, reason: object) -> LocalError:
    return LocalError(
        FIELD,
        got=f"{path}: {reason}",
        expected="a directory on a local disk with free space that this user may write; see its owner and mode",
    )
