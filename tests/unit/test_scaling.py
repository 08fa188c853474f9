"""The rule of scaling: grows at once, shrinks with care, says why, and never when the picture is not whole."""

from itertools import pairwise

import pytest

from dislocate.core.boundary.scaling import ScalePolicy, Survive
from dislocate.core.scaling import Action, Facts, Track, decide, down_window, reversals, survival, wants
from dislocate.core.units import HOUR, MINUTE, SECOND

POLICY = ScalePolicy(min=2, max=50, capacity=100.0)
START = 10 * HOUR


class Watched:
    """One data center, looked at each five seconds."""

    def __init__(self, policy=POLICY, present=10):
        self.policy = policy
        self.present = present
        self.now = START
        self.track = Track(START)
        self.actions = []
        self.frozen = ()
        self.last = None

    def see(self, offered, seconds, **facts):
        """The decisions of that time, as (seconds since its begin, desired)."""
        began, made = self.now, []
        while self.now < began + seconds * SECOND:
            self.now += 5 * SECOND
            one = Facts(datacenter="fra", offered=offered, running=self.present, **facts)
            one = self.track.believed(one)
            self.track.observe(self.now, one, self.policy.up_window)
            want = wants(self.policy, (one,), {"fra": self.track.load()}).get("fra")
            self.last = decide(
                self.policy, one, self.track, want, self.present, actions=self.actions, frozen=self.frozen, now=self.now
            )
            if self.last.changes:
                self.actions.append(Action(self.now, self.present, self.last.desired))
                self.present = self.last.desired
                made.append(((self.now - began) // SECOND, self.present))
        return made


def test_more_load_is_answered_within_a_look_and_counts_those_that_boot():
    fleet = Watched()
    assert fleet.see(700.0, 60) == []
    assert fleet.see(1400.0, 60) == [(5, 14), (10, 17), (15, 20)]
    assert (
        "1400 req/s offered, 70 for an instance at 70%: 20 wanted, 17 there" in fleet.last.reason or fleet.present == 20
    )


def test_it_at_most_doubles_or_adds_four_within_a_window():
    fleet = Watched(present=2)
    made = fleet.see(3000.0, 15)
    assert made[-1][1] == 6
    fleet = Watched(present=10)
    assert fleet.see(5000.0, 15)[-1][1] == 20
    fleet.see(5000.0, 30)
    assert fleet.present == 50
    assert fleet.last.desired == 50


def test_it_never_exceeds_the_most_and_says_that_the_rest_spills():
    fleet = Watched(present=40)
    fleet.see(5000.0, 5)
    assert "`max` is 50, the rest spills" in fleet.last.reason


def test_it_shrinks_only_after_a_whole_window_a_fifth_at_a_time():
    fleet = Watched()
    assert fleet.see(140.0, 295) == []
    made = fleet.see(140.0, 600)
    assert [desired for _, desired in made] == [8, 6, 4, 3, 2]
    assert all(later - earlier >= 60 for (earlier, _), (later, _) in pairwise(made))


def test_a_new_leader_takes_nothing_away_before_it_has_watched_for_a_window():
    fleet = Watched()
    fleet.see(140.0, 200)
    assert "not watched for 5m yet" in fleet.last.reason
    assert fleet.present == 10


def test_a_minute_ago_is_no_reason_to_grow_again_after_a_short_window():
    fleet = Watched(ScalePolicy(min=1, max=50, capacity=100.0, down_window=20 * SECOND, pause=5 * SECOND))
    fleet.see(1400.0, 120)
    made = fleet.see(140.0, 120)
    assert [desired for _, desired in made] == sorted((desired for _, desired in made), reverse=True)
    assert fleet.present == 2


def test_one_burst_within_the_window_is_remembered():
    fleet = Watched()
    fleet.see(700.0, 60)
    fleet.see(140.0, 200)
    fleet.see(700.0, 20)
    assert fleet.see(140.0, 280) == []


@pytest.mark.parametrize(
    ("facts", "frozen", "words"),
    [
        ({"errors": 0.06}, (), "6% of calls fail"),
        ({}, ("fra is being drained",), "fra is being drained"),
        ({}, ("config run 7 (web) is under way",), "config run 7 (web) is under way"),
        ({}, ("wdc is out of reach",), "wdc is out of reach"),
    ],
)
def test_nothing_is_taken_away_while_the_picture_is_not_whole_and_the_reason_says_so(facts, frozen, words):
    fleet = Watched()
    fleet.frozen = frozen
    assert fleet.see(140.0, 900, **facts) == []
    assert words in fleet.last.reason
    assert fleet.see(1400.0, 60, **facts)


def test_old_reports_decide_nothing():
    fleet = Watched()
    fleet.see(140.0, 290)
    assert fleet.see(140.0, 900, age=31 * SECOND) == []


def test_silence_after_nothing_is_nothing_and_silence_after_load_is_not():
    fleet = Watched()
    fleet.see(0.4, 60)
    fleet.see(0.0, 900, age=HOUR)
    assert fleet.present == 2


@pytest.mark.parametrize("offered", [-1.0, float("nan"), float("inf"), 1e12])
def test_absurd_load_is_not_seen(offered):
    fleet = Watched()
    fleet.see(700.0, 60)
    assert fleet.see(offered, 600) == []


def test_without_a_known_capacity_only_the_bounds_hold():
    fleet = Watched(ScalePolicy(min=12, max=50))
    assert fleet.see(9000.0, 60) == [(5, 12)]
    assert "set `capacity`" in fleet.last.reason


def test_a_lower_limit_is_obeyed_at_once():
    fleet = Watched(present=60)
    assert fleet.see(3400.0, 5) == [(5, 50)]


def test_the_budget_of_reversals_holds_down_but_never_up():
    fleet = Watched(ScalePolicy(min=2, max=50, capacity=100.0, reversals=2, down_window=MINUTE, pause=10 * SECOND))
    for _ in range(6):
        fleet.see(1400.0, 60)
        assert fleet.present >= 20
        fleet.see(140.0, 300)
    assert reversals(fleet.actions, fleet.now) <= 3
    assert "it turned 2 times within an hour" in fleet.last.reason


def test_a_peak_that_came_back_lengthens_the_window_and_one_that_did_not_leaves_it():
    at = lambda minutes: START + minutes * MINUTE  # noqa: E731 - a short hand for a table
    back = [Action(at(0), 10, 20), Action(at(6), 20, 12), Action(at(9), 12, 20)]
    assert down_window(POLICY, back, at(10)) == 15 * MINUTE
    assert down_window(POLICY, back, at(10) + 6 * HOUR) == 5 * MINUTE
    late = [Action(at(0), 10, 20), Action(at(6), 20, 12), Action(at(30), 12, 20)]
    assert down_window(POLICY, late, at(31)) == 5 * MINUTE
    small = [Action(at(0), 10, 20), Action(at(6), 20, 18), Action(at(9), 18, 20)]
    assert down_window(POLICY, small, at(10)) == 5 * MINUTE


def test_the_others_can_carry_all_whichever_data_center_is_lost():
    policy = ScalePolicy(capacity=100.0, survive=Survive.ONE_DATACENTER)
    loads = {"fra": 800.0, "wdc": 100.0, "tok": 100.0}
    facts = [Facts(datacenter=name, offered=load) for name, load in loads.items()]
    found = survival(policy, facts, loads)
    for lost in loads:
        carried = sum(count for name, (count, _) in found.items() if name != lost) * 100.0
        assert carried * 0.95 >= 1000.0 - 1e-6
    assert found["wdc"][1] == "fra"
    assert survival(policy, facts[:1], loads) == {}


def test_growth_never_waits_for_those_who_freeze_shrinking():
    fleet = Watched()
    fleet.frozen = ("tok is out of reach",)
    fleet.see(700.0, 30)
    assert fleet.see(2000.0, 30)[-1][1] == 29
