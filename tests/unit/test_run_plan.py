"""The plan: each target in one batch, canaries first, data center after data center."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from dislocate.core.boundary.spec import Directory, RunSpec, Strategy
from dislocate.core.errors import LocalError
from dislocate.core.runs.plan import make_plan
from dislocate.core.tunables import RUN_NODES


def batches(targets, **strategy):
    spec = RunSpec(name="web", targets="*", resources=(Directory(path="/srv"),), strategy=Strategy(**strategy))
    return [(batch.wave, list(batch.nodes)) for batch in make_plan(spec, targets).batches]


NINE = [f"{datacenter}/a{number}" for datacenter in ("wdc", "fra", "lon") for number in (1, 2, 3)]


def test_the_canary_goes_first_then_each_data_center_in_batches():
    assert batches(NINE[:6], batch=2) == [
        ("canary", ["fra/a1"]),
        ("fra", ["fra/a2", "fra/a3"]),
        ("wdc", ["wdc/a1", "wdc/a2"]),
        ("wdc", ["wdc/a3"]),
    ]


def test_waves_come_in_their_order_and_the_others_by_name():
    waves = [wave for wave, _ in batches(NINE, waves=("wdc",), batch="100%")]
    assert waves == ["canary", "wdc", "fra", "lon"]
    assert batches(NINE, waves=("wdc", "nowhere"))[0] == ("canary", ["wdc/a1"])


def test_a_batch_is_a_part_of_the_whole_data_center():
    sizes = [
        len(nodes) for _, nodes in batches([f"fra/n{number:02}" for number in range(20)], canary="10%", batch="25%")
    ]
    assert sizes == [2, 5, 5, 5, 3]


def test_data_centers_side_by_side_share_their_batches():
    assert batches(NINE, parallel=2, batch=2, canary=0) == [
        ("fra+lon", ["fra/a1", "fra/a2", "lon/a1", "lon/a2"]),
        ("fra+lon", ["fra/a3", "lon/a3"]),
        ("wdc", ["wdc/a1", "wdc/a2"]),
        ("wdc", ["wdc/a3"]),
    ]


def test_canaries_that_are_the_whole_data_center_leave_no_empty_batch():
    assert batches(["fra/a1", "wdc/a1"], canary=5) == [("canary", ["fra/a1"]), ("wdc", ["wdc/a1"])]


def test_no_target_and_too_many_are_refused():
    with pytest.raises(LocalError, match="an expression that some node fits"):
        batches([])
    with pytest.raises(LocalError, match="split the run"):
        batches([f"fra/n{number}" for number in range(RUN_NODES + 1)])


amounts = some.one_of(some.integers(1, 9), some.integers(1, 100).map(lambda part: f"{part}%"))
paths = some.tuples(some.sampled_from(["fra", "wdc", "lon"]), some.integers(1, 30)).map(
    lambda one: f"{one[0]}/n{one[1]}"
)


@given(some.lists(paths, min_size=1), amounts, amounts, some.integers(1, 4))
def test_each_target_is_in_exactly_one_batch(targets, canary, batch, parallel):
    planned = [node for _, nodes in batches(targets, canary=canary, batch=batch, parallel=parallel) for node in nodes]
    assert sorted(planned) == sorted(set(targets))
    assert all(nodes for _, nodes in batches(targets, canary=canary, batch=batch, parallel=parallel))
