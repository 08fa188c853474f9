"""Sizes in a simulated fleet: the leader decides, nodes carry out, and nothing is done twice or forgotten."""

import pytest

from dislocate.core.boundary.requests import Done, Refused
from dislocate.core.boundary.scaling import (
    CarryState,
    CommandDriver,
    ProcessDriver,
    ScalePolicy,
    Survive,
    WebhookDriver,
)
from dislocate.core.scale.steps import DecideScale
from dislocate.core.units import SECOND
from tests.support.scaled_fleet import SERVICE, ScaledFleet

PROCESSES = ProcessDriver(run=("serve",), drain_for=2 * SECOND)
QUICK = ScalePolicy(min=2, driver=PROCESSES, down_window=60 * SECOND, pause=10 * SECOND)
COMMAND = CommandDriver(run=("resize", "{service}", "{desired}"))


@pytest.fixture
def fleets():
    made = []

    def make(*arguments, **options):
        made.append(ScaledFleet(*arguments, **options))
        return made[-1]

    yield make
    for fleet in made:
        fleet.close()


def test_processes_are_started_where_there_are_none_up_to_the_least(fleets):
    fleet = fleets()
    fleet.set(ScalePolicy(min=2, driver=PROCESSES))
    fleet.run(20)
    decision = fleet.decision()
    assert (decision.epoch, decision.desired, sum(decision.nodes.values())) == (1, 2, 2)
    assert fleet.passing() == 2


def test_load_makes_it_grow_and_a_quiet_while_lets_it_shrink_with_a_drain(fleets):
    fleet = fleets()
    fleet.set(QUICK)
    fleet.run(20)
    fleet.demand["fra"] = 560.0
    fleet.run(60)
    assert fleet.decision().desired == 8
    assert "560 req/s offered" in fleet.past()[-1].reason
    assert fleet.passing() == 8
    fleet.demand["fra"] = 70.0
    fleet.run(40)
    assert fleet.decision().desired == 8
    fleet.run(150)
    assert fleet.decision().desired == 2
    assert fleet.passing() == 2
    assert [one.epoch for one in fleet.past()] == list(range(1, fleet.decision().epoch + 1))


def test_an_operator_without_a_driver_still_gets_the_decision_and_the_reason(fleets):
    fleet = fleets(services=2)
    fleet.set(ScalePolicy(min=1))
    fleet.demand["fra"] = 350.0
    fleet.run(60)
    assert fleet.decision().desired == 5
    assert fleet.passing() == 2


@pytest.mark.parametrize("driver", [COMMAND, WebhookDriver(url="http://scaler.example/hook")])
def test_a_driver_is_told_once_for_each_epoch_by_one_relay(fleets, driver):
    fleet = fleets(services=2)
    fleet.set(ScalePolicy(min=1, driver=driver))
    fleet.demand["fra"] = 350.0
    fleet.run(60)
    told = fleet.world.sizes.told
    assert [one.epoch for one in told] == list(range(1, fleet.decision().epoch + 1))
    assert len({one.node for one in told}) == 1
    assert fleet.carried().state is CarryState.DONE


def test_what_fails_is_reported_with_its_code_and_tried_again(fleets):
    fleet = fleets(services=2)
    for machine in fleet.world.machines.values():
        machine.host.is_failing = True
    fleet.set(ScalePolicy(min=1, driver=COMMAND))
    fleet.run(30)
    failed = fleet.carried()
    assert (failed.state, failed.code) == (CarryState.FAILED, 1)
    for machine in fleet.world.machines.values():
        machine.host.is_failing = False
    fleet.run(60)
    done = fleet.carried()
    assert done.state is CarryState.DONE
    assert done.tries > 1


def test_another_relay_takes_over_from_one_that_died_with_it(fleets):
    fleet = fleets(services=2, nodes=5)
    for machine in fleet.world.machines.values():
        machine.host.is_failing = True
    fleet.set(ScalePolicy(min=1, driver=COMMAND))
    fleet.run(20)
    first = fleet.carried().node
    fleet.do("kill", first)
    for machine in fleet.world.machines.values():
        machine.host.is_failing = False
    fleet.run(60)
    done = fleet.carried()
    assert done.state is CarryState.DONE
    assert done.node != first


def test_a_new_leader_goes_on_with_the_next_epoch(fleets):
    fleet = fleets(nodes=5)
    fleet.set(ScalePolicy(min=2, driver=PROCESSES))
    fleet.run(20)
    before = fleet.decision().epoch
    fleet.do("kill", fleet.leader)
    fleet.run(20)
    fleet.demand["fra"] = 560.0
    fleet.run(120)
    assert fleet.decision().epoch > before
    assert fleet.decision().desired == 8


def test_instances_of_a_dead_node_are_started_elsewhere(fleets):
    fleet = fleets(nodes=5)
    fleet.set(ScalePolicy(min=5, driver=PROCESSES))
    fleet.run(30)
    lost = "fra/a5"
    assert fleet.decision().nodes[lost] == 1
    fleet.do("kill", lost)
    fleet.run(40)
    assert fleet.decision().nodes[lost] == 1
    fleet.run(90)
    assert fleet.decision().nodes[lost] == 0
    assert sum(fleet.decision().nodes.values()) == 5
    assert lost in fleet.past()[-1].reason


def test_nothing_is_taken_away_while_a_data_center_is_cut_off(fleets):
    fleet = fleets(("fra", "wdc"))
    fleet.set(QUICK)
    fleet.demand.update(fra=560.0, wdc=70.0)
    fleet.run(60)
    assert fleet.decision("fra").desired == 8
    fleet.do("cut", "", origin="fra", dest="wdc")
    fleet.demand["fra"] = 70.0
    fleet.run(150)
    assert fleet.decision("fra").desired == 8
    assert "wdc is out of reach" in fleet.world.node(fleet.leader).scale.why(SERVICE, "fra")


def test_the_loss_of_the_larger_data_center_is_provided_for(fleets):
    fleet = fleets(("fra", "wdc"))
    fleet.set(ScalePolicy(min=2, survive=Survive.ONE_DATACENTER, driver=PROCESSES))
    fleet.demand.update(fra=700.0, wdc=70.0)
    fleet.run(120)
    assert fleet.decision("wdc").desired * 95 >= 770
    assert "if fra is lost" in fleet.past("wdc")[-1].reason


def test_two_leaders_cannot_both_decide(fleets):
    fleet = fleets(services=2)
    fleet.set(ScalePolicy(min=3))
    fleet.run(20)
    made = [(body.epoch, result) for body, result in fleet.applied if isinstance(body, DecideScale)]
    assert [epoch for epoch, result in made if isinstance(result, Done)] == [1]
    assert not any(isinstance(result, Refused) for _, result in made)


def test_a_policy_that_cannot_be_read_leaves_the_last_one_in_force(fleets):
    fleet = fleets()
    fleet.set(ScalePolicy(min=2, driver=PROCESSES))
    fleet.run(20)
    fleet.set(b'{"mni": 5}')
    fleet.demand["fra"] = 350.0
    fleet.run(60)
    assert fleet.decision().desired == 5


def test_without_a_policy_the_decision_goes_and_what_runs_stays(fleets):
    fleet = fleets()
    fleet.set(ScalePolicy(min=2, driver=PROCESSES))
    fleet.run(20)
    fleet.unset()
    fleet.run(20)
    assert fleet.decision() is None
    assert fleet.passing() == 2
    fleet.set(ScalePolicy(min=2, driver=PROCESSES))
    fleet.run(20)
    assert fleet.decision().epoch == 3
    assert fleet.passing() == 2


def test_a_paused_policy_decides_nothing(fleets):
    fleet = fleets()
    fleet.set(ScalePolicy(min=2, driver=PROCESSES, paused=True))
    fleet.demand["fra"] = 560.0
    fleet.run(60)
    assert fleet.decision() is None


@pytest.mark.parametrize("driver", [None, COMMAND])
def test_nothing_is_decided_for_a_data_center_where_nobody_could_carry_it_out(fleets, driver):
    """Named too early, or misspelled: neither a size there, nor instances elsewhere in place of what it would lose."""
    fleet = fleets(("fra", "lon"))
    named = ScalePolicy(min=1, driver=driver, survive=Survive.ONE_DATACENTER, datacenters=("fra", "lon", "mars"))
    fleet.set(named)
    fleet.demand.update(fra=350.0, lon=350.0)
    fleet.run(120)
    assert fleet.decision("mars") is None
    assert (fleet.decision("fra").desired, fleet.decision("lon").desired) == (8, 8)
