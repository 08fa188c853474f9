"""A live fleet becomes a scenario with the same plan, and a run in it ends as an operator would want to know."""

from pathlib import Path

import pytest

from dislocate.core.boundary.spec import Command, File, Freeze, Gate, OnFailure, Process, RunSpec, Strategy
from dislocate.core.errors import ConfigError
from dislocate.core.runs.plan import make_plan
from dislocate.core.units import HOUR, MILLISECOND, SECOND
from sim.mirror import LiveFleet, Names, Placed, mirrored
from sim.process import EPOCH
from sim.rehearsal import HELD, Lowest, rehearse, troubled
from sim.scenario import Datacenter, Fault, Scenario, checked, parse_scenario, read_scenario
from sim.scenario_text import scenario_text

SCENARIOS = sorted((Path(__file__).parents[2] / "scenarios").rglob("*.toml"))
QUICK = Strategy(soak=1 * SECOND, settle=1 * SECOND, batch="50%")
FLEET = LiveFleet(
    names={"ams": ("web-1", "web-10", "web-2"), "tok": ("db", "web")},
    dead=(),
    rtts={("ams", "tok"): 230 * MILLISECOND, ("tok", "ams"): 230 * MILLISECOND},
    servers=("ams/web-1", "ams/web-10", "tok/db"),
    leader="tok/db",
    asked="ams/web-10",
    services={"shop.web": (Placed("ams/web-10", True), Placed("ams/web-10", True), Placed("tok/web", False))},
    unix=EPOCH,
)
EVERYBODY = tuple(f"{name}/{member}" for name, members in FLEET.names.items() for member in members)


def spec(**fields):
    resources = (File(path="/etc/motd", content="{{ secret('shop/token') }}", validate=("false",)),)
    return RunSpec(**{"name": "shop", "targets": "*", "resources": resources, "strategy": QUICK, **fields})


def replaced(one, **changes):
    fields = {name: getattr(one, name) for name in one.__struct_fields__}
    return type(one)(**(fields | changes))


@pytest.fixture(scope="module")
def scenario():
    return mirrored(FLEET, spec(), EVERYBODY, (2 * SECOND,))


@pytest.fixture(scope="module")
def calm(scenario):
    return rehearse(scenario, 1)


# ---- the mirror


def test_names_are_dealt_out_in_the_order_in_which_plans_sort_them():
    fleet = replaced(FLEET, names={"ams": tuple(f"h{number}" for number in range(12))})
    names = Names(fleet)
    assert [names.here[f"ams/{name}"] for name in sorted(fleet.names["ams"])] == sorted(names.there)


def test_agents_that_are_called_so_already_keep_their_names():
    names = Names(replaced(FLEET, names={"ams": tuple(f"a{number}" for number in range(1, 13))}))
    assert names.here == names.there


def test_the_plan_of_the_mirror_is_the_plan_of_the_fleet(scenario):
    names = Names(FLEET)
    mirror = make_plan(scenario.runs[0].spec, [names.here[path] for path in EVERYBODY])
    there = [(batch.wave, tuple(names.there[path] for path in batch.nodes)) for batch in mirror.batches]
    assert there == [(batch.wave, batch.nodes) for batch in make_plan(spec(), EVERYBODY).batches]


def test_the_mirror_has_distances_servers_instances_and_health_and_its_run_is_asked_of_the_same_agent(scenario):
    layout = scenario.layout()
    assert scenario.servers == ("ams/a1", "ams/a2", "tok/a1")
    assert {(link.origin, link.target): link.rtt for link in scenario.links} == dict(FLEET.rtts)
    assert [layout.owner(one) for one in layout.instances("shop.web")] == ["ams/a2", "ams/a2", "tok/a2"]
    assert Fault(0, "kill", "tok/shop.web#1") in scenario.at
    assert [fault.target for fault in scenario.at if fault.do == "lead"] == ["tok/a1"]
    assert scenario.runs[0].by == "ams/a2"


def test_no_content_command_or_secret_gets_into_the_mirror():
    resources = (
        File(path="/etc/motd", content="{{ secret('shop/token') }}"),
        Command(run=("sleep", "900"), once=True, environment={"TOKEN": "{{ secret('shop/token') }}"}),
    )
    text = scenario_text(mirrored(FLEET, spec(resources=resources), EVERYBODY, (SECOND,)))
    assert "secret" not in text
    assert "900" not in text


def test_words_come_back_with_the_names_of_the_fleet():
    assert Names(FLEET).live("1 node (ams/a2), kill tok/a1") == "1 node (ams/web-10), kill tok/db"


# ---- rehearsing


def test_a_run_without_faults_is_done_after_what_its_batches_and_soaks_add_up_to(calm):
    assert calm.ending == "done"
    assert calm.words == "5 nodes done"
    batches, soaks = 5, 3  # the canary and the last of each data center are watched
    least = batches * (2 * SECOND + QUICK.settle) + soaks * QUICK.soak
    assert least < calm.took < least + batches * 2 * SECOND


def test_an_instance_on_a_node_in_flight_does_not_count_and_one_that_failed_before_never_did(calm):
    assert calm.lowest == {"shop.web": Lowest(0, 3, "ams", 0.0)}


def test_the_same_seed_is_the_same_rehearsal(scenario, calm):
    assert rehearse(scenario, 1) == calm
    assert troubled(scenario, 7, calm.took) == troubled(scenario, 7, calm.took) != troubled(scenario, 8, calm.took)


def test_a_node_that_fails_reverts_the_run_and_the_reason_names_it(scenario):
    failing = replaced(scenario, at=(*scenario.at, Fault(21 * SECOND, "task_fail", "ams/a3")))
    found = rehearse(checked(failing), 2, is_troubled=True)
    assert (found.ending, found.happened) == ("reverted", ((SECOND, "task_fail ams/a3"),))
    assert found.words.startswith("3 nodes as before; 1 node failed (ams/a3), and none may")


def test_what_waits_for_an_operator_is_held_and_not_rehearsed_for_ever(scenario):
    pausing = spec(strategy=replaced(QUICK, on_failure=OnFailure.PAUSE))
    mirror = mirrored(FLEET, pausing, EVERYBODY, (2 * SECOND,))
    found = rehearse(checked(replaced(mirror, at=(*mirror.at, Fault(21 * SECOND, "task_fail", "ams/a3")))), 2)
    assert found.ending == HELD
    assert "ams/a3" in found.words
    assert found.took < 120 * SECOND


def test_a_node_that_is_dead_already_is_missed(scenario):
    found = rehearse(mirrored(replaced(FLEET, dead=("tok/web",)), spec(), EVERYBODY, (SECOND,)), 1)
    assert found.ending == HELD
    assert "tok/a2" in found.words


def test_endings_are_ranked_as_an_operator_would(calm):
    reverted, held, slow = (
        replaced(calm, ending="reverted"),
        replaced(calm, ending="held"),
        replaced(calm, took=calm.took + 1),
    )
    assert sorted([held, slow, reverted, calm], key=lambda one: one.rank) == [calm, slow, reverted, held]


def test_the_least_of_two_takes_each_figure_for_itself():
    assert Lowest(3, 6, "ams", 0.5).or_lower(Lowest(4, 6, "tok", 0.0)) == Lowest(3, 6, "tok", 0.0)


def test_a_freeze_window_holds_it_by_the_clock_of_the_live_fleet():
    midnight = Freeze(begin="00:00", end="01:00")
    frozen = spec(freezes=(midnight,))
    assert rehearse(mirrored(FLEET, frozen, EVERYBODY, (SECOND,)), 1).ending == HELD
    noon = replaced(FLEET, unix=EPOCH + 12 * HOUR)
    assert rehearse(mirrored(noon, frozen, EVERYBODY, (SECOND,)), 1).ending == "done"


def test_gates_and_approvals_that_nobody_can_rehearse_do_not_hold_it():
    gated = spec(
        strategy=replaced(QUICK, approvals=2),
        gates=(Gate(service="shop.web", utilization=0.8, errors=0.1, p99=SECOND, control=2.0, window=SECOND),),
    )
    assert rehearse(mirrored(FLEET, gated, ("ams/web-10",), (SECOND,)), 1).ending == "done"


def test_a_gate_on_what_the_run_itself_starts_does_not_hold_it():
    pool = Process(name="pool", run=("pool",), service="shop.pool")
    first = spec(resources=(pool,), strategy=QUICK, gates=(Gate(service="shop.pool", window=SECOND),))
    assert rehearse(mirrored(FLEET, first, ("ams/web-10",), (SECOND,)), 1).ending == "done"


# ---- as a file


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_a_scenario_as_text_is_read_back_as_it_was(path):
    scenario = read_scenario(path)
    assert parse_scenario(scenario_text(scenario)) == scenario


def test_text_has_whatever_toml_has_to_escape():
    odd = checked(Scenario(title='a "b" \\ \x7f\n\t ü', why="", duration=SECOND, datacenters={"fra": Datacenter(1)}))
    assert parse_scenario(scenario_text(odd)) == odd


def test_a_file_to_replay_ends_as_the_rehearsal_did(scenario, calm):
    hard = troubled(scenario, 3, calm.took)
    assert rehearse(parse_scenario(scenario_text(hard)), 3) == rehearse(hard, 3)


def test_an_instance_of_a_service_stands_on_an_agent_that_there_is(scenario):
    lost = replaced(scenario, services=(replaced(scenario.services[0], nodes=("ams/a9",)),))
    with pytest.raises(ConfigError, match=r"services\[0\].nodes"):
        checked(lost)
