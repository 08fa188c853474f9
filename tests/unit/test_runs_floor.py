"""How many nodes may be worked on at once without taking a service below its floor."""

import msgspec
import pytest

from dislocate.core.runs.control.floor import least, openable
from tests.support.tiny_runs import instances

FOUR = "fra/a1 passing, fra/a2 passing, fra/a3 passing, fra/a4 passing"


def opened(wanted, text, floor=0.5, busy=""):
    return openable(wanted.split(), {"web": floor}, instances(text), busy.split())


def test_as_many_are_granted_as_the_floor_spares():
    assert opened("fra/a1 fra/a2 fra/a3 fra/a4", FOUR).nodes == ("fra/a1", "fra/a2")


def test_nodes_in_flight_count_as_none():
    assert opened("fra/a3 fra/a4", FOUR, busy="fra/a1").nodes == ("fra/a3",)
    assert opened("fra/a3 fra/a4", FOUR, busy="fra/a1 fra/a2").nodes == ()


def test_the_first_that_waits_is_told_why():
    words = opened("fra/a3", FOUR, busy="fra/a1 fra/a2").words
    assert words == "2 of 4 web in fra can be used, and 2 must be: fra/a3 waits"


def test_instances_that_are_not_passing_are_missed_all_the_same():
    assert opened("fra/a3 fra/a4", "fra/a1 critical, fra/a2 passing, fra/a3 passing, fra/a4 passing").nodes == (
        "fra/a3",
    )


def test_a_node_that_takes_nothing_away_may_always_go_and_may_be_the_mend():
    assert opened("fra/a1 fra/a9", "fra/a1 critical, fra/a2 passing", floor=1.0).nodes == ("fra/a1", "fra/a9")


def test_each_data_center_has_its_own_floor():
    text = "fra/a1 passing, fra/a2 passing, wdc/b1 passing, wdc/b2 passing"
    assert opened("fra/a1 fra/a2 wdc/b1 wdc/b2", text).nodes == ("fra/a1", "wdc/b1")


def test_an_instance_whose_agent_is_suspected_serves_nobody():
    first, *rest = instances(FOUR)["web"]
    found = {"web": (msgspec.structs.replace(first, suspected=True), *rest)}
    assert openable(["fra/a2", "fra/a3"], {"web": 0.5}, found, ()).nodes == ("fra/a2",)


def test_without_a_floor_all_may_go():
    assert openable(["fra/a1", "fra/a2"], {}, instances(FOUR), ()).nodes == ("fra/a1", "fra/a2")


@pytest.mark.parametrize(
    ("part", "of", "need"),
    [(0.5, 3, 2), (0.5, 4, 2), (0.1, 10, 1), (0.7, 10, 7), (1.0, 3, 3), (0.0, 3, 0), (0.5, 0, 0)],
)
def test_the_fewest_that_are_a_part(part, of, need):
    assert least(part, of) == need
