"""Rollout: what the leader does next about a run, decided from the records, what it sees, and its clocks.

Invariant: at most one step, fit for the version that the picture shows; nothing is granted while the budget is spent, while
the run is held, below the floor, or in two batches at once.  Each rule is one function, in the order in which they are asked;
the first that has a step wins.  What fails comes before what holds, and is asked too while the leader holds the run: a freeze
window lets nothing begin, and keeps no harm where it is.  A revert has no gates and no budget: it goes on past what fails and
waits for what is away.

Source: the design's section 6; Nomad's deployments and Argo's rollouts.  Whether a step is legal is judged again where it is
applied (`ledger`): this decides what is wise, not what is allowed.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

from msgspec import Struct

from dislocate.core.boundary.runs import Direction, Hold, NodeState, RunState
from dislocate.core.boundary.spec import OnFailure
from dislocate.core.identity import Path
from dislocate.core.runs.control.clocks import Clocks
from dislocate.core.runs.control.floor import Opening, openable
from dislocate.core.runs.control.freezes import frozen_until, weekday_time
from dislocate.core.runs.control.outcomes import taken_back, why
from dislocate.core.runs.control.picture import Picture, Seen
from dislocate.core.runs.steps import (
    CloseBatch,
    FinishRun,
    HoldRun,
    JoinNodes,
    Mark,
    MarkNodes,
    OpenBatch,
    ReleaseRun,
    RevertRun,
    RunStep,
)
from dislocate.core.tunables import NODE_GONE
from dislocate.core.units import format_duration
from dislocate.core.words import count, may, names


class Case(Struct, frozen=True):
    """All that a decision is made from."""

    picture: Picture
    seen: Seen
    clocks: Clocks
    now: int

    @property
    def head(self) -> tuple[str, int, int]:
        """What each step begins with."""
        return self.picture.record.id, self.picture.record.version, self.seen.unix

    @property
    def id(self) -> str:
        return self.picture.record.id

    @property
    def is_for_an_operator(self) -> bool:
        """Whether it is held until somebody decides what becomes of it."""
        return self.picture.record.hold in (Hold.OPERATOR, Hold.FAILURE)

    def is_near(self, node: Path) -> bool:
        return node not in self.seen.away


Rule: TypeAlias = Callable[[Case], RunStep | None]


def decide(picture: Picture, seen: Seen, clocks: Clocks, now: int) -> RunStep | None:
    """The next step of this run; None: there is nothing to do but wait.  `clocks` have observed both."""
    case = Case(picture, seen, clocks, now)
    return next((step for rule in RULES.get(picture.record.state, ()) if (step := rule(case)) is not None), None)


# ---- what holds a run


def freeze(case: Case) -> RunStep | None:
    """A window begins in which nothing is begun."""
    until = frozen_until(case.picture.spec.freezes, case.seen.unix)
    if until is None:
        return None
    return HoldRun(
        *case.head, Hold.FREEZE, f"a freeze window lasts until {weekday_time(until)}; it goes on by itself then"
    )


def deadline(case: Case) -> RunStep | None:
    """It takes longer than it may."""
    allowed = case.picture.strategy.deadline
    if not allowed or case.now - case.clocks.begun < allowed:
        return None
    words = (
        f"it was to take at most {format_duration(allowed)}; 'dislocate run resume {case.id}' gives it as long again"
    )
    return HoldRun(*case.head, Hold.DEADLINE, words)


def failures(case: Case) -> RunStep | None:
    """More nodes failed than may: what the strategy says."""
    if case.is_for_an_operator:
        return None
    failed = case.picture.failed
    if len(failed) <= case.picture.record.budget:
        return None
    may_fail, because = may(case.picture.record.budget), why(case.picture.tasks[failed[0]])
    words = f"{count(len(failed))} failed ({names(failed)}), and {may_fail}: {because}"
    mend = f"'dislocate run retry {case.id} {failed[0]}' or 'run skip', then 'dislocate run resume {case.id}'"
    return _on_failure(case, words, mend)


def losses(case: Case) -> RunStep | None:
    """More nodes failed, are out of reach or in doubt than may."""
    if not case.picture.is_spent:
        return None
    bad = (*case.picture.failed, *case.picture.lost)
    words = f"{count(len(bad))} failed, out of reach or late ({names(bad)}), and {may(case.picture.record.budget)} be"
    mend = f"it goes on by itself when that changes, or with 'dislocate run skip {case.id} {bad[-1]}'"
    return HoldRun(*case.head, Hold.BUDGET, f"{words}; {mend}")


def bad_gates(case: Case) -> RunStep | None:
    """What was changed does not work."""
    if case.picture.is_promoted or case.is_for_an_operator:
        return None
    bad = next((one for one in case.clocks.judged if one.has_failed(case.now)), None)
    return None if bad is None else _on_bad_gate(case, f"a gate fails: {bad.reading.words}")


def blind_gates(case: Case) -> RunStep | None:
    """Nobody can tell whether what was changed works."""
    if case.picture.is_promoted:
        return None
    blind = next((one for one in case.clocks.judged if one.is_blind(case.now)), None)
    if blind is None:
        return None
    words = f"a gate has no data: {blind.reading.words}; it goes on by itself once there is some"
    return HoldRun(*case.head, Hold.GATE, f"{words}, or without it: 'dislocate run promote {case.id}'")


def release(case: Case) -> RunStep | None:
    """Why it was held is over.  A pause by an operator, after failures or after a deadline is for an operator to end."""
    match case.picture.record.hold:
        case Hold.FREEZE if frozen_until(case.picture.spec.freezes, case.seen.unix) is None:
            return ReleaseRun(*case.head, "the freeze window is over")
        case Hold.BUDGET if not case.picture.is_spent:
            return ReleaseRun(*case.head, "enough nodes are back")
        case Hold.GATE if case.picture.is_promoted:
            return ReleaseRun(*case.head, "an operator promoted it, without what its gates say")
        case Hold.GATE if not any(one.is_blind(case.now) for one in case.clocks.judged):
            return ReleaseRun(*case.head, "the gates have data")
        case _:
            return None


# ---- nodes out of reach


def out_of_reach(case: Case) -> RunStep | None:
    """Nodes in flight that are gone, or that say nothing for too long."""
    picture, within = case.picture, case.picture.strategy.node_within
    marks = [
        Mark(node, NodeState.UNREACHABLE, f"out of reach for {format_duration(NODE_GONE)} before it began")
        for node in picture.those(NodeState.GRANTED)
        if case.clocks.is_gone(node, NODE_GONE, case.now)
    ]
    for node in picture.those(NodeState.STARTED):
        if case.clocks.is_gone(node, NODE_GONE, case.now):
            words = f"out of reach for {format_duration(NODE_GONE)} since it began; it reports once it is back"
            marks.append(Mark(node, NodeState.UNKNOWN, words))
        elif case.clocks.is_in(node, NodeState.STARTED, within, case.now):
            words = f"began and did not report within {format_duration(within)}"
            marks.append(Mark(node, NodeState.UNKNOWN, words))
    return _marked(case, marks)


def back(case: Case) -> RunStep | None:
    """Nodes that were out of reach before they began, and are not any more: they wait for their turn again, and where their
    batch was closed without them, come before the next one."""
    if case.picture.record.direction is Direction.REVERT:
        return None  # which grants them as they are
    returned = [node for node in case.picture.those(NodeState.UNREACHABLE) if case.is_near(node)]
    return _marked(case, [Mark(node, NodeState.PENDING, "within reach again") for node in returned])


def left_behind(case: Case) -> RunStep | None:
    """The rest of the batch is out of reach, and there is nobody else to wait for: it counts against the budget."""
    waiting = case.picture.waiting
    if case.picture.in_flight or not all(case.clocks.is_gone(node, NODE_GONE, case.now) for node in waiting):
        return None
    words = f"out of reach for {format_duration(NODE_GONE)} when its turn came"
    return _marked(case, [Mark(node, NodeState.UNREACHABLE, words) for node in waiting])


# ---- going on


def close(case: Case) -> RunStep | None:
    """All of the batch is as it should be, and stayed so."""
    if case.picture.batch is None or not has_passed(case):
        return None
    return CloseBatch(*case.head)


def open_(case: Case) -> RunStep | None:
    """Grant to those whose turn it is, of one batch at a time.  The budget is not spent: `losses` came first."""
    picture = case.picture
    wanted = _wanted(case)
    batch = dict.fromkeys(picture.batch_nodes)
    if not any(node in picture.again for node in wanted) and any(node not in batch for node in picture.in_flight):
        return None
    return _opened(case, wanted)


def finish(case: Case) -> RunStep | None:
    """There is no batch left, nobody in flight, and nobody to be tried again."""
    picture = case.picture
    if picture.batch is not None or not has_passed(case):
        return None
    if case.seen.joiners:
        return JoinNodes(*case.head, case.seen.joiners)
    missed = picture.those(NodeState.FAILED, NodeState.UNREACHABLE, NodeState.SKIPPED)
    words = f"{count(len(picture.those(NodeState.DONE)))} done" + (f", without {names(missed)}" if missed else "")
    return FinishRun(*case.head, RunState.DONE, words)


def has_passed(case: Case) -> bool:
    """Whether all nodes of the batch have settled, soaked, and satisfied the gates; nobody changed, nobody to watch."""
    picture, clocks = case.picture, case.clocks
    if clocks.steady is None:
        return False
    is_watched = any(picture.state(node) is NodeState.DONE for node in (*picture.batch_nodes, *clocks.late))
    if picture.is_promoted or not is_watched:
        return True
    soak = picture.strategy.soak if picture.soaks else 0
    return case.now - clocks.steady >= soak and all(one.has_passed(case.now) for one in clocks.judged)


# ---- going back


def close_reverted(case: Case) -> RunStep | None:
    """Nobody in this batch is left to be reverted."""
    picture = case.picture
    if picture.record.batch < 0 or picture.waiting or any(node in picture.in_flight for node in picture.batch_nodes):
        return None
    return CloseBatch(*case.head)


def open_reverted(case: Case) -> RunStep | None:
    """Grant the way back."""
    return _opened(case, _wanted(case))


def finish_reverted(case: Case) -> RunStep | None:
    """All batches were gone through."""
    picture = case.picture
    if picture.record.batch >= 0 or picture.in_flight or picture.waiting:
        return None
    failed = picture.those(NodeState.REVERT_FAILED)
    because = f"; {picture.record.words}" if picture.record.words else ""  # nobody else remembers it
    if not failed:
        return FinishRun(*case.head, RunState.REVERTED, f"{taken_back(picture)}{because}")
    words = f"{taken_back(picture)}, but not {names(failed)}: {why(picture.tasks[failed[0]])}{because}"
    return FinishRun(*case.head, RunState.REVERT_FAILED, words)


# ---- what the rules share


def _on_failure(case: Case, words: str, mend: str) -> RunStep:
    match case.picture.strategy.on_failure:
        case OnFailure.REVERT:
            return RevertRun(*case.head, words)
        case OnFailure.PAUSE:
            return HoldRun(*case.head, Hold.FAILURE, f"{words}; {mend}")
        case OnFailure.ABORT:
            return FinishRun(*case.head, RunState.FAILED, f"{words}; what was done was left as it is")


def _on_bad_gate(case: Case, words: str) -> RunStep:
    """Nodes did what they were told, so no budget is spent: what is not to be reverted is paused."""
    if case.picture.strategy.on_failure is OnFailure.REVERT:
        return RevertRun(*case.head, words)
    mend = f"'dislocate run promote {case.id}' and 'run resume {case.id}', or 'dislocate run revert {case.id}'"
    return HoldRun(*case.head, Hold.FAILURE, f"{words}; {mend}")


def _marked(case: Case, marks: Sequence[Mark]) -> RunStep | None:
    return MarkNodes(*case.head, tuple(marks)) if marks else None


def _wanted(case: Case) -> tuple[Path, ...]:
    """Those whose turn it is and who are within reach: what is tried again comes before the batch."""
    near = tuple(node for node in case.picture.waiting if case.is_near(node))
    return tuple(node for node in near if node in case.picture.again) or near


def _opening(case: Case, wanted: Sequence[Path]) -> Opening:
    busy = case.clocks.busy(case.picture, case.now)
    return openable(wanted, case.picture.strategy.floor, case.seen.instances, busy)


def _opened(case: Case, wanted: Sequence[Path]) -> RunStep | None:
    nodes = _opening(case, wanted).nodes
    return OpenBatch(*case.head, nodes) if nodes else None


RULES: dict[RunState, tuple[Rule, ...]] = {
    RunState.RUNNING: (
        failures,
        bad_gates,
        freeze,
        deadline,
        out_of_reach,
        back,
        losses,
        blind_gates,
        close,
        open_,
        left_behind,
        finish,
    ),
    RunState.PAUSED: (failures, bad_gates, out_of_reach, back, release),
    RunState.REVERTING: (
        out_of_reach,
        finish_reverted,
        close_reverted,
        open_reverted,
    ),
}
