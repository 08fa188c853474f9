"""Explain: what a run waits for, in a sentence, from its records alone.

For people at any agent, which does not see what the leader sees: who is out of reach is known from its marks, and besides,
like what the floor holds back, from what this agent sees of the fleet, where that is passed in.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import TypeAlias

from dislocate.core.boundary.runs import Direction, NodeState, RunState
from dislocate.core.boundary.views import InstanceView
from dislocate.core.identity import Path
from dislocate.core.runs.control.floor import openable
from dislocate.core.runs.control.picture import Picture
from dislocate.core.words import count, names

PHRASES = {
    NodeState.GRANTED: "to begin",
    NodeState.STARTED: "to report",
    NodeState.UNKNOWN: "to report, out of reach or late",
}

Instances: TypeAlias = Mapping[str, Sequence[InstanceView]]
NOBODY: Instances = {}


def explain(picture: Picture, instances: Instances = NOBODY, away: Collection[Path] = ()) -> str:
    """'batch 2 of 9, fra: waits for fra/a1 to report; for 2 nodes (fra/a2, fra/a3) to be granted'.  `instances`: of the
    services that the floor names; `away`: who is out of reach."""
    record = picture.record
    match record.state:
        case RunState.AWAITING:
            missing = picture.strategy.approvals - len(record.approved_by)
            return f"waits for {count(missing, 'approval')} by others than {record.actor}: 'dislocate run approve {record.id}'"
        case RunState.RUNNING | RunState.REVERTING:
            return f"{_where(picture)}: {_waits(picture, instances, away)}"
        case RunState.PAUSED:
            flying = f"; {count(len(picture.in_flight))} still in flight" if picture.in_flight else ""
            return f"{_where(picture)}: held ({record.hold.value if record.hold else 'paused'}): {record.words}{flying}"
        case _:
            return record.words or record.state.value


def _where(picture: Picture) -> str:
    verb = "reverts " if picture.record.direction is Direction.REVERT else ""
    if picture.batch is None:
        return f"{verb}{_all(len(picture.plan.batches))} gone through"
    return f"{verb}batch {picture.record.batch + 1} of {len(picture.plan.batches)}, {picture.batch.wave}"


def _all(batches: int) -> str:
    return "the only batch is" if batches == 1 else f"all {batches} batches are"


def _waits(picture: Picture, instances: Instances, away: Collection[Path]) -> str:
    waits = [f"for {_those(nodes)} {phrase}" for state, phrase in PHRASES.items() if (nodes := picture.those(state))]
    due = [node for node in picture.waiting if picture.state(node) is not NodeState.UNREACHABLE]
    marked = [node for node in picture.those(NodeState.UNREACHABLE) if _is_waited_for(picture, node)]
    if gone := [*marked, *(node for node in due if node in away)]:
        waits.append(f"for {_those(gone)} to be within reach")
    if pending := [node for node in due if node not in away]:
        held_back = openable(pending, picture.strategy.floor, instances, picture.in_flight).words
        waits.append(f"for {_those(pending)} to be granted" + (f" ({held_back})" if held_back else ""))
    if waits:
        return f"waits {'; '.join(waits)}"
    if picture.record.direction is Direction.REVERT:
        return "goes on"
    services = dict.fromkeys(gate.service for gate in picture.spec.gates)
    watched = f" and the gates of {', '.join(services)} are watched" if services else ""
    return f"its nodes settle{' and soak' if picture.soaks else ''}{watched}"


def _is_waited_for(picture: Picture, node: Path) -> bool:
    """An apply goes on without it while the budget lasts, a revert does not."""
    if picture.record.direction is Direction.REVERT:
        return node in picture.waiting
    return node in picture.record.retries


def _those(nodes: Sequence[Path]) -> str:
    return nodes[0] if len(nodes) == 1 else f"{count(len(nodes))} ({names(nodes)})"
