"""Requests in virtual time: queues that behave as theory says, calls that are all accounted for, policies as documented."""

import pytest
from msgspec.structs import replace

from dislocate.core.streams import Streams
from dislocate.core.units import HOUR, MILLISECOND, SECOND
from sim.schedule import Schedule
from sim.traffic.balancer import Call, Setting
from sim.traffic.chances import Exponential, Fixed, Lognormal
from sim.traffic.demand import Diurnal, FlashCrowd, Keys, Steady, next_arrival
from sim.traffic.engine import Traffic
from sim.traffic.measures import by_second, percentile
from sim.traffic.ours import Dislocate
from sim.traffic.peers.common import Budget
from sim.traffic.peers.consul import NearestUntilEmpty
from sim.traffic.peers.envoy import HealthPriority, ZoneAware
from sim.traffic.peers.finagle import PeakEwma
from sim.traffic.peers.oracle import Oracle
from sim.traffic.plan import Moment, Plan
from sim.traffic.station import Answer, Station

POLICIES = (Dislocate, HealthPriority, ZoneAware, PeakEwma, NearestUntilEmpty, Oracle)
SMALL = Plan(
    name="small",
    demand={"a": Steady(120), "b": Steady(120), "c": Steady(120)},
    duration=6 * SECOND,
    warm_up=1 * SECOND,
    instances=2,
    callers=2,
    timeout=2 * SECOND,
    attempt_timeout=2 * SECOND,
)


# ---- stations


class Desk:
    """One station, and what it answered."""

    def __init__(self, **options):
        self.schedule = Schedule()
        self.answers = []
        answered = lambda job, answer: self.answers.append((job, answer, self.schedule.now))  # noqa: E731
        options = {"workers": 1, "service_time": Fixed(10 * MILLISECOND)} | options
        self.station = Station(self.schedule, Streams("1")["station"], answered, **options)


def test_a_station_serves_as_many_at_a_time_as_it_has_workers_and_the_others_wait():
    desk = Desk(workers=2)
    for job in range(4):
        desk.station.receive(job)
    assert (desk.station.busy, desk.station.waiting) == (2, 2)
    desk.schedule.run(SECOND)
    assert [(job, at // MILLISECOND) for job, _, at in desk.answers] == [(0, 10), (1, 10), (2, 20), (3, 20)]
    assert desk.station.take_busy() == 40 * MILLISECOND


def test_a_full_queue_turns_away_at_once():
    desk = Desk(limit=1)
    for job in range(3):
        desk.station.receive(job)
    assert desk.answers == [(2, Answer.TURNED_AWAY, 0)]


def test_who_dies_loses_what_it_had_and_answers_it_once():
    desk = Desk()
    desk.station.receive("served")
    desk.station.receive("waits")
    desk.station.die()
    desk.schedule.run(SECOND)
    assert [answer for _, answer, _ in desk.answers] == [Answer.LOST, Answer.LOST]
    desk.station.start()
    desk.station.receive("new")
    desk.schedule.run(2 * SECOND)
    assert desk.answers[-1][:2] == ("new", Answer.SERVED)


def test_who_is_stopped_answers_nothing_and_all_of_it_after():
    desk = Desk()
    desk.station.receive(1)
    desk.station.receive(2)
    desk.station.stop()
    desk.schedule.run(SECOND)
    assert desk.answers == []
    desk.station.go_on()
    desk.schedule.run(2 * SECOND)
    assert [(job, answer) for job, answer, _ in desk.answers] == [(1, Answer.SERVED), (2, Answer.SERVED)]


def test_a_fast_error_takes_no_worker():
    desk = Desk()
    desk.station.fails = 1.0
    desk.station.receive(1)
    assert desk.station.busy == 0
    desk.schedule.run(SECOND)
    assert desk.answers[0][1] is Answer.FAILED


@pytest.mark.parametrize("kind", [Exponential, Lognormal, Fixed])
def test_service_times_have_the_mean_that_they_say(kind):
    stream = Streams("1")["draws"]
    drawn = [kind(20 * MILLISECOND).draw(stream) for _ in range(20_000)]
    assert sum(drawn) / len(drawn) == pytest.approx(20 * MILLISECOND, rel=0.03)


def test_one_worker_with_poisson_arrivals_waits_as_queueing_theory_says():
    """M/M/1 at 60 %: the mean time in the system is service / (1 - load)."""
    desk = Desk(service_time=Exponential(10 * MILLISECOND))
    begun, stream = {}, Streams("2")["arrivals"]

    def arrive(number, _, __):
        begun[number] = desk.schedule.now
        desk.station.receive(number)
        if number < 20_000:
            desk.schedule.call(next_arrival(Steady(60), 1.0, desk.schedule.now, stream), arrive, number + 1)

    desk.schedule.call(0, arrive, 0)
    desk.schedule.run(HOUR)
    took = [at - begun[job] for job, _, at in desk.answers]
    assert sum(took) / len(took) == pytest.approx(25 * MILLISECOND, rel=0.1)


# ---- demand


def test_a_day_has_its_noon_and_a_crowd_its_climb():
    day = Diurnal(low=10, high=100)
    assert (day.at(12 * HOUR), day.at(0), day.at(24 * HOUR)) == (100, 10, 10)
    crowd = FlashCrowd(rate=10, times=5, begin=10 * SECOND, lasting=20 * SECOND)
    assert [crowd.at(at * SECOND) for at in (9, 11, 12, 29, 31, 32)] == [10, 30, 50, 50, 30, 10]
    assert crowd.peak == 50


def test_arrivals_are_as_many_as_the_rate_says_while_it_changes():
    crowd, stream, now, seen = FlashCrowd(100, 3, 5 * SECOND, 5 * SECOND), Streams("3")["arrivals"], 0, []
    while now < 15 * SECOND:
        now = next_arrival(crowd, 0.5, now, stream)
        seen.append(now)
    assert sum(at < 5 * SECOND for at in seen) == pytest.approx(250, rel=0.2)
    assert sum(7 * SECOND <= at < 10 * SECOND for at in seen) == pytest.approx(450, rel=0.2)


def test_a_hot_key_is_asked_for_as_often_as_it_is_hot():
    stream = Streams("4")["keys"]
    drawn = [Keys(count=100, hot=0.3).draw(stream) for _ in range(5_000)]
    assert drawn.count("k0") / len(drawn) == pytest.approx(0.307, abs=0.03)


# ---- the engine


@pytest.mark.parametrize("policy", POLICIES)
def test_every_call_ends_whatever_dies_meanwhile(policy):
    moments = (
        Moment(time=2 * SECOND, do="kill", datacenter="a", target=(0,)),
        Moment(time=3 * SECOND, do="slow", datacenter="b", factor=3.0),
        Moment(time=3 * SECOND, do="cut", datacenter="b", to="c"),
        Moment(time=4 * SECOND, do="start", datacenter="a", target=(0,)),
    )
    run = Traffic(replace(SMALL, moments=moments), policy, seed=1).run()
    assert run.on_the_way == 0
    assert all(place.load == 0 for place in run.places if not place.station.in_system)
    assert run.measured().calls > 1_000


@pytest.mark.parametrize("policy", POLICIES)
def test_the_same_seed_tells_the_same_story(policy):
    once, again = (Traffic(SMALL, policy, seed=5).run().ends for _ in range(2))
    other = Traffic(SMALL, policy, seed=6).run().ends
    assert once == again != other


def test_a_closed_loop_never_has_more_under_way_than_it_has_users():
    plan = replace(SMALL, users=3, think=5 * MILLISECOND)
    run = Traffic(plan, NearestUntilEmpty, seed=1)
    for at in range(1, 6):
        run.schedule.run(at * SECOND)
        assert run.on_the_way <= 3 * len(run.callers)
    assert run.run().on_the_way == 0


def test_shares_by_second_add_up_to_what_did_not_fail():
    run = Traffic(SMALL, PeakEwma, seed=1).run()
    seconds = by_second(run.ends, SMALL, home=0)
    assert len(seconds) >= 5
    assert all(sum(one.shares) == pytest.approx(1.0) for one in seconds)


def test_a_percentile_is_one_of_the_values():
    assert percentile([MILLISECOND * n for n in range(1, 101)], 0.99) == 100
    assert percentile([], 0.99) == 0.0


# ---- policies


def test_ours_stays_at_home_while_there_is_room_and_leaves_as_much_as_does_not_fit():
    assert Traffic(SMALL, Dislocate, seed=1).run().measured().crossing == 0.0
    skewed = replace(SMALL, demand={"a": Steady(500), "b": Steady(100), "c": Steady(50)}, duration=10 * SECOND)
    run = Traffic(skewed, Dislocate, seed=1)
    run.schedule.run(10 * SECOND)
    shares = {share.datacenter: share.share for share in run.balancer.relays["a"].smoothing.shares}
    assert shares["a"] == pytest.approx(0.8 * 400 / 500, abs=0.1)
    assert shares["b"] > 0.2  # 20 ms away, and a quarter loaded; c is 80 ms away


def test_health_priority_leaves_by_its_formula_and_by_nothing_else():
    skewed = replace(SMALL, demand={"a": Steady(500), "b": Steady(100), "c": Steady(50)})
    assert Traffic(skewed, HealthPriority, seed=1).run().measured().crossing == 0.0
    policy = Traffic(replace(SMALL, instances=10), HealthPriority, seed=1).balancer
    for place in policy.setting.places[:4]:
        place.known = type(place.known).DOWN
    policy.changed(0)
    assert policy._loads["a"] == pytest.approx([0.84, 0.16, 0.0])  # 1.4 * 6 / 10, the rest to the nearest


def test_zone_aware_gives_home_what_its_part_of_all_hosts_is_worth():
    policy = Traffic(replace(SMALL, instances=10), ZoneAware, seed=1).balancer
    for place in policy.setting.places[:6]:
        place.known = type(place.known).DOWN
    policy.changed(0)
    assert policy._weights["a"] == pytest.approx([0.5, 0.25, 0.25])
    assert policy._weights["b"] == pytest.approx([0.0, 1.0, 0.0])


def test_nearest_stays_until_nobody_is_left():
    policy = Traffic(SMALL, NearestUntilEmpty, seed=1).balancer
    caller = policy.setting.callers[0]
    one, other = policy.healthy.all["a"]
    one.known = type(one.known).DOWN
    policy.changed(0)
    assert policy.choose(Call(caller, 0, ""), 0, retry=False) is other
    other.known = type(other.known).DRAINING
    policy.changed(0)
    assert policy.choose(Call(caller, 0, ""), 0, retry=False).datacenter == "b"


def test_peak_ewma_takes_latency_for_all_it_knows():
    crossing = Traffic(SMALL, PeakEwma, seed=1).run().measured().crossing
    assert crossing > 0.3


def test_the_oracle_sees_a_queue_that_nobody_tells():
    run = Traffic(SMALL, Oracle, seed=1)
    first, second = run.places[:2]
    first.load = 50
    assert isinstance(run.balancer.setting, Setting)
    chosen = {run.balancer.choose(Call(run.callers[0], 0, ""), 0, retry=False).key for _ in range(20)}
    assert chosen == {second.key}


def test_a_budget_of_retries_forgets_after_ten_seconds():
    budget = Budget(ratio=0.2, per_second=1.0)
    for _ in range(50):
        budget.begun()
    assert sum(budget.take() for _ in range(100)) == 20
    for _ in range(10):
        budget.second()
    assert sum(budget.take() for _ in range(100)) == 10
