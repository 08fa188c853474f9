"""The controller at work: whole runs as transcripts, with leaders that die and nodes that go away."""

import pytest

from dislocate.core.boundary.runs import Hold, RunState, Verb
from dislocate.core.boundary.spec import Freeze, Gate, Join
from dislocate.core.boundary.store import KeyValue
from dislocate.core.outbox import NEVER
from dislocate.core.runs.control import leading
from dislocate.core.runs.steps import JoinNodes
from dislocate.core.units import HOUR, MINUTE, SECOND
from tests.support.tiny_control import TinyRun
from tests.support.tiny_runs import instances, picture

THREE = "canary: fra/a1 | fra: fra/a2 fra/a3 | tok: tok/c1 tok/c2 | wdc: wdc/b1 wdc/b2"
ALL_OF_IT = [
    "open fra/a1",
    "close",
    "open fra/a2 fra/a3",
    "close",
    "open tok/c1 tok/c2",
    "close",
    "open wdc/b1 wdc/b2",
    "close",
    "finish: done",
]
QUICK = {"soak": 0, "settle": 0}


def begun(batches=THREE, **fields):
    return TinyRun(picture(batches, **fields))


def test_a_run_over_three_data_centers():
    assert begun().run("2m") == ALL_OF_IT


def test_it_takes_its_soaks_and_nothing_else():
    """Four soaks, each after a node has settled; the rest is news."""
    run = begun(strategy={"soak": 10 * SECOND, "settle": 2 * SECOND})
    run.run("47s")
    assert run.store.picture().record.state is RunState.RUNNING
    assert run.run("4s")[-1] == "finish: done"


def test_news_wake_it_at_once():
    run = begun(strategy=QUICK)
    assert run.run("0s") == ALL_OF_IT


def test_an_agent_without_runs_arms_no_timer():
    run = begun(strategy=QUICK)
    run.run("1m")
    assert run.out.deadline() == NEVER


def test_one_step_is_under_way_at_a_time():
    run = begun()
    run.run("1s", work=False)
    run.store.steer(Verb.PROMOTE)  # somebody else moves it meanwhile
    run.run("10s", work=False)
    assert run.store.applied[0].nodes == ("fra/a1",)
    assert run.store.refused == []


def test_a_step_that_nothing_came_of_is_proposed_again():
    run = begun()
    run.out.now = run.now
    run._fire()
    assert len(run.store.waiting) == 1
    run.store.waiting.clear()  # lost with the leader of that moment
    assert run.run("1500ms", work=False) == []
    assert run.run("1s", work=False) == ["open fra/a1"]


def test_a_server_that_does_not_lead_says_nothing_until_it_does():
    run = begun()
    run.store.leads = False
    assert run.run("10s") == []
    run.store.leads = True
    assert run.run("1s") == ["open fra/a1"]


def test_an_agent_that_is_no_server_does_nothing():
    run = begun()
    keys, run.store.keys = run.store.keys, None
    run.leading.changed(())
    run.out.now = run.now
    run._fire()
    assert run.out.deadline() == NEVER
    run.store.keys = keys


def test_nothing_is_proposed_before_the_clock_was_read():
    run = begun()
    run.out._clock = None
    assert run.run("5s") == []


def test_what_did_not_change_is_not_decoded_again(monkeypatch):
    decoded = []
    real = leading.decode
    monkeypatch.setattr(leading, "decode", lambda value, type_: decoded.append(type_) or real(value, type_))
    run = begun()
    run.run("1s", work=False)
    decoded.clear()
    run.run("4s", work=False)
    assert decoded == []


@pytest.mark.parametrize(
    "spoilt", ["system/runs/7", "records/runs/7/plan", "records/runs/7/spec", "records/runs/7/nodes/fra/a1"]
)
@pytest.mark.parametrize("value", [b"no record", b"\xff", b"[]"])
def test_what_cannot_be_read_is_left_alone_and_ends_no_agent(spoilt, value):
    run = begun()
    run.store.begin(picture("fra: fra/x1", id="8", strategy=QUICK))
    run.store.keys.put(KeyValue(spoilt, value, 99, 99, 1))
    run.run("5s", work=False)
    assert [step.run for step in run.store.applied] == ["8"]


def test_a_run_without_its_plan_is_left_alone():
    run = begun()
    run.store.keys.remove("records/runs/7/plan")
    assert run.run("5s", work=False) == []


# ---- leaders that die


@pytest.mark.parametrize("time", range(0, 60, 3))
def test_whoever_leads_next_goes_on_wherever_it_was(time):
    run = begun()
    lines = run.run(f"{time}s")
    run.new_leader()
    assert lines + run.run("3m") == ALL_OF_IT


def test_a_new_leader_soaks_anew():
    run = begun(strategy={"soak": 10 * SECOND, "settle": 2 * SECOND})
    assert run.run("11s") == ["open fra/a1"]
    run.new_leader()
    assert run.run("11s") == []
    assert run.run("2s")[:1] == ["close"]


def test_a_leader_that_dies_at_each_step_of_a_revert_changes_nothing_of_it():
    run = begun(strategy=QUICK)
    run.bad["wdc/b1"] = "no such directory"
    lines = []
    for _ in range(40):
        lines += run.run("0s", work=False)
        run.new_leader()
        run.work()
    assert lines == [
        *ALL_OF_IT[:7],
        "revert",
        "open wdc/b1 wdc/b2",
        "close",
        "open tok/c1 tok/c2",
        "close",
        "open fra/a2 fra/a3",
        "close",
        "open fra/a1",
        "close",
        "finish: revert failed",
    ]


# ---- nodes that fail, or go away


def test_a_bad_configuration_is_caught_at_the_canary_and_taken_back():
    run = begun(gates=[Gate(service="web")])
    run.fleet.found = instances("fra/a1 critical, fra/a2 passing")
    assert run.run("1m") == ["open fra/a1", "revert", "open fra/a1", "close", "finish: reverted"]
    because = "a gate fails: 0 of 1 web passing, 1 wanted: fra/a1 critical"
    assert run.store.picture().record.words == f"1 node as before; {because}"


def until_reverting(run):
    lines = []
    while "revert" not in lines:
        lines += run.run("0s", work=False)
        if "revert" not in lines:
            run.work()
    run.bad.clear()
    return lines


def test_a_revert_goes_through_the_batches_in_reverse_order():
    run = begun(strategy=QUICK)
    run.bad["tok/c2"] = "disk full"
    assert until_reverting(run) == [*ALL_OF_IT[:5], "revert", "open tok/c1 tok/c2"]
    assert run.store.picture().record.words == "1 node failed (tok/c2), and none may: tok/c2: apply disk full"
    assert run.run("1m") == ["close", "open fra/a2 fra/a3", "close", "open fra/a1", "close", "finish: reverted"]


def test_a_data_center_that_is_cut_off_before_its_grant_holds_the_run_until_it_heals():
    run = begun(strategy=QUICK)
    run.fleet.away.append("tok/*")
    assert run.run("20s")[-2:] == ["mark tok/c1=unreachable tok/c2=unreachable", "hold: budget"]
    words = run.store.picture().record.words
    assert "tok/c1, tok/c2" in words
    assert "dislocate run skip 7" in words
    run.fleet.away.clear()
    assert run.run("20s") == ["mark tok/c1=pending tok/c2=pending", "release", *ALL_OF_IT[4:]]


def test_one_that_is_cut_off_with_a_grant_is_unreachable_and_one_that_works_unknown():
    run = begun(strategy=QUICK)
    while "open tok/c1 tok/c2" not in run.run("0s", work=False):
        run.work()
    run.work("tok/c1")
    run.fleet.away.append("tok/*")
    assert run.run("20s") == ["mark tok/c2=unreachable tok/c1=unknown", "hold: budget"]
    run.fleet.away.clear()
    lines = run.run("20s")
    assert lines[:2] == ["mark tok/c2=pending", "release"]
    assert lines[-1] == "finish: done"


def test_a_budget_for_those_that_are_away_lets_the_run_go_on_and_they_follow():
    run = begun(budget=2, strategy=QUICK)
    run.fleet.away.append("tok/c1")
    lines = run.run("20s")
    assert "mark tok/c1=unreachable" in lines
    assert lines[-1] == "finish: done"
    assert run.store.picture().record.words == "6 nodes done, without tok/c1"


def test_one_that_is_back_in_time_comes_next_though_its_batch_is_closed():
    run = begun(budget=2, strategy={"settle": 0})
    run.fleet.away.append("tok/c1")
    assert run.run("40s")[4:] == ["open tok/c2", "mark tok/c1=unreachable", "close", "open wdc/b1 wdc/b2"]
    run.fleet.away.clear()
    assert run.run("1m") == ["mark tok/c1=pending", "open tok/c1", "close", "finish: done"]
    assert run.store.picture().record.words == "7 nodes done"


def test_a_revert_waits_for_who_is_away():
    run = begun(strategy=QUICK)
    run.bad["tok/c2"] = "disk full"
    until_reverting(run)
    run.fleet.away.append("fra/a2")
    assert run.run("1m") == ["close", "open fra/a3"]
    run.fleet.away.clear()
    assert run.run("1m") == ["open fra/a2", "close", "open fra/a1", "close", "finish: reverted"]


def test_one_that_is_cut_off_with_its_grant_to_revert_is_granted_again():
    run = begun(strategy=QUICK)
    run.bad["tok/c2"] = "disk full"
    until_reverting(run)
    run.fleet.away.append("tok/c2")
    assert run.run("1m") == ["mark tok/c2=unreachable"]
    run.fleet.away.clear()
    assert run.run("1m")[:2] == ["open tok/c2", "close"]


def test_one_that_is_cut_off_while_it_is_reverted_once_more_is_granted_again():
    run = begun(strategy=QUICK)
    run.bad["tok/c2"] = "disk full"
    until_reverting(run)
    run.bad["tok/c1"] = run.bad["tok/c2"] = "disk gone"
    run.fleet.away.append("fra/a2")
    assert run.run("10s") == ["close", "open fra/a3"]
    run.store.steer(Verb.RETRY, "tok/c2")
    assert run.run("0s", work=False) == ["open tok/c2"]
    run.fleet.away.append("tok/c2")
    assert run.run("1m") == ["mark tok/c2=unreachable"]
    run.fleet.away.clear()
    run.bad.clear()
    assert run.run("1m")[:2] == ["open tok/c2", "open fra/a2"]


def test_one_of_a_later_batch_that_is_skipped_and_tried_again_waits_for_the_canary():
    """Found by `test_a_run_is_controlled_legally_and_comes_to_an_end`."""
    run = begun(strategy={"soak": 10 * SECOND, "settle": 0})
    assert run.run("2s") == ["open fra/a1"]
    run.bad["fra/a3"] = "broken"
    run.store.steer(Verb.SKIP, "fra/a3")
    run.store.steer(Verb.RETRY, "fra/a3")
    assert run.run("7s") == []
    assert run.run("2s")[:4] == ["close", "open fra/a2 fra/a3", "revert", "open fra/a2 fra/a3"]


def test_a_freeze_window_begins_in_the_middle_and_ends():
    run = begun(freezes=[Freeze(begin="00:00", end="01:00")], strategy=QUICK)
    assert run.run("1m") == ["hold: freeze"]
    assert run.store.picture().record.hold is Hold.FREEZE
    run.now += HOUR
    assert run.run("1m") == ["release", *ALL_OF_IT]


def test_harm_that_shows_in_a_freeze_window_is_taken_back_in_it():
    hour = Freeze(begin="00:01", end="01:00")
    run = begun(freezes=[hour], gates=[Gate(service="web")], strategy={**QUICK, "soak": 2 * MINUTE})
    run.fleet.found = instances("fra/a1 passing, fra/a2 passing")
    assert run.run("90s") == ["open fra/a1", "hold: freeze"]
    run.fleet.found = instances("fra/a1 critical, fra/a2 passing")
    assert run.run("1m") == ["revert", "open fra/a1", "close", "finish: reverted"]


def test_the_floor_makes_more_turns_of_one_batch():
    run = begun("fra: fra/a1 fra/a2 fra/a3 fra/a4", strategy={**QUICK, "floor": {"web": 0.75}})
    run.fleet.found = instances("fra/a1 passing, fra/a2 passing, fra/a3 passing, fra/a4 passing")
    assert run.run("1m") == [*(f"open fra/a{n}" for n in (1, 2, 3, 4)), "close", "finish: done"]


# ---- nodes that come late


def late(join, refuses=()):
    run = begun(strategy={**QUICK, "join": join, "batch": 1})
    run.store.refuses = refuses
    run.fleet.fitting = ("fra/a1", "fra/a8", "fra/a9", "wdc/b9")
    run.fleet.away.append("wdc/b9")
    return run.run("1m")


def test_late_joiners_get_batches_of_their_own_before_the_end():
    lines = late(Join.APPLY)
    assert lines[8:] == [
        "join fra/a8",
        "open fra/a8",
        "close",
        "join fra/a9",
        "open fra/a9",
        "close",
        "finish: done",
    ]


def test_a_joiner_that_is_refused_time_after_time_does_not_keep_the_run():
    assert late(Join.APPLY, refuses=(JoinNodes,)) == ALL_OF_IT


def test_a_node_that_another_run_is_about_does_not_join():
    run = begun("fra: fra/a1", strategy={**QUICK, "join": Join.APPLY})
    run.store.begin(picture("fra: fra/a8", id="8", state=RunState.AWAITING))
    run.fleet.fitting = ("fra/a1", "fra/a8")
    assert run.run("1m") == ["open fra/a1", "close", "finish: done"]


def test_late_joiners_are_ignored_where_the_strategy_says_so():
    assert late(Join.IGNORE) == ALL_OF_IT


# ---- several runs


def test_runs_are_controlled_side_by_side():
    run = begun(strategy=QUICK)
    other = picture("fra: fra/x1", id="8", strategy=QUICK)
    run.store.begin(other)
    run.run("1s", work=False)
    assert [(step.run, step.nodes) for step in run.store.applied] == [("7", ("fra/a1",)), ("8", ("fra/x1",))]
