"""Suspicion's formulas and its set of accusers, as pure functions."""

import pytest

from dislocate.core.membership.suspicion import ACCUSERS_KEPT, Suspicion, confirmations_needed, minimum, timeout
from dislocate.core.units import SECOND


@pytest.mark.parametrize(("population", "seconds"), [(1, 4.0), (3, 4.0), (10, 4.0), (20, 5.2), (60, 7.1), (1000, 12.0)])
def test_the_minimum_grows_with_the_logarithm_of_the_population(population, seconds):
    assert minimum(population) / SECOND == pytest.approx(seconds, abs=0.05)


def test_a_lone_accusation_waits_six_times_as_long_as_a_confirmed_one():
    assert timeout(0, 20) == 6 * minimum(20)
    assert timeout(3, 20) == minimum(20)
    assert timeout(9, 20) == minimum(20)


def test_each_further_accuser_shortens_the_wait():
    waits = [timeout(confirmations, 20) for confirmations in range(4)]
    assert waits == sorted(waits, reverse=True)
    assert len(set(waits)) == 4


@pytest.mark.parametrize(("population", "needed"), [(1, 0), (2, 0), (3, 1), (4, 2), (5, 3), (60, 3)])
def test_few_members_need_few_confirmations(population, needed):
    assert confirmations_needed(population) == needed
    assert timeout(needed, population) == minimum(population)


def test_a_pair_waits_the_minimum_since_nobody_else_could_confirm():
    assert timeout(0, 2) == minimum(2) == 4 * SECOND


def test_period_and_multiplier_scale_the_wait():
    assert minimum(10, period=SECOND // 2, multiplier=6) == 3 * SECOND


def test_accusers_merge_as_a_set_and_stop_counting_when_more_would_shorten_nothing():
    suspicion = Suspicion(incarnation=1, population=20, started=0)
    assert suspicion.add(("fra/a2", "fra/a1"))
    assert not suspicion.add(("fra/a1",))
    assert suspicion.sorted_accusers == ("fra/a1", "fra/a2")
    suspicion.add(tuple(f"fra/b{i}" for i in range(9)))
    assert len(suspicion.accusers) == ACCUSERS_KEPT
    assert not suspicion.add(("fra/c1",))


def test_the_deadline_moves_forward_when_others_confirm():
    suspicion = Suspicion(incarnation=1, population=20, started=5 * SECOND)
    suspicion.add(("fra/a1",))
    alone = suspicion.deadline(SECOND, 4)
    suspicion.add(("fra/a2",))
    assert suspicion.deadline(SECOND, 4) < alone
    suspicion.add(("fra/a3", "fra/a4"))
    assert suspicion.deadline(SECOND, 4) == 5 * SECOND + minimum(20)
