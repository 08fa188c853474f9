"""What may follow what, cell by cell: each state of a run with each verb and step, each state of a node with each word."""

import pytest

from dislocate.core.boundary.requests import Done, Refused
from dislocate.core.boundary.runs import OVER, Direction, Hold, NodeState, RunState, Verb
from dislocate.core.runs.amounts import amount
from dislocate.core.runs.ledger.transitions import (
    FINISHES,
    GRANTABLE,
    MARKS,
    MENDS,
    REPORTS,
    RETRYABLE,
    RUN_MOVES,
    SKIPPABLE,
    STEPS,
    VERBS,
)
from dislocate.core.runs.steps import CloseBatch, HoldRun, JoinNodes, MarkNodes, OpenBatch, ReleaseRun, RevertRun
from tests.support.runs_log import A, B, RunsLog


def awaiting(log):
    log.start(approvals=1)


def running(log):
    log.start()


def paused(log):
    log.start()
    log.hold(Hold.GATE)


def reverting(log):
    log.start()
    log.carry(A)
    log.revert()


def paused_in_revert(log):
    reverting(log)
    log.steer(Verb.PAUSE)


def done(log):
    log.complete()


def failed(log):
    log.start()
    log.carry(A, state=NodeState.FAILED)
    assert log.finish(RunState.FAILED) == Done(log.version())


def aborted(log):
    log.start()
    log.carry(A)
    log.steer(Verb.ABORT)


def reverted(log):
    reverting(log)
    log.carry(A, state=NodeState.REVERTED)
    log.close()
    log.finish(RunState.REVERTED)


def revert_failed(log):
    reverting(log)
    log.carry(A, state=NodeState.REVERT_FAILED)
    log.close()
    log.finish(RunState.REVERT_FAILED)


WORLDS = {
    RunState.AWAITING: awaiting,
    RunState.RUNNING: running,
    RunState.PAUSED: paused,
    RunState.REVERTING: reverting,
    RunState.DONE: done,
    RunState.FAILED: failed,
    RunState.ABORTED: aborted,
    RunState.REVERTED: reverted,
    RunState.REVERT_FAILED: revert_failed,
}
LEADS_TO = {
    Verb.APPROVE: RunState.RUNNING,
    Verb.PAUSE: RunState.PAUSED,
    Verb.RESUME: RunState.RUNNING,
    Verb.ABORT: RunState.ABORTED,
    Verb.REVERT: RunState.REVERTING,
}


def made(state):
    log = RunsLog()
    WORLDS[state](log)
    assert log.run().state is state
    return log


@pytest.mark.parametrize("verb", Verb)
@pytest.mark.parametrize("state", RunState)
def test_a_verb_is_for_some_states_of_a_run_and_refused_in_the_others_with_the_mend(state, verb):
    log = made(state)
    before, digest, revision = log.run(), log.machine.digest, log.machine.revision
    # The node that each verb is about can be skipped where something can, and retried where it was skipped before.
    node = A if state is RunState.REVERTING else B
    about = node if verb in (Verb.SKIP, Verb.RETRY) else ""
    legal = state in VERBS[verb]
    if verb is Verb.RETRY and legal:
        assert isinstance(log.steer(Verb.SKIP, node), Done)
        before = log.run()
    result = log.steer(verb, about)
    if legal:
        assert result == Done(before.version + 1)
        assert log.run().state is LEADS_TO.get(verb, state)
        assert log.run().state in (state, *RUN_MOVES[state])
        assert log.audit()[-1].verb == verb.value
    else:
        assert isinstance(result, Refused)
        assert (result.kind, result.field) == ("conflict", "verb")
        assert MENDS[state] in result.reason
        assert (log.machine.digest, log.machine.revision) == (digest, revision)
    log.check()


STEP_WORDS = {
    OpenBatch: lambda log: log.open(A),
    CloseBatch: lambda log: log.close(),
    HoldRun: lambda log: log.hold(Hold.FREEZE),
    ReleaseRun: lambda log: log.release(),
    RevertRun: lambda log: log.revert(),
    MarkNodes: lambda log: log.mark(A, NodeState.UNREACHABLE),
    JoinNodes: lambda log: log.say(JoinNodes("1", log.version(), log.now, ("fra/new",))),
}
REFUSED_STEPS = [(state, step) for step, states in STEPS.items() for state in RunState if state not in states]


@pytest.mark.parametrize(("state", "step"), REFUSED_STEPS)
def test_a_step_of_the_leader_is_refused_in_a_state_that_it_is_not_for(state, step):
    log = made(state)
    digest = log.machine.digest
    result = STEP_WORDS[step](log)
    assert isinstance(result, Refused)
    assert result.kind == ("unknown" if state in OVER else "conflict")
    assert log.machine.digest == digest


@pytest.mark.parametrize("end", RunState)
@pytest.mark.parametrize("state", RunState)
def test_a_run_ends_only_as_what_it_has_come_to(state, end):
    log = made(state)
    digest = log.machine.digest
    result = log.finish(end)
    assert isinstance(result, Refused)  # in none of these worlds everything has been done
    assert state in OVER or state not in FINISHES.get(end, ()) or result.field in ("state", "budget")
    assert log.machine.digest == digest


def in_state(state, direction=Direction.APPLY):
    """A run in which A is so; nothing else was begun."""
    log = RunsLog()
    log.start((A,), (B,), max_failed=2)
    if direction is Direction.REVERT:
        log.carry(A)
        log.revert()
    end = NodeState.DONE if direction is Direction.APPLY else NodeState.REVERTED
    failed = NodeState.FAILED if direction is Direction.APPLY else NodeState.REVERT_FAILED
    match state:
        case NodeState.GRANTED | NodeState.STARTED | NodeState.UNKNOWN | NodeState.UNREACHABLE:
            log.open(A)
            if state is not NodeState.GRANTED and state is not NodeState.UNREACHABLE:
                log.ask(A)
            if state in (NodeState.UNKNOWN, NodeState.UNREACHABLE):
                log.mark(A, state)
        case NodeState.SKIPPED:
            log.steer(Verb.SKIP, A)
        case NodeState.DONE if direction is Direction.REVERT:
            pass
        case NodeState.FAILED | NodeState.REVERT_FAILED if state is failed:
            log.carry(A, state=state)
        case NodeState.DONE | NodeState.REVERTED if state is end:
            log.carry(A, state=state)
        case NodeState.PENDING if direction is Direction.REVERT:
            log.open(A)
            log.mark(A, NodeState.UNREACHABLE)
            log.mark(A, NodeState.PENDING)
    assert log.task(A).state is state
    return log


def tried(log, act, legal):
    digest = log.machine.digest
    result = act()
    assert isinstance(result, Done if legal else Refused), result
    assert (log.machine.digest == digest) is not legal
    log.check()


NOWHERE = (
    (NodeState.FAILED, Direction.REVERT),
    (NodeState.REVERTED, Direction.APPLY),
    (NodeState.REVERT_FAILED, Direction.APPLY),
)
PLACES = [(state, direction) for state in NodeState for direction in Direction if (state, direction) not in NOWHERE]


@pytest.mark.parametrize(("state", "direction"), PLACES)
class TestANode:
    def test_is_skipped_when_something_is_left_to_skip(self, state, direction):
        log = in_state(state, direction)
        legal = state in SKIPPABLE[direction] and state is not NodeState.SKIPPED
        tried(log, lambda: log.steer(Verb.SKIP, A), legal)

    def test_is_tried_again_when_it_did_not_come_to_its_end(self, state, direction):
        log = in_state(state, direction)
        epoch = log.run().epoch
        legal = state in RETRYABLE[direction]
        tried(log, lambda: log.steer(Verb.RETRY, A), legal)
        if legal:
            assert (log.task(A).state, log.run().retries) == (NodeState.PENDING, (A,))
            assert log.run().epoch == epoch + 1

    def test_is_granted_when_it_is_to_begin(self, state, direction):
        log = in_state(state, direction)
        legal = state in GRANTABLE[direction] and state is not NodeState.SKIPPED
        tried(log, lambda: log.open(A), legal)

    @pytest.mark.parametrize("now", [NodeState.UNREACHABLE, NodeState.UNKNOWN, NodeState.PENDING, NodeState.GRANTED])
    def test_is_marked_as_the_leader_sees_it(self, state, direction, now):
        log = in_state(state, direction)
        tried(log, lambda: log.mark(A, now), direction in MARKS.get((state, now), ()))

    @pytest.mark.parametrize("told", [NodeState.DONE, NodeState.FAILED, NodeState.REVERTED, NodeState.REVERT_FAILED])
    def test_reports_what_it_began(self, state, direction, told):
        log = in_state(state, direction)
        digest = log.machine.digest
        result = log.report(A, told, epoch=log.run().epoch)
        legal = state in (NodeState.STARTED, NodeState.UNKNOWN) and told in REPORTS[direction]
        known = state is told and log.task(A).epoch == log.run().epoch
        assert isinstance(result, Done if legal or known else Refused), result
        assert (log.machine.digest != digest) is legal
        assert log.task(A).state is (told if legal else state)


@pytest.mark.parametrize(
    ("said", "of", "nodes"),
    [(0, 10, 0), (3, 10, 3), (30, 10, 10), ("25%", 10, 3), ("1%", 10, 1), ("0%", 10, 0), ("100%", 7, 7), ("12.5%", 16, 0),
     ("50%", 0, 0), ("many", 10, 0), (-1, 10, 0)],
)  # fmt: skip
def test_an_amount_is_a_number_of_nodes(said, of, nodes):
    assert amount(said, of) == nodes
