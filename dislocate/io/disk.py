"""The node's own durable state: one database, one writer thread, group commit.

Invariant: `Stored` follows the commit, in the order of `Store`; with `sync` the commit has been fsynced, and with it all
before it; without it survives the death of the process but perhaps not a power cut.  Everything that waits while one commit
runs goes into the next, so a hundred registrations cost a few fsyncs.  A batch fails as a whole, and with it all that was
asked for before its failure was heard: nothing is ever kept that was asked for after something that was not.

A full disk fails what is stored ('full: ...') and nothing else: the next store is tried, and succeeds once there is space.
An agent starts on a full disk too, by space that was kept for it (`reserve`).  Any other failure of the disk ends storing
until a restart reads what is really there.

The thread takes work and leaves answers in two queues; a lock wakes it, `loop.async_` wakes the hub.  Does not know time.
"""

import errno
import fcntl
import logging
import os
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path as FilePath
from time import monotonic
from typing import Any, TypeAlias

import gevent
from gevent import monkey
from gevent.event import AsyncResult, Event

from dislocate.core.boundary.effects import Store
from dislocate.core.boundary.inputs import Stored, StoreFailed
from dislocate.core.boundary.values import StoredRecord
from dislocate.core.errors import DislocateError, LocalError
from dislocate.io.database import (
    FIELD,
    Database,
    OutOfSpace,
    StorageBroken,
    StorageFull,
    StorageRefused,
    no_space,
    unwritable,
)
from dislocate.io.reserve import Reserve

BATCH_LIMIT = 256  # stores in one commit: bounds how long the first of them waits for the last
CHECKPOINT = 4_000  # pages of 4 KiB in the log: 20 ms to bring home when nothing waits.  SQLite's 1,000 bring home the
# same pages more often, which took 5 % of a busy server's writes
CHECKPOINT_AT_ONCE = 8_000  # even if something waits: looking through them at a start after a kill takes a second
PATIENCE = 0.001  # seconds after which a commit is late; on an SSD and a hub that rests it takes 0.2 to 0.5 ms
REST = 0.0001  # seconds: long enough for another thread to wake
SELDOM = 0.004  # seconds between two rests, for a hub that is as busy as that
RESERVE_PERIOD = 10.0  # seconds between two looks at whether the reserve is whole
CLOSING = 10.0  # seconds for what waits to be stored at the end

# The writer is a thread of the system, whatever gevent makes of `threading`.
_start_thread = monkey.get_original("_thread", "start_new_thread")
_allocate_lock = monkey.get_original("_thread", "allocate_lock")
_sleep_with_hub = monkey.get_original("time", "sleep")

Answer: TypeAlias = Callable[[Stored | StoreFailed], object]
Batch: TypeAlias = list[tuple[Store, Answer]]

log = logging.getLogger(__name__)


class Disk:
    """The state directory of one agent, held alone from `__init__` to `close`.  Raises `LocalError` when it cannot be."""

    def __init__(self, state_dir: FilePath) -> None:
        self.commits = 0
        self.stores = 0
        self.awaits_hearing = False  # somebody will `hear` of each failure; else its answer is its hearing
        self._path = state_dir / "state.db"
        self._reserve = Reserve(state_dir)
        self._reserve_due = 0.0  # when it is looked at next
        self._is_full = False
        self._lock, kernel_ran_on = _lock(state_dir)
        try:
            self._database = self._open(kernel_ran_on)
        except BaseException:
            os.close(self._lock)
            raise
        self._waiting: deque[tuple[Store, Answer]] = deque()  # the hub appends, the writer takes
        self._news: deque[Callable[[], None]] = deque()  # the writer appends, the hub calls
        self._unanswered = 0
        self._idle = Event()
        self._idle.set()
        self._broken = ""  # why nothing can be stored any more
        self._unheard = ""  # why a store failed of which the node does not know yet
        self._failed_seq = 0  # the last store that failed
        self._is_closing = False
        self._work = _held_lock()  # let go of when there is something to do for the writer
        self._go_on = _held_lock()  # let go of when its failure was answered
        loop = gevent.get_hub().loop
        self._wake = loop.async_()
        self._wake.start(self._hear_writer)
        self._late = loop.timer(PATIENCE)
        self._patience = PATIENCE
        self._ended: AsyncResult[None] = AsyncResult()
        self.writer = gevent.spawn(self._ended.get)  # raises what the thread died of
        _start_thread(self._write, ())

    # ---- at the start: these block, and nobody else runs yet

    def _open(self, kernel_ran_on: bool) -> Database:
        try:
            return Database(self._path, kernel_ran_on=kernel_ran_on)
        except OutOfSpace as error:
            self._release_reserve(error)
        return Database(self._path, kernel_ran_on=kernel_ran_on, brings_home=False)

    def _release_reserve(self, error: OutOfSpace) -> None:
        """Raises `error` when there is none."""
        if not self._reserve.release():
            raise error
        self._is_full = True
        log.error(
            "the disk is full: started by space that was kept for it; nothing is stored until there is more: %s",
            error.got,
        )

    def load(self) -> tuple[StoredRecord, ...]:
        """All records, in order of their keys."""
        return self._database.load()

    def claim_boot(self, unix_ms: int) -> int:
        """The number of this start, durable: above all earlier ones here, and not below the wall clock."""
        try:
            boot = self._database.claim_boot(unix_ms)
        except OutOfSpace as error:
            self._release_reserve(error)
            boot = self._database.claim_boot(unix_ms)
        if self._is_full:
            self._reserve.keep()
        self._reserve.top_up()
        return boot

    # ---- while running, on the hub

    def store(self, store: Store, answer: Answer) -> None:
        """Make it durable and call `answer` on the hub, where it must not block.  Returns at once."""
        if not self._unanswered:
            self._idle.clear()
            self._be_patient(PATIENCE)
        self._unanswered += 1
        refusal = self._broken or self._unheard
        if refusal:
            self._failed_seq = store.seq
            self._tell(self._refuse, [(store, answer)], refusal)
            return
        self._waiting.append((store, answer))
        self._call_writer()

    def hear(self, seq: int) -> None:
        """The node takes in that store `seq` failed.  Once that was the last, what it stores knows of all failures, and is
        tried again."""
        if seq == self._failed_seq:
            self._unheard = ""

    def flush(self, timeout: float) -> bool:
        """Wait until everything is answered; False when it took longer than `timeout` seconds."""
        return self._idle.wait(timeout)

    def close(self) -> None:
        """Commit what waits, and let go of the directory."""
        self.flush(CLOSING)
        self._is_closing = True
        self._call_writer()
        self._ended.wait(CLOSING)
        self.writer.kill()
        if not self._ended.ready():
            log.error("the disk has not answered for %.0f s: the directory is held until this process ends", CLOSING)
            return
        self._wake.close()
        self._late.close()
        os.close(self._lock)

    def _call_writer(self) -> None:
        if self._work.locked():  # else it was called a moment ago, and has yet to look
            self._work.release()

    def _hear_writer(self) -> None:
        try:
            while self._news:
                self._news.popleft()()
        except BaseException as error:  # noqa: BLE001 - raised by `writer`, which ends the process
            self._ended.set_exception(error)
        if not self._unanswered:
            self._late.stop()
            self._idle.set()
        else:
            self._be_patient(PATIENCE)

    def _be_patient(self, seconds: float) -> None:
        """Rest when nothing is heard of the writer for so long."""
        self._late.close()
        self._patience = seconds
        self._late = gevent.get_hub().loop.timer(seconds)
        self._late.start(self._rest)

    def _rest(self) -> None:
        """A hub that never rests gives the interpreter lock away only to take it back before the writer wakes (28 s were
        seen for a commit of 0.1 s), so it is made to rest, shortly, while one is late."""
        _sleep_with_hub(REST)
        self._be_patient(min(2 * self._patience, SELDOM))

    def _stored(self, batch: Batch) -> None:
        self._unanswered -= len(batch)
        if self._is_full:
            self._is_full = False
            log.warning("the disk takes stores again")
        for store, answer in batch:
            answer(Stored(store.seq))

    def _failed(self, batch: Batch, error: DislocateError) -> None:
        """What has been asked for since fails too: it does not know of this failure."""
        reason = self._reason(error)
        batch = [*batch, *self._waiting]
        self._waiting.clear()
        if batch:
            self._failed_seq = batch[-1][0].seq
            self._unheard = reason if self.awaits_hearing else ""
        self._refuse(batch, reason)
        self._go_on.release()

    def _refuse(self, batch: Batch, reason: str) -> None:
        self._unanswered -= len(batch)
        for store, answer in batch:
            answer(StoreFailed(store.seq, reason))

    def _reason(self, error: DislocateError) -> str:
        """For people, who are told of it; 'full: ...' for the core."""
        if isinstance(error, StorageBroken):
            self._broken = f"{error}; nothing is stored any more until the agent is restarted"
            log.critical("the disk failed: %s", self._broken)
            return self._broken
        if not isinstance(error, StorageFull):
            log.error("the disk refused to store: %s", error)
            return str(error)
        if not self._is_full:
            self._is_full = True
            log.error("the disk is full; nothing is stored until there is space: %s", error)
        return f"full: {error}"

    # ---- in the writer's thread

    def _write(self) -> None:
        try:
            while not self._is_closing:
                self._work.acquire()
                while self._waiting:
                    self._commit([self._waiting.popleft() for _ in range(min(len(self._waiting), BATCH_LIMIT))])
                    self._checkpoint()
            self._database.close()
        except BaseException as error:  # noqa: BLE001 - raised by `writer`, which ends the process
            self._tell(self._ended.set_exception, error)
        else:
            self._tell(self._ended.set, None)

    def _commit(self, batch: Batch) -> None:
        changes = {record.key: record.value for store, _ in batch for record in store.records}
        try:
            self._database.commit(changes, sync=any(store.sync for store, _ in batch))
        except (StorageFull, StorageRefused, StorageBroken) as error:
            self._tell(self._failed, batch, error)
            self._go_on.acquire()
            return
        self.commits += 1
        self.stores += len(batch)
        self._tell(self._stored, batch)
        if monotonic() >= self._reserve_due:
            self._reserve_due = monotonic() + RESERVE_PERIOD
            self._reserve.top_up()

    def _checkpoint(self) -> None:
        """When nothing waits for it, or it cannot wait."""
        logged = self._database.logged
        if logged < CHECKPOINT or (self._waiting and logged < CHECKPOINT_AT_ONCE):
            return
        try:
            self._database.checkpoint()
        except StorageBroken as error:
            self._tell(self._failed, [], error)
            self._go_on.acquire()
        except (StorageFull, StorageRefused):
            pass  # the log grows on, and the next one finds more to do

    def _tell(self, hear: Callable[..., None], *what: object) -> None:
        self._news.append(partial(hear, *what))
        self._wake.send()


def _held_lock() -> Any:
    lock = _allocate_lock()
    lock.acquire()
    return lock


def _lock(state_dir: FilePath) -> tuple[int, bool]:
    """Hold the directory against a second agent; the kernel lets go when the process ends, however it ends.  Also whether
    the one that held it last was a process of the same start of the kernel."""
    path = state_dir / "agent.lock"
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise (no_space(path, error) if error.errno == errno.ENOSPC else unwritable(state_dir, error)) from error
    process, _, kernel = os.read(descriptor, 256).decode(errors="replace").partition(" ")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise unwritable(state_dir, error) from error
        raise LocalError(
            FIELD,
            got=f"{state_dir}, which another agent uses (process {process.strip() or 'unknown'})",
            expected="a directory of its own for each agent; stop the other one or name another directory",
        ) from None
    running = _running_kernel()
    words = f"{os.getpid()} {running}".encode()
    try:
        os.pwrite(descriptor, words, 0)  # over what is there: a file that was cut first may find no space any more
        os.ftruncate(descriptor, len(words))
    except OSError as error:
        os.close(descriptor)
        raise (no_space if error.errno == errno.ENOSPC else unwritable)(path, error) from error
    return descriptor, bool(running) and kernel == running


def _running_kernel() -> str:
    """Which start of the kernel this is; empty where that is not told."""
    try:
        return FilePath("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
