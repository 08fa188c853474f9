"""The parts of flows by themselves: the waterfill, what it is fed with, what it says, and how an operator wants it."""

import pytest
from msgspec.structs import replace

from dislocate.core.balance.called import answering
from dislocate.core.balance.endpoints import grade, panics, up_weight, usable
from dislocate.core.balance.explain import explain
from dislocate.core.balance.fits import fits_without
from dislocate.core.balance.flows import Place, capacity_of, solve
from dislocate.core.balance.gathering import Gathering, Numbers, backlog, concurrency, endpoint_capacity
from dislocate.core.balance.messages import FlowReport, PlaceTold
from dislocate.core.balance.nearby import nearest_shares
from dislocate.core.balance.picture import Told, picture
from dislocate.core.balance.policies import DEFAULT, Policies, check_policy, decode_policy, encode_policy
from dislocate.core.balance.quality import Qualities, Quality
from dislocate.core.balance.reports import Reports, is_sound
from dislocate.core.balance.smoothing import Smoothing
from dislocate.core.balance.telling import make_report
from dislocate.core.balance.warming import Warming
from dislocate.core.boundary.balance import Algorithm, Eject, FlowRow, Policy, Retries, ServiceFlows, Share, Spill
from dislocate.core.boundary.events import InstanceChanged
from dislocate.core.boundary.store import KeyChange, KeyValue
from dislocate.core.boundary.values import Load, Status
from dislocate.core.boundary.views import InstanceView
from dislocate.core.errors import LocalError
from dislocate.core.identity import NodeId
from dislocate.core.tunables import RECORD_BUDGET
from dislocate.core.units import MILLISECOND, MINUTE, SECOND
from dislocate.core.wire import encoded_size

COSTS = {
    "fra": {"fra": 0, "lon": 20 * MILLISECOND, "wdc": 80 * MILLISECOND},
    "lon": {"fra": 20 * MILLISECOND, "lon": 0, "wdc": 70 * MILLISECOND},
    "wdc": {"fra": 80 * MILLISECOND, "lon": 70 * MILLISECOND, "wdc": 0},
}


def places(**capacities):
    """Three data centers: demand and capacity of each."""
    return [Place(name, *capacities[name]) for name in ("fra", "lon", "wdc")]


def parts(row):
    return {share.datacenter: round(share.share, 3) for share in row.shares}


def instance(name="a1", dc="fra", status=Status.PASSING, load=None, **more):
    given = {"weight": 1, "reachable": True, "suspected": False, **more}
    return InstanceView(
        id="web",
        service="orders.api",
        node=f"{dc}/{name}",
        datacenter=dc,
        address="10.0.0.1",
        port=80,
        status=status,
        tags=(),
        meta={},
        load=load,
        as_of=0,
        **given,
    )


# ---- the waterfill


def test_the_published_example_of_a_skew():
    rows = solve(places(fra=(2400, 2000), lon=(1000, 2000), wdc=(800, 2000)), COSTS, DEFAULT)
    assert rows["fra"].rho == 0.8
    assert parts(rows["fra"]) == {"fra": 0.667, "lon": 0.25, "wdc": 0.083}
    assert parts(rows["lon"]) == {"lon": 1.0}


def test_where_nobody_calls_yet_the_next_request_stays_at_home_though_others_fill_it_with_what_they_spill():
    rows = solve(places(fra=(5000, 2000), lon=(0, 2000), wdc=(0, 2000)), COSTS, DEFAULT)
    assert parts(rows["lon"]) == {"lon": 1.0}


def test_when_much_is_offered_everybody_is_loaded_more_and_equally():
    rows = solve(places(fra=(2400, 800), lon=(1000, 2000), wdc=(800, 2000)), COSTS, DEFAULT)
    assert rows["fra"].rho == pytest.approx(4200 / 4800 + 0.02)
    assert not rows["fra"].overload


def test_a_lower_tier_is_used_up_first_whatever_the_distance():
    policy = Policy(tiers={"fra": 1, "lon": 1})
    rows = solve(places(fra=(100, 2000), lon=(0, 2000), wdc=(0, 90)), COSTS, policy)
    assert parts(rows["fra"]) == {"wdc": 0.72, "fra": 0.28}


def test_traffic_of_a_dead_data_center_goes_elsewhere_under_spill_dead():
    policy = Policy(spill=Spill.DEAD)
    rows = solve(places(fra=(100, 0), lon=(5000, 2000), wdc=(0, 2000)), COSTS, policy)
    assert parts(rows["fra"]) == {"wdc": 1.0}  # lon is full with what may not leave it
    assert parts(rows["lon"]) == {"lon": 1.0}
    assert rows["lon"].overload


def test_who_offers_nothing_yet_knows_where_its_first_request_would_go():
    rows = solve(places(fra=(0, 0), lon=(2000, 2000), wdc=(0, 2000)), COSTS, DEFAULT)
    assert parts(rows["fra"]) == {"wdc": 1.0}  # lon has no room


# ---- the picture


def told(now, *, age=0, demand=0.0, each=100.0, live=3.0, epoch=1, costs=None):
    return Told(Numbers(demand, each, 4.0, live, live, 0.0), epoch, now - age, costs or {})


def draw(now=100 * SECOND, policy=DEFAULT, rtts=None, instances=None, **known):
    views = [instance(f"a{n}", dc) for dc in ("fra", "lon") for n in (1, 2, 3)] if instances is None else instances
    given = {"lon": 20 * MILLISECOND} if rtts is None else rtts
    return picture("fra", views, known, given, policy, lambda living: float(len(living)), now)


def test_a_death_counts_before_its_relay_says_so():
    now = 100 * SECOND
    three = [instance(f"a{n}") for n in (1, 2, 3)] + [instance(f"a{n}", "lon") for n in (1, 2, 3)]
    dead = [replace(one, status=Status.CRITICAL) if one.node in ("lon/a1", "lon/a2") else one for one in three]
    whole = draw(now, instances=three, fra=told(now, demand=500), lon=told(now))
    left = draw(now, instances=dead, fra=told(now, demand=500), lon=told(now))
    assert [place.capacity for place in whole.inputs] == [300, 300]
    assert [place.capacity for place in left.inputs] == [300, 100]


def test_old_word_counts_half_and_half_again():
    now = 100 * SECOND
    for age, part in ((9, 1), (10, 2), (19, 2), (20, 4), (35, 8)):
        seen = draw(now, fra=told(now), lon=told(now, age=age * SECOND, demand=80))
        assert seen.inputs[1].capacity == 300 / part
        assert seen.inputs[1].demand == 80 / part


def test_what_is_out_of_reach_counts_nothing_and_gets_nothing():
    now = 100 * SECOND
    seen = draw(now, rtts={"lon": None}, fra=told(now, demand=900), lon=told(now, age=11 * SECOND, demand=900))
    assert seen.inputs[1].cost is None
    assert parts(seen.row) == {"fra": 1.0}
    assert seen.row.overload


def test_capacity_that_nobody_measured_is_taken_from_another_data_center():
    now = 100 * SECOND
    seen = draw(now, fra=told(now), lon=told(now, each=0.0))
    assert [place.endpoint_capacity for place in seen.inputs] == [100, 100]


def test_a_capacity_that_the_policy_says_is_not_measured():
    now = 100 * SECOND
    seen = draw(now, policy=Policy(capacity=40.0), fra=told(now), lon=told(now, each=0.0))
    assert [(place.endpoint_capacity, place.capacity) for place in seen.inputs] == [(40, 120), (40, 120)]


def test_a_data_center_that_says_far_more_than_the_others_is_believed_in_part():
    now = 100 * SECOND
    views = [instance(f"a{n}", dc) for dc in ("fra", "lon", "wdc") for n in (1, 2, 3)]
    rtts = {"lon": 20 * MILLISECOND, "wdc": 80 * MILLISECOND}
    seen = draw(now, instances=views, rtts=rtts, fra=told(now, each=1e8), lon=told(now), wdc=told(now, each=90.0))
    assert [place.endpoint_capacity for place in seen.inputs] == [1000, 100, 90]
    slow = draw(now, instances=views, rtts=rtts, fra=told(now), lon=told(now), wdc=told(now, each=0.1))
    assert [place.endpoint_capacity for place in slow.inputs] == [100, 100, 0.1], "one may well be slow"


def test_an_absurd_rate_of_one_instance_counts_as_a_few_times_what_its_peers_say():
    honest = [instance(f"a{n}", load=Load(0.3, 2, 30.0)) for n in (1, 2, 3)]
    lie = replace(honest[0], load=Load(0.5, 1, 1e9))
    assert endpoint_capacity(honest) == pytest.approx(100.0)
    assert endpoint_capacity([lie, *honest[1:]]) <= 400.0
    mostly_idle = [replace(one, load=Load(0.05, 1, 4.0)) for one in honest[1:]]
    assert endpoint_capacity([lie, *mostly_idle]) == pytest.approx(800.0), "ten times what those say that idle"


def test_without_any_word_of_load_all_goes_to_the_nearest_that_lives():
    seen = draw(instances=[instance("a1", "lon"), instance("a1", "wdc")], rtts={"lon": 9, "wdc": 8})
    assert (seen.is_known, parts(seen.row)) == (False, {"wdc": 1.0})


def test_a_price_makes_a_near_data_center_far():
    policy = Policy(prices={"lon": 2.0}, price_weight=50 * MILLISECOND)
    instances = [instance("a1", "lon"), instance("a1", "wdc")]
    seen = draw(instances=instances, rtts={"lon": 20 * MILLISECOND, "wdc": 80 * MILLISECOND}, policy=policy)
    assert parts(seen.row) == {"wdc": 1.0}


def test_last_known_good_is_better_than_nothing():
    gone = [instance("a1", "lon", Status.CRITICAL), instance("a1", "wdc", Status.MAINTENANCE)]
    assert parts(draw(instances=gone).row) == {"lon": 1.0}
    assert draw(instances=[]).row.shares == ()


def test_spill_never_names_home_even_when_nothing_lives_there():
    dead = [instance("a1", "fra", Status.CRITICAL), instance("a1", "lon")]
    assert parts(draw(instances=dead, policy=Policy(spill=Spill.NEVER)).row) == {"fra": 1.0}
    assert nearest_shares("fra", dead, Policy(spill=Spill.DEAD), {}) == (Share("lon", 1.0),)


# ---- gathering


def test_what_an_endpoint_carries_is_read_off_those_that_work():
    idle, busy = Load(0.1, 1, 500.0), Load(0.5, 4, 60.0)
    assert endpoint_capacity([instance(load=idle), instance(load=busy)]) == 120.0
    assert concurrency([instance(load=busy, weight=2)]) == 4.0
    assert endpoint_capacity([instance(load=idle), instance()]) == 0.0


def test_a_backlog_is_what_waits_where_all_is_busy():
    assert backlog([instance(load=Load(1.0, 30, 100.0)), instance(load=Load(0.5, 9, 50.0))], 4.0) == 26.0
    assert backlog([instance(load=Load(1.0, 30, 100.0))], 0.0) == 0.0


def test_one_second_of_a_lone_instance_that_lies_is_measured_by_what_was_known():
    gathering = Gathering()
    for number, rate in enumerate((50.0, 50.0, 1e6, 50.0)):
        gathering.second((instance(load=Load(0.5, 2, rate)),), number * SECOND)
    gathering.tell((instance(),), 1.0)
    assert gathering.told.endpoint_capacity == pytest.approx(148.0)  # 100, then 160 for a moment, and on the way back


def test_the_backlog_of_one_takes_away_no_more_than_it_carries_itself():
    absurd, busy = instance(load=Load(1.0, 900_000, 100.0)), instance(load=Load(1.0, 30, 100.0))
    assert backlog([absurd, busy], 4.0, 100.0) == 200.0 + 26.0
    assert capacity_of(100.0, 2.0, backlog([absurd, busy], 4.0, 100.0)) == 87.0


def test_numbers_are_told_when_one_moved_by_a_twentieth():
    gathering = Gathering()
    here = (instance(load=Load(0.5, 4, 60.0)),)
    for second in range(20):
        gathering.offered("fra/a1", 100.0, second * SECOND)
        gathering.second(here, second * SECOND)
        gathering.tell(here, 1.0)
    epoch = gathering.epoch
    gathering.offered("fra/a1", 103.0, 20 * SECOND)
    gathering.second(here, 20 * SECOND)
    assert not gathering.tell(here, 1.0)
    gathering.offered("fra/a1", 200.0, 21 * SECOND)
    gathering.second(here, 21 * SECOND)
    assert gathering.tell(here, 1.0)
    assert (gathering.epoch, round(gathering.told.demand)) == (epoch + 1, 131)


def test_a_host_that_is_silent_for_three_seconds_offers_nothing():
    gathering = Gathering()
    gathering.offered("fra/a1", 100.0, 0)
    gathering.second((), SECOND)
    assert gathering.is_called
    gathering.second((), 4 * SECOND)
    assert not gathering.is_called


# ---- smoothing


def test_a_small_foreign_flow_ends_after_ten_seconds_and_no_sooner():
    smoothing = Smoothing("fra")
    smoothing.step((Share("fra", 0.8), Share("lon", 0.2)), 0, True)
    there = []
    for second in range(1, 16):
        smoothing.step((Share("fra", 1.0),), second * SECOND, False)
        there.append({share.datacenter: share.share for share in smoothing.shares}.get("lon", 0.0))
    assert all(share > 0.015 for share in there[:10])
    assert there[10:] == [0.0] * 5


# ---- endpoints


def test_the_best_grade_counts_and_weight_0_is_out_while_there_are_others():
    good, none = instance("a1"), instance("a2", weight=0)
    bad = instance("a3", status=Status.CRITICAL)
    assert usable([bad, none, good]) == (good,)
    assert usable([bad, none]) == (none,)
    assert usable([bad]) == (bad,)
    assert usable([instance(status=Status.MAINTENANCE)]) == ()
    assert (grade([good]), grade([bad]), grade([])) == (0, 5, 6)


def test_panic_uses_what_its_checks_condemn_but_nothing_that_drains_or_starts():
    good, bad = instance("a1"), [instance(f"a{n}", status=Status.CRITICAL) for n in (2, 3)]
    out = [instance("a4", status=Status.DRAINING), instance("a5", status=Status.STARTING)]
    assert panics([good, *bad, *out])
    assert not panics([good, bad[0], *out])
    assert usable([good, *bad, *out], panic=True) == (good, *bad)
    assert usable(out, panic=True) == (out[0],)


def test_a_fresh_endpoint_grows_from_a_tenth_to_its_weight():
    policy, one = Policy(slow_start=10 * SECOND), instance(weight=20)
    weights = [up_weight(one, 5 * SECOND, at * SECOND, policy) for at in (5, 10, 15, 99)]
    assert weights == [2.0, 10.0, 20.0, 20.0]
    assert up_weight(one, 5, 5, Policy(slow_start=0)) == 20.0


def test_only_what_was_seen_to_come_up_is_warming():
    warming, one, warm = Warming(), instance(), instance("a2")
    warming.start(0)

    def event(before, now):
        return InstanceChanged("fra/a1", "web", "orders.api", now, before, "")

    warming.changed(event(None, Status.PASSING), SECOND)  # it was there before this node
    assert warming.weight([one, warm], 2 * SECOND, DEFAULT) == 2.0
    warming.changed(event(Status.CRITICAL, Status.PASSING), 10 * SECOND)
    assert warming.weight([one, warm], 10 * SECOND, DEFAULT) == pytest.approx(1.1)
    warming.changed(event(Status.PASSING, Status.WARNING), 20 * SECOND)
    assert warming.weight([one, warm], 25 * SECOND, DEFAULT) == pytest.approx(1.5)
    warming.changed(event(Status.WARNING, None), 30 * SECOND)
    warming.changed(event(None, Status.PASSING), 50 * SECOND)
    assert warming.weight([one, warm], 50 * SECOND, DEFAULT) == pytest.approx(1.1)


def test_where_all_are_fresh_nobody_is():
    """A fleet that starts has nobody warmer to spare it anything: counted as a tenth it would be in overload."""
    warming, both = Warming(), [instance(), instance("a2")]
    warming.start(0)
    for owner in ("fra/a1", "fra/a2"):
        warming.changed(InstanceChanged(owner, "web", "orders.api", Status.PASSING, Status.CRITICAL, ""), SECOND)
    assert warming.weight(both, SECOND, DEFAULT) == pytest.approx(2.0)
    assert warming.weight(both, 16 * SECOND, DEFAULT) == pytest.approx(2.0)


def test_shares_of_those_who_cannot_answer_fall_to_the_others():
    shares = (Share("fra", 0.5), Share("lon", 0.3), Share("wdc", 0.2))
    views = [instance("a1", "fra", Status.CRITICAL), instance("a1", "lon"), instance("a1", "wdc", reachable=False)]
    assert answering(shares, views) == (Share("lon", 1.0),)
    assert answering(shares, views[::2]) == ()


# ---- what relays say


def report(**more):
    given = {"relay": NodeId("lon", "a1", 1), "service": "orders.api", "stamp": 1, "epoch": 1, "demand": 10.0}
    numbers = dict.fromkeys(("endpoint_capacity", "concurrency", "live", "weight", "backlog"), 1.0)
    rest = {"places": (PlaceTold("lon", 1, 0, 1.0, 1.0),), "rho": 0.8, "overload": False}
    return FlowReport(**{**given, **numbers, **rest, **more})


def test_the_first_living_relay_counts_while_its_word_is_fresh():
    relays = ["lon/a2", "lon/a1"]
    reports = Reports(lambda _dc: tuple(relays))
    reports.hear(report(), 0)
    reports.hear(report(relay=NodeId("lon", "a2", 1)), SECOND)
    assert reports.first("orders.api", "lon", 2 * SECOND).report.relay.name == "a2"
    relays.remove("lon/a2")
    assert reports.first("orders.api", "lon", 2 * SECOND).report.relay.name == "a1"
    assert reports.first("orders.api", "lon", 3 * SECOND) is None
    assert reports.best("orders.api", "lon", 30 * SECOND).report.relay.name == "a2"


def test_an_older_word_of_the_same_relay_is_no_news():
    reports = Reports(lambda _dc: ("lon/a1",))
    assert reports.hear(report(stamp=5), 0)
    assert not reports.hear(report(stamp=5), 1)
    assert not reports.hear(report(stamp=4), 1)
    assert reports.hear(report(stamp=1, relay=NodeId("lon", "a1", 2)), 1)


def test_a_report_about_a_hundred_data_centers_fits_a_datagram_and_is_sound():
    names = [f"region-{number:03}" for number in range(100)]
    seen = draw(instances=[instance("a1", name) for name in names], rtts=dict.fromkeys(names, SECOND))
    shares = (Share("region-007", 0.75), Share("region-099", 0.25))
    made = make_report(NodeId("fra", "a1", 1), "orders.api", 1, 1, Numbers(), seen, shares)
    assert encoded_size(made) <= RECORD_BUDGET
    assert is_sound(made)
    assert {place.datacenter: place.share for place in made.places if place.share} == {
        "region-007": 0.75,
        "region-099": 0.25,
    }


def test_how_calls_go_is_added_up_over_hosts_and_forgotten_when_nobody_calls():
    calls = Qualities()
    calls.told("web", 90, 0, 0.1, 0)
    calls.told("web", 10, 10, 0.0, 0)
    assert calls.second(SECOND) == {"web": Quality(0.1, 0.1)}
    assert calls.second(9 * SECOND)["web"].errors == pytest.approx(0.1)
    assert calls.second(10 * SECOND) == {"web": Quality()}
    assert calls.second(11 * SECOND) == {}


# ---- would this fit, and why


def service_flows(*, spill=Spill.LOAD, policy=None, **known):
    now = 100 * SECOND
    policy = policy or Policy(spill=spill)
    seen = draw(now, policy=policy, **{name: told(now, demand=demand) for name, demand in known.items()})
    row = FlowRow(
        source="fra",
        shares=seen.row.shares,
        target=seen.row.shares,
        rho=seen.row.rho,
        overload=seen.row.overload,
        computed_by="fra/a1",
        epoch=1,
        as_of=now,
    )
    words = explain(row, seen.inputs, policy, now, is_known=seen.is_known)
    return ServiceFlows(
        service="orders.api", policy=policy, home=row, rows=(row,), inputs=seen.inputs, explanation=words
    )


def test_a_drain_fits_when_the_others_carry_all_of_it():
    assert fits_without(service_flows(fra=100, lon=100), "fra").fits
    refused = fits_without(service_flows(fra=200, lon=100), "fra")
    assert not refused.fits
    assert (
        refused.words == "orders.api: 300 requests a second are offered, lon carries 285 requests a second at 95% load"
    )


def test_a_drain_counts_what_instances_get_from_callers_that_tell_nothing():
    """HAProxy, nginx and whoever asks DNS follow the flows, and report no demand."""
    idle = service_flows(fra=0, lon=0)
    served = {"fra": 200.0, "lon": 100.0}
    busy = replace(idle, inputs=tuple(replace(place, served=served[place.datacenter]) for place in idle.inputs))
    refused = fits_without(busy, "fra")
    assert (refused.fits, refused.demand) == (False, 300.0)
    assert refused.words.startswith("orders.api: 300 requests a second come, whoever sends them, lon carries 285")
    words = explain(idle.home, busy.inputs, idle.policy, 100 * SECOND, is_known=True)
    assert "Instances get 300 req/s, more than callers tell of" in " ".join(words)
    assert "Instances get" not in " ".join(idle.explanation)


def test_a_drain_does_not_fit_where_nobody_else_lives_or_nothing_may_leave():
    here = service_flows(fra=100)
    alone = replace(here, inputs=tuple(place for place in here.inputs if place.datacenter == "fra"))
    assert not fits_without(alone, "fra").fits
    assert not fits_without(service_flows(spill=Spill.NEVER, fra=100, lon=1), "fra").fits


def test_the_explanation_says_what_was_decided_with_numbers():
    text = " ".join(service_flows(fra=300, lon=50).explanation)
    assert "350 req/s are offered in all data centers, which can carry 600 req/s" in text
    assert "fra gets 80%: 300 req/s offered there, 3 endpoints of 100 req/s each carry 300 req/s." in text
    assert "lon gets 20%: cost 20.0 ms" in text


# ---- policies


def test_a_tier_or_price_where_nobody_is_is_said_to_count_for_nothing():
    policy = Policy(tiers={"lon": 1, "mars": 2}, prices={"mars": 0.5, "moon": 1.0}, price_weight=MILLISECOND)
    words = [
        line for line in service_flows(policy=policy, fra=10.0, lon=0.0).explanation if "counts for nothing" in line
    ]
    assert [line.split(":")[0] for line in words] == [
        "mars (tier 2, price 0.5 in the policy)",
        "moon (price 1 in the policy)",
    ]


def test_a_policy_is_read_as_it_was_written():
    policy = Policy(
        spill=Spill.DEAD,
        tiers={"wdc": 1},
        prices={"wdc": 0.5},
        price_weight=2 * MILLISECOND,
        algorithm=Algorithm.HASH,
        slow_start=MINUTE,
        eject=Eject(consecutive=3, base=5 * SECOND),
        retries=Retries(attempts=2),
        hedge=True,
        throttle=0.0,
    )
    text = encode_policy(policy)
    assert b'"slow_start":"60s"' in text or b'"slow_start":"1m"' in text
    assert decode_policy(text) == policy
    assert decode_policy(b"{}") == DEFAULT == decode_policy(encode_policy(DEFAULT))
    assert decode_policy(b'{"timeout": 2000000000}').timeout == 2 * SECOND
    check_policy(DEFAULT)


@pytest.mark.parametrize(
    ("text", "field", "expected"),
    [
        (b'{"spil": "load"}', "spil", "did you mean 'spill'?"),
        (b'{"spill": "laod"}', "spill", "did you mean 'load'?"),
        (b'{"eject": {"consecutiv": 3}}', "eject.consecutiv", "did you mean 'consecutive'?"),
        (b'{"timeout": "5 sec"}', "timeout", "a duration"),
        (b'{"timeout": "0s"}', "timeout", "a duration from 1ms to 1h"),
        (b'{"target_load": 7}', "target_load", "0.05 to 1.0"),
        (b'{"target_load": "much"}', "target_load", "a number"),
        (b'{"target_load": true}', "target_load", "a number"),
        (b'{"aperture": 1.5}', "aperture", "a whole number"),
        (b'{"hedge": 1}', "hedge", "true or false"),
        (b'{"tiers": {"No DC": 1}}', "tiers.No DC", "'-'"),
        (b'{"tiers": {"fra": -1}}', "tiers.fra", "a whole number"),
        (b'{"tiers": ["fra"]}', "tiers", "an object"),
        (b'{"prices": {"fra": -0.5}}', "prices.fra", "a price"),
        (b'{"capacity": -1}', "capacity", "requests a second"),
        (b'{"throttle": 0.5}', "throttle", "1 to 100"),
        (b'{"eject": {"base": "10s", "longest": "1s"}}', "eject.longest", "from 10s"),
        (b'{"retries": {"attempts": 0}}', "retries.attempts", "1 to 20"),
        (b'{"price_weight": "1h", "prices": {"fra": 2}}', "price_weight", "an hour"),
        (b"[]", "policy", "a JSON object"),
        (b"{", "policy", "a JSON object"),
        (b"\xff", "policy", "a JSON object"),
        (b"[" * 9_000, "policy", "a JSON object"),
        (b'{"capacity": 1' + b"0" * 400 + b"}", "capacity", "number"),
        (b" " * 20_000, "policy", "at most"),
    ],
)
def test_a_policy_that_cannot_be_meant_names_the_field_and_the_mend(text, field, expected):
    with pytest.raises(LocalError) as caught:
        decode_policy(text)
    assert caught.value.field == field
    assert expected in caught.value.expected


def test_a_bad_value_keeps_the_last_good_policy_and_a_deleted_one_is_the_default():
    held = {"policy/a": b'{"spill": "never"}'}
    policies = Policies(lambda prefix: [KeyValue(key, held[key], 1, 1, 1) for key in held if key.startswith(prefix)])
    change = (KeyChange("policy/a", 2, None),)
    assert policies.changed(()) == ("a",)
    assert policies.changed(change) == ()
    held["policy/a"] = b"?"
    assert policies.changed((KeyChange("other", 2, None),)) == ()
    assert policies.changed(change) == ("a",)
    assert policies.of("a").spill is Spill.NEVER
    assert policies.problem("a")
    held.clear()
    assert policies.changed(change) == ("a",)
    assert (policies.of("a"), policies.problem("a")) == (DEFAULT, "")
