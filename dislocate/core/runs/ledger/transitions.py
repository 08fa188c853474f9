"""What may follow what in a run: tables, and nothing that knows records or keys.

Every table says who may do something (a verb of an operator, a step of the leader, a node) and in which states it is legal;
what is not in a table is refused by the ledger, with nothing changed.  A run that was paused goes on in its direction.
Source: the design's section 6; `PAUSED` and its holds are Argo's inconclusive analysis, which continues or aborts nothing.
"""

from dislocate.core.boundary.runs import Direction, Hold, NodeState, RunState, Verb
from dislocate.core.runs.steps import CloseBatch, HoldRun, JoinNodes, MarkNodes, OpenBatch, ReleaseRun, RevertRun

_R, _N = RunState, NodeState

# ---- runs

RUN_MOVES: dict[RunState, tuple[RunState, ...]] = {
    _R.AWAITING: (_R.RUNNING, _R.ABORTED),
    _R.RUNNING: (_R.PAUSED, _R.REVERTING, _R.DONE, _R.FAILED, _R.ABORTED),
    _R.PAUSED: (_R.PAUSED, _R.RUNNING, _R.REVERTING, _R.FAILED, _R.ABORTED),
    _R.REVERTING: (_R.PAUSED, _R.REVERTED, _R.REVERT_FAILED, _R.ABORTED),
    _R.DONE: (_R.REVERTING,),
    _R.FAILED: (_R.REVERTING,),
    _R.ABORTED: (_R.REVERTING,),
    _R.REVERT_FAILED: (_R.REVERTING,),
    _R.REVERTED: (),
}

_UNDER_WAY = (_R.RUNNING, _R.PAUSED, _R.REVERTING)

# An operator's verb is legal in these states of a run.
VERBS: dict[Verb, tuple[RunState, ...]] = {
    Verb.APPROVE: (_R.AWAITING,),
    Verb.PAUSE: _UNDER_WAY,  # paused by anything else, it becomes an operator's hold, which does not end by itself
    Verb.RESUME: (_R.PAUSED,),
    Verb.PROMOTE: (_R.RUNNING, _R.PAUSED),
    Verb.SKIP: _UNDER_WAY,
    Verb.RETRY: _UNDER_WAY,
    Verb.ABORT: (_R.AWAITING, *_UNDER_WAY),
    Verb.REVERT: (_R.RUNNING, _R.PAUSED, _R.DONE, _R.FAILED, _R.ABORTED, _R.REVERT_FAILED),
}

# What else helps, by the state in which a verb was refused.
MENDS: dict[RunState, str] = {
    _R.AWAITING: "approve it, or abort it",
    _R.RUNNING: "pause it, abort it or revert it",
    _R.PAUSED: "resume it, abort it or revert it",
    _R.REVERTING: "wait for it, pause it, or skip or retry the nodes that it waits for",
    _R.DONE: "revert it, or start another one",
    _R.FAILED: "revert it, or start another one",
    _R.ABORTED: "revert it, or start another one",
    _R.REVERTED: "start another one",
    _R.REVERT_FAILED: "revert it again, or start another one",
}

# A step of the leader is legal in these states; `FinishRun` by what the run ends as.
STEPS: dict[type, tuple[RunState, ...]] = {
    OpenBatch: (_R.RUNNING, _R.REVERTING),
    CloseBatch: (_R.RUNNING, _R.REVERTING),
    HoldRun: (_R.RUNNING, _R.PAUSED),
    ReleaseRun: (_R.PAUSED,),
    RevertRun: (_R.RUNNING, _R.PAUSED),
    MarkNodes: _UNDER_WAY,
    JoinNodes: (_R.RUNNING, _R.PAUSED),
}
FINISHES: dict[RunState, tuple[RunState, ...]] = {
    _R.DONE: (_R.RUNNING,),
    _R.FAILED: (_R.RUNNING, _R.PAUSED),
    _R.REVERTED: (_R.REVERTING,),
    _R.REVERT_FAILED: (_R.REVERTING,),
}
ONLY_APPLYING = (HoldRun, RevertRun, JoinNodes)  # also of a paused run: not while it is reverted

LEADERS_HOLDS = (Hold.BUDGET, Hold.FAILURE, Hold.GATE, Hold.FREEZE, Hold.DEADLINE)
END_BY_THEMSELVES = (Hold.BUDGET, Hold.GATE, Hold.FREEZE, Hold.DEADLINE)

# ---- nodes

IN_FLIGHT = (_N.GRANTED, _N.STARTED, _N.UNKNOWN)  # something may be going on there
LOST = (_N.UNREACHABLE, _N.UNKNOWN)
COUNTS_AS_BAD = (_N.FAILED, *LOST)  # against the budget
SETTLED = (_N.DONE, _N.FAILED, _N.UNREACHABLE, _N.SKIPPED)  # while applying
ASKABLE = IN_FLIGHT  # a node may ask: for the first time, or again after a restart
REPORTABLE = (_N.STARTED, _N.UNKNOWN)

GRANTABLE: dict[Direction, tuple[NodeState, ...]] = {
    Direction.APPLY: (_N.PENDING,),
    Direction.REVERT: (_N.PENDING, _N.DONE, _N.FAILED, _N.UNREACHABLE, _N.SKIPPED),  # of those that need it
}
SKIPPABLE: dict[Direction, tuple[NodeState, ...]] = {
    Direction.APPLY: (_N.PENDING, _N.GRANTED, _N.UNREACHABLE, _N.UNKNOWN, _N.FAILED),
    Direction.REVERT: (
        _N.PENDING,
        _N.GRANTED,
        _N.UNREACHABLE,
        _N.UNKNOWN,
        _N.FAILED,
        _N.DONE,
        _N.REVERT_FAILED,
        _N.SKIPPED,  # while applying
    ),  # of those that need it
}
RETRYABLE: dict[Direction, tuple[NodeState, ...]] = {
    Direction.APPLY: (_N.FAILED, _N.UNREACHABLE, _N.UNKNOWN, _N.SKIPPED),
    Direction.REVERT: (_N.REVERT_FAILED, _N.UNREACHABLE, _N.UNKNOWN, _N.SKIPPED),
}
REPORTS: dict[Direction, tuple[NodeState, ...]] = {
    Direction.APPLY: (_N.DONE, _N.FAILED),
    Direction.REVERT: (_N.REVERTED, _N.REVERT_FAILED),
}
MARKS: dict[tuple[NodeState, NodeState], tuple[Direction, ...]] = {
    (_N.PENDING, _N.UNREACHABLE): (Direction.APPLY,),
    (_N.GRANTED, _N.UNREACHABLE): (Direction.APPLY, Direction.REVERT),
    (_N.STARTED, _N.UNKNOWN): (Direction.APPLY, Direction.REVERT),
    (_N.UNREACHABLE, _N.PENDING): (Direction.APPLY, Direction.REVERT),
    (_N.UNREACHABLE, _N.GRANTED): (Direction.APPLY, Direction.REVERT),
}


def goes_on_as(direction: Direction) -> RunState:
    """The state of a run of this direction that is not paused."""
    return RunState.RUNNING if direction is Direction.APPLY else RunState.REVERTING
