"""Replaced: what ends as lost, since this node's disk knows nothing of what the store says was begun here.

A disk without a journal may be another one than before.  What was begun on that is not begun again, nor taken back blindly;
what nobody began goes on as on any node.
"""

from msgspec.structs import replace

from dislocate.core.boundary.runs import NodeState, NodeTask
from dislocate.core.runs.agent.journal import Journal, ended

BEGUN = (NodeState.STARTED, NodeState.UNKNOWN)
REPLACED = "this agent's disk has no journal of the run, so nobody knows here what it changed: look there"


def lost_apply(fresh: Journal, task: NodeTask | None) -> Journal | None:
    """The end of a part with a guard that is the journal alone; None: it was not begun, as the store knows its `task`."""
    if task is None or task.state not in BEGUN:
        return None
    return ended(replace(fresh, epoch=task.epoch, is_partial=True), NodeState.FAILED, "lost", REPLACED)


def has_changed(task: NodeTask | None) -> bool:
    """Whether there is something to take back, of which nothing is known here."""
    return task is not None and any(step.result == "changed" for step in task.steps)


def lost_revert(asked: Journal) -> Journal:
    """The end of a revert of what nobody knows here."""
    return ended(asked, NodeState.REVERT_FAILED, "lost", REPLACED)
