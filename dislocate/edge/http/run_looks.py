"""Plan and check: nodes look at their resources and change nothing.

Every target is in the answer: with its looks in a group of equal ones, or by name with the reason why nothing is known of it.
"""

import re
from collections.abc import Sequence

import msgspec
from gevent.pool import Pool

from dislocate.core.boundary.runs import RunPlan, Task, TaskResult, TaskVerb, Visit, VisitResult
from dislocate.core.boundary.spec import Resource, RunSpec
from dislocate.core.errors import LocalError
from dislocate.core.identity import Path
from dislocate.core.runs.plan import make_plan
from dislocate.core.runs.records import spec_digest
from dislocate.core.runs.resources import resource_id
from dislocate.core.runs.spec import check_spec, ordered
from dislocate.core.units import SECOND
from dislocate.edge.http.access import Role
from dislocate.edge.http.call import Call, Operation
from dislocate.edge.http.run_reads import Named, read_named
from dislocate.edge.http.run_stream import is_reachable
from dislocate.edge.run_answers import CheckAnswer, PlanAnswer
from dislocate.edge.run_bodies import AT_ONCE, RunBody, spec_of
from dislocate.edge.run_looked import digests_of, groups_of, unreachable_of
from dislocate.edge.run_targets import doubts, targets_of
from dislocate.edge.run_told import batch_answers

NODE_WITHIN = 60  # seconds that one node gets to look
TRY_WITHIN = 5  # seconds that one gets to render, while somebody waits for a run to begin
SIDE_BY_SIDE = 8  # visits of one node each: an agent makes 16, and others want theirs
MARGIN = 10  # seconds besides, in which the core says who did not answer
_TEMPLATE = re.compile(rb"\{[{%]")  # where it begins


def post_plan(call: Call) -> PlanAnswer:
    """What a run would do now, and digests to bind it to."""
    spec, targets, names = _read(call)
    plan = make_plan(spec, targets, revision=names.revision)
    resources = ordered(spec)
    results = look(call, resources, targets, names)
    return PlanAnswer(
        name=spec.name,
        targets=targets,
        groups=groups_of(resources, results),
        unreachable=unreachable_of(results),
        plan=batch_answers(plan.batches),
        spec_digest=spec_digest(spec),
        values_digest=names.digest,
        digests=digests_of(resources, results),
        revision=names.revision,
        doubts=tuple(doubts(call.node.candidates, spec)),
    )


def post_check(call: Call) -> CheckAnswer:
    """Whether nodes are as the specification says."""
    spec, targets, names = _read(call)
    resources = ordered(spec)
    results = look(call, resources, targets, names)
    return CheckAnswer(
        name=spec.name, targets=targets, groups=groups_of(resources, results), unreachable=unreachable_of(results)
    )


def digests_now(call: Call, spec: RunSpec, targets: tuple[Path, ...], names: Named) -> dict[Path, str]:
    """Of nodes that answer."""
    resources = ordered(spec)
    return digests_of(resources, look(call, resources, targets, names, is_diff=False))


def try_templates(call: Call, spec: RunSpec, plan: RunPlan, named: Named) -> list[str]:
    """Render what has templates on the first target within reach, so that a slip is found before a canary meets it.  Raises
    `LocalError` for one; a note where nobody could be asked in time: then the canary finds it."""
    resources = [each for each in ordered(spec) if _TEMPLATE.search(msgspec.json.encode(each))]
    if not resources:
        return []
    nodes = [node for batch in plan.batches for node in batch.nodes if is_reachable(call.node, node)]
    if not nodes:
        return ["its templates were not tried: no target is within reach"]
    (seen,) = look(call, resources, tuple(nodes[:1]), named, is_diff=False, within=TRY_WITHIN)
    for resource, outcome in zip(resources, seen.outcomes, strict=False):
        if outcome.result is TaskResult.FAILED and outcome.kind == "render":
            field = f"resources[{spec.resources.index(resource)}]"
            expected = f"templates that {seen.node} can fill in: {outcome.words}"
            raise LocalError(field, got=resource_id(resource), expected=expected)
    return [f"its templates were not all tried: {seen.node}: {seen.unreachable}"] if seen.unreachable else []


def look(
    call: Call,
    resources: Sequence[Resource],
    targets: tuple[Path, ...],
    names: Named,
    *,
    is_diff: bool = True,
    within: int = NODE_WITHIN,
) -> tuple[VisitResult, ...]:
    """Of every target, in order.  Secrets are sealed to each node, so where there are any each node is asked for itself."""

    def tasks(secrets: dict[str, bytes]) -> tuple[Task, ...]:
        return tuple(Task(TaskVerb.LOOK, each, "", names.values, secrets, diff=is_diff) for each in resources)

    if not targets:
        return ()
    if not names.secrets:
        return _visit(call, targets, tasks({}), within)

    def ask(node: Path) -> VisitResult:
        return _visit(call, (node,), tasks(names.sealed_for(node)), within)[0]

    return tuple(Pool(SIDE_BY_SIDE).imap(ask, targets))


def _visit(call: Call, nodes: tuple[Path, ...], tasks: tuple[Task, ...], within: int) -> tuple[VisitResult, ...]:
    turns = -(-len(nodes) // AT_ONCE)
    visited = call.ask(Visit(nodes, tasks, AT_ONCE, within * SECOND), turns * within + MARGIN)
    results: tuple[VisitResult, ...] = getattr(visited, "results", ())
    return with_all(nodes, results)


def with_all(nodes: Sequence[Path], results: Sequence[VisitResult]) -> tuple[VisitResult, ...]:
    """One result for each of `nodes`: nobody is missing in silence."""
    known = {result.node: result for result in results}
    return tuple(known.get(node) or VisitResult(node, (), "it did not answer") for node in nodes)


def _read(call: Call) -> tuple[RunSpec, tuple[Path, ...], Named]:
    """Looking needs no confirmation."""
    spec = spec_of(call.body)
    check_spec(spec)
    targets = targets_of(call.node, spec.targets, len(call.node.members))
    return spec, targets, read_named(call, spec, targets)


OPERATIONS = (
    Operation(
        method="POST",
        path="/api/runs/plan",
        role=Role.OPERATE,
        summary="What a run of a specification would do: its batches, and each difference; nothing is changed",
        respond=post_plan,
        answer=PlanAnswer,
        body=RunBody,
        in_words=True,
    ),
    Operation(
        method="POST",
        path="/api/runs/check",
        role=Role.OPERATE,
        summary="Whether nodes are as a specification says; nothing is changed",
        respond=post_check,
        answer=CheckAnswer,
        body=RunBody,
        in_words=True,
    ),
)
