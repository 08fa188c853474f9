"""Runs as operators, leaders and nodes meet them in the log: what is done, what is refused and why; nothing is doubled."""

import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from dislocate.core.boundary.events import NodeMoved, RunMoved
from dislocate.core.boundary.requests import Done, Refused
from dislocate.core.boundary.runs import (
    Applied,
    AskGrant,
    Direction,
    Granted,
    Hold,
    NodeState,
    NodeTask,
    ReportTask,
    RunPlan,
    RunStarted,
    RunState,
    StartRun,
    SteerRun,
    Step,
    Verb,
)
from dislocate.core.boundary.spec import File, Join, RunSpec, Service
from dislocate.core.boundary.store import Delete, Get, KeyValue, Put, Transact
from dislocate.core.consensus.messages import GroupId
from dislocate.core.errors import LocalError
from dislocate.core.runs import records
from dislocate.core.runs.ledger import keeping
from dislocate.core.runs.steps import JoinNodes, Mark, MarkNodes, OpenBatch
from dislocate.core.store import quotas as quotas_module
from dislocate.core.store.backup import restore_chunks
from dislocate.core.store.commands import SetFeatureLevel
from dislocate.core.store.machine import StoreMachine
from dislocate.core.store.validation import check_request
from dislocate.core.tunables import REPORT_BYTES, RUN_NODES, RUN_WORDS, SPEC_BYTES
from tests.support.runs_log import A, B, C, D, RunsLog, plan, spec
from tests.support.store_log import GROUP, asked, contents, replayed, write_backup

GOLDEN = Path(__file__).parent / "golden" / "runs.json"


@pytest.fixture
def log():
    found = RunsLog()
    yield found
    found.check()


def refused(result, field, *words, kind="conflict"):
    assert isinstance(result, Refused), result
    assert (result.kind, result.field) == (kind, field)
    for word in words:
        assert word in result.reason


# ---- starting


def test_a_start_is_one_revision_with_all_that_nodes_and_people_read(log):
    revision = log.machine.revision
    applied = log.tell(StartRun(spec(), plan((A,), (B, C)), {"config/a": "1"}, "ann", 5))
    assert applied.result == RunStarted("1", RunState.RUNNING)
    assert log.machine.revision == revision + 1
    assert {change.key for change in applied.changes} == {
        "records/audit/0000000000000001",
        "records/runs/1/counts",
        "records/runs/1/plan",
        "records/runs/1/spec",
        "records/runs/last",
        "system/runs/1",
    }
    assert applied.events == (RunMoved("1", 1, "", "running", "started by ann"),)
    record = log.run()
    assert (record.version, record.epoch, record.batch, record.targets, record.batches) == (1, 1, 0, 3, 2)
    assert record.spec_digest == records.spec_digest(spec())


def test_ids_are_given_out_once(log):
    log.complete()
    assert log.complete() == "2"


def test_a_run_of_a_name_that_is_under_way_is_refused(log):
    log.start((A,))
    digest = log.machine.digest
    refused(log.start((B,)), "name", "run 1 of web is running", "abort it")
    assert log.machine.digest == digest


def test_a_run_whose_targets_another_one_has_is_refused_and_names_the_node(log):
    log.start((A,), (B,))
    refused(log.start((C, B), name="db"), "targets", "fra/b is a target of run 1 (web, running)")
    assert log.start((C,), name="db") == "2"


@pytest.mark.parametrize(
    "wrong",
    [
        RunPlan((), ()),
        RunPlan((A, B), plan((A,)).batches),
        RunPlan((A,), plan((A,), (A,)).batches),
        RunPlan((A,), plan((B,)).batches),
        RunPlan((A,), plan((A,)).batches, 0, {B: "00"}),
        plan(tuple(f"fra/n{number}" for number in range(RUN_NODES + 1))),
    ],
)
def test_a_plan_that_is_none_is_refused_before_the_log_and_in_it(log, wrong):
    body = StartRun(spec(), wrong, {}, "ann", 5)
    with pytest.raises(LocalError):
        check_request(body)
    refused(log.say(body), "plan", kind="invalid")


def test_below_the_level_of_runs_everything_about_them_is_refused_with_the_mend():
    log = RunsLog(level=1)
    digest = log.machine.digest
    refused(log.start(), "store", "feature level 1", "upgrade all servers", kind="unavailable")
    refused(log.steer(Verb.PAUSE), "store", kind="unavailable")
    refused(log.say(OpenBatch("1", 1, 1, (A,))), "store", kind="unavailable")
    assert (log.machine.digest, log.machine.revision) == (digest, 0)


def test_approvals_come_from_others_and_each_counts_once(log):
    run = log.start(approvals=2)
    assert log.run(run).state is RunState.AWAITING
    refused(log.open(A), "state")
    refused(log.steer(Verb.APPROVE, actor="ann"), "actor", "somebody else")
    assert isinstance(log.steer(Verb.APPROVE, actor="bob"), Done)
    refused(log.steer(Verb.APPROVE, actor="bob"), "actor", "has approved")
    assert log.run().state is RunState.AWAITING
    log.steer(Verb.APPROVE, actor="cid")
    assert (log.run().state, log.run().approved_by) == (RunState.RUNNING, ("bob", "cid"))


def test_one_user_at_two_agents_is_one_operator(log):
    run = log.say(StartRun(spec(approvals=2), plan((A,)), {}, "ann@fra/a1", 5)).run
    refused(log.steer(Verb.APPROVE, actor="ann@wdc/b1", run=run), "actor", "somebody else")
    assert isinstance(log.steer(Verb.APPROVE, actor="bob@fra/a1", run=run), Done)
    refused(log.steer(Verb.APPROVE, actor="bob@wdc/b1", run=run), "actor", "has approved")
    assert isinstance(log.steer(Verb.APPROVE, actor="ann@example.org", run=run), Done)


# ---- granting and reporting


def test_a_batch_is_granted_asked_for_and_reported(log):
    log.start()
    applied = log.tell(OpenBatch("1", 1, 5, (A,)))
    assert applied.events == (NodeMoved("1", A, "pending", "granted", 1, ""),)
    assert log.run().granted == (A,)
    version = log.version()
    assert log.ask(A) == Granted("1", 1, 7, Direction.APPLY)
    assert (log.task(A).state, log.task(A).touched, log.counts()) == (NodeState.STARTED, True, {"started": 1})
    assert log.report(A, steps=(Step("file /etc/motd", "changed"),), took=3) == Done(version)
    assert (log.task(A).state, log.task(A).steps[0].result, log.counts()) == (NodeState.DONE, "changed", {"done": 1})
    assert log.version() == version  # every agent follows the record: it does not change for each node


def test_a_grant_says_what_the_plan_expects_of_the_node(log):
    log.say(StartRun(spec(), plan((A,), (B,), expected={A: "0a"}), {}, "ann", 1))
    log.open(A)
    assert log.ask(A).expected == "0a"
    log.report(A)
    log.close()
    log.open(B)
    assert log.ask(B).expected == ""


def test_nodes_of_another_batch_are_not_granted_anything(log):
    log.start()
    refused(log.open(B), "nodes", "neither of batch 0")
    refused(log.open("fra/nobody"), "nodes")
    refused(log.open(A, A), "nodes", "twice")
    refused(log.open(), "nodes")


def test_a_step_decided_at_another_version_changes_nothing(log):
    log.start()
    step = OpenBatch("1", log.version(), 5, (A,))
    assert log.say(step) == Done(2)
    digest = log.machine.digest
    refused(log.say(step), "version", "version 2, not 1")
    assert log.machine.digest == digest


def test_who_was_not_granted_does_not_begin(log):
    log.start()
    refused(log.ask(A), "node", "waits for its grant")
    refused(log.say(AskGrant("9", A, 1, 1)), "run", kind="unknown")


def test_asking_twice_is_one_start_and_asking_anew_after_a_restart_another_ask(log):
    log.start()
    log.open(A)
    first = log.ask(A, 7)
    digest = log.machine.digest
    assert log.ask(A, 7) == first
    assert log.machine.digest == digest
    assert log.ask(A, 8) == Granted("1", 1, 8, Direction.APPLY)
    assert (log.task(A).ask, log.counts()) == (8, {"started": 1})


def test_an_older_epoch_begins_nothing(log):
    log.start((A, B))
    log.carry(A)
    log.open(B)
    log.revert()
    refused(log.ask(B, epoch=1), "epoch", "epoch 2, not 1")
    refused(log.ask(B), "node", "pending")
    assert log.states() == {A: "done", B: "pending"}


def test_nobody_begins_while_the_run_is_paused_and_who_is_in_flight_reports(log):
    log.start((A, B))
    log.open(A, B)
    log.ask(A)
    log.steer(Verb.PAUSE)
    refused(log.ask(B), "run", "paused")
    assert isinstance(log.report(A), Done)
    log.steer(Verb.RESUME)
    assert isinstance(log.ask(B), Granted)


def test_a_report_counts_once(log):
    log.start((A,))
    log.carry(A)
    digest = log.machine.digest
    assert log.report(A) == Done(log.version())
    assert log.report(A, words="again, in other words") == Done(log.version())
    refused(log.report(A, NodeState.FAILED), "state", "one report")
    refused(log.report(A, NodeState.REVERTED), "state", "no report of that")
    assert log.machine.digest == digest


def test_what_drifted_since_is_told_of_a_node_that_is_done_and_of_no_other(log):
    log.complete((A,), (B,))
    assert isinstance(log.report(A, kind="drift", words="file /etc/motd: changed"), Done)
    assert (log.task(A).state, log.task(A).kind, log.task(A).words) == (
        NodeState.DONE,
        "drift",
        "file /etc/motd: changed",
    )
    assert isinstance(log.report(A, kind="drift"), Done)
    assert (log.task(A).kind, log.task(A).words) == ("", "")
    log.steer(Verb.REVERT)
    log.carry(B, state=NodeState.REVERTED)
    refused(log.report(B, NodeState.DONE, kind="drift", words="gone"), "state")


def test_a_report_of_what_was_not_begun_is_refused(log):
    log.start((A,))
    refused(log.report(A, epoch=1), "epoch")
    log.open(A)
    refused(log.report(A, epoch=1), "epoch", "granted under 1")


def test_a_late_report_of_what_is_tried_again_is_not_taken_for_the_new_one(log):
    log.start((A,), max_failed=1)
    log.carry(A, state=NodeState.FAILED)
    log.steer(Verb.RETRY, A)
    log.open(A)
    log.ask(A)
    refused(log.report(A, NodeState.FAILED, epoch=1), "epoch", "epoch 1")
    assert log.task(A).state is NodeState.STARTED
    assert isinstance(log.report(A), Done)


def test_what_was_skipped_in_flight_stays_skipped_and_says_what_it_did(log):
    log.start((A,), max_failed=1)
    log.open(A)
    log.ask(A)
    log.mark(A, NodeState.UNKNOWN)
    log.steer(Verb.SKIP, A)
    assert isinstance(log.report(A, took=5), Done)
    assert (log.task(A).state, log.task(A).took) == (NodeState.SKIPPED, 5)
    assert "reported done" in log.task(A).words
    log.close()
    assert isinstance(log.finish(RunState.DONE), Done)


# ---- the budget


def test_nothing_is_granted_while_the_budget_is_spent(log):
    log.start((A, B, C), max_failed=0)
    log.open(A, B)
    log.ask(A)
    log.report(A, NodeState.FAILED)
    refused(log.open(C), "budget", "1 node of run 1 failed", "none may")
    refused(log.ask(B), "budget")


def test_a_part_of_the_nodes_is_a_budget_too(log):
    log.start((A, B, C, D), max_failed="50%")
    assert log.run().budget == 2
    log.carry(A, B, state=NodeState.FAILED)
    log.carry(C, state=NodeState.FAILED)
    refused(log.open(D), "budget")


def test_who_was_refused_for_the_budget_is_prompted_again_when_a_report_makes_it_whole(log):
    log.start((A, B))
    log.open(A, B)
    log.ask(A)
    log.mark(A, NodeState.UNKNOWN)
    refused(log.ask(B), "budget")
    version = log.version()
    log.report(A)
    assert log.version() == version + 1
    assert isinstance(log.ask(B), Granted)


def test_a_node_that_is_back_is_not_granted_again_while_others_spend_the_budget(log):
    log.start((A, B))
    log.open(A, B)
    log.mark(A, NodeState.UNREACHABLE)
    log.mark(B, NodeState.UNREACHABLE)
    refused(log.mark(A, NodeState.GRANTED), "budget", "mark it pending")
    both = (Mark(A, NodeState.GRANTED, ""), Mark(B, NodeState.GRANTED, ""))
    assert isinstance(log.say(MarkNodes("1", log.version(), 5, both)), Done)
    assert log.run().granted == (A, B)


def test_a_hold_for_the_budget_ends_when_it_is_whole(log):
    log.start((A, B))
    log.open(A)
    log.mark(A, NodeState.UNREACHABLE)
    log.hold(Hold.BUDGET)
    refused(log.release(), "budget")
    refused(log.steer(Verb.RESUME), "verb", "skip some")
    log.mark(A, NodeState.GRANTED)
    assert isinstance(log.release(), Done)
    assert isinstance(log.ask(A), Granted)


def test_a_failure_waits_for_an_operator_who_mends_it(log):
    log.start((A, B))
    log.carry(A, state=NodeState.FAILED)
    log.hold(Hold.FAILURE)
    refused(log.release(), "hold", "operator")
    refused(log.revert(), "hold")
    refused(log.steer(Verb.RESUME), "verb", "1 node of run 1 failed, and none may", "retry or skip")
    log.steer(Verb.RETRY, A)
    assert isinstance(log.steer(Verb.RESUME), Done)
    log.carry(A)


def test_one_out_of_reach_that_comes_back_after_its_batch_is_tried_again(log):
    log.start((A,), (B,), max_failed=1)
    log.mark(A, NodeState.UNREACHABLE)
    log.close()
    log.mark(A, NodeState.PENDING)
    assert log.run().retries == (A,)
    log.carry(B, A)
    log.close()
    assert isinstance(log.finish(RunState.DONE), Done)


def test_one_of_a_later_batch_that_is_tried_again_waits_for_its_batch(log):
    log.start((A,), (B,), (D,), max_failed=1)
    log.steer(Verb.SKIP, D)
    log.steer(Verb.RETRY, D)
    assert (log.task(D).state, log.run().retries) == (NodeState.PENDING, ())
    refused(log.open(D), "nodes", "neither of batch 0 nor to be tried again")
    log.carry(A)
    log.close()
    refused(log.open(D), "nodes", "neither of batch 1")
    log.carry(B)
    log.close()
    log.carry(D)


def test_one_that_is_not_due_yet_is_nobody_s_concern(log):
    log.start((A,), (B,))
    refused(log.mark(B, NodeState.UNREACHABLE), "marks", "not due yet")


# ---- batches and the end


def test_a_batch_is_left_only_when_all_of_it_is_settled(log):
    log.start((A, B))
    log.carry(A)
    refused(log.close(), "batch", "fra/b of batch 0 is pending")
    log.open(B)
    refused(log.close(), "batch", "granted")
    log.ask(B)
    refused(log.close(), "batch", "started")
    log.mark(B, NodeState.UNKNOWN)
    refused(log.close(), "batch", "unknown")
    log.report(B)
    assert isinstance(log.close(), Done)
    assert log.run().granted == ()
    refused(log.close(), "batch", "no batch 1")


def test_a_run_is_done_when_every_node_is_and_moves_where_only_who_asks_reads_it(log):
    log.start((A,), (B,))
    log.carry(A)
    log.close()
    refused(log.finish(RunState.DONE), "state", "1 node of run 1")
    log.carry(B)
    log.close()
    log.finish(RunState.DONE)
    assert "system/runs/1" not in log.machine.keys
    assert log.run().state is RunState.DONE
    assert (log.last().over, log.last().tasks) == (1, 2)


def test_a_leader_ends_nothing_as_aborted_or_under_way(log):
    log.start((A,))
    for state in (RunState.ABORTED, RunState.RUNNING, RunState.PAUSED):
        refused(log.finish(state), "state")


def test_aborting_takes_grants_back_and_lets_those_in_flight_report(log):
    log.start((A, B))
    log.open(A, B)
    log.ask(A)
    log.steer(Verb.ABORT)
    assert log.states() == {A: "started", B: "pending"}
    refused(log.ask(B, epoch=1), "run", "aborted")
    assert isinstance(log.report(A), Done)
    assert log.counts() == {"done": 1}


def test_nodes_that_join_are_a_last_batch_of_their_own(log):
    log.start((A,), join=Join.APPLY)
    log.start((C,), name="db")
    join = JoinNodes("1", log.version(), 5, (D, B))
    assert isinstance(log.say(join), Done)
    assert [batch.nodes for batch in log.value(records.plan_key("1"), RunPlan).batches] == [(A,), (B,), (D,)]
    assert (log.run().targets, log.run().batches) == (3, 3)
    refused(log.say(replace(join, version=log.version())), "nodes", "target already")
    refused(log.say(JoinNodes("1", log.version(), 5, (C,))), "nodes", "run 2")
    refused(log.say(JoinNodes("2", log.version("2"), 5, ("fra/new",))), "join")


def test_the_gates_after_the_last_batch_can_be_passed_over_and_nodes_that_join_have_their_own(log):
    log.start((A,), join=Join.APPLY)
    log.carry(A)
    log.close()
    assert isinstance(log.hold(Hold.GATE), Done)
    assert isinstance(log.steer(Verb.PROMOTE), Done)
    assert (log.run().promoted, log.audit()[-1].evidence) == (1, "paused (gate); the end")
    refused(log.steer(Verb.PROMOTE), "verb", "the end of run 1 was promoted already")
    assert isinstance(log.release(), Done)
    assert isinstance(log.say(JoinNodes("1", log.version(), 5, (D,))), Done)
    assert (log.run().batch, log.run().promoted) == (1, -1)


# ---- two operators, and reverting


def test_of_two_operators_the_second_is_told_that_it_was_done(log):
    log.start()
    version = log.version()
    assert log.steer(Verb.PAUSE, actor="bob", version=version) == Done(version + 1)
    digest = log.machine.digest
    refused(log.steer(Verb.PAUSE, actor="cid"), "verb", "paused by an operator already")
    refused(log.steer(Verb.ABORT, actor="cid", version=version), "version", "look again")
    assert log.machine.digest == digest
    log.steer(Verb.PROMOTE, actor="bob")
    refused(log.steer(Verb.PROMOTE, actor="cid"), "verb", "promoted already")


def test_an_operator_who_pauses_a_held_run_keeps_it_paused(log):
    log.start()
    log.hold(Hold.GATE)
    log.steer(Verb.PAUSE)
    refused(log.release(), "hold")
    refused(log.hold(Hold.FREEZE), "hold")
    assert isinstance(log.steer(Verb.RESUME), Done)


def test_a_freeze_window_does_not_keep_what_fails(log):
    for name, end in (("web", log.revert), ("db", lambda run: log.finish(RunState.FAILED, run))):
        run = log.start((A,), name=name)
        log.open(A, run=run)
        log.ask(A, run=run)
        log.hold(Hold.FREEZE, run)
        log.report(A, NodeState.FAILED, run=run)
        assert isinstance(end(run), Done)
        log.steer(Verb.ABORT, run=run)


def test_a_verb_about_a_node_that_is_no_target_says_where_to_look(log):
    log.start()
    refused(log.steer(Verb.SKIP, "fra/nobody"), "node", "no target of run 1")
    refused(log.steer(Verb.SKIP, A, run="7"), "run", "there is no run 7", kind="unknown")


def test_a_revert_goes_back_batch_by_batch_and_leaves_out_who_was_never_begun(log):
    log.start((A,), (B, C), (D,))
    log.carry(A)
    log.close()
    log.open(B, C)
    log.ask(B)
    applied = log.tell(SteerRun("1", Verb.REVERT, "bob", 5))
    assert applied.events[-1] == RunMoved("1", log.version(), "running", "reverting", "reverted by bob")
    assert log.states() == {A: "done", B: "started", C: "pending", D: "pending"}
    refused(log.open(C), "nodes", "cannot be granted")
    refused(log.close(), "batch", "started")
    log.report(B, NodeState.FAILED)  # of what it had begun, under the older epoch
    log.carry(B, state=NodeState.REVERTED)
    log.close()
    log.carry(A, state=NodeState.REVERTED)
    log.close()
    assert log.run().batch == -1
    refused(log.finish(RunState.REVERT_FAILED), "state")
    assert isinstance(log.finish(RunState.REVERTED), Done)
    assert log.states() == {A: "reverted", B: "reverted", C: "pending", D: "pending"}


def test_why_a_node_failed_is_kept_beside_what_its_revert_made_of_it(log):
    log.start((A,), (B,))
    steps = (Step("file /etc/motd", "changed"), Step("nosuch", "failed", "E: Unable to locate package nosuch"))
    log.open(A)
    log.ask(A)
    log.report(A, NodeState.FAILED, kind="apply", words="nosuch: exit 100", steps=steps, took=5)
    log.revert()
    assert log.task(A).applied is None
    log.carry(A, state=NodeState.REVERT_FAILED)
    log.close()
    log.finish(RunState.REVERT_FAILED)
    log.steer(Verb.REVERT)  # once more
    log.close()
    log.carry(A, state=NodeState.REVERTED)
    task = log.task(A)
    assert (task.state, task.words, task.steps) == (NodeState.REVERTED, "", ())
    applied = Applied(state=NodeState.FAILED, kind="apply", words="nosuch: exit 100", steps=steps, took=5)
    assert task.applied == applied


def test_one_that_cannot_be_reverted_does_not_stop_the_others_and_the_run_says_so(log):
    log.start((A,), (B,))
    log.carry(A)
    log.close()
    log.carry(B)
    log.revert()
    log.carry(B, state=NodeState.REVERT_FAILED)
    log.close()
    log.carry(A, state=NodeState.REVERTED)
    log.close()
    refused(log.finish(RunState.REVERTED), "state", "1 node not reverted")
    log.finish(RunState.REVERT_FAILED)
    log.steer(Verb.REVERT)  # once more
    assert log.states() == {A: "reverted", B: "pending"}
    log.carry(B, state=NodeState.REVERTED)
    log.close()
    log.close()
    assert isinstance(log.finish(RunState.REVERTED), Done)


def test_one_that_is_cut_off_with_its_grant_to_be_reverted_after_its_batch_is_not_forgotten(log):
    log.start((A,), (B,))
    log.carry(A)
    log.close()
    log.carry(B)
    log.revert()
    log.carry(B, state=NodeState.REVERT_FAILED)
    log.close()
    log.steer(Verb.RETRY, B)
    log.open(B)
    log.mark(B, NodeState.UNREACHABLE)
    log.carry(A, state=NodeState.REVERTED)
    log.close()
    refused(log.finish(RunState.REVERTED), "state", "fra/b is unreachable")
    log.carry(B, state=NodeState.REVERTED)
    assert isinstance(log.finish(RunState.REVERTED), Done)


def test_one_of_a_batch_that_the_revert_has_yet_to_come_to_waits_for_it(log):
    log.start((A,), (B,))
    log.carry(A)
    log.close()
    log.carry(B)
    log.revert()
    log.steer(Verb.SKIP, A)
    log.steer(Verb.RETRY, A)
    assert log.run().retries == ()
    refused(log.open(A), "nodes", "neither of batch 1")
    log.carry(B, state=NodeState.REVERTED)
    log.close()
    log.carry(A, state=NodeState.REVERTED)


def test_a_revert_goes_through_whoever_began_whatever_batch_it_is_of(log):
    """Records of before later batches waited for their turn."""
    log.start((A,), (B,), (D,), max_failed=1)
    log.carry(A)
    began = NodeTask(node=D, state=NodeState.FAILED, touched=True, epoch=1, ask=7)
    for key, record in ((records.node_key("1", D), began), (records.counts_key("1"), {"done": 1, "failed": 1})):
        log.machine.keys.put(KeyValue(key, records.encode(record), 9, 9, 1))
    log.steer(Verb.REVERT)
    assert log.run().batch == 2
    log.carry(D, state=NodeState.REVERTED)


def test_a_run_that_is_over_is_reverted_and_is_under_way_again(log):
    log.complete((A,), (B,))
    log.steer(Verb.REVERT)
    assert "system/runs/1" in log.machine.keys
    assert records.over_key("1") not in log.machine.keys
    assert (log.run().batch, log.run().epoch, log.last().over) == (1, 2, 0)
    refused(log.start((A,), name="other"), "targets", "run 1")


def file(path, *notify):
    return File(path=path, content="hello", notify=notify)


def test_a_run_is_not_reverted_while_a_later_one_has_the_same_thing_on_a_node(log):
    log.complete((A,), (B,))
    log.complete((B,), name="db")
    refused(
        log.steer(Verb.REVERT, run="1"), "run", "run 2 changed file /etc/motd of fra/b after run 1", "--force --why"
    )
    log.steer(Verb.REVERT, run="2")
    refused(log.steer(Verb.REVERT, run="1"), "targets", "run 2")
    log.carry(B, state=NodeState.REVERTED, run="2")
    log.close("2")
    log.finish(RunState.REVERTED, "2")
    assert isinstance(log.steer(Verb.REVERT, run="1"), Done)


def test_a_later_run_about_other_things_of_a_node_or_other_nodes_is_not_in_the_way(log):
    reload = Service(unit="nginx")
    log.complete((A,), (B,), resources=(file("/etc/a", "service nginx"), reload))
    log.complete((B,), name="db", resources=(file("/etc/b", "service nginx"), reload))
    log.complete((C,), name="motd", resources=(file("/etc/a"),))
    assert isinstance(log.steer(Verb.REVERT, run="1"), Done)


def test_a_later_run_that_cannot_be_reverted_is_passed_by_force_and_the_audit_says_who_and_why(log):
    log.complete((A,))
    log.complete((A,), name="db")
    log.steer(Verb.REVERT, run="2")
    log.carry(A, state=NodeState.REVERT_FAILED, run="2")
    log.close("2")
    log.finish(RunState.REVERT_FAILED, "2")
    refused(log.steer(Verb.REVERT, run="1"), "run", "run 2 changed", "--force")
    assert isinstance(log.steer(Verb.REVERT, run="1", force=True, words="2 is stuck"), Done)
    entry = log.audit()[-1]
    assert (entry.actor, entry.verb) == ("bob", "revert")
    assert entry.evidence.endswith("forced: run 2 changed file /etc/motd of fra/a after run 1; 2 is stuck")


def test_a_revert_may_be_paused_and_goes_on_as_one(log):
    log.start((A,))
    log.carry(A)
    log.revert()
    log.steer(Verb.PAUSE)
    refused(log.open(A), "state")
    refused(log.steer(Verb.REVERT), "verb", "resume it")
    refused(log.steer(Verb.PROMOTE), "verb")
    log.steer(Verb.RESUME)
    assert log.run().state is RunState.REVERTING


def test_who_does_not_answer_in_a_revert_can_be_skipped(log):
    log.start((A,))
    log.carry(A)
    log.revert()
    refused(log.close(), "batch", "done")
    log.steer(Verb.SKIP, A)
    log.close()
    assert isinstance(log.finish(RunState.REVERTED), Done)


# ---- what is kept


def test_the_oldest_runs_that_are_over_go_and_what_is_under_way_stays(monkeypatch, log):
    monkeypatch.setattr(keeping, "RUNS_KEPT", 2)
    log.start((D,), name="long")
    for _ in range(4):
        log.complete((A,), (B,))
    kept = sorted({name.split("/")[2] for name in log.names("records/runs/")} - {"last"})
    assert kept == ["1", "4", "5"]
    assert log.names("system/runs/") == ["system/runs/1"]
    assert (log.last().over, log.last().oldest) == (2, 1)
    log.carry(D, run="1")
    log.close("1")
    log.finish(RunState.DONE, "1")
    assert log.run("1").state is RunState.DONE  # one that ends now is to be seen
    assert log.complete((A,)) == "6"
    refused(log.report(A, epoch=1, run="2"), "run", kind="unknown")


def test_many_targets_are_as_many_runs_when_room_is_made(monkeypatch, log):
    monkeypatch.setattr(keeping, "RUN_TASKS_KEPT", 5)
    for _ in range(3):
        log.complete((A,), (B,))
    assert (log.last().over, log.last().tasks, log.last().oldest) == (2, 4, 2)


def test_a_full_store_takes_no_new_run_but_every_pause_and_report(monkeypatch, log):
    log.start((A,))
    log.open(A)
    log.ask(A)
    monkeypatch.setattr(quotas_module, "STORE_BYTES", log.machine.size)
    refused(log.start((B,), name="db"), "store", "full", kind="storage")
    assert isinstance(log.report(A, words="w" * 900, steps=(Step("a", "changed"),)), Done)
    assert (log.task(A).state, log.task(A).steps) == (NodeState.DONE, ())
    assert "full" in log.task(A).words
    assert isinstance(log.steer(Verb.PAUSE), Done)


# ---- the store around it


def test_an_asking_sent_twice_is_done_once_and_answered_the_same(log):
    start = StartRun(spec(), plan((A,)), {}, "ann", 5)
    first = log.do(start, asked(1)).result
    assert log.do(start, asked(1)).result == first == RunStarted("1", RunState.RUNNING)
    log.open(A)
    ask = AskGrant("1", A, 1, 7)
    granted = log.do(ask, asked(2)).result
    assert isinstance(granted, Granted)
    recovered = StoreMachine.recover(log.machine.all_records())
    assert recovered.digest == log.machine.digest
    log.machine = recovered
    assert log.do(ask, asked(2)).result == granted


def test_the_same_log_is_the_same_store_also_when_it_was_recovered_in_between(log):
    log.complete()
    log.start((A,))
    log.open(A, run="2")
    half = len(log.entries) // 2
    whole = replayed(log.entries)
    recovered = replayed(log.entries, StoreMachine.recover(replayed(log.entries[:half]).all_records()))
    assert contents(whole) == contents(recovered) == contents(log.machine)


def test_what_changed_is_told_to_who_watches(log):
    revision = log.machine.revision
    log.start((A,))
    log.open(A)
    changes = log.machine.changes_after("system/runs/", True, revision)
    assert [change.key for change in changes] == ["system/runs/1", "system/runs/1"]


def test_what_cannot_be_read_below_these_keys_ends_no_server():
    log = RunsLog(level=1)
    for key in ("records/runs/last", "system/runs/x", "records/audit/0000000000000000", "records/runs/1/counts"):
        log.put(key, b"not of runs")
    log.do(SetFeatureLevel(2))
    assert log.start((A,)) == "1"
    log.carry(A)


def restore(log, backup):
    for chunk in restore_chunks(backup, 9):
        applied = log.tell(chunk)
    return applied


def test_a_restored_run_is_paused_and_fenced_until_somebody_has_looked(log):
    log.start((A, B, C), max_failed=1)
    log.open(A, B)
    log.ask(A)
    backup = write_backup(log.machine, GroupId(GROUP))
    log.steer(Verb.PAUSE)
    log.steer(Verb.SKIP, B)
    log.steer(Verb.RETRY, B)  # epoch 2, which the backup does not know
    log.steer(Verb.ABORT)
    log.start((D,), name="later")
    last = log.audit()[-1].number
    revision = log.machine.revision
    applied = restore(log, backup)
    assert log.machine.revision == revision + 1
    record = log.run()
    assert (record.state, record.hold, record.epoch, record.granted) == (RunState.PAUSED, Hold.OPERATOR, 4, ())
    assert "backup" in record.words
    assert log.states() == {A: "started", B: "pending", C: "pending"}
    assert applied.events[-1].now == "paused"
    assert "system/runs/2" not in log.machine.keys
    assert f"ended at {last}" in log.audit()[-1].evidence
    refused(log.ask(B, epoch=1), "run", "paused")
    assert isinstance(log.report(A), Done)
    assert isinstance(log.steer(Verb.RESUME), Done)
    assert log.start((D,), name="later") == "3"  # 2 was given out: nodes' journals know it


def test_a_run_restored_at_a_lower_level_is_paused_when_the_level_rises():
    source = RunsLog()
    source.start((A,))
    log = RunsLog(level=1)
    restore(log, write_backup(source.machine, GroupId(GROUP)))
    assert log.run().state is RunState.RUNNING
    log.do(SetFeatureLevel(2))
    assert (log.run().state, log.run().epoch) == (RunState.PAUSED, 2)
    log.check()


def test_a_restore_of_a_store_without_runs_says_nothing_of_them():
    log = RunsLog()
    log.put("a")
    restore(log, write_backup(log.machine, GroupId(GROUP)))
    assert log.names() == ["a"]


# ---- before the log


@pytest.mark.parametrize(
    "operation",
    [
        Put("system/runs/1", b""),
        Put("records/runs/last", b""),
        Put("records/anything", b""),
        Delete("system/runs/1"),
        Delete("records/audit/0000000000000001"),
        *(
            Delete(prefix, True)
            for prefix in ("s", "system/", "system/ru", "system/runs/1", "r", "records/", "records/s")
        ),
    ],
)
def test_nobody_else_writes_what_runs_write(operation):
    with pytest.raises(LocalError) as caught:
        check_request(Transact((), (operation,)))
    assert "dislocate run" in caught.value.expected


@pytest.mark.parametrize(
    "operation",
    [
        Put("records/secrets/db", b""),
        Delete("records/secrets/", True),
        Get("records/", True),
        Put("system/rules", b""),
        Delete("system/quota/", True),
        Delete("recording", True),
    ],
)
def test_secrets_and_neighbours_are_free(operation):
    check_request(Transact((), (operation,)))


START = StartRun(spec(), plan((A,)), {}, "ann", 5)
STEER = SteerRun("1", Verb.PAUSE, "ann", 5)
ASK = AskGrant("1", A, 1, 7)
REPORT = ReportTask("1", A, 1, NodeState.DONE)


@pytest.mark.parametrize("request_", [START, STEER, ASK, REPORT])
def test_what_is_right_passes(request_):
    check_request(request_)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (replace(START, actor=""), "actor"),
        (replace(START, at=-1), "at"),
        (replace(START, spec=RunSpec(name="", targets="*", resources=())), "spec.name"),
        (
            replace(START, spec=RunSpec(name="a", targets="*", resources=(File(path="/a", content="x" * SPEC_BYTES),))),
            "spec",
        ),
        (replace(START, values={"k": "v" * 300_000}), "values"),
        (replace(START, plan=plan(("fra",))), "plan.targets[0]"),
        (replace(STEER, run="01"), "run"),
        (replace(STEER, run="1/plan"), "run"),
        (replace(STEER, words="w" * (RUN_WORDS + 1)), "words"),
        (replace(STEER, version=-1), "version"),
        (replace(STEER, node=A), "node"),
        (replace(STEER, verb=Verb.SKIP), "node"),
        (replace(STEER, actor="a" * 201), "actor"),
        (replace(ASK, ask=0), "ask"),
        (replace(ASK, epoch=1 << 63), "epoch"),
        (replace(ASK, node="fra"), "node"),
        (replace(REPORT, state=NodeState.SKIPPED), "state"),
        (replace(REPORT, words="w" * REPORT_BYTES), "steps"),
        (replace(REPORT, took=-1), "took"),
    ],
)
def test_what_is_wrong_is_named(request_, field):
    with pytest.raises(LocalError) as caught:
        check_request(request_)
    assert caught.value.field == field


def test_records_are_written_as_they_were():
    """A change of these bytes is a change of what older servers have on disk: it needs another feature level."""
    log = RunsLog()
    log.complete((A,), (B,))
    log.start((A,), (B,), approvals=1)
    found = {kv.key: json.loads(kv.value) for kv in log.machine.keys.below("")}
    assert found == json.loads(GOLDEN.read_text())
