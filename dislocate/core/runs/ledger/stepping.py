"""Stepping: what a step of the leader makes of a run.

Invariants: a step decided at another version of the run, or on what is not so any more, is `Illegal` and changes nothing; so a
leader that was deposed, or one that repeats itself, does no harm.  No node is granted while the budget is spent, nor one that
is not of the present batch or to be tried again; no batch is left while anything of it is in flight.
"""

from collections.abc import Callable
from itertools import groupby
from typing import Any

from msgspec.structs import replace

from dislocate.core.boundary.runs import (
    Applied,
    Batch,
    Direction,
    Hold,
    NodeState,
    NodeTask,
    RunPlan,
    RunRecord,
    RunState,
)
from dislocate.core.boundary.spec import Join
from dislocate.core.identity import Path
from dislocate.core.runs import records
from dislocate.core.runs.ledger.draft import LEADER, Draft, Illegal, Moving, claim
from dislocate.core.runs.ledger.starting import first_shared, plan_fault
from dislocate.core.runs.ledger.steering import begin_revert
from dislocate.core.runs.ledger.transitions import (
    END_BY_THEMSELVES,
    FINISHES,
    GRANTABLE,
    IN_FLIGHT,
    LEADERS_HOLDS,
    MARKS,
    ONLY_APPLYING,
    SETTLED,
    STEPS,
    goes_on_as,
)
from dislocate.core.runs.steps import (
    CloseBatch,
    FinishRun,
    HoldRun,
    JoinNodes,
    Mark,
    MarkNodes,
    OpenBatch,
    ReleaseRun,
    RevertRun,
    RunStep,
)
from dislocate.core.tunables import RUN_WORDS
from dislocate.core.words import count, may


def step(draft: Draft, body: RunStep) -> int:
    """The version of the run after it.  Raises `Illegal`."""
    record = draft.read(records.active_key(body.run), RunRecord)
    if record is None:
        raise Illegal("run", f"no run {body.run} is under way", "unknown")
    moved_on = f"run {record.id} is at version {record.version}, not {body.version}: look again"
    claim(body.version == record.version, "version", moved_on)
    legal = FINISHES.get(body.state, ()) if isinstance(body, FinishRun) else STEPS[type(body)]
    name = type(body).__name__
    claim(record.state in legal, "state", f"{name} while run {record.id} is {record.state.value}")
    moving = Moving(draft, record)
    applying = not (moving.is_reverting and isinstance(body, ONLY_APPLYING))
    claim(applying, "state", f"{name} while run {record.id} is being reverted")
    verb = _STEPS[type(body)](moving, body)
    moving.save(body.at)
    if verb:
        moving.audit(body.at, LEADER, verb, moving.record.words)
    return moving.record.version


# ---- batches


def _open(moving: Moving, body: OpenBatch) -> str:
    record = moving.record
    claim(bool(body.nodes) and len(dict.fromkeys(body.nodes)) == len(body.nodes), "nodes", "nobody, or somebody twice")
    if record.direction is Direction.APPLY and moving.is_spent:
        raise Illegal("budget", f"{moving.spent}: nobody is granted anything")
    present = dict.fromkeys((*moving.present_nodes(), *record.retries))
    for node in body.nodes:
        task = moving.task(node)
        is_left_behind = moving.is_reverting and moving.is_behind(node)
        claim(
            node in present or is_left_behind,
            "nodes",
            f"{node} is neither of batch {record.batch} nor to be tried again",
        )
        legal = task.state in GRANTABLE[record.direction] and (not moving.is_reverting or moving.needs_revert(task))
        claim(legal, "nodes", f"{node} is {task.state.value}: it cannot be granted")
        expected = moving.plan.expected.get(node, "")
        granted = replace(
            task,
            state=NodeState.GRANTED,
            direction=record.direction,
            epoch=record.epoch,
            ask=0,
            expected=expected,
            applied=_applied(task, record.direction),
            kind="",
            words="",
            steps=(),
            took=0,
        )
        moving.move(granted)
    opened = dict.fromkeys(body.nodes)
    retries = tuple(node for node in record.retries if node not in opened)
    moving.change(granted=_in_flight(moving, (*record.granted, *body.nodes)), retries=retries)
    return ""


def _applied(task: NodeTask, direction: Direction) -> Applied | None:
    """What is kept of what it reported, which the report of the revert would overwrite."""
    if direction is Direction.APPLY:
        return None
    if task.direction is Direction.REVERT or not (task.steps or task.kind):
        return task.applied
    return Applied(state=task.state, kind=task.kind, words=task.words, steps=task.steps, took=task.took)


def _close(moving: Moving, body: CloseBatch) -> str:
    record, nodes = moving.record, moving.present_nodes()
    claim(bool(nodes), "batch", f"run {record.id} has no batch {record.batch}")
    for node in nodes:
        task = moving.task(node)
        if moving.is_reverting:
            waits = task.state in IN_FLIGHT or (moving.needs_revert(task) and task.state is not NodeState.REVERT_FAILED)
        else:
            waits = task.state not in SETTLED
        claim(not waits, "batch", f"{node} of batch {record.batch} is {task.state.value}")
    batch = record.batch + (-1 if moving.is_reverting else 1)
    moving.change(batch=batch, granted=_in_flight(moving, record.granted))
    return ""


def _in_flight(moving: Moving, nodes: tuple[Path, ...]) -> tuple[Path, ...]:
    return tuple(node for node in dict.fromkeys(nodes) if moving.task(node).state in IN_FLIGHT)


# ---- the run


def _hold(moving: Moving, body: HoldRun) -> str:
    record = moving.record
    claim(body.hold in LEADERS_HOLDS, "hold", "only an operator holds as one")
    held = f"run {record.id} is paused by an operator, who resumes it"
    claim(record.hold is None or record.hold in END_BY_THEMSELVES, "hold", held)
    claim(record.hold is not body.hold, "hold", f"run {record.id} is held for that already")
    moving.change(state=RunState.PAUSED, hold=body.hold, words=body.words[:RUN_WORDS])
    return "hold"


def _release(moving: Moving, body: ReleaseRun) -> str:
    record = moving.record
    claim(record.hold in END_BY_THEMSELVES, "hold", f"run {record.id} waits for an operator to resume it")
    failed = moving.counts().get(NodeState.FAILED, 0)
    out_of_reach = record.hold is Hold.BUDGET and moving.is_spent and failed <= record.budget
    claim(not out_of_reach, "budget", moving.spent)
    moving.change(state=goes_on_as(record.direction), hold=None, words=body.words[:RUN_WORDS])
    return "release"


def _revert(moving: Moving, body: RevertRun) -> str:
    record = moving.record
    by_itself = record.hold is None or record.hold in END_BY_THEMSELVES
    claim(by_itself, "hold", f"run {record.id} waits for an operator, who decides about it")
    begin_revert(moving, body.words[:RUN_WORDS])
    return "revert"


def _finish(moving: Moving, body: FinishRun) -> str:
    record, counts = moving.record, moving.counts()
    if body.state is RunState.FAILED:
        failed = counts.get(NodeState.FAILED, 0)
        claim(failed > record.budget, "budget", f"{count(failed)} failed, and {may(record.budget)}")
        held = f"run {record.id} waits for an operator, who decides about it"
        claim(record.hold is None or record.hold in END_BY_THEMSELVES, "hold", held)
        moving.take_grants_back()
        moving.change(epoch=record.epoch + 1, retries=())
    elif body.state is RunState.DONE:
        settled = sum(counts.get(state, 0) for state in SETTLED)
        all_of_it = record.batch == record.batches and not record.retries and settled == record.targets
        claim(all_of_it, "state", f"{count(record.targets - settled)} of run {record.id} still to come")
    else:
        _claim_reverted(moving, body.state)
    moving.change(state=body.state, hold=None, granted=(), words=body.words[:RUN_WORDS])
    return "finish"


def _claim_reverted(moving: Moving, state: RunState) -> None:
    record, counts = moving.record, moving.counts()
    in_flight = sum(counts.get(one, 0) for one in IN_FLIGHT)
    claim(record.batch < 0 and not in_flight, "state", f"batches or nodes of run {record.id} are still to come")
    left = [task for task in moving.draft.tasks(record.id) if moving.needs_revert(task)]
    for task in left:
        claim(task.state is NodeState.REVERT_FAILED, "state", f"{task.node} is {task.state.value}")
    expected = RunState.REVERT_FAILED if left else RunState.REVERTED
    claim(state is expected, "state", f"{count(len(left))} not reverted: run {record.id} is {expected.value}")


def _join(moving: Moving, body: JoinNodes) -> str:
    record, plan = moving.record, moving.plan
    claim(moving.draft.spec(record.id).spec.strategy.join is Join.APPLY, "join", f"run {record.id} lets nobody join")
    known, new = dict.fromkeys(plan.targets), dict.fromkeys(body.nodes)
    claim(bool(new) and not any(node in known for node in new), "nodes", "nobody, or somebody who is a target already")
    for other in moving.draft.active():
        shared = first_shared(moving.draft.plan(other.id), new) if other.id != record.id else None
        claim(shared is None, "nodes", f"{shared} is a target of run {other.id}")
    waves = groupby(sorted(new), key=lambda node: node.partition("/")[0])
    joined = tuple(Batch(wave, tuple(nodes)) for wave, nodes in waves)
    grown = RunPlan(tuple(sorted((*known, *new))), (*plan.batches, *joined), plan.revision, plan.expected)
    fault = plan_fault(grown)
    claim(not fault, "plan", fault)
    moving.draft.write(records.plan_key(record.id), grown)
    words = f"{count(len(new))} joined: {', '.join(new)}"[:RUN_WORDS]
    promoted = -1 if record.batch == record.batches else record.promoted  # the end was meant, not who joins
    moving.change(targets=len(grown.targets), batches=len(grown.batches), promoted=promoted, words=words)
    return "join"


# ---- nodes


def _mark(moving: Moving, body: MarkNodes) -> str:
    nodes = dict.fromkeys(mark.node for mark in body.marks)
    claim(bool(nodes) and len(nodes) == len(body.marks), "marks", "nobody, or somebody twice")
    for mark in body.marks:
        _mark_one(moving, mark)
    grants = any(mark.state is NodeState.GRANTED for mark in body.marks)
    spent = moving.record.state is RunState.RUNNING and moving.is_spent
    claim(not (grants and spent), "budget", "nobody is granted anything while the budget is spent: mark it pending")
    return ""


def _mark_one(moving: Moving, mark: Mark) -> None:
    record, node, now = moving.record, mark.node, mark.state
    batch, task = moving.batch_of(node), moving.task(node)
    legal = record.direction in MARKS.get((task.state, now), ())
    claim(legal, "marks", f"{node} is {task.state.value} and cannot become {now.value} for being seen or not")
    granted = tuple(one for one in record.granted if one != node)
    retries = tuple(one for one in record.retries if one != node)
    if task.state is NodeState.PENDING:
        due = node in record.retries or batch == record.batch
        claim(due, "marks", f"{node} is not due yet: that it is out of reach does not matter")
    elif now is NodeState.GRANTED:
        was_granted = task.epoch > 0 and task.direction is record.direction
        claim(was_granted, "marks", f"{node} was not granted anything: mark it pending")
        granted, task = (*granted, node), replace(task, epoch=record.epoch)
    elif now is NodeState.PENDING and moving.is_behind(node):
        retries = (*retries, node)
    elif now is NodeState.UNKNOWN:
        granted = record.granted  # it may ask again, if it was restarted
    moving.move(_marked(task, now, mark.words))
    moving.change(granted=granted, retries=retries)


def _marked(task: NodeTask, now: NodeState, words: str) -> NodeTask:
    ask = task.ask if now is NodeState.UNKNOWN else 0
    return replace(task, state=now, ask=ask, words=words[:RUN_WORDS])


_STEPS: dict[type, Callable[[Moving, Any], str]] = {
    OpenBatch: _open,
    CloseBatch: _close,
    HoldRun: _hold,
    ReleaseRun: _release,
    RevertRun: _revert,
    FinishRun: _finish,
    MarkNodes: _mark,
    JoinNodes: _join,
}
