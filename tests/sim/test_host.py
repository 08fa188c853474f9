"""The simulated host: what tasks of config runs find there, change and take back."""

from msgspec.structs import replace

from dislocate.core.boundary.effects import RunTask
from dislocate.core.boundary.inputs import TaskProgressed
from dislocate.core.boundary.runs import Task, TaskResult, TaskVerb
from dislocate.core.boundary.spec import Command, File
from dislocate.core.streams import Streams
from dislocate.core.units import SECOND
from sim import faults
from sim.host import ABSENT, SimulatedHost, digest_of
from sim.scenario import Fault

BLUE = File(path="/etc/shop.conf", content="color = blue")
RED = replace(BLUE, content="color = red")
NAME = "file /etc/shop.conf"
ONCE = Command(id="migrate", run=("true",), once=True)
RELOAD = Command(id="reload", run=("true",), only_notified=True)


def do(host, resource, verb=TaskVerb.APPLY, run="1"):
    return host.change(Task(verb, resource, run), 0)


def look(host, resource):
    return host.look(Task(TaskVerb.LOOK, resource, "1"))


def test_looking_tells_what_would_change_and_changes_nothing():
    host = SimulatedHost()
    assert (look(host, BLUE).result, host.states, host.effects) == (TaskResult.WOULD_CHANGE, {}, [])
    do(host, BLUE)
    assert look(host, BLUE).result is TaskResult.SAME


def test_what_is_as_it_should_be_is_left_and_nobody_hears_of_it():
    host, heard = SimulatedHost(), []
    host.told = heard.append
    assert do(host, BLUE).result is TaskResult.CHANGED
    assert do(host, BLUE).result is TaskResult.SAME
    assert [(one.resource, one.before, one.after) for one in heard] == [(NAME, ABSENT, digest_of(BLUE))]


def test_a_revert_makes_it_as_it_was_before_that_run():
    host = SimulatedHost()
    do(host, BLUE, run="1")
    do(host, RED, run="2")
    do(host, RED, TaskVerb.REVERT, run="2")
    assert host.state(NAME) == digest_of(BLUE)
    do(host, BLUE, TaskVerb.REVERT, run="1")
    assert host.state(NAME) == ABSENT


def test_a_revert_of_what_the_run_did_not_touch_fails_and_changes_nothing():
    host = SimulatedHost()
    do(host, BLUE, run="1")
    assert do(host, RED, TaskVerb.REVERT, run="2").kind == "lost"
    assert do(host, BLUE, TaskVerb.LOOK).result is TaskResult.SAME


def test_a_command_that_says_nothing_of_how_to_undo_it_is_left():
    host = SimulatedHost()
    do(host, ONCE)
    assert do(host, ONCE, TaskVerb.REVERT).result is TaskResult.LEFT


def test_what_has_no_guard_is_run_each_time_that_it_is_asked_for():
    host = SimulatedHost()
    for resource in (ONCE, RELOAD):
        assert [do(host, resource).result for _ in range(2)] == [TaskResult.CHANGED] * 2
    build = Command(id="build", run=("true",), creates="/opt/shop")
    assert [do(host, build).result for _ in range(2)] == [TaskResult.CHANGED, TaskResult.SAME]


def test_what_fails_changes_nothing():
    host = SimulatedHost()
    assert do(host, replace(BLUE, validate=("false", "{path}"))).kind == "validate"
    assert do(host, Command(run=("false",), once=True)).kind == "apply"
    host.is_failing = True
    assert do(host, BLUE).result is TaskResult.FAILED
    assert (host.states, host.effects) == ({}, [])


def test_drift_is_nothing_that_a_run_did_and_ends_when_one_puts_it_right():
    host = SimulatedHost()
    do(host, BLUE)
    do(host, ONCE)
    host.drift()
    assert (list(host.drifted), len(host.effects)) == ([NAME], 2)
    assert look(host, BLUE).result is TaskResult.WOULD_CHANGE
    do(host, BLUE)
    assert (host.drifted, host.state(NAME)) == ({}, digest_of(BLUE))


def test_content_that_breaks_a_service_does_so_until_it_is_taken_back():
    host = SimulatedHost()
    broken = replace(BLUE, content="breaks shop.web\n")
    do(host, broken)
    assert host.broken_services() == ("shop.web",)
    do(host, broken, TaskVerb.REVERT)
    assert host.broken_services() == ()


def test_a_command_that_sleeps_takes_about_that_long_and_longer_on_a_slow_host():
    host, stream = SimulatedHost(), Streams("1")["host"]
    task = Task(TaskVerb.APPLY, Command(run=("sleep", "2"), once=True), "1")
    quick = host.takes(task, stream)
    host.slowness = 3.0
    assert 2 * SECOND <= quick <= 2.4 * SECOND
    assert 6 * SECOND <= host.takes(task, stream) <= 7.2 * SECOND


def test_what_takes_longer_than_it_may_is_ended_and_has_done_nothing(make_world, turns):
    world = make_world(1)
    world.run(5 * SECOND)
    machine = world.machines["fra/a1"]
    resource = Command(id="build", run=("sleep", "30"), once=True, timeout=2 * SECOND)
    world.carry_out(machine.process, [RunTask("run/1/apply/1", Task(TaskVerb.APPLY, resource, "1"))])
    world.run(8 * SECOND)
    ((at, progressed),) = turns.of("fra/a1", TaskProgressed)
    assert (at, progressed.outcome.kind) == (7 * SECOND, "timeout")
    assert machine.host.effects == []


def test_a_slow_host_is_as_quick_as_ever_when_that_is_over(make_world):
    world = make_world(1)
    slow = Fault(0, "task_slow", target="fra/a1", factor=9.0, lasting=SECOND)
    faults.do(world, slow)
    assert world.machines["fra/a1"].host.slowness == 9.0
    faults.do(world, faults.undoing(slow))
    assert world.machines["fra/a1"].host.slowness == 1.0
