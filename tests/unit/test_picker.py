"""Where calls go: shares, two choices, weights, keys, the aperture, and the last known good."""

from collections import Counter

import msgspec
import pytest

from dislocate.core.balance.errors import NoEndpoint
from dislocate.core.balance.picker import Outcome, Picker
from dislocate.core.boundary.balance import Algorithm, Policy, Spill
from dislocate.core.boundary.values import Load, Status
from dislocate.core.streams import Streams
from dislocate.core.units import MILLISECOND, SECOND
from tests.support.tiny_picker import START, Caller, by_datacenter, fleet, instance, route

WIDE = Policy(aperture=1_000)
HASHED = Policy(algorithm=Algorithm.HASH)


def three() -> list:
    return [*fleet("fra", 4), *fleet("ams", 4), *fleet("wdc", 4)]


# ---- shares


@pytest.mark.parametrize("seed", ["1", "2", "3"])
def test_a_hundred_picks_follow_the_shares_within_three_points(seed):
    caller = Caller(route(three(), fra=0.7, ams=0.2, wdc=0.1), seed=seed)
    went = by_datacenter(caller.calls(100))
    assert abs(went["fra"] - 70) <= 3
    assert abs(went["ams"] - 20) <= 3
    assert abs(went["wdc"] - 10) <= 3


def test_shares_that_change_are_followed_at_once_and_nothing_learned_is_lost():
    caller = Caller(route(three(), fra=1.0))
    caller.calls(50)
    costs = {key: endpoint.cost for key, endpoint in caller.picker._endpoints.items()}
    caller.picker.update(route(three(), ams=1.0), caller.now)
    assert {key: endpoint.cost for key, endpoint in caller.picker._endpoints.items()} == costs
    assert by_datacenter(caller.calls(20)) == {"ams": 20}


def test_a_data_center_without_anybody_gives_its_share_to_the_others():
    caller = Caller(route([*fleet("fra", 2), *fleet("ams", 2)], fra=0.5, wdc=0.5))
    assert by_datacenter(caller.calls(20)) == {"fra": 20}


def test_a_death_is_obeyed_before_the_shares_that_follow_from_it():
    caller = Caller(route(three(), fra=1.0))
    dead = [*fleet("fra", 4, status=Status.CRITICAL), *fleet("ams", 4), *fleet("wdc", 4)]
    caller.picker.update(route(dead, fra=1.0), caller.now)
    assert "fra" not in by_datacenter(caller.calls(20))


def test_a_policy_that_never_spills_keeps_calls_at_home_even_with_the_last_known():
    dead = [*fleet("fra", 2, status=Status.CRITICAL), *fleet("ams", 4)]
    caller = Caller(route(dead, Policy(spill=Spill.NEVER), fra=1.0))
    assert by_datacenter(caller.calls(10)) == {"fra": 10}
    assert "nobody better is known: it is critical" in caller.pick().why


def test_a_policy_that_never_spills_says_so_when_home_has_nobody():
    caller = Caller(route(fleet("ams", 4), Policy(spill=Spill.NEVER)))
    with pytest.raises(NoEndpoint, match=r"nobody is in fra, and its policy keeps calls there \(spill = never\)"):
        caller.pick()


@pytest.mark.parametrize("share", [float("nan"), float("inf"), -1.0, 0.0])
def test_a_share_that_makes_no_sense_gets_an_endpoint_all_the_same(share):
    caller = Caller(route(three(), fra=share, ams=share))
    assert sum(caller.calls(10).values()) == 10


def test_the_same_stream_picks_the_same():
    def story(seed):
        caller = Caller(route(three(), fra=0.6, ams=0.4), seed=seed)
        return [caller.call() for _ in range(200)]

    assert story("7") == story("7")
    assert story("7") != story("8")


# ---- two choices


def test_idle_endpoints_alike_get_alike():
    went = Caller(route(fleet("fra", 10), WIDE)).calls(10_000, takes=MILLISECOND)
    assert min(went.values()) > 800
    assert max(went.values()) < 1_200


def test_calls_in_flight_send_others_elsewhere():
    caller = Caller(route(fleet("fra", 10), WIDE))
    caller.calls(100)
    in_flight = Counter(caller.pick().endpoint.node for _ in range(1_000))
    assert max(in_flight.values()) - min(in_flight.values()) <= 10


def test_a_slow_endpoint_gets_little():
    caller = Caller(route(fleet("fra", 5), WIDE))
    went: Counter[str] = Counter()
    for _ in range(2_000):
        picked = caller.pick()
        went[picked.endpoint.node] += 1
        caller.done(picked, (500 if picked.endpoint.node == "fra/a0" else 10) * MILLISECOND)
    assert went["fra/a0"] < 0.05 * 2_000


def test_an_endpoint_that_was_slow_once_is_asked_again():
    caller = Caller(route(fleet("fra", 3), WIDE))
    while caller.pick().endpoint.node != "fra/a0":
        pass
    caller = Caller(route(fleet("fra", 3), WIDE))
    slow = False
    for _ in range(100):
        picked = caller.pick()
        is_slow = picked.endpoint.node == "fra/a0" and not slow
        slow = slow or is_slow
        caller.done(picked, (2_000 if is_slow else 20) * MILLISECOND)
    caller.wait(30 * SECOND)
    assert caller.calls(3_000, takes=20 * MILLISECOND)["fra/a0"] > 300


def test_the_first_answer_does_not_draw_a_crowd_to_those_never_asked():
    caller = Caller(route(fleet("fra", 20), WIDE))
    caller.call(20 * MILLISECOND)
    assert len({endpoint.cost for endpoint in caller.picker._endpoints.values()}) == 1


def test_a_single_endpoint_is_picked_and_reported():
    caller = Caller(route(fleet("fra", 1)))
    assert caller.calls(5) == {"fra/a0": 5}


# ---- weights


@pytest.mark.parametrize("algorithm", [Algorithm.P2C, Algorithm.WEIGHTED])
def test_three_times_the_weight_is_three_times_the_calls(algorithm):
    instances = [instance("fra/a", weight=3), instance("fra/b", weight=1)]
    went = Caller(route(instances, Policy(algorithm=algorithm))).calls(4_000, takes=MILLISECOND)
    assert 2.5 < went["fra/a"] / went["fra/b"] < 3.5


def test_by_weight_alone_latency_decides_nothing():
    caller = Caller(route(fleet("fra", 2), Policy(algorithm=Algorithm.WEIGHTED)))
    went: Counter[str] = Counter()
    for _ in range(2_000):
        picked = caller.pick()
        went[picked.endpoint.node] += 1
        caller.done(picked, (50 if picked.endpoint.node == "fra/a0" else 1) * MILLISECOND)
    assert 0.4 < went["fra/a0"] / 2_000 < 0.6


def test_twice_the_weight_is_twice_the_calls_in_flight():
    caller = Caller(route([instance("fra/a", weight=2), instance("fra/b"), instance("fra/c")]))
    caller.calls(300, takes=MILLISECOND)
    went = Counter(caller.pick().endpoint.node for _ in range(400))
    assert 180 <= went["fra/a"] <= 220


def test_an_endpoint_of_weight_0_is_picked_only_when_alone():
    assert Caller(route([instance("fra/a", weight=0), instance("fra/b")])).calls(50) == {"fra/b": 50}
    assert Caller(route([instance("fra/a", weight=0)])).calls(5) == {"fra/a": 5}


# ---- slow start


def test_a_fresh_endpoint_grows_from_a_tenth_to_its_part():
    caller = Caller(route(fleet("fra", 4), WIDE))
    caller.calls(400)
    caller.picker.update(route(fleet("fra", 5), WIDE), caller.now)
    early = caller.calls(200, takes=10 * MILLISECOND)["fra/a4"]
    caller.wait(40 * SECOND)
    late = caller.calls(2_000, takes=10 * MILLISECOND)["fra/a4"]
    assert early < 0.1 * 200
    assert 0.15 * 2_000 < late < 0.25 * 2_000


def test_a_caller_that_starts_takes_nobody_for_fresh():
    caller = Caller(route(fleet("fra", 4), WIDE))
    caller.call()
    assert {endpoint.inverse for endpoint in caller.picker._endpoints.values()} == {1.0}


def test_one_that_recovers_is_fresh_again():
    caller = Caller(route(fleet("fra", 4), WIDE))
    caller.calls(100)
    sick = [instance("fra/a0", Status.CRITICAL), *fleet("fra", 4)[1:]]
    caller.picker.update(route(sick, WIDE), caller.now)
    assert "fra/a0" not in caller.calls(100)
    caller.picker.update(route(fleet("fra", 4), WIDE), caller.now)
    assert caller.calls(100, takes=MILLISECOND)["fra/a0"] < 10


def test_an_agent_that_restarts_makes_its_instances_no_fresher():
    caller = Caller(route(fleet("fra", 4), WIDE))
    caller.calls(400)
    left = [instance("fra/a0", Status.UNATTENDED), *fleet("fra", 4)[1:]]
    caller.picker.update(route(left, WIDE), caller.now)
    assert "fra/a0" not in caller.calls(100)
    caller.picker.update(route(fleet("fra", 4), WIDE), caller.now)
    assert caller.calls(100, takes=10 * MILLISECOND)["fra/a0"] > 12


# ---- the aperture


def test_a_caller_uses_its_aperture_and_no_more():
    went = Caller(route(fleet("fra", 100))).calls(3_000, takes=MILLISECOND)
    assert 12 <= len(went) <= 13


def test_the_same_name_has_the_same_aperture_and_another_has_another():
    def used(name, seed):
        return set(Caller(route(fleet("fra", 100)), seed=seed, name=name).calls(2_000, takes=MILLISECOND))

    assert used("pid-7", "1") == used("pid-7", "2")
    assert used("pid-7", "1") != used("pid-8", "1")


def test_many_callers_cover_all_endpoints_alike():
    covered: Counter[str] = Counter()
    for at in range(400):
        caller = Caller(route(fleet("fra", 50)), name=f"caller-{at}")
        caller.call()
        for endpoint in caller.picker._first.drawn:
            covered[endpoint.node] += 1
    assert len(covered) == 50
    assert max(covered.values()) < 1.6 * min(covered.values())


def test_a_caller_with_more_load_than_its_aperture_carries_widens_it():
    caller = Caller(route(fleet("fra", 100), Policy(capacity=10.0)))
    caller.calls(2_000, takes=2 * MILLISECOND + 500_000)
    assert len(caller.picker._first.drawn) >= 50


def test_the_capacity_that_instances_say_themselves_widens_it_too():
    busy = fleet("fra", 100, load=Load(utilization=0.5, rate=5.0))
    caller = Caller(route(busy))
    caller.calls(2_000, takes=2 * MILLISECOND + 500_000)
    assert len(caller.picker._first.drawn) >= 50


# ---- keys


def test_a_key_leads_to_the_same_endpoint_for_every_caller():
    one, other = (Caller(route(fleet("fra", 50), HASHED), seed=seed, name=seed) for seed in ("1", "2"))
    for key in map(str, range(50)):
        assert one.call(key=key) == one.call(key=key) == other.call(key=key)


def test_keys_spread_over_all_endpoints():
    caller = Caller(route(fleet("fra", 10), HASHED))
    went = Counter(caller.call(key=str(at)) for at in range(5_000))
    assert len(went) == 10
    assert max(went.values()) < 1.5 * 500


def test_an_endpoint_that_leaves_moves_only_its_own_keys():
    caller = Caller(route(fleet("fra", 10), HASHED))
    before = {key: caller.call(key=key) for key in map(str, range(300))}
    caller.picker.update(route(fleet("fra", 9), HASHED), caller.now)
    after = {key: caller.call(key=key) for key in before}
    assert all(after[key] == node for key, node in before.items() if node != "fra/a9")


def test_a_hot_key_does_not_overfill_its_endpoint():
    caller = Caller(route(fleet("fra", 10), HASHED))
    in_flight = Counter(caller.pick(key="hot").endpoint.node for _ in range(100))
    assert max(in_flight.values()) <= 13  # a quarter above the mean
    assert sum(in_flight.values()) == 100


def test_a_key_keeps_its_data_center_while_the_shares_stay():
    caller = Caller(route(three(), HASHED, fra=0.5, ams=0.5))
    assert all(len({caller.call(key=key) for _ in range(5)}) == 1 for key in map(str, range(40)))


def test_keys_follow_the_shares_taken_together():
    caller = Caller(route(three(), HASHED, fra=0.7, ams=0.3))
    went = by_datacenter(Counter(caller.call(key=str(at)) for at in range(2_000)))
    assert 0.64 < went["fra"] / 2_000 < 0.76


def test_a_key_goes_on_when_its_endpoint_is_excluded_or_ejected():
    caller = Caller(route(fleet("fra", 10), HASHED))
    first = caller.pick(key="k").endpoint
    assert caller.call(key="k", exclude={first.key}) != first.node
    second = caller.call(key="k", exclude=[first.key])
    assert caller.call(key="k", exclude=(first.key,)) == second


# ---- exclusion


def test_an_excluded_endpoint_is_avoided_while_there_are_others():
    caller = Caller(route(fleet("fra", 3)))
    tried = {"fra/a0/1", "fra/a1/1"}
    assert caller.calls(50, exclude=tried) == {"fra/a2": 50}


def test_another_data_center_with_a_share_takes_what_is_excluded_here():
    caller = Caller(route([*fleet("fra", 1), *fleet("ams", 1)], fra=0.99, ams=0.01))
    assert caller.calls(20, exclude={"fra/a0/1"}) == {"ams/a0": 20}


def test_a_data_center_without_a_share_takes_what_is_excluded_everywhere_else():
    views = [*fleet("fra", 2), *fleet("ams", 2)]
    tried = {"fra/a0/1", "fra/a1/1"}
    caller = Caller(route(views, fra=1.0))
    assert by_datacenter(caller.calls(20, exclude=tried)) == {"ams": 20}
    assert by_datacenter(caller.calls(20)) == {"fra": 20}
    assert by_datacenter(Caller(route(views, HASHED, fra=1.0)).calls(20, exclude=tried, key="k")) == {"ams": 20}


def test_a_policy_that_never_spills_tries_again_at_home():
    views = [*fleet("fra", 2), *fleet("ams", 2)]
    caller = Caller(route(views, Policy(spill=Spill.NEVER), fra=1.0))
    assert by_datacenter(caller.calls(20, exclude={"fra/a0/1", "fra/a1/1"})) == {"fra": 20}


def test_loads_that_change_change_no_table():
    caller = Caller(route(fleet("fra", 30)))
    table = caller.picker._first.table
    caller.picker.update(route(fleet("fra", 30, load=Load(utilization=0.5, rate=5.0))), caller.now)
    assert caller.picker._first.table is table


def test_where_all_are_excluded_one_is_tried_again_and_says_so():
    caller = Caller(route(fleet("fra", 2)))
    picked = caller.pick(exclude={"fra/a0/1", "fra/a1/1"})
    assert "all others are excluded too" in picked.why


# ---- nobody


def test_before_a_route_came_the_words_ask_for_the_agent():
    with pytest.raises(NoEndpoint, match="no route has come yet"):
        Caller().pick()


def test_a_service_that_never_was_is_named():
    with pytest.raises(NoEndpoint, match=r"orders\.api: nobody is registered"):
        Caller(route([])).pick()


def test_maintenance_is_obeyed_and_named():
    with pytest.raises(NoEndpoint, match="its instances, 2, are all in maintenance"):
        Caller(route(fleet("fra", 2, status=Status.MAINTENANCE))).pick()


def test_a_retry_for_a_service_without_anybody_says_the_same():
    with pytest.raises(NoEndpoint):
        Caller(route([])).pick(retry=True)


def test_an_empty_route_leaves_the_last_known_good_with_its_age():
    caller = Caller(route(fleet("fra", 2)))
    caller.calls(10)
    caller.picker.update(route([]), caller.now)
    caller.wait(7 * SECOND)
    caller.picker.update(route([]), caller.now)
    picked = caller.pick()
    assert picked.endpoint.node.startswith("fra/")
    assert "last known good, 7 s old" in picked.why
    caller.wait(3600 * SECOND)
    assert "last known good, 3607 s old" in caller.pick().why


def test_who_registers_after_an_empty_route_ends_the_last_known():
    caller = Caller(route(fleet("fra", 2)))
    caller.picker.update(route([]), caller.now)
    caller.picker.update(route([instance("fra/b")]), caller.now)
    assert caller.calls(10) == {"fra/b": 10}
    assert "last known" not in caller.pick().why


def test_the_same_instances_after_an_empty_route_are_themselves_again():
    caller = Caller(route(fleet("fra", 2)))
    caller.calls(10)
    caller.picker.update(route([]), caller.now)
    caller.picker.update(route(fleet("fra", 2)), caller.now)
    assert sum(caller.calls(10).values()) == 10
    assert "last known" not in caller.pick().why


def test_a_route_whose_instances_are_all_critical_is_the_last_known_with_its_age():
    views = fleet("fra", 2, status=Status.CRITICAL, as_of=START - 30 * SECOND)
    assert "nobody better is known: it is critical, told 30 s ago" in Caller(route(views)).pick().why


def test_less_than_half_alive_everywhere_and_checks_are_not_believed():
    views = [*fleet("fra", 1), *(instance(f"fra/b{at}", Status.CRITICAL) for at in range(4))]
    assert len(Caller(route(views)).calls(200, takes=MILLISECOND)) == 5


def test_the_age_of_a_route_is_told_and_a_word_of_the_agent_ends_it():
    caller = Caller(route(fleet("fra", 2)))
    caller.wait(42 * SECOND)
    assert caller.picker.age(caller.now) == 42 * SECOND
    assert "the agent was last heard 42 s ago" in caller.pick().why
    caller.picker.confirm(caller.now)
    assert caller.picker.age(caller.now) == 0
    assert "the agent" not in caller.pick().why


# ---- why


def test_why_names_who_lost_and_the_share():
    why = Caller(route(three(), fra=0.7, ams=0.3)).pick().why
    assert "the better of two: 1 in flight" in why
    assert "of the traffic from fra goes to" in why


# ---- usage


def test_usage_tells_what_began_and_how_it_ended():
    caller = Caller(route(fleet("fra", 2)))
    caller.calls(90, takes=10 * MILLISECOND)
    caller.call(100 * MILLISECOND, Outcome.FAILED)
    usage = caller.picker.usage(caller.now)
    assert usage.service == "orders.api"
    assert usage.offered == pytest.approx(91)
    assert usage.retries == 0
    assert sum(told.calls for told in usage.outcomes) == 91
    assert sum(told.failed for told in usage.outcomes) == 1
    assert all(told.p99 == pytest.approx(0.01) for told in usage.outcomes)
    assert [told.calls for told in usage.outcomes] == sorted((t.calls for t in usage.outcomes), reverse=True)


def test_usage_asked_again_at_once_says_nothing_rather_than_an_absurd_rate():
    caller = Caller(route(fleet("fra", 2)))
    caller.wait(SECOND)
    caller.picker.usage(caller.now)
    caller.calls(10, takes=1)
    assert caller.picker.usage(caller.now) is None
    caller.wait(SECOND)
    assert caller.picker.usage(caller.now).offered == pytest.approx(10)


def test_usage_tells_everything_once():
    caller = Caller(route(fleet("fra", 2)))
    caller.calls(10)
    caller.wait(SECOND)
    assert caller.picker.usage(caller.now) is not None
    caller.wait(SECOND)
    assert caller.picker.usage(caller.now) is None


def test_a_call_that_spans_two_tellings_is_offered_in_the_first_and_ends_in_the_second():
    caller = Caller(route(fleet("fra", 2)))
    picked = caller.pick()
    caller.wait(SECOND)
    first = caller.picker.usage(caller.now)
    caller.done(picked, SECOND)
    second = caller.picker.usage(caller.now)
    assert (first.offered, first.outcomes) == (1.0, ())
    assert (second.offered, second.outcomes[0].calls) == (0.0, 1)


def test_retries_are_told_apart():
    caller = Caller(route(fleet("fra", 2)))
    caller.calls(10, takes=0)
    caller.calls(3, takes=0, retry=True)
    caller.wait(SECOND)
    usage = caller.picker.usage(caller.now)
    assert (usage.offered, usage.retries) == (10.0, 3.0)


def test_demand_that_nobody_serves_is_demand():
    caller = Caller(route([]))
    for _ in range(5):
        with pytest.raises(NoEndpoint):
            caller.pick()
    caller.wait(SECOND)
    assert caller.picker.usage(caller.now).offered == 5.0


def test_calls_to_an_endpoint_that_left_were_offered_all_the_same():
    caller = Caller(route(fleet("fra", 2)))
    caller.calls(10, takes=0)
    caller.picker.update(route([instance("fra/b")]), caller.now)
    caller.calls(10, takes=0)
    caller.wait(SECOND)
    assert caller.picker.usage(caller.now).offered == 20.0


def test_a_cancelled_call_is_told_as_neither():
    caller = Caller(route(fleet("fra", 2)))
    caller.call(outcome=Outcome.CANCELLED)
    caller.wait(SECOND)
    assert caller.picker.usage(caller.now).outcomes == ()


def test_only_the_busiest_are_told():
    caller = Caller(route(fleet("fra", 200), WIDE))
    caller.calls(5_000, takes=MILLISECOND)
    told = caller.picker.usage(caller.now).outcomes
    assert len(told) == 64


def test_an_instance_that_moved_to_another_port_is_another_endpoint():
    caller = Caller(route([instance("fra/a")]))
    old = caller.pick()
    caller.picker.update(route([instance("fra/a", port=81)]), caller.now)
    assert caller.pick().endpoint.port == 81
    caller.done(old)
    assert caller.picker._endpoints["fra/a/1"].pending == 1


# ---- a new picker


def test_a_picker_without_a_name_of_its_caller_lies_anywhere():
    places = {Picker("s", Streams(seed)["picker"])._offset for seed in "abc"}
    assert len(places) == 3


def test_a_hedge_is_off_unless_the_policy_wants_it():
    caller = Caller(route(fleet("fra", 2)))
    caller.calls(300)
    assert caller.picker.hedge_after() is None


def test_a_hedge_waits_for_the_95th_percentile():
    caller = Caller(route(fleet("fra", 2), Policy(hedge=True)))
    assert caller.picker.hedge_after() is None
    for at in range(400):
        caller.call((100 if at % 10 == 0 else 10) * MILLISECOND)
    assert caller.picker.hedge_after() == 100 * MILLISECOND
    caller.picker.update(route(fleet("fra", 2)), caller.now)
    assert caller.picker.hedge_after() is None


def test_a_picked_call_can_be_shown():
    picked = Caller(route(fleet("fra", 2))).pick()
    assert isinstance(picked, msgspec.Struct)
    assert "1 in flight" in repr(picked.endpoint)
