"""Which link carries what, and what faults do to it."""

import pytest

from dislocate.core.streams import Streams
from dislocate.core.units import MICROSECOND, MILLISECOND
from dislocate.linkmodel import ALL_CHANNELS, Channel
from sim.faults.network import pairs
from sim.network import Network, topology
from sim.scenario import Datacenter, Fault, LinkOverride, Scenario, checked
from sim.schedule import Schedule


@pytest.fixture
def scenario():
    return checked(
        Scenario(
            title="a test",
            why="it is one",
            duration=1,
            datacenters={"fra": Datacenter(3), "wdc": Datacenter(2), "tok": Datacenter(2)},
            links=(LinkOverride("fra", "wdc", rtt=200 * MILLISECOND, loss=0.01),),
        )
    )


@pytest.fixture
def network(scenario):
    return Network(scenario, scenario.layout(), Streams("1/net"), Schedule())


def test_delays_are_half_the_tables_rtt_and_directional(scenario):
    graph = topology(scenario)
    assert graph.edges["tok", "fra"]["quality"].delay == 235 * MILLISECOND // 2
    assert graph.edges["fra", "wdc"]["quality"].delay == 100 * MILLISECOND
    assert graph.edges["wdc", "fra"]["quality"].delay == 89 * MILLISECOND // 2
    assert graph.edges["fra", "fra"]["quality"].delay == 50 * MICROSECOND


def test_hosts_of_a_data_center_share_a_link_until_one_is_singled_out(network):
    assert network.link("fra/a1", "wdc/a1") is network.link("fra/a2", "wdc/a2")
    network.slow(["fra/a1"], ["wdc/a1", "wdc/a2"], 3.0)
    assert network.link("fra/a1", "wdc/a1").slow_factor == 3.0
    assert network.link("fra/a2", "wdc/a1").slow_factor == 1.0
    assert network.link("wdc/a1", "fra/a1").slow_factor == 1.0


def test_a_cut_of_a_data_center_includes_links_that_were_singled_out(network, scenario):
    network.drop(["fra/a1"], ["wdc/a1"], 0.5)
    paths = scenario.layout().nodes
    network.cut(paths["fra"], paths["wdc"], ALL_CHANNELS)
    assert all(network.link(a, b).is_cut(Channel.UDP) for a in paths["fra"] for b in paths["wdc"])
    network.heal(paths["fra"], paths["wdc"], ALL_CHANNELS)
    assert not any(network.link(a, b).is_disturbed for a in paths["fra"] for b in paths["wdc"])


def test_a_link_singled_out_during_a_cut_is_cut_too(network, scenario):
    paths = scenario.layout().nodes
    network.cut(paths["fra"], paths["wdc"], ALL_CHANNELS)
    network.slow(["fra/a1"], ["wdc/a1"], 2.0)
    assert network.link("fra/a1", "wdc/a1").is_cut(Channel.LINKS)


def test_everybody_means_everybody_else(scenario):
    layout = scenario.layout()
    (there, back) = pairs(layout, Fault(0, "cut", origin="fra", dest="*"))
    assert there == (layout.nodes["fra"], (*layout.nodes["wdc"], *layout.nodes["tok"]))
    assert back == there[::-1]
    ((origins, targets),) = pairs(layout, Fault(0, "cut", origin="*", dest="fra/a1", oneway=True))
    assert targets == ("fra/a1",)
    assert "fra/a1" not in origins
    assert "fra/a2" in origins
    assert pairs(layout, Fault(0, "heal"))[0] == (layout.paths, layout.paths)


def test_a_channel_is_cut_by_itself(network, scenario):
    paths = scenario.layout().nodes
    network.cut(paths["fra"], paths["wdc"], frozenset({Channel.UDP}))
    link = network.link("fra/a1", "wdc/a1")
    assert link.is_cut(Channel.UDP)
    assert not link.is_cut(Channel.LINKS)
    assert network.is_wan_disturbed


def test_trouble_inside_a_data_center_is_none_between_them(network, scenario):
    network.drop(["fra/a1"], ["fra/a2"], 0.5)
    assert not network.is_wan_disturbed
