"""The worker: what an agent does of a run that names it, and what is left of that after a crash at any point."""

import msgspec
import pytest

from dislocate.core.boundary.events import Drifted, TaskBegun, TaskEnded
from dislocate.core.boundary.runs import (
    AskGrant,
    NodeState,
    ReportTask,
    RunState,
    TaskOutcome,
    TaskResult,
    TaskVerb,
)
from dislocate.core.boundary.spec import Command, Service
from dislocate.core.boundary.store import KeyValue, ReadKeys
from dislocate.core.runs.agent.actions import Carry, Intend, Look, Settle, next_action, work_to_apply
from dislocate.core.runs.agent.fetching import named_secrets
from dislocate.core.runs.agent.journal import Journal, Purpose, intended, settled
from dislocate.core.runs.plan import plan_digest
from dislocate.core.tunables import GRANT_VALID
from dislocate.core.units import SECOND
from tests.support.tiny_worker import TinyWorker, file

MOTD = file("/etc/motd", "hello", notify=("service nginx",))
SITE = file("/etc/site", "new")
NGINX = Service(unit="nginx")
SEED = Command(run=("seed",), creates="/srv/seed")
ONCE = Command(run=("migrate",), once=True)


@pytest.fixture
def world():
    return TinyWorker()


# ---- from the prompt to the report


def test_a_run_that_names_this_node_is_asked_for_done_and_reported(world):
    world.begin_run(MOTD, SITE, NGINX)
    world.run()
    assert world.host.states == {"file /etc/motd": "hello", "file /etc/site": "new", "service nginx": "done"}
    assert world.states == [NodeState.DONE]
    assert [step.result for step in world.store.reports[0].steps] == ["changed"] * 3
    assert [type(request) for request in world.store.asked] == [ReadKeys, AskGrant, ReportTask]
    assert world.happened(TaskBegun) == [TaskBegun("1", 1, "apply")]
    assert [event.state for event in world.happened(TaskEnded)] == ["done"]


def test_a_run_that_names_others_is_not_asked_for(world):
    world.begin_run(SITE, granted=("fra/a2",))
    world.run()
    assert world.store.asked == []
    assert world.host.looked == []


def test_what_is_as_it_should_be_is_not_touched_and_notifies_nobody(world):
    world.host.states["file /etc/motd"] = "hello"
    world.begin_run(MOTD, NGINX)
    world.run()
    assert world.host.done == []
    assert [step.result for step in world.store.reports[0].steps] == ["same", "same"]


def test_a_handler_is_done_once_and_last_however_many_notify_it(world):
    other = file("/etc/other", "x", notify=("service nginx",))
    world.begin_run(NGINX, MOTD, other, SITE)
    world.run()
    assert world.host.applied() == ["file /etc/motd", "file /etc/other", "file /etc/site", "service nginx"]


def test_a_step_that_fails_ends_the_task_and_what_comes_after_is_not_reached(world):
    world.host.fails["file /etc/motd"] = "validate"
    world.begin_run(MOTD, SITE, NGINX)
    world.run()
    (report,) = world.store.reports
    assert (report.state, report.kind) == (NodeState.FAILED, "validate")
    assert "file /etc/motd: exit code 1" in report.words
    assert [step.result for step in report.steps] == ["failed", "not reached", "not reached"]
    assert world.host.states == {}


def test_the_same_run_is_not_done_again_at_a_later_version(world):
    world.begin_run(SITE)
    world.run()
    world.store.change("1", batch=1)
    world.run()
    assert len(world.asked(AskGrant)) == 1


def test_two_runs_are_done_one_after_the_other(world):
    world.begin_run(SITE)
    world.begin_run(SEED, run="2", name="seed", started_at=2)
    world.run()
    assert [event.run for event in world.happened(TaskBegun)] == ["1", "2"]
    assert world.states == [NodeState.DONE, NodeState.DONE]
    begun_2 = world.events.index(TaskBegun("2", 1, "apply"))
    assert world.events.index(world.happened(TaskEnded)[0]) < begun_2


# ---- grants


def test_who_is_refused_asks_once_for_each_version_of_the_run(world):
    world.begin_run(SITE)
    world.store.tasks["1"] = msgspec.structs.replace(world.store.tasks["1"], state=NodeState.PENDING)
    world.run("60s")
    assert len(world.asked(AskGrant)) == 1
    world.store.change("1", words="another")
    world.run("60s")
    assert len(world.asked(AskGrant)) == 2
    assert world.host.looked == []


def test_a_run_that_is_paused_is_not_asked_for_until_it_goes_on(world):
    world.begin_run(SITE, state=RunState.PAUSED)
    world.run("60s")
    assert world.asked(AskGrant) == []
    world.store.change("1", state=RunState.RUNNING)
    world.run()
    assert world.states == [NodeState.DONE]


def test_a_grant_that_took_too_long_is_asked_for_anew(world):
    world.store.answers_after = GRANT_VALID + SECOND
    world.begin_run(SITE)
    world.run("25s")
    assert world.host.looked == []
    world.store.answers_after = 0
    world.run("30s")
    first, second = world.asked(AskGrant)[:2]
    assert first.ask != second.ask
    assert world.states == [NodeState.DONE]


def test_while_no_store_answers_it_asks_on_and_begins_nothing(world):
    world.begin_run(SITE)
    world.store.is_away = True
    world.run("10s")
    assert world.host.looked == []
    world.store.is_away = False
    world.run("10s")
    assert world.states == [NodeState.DONE]


def test_a_specification_that_is_not_the_one_of_the_run_is_not_used(world):
    world.begin_run(SITE, spec_digest="another")
    world.run("10s")
    assert world.asked(AskGrant) == []


def test_a_stale_plan_does_nothing(world):
    world.store.expected = plan_digest([("file /etc/site", "old"), ("service nginx", "absent")])
    world.begin_run(SITE, NGINX)
    world.run()
    (report,) = world.store.reports
    assert (report.state, report.kind) == (NodeState.FAILED, "stale")
    assert "plan again" in report.words
    assert world.host.done == []


def test_a_plan_that_fits_is_carried_out(world):
    world.store.expected = plan_digest([("file /etc/site", "absent"), ("service nginx", "")])
    world.begin_run(SITE, NGINX)
    world.run()
    assert world.states == [NodeState.DONE]


def test_a_failed_node_that_is_granted_again_does_what_is_left(world):
    world.host.fails["file /etc/site"] = "apply"
    world.begin_run(SEED, SITE)
    world.run()
    assert world.states == [NodeState.FAILED]
    world.host.fails.clear()
    world.store.tasks["1"] = msgspec.structs.replace(world.store.tasks["1"], state=NodeState.GRANTED)
    world.store.change("1", retries=())
    world.run()
    assert world.states == [NodeState.FAILED, NodeState.DONE]
    assert world.host.applied() == ["command seed", "file /etc/site"]


# ---- reports


def test_a_report_is_repeated_until_it_is_answered_also_by_the_next_start(world):
    world.begin_run(SITE)
    while not world.host.done:
        world._step(world.now + SECOND)
    world.store.is_away = True
    world.run("10s")
    assert len(world.asked(ReportTask)) >= 3
    world.start()
    world.run("10s")
    world.store.is_away = False
    world.run("30s")
    assert world.states == [NodeState.DONE]
    assert world.host.applied() == ["file /etc/site"]
    count = len(world.asked(ReportTask))
    world.run("60s")
    assert len(world.asked(ReportTask)) == count


def test_a_report_that_nobody_wants_any_more_is_let_go(world):
    world.answers_tasks = False
    world.begin_run(SITE)
    world.run("1s")
    world.store.tasks["1"] = msgspec.structs.replace(world.store.tasks["1"], epoch=7)
    world.worker.task_progressed("run/1/apply/1", TaskOutcome(TaskResult.SAME, "new", "new"))
    world.run("60s")
    assert len(world.asked(ReportTask)) == 1
    assert world.store.reports == []


# ---- taking back


def test_a_revert_undoes_in_reverse_order_and_what_was_notified_follows(world):
    world.host.states |= {"file /etc/motd": "old", "file /etc/site": "older"}
    world.begin_run(MOTD, SITE, SEED, NGINX)
    world.run()
    world.revert_run()
    world.run()
    assert world.states == [NodeState.DONE, NodeState.REVERTED]
    assert world.host.reverted() == ["command seed", "file /etc/site", "file /etc/motd", "service nginx"]
    assert world.host.states["file /etc/motd"] == "old"
    assert world.host.states["file /etc/site"] == "older"


def test_a_revert_says_what_the_run_had_made_also_after_it_was_brought_back(world):
    world.begin_run(MOTD, SITE, enforce=True)
    world.run()
    world.end_run()
    world.host.states["file /etc/motd"] = "by hand"
    world.host.facts = " and goodbye"  # its templates become something else now
    world.run("3m")
    world.host.facts = ""
    assert world.host.states["file /etc/motd"] == "hello and goodbye"
    world.revert_run()
    world.run()
    assert world.host.made == {"file /etc/motd": "hello and goodbye", "file /etc/site": "new and goodbye"}


def test_a_revert_leaves_alone_what_the_run_did_not_change(world):
    world.host.states["file /etc/site"] = "new"
    world.begin_run(SITE, SEED)
    world.run()
    world.revert_run()
    world.run()
    assert world.host.reverted() == ["command seed"]


def test_a_revert_is_about_what_failed_half_way_too(world):
    world.begin_run(SITE, SEED)
    world.host.fails["command seed"] = "apply"
    world.run()
    world.host.fails.clear()
    world.revert_run()
    world.run()
    assert world.host.states["file /etc/site"] == "absent"
    assert world.states == [NodeState.FAILED, NodeState.REVERTED]


def test_a_handler_that_fails_on_the_way_back_as_it_did_on_the_way_there_is_told_and_the_node_is_reverted(world):
    world.host.fails["service nginx"] = "apply"
    world.begin_run(MOTD, NGINX)
    world.run()
    world.revert_run()
    world.run()
    report = world.store.reports[-1]
    assert report.state is NodeState.REVERTED
    assert world.host.states["file /etc/motd"] == "absent"
    assert [step.result for step in report.steps] == ["changed", "left"]
    assert report.steps[1].words.startswith("fails as it did when it was applied")


def test_a_handler_that_worked_and_fails_on_the_way_back_is_a_failed_revert(world):
    world.begin_run(MOTD, NGINX)
    world.run()
    world.host.fails["service nginx"] = "apply"
    world.revert_run()
    world.run()
    assert world.store.reports[-1].state is NodeState.REVERT_FAILED


def test_a_template_that_cannot_be_rendered_any_more_is_reverted_all_the_same(world):
    world.begin_run(SITE)
    world.run()
    world.host.fails["file /etc/site"] = "render"
    world.host.do = _but_revert(world.host)
    world.revert_run()
    world.run()
    assert world.states == [NodeState.DONE, NodeState.REVERTED]
    assert world.host.states["file /etc/site"] == "absent"


def _but_revert(host):
    """Only looking fails."""
    do, fails = host.do, host.fails

    def doing(task):
        host.fails = {} if task.verb is TaskVerb.REVERT else fails
        return do(task)

    return doing


def test_a_run_that_is_over_is_taken_back_from_the_journal_after_a_restart(world):
    world.begin_run(SITE)
    world.run()
    world.end_run()
    world.start()
    world.run()
    world.revert_run()
    world.run()
    assert world.states == [NodeState.DONE, NodeState.REVERTED]
    assert world.host.states["file /etc/site"] == "absent"


def test_a_revert_of_what_was_never_begun_here_is_done_at_once(world):
    world.begin_run(SITE, granted=())
    world.store.tasks["1"] = msgspec.structs.replace(world.store.tasks["1"], state=NodeState.FAILED)
    world.revert_run()
    world.run()
    assert world.states == [NodeState.REVERTED]
    assert world.host.done == []


def test_a_disk_that_was_replaced_does_not_claim_to_have_reverted(world):
    world.begin_run(SITE)
    world.run()
    world.disk.clear()
    world.start()
    world.revert_run()
    world.run()
    assert world.states == [NodeState.DONE, NodeState.REVERT_FAILED]
    assert "no journal" in world.store.reports[-1].words


# ---- ended at every point


ALL = (MOTD, SITE, SEED, NGINX)


def points(begin):
    """How many things happen in a run that nothing disturbs."""
    world = TinyWorker()
    begin(world)
    world.run()
    return world.steps


def apply(world):
    world.begin_run(*ALL)


POINTS = points(apply)


@pytest.mark.parametrize("point", range(POINTS))
def test_wherever_the_agent_ends_each_resource_is_changed_once_and_the_run_reported(point):
    world = TinyWorker()
    apply(world)
    world.crash_after = point
    world.run("60s")
    files = [name for name in world.host.applied() if name != "service nginx"]
    assert files == ["file /etc/motd", "file /etc/site", "command seed"]
    assert 1 <= world.host.applied().count("service nginx") <= 2  # twice is better than never
    assert set(world.states) == {NodeState.DONE}
    assert world.host.states["file /etc/motd"] == "hello"


@pytest.mark.parametrize("second", range(0, POINTS, 3))
@pytest.mark.parametrize("first", range(0, POINTS, 3))
def test_nor_when_it_ends_twice(first, second):
    world = TinyWorker()
    apply(world)
    world.crash_after = first
    world.run("1ms")
    world.crash_after = world.steps + second
    world.run("60s")
    files = [name for name in world.host.applied() if name != "service nginx"]
    assert files == ["file /etc/motd", "file /etc/site", "command seed"]
    assert set(world.states) == {NodeState.DONE}


@pytest.mark.parametrize("point", range(POINTS + 10))
def test_wherever_the_agent_ends_during_a_revert_all_is_as_it_was(point):
    world = TinyWorker()
    world.host.states |= {"file /etc/motd": "old", "file /etc/site": "older"}
    apply(world)
    world.run()
    world.revert_run()
    world.crash_after = world.steps + point
    world.run("60s")
    assert set(world.states) == {NodeState.DONE, NodeState.REVERTED}
    reverted = [name for name in world.host.reverted() if name != "service nginx"]
    assert reverted == ["command seed", "file /etc/site", "file /etc/motd"]
    assert world.host.states["file /etc/motd"] == "old"
    assert world.host.states["file /etc/site"] == "older"


def once(world):
    world.begin_run(SITE, ONCE)


@pytest.mark.parametrize("point", range(points(once)))
def test_a_command_that_is_run_once_is_never_run_twice_but_may_be_lost(point):
    world = TinyWorker()
    once(world)
    world.crash_after = point
    world.run("60s")
    assert world.host.applied().count("command migrate") <= 1
    assert len(set(world.states)) == 1
    report = world.store.reports[-1]
    if report.state is NodeState.FAILED:
        assert report.kind == "lost"
        assert "retry or revert" in report.words
    else:
        assert world.host.applied().count("command migrate") == 1


def test_a_handler_that_was_owed_when_the_agent_ended_is_done_by_the_next_start(world):
    world.begin_run(MOTD, NGINX)
    while not world.host.done:
        world._step(world.now + SECOND)
    world.start()
    world.run()
    assert world.host.applied() == ["file /etc/motd", "service nginx"]


def test_a_disk_that_was_replaced_does_not_do_again_what_is_done_once(world):
    once(world)
    while "command migrate" not in world.host.applied():
        world._step(world.now + SECOND)
    world.disk.clear()
    world.start()
    world.run()
    (report,) = world.store.reports
    assert (report.state, report.kind) == (NodeState.FAILED, "lost")
    assert world.host.applied().count("command migrate") == 1
    world.revert_run()
    world.run()
    assert world.states == [NodeState.FAILED, NodeState.REVERT_FAILED]  # nor does it claim to have taken that back


def test_a_disk_that_was_replaced_before_anything_was_granted_is_a_disk_as_any_other(world):
    world.disk.clear()
    once(world)
    world.run()
    assert world.states == [NodeState.DONE]


def test_what_somebody_else_changed_meanwhile_is_lost_not_guessed(world):
    world.begin_run(SITE)
    while not world.host.done:
        world._step(world.now + SECOND)
    world.host.states["file /etc/site"] = "somebody's"
    world.start()
    world.run()
    (report,) = world.store.reports
    assert (report.state, report.kind) == (NodeState.FAILED, "lost")
    assert world.host.states["file /etc/site"] == "somebody's"


def test_an_agent_that_comes_back_when_the_run_is_over_says_how_far_it_came(world):
    world.begin_run(SITE, SEED)
    while not world.host.done:
        world._step(world.now + SECOND)
    world.store.over["1"] = msgspec.structs.replace(world.store.records.pop("1"), state=RunState.ABORTED)
    world.start()
    world.run("30s")
    (report,) = world.store.reports
    assert (report.state, report.kind) == (NodeState.FAILED, "lost")
    assert world.host.applied() == ["file /etc/site"]


@pytest.mark.parametrize("point", range(POINTS))
def test_an_agent_that_ends_anywhere_and_comes_back_when_the_run_is_taken_back_reverts_what_it_did(point):
    world = TinyWorker()
    apply(world)
    for _ in range(point):
        world._step(world.now + SECOND)
    world.revert_run()
    world.start()
    world.run("30s")
    began = world.store.tasks["1"].touched
    assert world.states == ([world.states[0], NodeState.REVERTED] if began else [])
    assert world.host.states.get("file /etc/motd", "absent") == "absent"
    assert world.host.states.get("file /etc/site", "absent") == "absent"


@pytest.mark.parametrize("point", range(POINTS))
def test_an_agent_that_starts_with_an_older_store_waits_for_the_present_one(point):
    """Its disk knows that it asked to take the run back, and its store does not know yet that there was such a thing."""
    world = TinyWorker()
    apply(world)
    world.run()
    older = world.store.records["1"]
    world.revert_run()
    for _ in range(point):
        world._step(world.now + SECOND)
    present = world.store.records["1"]
    world.store.records["1"] = older
    world.start()
    world.run("3s")
    world.store.put(present)
    world.run("30s")
    assert list(dict.fromkeys(world.states)) == [NodeState.DONE, NodeState.REVERTED]  # the same again is no other
    assert world.host.states.get("file /etc/motd", "absent") == "absent"


def test_what_a_node_asked_for_is_not_asked_for_again_under_an_older_epoch(world):
    """Else it would report under that, and nobody would take it."""
    world.begin_run(SITE)
    older = world.store.records["1"]
    world.store.change("1", epoch=3)
    while not world.host.done:
        world._step(world.now + SECOND)
    present = world.store.records["1"]
    world.store.records["1"] = older
    world.start()
    world.run("3s")
    assert {one.epoch for one in world.asked(AskGrant)} == {3}
    world.store.put(present)
    world.run()
    assert world.states == [NodeState.DONE]


@pytest.mark.parametrize("point", range(POINTS))
def test_an_agent_that_ends_anywhere_and_comes_back_when_the_run_is_over_has_reported_once(point):
    world = TinyWorker()
    apply(world)
    for _ in range(point):
        world._step(world.now + SECOND)
    world.end_run(state=RunState.ABORTED)
    world.start()
    world.run("30s")
    assert len(set(world.states)) == world.store.tasks["1"].touched
    assert not world.worker._carrying


def test_nothing_is_changed_before_the_intent_is_durable(world):
    world.disk_says = "full"
    world.begin_run(SITE)
    world.run("10s")
    assert world.host.done == []
    world.disk_says = ""
    world.run("10s")
    assert world.host.applied() == ["file /etc/site"]
    assert world.states == [NodeState.DONE]


def test_the_journals_of_old_runs_are_deleted(world):
    for number in range(1, 31):
        world.begin_run(file("/etc/site", str(number)), run=str(number), started_at=number)
        world.run("5s")
        world.end_run(str(number))
        world.run("5s")
    kept = sorted({int(key.split("/")[1]) for key in world.disk})
    assert kept == list(range(11, 31))


# ---- drift


def test_what_drifted_is_told_once_and_left(world):
    world.begin_run(SITE)
    world.run()
    world.end_run()
    world.host.states["file /etc/site"] = "somebody's"
    world.run("5m")
    (drifted,) = world.happened(Drifted)
    assert (drifted.run, drifted.resource, drifted.mended) == ("1", "file /etc/site", False)
    assert world.host.states["file /etc/site"] == "somebody's"


def test_the_store_knows_of_each_run_what_is_not_as_it_left_it_and_is_told_once(world):
    world.begin_run(SITE)
    world.run()
    world.end_run()
    world.run("5m")
    assert len(world.store.reports) == 1
    world.host.states["file /etc/site"] = "somebody's"
    world.store.is_away = True
    world.run("5m")
    world.store.is_away = False
    world.run("5m")
    (told,) = world.store.reports[1:]
    assert (told.state, told.kind) == (NodeState.DONE, "drift")
    assert told.words.startswith("file /etc/site: ")
    world.start()
    world.run("5m")
    world.host.states["file /etc/site"] = "new"
    world.run("5m")
    assert [report.words for report in world.store.reports[2:]] == [""]


def test_what_drifted_and_is_a_later_run_s_now_is_not_the_older_one_s_any_more(world):
    world.begin_run(SITE)
    world.run()
    world.end_run()
    world.host.states["file /etc/site"] = "somebody's"
    world.run("5m")
    world.begin_run(file("/etc/site", "newer"), run="2", started_at=2)
    world.run()
    world.end_run("2")
    world.run("5m")
    assert [(one.run, one.words) for one in world.store.reports if one.kind == "drift"][1:] == [("1", "")]


def test_what_drifted_is_brought_back_where_the_run_says_so_with_what_that_notifies(world):
    world.begin_run(MOTD, ONCE, NGINX, enforce=True)
    world.run()
    world.end_run()
    world.host.states["file /etc/motd"] = "somebody's"
    before = len(world.host.done)
    world.run("5m")
    assert world.host.states["file /etc/motd"] == "hello"
    assert [name for _, name in world.host.done[before:]] == ["file /etc/motd", "service nginx"]
    told = [(event.resource, event.mended) for event in world.happened(Drifted)]
    assert told == [("file /etc/motd", False), ("file /etc/motd", True)]  # what follows it never drifted
    assert world.states == [NodeState.DONE]


def test_a_run_that_was_taken_back_is_not_enforced(world):
    world.begin_run(SITE, enforce=True)
    world.run()
    world.revert_run()
    world.run()
    world.end_run(state=RunState.REVERTED)
    world.run("5m")
    assert world.host.states["file /etc/site"] == "absent"
    assert world.happened(Drifted) == []


def test_only_the_newest_run_of_a_name_is_looked_at(world):
    world.begin_run(SITE, enforce=True)
    world.run()
    world.end_run()
    world.begin_run(file("/etc/site", "newer"), run="2", started_at=2)
    world.run()
    world.end_run("2")
    world.run("5m")
    assert world.host.states["file /etc/site"] == "newer"


def test_what_a_later_run_of_another_name_set_is_not_undone_by_an_older_one(world):
    world.begin_run(SITE, MOTD, enforce=True)
    world.run()
    world.end_run()
    world.begin_run(file("/etc/site", "newer"), run="2", name="other", started_at=2)
    world.run()
    world.run("5m")  # still under way: it soaks
    assert world.host.states["file /etc/site"] == "newer"
    world.end_run("2")
    world.host.states["file /etc/motd"] = "somebody's"
    world.run("5m")
    assert world.host.states["file /etc/site"] == "newer"
    assert world.host.states["file /etc/motd"] == "hello"  # what nobody else set is still kept


def test_what_a_later_run_set_and_took_back_is_kept_by_the_older_one_again(world):
    world.begin_run(SITE, enforce=True)
    world.run()
    world.end_run()
    was = world.host.states["file /etc/site"]
    world.begin_run(file("/etc/site", "newer"), run="2", name="other", started_at=2)
    world.run()
    world.revert_run("2")
    world.run()
    world.end_run("2", state=RunState.REVERTED)
    world.host.states["file /etc/site"] = "somebody's"
    world.run("5m")
    assert world.host.states["file /etc/site"] == was


def test_what_cannot_even_be_looked_at_has_drifted_too(world):
    world.begin_run(SITE, enforce=True)
    world.run()
    world.end_run()
    world.host.fails["file /etc/site"] = "render"
    world.run("5m")
    (drifted,) = world.happened(Drifted)
    assert "no key 'color'" in drifted.words


@pytest.mark.parametrize("point", range(24))
def test_wherever_the_agent_ends_while_it_brings_back_what_is_notified_follows(point):
    world = TinyWorker()
    world.begin_run(MOTD, NGINX, enforce=True)
    world.run()
    world.end_run()
    world.host.states["file /etc/motd"] = "somebody's"
    world.crash_after = world.steps + point
    world.run("5m")
    assert world.host.applied().count("file /etc/motd") == 2
    assert world.host.applied()[-1] == "service nginx"
    assert world.host.applied().count("service nginx") >= 2


# ---- what is next, by itself


def journal(**more):
    return Journal(run="1", name="web", purpose=Purpose.APPLY, number=1, epoch=1, **more)


def test_what_is_next_after_an_intent_depends_on_how_it_is_found():
    (work,) = works = work_to_apply((SITE,))
    begun = intended(journal(), "file /etc/site", "old", "new")

    def found(digest, result=TaskResult.WOULD_CHANGE):
        return next_action(begun, works, {"file /etc/site": TaskOutcome(result, digest, "new")})

    assert next_action(begun, works, {}) == Look(work)
    assert next_action(begun, works, {}, fresh="file /etc/site") == Carry(work)
    assert found("old") == Carry(work)
    done, lost = found("new", TaskResult.SAME), found("third")
    assert isinstance(done, Settle)
    assert done.outcome.result is TaskResult.CHANGED
    assert isinstance(lost, Settle)
    assert (lost.outcome.result, lost.outcome.kind) == (TaskResult.FAILED, "lost")


def test_what_a_change_notifies_is_owed_from_the_moment_that_it_is_known():
    works = work_to_apply((MOTD, NGINX))
    begun = intended(journal(), "file /etc/motd", "old", "hello")
    after = settled(begun, MOTD, TaskOutcome(TaskResult.CHANGED, "old", "hello"))
    assert after.owed == ("service nginx",)
    assert next_action(after, works, {}) == Look(works[1])
    look = {"service nginx": TaskOutcome(TaskResult.SAME, "up", "up")}
    assert isinstance(next_action(after, works, look), Intend)


def test_secrets_are_found_where_templates_name_them():
    resources = (
        file("/a", "{{ secret('db/password') }}"),
        file("/b", '{{ secret("x") }} {{ secret( "db/password" ) }}'),
    )
    spec = TinyWorker().begin_run(*resources)
    assert named_secrets(spec) == ("db/password", "x")


def test_records_that_cannot_be_read_end_no_agent(world):
    world.disk |= {"run/7/apply": b"\x00", "run/7/spec": b"{}", "run/7/other": b"{}"}
    world.start()
    world.begin_run(SITE)
    world.store.held = _with_a_broken_one(world.store.held)
    world.run()
    assert world.states == [NodeState.DONE]


def _with_a_broken_one(held):
    return lambda prefix: (*held(prefix), KeyValue(f"{prefix}9", b"\xff", 1, 1, 1))
