"""Keeping: how long the records of runs that are over stay, and what a restore or a forced recovery makes of runs.

Invariants: what is under way is never let go; of the rest the oldest go first, at most two runs an entry, so that no entry
takes long.  Run ids are never given out again, also when a backup, or the one disk that was left, does not know of the latest
ones: nodes' journals do.  Nor are epochs of a run, which nodes tell grants by.
"""

from collections.abc import Iterator

from msgspec.structs import replace

from dislocate.core.boundary.runs import OVER, AuditEntry, Hold, RunRecord, RunState
from dislocate.core.runs import records
from dislocate.core.runs.ledger.draft import Draft, Last, Moving
from dislocate.core.store.keys import Keys
from dislocate.core.tunables import RECOVERY_RUNS, RUN_TASKS_KEPT, RUNS_KEPT

AT_ONCE = 2  # runs that one entry lets go
STORE = "store"  # who did what a restore or a recovery does
_RESTORED = "a backup was restored: what nodes did after it was taken is not in it; look, then resume, revert or abort"
_RECOVERED = "the store was recovered by force: what nodes did since may be lost; look, then resume, revert or abort"


def let_go(draft: Draft) -> None:
    """Remove the oldest runs that are over, beyond `RUNS_KEPT` runs or `RUN_TASKS_KEPT` targets, but not one that ends now."""
    last = draft.last()
    if last.over <= RUNS_KEPT and last.tasks <= RUN_TASKS_KEPT:
        return
    for number in _oldest_over(draft, last):
        if last.over <= RUNS_KEPT and last.tasks <= RUN_TASKS_KEPT:
            break
        last = _without(draft, last, str(number))
    draft.write(records.LAST, replace(last, oldest=_oldest_kept(draft, last)))


def _oldest_over(draft: Draft, last: Last) -> Iterator[int]:
    found = 0
    for number in range(last.oldest, last.run + 1):
        if found == AT_ONCE:
            return
        key = records.over_key(str(number))
        if key not in draft.puts and draft.read(key, RunRecord) is not None:  # one that ends now is to be seen
            found += 1
            yield number


def _oldest_kept(draft: Draft, last: Last) -> int:
    oldest = last.oldest
    while oldest <= last.run and draft.run(str(oldest)) is None:
        oldest += 1
    return oldest


def _without(draft: Draft, last: Last, run: str) -> Last:
    record = draft.read(records.over_key(run), RunRecord)
    assert record is not None
    keys = (records.over_key(run), records.spec_key(run), records.plan_key(run), records.counts_key(run))
    for key in (*keys, *draft.names_below(records.nodes_prefix(run))):
        draft.remove(key)
    return replace(last, over=last.over - 1, tasks=last.tasks - record.targets)


# ---- restoring and recovering


def seen_before(keys: Keys) -> tuple[Last, dict[str, int]]:
    """What a restore must not forget: the numbers given out, and the epochs of the runs that are known."""
    draft = Draft(keys)
    last = draft.last()
    known = (draft.run(str(number)) for number in range(last.oldest, last.run + 1))
    return last, {record.id: record.epoch for record in known if record is not None}


def restored(draft: Draft, seen: tuple[Last, dict[str, int]]) -> None:
    """The keys are a backup's now.  Its runs under way are paused by an operator's hold and fenced: nothing begins before
    somebody has looked.  Nodes in flight stay so: they report, or the leader sees that they do not."""
    before, epochs = seen
    last = draft.last()
    if max(last.run, last.audit, before.run, before.audit) == 0:
        return
    draft.write(records.LAST, replace(last, run=max(last.run, before.run)))
    at = 0
    for record in list(draft.active()):
        if record.state not in OVER:
            at = max(at, record.changed_at)
            _fence(draft, record, max(record.epoch, epochs.get(record.id, 0)) + 1, "restore", _RESTORED)
    lost = f"a backup was restored; the chain that it replaced ended at {before.audit}"
    draft.audit(at, STORE, "restore", "", lost)


def recovered(draft: Draft, epochs: int) -> None:
    """The keys are all that is left of a group, which is `epochs` later now.  Lost servers may have given out any number after
    the last that is known here, also where none is."""
    last = draft.last()
    draft.write(records.LAST, replace(last, run=last.run + RECOVERY_RUNS * epochs))
    at = 0
    for record in list(draft.active()):
        if record.state not in OVER:
            at = max(at, record.changed_at)
            _fence(draft, record, record.epoch + RECOVERY_RUNS * epochs, "recover", _RECOVERED)
    if last.audit:
        lost = f"the store was recovered by force; what followed entry {last.audit} elsewhere is lost"
        draft.audit(at, STORE, "recover", "", lost)


def _fence(draft: Draft, record: RunRecord, epoch: int, verb: str, words: str) -> None:
    """Nothing that was granted before may begin, and nothing is granted before somebody has looked."""
    moving = Moving(draft, record)
    moving.take_grants_back()
    moving.change(epoch=epoch, words=words)
    if record.state is not RunState.AWAITING:
        moving.change(state=RunState.PAUSED, hold=Hold.OPERATOR)
    moving.save(record.changed_at)
    moving.audit(record.changed_at, STORE, verb)


def head(keys: Keys) -> AuditEntry | None:
    """The latest entry of the audit."""
    draft = Draft(keys)
    return draft.read(records.audit_key(draft.last().audit), AuditEntry)
