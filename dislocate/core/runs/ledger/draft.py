"""Drafts: what one entry reads of the runs' records, and what it would write.

Invariant: nothing of a draft shows in the store; its `puts` are committed whole or thrown away.  Counts are written together
with the tasks that they count, and a record's version grows once an entry that changes it.  Does not know what is legal.
"""

from collections.abc import Iterator
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from dislocate.core.boundary.events import NodeMoved, RunMoved
from dislocate.core.boundary.requests import Refused
from dislocate.core.boundary.runs import (
    OVER,
    AuditEntry,
    Direction,
    Frozen,
    NodeState,
    NodeTask,
    Record,
    RunPlan,
    RunRecord,
    RunState,
)
from dislocate.core.identity import Path
from dislocate.core.runs import records
from dislocate.core.runs.ledger.audit import next_entry
from dislocate.core.runs.ledger.transitions import COUNTS_AS_BAD
from dislocate.core.store.keys import Keys
from dislocate.core.tunables import RUN_AUDIT_KEPT, RUN_WORDS
from dislocate.core.words import count, may

T = TypeVar("T")
LEADER = "leader"  # who did what the controller did by itself


class Illegal(Exception):
    """It may not be done.  Nothing was changed: whoever drafts throws the draft away and answers `refused`."""

    def __init__(self, field: str, reason: str, kind: str = "conflict") -> None:
        super().__init__(field, reason)
        self.refused = Refused(kind, field, reason)


def claim(holds: bool, field: str, reason: str) -> None:
    """Raises `Illegal` unless it holds."""
    if not holds:
        raise Illegal(field, reason)


class Last(Record, frozen=True):
    """`records/runs/last`: the highest numbers given out, and what is kept."""

    run: int = 0
    audit: int = 0
    oldest: int = 1  # no run below it is kept
    over: int = 0  # runs that are over and kept
    tasks: int = 0  # their targets


class Draft:
    """What an entry makes of the records."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self.puts: dict[str, bytes | None] = {}
        self.events: list[RunMoved | NodeMoved] = []

    def read(self, key: str, type_: type[T]) -> T | None:
        """A record; None when there is none.  What cannot be read is none: before these keys were reserved anybody may
        have put anything there, and no server may end for it."""
        if key in self.puts:
            value = self.puts[key]
        else:
            kv = self._keys.get(key)
            value = kv.value if kv is not None else None
        if value is None:
            return None
        try:
            return msgspec.json.decode(value, type=type_)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None

    def write(self, key: str, record: object) -> None:
        self.puts[key] = records.encode(record)

    def remove(self, key: str) -> None:
        self.puts[key] = None

    def names_below(self, prefix: str) -> list[str]:
        """What the store has, in order; not what this draft adds."""
        return [kv.key for kv in self._keys.below(prefix)]

    # ---- runs

    def active(self) -> Iterator[RunRecord]:
        """All runs under way, by key, as the store has them."""
        for kv in self._keys.below(records.ACTIVE):
            record = self.read(kv.key, RunRecord)
            if record is not None:
                yield record

    def run(self, run: str) -> RunRecord | None:
        """Under way, or over."""
        return self.read(records.active_key(run), RunRecord) or self.read(records.over_key(run), RunRecord)

    def plan(self, run: str) -> RunPlan:
        return self.read(records.plan_key(run), RunPlan) or RunPlan((), ())

    def spec(self, run: str) -> Frozen:
        frozen = self.read(records.spec_key(run), Frozen)
        if frozen is None:
            raise Illegal("run", f"the specification of run {run} is not there any more: abort it", "unknown")
        return frozen

    def task(self, run: str, node: Path) -> NodeTask:
        """One that is absent is PENDING."""
        found = self.read(records.node_key(run, node), NodeTask)
        return found if found is not None else NodeTask(node=node, state=NodeState.PENDING)

    def tasks(self, run: str) -> Iterator[NodeTask]:
        """All that were ever anything but PENDING, by node."""
        for name in self.names_below(records.nodes_prefix(run)):
            task = self.read(name, NodeTask)
            if task is not None:
                yield task

    # ---- numbers

    def last(self) -> Last:
        return self.read(records.LAST, Last) or Last()

    def audit(self, at: int, actor: str, verb: str, run: str, evidence: str) -> None:
        """Append to the chain, and let its oldest entry go."""
        last = self.last()
        before = self.read(records.audit_key(last.audit), AuditEntry)
        evidence = evidence[:RUN_WORDS]
        entry = next_entry(before, at=at, actor=actor, verb=verb, run=run, evidence=evidence)
        self.write(records.audit_key(entry.number), entry)
        oldest = records.audit_key(max(0, entry.number - RUN_AUDIT_KEPT))
        if self._keys.get(oldest) is not None:
            self.remove(oldest)
        self.write(records.LAST, replace(last, audit=entry.number))


class Moving:
    """One run that an entry changes: collected here, written by `save`."""

    def __init__(self, draft: Draft, record: RunRecord) -> None:
        self.draft = draft
        self.before = record
        self.record = record
        self._plan: RunPlan | None = None
        self._batch_of: dict[Path, int] = {}
        self._counts: dict[NodeState, int] | None = None
        self._tasks: dict[Path, NodeTask] = {}  # moved; with their states of before
        self._moved: dict[Path, NodeState] = {}

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def is_over(self) -> bool:
        return self.record.state in OVER

    @property
    def is_reverting(self) -> bool:
        """Also while that is paused."""
        return self.record.direction is Direction.REVERT

    # ---- the plan

    @property
    def plan(self) -> RunPlan:
        if self._plan is None:
            self._plan = self.draft.plan(self.id)
            self._batch_of = {node: at for at, batch in enumerate(self._plan.batches) for node in batch.nodes}
        return self._plan

    def batch_of(self, node: Path) -> int:
        """Position of its batch.  Raises `Illegal` for a node that is none of the targets."""
        _ = self.plan
        if node not in self._batch_of:
            raise Illegal("node", f"{node} is no target of run {self.id}: `dislocate run status {self.id}` lists them")
        return self._batch_of[node]

    def present_nodes(self) -> tuple[Path, ...]:
        """Of the batch that is under way, or comes next."""
        batches = self.plan.batches
        return batches[self.record.batch].nodes if 0 <= self.record.batch < len(batches) else ()

    def is_behind(self, node: Path) -> bool:
        """Whether the run has left its batch, which is not opened by itself any more."""
        ahead = self.record.batch - self.batch_of(node)
        return ahead < 0 if self.is_reverting else ahead > 0

    def is_ahead(self, node: Path) -> bool:
        """Whether the run has yet to come to its batch."""
        return self.batch_of(node) != self.record.batch and not self.is_behind(node)

    # ---- nodes

    def task(self, node: Path) -> NodeTask:
        return self._tasks.get(node) or self.draft.task(self.id, node)

    def counts(self) -> dict[NodeState, int]:
        if self._counts is None:
            self._counts = self.draft.read(records.counts_key(self.id), dict[NodeState, int]) or {}
        return self._counts

    def bad(self) -> int:
        """Nodes that count against the budget."""
        counts = self.counts()
        return sum(counts.get(state, 0) for state in COUNTS_AS_BAD)

    @property
    def is_spent(self) -> bool:
        """The budget."""
        return self.bad() > self.record.budget

    @property
    def spent(self) -> str:
        """By whom it is, in words."""
        return f"{count(self.bad())} of run {self.id} failed or out of reach, and {may(self.record.budget)} be"

    def move(self, task: NodeTask, words: str = "") -> None:
        """A node's part is so now."""
        before = self.task(task.node).state
        self._tasks[task.node] = task
        if before is task.state:
            return
        counts = self.counts()
        for state, step in ((before, -1), (task.state, 1)):
            if state is not NodeState.PENDING:
                counts[state] = counts.get(state, 0) + step
        moved = NodeMoved(self.id, task.node, before.value, task.state.value, task.epoch, words or task.words)
        self.draft.events.append(moved)

    def take_grants_back(self) -> None:
        """What was granted and not asked for must not begin: the caller raises the epoch."""
        for node in self.record.granted:
            task = self.task(node)
            if task.state is NodeState.GRANTED:
                self.move(replace(task, state=NodeState.PENDING, ask=0), "its grant was taken back")
        self.change(granted=())

    def needs_revert(self, task: NodeTask) -> bool:
        """It was begun there, and is not taken back; an operator may say that it is not to be."""
        if not task.touched or task.state is NodeState.REVERTED:
            return False
        return not (task.state is NodeState.SKIPPED and task.direction is Direction.REVERT)

    # ---- the record

    def change(self, **fields: object) -> None:
        self.record = replace(self.record, **fields)

    def save_nodes(self) -> None:
        """Write what was moved, and the counts."""
        for node, task in self._tasks.items():
            self.draft.write(records.node_key(self.id, node), task)
        if self._counts is not None:
            ordered = {state.value: self._counts[state] for state in NodeState if self._counts.get(state)}
            self.draft.write(records.counts_key(self.id), ordered)

    def save(self, at: int) -> None:
        """Write all of it, at the next version."""
        self.save_nodes()
        before, record = self.before, replace(self.record, version=self.before.version + 1, changed_at=at)
        self.record = record
        was_over, is_over = before.state in OVER, record.state in OVER
        self.draft.write(records.over_key(self.id) if is_over else records.active_key(self.id), record)
        if was_over is not is_over:
            self.draft.remove(records.active_key(self.id) if is_over else records.over_key(self.id))
            self._count_over(1 if is_over else -1)
        if (before.state, before.hold) != (record.state, record.hold):
            self.tell(before.state.value)

    def tell(self, before: str) -> None:
        record = self.record
        self.draft.events.append(RunMoved(record.id, record.version, before, record.state.value, record.words))

    def _count_over(self, step: int) -> None:
        last, record = self.draft.last(), self.record
        oldest = min(last.oldest, int(record.id))
        last = replace(last, over=last.over + step, tasks=last.tasks + step * record.targets, oldest=oldest)
        self.draft.write(records.LAST, last)

    def audit(self, at: int, actor: str, verb: str, evidence: str = "") -> None:
        """Say in the chain what was done, with what became of the run's state."""
        before, now = _standing(self.before), _standing(self.record)
        moved = f"{before} -> {now}" if before != now else now
        self.draft.audit(at, actor, verb, self.id, "; ".join(filter(None, (moved, evidence))))


def _standing(record: RunRecord) -> str:
    held = f" ({record.hold.value})" if record.hold is not None and record.state is RunState.PAUSED else ""
    return f"{record.state.value}{held}"
