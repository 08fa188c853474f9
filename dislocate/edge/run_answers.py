"""What the edge answers about runs, as typed values: built from the records in the store, and only here.

Instants are unix seconds and spans are seconds, both as floats.  Every target is in an answer: one that has no record yet is
'pending', one that cannot be asked is named with the reason.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from dislocate.core.boundary.runs import (
    OVER,
    AuditEntry,
    Batch,
    Direction,
    Frozen,
    NodeState,
    NodeTask,
    RunPlan,
    RunRecord,
    RunState,
    TaskResult,
    VisitResult,
)
from dislocate.core.boundary.spec import Resource
from dislocate.core.boundary.views import InstanceView
from dislocate.core.identity import Path
from dislocate.core.runs.control.explain import explain
from dislocate.core.runs.control.picture import Picture
from dislocate.core.runs.plan import plan_digest
from dislocate.core.runs.resources import is_owed_only, is_shared, resource_id
from dislocate.core.units import seconds
from dislocate.edge.answers import Answer

NAMED = 5  # nodes that a sentence names


class StartedAnswer(Answer, frozen=True):
    """The run is in the log: it goes on whatever becomes of this agent."""

    id: str
    state: RunState
    targets: int


class SteeredAnswer(Answer, frozen=True):
    """It was done; `version` is that of the run now."""

    id: str
    version: int


class RunSummary(Answer, frozen=True, kw_only=True):
    """One run."""

    id: str
    name: str
    title: str
    state: RunState
    hold: str  # why it is paused; empty: it is not
    version: int
    direction: Direction
    batch: int  # position of the batch that is under way, or comes next
    batches: int
    targets: int
    actor: str
    started_at: float
    changed_at: float
    words: str  # why it is as it is


class RunsAnswer(Answer, frozen=True):
    """Runs, the latest first."""

    runs: tuple[RunSummary, ...]
    age: float = 0.0  # so old may it be, where it is what is known here


class StepAnswer(Answer, frozen=True):
    """What a node made of one resource."""

    resource: str
    result: str
    words: str
    took: float


class NodeAnswer(Answer, frozen=True, kw_only=True):
    """One node's part."""

    state: NodeState
    direction: Direction
    wave: str
    reachable: bool  # from the agent that answers
    kind: str  # of a failure; 'drift': `words` say what is not as the run left it any more
    words: str
    failed: str  # why applying had, where that is taken back
    took: float
    steps: tuple[StepAnswer, ...]


class BatchAnswer(Answer, frozen=True):
    """Nodes that go together."""

    wave: str  # 'canary', or data centers
    nodes: tuple[Path, ...]


class RunAnswer(RunSummary, frozen=True, kw_only=True):
    """One run in full."""

    waits: str  # for what, in a sentence; empty where it is over
    approved_by: tuple[str, ...]
    counts: dict[str, int]  # nodes in each state
    plan: tuple[BatchAnswer, ...]
    nodes: dict[Path, NodeAnswer]
    age: float = 0.0  # so old may it be, where it is what is known here


class ResourceAnswer(Answer, frozen=True):
    """How a resource is: 'same', 'would change', 'untold' (a command without a check), 'failed', 'not reached'."""

    id: str
    result: str
    kind: str  # of a failure
    words: str
    diff: str  # unified


class GroupAnswer(Answer, frozen=True):
    """Nodes that look the same, to the last line."""

    nodes: tuple[Path, ...]
    resources: tuple[ResourceAnswer, ...]


class CheckAnswer(Answer, frozen=True, kw_only=True):
    """How nodes are; nothing was changed."""

    name: str
    targets: tuple[Path, ...]
    groups: tuple[GroupAnswer, ...]
    unreachable: dict[Path, str]  # why nothing is known of it


class PlanAnswer(CheckAnswer, frozen=True, kw_only=True):
    """What a run would do, and of what the plan holds."""

    plan: tuple[BatchAnswer, ...]
    spec_digest: str
    values_digest: str
    digests: dict[Path, str]
    revision: int
    doubts: tuple[str, ...]  # what else it names and nobody has


class AuditAnswer(Answer, frozen=True):
    """Who did what, in order; `more`: ask again with `after` = the last number."""

    entries: tuple[AuditEntry, ...]
    more: bool


class VerifiedAnswer(Answer, frozen=True):
    """Whether the chain of the audit holds; `hash` of the last entry is worth keeping elsewhere."""

    entries: int
    first: int
    last: int
    hash: str
    broken: int | None  # the first entry that does not fit
    words: str


class SecretAnswer(Answer, frozen=True):
    """A secret, without its value."""

    name: str
    version: int
    digest: str
    nodes: tuple[Path, ...]  # that can read it


class SecretsAnswer(Answer, frozen=True):
    secrets: tuple[SecretAnswer, ...]


# ---- runs


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
    steps = tuple(StepAnswer(step.resource, step.result, step.words, seconds(step.took)) for step in task.steps)
    return NodeAnswer(
        state=task.state,
        direction=task.direction,
        wave=wave,
        reachable=reachable,
        kind=task.kind,
        words=task.words,
        failed=task.failed,
        took=seconds(task.took),
        steps=steps,
    )


def batch_answers(batches: Iterable[Batch]) -> tuple[BatchAnswer, ...]:
    return tuple(BatchAnswer(batch.wave, batch.nodes) for batch in batches)


def named(paths: Sequence[Path]) -> str:
    """'fra/a1 and 5 more'."""
    if len(paths) <= NAMED:
        return ", ".join(paths)
    return f"{', '.join(paths[: NAMED - 1])} and {len(paths) - NAMED + 1} more"


def _summary(record: RunRecord) -> dict[str, object]:
    same = ("id", "name", "title", "state", "version", "direction", "batch", "batches", "targets", "actor", "words")
    return {
        **{name: getattr(record, name) for name in same},
        "hold": record.hold.value if record.hold is not None else "",
        "started_at": seconds(record.started_at),
        "changed_at": seconds(record.changed_at),
    }


# ---- how nodes look

Look: TypeAlias = tuple[str, str, str, str]  # result, kind of a failure, words, difference
_NOT_FAILED = tuple(result.value for result in TaskResult if result is not TaskResult.FAILED)


def groups_of(resources: Sequence[Resource], results: Iterable[VisitResult]) -> tuple[GroupAnswer, ...]:
    """Nodes with equal looks together, the largest group first; those that could not be asked are in none."""
    groups: dict[tuple[tuple[str, ...], ...], list[Path]] = {}
    for result in results:
        if result.unreachable:
            continue
        looks: list[Look] = [(each.result.value, each.kind, each.words, each.diff) for each in result.outcomes]
        looks += [("not reached", "", "", "")] * (len(resources) - len(looks))
        key = tuple(
            (resource_id(each), *look) for each, look in zip(resources, _with_owed(resources, looks), strict=False)
        )
        groups.setdefault(key, []).append(result.node)
    largest = sorted(groups.items(), key=lambda each: (-len(each[1]), each[1]))
    return tuple(GroupAnswer(tuple(nodes), tuple(ResourceAnswer(*look) for look in key)) for key, nodes in largest)


def _with_owed(resources: Sequence[Resource], looks: Sequence[Look]) -> list[Look]:
    """What is only notified has no state of its own: it would be done where something would change that notifies it, and is as
    it should be elsewhere."""
    told: list[Look] = []
    owed: dict[str, str] = {}  # by whom
    for resource, look in zip(resources, looks, strict=False):
        name = resource_id(resource)
        if is_owed_only(resource) and look[0] in _NOT_FAILED:
            look = ("would change", "", f"it is notified by {owed[name]}", "") if name in owed else ("same", "", "", "")
        if look[0] in ("would change", "untold"):
            for each in resource.notify:
                owed.setdefault(each, name)
        told.append(look)
    return told


def digests_of(resources: Sequence[Resource], results: Iterable[VisitResult]) -> dict[Path, str]:
    """By node, of how its own resources are; without those nodes of which that is not known."""
    return {
        result.node: plan_digest(
            (resource_id(resource), outcome.before)
            for resource, outcome in zip(resources, result.outcomes, strict=True)
            if not is_shared(resource)
        )
        for result in results
        if not result.unreachable and len(result.outcomes) == len(resources) and not _has_failed(result)
    }


def _has_failed(result: VisitResult) -> bool:
    return any(outcome.result is TaskResult.FAILED for outcome in result.outcomes)


def unreachable_of(results: Iterable[VisitResult]) -> dict[Path, str]:
    return {result.node: result.unreachable for result in results if result.unreachable}
