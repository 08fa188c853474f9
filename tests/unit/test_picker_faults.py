"""What errors, silence and a bad clock do to picks: ejection, budgets, the throttle; and what they must not do."""

from collections import Counter

import pytest

from dislocate.core.balance.errors import RetriesSpent, Throttled
from dislocate.core.balance.picker import Outcome
from dislocate.core.boundary.balance import Eject, Policy, Retries
from dislocate.core.boundary.values import Status
from dislocate.core.units import HOUR, MILLISECOND, SECOND
from tests.support.tiny_picker import START, Caller, fleet, instance, route

NEVER_EJECT = Policy(eject=Eject(consecutive=0, success_sigma=0.0), throttle=0.0, aperture=1_000)
ALL = Policy(throttle=0.0, aperture=1_000)
BAD = (Outcome.FAILED, Outcome.TIMED_OUT, Outcome.REFUSED)


def endpoints(caller):
    return {endpoint.node: endpoint for endpoint in caller.picker._endpoints.values()}


# ---- an error is no low latency


@pytest.mark.parametrize("outcome", BAD)
def test_an_endpoint_that_fails_fast_does_not_attract_traffic(outcome):
    caller = Caller(route(fleet("fra", 10), NEVER_EJECT))
    went = caller.serve(5_000, {"fra/a3": outcome}, takes=10 * MILLISECOND)
    assert went["fra/a3"] < 0.01 * 5_000


@pytest.mark.parametrize("outcome", BAD)
def test_an_error_costs_the_timeout_at_least_and_twice_the_cost_before(outcome):
    caller = Caller(route(fleet("fra", 1), Policy(timeout=2 * SECOND, throttle=0.0)))
    caller.call(10 * MILLISECOND)
    endpoint = endpoints(caller)["fra/a0"]
    caller.call(MILLISECOND, outcome)
    assert endpoint.cost == 2.0
    caller.call(MILLISECOND, outcome)
    assert endpoint.cost == 4.0


def test_errors_without_end_leave_a_cost_that_one_can_recover_from():
    caller = Caller(route(fleet("fra", 1), NEVER_EJECT))
    for _ in range(5_000):
        caller.call(MILLISECOND, Outcome.FAILED)
    assert endpoints(caller)["fra/a0"].cost <= 160.0


def test_an_endpoint_that_failed_once_is_back_within_ten_seconds():
    caller = Caller(route(fleet("fra", 4), ALL))
    caller.calls(100)
    failed = caller.call(outcome=Outcome.FAILED)
    assert failed not in caller.calls(50, takes=MILLISECOND)
    caller.calls(1_000, takes=10 * MILLISECOND)
    assert caller.calls(400, takes=10 * MILLISECOND)[failed] > 50


def test_a_call_tried_again_leaves_a_data_center_that_nothing_reaches():
    """Relays take ten seconds to say so, and each attempt there costs a connect timeout."""
    caller = Caller(route([*fleet("fra", 4), *fleet("wdc", 4)], NEVER_EJECT, fra=0.5, wdc=0.5))
    for _ in range(200):
        picked = caller.picker.pick(caller.now)
        is_lost = picked.endpoint.datacenter == "wdc"
        caller.now += SECOND if is_lost else MILLISECOND
        caller.picker.done(picked, caller.now, Outcome.REFUSED if is_lost else Outcome.OK)
    for _ in range(200):
        tried = caller.picker.pick(caller.now)
        if tried.endpoint.datacenter == "wdc":
            caller.picker.done(tried, caller.now, Outcome.REFUSED)
            again = caller.picker.pick(caller.now, exclude=(tried.endpoint.key,))
            assert again.endpoint.datacenter == "fra"
            caller.picker.done(again, caller.now)
        else:
            caller.picker.done(tried, caller.now)


def test_errors_that_all_make_alike_take_nobody_out():
    """One call in a hundred is a bad request: whoever gets it answers with an error."""
    caller = Caller(route(fleet("fra", 12), ALL))
    went: Counter[str] = Counter()
    for at in range(20_000):
        picked = caller.pick()
        went[picked.endpoint.node] += 1
        caller.done(picked, 2 * MILLISECOND, Outcome.FAILED if at % 100 == 99 else Outcome.OK)
    assert min(went.values()) > 0.4 * 20_000 / 12
    assert max(went.values()) < 2.0 * 20_000 / 12


def test_half_of_the_endpoints_dead_and_no_call_in_a_hundred_meets_one():
    caller = Caller(route(fleet("fra", 10), NEVER_EJECT))
    dead = {f"fra/a{at}": Outcome.REFUSED for at in range(5)}
    caller.serve(200, dead)
    assert sum(caller.serve(2_000, dead)[node] for node in dead) < 20


def test_a_cancelled_call_says_that_it_took_so_long_at_least():
    caller = Caller(route(fleet("fra", 1)))
    caller.call(10 * MILLISECOND)
    endpoint = endpoints(caller)["fra/a0"]
    caller.call(MILLISECOND, Outcome.CANCELLED)
    assert endpoint.cost == pytest.approx(0.01)
    caller.call(500 * MILLISECOND, Outcome.CANCELLED)
    assert endpoint.cost == pytest.approx(0.5)


# ---- ejection


def fail(caller, node, times=5):
    """Calls to `node`, and to nobody else, fail."""
    others = {endpoint.key for name, endpoint in endpoints(caller).items() if name != node}
    for _ in range(times):
        caller.call(MILLISECOND, Outcome.FAILED, exclude=others)


def test_five_failures_in_a_row_eject_and_four_do_not():
    caller = Caller(route(fleet("fra", 10), ALL))
    fail(caller, "fra/a1", 4)
    assert not endpoints(caller)["fra/a1"].ejected_until
    fail(caller, "fra/a1", 1)
    assert endpoints(caller)["fra/a1"].ejected_until
    assert "fra/a1" not in caller.calls(500, takes=MILLISECOND)


def test_a_success_in_between_starts_the_row_anew():
    caller = Caller(route(fleet("fra", 10), ALL))
    others = {endpoint.key for name, endpoint in endpoints(caller).items() if name != "fra/a1"}
    for _ in range(5):
        fail(caller, "fra/a1", 4)
        caller.call(exclude=others)
    assert not endpoints(caller)["fra/a1"].ejected_until


def test_an_ejection_lasts_thirty_seconds_more_or_less_and_longer_each_time():
    caller = Caller(route(fleet("fra", 10), ALL))
    endpoint = endpoints(caller)["fra/a1"]
    for times in (1, 2, 3):
        fail(caller, "fra/a1")
        lasts = (endpoint.ejected_until - caller.now) / SECOND
        assert 24 * times <= lasts <= 36 * times
        caller.wait(endpoint.ejected_until - caller.now + SECOND)
        caller.call()
        assert not endpoint.ejected_until


def test_who_returns_from_an_ejection_warms_up_as_one_that_is_fresh():
    caller = Caller(route(fleet("fra", 4), ALL))
    caller.calls(100)
    fail(caller, "fra/a1")
    endpoint = endpoints(caller)["fra/a1"]
    caller.wait(endpoint.ejected_until - caller.now + SECOND)
    early = caller.calls(200)["fra/a1"]
    caller.wait(40 * SECOND)
    late = caller.calls(200)["fra/a1"]
    assert early < 25
    assert late > 30


def test_an_ejection_is_never_longer_than_the_longest():
    caller = Caller(route(fleet("fra", 10), Policy(eject=Eject(longest=50 * SECOND), throttle=0.0)))
    endpoint = endpoints(caller)["fra/a1"]
    for _ in range(6):
        fail(caller, "fra/a1")
        assert endpoint.ejected_until - caller.now <= 60 * SECOND
        caller.wait(endpoint.ejected_until - caller.now + SECOND)
        caller.call()


def test_good_conduct_makes_the_next_ejection_a_first_one():
    caller = Caller(route(fleet("fra", 10), ALL))
    endpoint = endpoints(caller)["fra/a1"]
    for _ in range(3):
        fail(caller, "fra/a1")
        caller.wait(endpoint.ejected_until - caller.now + SECOND)
        caller.call()
    caller.wait(400 * SECOND)
    caller.call()
    fail(caller, "fra/a1")
    assert endpoint.ejected_until - caller.now <= 36 * SECOND


def test_two_callers_do_not_take_an_endpoint_back_at_the_same_moment():
    until = set()
    for seed in "abcde":
        caller = Caller(route(fleet("fra", 10), ALL), seed=seed)
        fail(caller, "fra/a1")
        until.add(endpoints(caller)["fra/a1"].ejected_until)
    assert len(until) == 5


@pytest.mark.parametrize(("count", "most"), [(1, 0), (2, 1), (3, 1), (10, 1), (20, 2), (50, 5)])
def test_a_tenth_may_be_ejected_but_always_one_and_never_more_than_half(count, most):
    caller = Caller(route(fleet("fra", count), ALL))
    for node in endpoints(caller):
        fail(caller, node)
    assert sum(bool(endpoint.ejected_until) for endpoint in endpoints(caller).values()) == most


def test_a_policy_that_allows_all_still_leaves_half():
    caller = Caller(route(fleet("fra", 10), Policy(eject=Eject(at_most=1.0), throttle=0.0)))
    for node in endpoints(caller):
        fail(caller, node)
    assert sum(bool(endpoint.ejected_until) for endpoint in endpoints(caller).values()) == 5


def test_0_consecutive_failures_means_never():
    caller = Caller(route(fleet("fra", 10), NEVER_EJECT))
    fail(caller, "fra/a1", 100)
    assert not endpoints(caller)["fra/a1"].ejected_until


def test_a_fleet_that_shrinks_pardons_rather_than_ejecting_more_than_half():
    caller = Caller(route(fleet("fra", 20), Policy(eject=Eject(at_most=0.5), throttle=0.0)))
    for at in range(6):
        fail(caller, f"fra/a{at}")
    caller.picker.update(route(fleet("fra", 8), Policy(eject=Eject(at_most=0.5), throttle=0.0)), caller.now)
    assert sum(bool(endpoint.ejected_until) for endpoint in endpoints(caller).values()) == 4


def test_a_low_success_ratio_ejects_where_five_others_are_better():
    caller = Caller(route(fleet("fra", 6), Policy(eject=Eject(consecutive=0), throttle=0.0, aperture=100)))
    keys = {node: endpoint.key for node, endpoint in endpoints(caller).items()}
    caller.call()
    for at in range(150):
        for node, key in keys.items():
            picked = caller.pick(exclude=[other for other in keys.values() if other != key])
            caller.done(picked, 0, Outcome.FAILED if node == "fra/a2" and at % 2 else Outcome.OK)
    caller.wait(11 * SECOND)
    caller.call()
    assert [node for node, endpoint in endpoints(caller).items() if endpoint.ejected_until] == ["fra/a2"]


def test_an_ejection_survives_a_new_route_and_a_flap_of_others():
    caller = Caller(route(fleet("fra", 10), ALL))
    fail(caller, "fra/a1")
    caller.picker.update(route(fleet("fra", 11), ALL), caller.now)
    assert "fra/a1" not in caller.calls(300, takes=MILLISECOND)


def test_an_endpoint_that_was_down_and_passes_its_check_again_is_ejected_no_more():
    caller = Caller(route(fleet("fra", 10), ALL))
    fail(caller, "fra/a1")
    sick = [instance(view.node, Status.CRITICAL) if view.node == "fra/a1" else view for view in fleet("fra", 10)]
    caller.picker.update(route(sick, ALL), caller.now)
    caller.picker.update(route(fleet("fra", 10), ALL), caller.now)
    assert not endpoints(caller)["fra/a1"].ejected_until


def test_who_is_ejected_is_preferred_to_nobody():
    caller = Caller(route(fleet("fra", 2), ALL))
    fail(caller, "fra/a1")
    assert endpoints(caller)["fra/a1"].ejected_until
    assert caller.call(exclude={"fra/a0/1"}) == "fra/a1"


def test_an_aperture_reaches_further_past_those_ejected():
    caller = Caller(route(fleet("fra", 100)))
    caller.call()
    drawn = [endpoint.node for endpoint in caller.picker._first.drawn]
    for node in drawn[:3]:
        fail(caller, node)
    assert len(caller.picker._first.drawn) >= 12
    assert not {*drawn[:3]} & {endpoint.node for endpoint in caller.picker._first.drawn}


# ---- the retry budget


def retry_until_spent(caller, limit=10_000):
    for count in range(limit):
        try:
            caller.call(0, retry=True)
        except RetriesSpent:
            return count
    return limit


def test_a_quiet_caller_may_retry_ten_times_a_second_over_ten_seconds():
    caller = Caller(route(fleet("fra", 4)))
    caller.call()
    assert retry_until_spent(caller) == 100


def test_a_busy_caller_may_retry_a_fifth_besides():
    caller = Caller(route(fleet("fra", 4)))
    caller.calls(1_000, takes=0)
    assert retry_until_spent(caller) == 300


def test_tokens_live_ten_seconds():
    caller = Caller(route(fleet("fra", 4), Policy(retries=Retries(per_second=0.0))))
    caller.calls(1_000, takes=0)
    caller.wait(9 * SECOND)
    assert retry_until_spent(caller) == 200
    caller.wait(11 * SECOND)
    assert retry_until_spent(caller) == 0


def test_retries_that_were_made_count_ten_seconds_and_then_no_more():
    caller = Caller(route(fleet("fra", 4)))
    caller.call()
    assert retry_until_spent(caller) == 100
    caller.wait(5 * SECOND)
    assert retry_until_spent(caller) == 0
    caller.wait(6 * SECOND)
    assert retry_until_spent(caller) == 100


def test_a_storm_of_errors_is_multiplied_by_a_fifth_and_no_more():
    caller = Caller(route(fleet("fra", 4), Policy(retries=Retries(per_second=0.0), throttle=0.0)))
    sent = 0
    for _ in range(3_000):
        caller.call(MILLISECOND, Outcome.FAILED)
        sent += 1
        for _ in range(2):
            try:
                caller.call(0, Outcome.FAILED, retry=True)
            except RetriesSpent:
                break
            sent += 1
    assert sent <= 1.21 * 3_000


def test_a_refused_connection_needs_no_token():
    caller = Caller(route(fleet("fra", 4), Policy(retries=Retries(ratio=0.0, per_second=0.0))))
    with pytest.raises(RetriesSpent, match=r"no retry is left: 0 in ten seconds, 0 are allowed"):
        caller.call(retry=True)
    caller.call(outcome=Outcome.REFUSED)
    assert caller.call(exclude={"fra/a0/1"})


def test_a_retry_that_gets_no_token_leaves_nothing_in_flight():
    caller = Caller(route(fleet("fra", 4), Policy(retries=Retries(ratio=0.0, per_second=0.0))))
    with pytest.raises(RetriesSpent):
        caller.pick(retry=True)
    assert sum(endpoint.pending for endpoint in endpoints(caller).values()) == 0


# ---- the throttle


def offer(caller, seconds, accepted, rate=200):
    """(offered, sent) of so many seconds, in which a part `accepted` of what is sent succeeds."""
    sent = 0
    for at in range(seconds * rate):
        caller.wait(SECOND // rate)
        try:
            picked = caller.pick()
        except Throttled:
            continue
        sent += 1
        caller.picker.done(picked, caller.now, Outcome.OK if (at * 0.618) % 1.0 < accepted else Outcome.FAILED)
    return seconds * rate, sent


def pick_on(caller, count, apart):
    """Calls that never end."""
    for _ in range(count):
        caller.wait(apart)
        caller.pick()


THROTTLED = Policy(eject=Eject(consecutive=0, success_sigma=0.0))


def test_a_service_that_accepts_half_is_not_throttled():
    offered, sent = offer(Caller(route(fleet("fra", 4), THROTTLED)), 60, 0.6)
    assert sent == offered


def test_a_service_that_accepts_nothing_gets_a_tenth():
    caller = Caller(route(fleet("fra", 4), THROTTLED))
    offer(caller, 30, 0.0)
    offered, sent = offer(caller, 30, 0.0)
    assert 0.05 * offered < sent < 0.15 * offered


def test_a_throttle_ends_soon_after_the_service_is_well():
    caller = Caller(route(fleet("fra", 4), THROTTLED))
    offer(caller, 60, 0.0)
    offer(caller, 10, 1.0)
    offered, sent = offer(caller, 10, 1.0)
    assert sent == offered


def test_a_throttle_of_0_is_off():
    caller = Caller(route(fleet("fra", 4), NEVER_EJECT))
    offered, sent = offer(caller, 60, 0.0)
    assert sent == offered


def test_a_throttled_call_is_demand_all_the_same():
    caller = Caller(route(fleet("fra", 4), THROTTLED))
    offer(caller, 30, 0.0)
    caller.picker.usage(caller.now)
    offer(caller, 10, 0.0)
    assert caller.picker.usage(caller.now).offered == pytest.approx(200, rel=0.02)


def test_a_throttled_call_says_how_much_is_kept_back():
    caller = Caller(route(fleet("fra", 4), THROTTLED))
    offer(caller, 60, 0.0)
    with pytest.raises(Throttled, match=r"orders\.api: throttled, .* 90% of the calls are kept from it"):
        pick_on(caller, 100, apart=0)


def test_a_burst_of_first_calls_is_not_throttled_because_no_answer_came_yet():
    caller = Caller(route(fleet("fra", 4)))
    for _ in range(5_000):
        caller.pick()


@pytest.mark.parametrize("first", [0, 100])
def test_a_burst_of_calls_that_take_seconds_throttles_nobody_meanwhile(first):
    caller = Caller(route(fleet("fra", 4)))
    caller.calls(first, takes=3 * SECOND)
    burst = [caller.pick() for _ in range(50)]
    for _ in range(28):
        caller.now += 100 * MILLISECOND
        caller.pick()
    for picked in burst:
        caller.done(picked)


def test_connections_that_stay_open_are_accepted_and_so_throttle_nobody():
    caller = Caller(route(fleet("fra", 3)))
    opened = []
    for _ in range(300):
        caller.now += 100 * MILLISECOND
        opened.append(caller.pick())
        caller.picker.reached(opened[-1])
        caller.picker.reached(opened[-1])
    for picked in opened:
        caller.done(picked)
    caller.now += 2 * SECOND
    caller.calls(20)
    assert caller.picker._books.reached == 0


def test_a_service_that_takes_five_seconds_a_call_is_not_throttled():
    caller = Caller(route(fleet("fra", 4)))
    open_calls = []
    for _ in range(30 * 20):
        caller.wait(50 * MILLISECOND)
        open_calls.append(caller.pick())
        if len(open_calls) > 100:
            caller.done(open_calls.pop(0))


def test_a_service_that_comes_to_hang_is_throttled_though_no_call_ended():
    caller = Caller(route(fleet("fra", 4)))
    caller.calls(100)
    with pytest.raises(Throttled):
        pick_on(caller, 60 * 50, apart=20 * MILLISECOND)


def test_refused_connections_throttle_nobody():
    caller = Caller(route(fleet("fra", 4), THROTTLED))
    for _ in range(60 * 50):
        caller.call(20 * MILLISECOND, Outcome.REFUSED)


# ---- reports that come oddly


def test_done_twice_counts_once():
    caller = Caller(route(fleet("fra", 1)))
    picked, other = caller.pick(), caller.pick()
    for outcome in (Outcome.OK, Outcome.FAILED, Outcome.OK):
        caller.done(picked, MILLISECOND, outcome)
    assert picked.endpoint.pending == 1
    caller.done(other)
    caller.wait(SECOND)
    (told,) = caller.picker.usage(caller.now).outcomes
    assert (told.calls, told.failed) == (2, 0)


@pytest.mark.parametrize("outcome", list(Outcome))
def test_done_after_the_endpoint_left_is_harmless(outcome):
    caller = Caller(route(fleet("fra", 2), ALL))
    open_calls = [caller.pick() for _ in range(40)]
    caller.picker.update(route([instance("fra/b")], ALL), caller.now)
    for picked in open_calls:
        caller.done(picked, MILLISECOND, outcome)
    assert caller.calls(10) == {"fra/b": 10}
    assert all(picked.endpoint.pending == 0 for picked in open_calls)


# ---- a bad clock


@pytest.mark.parametrize("jump", [-HOUR // 10, -1, HOUR, 24 * 365 * HOUR])
def test_a_clock_that_jumps_while_calls_are_under_way_harms_nobody(jump):
    caller = Caller(route(fleet("fra", 4), ALL))
    caller.calls(400)
    open_calls = [caller.pick() for _ in range(40)]
    caller.wait(jump)
    for picked in open_calls:
        caller.done(picked)
    caller.calls(100)
    went = caller.calls(2_000)
    assert min(went.values()) > 250
    assert all(0.0 < endpoint.cost <= 10.0 for endpoint in endpoints(caller).values())


def test_a_call_that_ends_before_it_began_teaches_nothing():
    caller = Caller(route(fleet("fra", 1), ALL))
    caller.call(20 * MILLISECOND)
    picked = caller.pick()
    caller.done(picked, -100 * SECOND)
    assert picked.endpoint.cost == pytest.approx(0.02)
    assert picked.endpoint.samples == pytest.approx([0.02, 0.02])


@pytest.mark.parametrize("back", [1, 10 * SECOND, 20 * SECOND, HOUR // 60 * 10])
def test_a_clock_that_goes_back_to_after_a_call_began_at_most_doubles_its_cost(back):
    caller = Caller(route(fleet("fra", 1), ALL))
    early = caller.pick()
    caller.wait(HOUR)
    caller.call(5 * SECOND)
    caller.wait(-back)
    early.began = caller.now
    caller.done(early, MILLISECOND)
    assert 0.0 < early.endpoint.cost <= 10.0


def test_a_clock_that_goes_back_ends_ejections_rather_than_keeping_them_for_ever():
    caller = Caller(route(fleet("fra", 10), ALL))
    caller.wait(HOUR)
    fail(caller, "fra/a1")
    caller.now = START
    caller.call()
    assert not endpoints(caller)["fra/a1"].ejected_until


def test_usage_asked_in_the_past_says_nothing_and_keeps_what_was_counted():
    caller = Caller(route(fleet("fra", 4)))
    caller.calls(10)
    assert caller.picker.usage(caller.now - HOUR // 60) is None
    assert caller.picker.usage(caller.now - HOUR // 60 + SECOND).offered == pytest.approx(10)


def test_an_age_is_never_negative():
    caller = Caller(route(fleet("fra", 4)))
    assert caller.picker.age(caller.now - SECOND) == 0


def test_a_call_that_lasts_an_hour_is_no_latency_of_an_hour():
    caller = Caller(route(fleet("fra", 4)))
    picked = caller.pick()
    caller.done(picked, HOUR)
    assert picked.endpoint.cost == 10.0
