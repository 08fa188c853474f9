"""The worker: what one agent does of the runs that name it.

    the run's record names this node -> fetch the specification -> ask for the grant -> begin, within `GRANT_VALID` of asking
    -> carry out, with a journal -> report until that is answered

The record below `system/runs/` is a prompt and no more: the grant is the answer to this node's own asking.  An agent that was
restarted asks again and goes on from its journal; it reports what it cannot go on with, since the run is over or taken back.

Invariant: one run at a time on a node, nothing begun without a grant that was asked for by this process less than
`GRANT_VALID` ago by its own clock; what was begun is finished whatever becomes of the store, and reported once.
Does not decide who may begin (`ledger`), nor how a resource is brought about (`host`).
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from dislocate.core.boundary.events import TaskBegun, TaskEnded
from dislocate.core.boundary.requests import Refused
from dislocate.core.boundary.runs import (
    AskGrant,
    Direction,
    Granted,
    NodeState,
    NodeTask,
    ReportTask,
    RunRecord,
    RunState,
    TaskOutcome,
)
from dislocate.core.boundary.settings import Recovered
from dislocate.core.boundary.store import KeyChange, KeysRead, KeyValue, ReadKeys
from dislocate.core.boundary.values import StoredRecord
from dislocate.core.outbox import Outbox, Timer
from dislocate.core.runs.agent.actions import Work, work_to_apply, work_to_revert
from dislocate.core.runs.agent.carrying import Carrying, Writing
from dislocate.core.runs.agent.drift import Drift
from dislocate.core.runs.agent.fetching import fetch, fetch_task
from dislocate.core.runs.agent.journal import (
    PURPOSES,
    Journal,
    Journals,
    Kept,
    Purpose,
    asked_for,
    closed,
    granted_again,
    is_open,
    refused,
    report,
)
from dislocate.core.runs.agent.replaced import has_changed, lost_apply, lost_revert
from dislocate.core.runs.agent.reports import Reports
from dislocate.core.runs.door import StoreDoor
from dislocate.core.runs.records import ACTIVE, decode, over_key
from dislocate.core.runs.resources import is_once
from dislocate.core.runs.spec import ordered
from dislocate.core.streams import Streams
from dislocate.core.tunables import GRANT_VALID
from dislocate.core.units import SECOND

LOOK_AGAIN = 1 * SECOND  # the store did not answer, or has not all of it yet
ASKS_A_START = 1_000  # numbers of askings that a start of an agent has, which begins at least a millisecond later
STOPPED = "the agent ended while it did this"
MOVING = (RunState.RUNNING, RunState.REVERTING)
FINAL = (NodeState.DONE, NodeState.REVERTED)


class LookDue(Timer, frozen=True):
    """Is there anything to ask for?"""

    number: int  # outdated when another one was armed since


class Worker:
    """One agent's part in runs."""

    def __init__(self, out: Outbox, store: StoreDoor, streams: Streams, recovered: Recovered) -> None:
        self._out = out
        self._store = store
        self._journals = Journals(recovered.records)
        self._writing = Writing(out)
        self._reports = Reports(out, store, self._journals, streams["run reports"], self._report, self._reported)
        self._drift = Drift(out, store, self._journals, self._writing)
        self._drift.over = self._look
        self._drift.is_free = lambda: self._carrying is None and self._asking is None
        self._asking: str | None = None  # the run that is asked about
        self._carrying: Carrying | None = None
        self._refused: dict[str, int] = {}  # by run: the version at which it was refused
        self._records: dict[str, tuple[int, RunRecord]] = {}  # by key: as of which revision
        self._closing: dict[str, None] = {}  # keys of journals whose end is not durable yet
        self._asks = 0
        self._tasks = 0
        self._timer = 0

    def timers(self) -> dict[type, Callable[[Any], None]]:
        return {
            LookDue: self._look_due,
            **self._writing.timers(),
            **self._reports.timers(),
            **self._drift.timers(),
        }

    def start(self) -> None:
        self._store.listeners.append(self._changed)
        for journal in self._journals.all():
            if journal.state is not None and not journal.answered and journal.purpose is not Purpose.ENFORCE:
                self._reports.send(journal)
        self._drift.start()
        self._look()

    def task_progressed(self, task_id: str, outcome: TaskOutcome) -> bool:
        """Whether it was a task of a run."""
        if not task_id.startswith("run/"):
            return False
        if self._carrying is not None:
            self._carrying.task_progressed(task_id, outcome)
        self._drift.task_progressed(task_id, outcome)
        return True

    # ---- what is there to do

    def _changed(self, changes: Sequence[KeyChange]) -> None:
        if not changes or any(change.key.startswith(ACTIVE) for change in changes):
            self._look()

    def _look_due(self, timer: LookDue) -> None:
        if timer.number == self._timer:
            self._look()

    def _look_later(self, wait: int = LOOK_AGAIN) -> None:
        self._timer += 1
        self._out.arm(self._out.now + wait, LookDue(self._timer))

    def _look(self) -> None:
        """Take up the first run that wants this node, if it is free."""
        active = self._active()
        self._drift.active = tuple(record.id for record in active)
        self._refused = {record.id: self._refused[record.id] for record in active if record.id in self._refused}
        if self._carrying is not None or self._asking is not None:
            return
        self._tend_left(active)
        for record in active:
            if self._asking is None and self._carrying is None and self._wants(record):
                self._drift.yield_()
                self._take_up(record)

    def _active(self) -> list[RunRecord]:
        """Runs under way, those that began first first."""
        records: dict[str, tuple[int, RunRecord]] = {}
        for kv in self._store.held(ACTIVE):
            known = self._records.get(kv.key)
            found = known if known is not None and known[0] == kv.modified else _read(kv)
            if found is not None:
                records[kv.key] = found
        self._records = records
        return sorted((record for _, record in records.values()), key=lambda one: (one.started_at, len(one.id), one.id))

    def _wants(self, record: RunRecord) -> bool:
        """Whether this node is to ask for a grant now."""
        journal = self._journals.get(record.id, PURPOSES[record.direction])
        has_begun = record.state is RunState.PAUSED and journal is not None and journal.state is None
        if not (record.state in MOVING or has_begun):
            return False
        if self._refused.get(record.id) == record.version or self._drift.is_enforcing:
            return False
        if journal is not None and _is_old(record, journal):
            return False
        applied = self._journals.get(record.id, Purpose.APPLY)
        if record.direction is Direction.REVERT and applied is not None and not applied.answered:
            return False  # first it is known what is to be taken back
        if journal is None or is_open(journal):
            return self._out.node.path in record.granted or journal is not None
        is_final = journal.state in FINAL and journal.epoch == record.epoch
        return journal.answered and not is_final and self._out.node.path in record.granted

    # ---- asking

    def _take_up(self, record: RunRecord) -> None:
        self._asking = record.id

        def then(kept: Kept | None) -> None:
            if kept is None:
                self._not_now()
            else:
                self._prepare(record, kept)

        kept = self._journals.kept(record.id)
        if kept is not None:
            then(kept)
        else:
            fetch(self._store, self._out.node.path, record, then)

    def _not_now(self) -> None:
        self._asking = None
        self._look_later()

    def _prepare(self, record: RunRecord, kept: Kept) -> None:
        journal = self._journals.get(record.id, PURPOSES[record.direction])
        is_guard = record.direction is Direction.APPLY and any(map(is_once, kept.frozen.spec.resources))
        if journal is None and is_guard:
            self._ask_whether_begun(record, kept)
        else:
            self._ask_durably(record, kept, journal or self._new_journal(record, kept))

    def _new_journal(self, record: RunRecord, kept: Kept) -> Journal:
        name, number = kept.frozen.spec.name, self._journals.next_number()
        return Journal(run=record.id, name=name, purpose=PURPOSES[record.direction], number=number, epoch=record.epoch)

    def _ask_durably(self, record: RunRecord, kept: Kept, journal: Journal) -> None:
        """That it is asked for is durable before."""
        records = (self._journals.keep(record.id, kept), self._journals.put(asked_for(journal, record.epoch)))
        self._writing.write(records, lambda: self._ask(record, kept))

    def _ask_whether_begun(self, record: RunRecord, kept: Kept) -> None:
        """The journal is the guard of what is done once, and there is none: was there ever?"""

        def then(task: NodeTask | None) -> None:
            journal = self._new_journal(record, kept)
            lost = lost_apply(journal, task)
            if lost is None:
                self._ask_durably(record, kept, journal)
            else:
                self._asking = None
                self._close(lost, self._journals.keep(record.id, kept))

        fetch_task(self._store, self._out.node.path, record.id, then, self._not_now)

    def _ask(self, record: RunRecord, kept: Kept) -> None:
        node, asked_at = self._out.node, self._out.now
        self._asks += 1
        ask = node.boot * ASKS_A_START + self._asks

        def then(result: Any) -> None:
            self._answered(record, kept, ask, asked_at, result)

        self._store.ask(AskGrant(record.id, node.path, record.epoch, ask), then)

    def _answered(self, record: RunRecord, kept: Kept, ask: int, asked_at: int, result: Any) -> None:
        if isinstance(result, Granted) and result.run == record.id and result.ask == ask:
            if self._out.now - asked_at <= GRANT_VALID:
                self._granted(result, kept)
            else:
                self._ask(record, kept)
        elif isinstance(result, Refused) and result.kind != "unavailable":
            self._asking = None
            self._refused[record.id] = record.version
            self._forget_asking(record)
            self._look()
        else:
            self._not_now()

    def _forget_asking(self, record: RunRecord) -> None:
        """It was refused.  What was begun stays open: it is asked for at the next version, or closed."""
        journal = self._journals.get(record.id, PURPOSES[record.direction])
        assert journal is not None
        left = refused(journal)
        self._out.store((self._journals.drop(journal) if left is None else self._journals.put(left),), sync=False)

    def _granted(self, granted: Granted, kept: Kept) -> None:
        applied = self._journals.get(granted.run, Purpose.APPLY)
        if granted.direction is Direction.REVERT and applied is None:
            self._ask_what_was_done(granted, kept)
        elif granted.direction is Direction.REVERT and applied is not None and applied.is_partial:
            self._cannot_revert(granted)
        else:
            self._begin(granted, kept)

    # ---- doing

    def _begin(self, granted: Granted, kept: Kept) -> None:
        resources = ordered(kept.frozen.spec)
        asked = self._journals.get(granted.run, PURPOSES[granted.direction])
        assert asked is not None
        if granted.direction is Direction.APPLY:
            works = work_to_apply(resources)
        else:
            applied = self._journals.get(granted.run, Purpose.APPLY)
            works = work_to_revert(resources, applied, self._journals.get(granted.run, Purpose.ENFORCE))
        self._carry(granted_again(asked, granted.epoch), kept, works, granted.expected)

    def _carry(self, journal: Journal, kept: Kept, works: tuple[Work, ...], expected: str) -> None:
        self._asking = None
        self._carrying = Carrying(
            self._out,
            self._journals,
            self._writing,
            kept,
            works,
            journal,
            self._over,
            expected=expected,
            first_task=self._tasks,
        )
        self._out.notify(TaskBegun(journal.run, journal.epoch, journal.purpose.value))
        self._carrying.go_on()

    def _over(self, journal: Journal) -> None:
        """It has ended, durably."""
        assert journal.state is not None
        assert self._carrying is not None
        self._tasks = self._carrying.tasks
        self._carrying = None
        words = journal.words
        self._out.notify(TaskEnded(journal.run, journal.epoch, journal.purpose.value, journal.state.value, words))
        self._reports.send(journal)
        self._look()

    def _ask_what_was_done(self, granted: Granted, kept: Kept) -> None:
        """There is nothing here to take back: was there ever?"""

        def then(task: NodeTask | None) -> None:
            if has_changed(task):
                self._cannot_revert(granted)
            else:
                self._begin(granted, kept)

        fetch_task(self._store, self._out.node.path, granted.run, then, self._not_now)

    def _cannot_revert(self, granted: Granted) -> None:
        self._asking = None
        asked = self._journals.get(granted.run, Purpose.REVERT)
        assert asked is not None
        self._close(lost_revert(asked))

    # ---- what is left open

    def _tend_left(self, active: Sequence[RunRecord]) -> None:
        """What was begun, or asked for, and is not to be gone on with is reported as it stands."""
        under_way = {record.id: record for record in active}
        for journal in self._journals.all():
            if journal.purpose is Purpose.ENFORCE or not is_open(journal) or journal.key in self._closing:
                continue
            record = under_way.get(journal.run)
            if record is None:
                self._ask_whether_over(journal)
            elif PURPOSES[record.direction] is not journal.purpose and not _is_old(record, journal):
                self._close(closed(journal, f"{STOPPED}, and the run is taken back since"))

    def _ask_whether_over(self, journal: Journal) -> None:
        """What is held here of `system/` may be from before the run began: only the store knows."""

        def then(result: Any) -> None:
            self._asking = None
            if isinstance(result, KeysRead) and result.keys:
                self._close(closed(journal, f"{STOPPED}, and the run was over when it was back"))
                self._look()
            else:
                self._look_later()

        if self._asking is None:
            self._asking = journal.run
            self._store.ask(ReadKeys(over_key(journal.run)), then)

    def _close(self, journal: Journal, *others: StoredRecord) -> None:
        """Over without anything having been done about it now; `others` are written with that."""
        self._closing[journal.key] = None

        def then() -> None:
            del self._closing[journal.key]
            self._reports.send(journal)

        self._writing.write((*others, self._journals.put(journal)), then)

    # ---- reporting

    def _report(self, journal: Journal) -> ReportTask:
        kept = self._journals.kept(journal.run)
        resources = () if kept is None else ordered(kept.frozen.spec)
        return report(journal, self._out.node.path, resources)

    def _reported(self, _journal: Journal) -> None:
        gone = self._journals.drop_old((*self._drift.needed(), *(record.id for _, record in self._records.values())))
        if gone:
            self._out.store(gone, sync=False)
        self._drift.changed()
        self._look()


def _is_old(record: RunRecord, journal: Journal) -> bool:
    """Whether what is held of the store is from before this was asked for: an agent that starts catches up first."""
    return record.epoch < journal.epoch


def _read(kv: KeyValue) -> tuple[int, RunRecord] | None:
    """None where it cannot be read: somebody else's version of us wrote it, and no agent may end for that."""
    try:
        return kv.modified, decode(kv.value, RunRecord)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
