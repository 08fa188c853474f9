"""The rules that the picker is made of, each by itself."""

import pytest

from dislocate.core.balance.aperture import width, window
from dislocate.core.balance.budget import RetryBudget
from dislocate.core.balance.dividing import bounds_of
from dislocate.core.balance.ejection import outliers
from dislocate.core.balance.hashing import Ring, digest, points
from dislocate.core.balance.latency import hurt_tau, percentile
from dislocate.core.balance.throttle import Throttle
from dislocate.core.boundary.balance import Retries

RETRIES = Retries(ratio=0.2, per_second=10.0)


# ---- ejection


@pytest.mark.parametrize(
    ("ratios", "found"),
    [
        ((1.0, 1.0, 1.0, 1.0, 0.0), (4,)),
        ((1.0, 0.9, 0.8, 0.7, 0.6), ()),  # a wide spread has no outlier
        ((1.0, 1.0, 1.0, 1.0, 0.97), ()),  # the least well does well too
        ((1.0, 1.0, 1.0, 0.0), ()),  # four are too few to have a deviation
        ((0.0,) * 5, ()),  # where all fail, nobody is worse
        ((1.0,) * 18 + (0.2, 0.1), (19, 18)),  # worst first
    ],
)
def test_an_outlier_is_far_below_the_mean_of_many(ratios, found):
    assert outliers(ratios, 1.9) == found


def test_a_sigma_of_0_judges_nobody():
    assert outliers((1.0, 1.0, 1.0, 1.0, 0.0), 0.0) == ()


# ---- the throttle


def test_the_throttle_is_the_formula_of_the_sre_book():
    throttle = Throttle()
    throttle.turn(1, requests=1_000, sent=1_000, accepts=300, excused=0.0, k=2.0)
    assert throttle.part == pytest.approx((1_000 - 2 * 300) / 1_001)


def test_what_is_excused_is_no_request_yet():
    throttle = Throttle()
    throttle.turn(1, requests=1_000, sent=1_000, accepts=300, excused=400.0, k=2.0)
    assert throttle.part == 0.0


def test_a_lower_k_throttles_sooner():
    for k, throttles in ((1.1, True), (2.0, False)):
        throttle = Throttle()
        throttle.turn(1, requests=1_000, sent=1_000, accepts=600, excused=0.0, k=k)
        assert (throttle.part > 0.0) is throttles


def test_what_was_two_minutes_ago_is_forgotten():
    throttle = Throttle()
    throttle.turn(1, requests=1_000, sent=1_000, accepts=0, excused=0.0, k=2.0)
    throttle.turn(118, requests=0, sent=0, accepts=0, excused=0.0, k=2.0)
    assert throttle.part == 0.9
    throttle.turn(2, requests=0, sent=0, accepts=0, excused=0.0, k=2.0)
    assert throttle.part == 0.0


def test_nine_calls_prove_nothing():
    throttle = Throttle()
    throttle.turn(1, requests=9, sent=9, accepts=0, excused=0.0, k=2.0)
    assert throttle.part == 0.0


# ---- the retry budget


def test_a_token_is_a_fifth_of_a_call_and_lives_ten_seconds():
    budget = RetryBudget()
    budget.turn(1, 1_000)
    assert budget.allowed(RETRIES, 0) == 300.0
    budget.turn(8, 0)
    assert budget.allowed(RETRIES, 0) == 300.0
    budget.turn(1, 0)
    assert budget.allowed(RETRIES, 0) == 100.0


def test_a_budget_that_is_spent_gives_nothing_and_counts_nothing():
    budget = RetryBudget()
    assert [budget.take(RETRIES, 0) for _ in range(102)] == [True] * 100 + [False] * 2
    assert budget.spent() == 100


# ---- the aperture


def test_an_aperture_is_what_the_load_needs_and_half_as_much_again():
    assert width(100, 12, offered=0.0, capacity=0.0) == 12
    assert width(100, 12, offered=400.0, capacity=10.0) == 60
    assert width(100, 12, offered=4_000.0, capacity=10.0) == 100
    assert width(5, 12, offered=0.0, capacity=0.0) == 5


def test_an_aperture_begins_and_ends_within_an_endpoint():
    assert window([True] * 10, 0.25, 3) == ((2, 0.5), (3, 1.0), (4, 1.0), (5, 0.5))


def test_an_aperture_goes_round():
    assert [at for at, _ in window([True] * 10, 0.9, 3)] == [9, 0, 1]


def test_an_aperture_passes_over_who_is_not_available():
    assert [at for at, _ in window([True, False, True, True], 0.0, 2)] == [0, 2]


# ---- the ring


def test_a_ring_gives_twice_the_weight_about_twice_the_keys():
    ring = Ring([("a", 2.0), ("b", 1.0), ("c", 1.0)])
    firsts = [ring.first(digest(str(at))) for at in range(4_000)]
    assert 0.4 < firsts.count(0) / 4_000 < 0.6


def test_the_first_to_be_asked_is_the_first_of_the_walk():
    ring = Ring([(str(at), 1.0) for at in range(7)])
    assert all(ring.first(digest(str(at))) == next(ring.walk(digest(str(at)))) for at in range(200))


def test_places_on_the_ring_are_the_same_on_every_machine():
    assert digest("customer-7") == 0x698E94ED4EC1A85A
    assert points("fra/a1/1", 1) == [0xCAE963EDAD7E8E9F]
    assert points("fra/a1/1", 3) == points("fra/a1/1", 64)[:3]


# ---- latency, and shares


def test_a_percentile_is_one_of_the_numbers():
    ordered = [float(at) for at in range(1, 101)]
    assert (percentile(ordered, 0.95), percentile(ordered, 0.99), percentile([7.0], 0.99)) == (95.0, 99.0, 7.0)


def test_the_more_errors_in_a_row_the_longer_they_are_held_against_one():
    assert [hurt_tau(count) for count in (0, 1, 2, 5, 50)] == pytest.approx([0.4, 0.4, 0.8, 2.0, 2.0])


def test_the_last_bound_is_above_every_draw():
    bounds = bounds_of([("a", 0.1), ("b", 0.2), ("c", 0.7)])
    assert [name for _, name in bounds] == ["a", "b", "c"]
    assert bounds[0][0] == pytest.approx(0.1)
    assert bounds[-1][0] > 1.0
