"""The store's state machine: what the log is applied to.

Invariants: the same entries in the same order make the same store, answers and digest, on every machine and in every
process, also when it was saved and recovered in between; what cannot be done is an answer and changes nothing; `revision`
grows by one for each transaction that changes something and for each lease whose keys go with it, and never falls.  It has
no clock: that a lease ended is said by an entry.  A broken log (a gap, an entry that cannot be read) is a `Bug`.

Source: etcd's v3 store (revisions, transactions, leases) and the Raft thesis, 6.3 (sessions).  Does not know who leads, what
is committed or who asks: see `replica`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, TypeAlias

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from dislocate.core.boundary.events import NodeMoved, RunMoved, ScaleDecided
from dislocate.core.boundary.requests import Done, Refused
from dislocate.core.boundary.runs import Granted, ReportTask, RunRequest, RunStarted, StartRun
from dislocate.core.boundary.store import (
    Compacted,
    GrantLease,
    KeyChange,
    KeyValue,
    LeaseStanding,
    RevokeLease,
    Transact,
    Transacted,
    Uncertain,
)
from dislocate.core.boundary.values import StoredRecord
from dislocate.core.catalog.validation import refused
from dislocate.core.errors import LocalError, require
from dislocate.core.runs.ledger.ledger import BODIES, Ledgered, RunsLedger, level_refusal
from dislocate.core.runs.records import ACTIVE, RECORDS
from dislocate.core.runs.steps import JoinNodes, RunStep
from dislocate.core.scale import ledger as scale
from dislocate.core.scale.records import DECISIONS
from dislocate.core.store.backup import Backup, read_backup
from dislocate.core.store.changes import ChangeHistory
from dislocate.core.store.commands import (
    Command,
    LeasesEnded,
    RestoreChunk,
    SetFeatureLevel,
    UnreadableEntry,
    decode_command,
)
from dislocate.core.store.keys import Keys, size_of
from dislocate.core.store.leases import Lease, Leases
from dislocate.core.store.quotas import Quotas
from dislocate.core.store.records import sealed
from dislocate.core.store.restoring import Restoring, restored_keys, restored_leases
from dislocate.core.store.saving import (
    Parts,
    Position,
    changed_records,
    key_records,
    other_payloads,
    read_parts,
    record_keys,
)
from dislocate.core.store.sessions import Sessions
from dislocate.core.store.transactions import Draft, as_keys, holds
from dislocate.core.tunables import (
    CHANGES_KEPT,
    LEASES,
    READ_LIMIT,
    RECOVERY_RUNS,
    RUNS_LEVEL,
    RUNS_ROOM,
    SCALE_LEVEL,
    STORE_BYTES,
    TRANSACTION_ANSWER,
)

Outcome: TypeAlias = Transacted | LeaseStanding | RunStarted | Granted | Done | Refused | Uncertain


class Applied(Struct, frozen=True, gc=False):
    """What one entry did."""

    result: Outcome | None  # for who asked; None: the entry was empty
    changes: tuple[KeyChange, ...] = ()  # for who watches
    compacted: bool = False  # more changed than can be told: everybody who watches is to be told `Compacted`
    ended: tuple[int, ...] = ()  # leases
    restored: bool = False  # all leases may be others than before, and have their full time
    events: tuple[RunMoved | NodeMoved | ScaleDecided, ...] = ()  # what became of runs and of sizes, for who looks on


_NOTHING = Applied(None)
_BEGINNING = Position(0, 0, 1)


class StoreMachine:
    """Keys, leases and sessions at one index of the log."""

    def __init__(self, parts: Parts | None = None, position: Position = _BEGINNING) -> None:
        self._parts = parts or Parts(Keys(), Leases(), Sessions(), Restoring())
        self.index = position.index  # applied
        self.revision = position.revision
        self.feature_level = position.feature_level  # above tunables.FEATURE_LEVEL this version must not go on
        self.keys = self._parts.keys
        self._leases = self._parts.leases
        self._sessions = self._parts.sessions
        self._restoring = self._parts.restoring
        self._quotas = Quotas(self.keys)
        self._runs = RunsLedger(self.keys)
        self._scale = scale.ScaleLedger(self.keys)
        self._history = ChangeHistory(floor=self.revision)
        self._is_saved = True  # the disk has the present index and revision
        self._parts.forget_dirty()

    # ---- looking

    @property
    def size(self) -> int:
        """Bytes of keys and values."""
        return self.keys.size

    @property
    def digest(self) -> int:
        """64 bits over all keys and leases."""
        return self._parts.digest

    @property
    def leases(self) -> Mapping[int, Lease]:
        return self._leases.living

    def read(
        self, key: str, prefix: bool = False, limit: int = READ_LIMIT, after: str = ""
    ) -> tuple[tuple[KeyValue, ...], bool]:
        """(keys, whether there are more): a key, or up to `limit` that begin with it and come after `after`, in order.

        An answer is also ended, as if by `limit`, before it is larger than `TRANSACTION_ANSWER`."""
        if not prefix:
            kv = self.keys.get(key)
            return ((), False) if kv is None else ((kv,), False)
        found: list[KeyValue] = []
        size = 0
        for kv in islice(self.keys.below(key, after), limit + 1):
            size += size_of(kv)
            if len(found) == limit or (found and size > TRANSACTION_ANSWER):
                return tuple(found), True
            found.append(kv)
        return tuple(found), False

    def changes_after(self, key: str, prefix: bool, revision: int) -> tuple[KeyChange, ...] | Compacted:
        """All changes of a key, or of those that begin with it, after `revision`; Compacted when some are forgotten."""
        return self._history.after(key, prefix, revision)

    # ---- what is local to this server

    def forget_changes(self, keep: int) -> None:
        """Keep at most `keep` changes for watches."""
        self._history.keep(keep)

    def age_out(self, now: int) -> None:
        """Forget changes older than `CHANGES_AGE` by the owner's monotonic clock; to be called each some seconds."""
        self._history.age_out(now, self.revision)

    def raise_revision(self, by: int) -> None:
        """Forced recovery: go on at a revision above all that was ever given out, also by what was lost."""
        require(by >= 0, "revisions never fall")
        self.revision += by
        self._history.forget_to(self.revision)
        self._is_saved = False

    def recover_runs(self, epochs: int) -> None:
        """Forced recovery: give out no number of a run again, and pause those that are under way."""
        self._record_runs(self._runs.recovered(epochs))
        self._record_runs(Ledgered(Done(), self._scale.recovered(RECOVERY_RUNS * epochs)))
        self._is_saved = False

    # ---- applying

    def apply(self, index: int, data: bytes) -> Applied:
        """Apply the data of the entry at `index`, which must be the next one."""
        require(index == self.index + 1, f"entry {index} after {self.index}")
        self.index = index
        self._is_saved = False
        self._restoring.wait(index)
        if not data:
            return _NOTHING
        command = self._read_command(index, data)
        body, origin = command.body, command.origin
        if origin is not None:
            answer = self._sessions.admit(origin, index, body)
            if answer is not None:
                return Applied(answer)
        applied = _BODIES[type(body)](self, body)
        if origin is not None and applied.result is not None:
            self._sessions.keep(origin, body, applied.result)
        return applied

    def _read_command(self, index: int, data: bytes) -> Command:
        try:
            return decode_command(data)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise UnreadableEntry(f"entry {index} cannot be read: {error}") from error

    def _transact(self, body: Transact) -> Applied:
        keys = self.keys
        succeeded = not body.compares or all(holds(compare, keys.get(compare.key)) for compare in body.compares)
        draft = Draft(keys, self._leases, self.revision + 1)
        results = draft.run(body.then if succeeded else body.otherwise)
        if isinstance(results, Refused):
            return Applied(replace(results, field=results.field.replace("operations", _branch(succeeded), 1)))
        if not draft.touched:
            return Applied(Transacted(succeeded, self.revision, results))
        refused = self._quotas.refusal(draft.touched)
        if refused is not None:
            return Applied(refused)
        changes = self._commit(draft.touched)
        self._history.add(changes)
        return Applied(Transacted(succeeded, self.revision, results), changes)

    def _commit(self, touched: dict[str, KeyValue | None]) -> tuple[KeyChange, ...]:
        """Make these changes in a new revision."""
        self.revision = revision = self.revision + 1
        keys, changes = self.keys, []
        for name, now in touched.items():
            old = keys.get(name)
            if now is not None:
                keys.put(now)
            elif old is not None:
                keys.remove(name)
            if (old is not None and old.lease) or (now is not None and now.lease):
                self._leases.move(old, now)
            self._quotas.count(name, old, now)
            changes.append(KeyChange(name, revision, now))
        return tuple(changes)

    def _grant(self, body: GrantLease) -> Applied:
        if len(self.leases) >= LEASES:
            return Applied(
                Refused("storage", "lease", f"{LEASES} leases live: revoke some that are not needed any more")
            )
        self._leases.grant(self.index, body.ttl)
        return Applied(LeaseStanding(self.index, body.ttl, body.ttl))

    def _revoke(self, body: RevokeLease) -> Applied:
        if body.lease not in self.leases:
            return Applied(
                Refused("unknown", "lease", f"lease {body.lease} has ended or never was: nothing is left to do")
            )
        changes = self._end(body.lease)
        return Applied(Done(self.revision), changes, ended=(body.lease,))

    def _leases_ended(self, body: LeasesEnded) -> Applied:
        changes = [change for lease in body.leases if lease in self.leases for change in self._end(lease)]
        return Applied(Done(self.revision), tuple(changes), ended=body.leases)

    def _end(self, lease: int) -> tuple[KeyChange, ...]:
        names = self.leases[lease].ordered_keys()
        changes: tuple[KeyChange, ...] = ()
        if names:
            changes = self._commit(dict.fromkeys(names))
            self._history.add(changes)
        self._leases.end(lease)
        return changes

    def _set_level(self, body: SetFeatureLevel) -> Applied:
        before, self.feature_level = self.feature_level, max(self.feature_level, body.level)
        if not before < RUNS_LEVEL <= self.feature_level:
            return Applied(Done(self.feature_level))
        found = self._runs.restored(self._runs.seen())  # of a backup that was restored at a lower level
        return Applied(Done(self.feature_level), self._record_runs(found), events=found.events)

    # ---- scaling

    def _scale_to(self, body: Any) -> Applied:
        if self.feature_level < SCALE_LEVEL:
            return Applied(scale.level_refusal(self.feature_level))
        ledgered = self._scale.apply(body)
        refused = self._quotas.refusal(self._as_keys(ledgered))
        if refused is not None:
            return Applied(refused)
        return Applied(ledgered.result, self._record_runs(ledgered), events=ledgered.events)

    # ---- config runs

    def _run(self, body: RunRequest | RunStep) -> Applied:
        if self.feature_level < RUNS_LEVEL:
            return Applied(level_refusal(self.feature_level))
        ledgered = self._runs.apply(body)
        refused = self._quotas.refusal(self._as_keys(ledgered)) if isinstance(body, _MAY_WAIT) else None
        if refused is not None and isinstance(body, ReportTask):  # what happened is to be known all the same
            ledgered, refused = self._runs.apply(replace(body, steps=(), words=_NO_ROOM)), None
        if refused is not None:
            return Applied(refused)
        return Applied(ledgered.result, self._record_runs(ledgered), events=ledgered.events)

    def _record_runs(self, ledgered: Ledgered) -> tuple[KeyChange, ...]:
        if not ledgered.puts:
            return ()
        changes = self._commit(self._as_keys(ledgered))
        self._history.add(changes)
        return changes

    def _as_keys(self, ledgered: Ledgered) -> dict[str, KeyValue | None]:
        return as_keys(self.keys, ledgered.puts, self.revision + 1)

    def _restore(self, body: RestoreChunk) -> Applied:
        whole = self._restoring.add(body, self.index)
        if isinstance(whole, Refused):
            return Applied(whole)
        if whole is None:
            return Applied(Done(self.revision))
        try:
            backup = read_backup(whole)
        except LocalError as error:
            return Applied(refused(error))
        if sum(map(size_of, backup.keys)) > STORE_BYTES + RUNS_ROOM or len(backup.leases) > LEASES:
            return Applied(
                Refused("storage", "backup", f"a store has at most {STORE_BYTES >> 20} MiB and {LEASES} leases")
            )
        known = dict(backup.leases)
        if any(kv.lease and kv.lease not in known for kv in backup.keys):
            return Applied(Refused("invalid", "backup", "a key names a lease that is not in it: take another backup"))
        self.revision = max(self.revision, backup.header.revision)
        leases = restored_leases(backup, self.index)
        touched = restored_keys(self.keys, backup, leases, self.revision + 1)
        mended = self._mended(backup) if self.feature_level >= RUNS_LEVEL else Ledgered(Done())
        touched |= dict.fromkeys(name for name, value in mended.puts.items() if value is None)
        touched |= as_keys(Keys(), mended.puts, self.revision + 1)
        living = dict(leases.values())
        for lease, ttl in living.items():
            self._leases.grant(lease, ttl)
        changes = self._commit(touched)
        for lease in list(self.leases):
            if lease not in living:
                self._leases.end(lease)
        is_compacted = len(changes) > CHANGES_KEPT
        if is_compacted:
            changes = ()
            self._history.forget_to(self.revision)
        self._history.add(changes)
        return Applied(Transacted(True, self.revision, ()), changes, is_compacted, restored=True, events=mended.events)

    def _mended(self, backup: Backup) -> Ledgered:
        """What has to become of a backup's runs and sizes, in the same revision: nobody sees one without the other."""
        found = Keys(kv for kv in backup.keys if kv.key.startswith((ACTIVE, DECISIONS, RECORDS)))
        mended = RunsLedger(found).restored(self._runs.seen())
        if self.feature_level < SCALE_LEVEL:
            return mended
        return replace(mended, puts={**mended.puts, **scale.ScaleLedger(found).restored(self._scale.epochs())})

    # ---- the durable form

    @property
    def keys_to_save(self) -> int:
        return len(self.keys.dirty)

    def dirty_records(self) -> tuple[StoredRecord, ...]:
        """What changed since the last call: to be stored together, in one transaction."""
        if self._is_saved:
            return ()
        changed = tuple(changed_records(self._parts, self._position()))
        self._parts.forget_dirty()
        self._is_saved = True
        return changed

    def all_records(self) -> tuple[StoredRecord, ...]:
        """Everything, in the order of the records' keys."""
        return (*key_records(self._parts), *(sealed(*one) for one in self.payloads_besides_keys()))

    def payloads_besides_keys(self) -> tuple[tuple[str, bytes], ...]:
        """The same without keys, as (record's key, what is to be sealed)."""
        return tuple(other_payloads(self._parts, self._position()))

    def record_keys(self) -> Iterator[str]:
        """The key of every record that the disk has of this store now, or when what is dirty has been stored."""
        return record_keys(self._parts)

    @staticmethod
    def recover(stored: Iterable[StoredRecord]) -> "StoreMachine":
        """The store that these records are; other parts' records are left alone.  Without any, an empty one.

        Raises `LocalError` naming the record that is damaged or missing, and the mend."""
        return StoreMachine(*read_parts(stored))

    def _position(self) -> Position:
        return Position(self.index, self.revision, self.feature_level)


def _branch(succeeded: bool) -> str:
    return "then" if succeeded else "otherwise"


_MAY_WAIT = (StartRun, JoinNodes, ReportTask)  # a full store is no reason not to pause, abort or grant
_NO_ROOM = "the store was full: what it made of each resource is in the node's own log"

_BODIES: dict[type, Callable[[StoreMachine, Any], Applied]] = {
    Transact: StoreMachine._transact,
    GrantLease: StoreMachine._grant,
    RevokeLease: StoreMachine._revoke,
    LeasesEnded: StoreMachine._leases_ended,
    RestoreChunk: StoreMachine._restore,
    SetFeatureLevel: StoreMachine._set_level,
    **dict.fromkeys(BODIES, StoreMachine._run),
    **dict.fromkeys(scale.BODIES, StoreMachine._scale_to),
}
