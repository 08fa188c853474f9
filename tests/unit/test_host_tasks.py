"""Tasks: one last outcome each, whatever happens inside."""

import os

import gevent
import pytest

from dislocate.core.boundary.effects import CancelTask, RunTask
from dislocate.core.boundary.runs import Task, TaskResult, TaskVerb
from dislocate.core.boundary.spec import Command, File, Key
from dislocate.core.units import MILLISECOND
from dislocate.host import tasks as host_tasks
from dislocate.host.programs import WORDS
from dislocate.io.outlets import NoTasks
from tests.support.hosted import Hosted, until


@pytest.fixture
def host(tmp_path):
    hosted = Hosted(tmp_path / "state")
    yield hosted
    hosted.stop()


def test_a_bug_in_one_task_is_its_outcome_and_nobody_elses(tmp_path):
    def break_down(request):
        raise RuntimeError("this cannot be")

    host = Hosted(tmp_path / "state", ask=break_down)
    outcome = host.apply(Key(key="a", value="b"))
    assert (outcome.result, outcome.kind) == (TaskResult.FAILED, "apply")
    assert "a bug of Dislocate: RuntimeError: this cannot be" in outcome.words
    assert host.apply(Command(run=("true",), once=True)).result is TaskResult.CHANGED
    host.stop()


def test_one_that_outstays_its_time_is_given_up(tmp_path):
    host = Hosted(tmp_path / "state", ask=lambda request: gevent.sleep(1_000))
    outcome = host.apply(Key(key="a", value="b", timeout=100 * MILLISECOND))
    assert (outcome.result, outcome.kind) == (TaskResult.FAILED, "timeout")
    assert "within 100ms" in outcome.words
    host.stop()


def test_more_than_fit_wait_for_a_place_and_all_are_answered_once(host):
    ids = [host.begin(TaskVerb.APPLY, Command(run=("true",), once=True)) for _ in range(host_tasks.AT_ONCE * 3)]
    until(lambda: all(host.last(task_id) for task_id in ids))
    assert sorted(told.task_id for told in host.told) == sorted(ids)
    assert all(told.outcome.took > 0 for told in host.told)


def test_those_that_wait_for_a_place_do_not_wait_for_ever(host):
    slow = [
        host.begin(TaskVerb.APPLY, Command(run=("sleep", "1000"), once=True, timeout=600 * MILLISECOND))
        for _ in range(host_tasks.AT_ONCE * 3)
    ]
    until(lambda: all(host.last(task_id) for task_id in slow))
    assert {host.last(task_id).kind for task_id in slow} == {"timeout"}


def test_one_of_the_same_id_takes_the_place_of_the_one_before(host):
    def command(text: str) -> RunTask:
        return RunTask("run/x", Task(TaskVerb.APPLY, Command(run=("sh", "-c", text), once=True), "1"))

    host.tasks.run(command("sleep 1000"))
    gevent.sleep(0)
    host.tasks.run(command("echo second"))
    assert until(lambda: host.last("run/x")).words == "second"


def test_one_that_is_not_known_is_cancelled_without_harm(host):
    host.tasks.cancel(CancelTask("run/none"))


def test_one_that_is_cancelled_before_it_began_never_begins(host, tmp_path):
    task_id = host.begin(TaskVerb.APPLY, File(path=str(tmp_path / "a"), content="x"))
    host.tasks.cancel(CancelTask(task_id))
    host.apply(File(path=str(tmp_path / "b"), content="x"))
    assert not (tmp_path / "a").exists()
    assert host.last(task_id) is None


def test_after_a_close_nothing_is_told(host):
    host.begin(TaskVerb.APPLY, Command(run=("sleep", "1000"), once=True))
    gevent.sleep(0)
    host.stop()
    assert host.told == []


def test_one_that_is_cancelled_in_the_middle_of_starting_a_program_leaves_none(host, tmp_path):
    for turns in range(30):  # wherever it is by then
        resource = Command(run=("sh", "-c", f"echo $$ >> {tmp_path}/pids; exec sleep 1000"), once=True)
        task_id = host.begin(TaskVerb.APPLY, resource)
        for _ in range(turns):
            gevent.sleep(0)
        host.tasks.cancel(CancelTask(task_id))
    host.apply(Command(run=("sh", "-c", "sleep 0.3"), once=True))  # time enough to begin, for one that was left
    pids = (tmp_path / "pids").read_text().split() if (tmp_path / "pids").exists() else []
    until(lambda: not any(os.path.exists(f"/proc/{pid}/exe") for pid in pids))


def test_an_agent_without_a_host_says_so():
    told = []
    NoTasks(told.append).run(RunTask("run/1", Task(TaskVerb.APPLY, Key(key="a", value="b"), "1")))
    (progressed,) = told
    assert (progressed.task_id, progressed.outcome.result) == ("run/1", TaskResult.FAILED)


def test_however_much_a_program_says_its_last_line_is_told(host):
    script = "for line in $(seq 2000); do echo line $line of many; done; echo E: no such package; exit 100"
    outcome = host.apply(Command(run=("sh", "-c", script), once=True))
    assert outcome.words.startswith("sh: exit 100: ")
    assert outcome.words.endswith("\nE: no such package")
    assert len(outcome.words.encode()) <= WORDS
