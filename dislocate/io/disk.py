"""The node's own durable state: one SQLite file, one writer thread, group commit.

Invariant: `Stored` follows the commit, in the order of `Store`; with `sync` the commit has been fsynced (WAL,
`synchronous=FULL`), without it survives the death of the process but perhaps not a power cut.  Everything that waits
while one commit runs goes into the next, so a hundred registrations cost a few fsyncs.  A batch fails as a whole.  After
a failed fsync nobody knows what is on the disk (the kernel forgets the error): all later stores fail too, until a restart
reads what is really there.

Whatever is found damaged, locked or unreadable at the start is reported with its mend.  Nothing is ever reset or deleted.
"""

import errno
import fcntl
import logging
import os
import sqlite3
from collections import deque
from collections.abc import Callable
from pathlib import Path as FilePath

import gevent
from gevent import monkey
from gevent.event import Event
from gevent.threadpool import ThreadPool

from dislocate.core.boundary.effects import Store
from dislocate.core.boundary.inputs import Stored, StoreFailed
from dislocate.core.boundary.values import StoredRecord
from dislocate.core.errors import LocalError

BATCH_LIMIT = 256  # stores in one commit: bounds how long the first of them waits for the last
PATIENCE = 0.005  # seconds after which a commit is late: CPython's switch interval
REST = 0.0001  # seconds: long enough for another thread to wake
ROWS = 400  # in one statement: SQLite before 3.32 takes 999 parameters
SCHEMA_VERSION = 1
BUSY_TIMEOUT = 2.0  # seconds: somebody looks into the file with the sqlite3 tool

_sleep_with_hub = monkey.get_original("time", "sleep")

_FIELD = "node.state_dir"

log = logging.getLogger(__name__)


class Disk:
    """The state directory of one agent, held alone from `__init__` to `close`.  Raises `LocalError` when it cannot be."""

    def __init__(self, state_dir: FilePath) -> None:
        self.commits = 0
        self.stores = 0
        self._path = state_dir / "state.db"
        self._lock = _lock(state_dir)
        try:
            self._database = _open_database(self._path)
        except BaseException:
            os.close(self._lock)
            raise
        self._waiting: deque[tuple[Store, Callable[[Stored | StoreFailed], object]]] = deque()
        self._more = Event()
        self._idle = Event()
        self._idle.set()
        self._broken = ""  # why nothing can be stored any more
        self._pool = ThreadPool(1)
        self.writer = gevent.spawn(self._write)

    # ---- at the start: these block, and nobody else runs yet

    def load(self) -> tuple[StoredRecord, ...]:
        """All records, in order of their keys."""
        try:
            rows = self._database.execute("SELECT key, value FROM records ORDER BY key").fetchall()
        except sqlite3.Error as error:
            raise _damaged(self._path, error) from error
        return tuple(StoredRecord(key, value) for key, value in rows)

    def claim_boot(self, unix_ms: int) -> int:
        """The number of this start, durable: above all earlier ones here, and not below the wall clock, so that a wiped
        disk does not lock the node out."""
        try:
            row = self._database.execute("SELECT value FROM facts WHERE name = 'boot'").fetchone()
            boot = max(unix_ms, row[0] + 1 if row else 0)
            self._database.execute("BEGIN IMMEDIATE")
            self._database.execute("INSERT OR REPLACE INTO facts VALUES ('boot', ?)", (boot,))
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            raise _unwritable(self._path, error) from error
        return boot

    # ---- while running

    def store(self, store: Store, answer: Callable[[Stored | StoreFailed], object]) -> None:
        """Make it durable and call `answer` on the hub.  Returns at once."""
        self._waiting.append((store, answer))
        self._idle.clear()
        self._more.set()

    def flush(self, timeout: float) -> bool:
        """Wait until everything is answered; False when it took longer than `timeout` seconds."""
        return self._idle.wait(timeout)

    def close(self) -> None:
        """Commit what waits, and let go of the directory."""
        self.flush(10.0)
        self.writer.kill()
        self._pool.spawn(self._database.close).get()
        self._pool.kill()
        os.close(self._lock)

    def _write(self) -> None:
        while True:
            self._more.wait()
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), BATCH_LIMIT))]
            failure = self._broken or self._in_thread([store for store, _ in batch])
            for store, answer in batch:
                answer(StoreFailed(store.seq, failure) if failure else Stored(store.seq))
            if not self._waiting:
                self._more.clear()
                self._idle.set()

    def _in_thread(self, stores: list[Store]) -> str:
        """Commit while the hub runs on.  A hub that never rests gives the interpreter lock away only to take it back before
        the writer wakes (28 s were seen for a commit of 0.1 s), so it is made to rest, shortly, while one is late."""
        commit = self._pool.spawn(self._commit, stores)
        while not commit.ready():
            commit.wait(PATIENCE)
            if not commit.ready():
                _sleep_with_hub(REST)
        return commit.get()

    def _commit(self, stores: list[Store]) -> str:
        """In the writer thread: all of `stores`, or none and the reason."""
        database = self._database
        changes = {record.key: record.value for store in stores for record in store.records}
        try:
            # Takes effect only outside of a transaction; NORMAL writes to the WAL and leaves the fsync to the checkpoint.
            database.execute(f"PRAGMA synchronous = {'FULL' if any(s.sync for s in stores) else 'NORMAL'}")
            database.execute("BEGIN IMMEDIATE")
            _apply(database, changes)
            database.execute("COMMIT")
        except (sqlite3.Error, OverflowError) as error:
            return self._roll_back(error)
        self.commits += 1
        self.stores += len(stores)
        return ""

    def _roll_back(self, error: Exception) -> str:
        reason = f"{self._path}: {error}"
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_IOERR:
            self._broken = f"{reason}; nothing is stored any more until the agent is restarted"
            log.critical("the disk failed: %s", self._broken)
        try:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
        except sqlite3.Error as second:
            self._broken = f"{reason}; rolling back failed too: {second}"
            log.critical("the disk failed: %s", self._broken)
        return self._broken or reason


def _apply(database: sqlite3.Connection, changes: dict[str, bytes | None]) -> None:
    """Many rows a statement: each one gives up the interpreter lock and has to get it back."""
    puts = [item for item in changes.items() if item[1] is not None]
    drops = [key for key, value in changes.items() if value is None]
    for at in range(0, len(puts), ROWS):
        rows = puts[at : at + ROWS]
        values = ", ".join(["(?, ?)"] * len(rows))
        database.execute(f"INSERT OR REPLACE INTO records VALUES {values}", [part for row in rows for part in row])
    for at in range(0, len(drops), ROWS):
        keys = drops[at : at + ROWS]
        database.execute(f"DELETE FROM records WHERE key IN ({', '.join('?' * len(keys))})", keys)


def _lock(state_dir: FilePath) -> int:
    """Hold the directory against a second agent; the kernel lets go when the process ends, however it ends."""
    path = state_dir / "agent.lock"
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise _unwritable(state_dir, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise _unwritable(state_dir, error) from error
        raise LocalError(
            _FIELD,
            got=f"{state_dir}, which another agent uses (process {holder})",
            expected="a directory of its own for each agent; stop the other one or name another directory",
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return descriptor


def _open_database(path: FilePath) -> sqlite3.Connection:
    try:
        path.touch(mode=0o600)
        path.chmod(0o600)  # before SQLite opens it: its log and index get the mode that the database has then
        # Used by one thread at a time: the main one before the writer's first commit, the writer's from then on.
        database = sqlite3.connect(path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
    except (OSError, sqlite3.Error) as error:
        raise _unwritable(path, error) from error
    try:
        _prepare(database, path)
    except sqlite3.DatabaseError as error:
        database.close()
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        raise (_damaged if code in _DAMAGE else _unwritable)(path, error) from error
    except BaseException:
        database.close()
        raise
    return database


_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _prepare(database: sqlite3.Connection, path: FilePath) -> None:
    findings = [row[0] for row in database.execute("PRAGMA quick_check(3)")]
    if findings != ["ok"]:
        raise _damaged(path, "; ".join(findings))
    version = database.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise LocalError(
            _FIELD,
            got=f"{path} of format {version}, written by a newer agent",
            expected=f"format {SCHEMA_VERSION} at most: run the newer agent, or name another directory",
        )
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("BEGIN IMMEDIATE")
    database.execute("CREATE TABLE IF NOT EXISTS records (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID")
    database.execute("CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID")
    database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    database.execute("COMMIT")


def _damaged(path: FilePath, reason: object) -> LocalError:
    return LocalError(
        _FIELD,
        got=f"{path}, which is damaged: {reason}",
        expected=(
            "a sound file.  Move the damaged one (and its -wal and -shm) away: the agent then starts empty, takes part "
            "at once, and its services are to be registered again; `sqlite3 FILE .recover` may save what was in it"
        ),
    )


def _unwritable(path: FilePath, reason: object) -> LocalError:
    return LocalError(
        _FIELD,
        got=f"{path}: {reason}",
        expected="a directory on a local disk with free space that this user may write; see its owner and mode",
    )
