"""A server's part of the store: one log, the state that it is applied to, and what of both is on disk.

It turns what consensus asks for into effects.  Writes go to the disk one at a time, and what comes meanwhile goes into the
next (group commit); proposals and reads that arrive together are flushed together, by a timer set for now, which the driver
serves after the input that waits.  While the disk works on earlier proposals later ones wait for it, but not for long: under
load a batch costs more than what is in it, and a lone client has nothing under way.  The applied state is saved lazily, and
the log that it makes superfluous dropped with the writes after that, a part at a time: nothing waits behind a long delete.

Invariants: a message leaves only when what it promises is durable (`raft` holds it back until `stored`); what is saved of
the state never runs ahead of the saved log; a storage error ends this part, loudly, except that a full disk is tried again;
so does what this version cannot apply: a log of a higher feature level, an entry or a snapshot that cannot be read.  Once it
has ended nothing leaves it, whatever is still under way.
Does not know who asks (`serving`) nor how servers are reached (`part`).
"""

from collections import deque
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

from dislocate.core.boundary.events import EntriesApplied, Event, LeaderDeposed, LeaderElected, ServersChanged
from dislocate.core.boundary.store import KeyChange
from dislocate.core.boundary.values import StoredRecord
from dislocate.core.consensus.duties import Duties, Restored, Save, Snapshot, Timing
from dislocate.core.consensus.messages import Consensus, Entry, GroupId, HardState, RaftMessage, ServerId
from dislocate.core.consensus.promises import APPLIED_KEY, BASE_KEY, DIVERGED_KEY, HARD_KEY
from dislocate.core.consensus.raft import Raft
from dislocate.core.errors import LocalError
from dislocate.core.outbox import NEVER, Outbox, Timer
from dislocate.core.store.commands import UnreadableEntry
from dislocate.core.store.durable import AppliedUpTo, Found, applied_record
from dislocate.core.store.keptlog import KeptLog
from dislocate.core.store.machine import Applied, StoreMachine
from dislocate.core.store.snapshot import SnapshotCutter, join_chunks, replacing_records
from dislocate.core.store.writing import Writing
from dislocate.core.streams import Stream
from dislocate.core.tunables import (
    FEATURE_LEVEL,
    LOG_KEPT_BYTES,
    PROPOSALS_WAIT,
    STATE_SAVE_ENTRIES,
    STATE_SAVE_PERIOD,
    STATE_SAVE_RECORDS,
)
from dislocate.core.units import HOUR

UNREADABLE = "cannot be read"  # in the problem of a server that was sent what it does not understand
UNKNOWN_AGE = 365 * 24 * HOUR  # nobody knows: no bound that may be asked for is met


class FlushDue(Timer, frozen=True):
    """What was proposed in this instant goes out together."""


class ConsensusDue(Timer, frozen=True):
    """An election or a heartbeat is due."""

    at: int  # outdated when another instant was armed since


class StateSaveDue(Timer, frozen=True):
    """The applied state has not been saved for a while."""


class Replica:
    """The log and the state of one server.  `send`, `applied` and `failed` are set by its owner."""

    def __init__(
        self,
        out: Outbox,
        me: ServerId,
        group: GroupId,
        found: Found | None,
        stream: Stream,
        timing: Timing,
        level: int = FEATURE_LEVEL,
    ) -> None:
        self.me = me
        self.group = group
        self.send: Callable[[ServerId, Consensus], None] = lambda _to, _message: None
        self.applied: Callable[[Entry, Applied], None] = lambda _entry, _applied: None
        self.batch_applied: Callable[[list[KeyChange]], None] = lambda _changes: None
        self.replaced: Callable[[], None] = lambda: None  # a snapshot took the place of the state
        self.read_ready: Callable[[int], None] = lambda _read: None  # its index is applied
        self.read_lost: Callable[[int], None] = lambda _read: None
        self.told: Callable[[Event], None] = lambda _event: None
        self.failed: Callable[[str], None] = lambda _problem: None  # it takes no part any more
        self.forgotten: Callable[[int], None] = lambda _index: None  # what the disk acknowledged up to there is lost
        self.index_applied: Callable[[int], None] = lambda _index: None  # each one, at the state as of it
        self.level = level  # the highest feature level that this version speaks
        self._out = out
        self._has_ended = False
        self._log = KeptLog(found)
        base = self._log.base
        self._digest = found.applied.digest if found else 0
        self._applied_term = found.applied.term if found else 0
        self.machine = StoreMachine.recover(found.state if found else ())
        self.raft = Raft(
            me=me,
            restored=Restored(
                hard=found.hard if found else HardState(0),
                configuration=base.configuration,
                entries=found.entries if found else (),
                compacted=base.index,
                compacted_term=base.term,
                applied=found.applied.index if found else base.index,
            ),
            stream=stream,
            now=out.now,
            timing=timing,
        )
        self._queue: list[Save | Snapshot] = []  # not given to the disk yet, in order
        self._is_busy = False  # carrying out what the Raft wants
        self._writing = Writing(out, self._write_failed, self._filled)
        self._state_due = False
        self._unsaved_entries = self._unsaved_bytes = 0
        self._saved_index = self.raft.applied  # up to where the disk has the state, or will before anything later
        self.machine.age_out(self._out.now)
        self._as_of = out.now - _age_found(found, out.unix())  # as it was last noted
        self._armed = NEVER
        self._flush_timer = 0  # its number; 0: none is armed
        self._is_held = False  # what was proposed waits for the save under way
        self._save_armed = False
        self._reads: deque[tuple[int, int]] = deque()  # (index, read id) confirmed, index not applied yet

    def timers(self) -> dict[type, Callable[[Any], None]]:
        return {
            FlushDue: self._flush,
            ConsensusDue: self._consensus_due,
            StateSaveDue: self._state_save_due,
            **self._writing.timers(),
        }

    # ---- what happens to it

    def start(self) -> None:
        self._check_level()
        self._carry_out()

    @property
    def has_ended(self) -> bool:
        """Whether it takes no part any more."""
        return self._has_ended

    @property
    def as_of(self) -> int:
        """When what is here was last known to be all there was."""
        return max(self._as_of, self.raft.current_at or self._as_of)

    @property
    def is_full(self) -> bool:
        """Whether the disk has no room: nothing new is promised."""
        return self._writing.is_full

    @property
    def write_latency(self) -> int:
        """Nanoseconds that the last synced write took."""
        return self._writing.latency

    def receive(self, message: Consensus) -> None:
        """A message of another server of this group, for this disk."""
        if not self._has_ended:
            self.raft.receive(message.origin, message.term, message.body, self._out.now)
            self._carry_out()

    def propose(self, data: bytes) -> int | None:
        """The index that `data` will have if it is committed; None when it cannot be proposed here (`raft.refusal`)."""
        if self._has_ended:
            return None
        index = self.raft.propose(data, self._out.now)
        if index is not None:
            self._arm_flush()
        return index

    def read(self, read: int) -> bool:
        """Confirm leadership for a read; `read_ready` or `read_lost` follows.  False: not the leader."""
        if self._has_ended or not self.raft.read(read, self._out.now):
            return False
        if self._is_held:
            self._out.outdate(self._flush_timer)
            self._flush_timer = 0  # a read waits for no disk
        self._arm_flush()
        return True

    def peer_back(self, peer: ServerId) -> None:
        """There is a link to `peer`."""
        if self._has_ended:
            return
        self.raft.peer_back(peer, self._out.now)
        self._carry_out()

    def peer_lost(self, peer: ServerId) -> None:
        """The link to `peer` ended."""
        if self._has_ended:
            return
        self.raft.peer_lost(peer, self._out.now)
        self._carry_out()

    def poke(self, act: Callable[[Raft, int], Any]) -> Any:
        """Do something to the Raft that may cause duties; nothing, and None, when this part has ended."""
        if self._has_ended:
            return None
        result = act(self.raft, self._out.now)
        self._carry_out()
        return result

    def end(self) -> tuple[str, ...]:
        """Take no part any more.  The keys of all that this part has on disk, or may have."""
        self._ended()
        under_way = (record.key for record in self._writing.under_way)
        keys = (
            HARD_KEY,
            BASE_KEY,
            APPLIED_KEY,
            DIVERGED_KEY,
            *self._log.keys(),
            *under_way,
            *self.machine.record_keys(),
        )
        return tuple(dict.fromkeys(keys))

    def give_up(self, problem: str) -> None:
        """End by itself, since something is wrong that only people can mend."""
        if not self._has_ended:
            self._ended()
            self.failed(problem)

    def _ended(self) -> None:
        self._has_ended = True
        self._writing.end()

    def _check_level(self) -> None:
        level = self.machine.feature_level
        if level > self.level:
            self.give_up(
                f"the store is at feature level {level}, and this version of {self.me.path} speaks {self.level}: upgrade "
                "it and start it again; it goes on from where it is"
            )

    # ---- timers

    def _arm_flush(self) -> None:
        if not self._flush_timer:
            self._flush_timer = self._out.arm(self._out.now, FlushDue())

    def _flush(self, _timer: FlushDue) -> None:
        self._flush_timer = 0
        if self._has_ended:
            return
        if self._writing.is_busy and self.raft.has_uncommitted and not (self._is_held or self.raft.has_reads):
            self._is_held = True
            self._flush_timer = self._out.arm(self._out.now + PROPOSALS_WAIT, FlushDue())
            return
        self._is_held = False
        self.raft.flush(self._out.now)
        self._carry_out()

    def _release(self) -> None:
        """The save that proposals waited for is done."""
        if self._is_held:
            self._is_held = False
            self._out.outdate(self._flush_timer)
            self._flush_timer = 0
            self.raft.flush(self._out.now)

    def _consensus_due(self, timer: ConsensusDue) -> None:
        if timer.at != self._armed:
            return
        self._armed = NEVER
        if self._has_ended:
            return
        if self.raft.deadline() <= self._out.now:
            self._as_of = self.as_of
            self.raft.time_reached(self._out.now)
        self._carry_out()

    def _state_save_due(self, _timer: StateSaveDue) -> None:
        self._save_armed = False
        self._state_due = True
        self._write()

    # ---- duties

    def _carry_out(self) -> None:
        """Everything that the Raft wants done now.  What is done may want more: it comes after, never in between."""
        if self._is_busy:
            return
        self._is_busy = True
        while not self._has_ended and (duties := self.raft.take()):
            self._do(duties)
        self._is_busy = False
        if not self.raft.is_leader:  # what a leader knows of it is a count over all servers: noted with each heartbeat
            self._as_of = self.as_of
        deadline = self.raft.deadline()
        if deadline < self._armed and not self._has_ended:
            self._armed = deadline
            self._out.arm(deadline, ConsensusDue(deadline))

    def _do(self, duties: Duties) -> None:
        self._queue += duties.saves
        if duties.install is not None:
            self._queue.append(duties.install)
        if self._queue:
            self._write()
        for to, term, body in duties.messages:
            self._say(to, term, body)
        if duties.snapshots_wanted:
            snapshot = self._snapshot()
            for peer in duties.snapshots_wanted:
                self.raft.offer_snapshot(peer, snapshot, self._out.now)
        for event in duties.events:
            self._tell(event)
        if duties.forgotten:
            self.forgotten(duties.forgotten)
        if self._has_ended:
            return
        if duties.committed:
            self._apply(duties.committed)
        for read, index in duties.reads:
            self._reads.append((index, read))
        for read in duties.reads_lost:
            self.read_lost(read)
        if not self._has_ended:
            self._serve_reads()

    def _say(self, to: ServerId, term: int, body: RaftMessage) -> None:
        self.send(to, Consensus(self.group, self.me, to, term, body))

    def _tell(self, event: Event) -> None:
        if isinstance(event, LeaderElected | LeaderDeposed | ServersChanged):
            self._out.notify(event)
        self.told(event)

    # ---- applying

    def _apply(self, entries: tuple[Entry, ...]) -> None:
        changes: list[KeyChange] = []
        compacted = False
        machine = self.machine
        for entry in entries:
            try:
                applied = machine.apply(entry.index, entry.data)
            except UnreadableEntry as error:
                self.give_up(f"{error}; upgrade {self.me.path} to the version of the others, and start it again")
                return
            self._digest = _chained(self._digest, entry)
            self._applied_term = entry.term
            self._log.remember(entry)
            changes += applied.changes
            compacted = compacted or applied.compacted
            self.index_applied(entry.index)
            for event in applied.events:
                self._out.notify(event)
            self.applied(entry, applied)
            if machine.feature_level > self.level:
                self._check_level()
            if self._has_ended:
                return
        self._unsaved_entries += len(entries)
        self._unsaved_bytes += sum([len(entry.data) for entry in entries])
        self._out.notify(EntriesApplied(self.machine.index, self._applied_term, self._digest, self.machine.revision))
        if compacted:
            self.replaced()
        else:
            self.batch_applied(changes)
        if self._is_much_unsaved():
            self._state_due = True
            self._write()
        elif not self._save_armed:
            self._save_armed = True
            self._out.arm(self._out.now + STATE_SAVE_PERIOD, StateSaveDue())

    def _is_much_unsaved(self) -> bool:
        return (
            self._unsaved_entries >= STATE_SAVE_ENTRIES
            or self._unsaved_bytes > LOG_KEPT_BYTES // 2
            or self.machine.keys_to_save >= STATE_SAVE_RECORDS
        )

    def _serve_reads(self) -> None:
        while self._reads and self._reads[0][0] <= self.machine.index:
            self.read_ready(self._reads.popleft()[1])

    # ---- snapshots

    def _snapshot(self) -> Snapshot:
        """The state as it is applied now; its chunks are encoded as they are sent, so that no turn takes long."""
        index, cutter = self.machine.index, SnapshotCutter(self.machine)
        return Snapshot(index, self._applied_term, self._log.configuration_at(index), self._digest, cutter)

    # ---- the disk

    def _write(self) -> None:
        """Give the disk what waits, unless it is busy: then it goes with the next write."""
        if self._writing.is_busy or self._has_ended or not (self._queue or self._state_due):
            return
        queue, self._queue = self._queue, []
        changes: dict[str, bytes | None] = {}
        for duty in queue:
            changes |= self._log.saved(duty) if isinstance(duty, Save) else self._replaced(duty)
        sync = bool(queue)
        if self._has_ended:  # what was to be installed cannot be read
            return
        if self._state_due:
            self._save_state(changes)
        compact_to = self._drop_log(changes)
        records = tuple(StoredRecord(key, value) for key, value in changes.items())
        base = self._log.base.index

        def stored() -> None:
            self._log.stored(base)
            if self._has_ended:
                return
            for duty in queue:
                if isinstance(duty, Save):
                    self.raft.stored(duty.ticket, self._out.now)
                else:
                    self.raft.installed(duty.index, self._out.now)
            if compact_to:
                self.raft.compact(compact_to)
            self._release()
            self._write()
            self._carry_out()

        self._writing.write(records, sync=sync, then=stored)

    def _write_failed(self, reason: str) -> None:
        self.hand_over()
        self.give_up(
            f"the disk of {self.me.path} failed ({reason}): it takes no part any more until its agent is restarted"
        )

    def _filled(self, is_full: bool) -> None:
        self.raft.is_full = is_full
        if is_full:
            self.hand_over()

    def hand_over(self) -> None:
        """Whoever has all of the log may lead: this server should not."""
        self.raft.transfer(None, self._out.now)
        self._carry_out()

    def _save_state(self, changes: dict[str, bytes | None]) -> None:
        """Add the applied state to `changes`."""
        self._state_due = False
        self._unsaved_entries = self._unsaved_bytes = 0
        self._saved_index = self.machine.index
        self.machine.age_out(self._out.now)
        for record in self.machine.dirty_records():
            changes[record.key] = record.value
        unix = max(0, self._out.unix() - (self._out.now - self.as_of)) if self._out.unix() else 0
        applied = applied_record(AppliedUpTo(self.machine.index, self._applied_term, self._digest, unix))
        changes[applied.key] = applied.value

    def _drop_log(self, changes: dict[str, bytes | None]) -> int:
        """Drop some of the log that the saved state makes superfluous; up to where, 0: nothing."""
        if not self._log.is_long:
            return 0
        dropped_to, dropped = self._log.shortened(self._saved_index, self.raft.keep_from)
        changes.update(dropped)
        return dropped_to

    def _replaced(self, snapshot: Snapshot) -> dict[str, bytes | None]:
        """The state and the log give way to what the leader sent."""
        try:
            records = join_chunks(snapshot.chunks)
            machine = StoreMachine.recover(records)
        except LocalError as error:
            self.give_up(f"the snapshot as of entry {snapshot.index} {UNREADABLE}: {error}")
            return {}
        changes = {record.key: record.value for record in replacing_records(self.machine, records)}
        changes |= self._log.replaced(snapshot)
        self.machine = machine
        self._digest, self._applied_term = snapshot.digest, snapshot.term
        self._unsaved_entries = self._unsaved_bytes = 0
        self._saved_index = snapshot.index
        applied = applied_record(AppliedUpTo(snapshot.index, snapshot.term, snapshot.digest))
        changes[applied.key] = applied.value
        self._check_level()
        if not self._has_ended:
            self.replaced()
        return changes


def _age_found(found: Found | None, unix: int) -> int:
    """Nanoseconds since what the disk had was known to be current, by this host's wall clock."""
    return unix - found.applied.unix if found and 0 < found.applied.unix <= unix else UNKNOWN_AGE


def _chained(digest: int, entry: Entry) -> int:
    """63 bits over everything applied so far and this entry."""
    head = b"%d %d %d " % (digest, entry.term, entry.index)
    voters = repr(entry.configuration).encode() if entry.configuration is not None else b""
    return int.from_bytes(blake2b(head + entry.data + voters, digest_size=8).digest(), "big") >> 1
