"""What config runs may rely on when a host does something for them: the same bodies for the real and the simulated host."""

import pytest

from dislocate.core.boundary.effects import RunTask
from dislocate.core.boundary.inputs import TaskProgressed
from dislocate.core.boundary.runs import Task, TaskOutcome, TaskResult, TaskVerb
from dislocate.core.boundary.spec import Command, File, Resource
from dislocate.core.units import MILLISECOND, SECOND
from tests.conformance.fabric import End, Fabric, expect

LOOK, APPLY, REVERT = TaskVerb
PLACE = "{{ facts.state_dir }}/color"
BLUE, GREEN = File(path=PLACE, content="blue"), File(path=PLACE, content="green")


def outcome(fabric: Fabric, end: End, verb: TaskVerb, resource: Resource, run: str = "7") -> TaskOutcome:
    end.do(RunTask("run/1", Task(verb, resource, run)))
    progressed = expect(fabric, end, TaskProgressed)
    assert progressed.task_id == "run/1"
    return progressed.outcome


def test_a_look_says_how_it_is_and_would_be_and_changes_nothing(fabric):
    one = fabric.start("a1")
    first, second = (outcome(fabric, one, LOOK, BLUE) for _ in range(2))
    assert first.result is TaskResult.WOULD_CHANGE
    assert first.before != first.after
    assert (first.before, first.after) == (second.before, second.after)


def test_a_change_is_what_the_look_before_it_said_and_the_look_after_it_finds(fabric):
    one = fabric.start("a1")
    foretold = outcome(fabric, one, LOOK, BLUE)
    done = outcome(fabric, one, APPLY, BLUE)
    found = outcome(fabric, one, LOOK, BLUE)
    assert (done.result, done.before, done.after) == (TaskResult.CHANGED, foretold.before, foretold.after)
    assert (found.result, found.before, found.after) == (TaskResult.SAME, done.after, done.after)


def test_what_is_as_it_should_be_is_not_done_again(fabric):
    one = fabric.start("a1")
    done = outcome(fabric, one, APPLY, BLUE)
    again = outcome(fabric, one, APPLY, BLUE)
    assert (again.result, again.before, again.after) == (TaskResult.SAME, done.after, done.after)


def test_a_revert_brings_back_what_the_run_found_and_not_what_it_had_made_on_the_way(fabric):
    one = fabric.start("a1")
    made = outcome(fabric, one, APPLY, BLUE, run="7")
    outcome(fabric, one, APPLY, GREEN, run="8")
    back = outcome(fabric, one, REVERT, GREEN, run="8")
    assert (back.result, back.after) == (TaskResult.CHANGED, made.after)
    gone = outcome(fabric, one, REVERT, BLUE, run="7")
    assert (gone.result, gone.after) == (TaskResult.CHANGED, made.before)


def test_what_a_run_did_not_change_it_cannot_bring_back_and_leaves_alone(fabric):
    one = fabric.start("a1")
    made = outcome(fabric, one, APPLY, BLUE, run="7")
    refused = outcome(fabric, one, REVERT, BLUE, run="8")
    assert (refused.result, refused.kind) == (TaskResult.FAILED, "lost")
    assert outcome(fabric, one, LOOK, BLUE).before == made.after


def test_what_was_done_and_how_it_was_before_outlive_the_agent(fabric):
    one = fabric.start("a1")
    made = outcome(fabric, one, APPLY, BLUE)
    fabric.kill(one)
    again = fabric.start("a1")
    assert outcome(fabric, again, LOOK, BLUE).result is TaskResult.SAME
    assert outcome(fabric, again, REVERT, BLUE).after == made.before


@pytest.mark.parametrize("late", [0, 1, 5, 20])
def test_whoever_is_killed_on_the_way_leaves_it_as_it_was_or_as_it_should_be(fabric, late):
    one = fabric.start("a1")
    before = outcome(fabric, one, LOOK, BLUE)
    one.do(RunTask("run/2", Task(APPLY, BLUE, "7")))
    fabric.run_until(lambda: False, late * MILLISECOND / SECOND)
    fabric.kill(one)
    again = fabric.start("a1")
    assert outcome(fabric, again, LOOK, BLUE).before in (before.before, before.after)


def test_a_command_that_fails_says_so_and_one_that_takes_too_long_is_ended(fabric):
    one = fabric.start("a1")
    failed = outcome(fabric, one, APPLY, Command(run=("false",), once=True))
    assert (failed.result, failed.kind) == (TaskResult.FAILED, "apply")
    late = outcome(fabric, one, APPLY, Command(run=("sleep", "600"), once=True, timeout=SECOND // 2))
    assert (late.result, late.kind) == (TaskResult.FAILED, "timeout")


def test_what_does_not_pass_its_validation_is_not_put_in_place(fabric):
    one = fabric.start("a1")
    before = outcome(fabric, one, LOOK, BLUE).before
    refused = outcome(fabric, one, APPLY, File(path=PLACE, content="blue", validate=("false",)))
    assert (refused.result, refused.kind) == (TaskResult.FAILED, "validate")
    assert outcome(fabric, one, LOOK, BLUE).before == before


def test_tasks_run_side_by_side(fabric):
    one = fabric.start("a1")
    one.do(RunTask("run/slow", Task(APPLY, Command(run=("sleep", "1"), once=True), "7")))
    one.do(RunTask("run/fast", Task(APPLY, BLUE, "7")))
    assert [expect(fabric, one, TaskProgressed).task_id for _ in range(2)] == ["run/fast", "run/slow"]
