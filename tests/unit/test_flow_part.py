"""Flows in a fleet of cores: relays decide, everybody follows, and what happens counts at once."""

import msgspec
import pytest
from msgspec import Raw
from msgspec.structs import replace

from dislocate.core.balance.messages import FlowReport
from dislocate.core.boundary.balance import Outcomes, Policy, Spill, Usage
from dislocate.core.boundary.events import FlowsChanged
from dislocate.core.boundary.inputs import DatagramReceived
from dislocate.core.boundary.requests import Refused, SetDraining
from dislocate.core.boundary.store import Delete, Put, Transact
from dislocate.core.boundary.values import MemberState
from dislocate.core.identity import NodeId
from dislocate.core.membership.messages import Left
from dislocate.core.tunables import PROTOCOL
from dislocate.core.units import HOUR, SECOND
from dislocate.core.wire import Envelope, encode_fact
from tests.support.tiny_callers import SERVICE, TinyCallers

QUIET = {"fra": 128.0, "lon": 128.0, "wdc": 128.0}
HOT = {"fra": 512.0, "lon": 50.0, "wdc": 50.0}  # of 384 that each data center can carry


@pytest.fixture
def fleet():
    found = TinyCallers()
    found.busy()
    return found


def test_while_nobody_calls_a_route_goes_to_the_nearest_and_no_event_is_told(fleet):
    assert fleet.shares("fra/a2") == {"fra": 1.0}
    assert fleet.events(FlowsChanged) == []
    assert "No instance anywhere is loaded above 20%" in " ".join(fleet.flows("fra/a2").explanation)
    assert fleet.hosts["fra/a2"].node.flows.services() == ()


def test_a_service_that_nobody_knows_has_no_route(fleet):
    assert fleet.hosts["fra/a1"].node.flows.route("no.such") is None
    assert fleet.hosts["fra/a1"].node.flows.of("no.such") is None


def test_balanced_traffic_stays_at_home(fleet):
    fleet.demand = QUIET
    fleet.seconds(8)
    assert [fleet.shares(f"{dc}/a2") for dc in QUIET] == [{dc: 1.0} for dc in QUIET]


def test_what_does_not_fit_spills_to_the_nearest(fleet):
    fleet.demand = HOT
    fleet.seconds(10)
    shares = fleet.shares("fra/a2")
    assert list(shares) == ["fra", "lon"]
    assert shares["fra"] == pytest.approx(0.8 * 384 / 512, abs=0.03)
    assert fleet.shares("wdc/a1") == {"wdc": 1.0}


def test_everybody_of_a_data_center_follows_one_row(fleet):
    fleet.demand = HOT
    fleet.seconds(10)
    homes = [fleet.flows(f"fra/a{number}").home for number in (1, 2, 3)]
    assert len({home.computed_by for home in homes}) == 1
    assert all(home.epoch > 0 and home.shares == homes[0].shares for home in homes)
    assert [row.source for row in fleet.flows("wdc/a2").rows] == ["fra", "lon", "wdc"]


def test_no_data_center_is_given_more_than_its_part_by_rows_with_the_same_inputs(fleet):
    fleet.demand = HOT
    fleet.seconds(12)
    views = [fleet.flows(fleet.hosts[f"{dc}/a1"].node.datacenters[dc].relays[0]) for dc in HOT]
    inputs = [sorted((place.datacenter, place.epoch) for place in view.inputs) for view in views]
    assert inputs[0] == inputs[1] == inputs[2]
    capacity = {place.datacenter: place.capacity for place in views[0].inputs}
    demand = {place.datacenter: place.demand for place in views[0].inputs}
    for name in HOT:
        flow = sum(
            share.share * demand[view.home.source]
            for view in views
            for share in view.home.target
            if share.datacenter == name
        )
        assert flow <= views[0].home.rho * capacity[name] * 1.001


def test_a_death_takes_its_share_along_at_once(fleet):
    fleet.demand = QUIET
    fleet.seconds(8)
    for number in (1, 2):
        fleet.kill(f"fra/a{number}")
    del fleet.loads["fra/a1"], fleet.loads["fra/a2"]
    fleet.seconds(3)
    shares = fleet.shares("fra/a3")
    assert shares["fra"] == pytest.approx(0.8, abs=0.03)  # one of three is left, and may be loaded to 80 %
    assert shares["lon"] == pytest.approx(0.2, abs=0.03)


def test_a_caller_is_told_when_its_requests_should_go_elsewhere(fleet):
    fleet.demand = HOT
    fleet.seconds(10)
    told = [event for _, path, event in fleet.events(FlowsChanged) if path == "fra/a3"]
    epochs = [event.epoch for event in told]
    assert told[-1].service == SERVICE
    assert epochs == sorted(set(epochs))
    assert fleet.hosts["fra/a3"].node.flows.route(SERVICE).epoch == epochs[-1]


def test_a_data_center_out_of_reach_gets_nothing(fleet):
    fleet.demand = HOT
    fleet.seconds(10)
    here = [path for path in fleet.hosts if path.startswith("fra")]
    fleet.cut(here, [path for path in fleet.hosts if path not in here])
    fleet.seconds(14)
    assert fleet.shares("fra/a2") == {"fra": 1.0}
    assert fleet.flows("fra/a2").home.overload
    assert any("cannot be reached" in line for line in fleet.flows("fra/a2").explanation)
    assert fleet.shares("lon/a2") == {"lon": 1.0}
    fleet.heal()
    fleet.seconds(12)
    assert fleet.shares("fra/a2")["lon"] > 0.2


def test_a_drained_data_center_is_left_and_taken_back(fleet):
    fleet.demand = QUIET
    fleet.seconds(8)
    fleet.request("lon/a1", SetDraining("fra", "datacenter", True, HOUR), 9)
    fleet.seconds(3)
    assert "fra" not in fleet.shares("fra/a2")
    fleet.request("lon/a1", SetDraining("fra", "datacenter", False), 9)
    fleet.seconds(45)
    assert fleet.shares("fra/a2") == {"fra": 1.0}


def test_when_the_first_relay_dies_the_next_one_goes_on(fleet):
    fleet.demand = HOT
    fleet.seconds(10)
    first, second = fleet.hosts["fra/a3"].node.datacenters["fra"].relays[:2]
    assert first != "fra/a3"  # by the hash of the names: the callers' own agent is another
    fleet.kill(first)
    fleet.loads.pop(first)
    fleet.seconds(6)
    assert fleet.flows("fra/a3").home.computed_by == second
    assert sum(fleet.shares("fra/a3").values()) == pytest.approx(1.0, abs=0.01)


def test_without_a_word_of_any_relay_each_computes_its_own(fleet):
    fleet.demand = HOT
    fleet.seconds(10)
    for path in ("fra/a1", "fra/a2"):
        fleet.pause(path)
        fleet.loads.pop(path)
    assert fleet.hosts["fra/a3"].node.datacenters["fra"].relays[0] != "fra/a3"
    fleet.seconds(4)
    home = fleet.flows("fra/a3").home
    assert (home.epoch, home.computed_by) == (0, "fra/a3")
    assert any("no relay of fra said anything" in line for line in fleet.flows("fra/a3").explanation)


def test_a_caller_that_stops_offers_nothing_and_a_minute_later_nothing_is_said_any_more(fleet):
    fleet.demand = HOT
    fleet.seconds(10)
    fleet.demand, fleet.loads = {}, {}
    fleet.run("10s")
    assert all(place.demand == 0.0 for place in fleet.flows("fra/a1").inputs)
    fleet.run("90s")
    assert all(host.node.flows.services() == () for host in fleet.hosts.values())
    count = len(fleet.events(FlowsChanged))
    fleet.run("10s")
    assert len(fleet.events(FlowsChanged)) == count


def test_attempts_that_are_repeated_are_no_demand_and_so_nothing_to_scale_for(fleet):
    fleet.demand, fleet.retries = QUIET, 5_000.0
    fleet.seconds(10)
    demand = {place.datacenter: place.demand for place in fleet.flows("fra/a1").inputs}
    assert demand == pytest.approx(QUIET, rel=0.01)


def test_callers_tell_the_owner_of_an_instance_how_calls_to_it_went(fleet):
    fleet.demand = QUIET
    fleet.outcomes = (Outcomes("wdc/a1", "web", 100, 5, 0.08),)
    fleet.seconds(4)

    def load(path):
        view = fleet.hosts["lon/a2"].node.catalog.service(SERVICE)
        return next(instance.load for instance in view.instances if instance.node == path)

    assert load("wdc/a1").errors == pytest.approx(0.05, abs=0.003)
    assert load("wdc/a1").p99 == pytest.approx(0.08, abs=0.01)
    assert load("wdc/a2").errors == 0.0
    fleet.outcomes = ()
    fleet.seconds(13)
    assert (load("wdc/a1").errors, load("wdc/a1").p99) == (0.0, 0.0)


# ---- older and newer agents


def test_while_an_older_agent_is_known_no_flows_are_said_and_each_computes_its_own(fleet):
    for host in fleet.hosts.values():
        members = host.node._members
        member = members.get("lon/a2")
        members.set_record(member, replace(member.record, protocol=(1, 1)))
    fleet.demand = HOT
    fleet.seconds(6)
    relay = fleet.hosts["fra/a3"].node.datacenters["fra"].relays[0]
    others = [path for path in fleet.hosts if path.startswith("fra") and path != relay]
    assert all(
        not host.node._balance._reports._by_service.get(SERVICE, {}).get("wdc")
        for host in fleet.hosts.values()
        if not host.node.settings.node.path.startswith("wdc")
    )
    assert all(fleet.flows(path).home.epoch == 0 for path in others)
    assert fleet.flows(relay).home.epoch > 0


def test_a_fact_that_only_a_newer_version_knows_is_passed_over():
    fleet = TinyCallers(("fra",))
    node = fleet.hosts["fra/a1"].node
    sender = fleet.hosts["fra/a2"].node
    unknown, known = Raw(msgspec.msgpack.encode((19, "news"))), encode_fact(Left(NodeId("fra", "a3", 1), 99))
    for version in (PROTOCOL[1], PROTOCOL[1] + 1):
        envelope = Envelope(version, sender.identity, None, (unknown, known))
        fleet.give("fra/a1", DatagramReceived("fra-a2:1", msgspec.msgpack.encode(envelope)))
        assert fleet.state("fra/a1", "fra/a3") is (MemberState.LEFT if version > PROTOCOL[1] else MemberState.ALIVE)
    assert (node.counters["input_dropped"], node.counters["fact_of_newer_version"]) == (1, 1)


# ---- absurd words


@pytest.mark.parametrize(
    ("usage", "field"),
    [
        (Usage(SERVICE, -1.0), "usages[0].offered"),
        (Usage(SERVICE, float("nan")), "usages[0].offered"),
        (Usage(SERVICE, float("inf")), "usages[0].offered"),
        (Usage(SERVICE, 1.0, -2.0), "usages[0].retries"),
        (Usage(SERVICE, 1e30), "usages[0].offered"),
        (Usage("No Name", 1.0), "usages[0].service"),
        (Usage(SERVICE, 1.0, 0.0, (Outcomes("fra/a1", "web", 1, 2, 0.0),)), "usages[0].outcomes[0].failed"),
        (Usage(SERVICE, 1.0, 0.0, (Outcomes("fra/a1", "web", -1, 0, 0.0),)), "usages[0].outcomes[0].calls"),
        (Usage(SERVICE, 1.0, 0.0, (Outcomes("fra/a1", "web", 1, 0, float("nan")),)), "usages[0].outcomes[0].p99"),
        (Usage(SERVICE, 1.0, 0.0, (Outcomes("nowhere", "web", 1, 0, 0.0),)), "usages[0].outcomes[0].node"),
        (Usage(SERVICE, 1.0, 0.0, (Outcomes("fra/a1", "web", 1, 0, 0.0),) * 65), "usages[0].outcomes"),
    ],
)
def test_absurd_usage_is_refused_and_names_the_field(fleet, usage, field):
    result = fleet.report("fra/a1", usage)
    assert isinstance(result, Refused)
    assert (result.kind, result.field) == ("invalid", field)
    assert fleet.hosts["fra/a1"].node.flows.services() == ()


def test_a_caller_without_a_name_and_a_service_told_twice_are_refused(fleet):
    assert fleet.report("fra/a1", caller="").field == "caller"
    assert fleet.report("fra/a1", Usage(SERVICE, 1.0), Usage(SERVICE, 2.0)).field == "usages[1].service"
    assert fleet.report("fra/a1", *(Usage(f"s{n}", 1.0) for n in range(1_001))).field == "usages"


def test_a_report_that_nobody_can_have_computed_is_dropped(fleet):
    fleet.demand = QUIET
    fleet.seconds(3)
    node = fleet.hosts["fra/a2"].node
    sound = next(iter(node._balance._reports._by_service[SERVICE]["wdc"].values())).report
    assert isinstance(sound, FlowReport)
    for absurd in (
        replace(sound, demand=-1.0),
        replace(sound, endpoint_capacity=float("inf")),
        replace(sound, places=sound.places * 2),
        replace(sound, rho=float("nan")),
    ):
        assert not node._balance.on_report(sound.relay, replace(absurd, stamp=sound.stamp + 1), False)
    assert node.counters["input_dropped"] == 4


# ---- policies


def put(fleet, key, value, number=30):
    fleet.request("fra/a1", Transact((), (Put(key, value),), ()), number)
    fleet.seconds(3)


def test_a_policy_reaches_callers_everywhere_and_a_bad_one_keeps_the_last_good():
    fleet = TinyCallers(servers=("fra/a1",))
    fleet.busy()
    fleet.demand = HOT
    fleet.seconds(10)
    assert "lon" in fleet.shares("fra/a2")
    put(fleet, "policy/orders.api", b'{"spill": "never", "timeout": "2s"}')
    policy = fleet.hosts["wdc/a2"].node.flows.route(SERVICE).policy
    assert (policy.spill, policy.timeout) == (Spill.NEVER, 2 * SECOND)
    assert fleet.shares("fra/a2") == {"fra": 1.0}
    put(fleet, "policy/orders.api", b'{"spil": "load"}', 31)
    assert fleet.hosts["wdc/a2"].node.flows.route(SERVICE).policy == policy
    assert "did you mean 'spill'?" in fleet.flows("wdc/a2").explanation[-1]
    fleet.request("fra/a1", Transact((), (Delete("policy/orders.api"),), ()), 32)
    fleet.seconds(5)
    assert fleet.hosts["wdc/a2"].node.flows.route(SERVICE).policy == Policy()
    assert fleet.shares("fra/a2")["lon"] > 0.1
