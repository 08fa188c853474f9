"""A run told: its records in the store become what the edge answers.

Every target is in an answer: one that has no record yet is 'pending'.
"""

from collections.abc import Callable, Iterable, Sequence

from dislocate.core.boundary.runs import (
    OVER,
    Applied,
    Batch,
    Direction,
    Frozen,
    NodeState,
    NodeTask,
    RunPlan,
    RunRecord,
    Step,
)
from dislocate.core.boundary.views import InstanceView
from dislocate.core.identity import Path
from dislocate.core.runs.control.explain import explain
from dislocate.core.runs.control.picture import Picture
from dislocate.core.units import seconds
from dislocate.edge.run_answers import AppliedAnswer, BatchAnswer, NodeAnswer, RunAnswer, RunSummary, StepAnswer


def run_summary(record: RunRecord) -> RunSummary:
    return RunSummary(**_summary(record))


def run_answer(
    record: RunRecord,
    plan: RunPlan,
    tasks: dict[Path, NodeTask],
    frozen: Frozen | None,
    instances: Callable[[str], Sequence[InstanceView]],
    is_reachable: Callable[[Path], bool],
) -> RunAnswer:
    """Every target, by path.  `frozen`: its specification; `instances` of a service and `is_reachable`: as seen from here."""
    nodes: dict[Path, NodeAnswer] = {}
    waves = {path: batch.wave for batch in plan.batches for path in batch.nodes}
    for path in sorted(waves):
        task = tasks.get(path, NodeTask(node=path, state=NodeState.PENDING, direction=Direction.APPLY))
        nodes[path] = node_answer(task, waves[path], is_reachable(path))
    counts: dict[str, int] = {}
    for answer in nodes.values():
        counts[answer.state.value] = counts.get(answer.state.value, 0) + 1
    waits = ""
    if frozen is not None and record.state not in OVER:
        away = [path for path, answer in nodes.items() if not answer.reachable]
        floor = {service: instances(service) for service in frozen.spec.strategy.floor}
        waits = explain(Picture(record, plan, tasks, frozen), floor, away)
    return RunAnswer(
        **_summary(record),
        waits=waits,
        approved_by=record.approved_by,
        counts=counts,
        plan=batch_answers(plan.batches),
        nodes=nodes,
    )


def node_answer(task: NodeTask, wave: str, reachable: bool) -> NodeAnswer:
    return NodeAnswer(
        state=task.state,
        direction=task.direction,
        wave=wave,
        reachable=reachable,
        kind=task.kind,
        words=task.words,
        took=seconds(task.took),
        steps=_steps(task.steps),
        applied=None if task.applied is None else _applied(task.applied),
    )


def _applied(applied: Applied) -> AppliedAnswer:
    return AppliedAnswer(
        state=applied.state,
        kind=applied.kind,
        words=applied.words,
        took=seconds(applied.took),
        steps=_steps(applied.steps),
    )


def _steps(steps: Iterable[Step]) -> tuple[StepAnswer, ...]:
    return tuple(StepAnswer(step.resource, step.result, step.words, seconds(step.took)) for step in steps)


def batch_answers(batches: Iterable[Batch]) -> tuple[BatchAnswer, ...]:
    return tuple(BatchAnswer(batch.wave, batch.nodes) for batch in batches)


def _summary(record: RunRecord) -> dict[str, object]:
    same = ("id", "name", "title", "state", "version", "direction", "batch", "batches", "targets", "actor", "words")
    return {
        **{name: getattr(record, name) for name in same},
        "hold": record.hold.value if record.hold is not None else "",
        "started_at": seconds(record.started_at),
        "changed_at": seconds(record.changed_at),
    }
