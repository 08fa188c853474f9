"""Every invariant can fail: each is shown one thing that must never happen."""

from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from dislocate.core.boundary.events import (
    DatacenterChanged,
    MemberDied,
    MemberJoined,
    MemberLeft,
    MemberRestarting,
    MemberSuspected,
)
from dislocate.core.boundary.values import MemberState, Status
from dislocate.core.units import SECOND
from sim.faults import do
from sim.invariants import INVARIANTS, InvariantViolated, Monitor
from sim.scenario import Fault


@pytest.fixture
def watched(make_world):
    world = make_world(5, ("fra", "wdc"), services=2)
    monitor = Monitor(world, INVARIANTS)
    world.run(20 * SECOND)
    return world, monitor


def tell(world, path, event):
    for observer in world.observers:
        observer(world.machines[path].process, event)


def node_id(world, path):
    return world.machines[path].process.node_id


def died(world, path, refused, *observers):
    return MemberDied(node_id(world, path), refused, observers)


def test_a_quiet_fleet_breaks_none(watched):
    world, monitor = watched
    world.run(120 * SECOND)
    assert {one.name for one in monitor.invariants if one.exercised} >= {"one answer an instance"}


def test_declaring_oneself_dead(watched):
    world, _ = watched
    with pytest.raises(InvariantViolated, match="nobody declares itself dead"):
        tell(world, "fra/a1", died(world, "fra/a1", False, "fra/a2", "fra/a3"))


def test_a_refused_agent_that_runs(watched):
    world, _ = watched
    with pytest.raises(InvariantViolated, match="refused means gone"):
        tell(world, "fra/a1", died(world, "fra/a2", True, "fra/a1", "fra/a3"))


def test_a_death_that_nobody_suspected(watched):
    world, _ = watched
    with pytest.raises(InvariantViolated, match="silence is suspected first"):
        tell(world, "fra/a1", died(world, "fra/a2", False, "fra/a1", "fra/a3"))


def test_a_death_on_the_word_of_one(watched):
    world, _ = watched
    tell(world, "fra/a3", MemberSuspected(node_id(world, "fra/a2"), ("fra/a3",)))
    with pytest.raises(InvariantViolated, match=r"death is corroborated.*on the word of fra/a3"):
        tell(world, "fra/a1", died(world, "fra/a2", False, "fra/a3"))


def test_one_accuser_and_the_whole_suspicion_of_ones_own_are_enough(watched):
    world, _ = watched
    tell(world, "fra/a1", MemberSuspected(node_id(world, "fra/a2"), ("fra/a1",)))
    world.schedule.now += 5 * SECOND
    tell(world, "fra/a1", died(world, "fra/a2", False, "fra/a1"))


def test_an_incarnation_that_goes_back(watched):
    world, _ = watched
    process = world.machines["fra/a1"].process
    suspected = MemberSuspected(node_id(world, "fra/a2"), ("fra/a3",))
    tell(world, "fra/a1", suspected)
    node = process.node
    view = node.member("fra/a2")

    class Forgetful:
        def __getattr__(self, name):
            return getattr(node, name)

        def member(self, path):
            return replace(view, incarnation=view.incarnation - 1)

    process.node = Forgetful()
    with pytest.raises(InvariantViolated, match="incarnations grow"):
        tell(world, "fra/a1", suspected)


def test_a_farewell_that_nobody_asked_for(watched):
    world, _ = watched
    with pytest.raises(InvariantViolated, match="only who leaves has left"):
        tell(world, "fra/a1", MemberLeft(node_id(world, "fra/a2")))


def test_a_death_during_an_announced_restart(watched):
    world, _ = watched
    tell(world, "fra/a1", MemberRestarting(node_id(world, "fra/a2"), 30 * SECOND))
    tell(world, "fra/a1", MemberSuspected(node_id(world, "fra/a2"), ("fra/a3",)))
    with pytest.raises(InvariantViolated, match="a planned restart is no death"):
        tell(world, "fra/a1", died(world, "fra/a2", False, "fra/a3", "fra/a4"))


def test_a_living_agent_that_stays_dead(watched):
    world, monitor = watched
    (living,) = [one for one in monitor.invariants if one.name == "the living are not dead for long"]
    process = world.machines["fra/a1"].process
    tell(world, "fra/a1", MemberSuspected(node_id(world, "fra/a2"), ("fra/a3",)))
    tell(world, "fra/a1", died(world, "fra/a2", False, "fra/a3", "fra/a4"))
    world.schedule.now += 60 * SECOND
    living.check()  # the node itself does not hold it dead

    class Stubborn:
        def member(self, path):
            return SimpleNamespace(state=MemberState.DEAD, node=node_id(world, path), incarnation=9)

    process.node = Stubborn()
    with pytest.raises(InvariantViolated, match="still holds fra/a2 dead"):
        living.check()
    tell(world, "fra/a1", MemberJoined(node_id(world, "fra/a2"), ""))
    living.check()


def test_rumours_that_never_drain(watched):
    world, monitor = watched
    (drain,) = [one for one in monitor.invariants if one.name == "rumour queues drain"]
    process = world.machines["fra/a1"].process
    alive = SimpleNamespace(state=MemberState.ALIVE)
    process.node = SimpleNamespace(queued_rumors=1, member=lambda _path: alive)
    for _ in range(50):
        world.schedule.now += 2 * SECOND
        try:
            drain.check()
        except InvariantViolated:
            return
    pytest.fail("nobody noticed")


class Answering:
    """A node that answers with these instances and otherwise as `node`."""

    def __init__(self, node, instances):
        self._node = node
        self._instances = instances
        self.catalog = self

    def __getattr__(self, name):
        return getattr(self._node, name)

    def names(self):
        return ("shop.web",)

    def service(self, name):
        made = [SimpleNamespace(node=owner, id=id_, status=status) for owner, id_, status in self._instances]
        return SimpleNamespace(instances=made)


def answer(world, path, *instances):
    process = world.machines[path].process
    process.node = Answering(process.node, instances)
    process.version += 1


def invariant(monitor, name):
    return next(one for one in monitor.invariants if one.name == name)


def test_an_instance_answered_twice(watched):
    world, monitor = watched
    answer(world, "fra/a1", ("fra/a1", "x", Status.PASSING), ("fra/a1", "x", Status.PASSING))
    with pytest.raises(InvariantViolated, match="one answer an instance"):
        invariant(monitor, "one answer an instance").check()


def test_a_deregistered_instance_that_is_still_answered(watched):
    world, monitor = watched
    world.truth.deregistered["fra/a2", "x"] = world.now
    answer(world, "wdc/a1", ("fra/a2", "x", Status.PASSING))
    invariant(monitor, "deregistered stays gone").check()
    world.schedule.now += 31 * SECOND
    with pytest.raises(InvariantViolated, match="deregistered stays gone"):
        invariant(monitor, "deregistered stays gone").check()


def test_an_acknowledged_registration_that_is_lost(watched):
    world, monitor = watched
    world.truth.registered["fra/a2", "x"] = world.now
    with pytest.raises(InvariantViolated, match="an acknowledged registration survives"):
        invariant(monitor, "an acknowledged registration survives").check()


def test_last_known_good_that_is_dropped(watched):
    world, monitor = watched
    world.truth.registered["wdc/a1", "x"] = world.now
    answer(world, "fra/a1", ("wdc/a1", "x", Status.PASSING))
    invariant(monitor, "last known good is kept").check()
    tell(world, "fra/a1", DatacenterChanged("wdc", False, 9.0, "silent"))
    invariant(monitor, "last known good is kept").check()
    answer(world, "fra/a1")
    with pytest.raises(InvariantViolated, match="last known good is kept"):
        invariant(monitor, "last known good is kept").check()


def test_a_home_that_suffers_from_the_wan(watched):
    world, monitor = watched
    home = invariant(monitor, "home is unaffected by the WAN")
    world.schedule.now += 60 * SECOND
    do(world, Fault(0, "cut", origin="fra"))
    answer(world, "fra/a1", ("fra/a1", "shop.web-1", Status.CRITICAL))
    with pytest.raises(InvariantViolated, match="home is unaffected by the WAN"):
        home.check()
