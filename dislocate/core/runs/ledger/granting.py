"""Granting: a node asks for what the leader granted it, and reports what it made of it.

Invariants: a node that was not granted, under an older epoch, or while the run is paused or its budget spent, does not begin
(one that had begun, and was restarted, goes on while it is paused: what is in flight ends, or a budget that it spends itself
would never be whole again);
one report counts for one start, and the same again changes nothing but what has drifted since.  A node in flight may always
report: also to a run that is paused or over, so that its record is true.  Neither touches the run's record, which every agent
follows, save when a report makes a spent budget whole again: then those that were refused are to ask anew.
"""

from msgspec.structs import replace

from dislocate.core.boundary.runs import (
    DRIFT,
    AskGrant,
    Direction,
    Granted,
    NodeState,
    NodeTask,
    ReportTask,
    RunRecord,
    RunState,
)
from dislocate.core.runs.ledger.draft import Draft, Illegal, Moving, claim
from dislocate.core.runs.ledger.transitions import ASKABLE, REPORTABLE, REPORTS


def ask(draft: Draft, body: AskGrant) -> Granted:
    """Raises `Illegal`."""
    record = _run(draft, body.run)
    moving = Moving(draft, record)
    task = moving.task(body.node)
    is_in_flight = record.state is RunState.PAUSED and task.state in (NodeState.STARTED, NodeState.UNKNOWN)
    may_begin = record.state in (RunState.RUNNING, RunState.REVERTING) or is_in_flight
    claim(
        may_begin,
        "run",
        f"run {record.id} is {record.state.value}: nothing begins, {body.node} is prompted when it may",
    )
    fenced = f"run {record.id} is at epoch {record.epoch}, not {body.epoch}: what was granted before must not begin"
    claim(body.epoch == record.epoch, "epoch", fenced)
    claim(
        task.state in ASKABLE, "node", f"{body.node} is {task.state.value} in run {record.id}: it waits for its grant"
    )
    begun = f"{body.node} began to {task.direction.value} in run {record.id}: it is to report that first"
    claim(task.direction is record.direction, "node", begun)
    granted = Granted(record.id, record.epoch, body.ask, record.direction, _expected(task))
    if task.state is NodeState.STARTED and (task.ask, task.epoch) == (body.ask, body.epoch):
        return granted  # the same asking once more
    if task.state is NodeState.GRANTED and record.direction is Direction.APPLY and moving.is_spent:
        raise Illegal("budget", f"{moving.spent}: nobody begins")
    moving.move(replace(task, state=NodeState.STARTED, epoch=body.epoch, ask=body.ask, touched=True, words=""))
    moving.save_nodes()
    return granted


def report(draft: Draft, body: ReportTask) -> int:
    """The version of the run.  Raises `Illegal`."""
    record = _run(draft, body.run)
    moving = Moving(draft, record)
    task = moving.task(body.node)
    before = f"run {record.id} has nothing of {body.node} under epoch {body.epoch}"
    claim(task.epoch == body.epoch and task.ask != 0, "epoch", f"{before}, but {task.state.value} under {task.epoch}")
    wrong = f"{body.node} was to {task.direction.value}: {body.state.value} is no report of that"
    # What was skipped in flight stays skipped, whatever was its direction; what it did is kept with it.
    if task.state is NodeState.SKIPPED:
        _keep_skipped(moving, task, body)
        return record.version
    claim(body.state in REPORTS[task.direction], "state", wrong)
    if task.state is body.state:
        if body.kind == DRIFT and task.state is NodeState.DONE:
            moving.move(replace(task, kind=DRIFT if body.words else "", words=body.words))
            moving.save_nodes()
        return record.version  # the same report once more
    known = f"{body.node} is {task.state.value} in run {record.id}: one report counts for one start"
    claim(task.state in REPORTABLE, "state", known)
    was_spent = moving.is_spent
    told = replace(task, state=body.state, kind=body.kind, words=body.words, steps=body.steps, took=body.took)
    moving.move(told)
    if was_spent and not moving.is_spent and record.state is RunState.RUNNING:
        moving.save(record.changed_at)
    else:
        moving.save_nodes()
    return moving.record.version


def _keep_skipped(moving: Moving, task: NodeTask, body: ReportTask) -> None:
    if not task.steps and not task.took:
        words = f"{task.words}; reported {body.state.value}" + (f": {body.words}" if body.words else "")
        told = replace(task, kind=body.kind, words=words, steps=body.steps, took=max(1, body.took))
        moving.move(told)
        moving.save_nodes()


def _run(draft: Draft, run: str) -> RunRecord:
    record = draft.run(run)
    if record is None:
        raise Illegal("run", f"there is no run {run} any more: nobody waits for what it was granted", "unknown")
    return record


def _expected(task: NodeTask) -> str:
    return task.expected if task.direction is Direction.APPLY else ""
