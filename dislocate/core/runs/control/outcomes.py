"""Outcomes: what became of a run's nodes, in the words in which the run then ends, or is held.

For people: a sentence names the first of several, and every node's own part has all of it.
"""

from collections.abc import Mapping, Sequence

from dislocate.core.boundary.runs import NodeState, NodeTask, Step, TaskResult
from dislocate.core.identity import Path
from dislocate.core.runs.control.picture import Picture
from dislocate.core.words import count, in_short


def why(task: NodeTask) -> str:
    """Why it failed, on one line: 'fra/a1: apply web: exit 1 ... no such file'."""
    return " ".join(part for part in (f"{task.node}:", task.kind, in_short(task.words)) if part)


def taken_back(picture: Picture) -> str:
    """'2 nodes as before; 1 node as before but for what was left (fra/a1: key color: it was changed again since, ...)'."""
    tasks = [picture.tasks[node] for node in picture.those(NodeState.REVERTED)]
    left, replaced = _those(tasks, TaskResult.LEFT), _those(tasks, TaskResult.REPLACED)
    wholly = len(tasks) - len(left)
    parts = [f"{count(wholly)} as before"] if wholly or not left else []
    if left:
        parts.append(f"{count(len(left))} as before but for what was left ({_first_of(left)})")
    if replaced:
        parts.append(f"on {count(len(replaced))} over what was changed since ({_first_of(replaced)})")
    return "; ".join(parts)


def _those(tasks: Sequence[NodeTask], result: TaskResult) -> dict[Path, Step]:
    """Nodes of which a step ended so, with the first such step."""
    found: dict[Path, Step] = {}
    for task in tasks:
        for step in task.steps:
            if step.result == result.value:
                found.setdefault(task.node, step)
    return found


def _first_of(found: Mapping[Path, Step]) -> str:
    node, step = next(iter(found.items()))
    more = len(found) - 1
    return f"{node}: {step.resource}: {in_short(step.words)}" + (f", and on {more} more" if more else "")
