"""The fluid model of scaling: the same demand for all rules, nothing lost on the way, and peers that do as documented."""

import pytest

from sim.scaling import BOOT, CAPACITY, RULES, SHAPES, TARGET, Hpa, Ours, Sight, TargetTracking, run, trace


class Fixed:
    """As many as it is told, by second."""

    def __init__(self, wanted):
        self._wanted = wanted

    def look(self, sight):
        return self._wanted(sight.second)


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape != "day"])
def test_a_trace_depends_on_its_seed_alone(shape):
    assert trace(shape, 5) == trace(shape, 5)
    assert trace(shape, 5) != trace(shape, 6)
    assert min(trace(shape, 5)) >= 0


def test_what_is_above_capacity_is_dropped_and_instances_boot():
    demand = [700.0] * 60 + [1400.0] * 120  # ten instances to begin with
    found = run(Fixed(lambda second: 20 if second >= 60 else 10), demand)
    lost = (1400.0 - 10 * CAPACITY) * BOOT
    assert found.dropped * sum(demand) == pytest.approx(lost, rel=0.02)
    assert found.reversals == 0


def test_a_fleet_that_is_always_right_costs_one():
    demand = [700.0] * 600
    assert run(Fixed(lambda _: 10), demand).cost == pytest.approx(1.0)
    assert run(Fixed(lambda _: 15), demand).cost == pytest.approx(1.5, rel=0.01)


def test_turns_are_counted():
    found = run(Fixed(lambda second: 10 + second // 100 % 2), [700.0] * 600)
    assert found.reversals == 4


def looked(rule, utilization, seconds, up, wanted=None):
    return [rule.look(Sight(second, 0.0, utilization, up, wanted or up)) for second in range(1, seconds + 1)][-1]


def test_hpa_grows_proportionally_within_its_pace_and_tolerates_a_tenth():
    assert looked(Hpa(), TARGET * 1.05, 15, 10) == 10
    assert looked(Hpa(), TARGET * 1.2, 15, 10) == 12
    assert looked(Hpa(), 1.0, 15, 3) == 5
    assert looked(Hpa(), 1.0, 15, 10, wanted=15) == 15  # those that boot count as idle


def test_target_tracking_takes_three_minutes_up_and_fifteen_down():
    assert looked(TargetTracking(), 1.0, 179, 10) == 10
    assert looked(TargetTracking(), 1.0, 180, 10) == 15
    assert looked(TargetTracking(), 0.1, 899, 10) == 10
    assert looked(TargetTracking(), 0.34, 900, 10) == 5


@pytest.mark.parametrize("shape", ["step", "spikes"])
def test_ours_drops_less_than_the_peers_at_a_bounded_cost(shape):
    demand = trace(shape, 3)
    found = {name: run(make(), demand) for name, make in RULES.items()}
    ours = found["dislocate"]
    assert ours.dropped < min(found["HPA"].dropped, found["target tracking"].dropped)
    assert ours.cost < 1.5 * found["HPA"].cost


def test_the_budget_of_reversals_holds_in_any_hour():
    assert run(Ours(), trace("spikes", 3)).reversals <= 2 * (4 + 1) + 1
