"""The leader dies at each step of a run: the next one goes on from the log, and nothing is done twice or left out."""

import pytest

from dislocate.core.boundary.runs import AskGrant, NodeState, ReportTask, RunState, StartRun
from dislocate.core.boundary.spec import Command, File, RunSpec, Strategy
from dislocate.core.runs.steps import CloseBatch, FinishRun, OpenBatch, RevertRun
from dislocate.core.units import SECOND
from sim.faults import do
from sim.invariants import INVARIANTS, Monitor
from sim.operators import place_runs
from sim.scenario import Datacenter, Fault, PlannedRun, Scenario, checked
from sim.world import World

GOOD = (
    File(path="/etc/shop.conf", content="color = blue", notify=("reload",)),
    Command(id="reload", run=("sleep", "0.5"), only_notified=True),
)
BAD = (*GOOD, Command(id="breaks", run=("false",), once=True))
STRATEGY = Strategy(batch=1, soak=SECOND, settle=0)


def told(resources, step, time):
    """A run whose leader is killed as soon as the log has its `time`-th `step`, and is back 4 s later."""
    spec = RunSpec(name="shop", targets="*", resources=resources, strategy=STRATEGY)
    scenario = Scenario(
        title="A run",
        why="Its leader dies",
        duration=60 * SECOND,
        datacenters={"fra": Datacenter(3)},
        servers=("fra/a1", "fra/a2", "fra/a3"),
        runs=(PlannedRun(5 * SECOND, spec),),
    )
    world = World(checked(scenario), seed=1)
    monitor = Monitor(world, INVARIANTS)
    place_runs(world)
    seen, killed = [], []

    def kill(leader, _, __):
        killed.append(leader)
        do(world, Fault(world.now, "kill", target=leader))
        world.schedule.call(world.now + 4 * SECOND, restart, leader)

    def restart(leader, _, __):
        do(world, Fault(world.now, "restart", target=leader))

    def applied(body, moved):
        enter(body, moved)
        seen.append(type(body))
        if type(body) is step and seen.count(step) == time:
            leader = next(path for path in world.observers_up() if world.store(path).role == "leader")
            world.schedule.call(world.now, kill, leader)

    enter, world.wiretap.reference.on_run = world.wiretap.reference.on_run, applied
    world.run(60 * SECOND)
    monitor.conclude()
    assert killed
    return next(iter(world.truth.runs.runs.values()))


EACH = (OpenBatch, AskGrant, ReportTask, CloseBatch)


@pytest.mark.parametrize(
    ("step", "time"), [(StartRun, 1), *((step, time) for step in EACH for time in (1, 2)), (FinishRun, 1)]
)
def test_a_run_is_done_whatever_step_its_leader_died_at(step, time):
    run = told(GOOD, step, time)
    assert run.state is RunState.DONE
    assert list(run.nodes.values()) == [NodeState.DONE] * 3


@pytest.mark.parametrize(
    ("step", "time"), [(RevertRun, 1), (OpenBatch, 2), (AskGrant, 2), (ReportTask, 2), (FinishRun, 1)]
)
def test_a_run_is_taken_back_whatever_step_its_leader_died_at(step, time):
    run = told(BAD, step, time)
    assert run.state is RunState.REVERTED
    assert list(run.nodes.values()) == [NodeState.REVERTED, NodeState.PENDING, NodeState.PENDING]
