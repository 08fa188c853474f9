"""Which directions 'from' and 'to' mean, and that both worlds ask the same rule."""

import pytest

from dislocate.directions import covers
from dislocate.io.shaping import Steer
from sim.faults.network import pairs
from sim.scenario import Fault
from sim.selectors import Layout

SIDES = ("*", "fra", "wdc", "fra/a1", ("fra", "wdc"), ("fra/a1", "tok/a2"), ("*", "fra"))


@pytest.mark.parametrize(
    ("origin", "target", "sender", "receiver", "meant"),
    [
        ("fra", "wdc", "fra/a1", "wdc/a1", True),
        ("fra", "wdc", "wdc/a1", "fra/a1", False),
        ("fra", "*", "fra/a1", "wdc/a1", True),
        ("fra", "*", "fra/a1", "fra/a2", False),
        ("*", "fra", "wdc/a1", "fra/a1", True),
        ("*", "fra", "fra/a2", "fra/a1", False),
        ("fra/a1", "*", "fra/a1", "fra/a2", True),
        ("fra/a1", "*", "fra/a2", "fra/a3", False),
        ("fra", "fra", "fra/a1", "fra/a2", True),
        ("*", "*", "fra/a1", "fra/a2", True),
        ("fra", "*", "fra", "wdc", True),
    ],
)
def test_a_star_means_everybody_else(origin, target, sender, receiver, meant):
    assert covers((origin,), (target,), sender, receiver) is meant


def test_opposite_several_a_star_means_whoever_is_none_of_them():
    assert not covers(("fra", "wdc"), ("*",), "fra/a1", "wdc/a1")
    assert covers(("fra", "wdc"), ("*",), "fra/a1", "tok/a1")


@pytest.mark.parametrize("origin", SIDES)
@pytest.mark.parametrize("dest", SIDES)
@pytest.mark.parametrize("oneway", [True, False])
def test_simulated_and_real_agents_cut_the_same_links(origin, dest, oneway):
    layout = Layout({"fra": 2, "wdc": 2, "tok": 2}, {})
    simulated = {
        (sender, receiver)
        for senders, receivers in pairs(layout, Fault(0, "cut", origin=origin, dest=dest, oneway=oneway))
        for sender in senders
        for receiver in receivers
    }
    command = Steer(do="cut", from_=origin, to=dest, oneway=oneway)
    real = {(one, other) for one in layout.paths for other in layout.paths if command.covers(one, other)}
    assert simulated == real
