"""How nodes look: those that look the same are told once, and those that could not be asked are named with the reason."""

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from dislocate.core.boundary.runs import TaskResult, VisitResult
from dislocate.core.boundary.spec import Resource
from dislocate.core.identity import Path
from dislocate.core.runs.plan import plan_digest
from dislocate.core.runs.resources import is_owed_only, is_shared, resource_id
from dislocate.edge.run_answers import GroupAnswer, ResourceAnswer

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
