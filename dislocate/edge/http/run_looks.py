"""Plan and check: nodes look at their resources and change nothing.

Every target is in the answer: with its looks in a group of equal ones, or by name with the reason why nothing is known of it.
"""

from collections.abc import Callable, Sequence

from gevent.pool import Pool

from dislocate.core.boundary.runs import Task, TaskVerb, Visit, VisitResult
from dislocate.core.boundary.spec import Resource, RunSpec
from dislocate.core.identity import Path
from dislocate.core.runs.plan import make_plan
from dislocate.core.runs.records import spec_digest
from dislocate.core.runs.spec import check_spec, ordered
from dislocate.core.units import SECOND
from dislocate.edge.http.access import Role
from dislocate.edge.http.call import Call, Operation
from dislocate.edge.http.run_reads import Named, read_named
from dislocate.edge.run_answers import CheckAnswer, PlanAnswer
from dislocate.edge.run_bodies import AT_ONCE, RunBody, spec_of
from dislocate.edge.run_looked import digests_of, groups_of, unreachable_of
from dislocate.edge.run_targets import doubts, targets_of
from dislocate.edge.run_told import batch_answers

NODE_WITHIN = 60  # seconds that one node gets to look
SIDE_BY_SIDE = 8  # visits of one node each: an agent makes 16, and others want theirs
MARGIN = 10  # seconds besides, in which the core says who did not answer


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


def look(
    call: Call, resources: Sequence[Resource], targets: tuple[Path, ...], names: Named, *, is_diff: bool = True
) -> tuple[VisitResult, ...]:
    """Of every target, in order.  Secrets are sealed to each node, so where there are any each node is asked for itself."""

    def tasks(secrets: dict[str, bytes]) -> tuple[Task, ...]:
        return tuple(Task(TaskVerb.LOOK, each, "", names.values, secrets, diff=is_diff) for each in resources)

    if not targets:
        return ()
    if not names.secrets:
        return _visit(call, targets, tasks({}))
    ask: Callable[[Path], VisitResult] = lambda node: _visit(call, (node,), tasks(names.sealed_for(node)))[0]  # noqa: E731
    return tuple(Pool(SIDE_BY_SIDE).imap(ask, targets))


def _visit(call: Call, nodes: tuple[Path, ...], tasks: tuple[Task, ...]) -> tuple[VisitResult, ...]:
    turns = -(-len(nodes) // AT_ONCE)
    visited = call.ask(Visit(nodes, tasks, AT_ONCE, NODE_WITHIN * SECOND), turns * NODE_WITHIN + MARGIN)
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
