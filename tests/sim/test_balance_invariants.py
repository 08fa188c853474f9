"""Every invariant of balancing can fail: each is shown one thing that must never happen."""

import pytest
from msgspec.structs import replace

from dislocate.core.boundary.balance import Share
from dislocate.core.units import SECOND
from sim.invariants import InvariantViolated
from sim.run import Run
from sim.scenario import parse_scenario
from tests.mutants.balance import traffic

STORY = traffic(20, {"fra": 40, "lon": 40}, "10 drain target=fra/shop.web#1")


@pytest.fixture
def run():
    told = Run(parse_scenario(STORY), seed=1)
    told.world.run(19 * SECOND)
    return told


def invariant(run, name):
    return next(one for one in run.monitor.invariants if one.name == name)


def test_they_were_exercised_and_held(run):
    idle = [one.name for one in run.monitor.invariants if not one.exercised]
    assert not {"calls are conserved", "the unusable are left alone", "flows are within capacity"} & {*idle}
    assert "somebody is named" not in idle


def test_too_much_into_one_data_center_is_seen(run):
    watch = invariant(run, "flows are within capacity")
    key, alike = next((key, alike) for key, alike in watch._rows.items() if len(alike) == 2)
    flows = alike["fra"]
    inputs = tuple(replace(one, demand=1_000.0) for one in flows.inputs)
    home = replace(flows.home, target=(Share("lon", 1.0),))
    watch._rows[key]["fra"] = replace(flows, inputs=inputs, home=home)
    with pytest.raises(InvariantViolated, match=r"into lon, which is to be given"):
        watch.check()


def test_a_call_that_a_picker_does_not_know_is_seen(run):
    book = run.world.truth.calls.callers[0]
    next(iter(book.attempted.values())).under_way += 1
    with pytest.raises(InvariantViolated, match="calls are conserved"):
        invariant(run, "calls are conserved").check()


def test_a_call_to_the_drained_is_seen(run):
    book = run.world.truth.calls.callers[0]
    book.attempted["fra/a1/shop.web-1"].last = 18 * SECOND
    with pytest.raises(InvariantViolated, match=r"the unusable are left alone.*draining"):
        invariant(run, "the unusable are left alone").check()


def test_retries_beyond_the_budget_are_seen(run):
    run.world.truth.calls.callers[0].retried += 1_000
    with pytest.raises(InvariantViolated, match="retries are budgeted"):
        invariant(run, "retries are budgeted").check()


def test_an_empty_answer_is_seen(run):
    run.world.truth.calls.callers[0].empty.append(7 * SECOND)
    with pytest.raises(InvariantViolated, match=r"somebody is named.*at 7.0 s"):
        invariant(run, "somebody is named").check()
