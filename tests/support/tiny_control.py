"""A controller in two lines: a small store that applies its steps, and nodes that do what they are granted.

The store is a model that follows the protocol, so that the controller can be judged without the ledger: it refuses what is
illegal, and remembers what it refused.
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from dislocate.core.boundary.runs import (
    OVER,
    Batch,
    Direction,
    Frozen,
    Hold,
    NodeState,
    NodeTask,
    RunPlan,
    RunRecord,
    RunState,
    Verb,
)
from dislocate.core.boundary.store import KeyChange, KeyValue
from dislocate.core.boundary.views import InstanceView
from dislocate.core.identity import NodeId, Path
from dislocate.core.outbox import Outbox
from dislocate.core.rumors import Rumors
from dislocate.core.runs.control.leading import Leading
from dislocate.core.runs.control.picture import Picture
from dislocate.core.runs.ledger.transitions import IN_FLIGHT
from dislocate.core.runs.records import (
    active_key,
    decode,
    encode,
    node_key,
    nodes_prefix,
    over_key,
    plan_key,
    spec_key,
)
from dislocate.core.runs.steps import (
    CloseBatch,
    FinishRun,
    HoldRun,
    JoinNodes,
    MarkNodes,
    OpenBatch,
    ReleaseRun,
    RevertRun,
    RunStep,
)
from dislocate.core.store.keys import Keys
from dislocate.core.units import SECOND, parse_duration
from tests.support.tiny_runs import MONDAY, said


class TinyStore:
    """A `StoreDoor` whose log takes what is proposed when `commit` is called."""

    def __init__(self) -> None:
        self.listeners: list[Callable[[Sequence[KeyChange]], None]] = []
        self.keys: Keys | None = Keys()
        self.leads = True
        self.waiting: list[RunStep] = []
        self.applied: list[RunStep] = []
        self.refused: list[tuple[RunStep, str]] = []
        self.revision = 0

    # ---- the door

    def propose(self, step: RunStep) -> bool:
        if not self.leads:
            return False
        self.waiting.append(step)
        return True

    def ask(self, request: Any, then: Callable[[Any], None]) -> None:
        raise AssertionError("a controller asks nobody")

    def held(self, prefix: str) -> tuple[KeyValue, ...]:
        return tuple(self.keys.below(prefix))

    # ---- the log

    def begin(self, begun: Picture) -> None:
        run = begun.record.id
        self._put(active_key(run), begun.record)
        self._put(plan_key(run), begun.plan)
        self._put(spec_key(run), begun.frozen)
        for task in begun.tasks.values():
            self._put(node_key(run, task.node), task)

    def picture(self, run: str = "7") -> Picture:
        found = self.keys.get(active_key(run)) or self.keys.get(over_key(run))
        prefix = nodes_prefix(run)
        return Picture(
            decode(found.value, RunRecord),
            decode(self.keys.get(plan_key(run)).value, RunPlan),
            {kv.key[len(prefix) :]: decode(kv.value, NodeTask) for kv in self.keys.below(prefix)},
            decode(self.keys.get(spec_key(run)).value, Frozen),
        )

    def commit(self) -> None:
        """Apply what is in the log."""
        waiting, self.waiting = self.waiting, []
        for step in waiting:
            before = self.picture(step.run)
            why = illegal(before, step)
            if why:
                self.refused.append((step, why))
                continue
            self.applied.append(step)
            self._apply(before, step)

    def write(self, before: Picture, nodes: Sequence[NodeTask] = (), **fields: Any) -> None:
        """The record moves on, and so do these nodes."""
        record = msgspec.structs.replace(before.record, version=before.record.version + 1, **fields)
        changes = [self._put(node_key(record.id, task.node), task) for task in nodes]
        changes.append(self._put(active_key(record.id), record))
        self._tell(changes)

    def report(self, node: Path, state: NodeState, *, kind: str = "", words: str = "") -> None:
        """A node begins what it was granted, or tells what became of it: the record stays as it is."""
        before = self.picture()
        task = before.tasks[node]
        direction = before.record.direction if state is NodeState.STARTED else task.direction
        epoch = before.record.epoch if state is NodeState.STARTED else task.epoch
        moved = msgspec.structs.replace(
            task, state=state, touched=True, direction=direction, epoch=epoch, kind=kind, words=words
        )
        self._tell([self._put(node_key("7", node), moved)])

    def steer(self, verb: Verb, node: Path = "") -> bool:
        """An operator's verb, where it is legal; False: it is not."""
        before = self.picture()
        record = before.record
        if record.state in OVER:
            return False
        match verb:
            case Verb.PAUSE if record.hold is not Hold.OPERATOR:
                self.write(before, state=RunState.PAUSED, hold=Hold.OPERATOR)
            case Verb.RESUME if record.state is RunState.PAUSED:
                is_apply = record.direction is Direction.APPLY
                self.write(before, state=RunState.RUNNING if is_apply else RunState.REVERTING, hold=None)
            case Verb.PROMOTE if record.direction is Direction.APPLY and before.batch is not None:
                self.write(before, promoted=record.batch)
            case Verb.SKIP if _may_skip(before, node):
                again = tuple(one for one in record.retries if one != node)
                self.write(before, [_moved(before, node, NodeState.SKIPPED)], retries=again)
            case Verb.RETRY if _may_retry(before, node):
                moved = msgspec.structs.replace(_moved(before, node, NodeState.PENDING), epoch=record.epoch + 1)
                again = tuple(one for one in record.retries if one != node)
                if node not in ahead(before):
                    again = (*again, node)
                self.write(before, [moved], retries=again, epoch=record.epoch + 1)
            case _:
                return False
        return True

    def _apply(self, before: Picture, step: RunStep) -> None:
        record = before.record
        match step:
            case OpenBatch(nodes=nodes):
                again = tuple(node for node in record.retries if node not in nodes)
                self.write(before, [_moved(before, n, NodeState.GRANTED) for n in nodes], retries=again)
            case CloseBatch():
                self.write(before, batch=record.batch + (1 if record.direction is Direction.APPLY else -1))
            case HoldRun(hold=hold, words=words):
                self.write(before, state=RunState.PAUSED, hold=hold, words=words)
            case ReleaseRun(words=words):
                self.write(before, state=RunState.RUNNING, hold=None, words=words)
            case RevertRun(words=words):
                granted = [_moved(before, n, NodeState.PENDING) for n in before.those(NodeState.GRANTED)]
                begun = [at for at, batch in enumerate(before.plan.batches) for n in batch.nodes if _began(before, n)]
                last = max(min(record.batch, len(before.plan.batches) - 1), *begun, 0)
                fields = {"direction": Direction.REVERT, "epoch": record.epoch + 1, "batch": last, "hold": None}
                self.write(before, granted, state=RunState.REVERTING, words=words, retries=(), **fields)
            case MarkNodes(marks=marks):
                here = (*before.batch_nodes, *record.retries)
                back = [mark.node for mark in marks if mark.state is NodeState.PENDING and mark.node not in here]
                gone = [mark.node for mark in marks if mark.state is NodeState.UNREACHABLE]
                again = (*(node for node in record.retries if node not in gone), *back)
                self.write(before, [_moved(before, mark.node, mark.state) for mark in marks], retries=again)
            case JoinNodes(nodes=nodes):
                batches = (*before.plan.batches, Batch(nodes[0].partition("/")[0], nodes))
                self._put(plan_key(record.id), RunPlan((*before.plan.targets, *nodes), batches))
                self.write(before, batches=len(batches), targets=record.targets + len(nodes))
            case FinishRun(state=state, words=words):
                self.write(before, state=state, words=words)
                over = self.keys.get(active_key(record.id))
                self.keys.remove(active_key(record.id))
                self._put(over_key(record.id), decode(over.value, RunRecord))

    def _put(self, key: str, record: Any) -> KeyChange:
        self.revision += 1
        kv = KeyValue(key, encode(record), self.revision, self.revision, 1)
        self.keys.put(kv)
        return KeyChange(key, self.revision, kv)

    def _tell(self, changes: list[KeyChange]) -> None:
        for listener in self.listeners:
            listener(changes)


RETRYABLE = (NodeState.FAILED, NodeState.UNREACHABLE, NodeState.UNKNOWN, NodeState.SKIPPED)


def ahead(before: Picture) -> list[Path]:
    """Nodes whose batch has yet to come, in the direction of the run."""
    batches, at = before.plan.batches, before.record.batch
    is_apply = before.record.direction is Direction.APPLY
    return [node for batch in (batches[at + 1 :] if is_apply else batches[: max(0, at)]) for node in batch.nodes]


def _began(before: Picture, node: Path) -> bool:
    task = before.tasks.get(node)
    return task is not None and task.touched


def _may_retry(before: Picture, node: Path) -> bool:
    if before.record.direction is Direction.REVERT:
        return before.state(node) is NodeState.REVERT_FAILED
    return before.state(node) in RETRYABLE


def _may_skip(before: Picture, node: Path) -> bool:
    if before.record.direction is Direction.REVERT:
        return before.is_to_be_reverted(node) or before.state(node) in (NodeState.GRANTED, NodeState.UNKNOWN)
    skippable = (NodeState.PENDING, NodeState.GRANTED, NodeState.UNREACHABLE, NodeState.UNKNOWN, NodeState.FAILED)
    return before.state(node) in skippable


def illegal(before: Picture, step: RunStep) -> str:
    """Why the log refuses `step`; empty: it does not."""
    record, is_apply = before.record, before.record.direction is Direction.APPLY
    going = record.state in (RunState.RUNNING, RunState.REVERTING)
    here = before.batch_nodes
    if step.version != record.version:
        return "another version"
    match step:
        case OpenBatch(nodes=nodes):
            later = ahead(before)
            left_behind = () if is_apply else (node for node in before.nodes if node not in later)
            may = (*here, *record.retries, *left_behind)
            if not going or not nodes or any(node not in may for node in nodes):
                return "not now, or not these"
            if is_apply and before.is_spent:
                return "the budget is spent"
            grantable = [
                n for n in nodes if (is_apply and before.state(n) is NodeState.PENDING) or before.is_to_be_reverted(n)
            ]
            return "" if len(grantable) == len(nodes) else "not in this state"
        case CloseBatch():
            open_ = (*IN_FLIGHT, *((NodeState.PENDING,) if is_apply else ()))
            ready = not any(before.state(n) in open_ or (not is_apply and before.is_to_be_reverted(n)) for n in here)
            return "" if going and before.batch is not None and ready else "not settled"
        case HoldRun() | JoinNodes():
            return "" if record.state is RunState.RUNNING else "it does not run"
        case ReleaseRun():
            return "" if record.state is RunState.PAUSED and record.hold is not Hold.OPERATOR else "it is not held"
        case RevertRun():
            return "" if record.state in (RunState.RUNNING, RunState.PAUSED) and is_apply else "not now"
        case FinishRun(state=state):
            is_through = not before.in_flight and before.batch is None and not record.retries
            is_failed = state is RunState.FAILED and len(before.failed) > record.budget
            return "" if is_failed or (going and is_through) else "not through"
        case MarkNodes(marks=marks):
            moves = [(before.state(mark.node), mark.state) for mark in marks]
            return "" if marks and all(move in MARKS for move in moves) else f"no such move: {moves}"


MARKS = (
    (NodeState.PENDING, NodeState.UNREACHABLE),
    (NodeState.GRANTED, NodeState.UNREACHABLE),
    (NodeState.STARTED, NodeState.UNKNOWN),
    (NodeState.UNREACHABLE, NodeState.PENDING),
)


def _moved(before: Picture, node: Path, state: NodeState) -> NodeTask:
    task = before.tasks.get(node) or NodeTask(node=node, state=state)
    if state is NodeState.SKIPPED:
        return msgspec.structs.replace(task, state=state, direction=before.record.direction)
    if state is NodeState.GRANTED:
        record = before.record
        return msgspec.structs.replace(task, state=state, direction=record.direction, epoch=record.epoch)
    return msgspec.structs.replace(task, state=state)


# ---- a leader in a fleet


class TinyFleet:
    """A `FleetDoor`: who is away, and how instances do."""

    def __init__(self) -> None:
        self.away: list[Path] = []
        self.found: dict[str, tuple[InstanceView, ...]] = {}
        self.fitting: tuple[Path, ...] = ()  # whom every expression of targets selects

    def is_reachable(self, path: Path) -> bool:
        return path not in self.away and f"{path.partition('/')[0]}/*" not in self.away

    def instances(self, service: str) -> tuple[InstanceView, ...]:
        return self.found.get(service, ())

    def matching(self, expression: str) -> tuple[Path, ...]:
        return self.fitting


class TinyRun:
    """A run, its leader, and nodes that do what they are granted when `work` says so."""

    def __init__(self, begun: Picture, store: TinyStore | None = None) -> None:
        self.store = store or TinyStore()
        self.fleet = TinyFleet()
        self.bad: dict[Path, str] = {}  # nodes that will fail, with the words
        self.now = SECOND
        if store is None:
            self.store.begin(begun)
        self._told = 0
        self.new_leader()

    def new_leader(self) -> None:
        """Somebody else, who knows only what is in the store."""
        node = NodeId("fra", "a1", 1)
        self.out = Outbox(node, Rumors())
        self.out.now = self.now
        self.out.read_clock(MONDAY + self.now)
        self.store.listeners.clear()
        self.leading = Leading(self.out, self.store, self.fleet)
        self.leading.start()

    def run(self, time: str, *, work: bool = True, at: Callable[[int], None] = lambda _now: None) -> list[str]:
        """Let so much time pass, and tell it `at` each moment; what happened in it, line by line."""
        end = self.now + parse_duration(time)
        while True:
            self.now = self.out.now = max(self.now, min(self.out.deadline(), end))
            at(self.now)
            self._fire()
            self.store.commit()
            if work:
                self.work()
            if self.out.deadline() > end:
                self.now = self.out.now = end
                return self.told()

    def work(self, *only: Path) -> None:
        """Nodes within reach begin what they were granted, and report what they began."""
        before = self.store.picture()
        is_on = before.record.state in (RunState.RUNNING, RunState.REVERTING)
        for node in only or before.in_flight:
            state = before.state(node)
            if not self.fleet.is_reachable(node) or state not in IN_FLIGHT:
                continue
            if state is NodeState.GRANTED:
                if is_on:
                    self.store.report(node, NodeState.STARTED)
            else:
                self._report(node, before.tasks[node].direction)

    def _report(self, node: Path, direction: Direction) -> None:
        is_apply = direction is Direction.APPLY
        good, bad = (NodeState.DONE, NodeState.FAILED) if is_apply else (NodeState.REVERTED, NodeState.REVERT_FAILED)
        words = self.bad.get(node)
        if words is None:
            self.store.report(node, good)
        else:
            self.store.report(node, bad, kind="apply", words=words)

    def told(self) -> list[str]:
        """What was applied since it was asked last."""
        steps = self.store.applied[self._told :]
        self._told += len(steps)
        return [said(step) for step in steps]

    def _fire(self) -> None:
        timers = self.leading.timers()
        while (timer := self.out.due()) is not None:
            timers[type(timer)](timer)
