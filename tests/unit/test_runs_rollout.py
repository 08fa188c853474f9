"""What a leader does next about a run, rule by rule."""

import pytest
from msgspec.structs import replace

from dislocate.core.boundary.runs import Direction, Hold, NodeState, RunState, Step
from dislocate.core.boundary.spec import Freeze, Gate, OnFailure
from dislocate.core.runs.control.explain import explain
from dislocate.core.units import HOUR, MINUTE, SECOND
from tests.support.tiny_runs import MONDAY, Watch, instances, picture, said

FLEET = "canary: fra/a1 | fra: fra/a2 fra/a3 | wdc: wdc/b1 wdc/b2"
WEB = Gate(service="web")
QUICK = {"soak": 0, "settle": 0}


def after(run, *looks, **seen):
    """The step after looking again so much later each time."""
    watch = Watch()
    step = watch.look(run, **seen)
    for time in looks:
        step = watch.after(time).look(run, **seen)
    return step


def line(step):
    return None if step is None else said(step)


# ---- going on


def test_the_first_batch_is_opened_at_once():
    assert line(after(picture(FLEET))) == "open fra/a1"


def test_nothing_is_done_before_enough_have_approved_or_after_the_end():
    for state in (RunState.AWAITING, RunState.DONE, RunState.ABORTED):
        assert after(picture(FLEET, state=state)) is None


def test_while_nodes_are_in_flight_there_is_nothing_to_do():
    assert after(picture(FLEET, "fra/a1=started"), "3s") is None


def test_canaries_settle_and_soak_before_their_batch_is_closed():
    run = picture(FLEET, "fra/a1=done", strategy={"soak": 10 * SECOND, "settle": 2 * SECOND})
    assert after(run, "2s", "9s") is None
    assert line(after(run, "2s", "10s")) == "close"


def test_a_batch_in_the_middle_of_a_wave_does_not_soak():
    run = picture("fra: fra/a1 | fra: fra/a2", "fra/a1=done")
    assert line(after(run, "2s")) == "close"


def test_the_last_batch_of_a_wave_soaks():
    run = picture("fra: fra/a1 | wdc: wdc/b1", "fra/a1=done")
    assert after(run, "2s", "9s") is None
    assert line(after(run, "2s", "10s")) == "close"


def test_a_promoted_batch_does_not_soak():
    run = picture(FLEET, "fra/a1=done", promoted=0)
    assert line(after(run, "2s")) == "close"


def test_a_batch_that_changed_nobody_has_nothing_to_watch():
    run = picture(FLEET, "fra/a1=skipped", gates=[WEB])
    assert line(after(run)) == "close"


def test_what_is_to_be_tried_again_comes_before_the_batch():
    run = picture(FLEET, "fra/a1=pending", batch=1, retries=("fra/a1",))
    assert line(after(run)) == "open fra/a1"


def test_the_batch_waits_for_a_node_of_another_one():
    run = picture(FLEET, "fra/a1=started", batch=1)
    assert after(run) is None


def test_after_the_last_batch_the_run_is_done_and_says_without_whom():
    run = picture("fra: fra/a1 fra/a2", "fra/a1=done fra/a2=unreachable", batch=1, budget=1)
    step = after(run, away="fra/a2")
    assert line(step) == "finish: done"
    assert step.words == "1 node done, without fra/a2"


def test_late_joiners_come_before_the_end():
    run = picture("fra: fra/a1", "fra/a1=done", batch=1)
    assert line(after(run, joiners=("fra/a9",))) == "join fra/a9"


# ---- the floor


def test_only_as_many_are_opened_as_the_floor_spares():
    run = picture("fra: fra/a1 fra/a2 fra/a3", strategy={"floor": {"web": 0.6}})
    found = instances("fra/a1 passing, fra/a2 passing, fra/a3 passing")
    assert line(after(run, instances=found)) == "open fra/a1"


def test_a_node_that_reported_just_now_is_not_counted_as_passing_yet():
    found = instances("fra/a1 passing, fra/a2 passing, fra/a3 passing")
    watch = Watch()
    strategy = {"floor": {"web": 0.6}}
    watch.look(picture("fra: fra/a1 fra/a2 fra/a3", "fra/a1=started", strategy=strategy), instances=found)
    run = picture("fra: fra/a1 fra/a2 fra/a3", "fra/a1=done", version=2, strategy=strategy)
    assert watch.after("1s").look(run, instances=found) is None
    assert line(watch.after("2s").look(run, instances=found)) == "open fra/a2"


# ---- nodes out of reach


def test_a_granted_node_that_is_gone_is_unreachable_and_a_started_one_unknown():
    run = picture("fra: fra/a1 fra/a2", "fra/a1=granted fra/a2=started")
    assert after(run, "4s", away="fra/a1 fra/a2") is None
    assert line(after(run, "5s", away="fra/a1 fra/a2")) == "mark fra/a1=unreachable fra/a2=unknown"


def test_a_blip_is_no_absence():
    run, watch = picture("fra: fra/a1", "fra/a1=granted"), Watch()
    watch.look(run, away="fra/a1")
    watch.after("4s").look(run)
    assert watch.after("4s").look(run, away="fra/a1") is None


def test_a_node_that_does_not_report_in_time_is_unknown_though_within_reach():
    run = picture("fra: fra/a1", "fra/a1=started", strategy={"node_within": MINUTE})
    assert after(run, "59s") is None
    assert line(after(run, "1m")) == "mark fra/a1=unknown"


def test_an_unreachable_node_that_is_back_waits_for_its_turn():
    run = picture("fra: fra/a1 fra/a2", "fra/a1=unreachable fra/a2=started", budget=1)
    assert line(after(run)) == "mark fra/a1=pending"


def test_one_whose_batch_was_closed_without_it_comes_before_the_next():
    nodes = "fra/a1=unreachable fra/a2=done fra/a3=done"
    assert line(after(picture(FLEET, nodes, batch=2, budget=1))) == "mark fra/a1=pending"
    run = picture(FLEET, "fra/a2=done fra/a3=done", batch=2, retries=("fra/a1",))
    assert line(after(run)) == "open fra/a1"


def test_nodes_within_reach_are_opened_without_the_others():
    run = picture("fra: fra/a1 fra/a2")
    assert line(after(run, away="fra/a1")) == "open fra/a2"


def test_the_rest_of_a_batch_counts_as_unreachable_once_nothing_else_is_to_be_done():
    run = picture("fra: fra/a1 fra/a2", "fra/a2=started")
    assert after(run, "10s", away="fra/a1") is None
    run = picture("fra: fra/a1 fra/a2", "fra/a2=done")
    assert after(run, "4s", away="fra/a1") is None
    assert line(after(run, "5s", away="fra/a1")) == "mark fra/a1=unreachable"


# ---- the budget


@pytest.mark.parametrize(
    ("on_failure", "does"),
    [(OnFailure.REVERT, "revert"), (OnFailure.PAUSE, "hold: failure"), (OnFailure.ABORT, "finish: failed")],
)
def test_a_budget_spent_by_failures_does_what_the_strategy_says(on_failure, does):
    run = picture(FLEET, "fra/a1=failed", strategy={"on_failure": on_failure})
    assert line(after(run)) == does


def test_a_gate_without_data_that_was_promoted_is_released_for_that_and_not_for_data():
    step = after(picture(FLEET, "fra/a1=done", gates=[WEB], state=RunState.PAUSED, hold=Hold.GATE, promoted=0))
    assert line(step) == "release"
    assert "promoted" in step.words


def test_of_what_a_program_said_the_run_repeats_its_last_line_too():
    run = picture(FLEET, "fra/a1=failed")
    task = replace(run.tasks["fra/a1"], kind="apply", words="web: not ready\nIts log ends: 1\n2")
    step = after(replace(run, tasks={"fra/a1": task}))
    assert step.words == "1 node failed (fra/a1), and none may: fra/a1: apply web: not ready ... 2"


def test_a_budget_spent_by_nodes_out_of_reach_pauses_and_names_them():
    step = after(picture("fra: fra/a1 fra/a2", "fra/a1=unreachable fra/a2=started"), away="fra/a1")
    assert line(step) == "hold: budget"
    assert "1 node failed, out of reach or late (fra/a1), and none may be; it goes on by itself" in step.words
    assert "'dislocate run skip 7 fra/a1'" in step.words


def test_failures_and_absences_together_pause():
    run = picture("fra: fra/a1 fra/a2", "fra/a1=failed fra/a2=unknown", budget=1)
    assert line(after(run, away="fra/a2")) == "hold: budget"


def test_within_the_budget_a_failure_does_not_stop_the_batch():
    run = picture("fra: fra/a1 fra/a2", "fra/a1=failed", budget=1)
    assert line(after(run)) == "open fra/a2"


def test_the_hold_ends_when_the_nodes_are_back():
    run = picture("fra: fra/a1 fra/a2", "fra/a1=unreachable", state=RunState.PAUSED, hold=Hold.BUDGET)
    assert after(run, "1m", away="fra/a1") is None
    assert line(after(run)) == "mark fra/a1=pending"
    run = picture("fra: fra/a1 fra/a2", state=RunState.PAUSED, hold=Hold.BUDGET)
    assert line(after(run)) == "release"


def test_a_node_in_doubt_within_reach_keeps_the_hold_until_it_reports():
    run = picture("fra: fra/a1", "fra/a1=unknown", state=RunState.PAUSED, hold=Hold.BUDGET)
    assert after(run, "1m") is None


def test_nodes_that_come_back_as_failed_end_the_hold_for_what_failures_lead_to():
    assert line(after(picture(FLEET, "fra/a1=failed", state=RunState.PAUSED, hold=Hold.BUDGET))) == "revert"


# ---- holds


def test_a_pause_by_an_operator_or_after_failures_does_not_end_by_itself():
    for hold in (Hold.OPERATOR, Hold.FAILURE, Hold.DEADLINE):
        assert after(picture(FLEET, state=RunState.PAUSED, hold=hold), "1h") is None


def test_marks_go_on_while_it_is_paused():
    run = picture(FLEET, "fra/a1=started", state=RunState.PAUSED, hold=Hold.OPERATOR)
    assert line(after(run, "5s", away="fra/a1")) == "mark fra/a1=unknown"


def test_a_freeze_window_holds_and_its_end_releases():
    night = [Freeze(begin="22:00", end="06:00")]
    watch = Watch(MONDAY + 22 * HOUR)
    step = watch.look(picture(FLEET, freezes=night))
    assert line(step) == "hold: freeze"
    assert step.words == "a freeze window lasts until tue 06:00 UTC; it goes on by itself then"
    held = picture(FLEET, freezes=night, state=RunState.PAUSED, hold=Hold.FREEZE)
    assert watch.after("7h").look(held) is None
    assert line(watch.after("1h").look(held)) == "release"


def frozen(nodes="fra/a1=failed", hold=None, **fields):
    """At night, which is frozen; held already where `hold` says why."""
    state = RunState.RUNNING if hold is None else RunState.PAUSED
    night = [Freeze(begin="22:00", end="06:00")]
    return picture(FLEET, nodes, freezes=night, state=state, hold=hold, **fields)


@pytest.mark.parametrize("hold", [None, Hold.FREEZE])
@pytest.mark.parametrize(
    ("on_failure", "does"),
    [(OnFailure.REVERT, "revert"), (OnFailure.PAUSE, "hold: failure"), (OnFailure.ABORT, "finish: failed")],
)
def test_a_budget_spent_by_failures_counts_in_a_freeze_window_too(hold, on_failure, does):
    run = frozen(hold=hold, strategy={"on_failure": on_failure})
    assert line(Watch(MONDAY + 23 * HOUR).look(run)) == does


@pytest.mark.parametrize("hold", [None, Hold.FREEZE])
def test_a_gate_that_fails_reverts_in_a_freeze_window_too(hold):
    run, watch = frozen("fra/a1=done", hold, gates=[WEB]), Watch(MONDAY + 23 * HOUR)
    ill = instances("fra/a1 critical")
    watch.look(run, instances=ill)
    assert line(watch.after("2s").look(run, instances=ill)) == "revert"


def test_a_freeze_window_holds_a_run_whose_gate_has_no_data_and_nodes_that_are_lost_do_not_revert_it():
    run, watch = frozen("fra/a1=done", Hold.FREEZE, gates=[WEB]), Watch(MONDAY + 23 * HOUR)
    watch.look(run)
    watch.after("2s").look(run)
    assert watch.after("1h").look(run) is None
    assert Watch(MONDAY + 23 * HOUR).look(frozen("fra/a1=unknown", Hold.FREEZE), away="fra/a1") is None


@pytest.mark.parametrize("hold", [Hold.GATE, Hold.DEADLINE])
def test_no_hold_of_the_leader_keeps_what_fails(hold):
    assert line(after(picture(FLEET, "fra/a1=failed", state=RunState.PAUSED, hold=hold))) == "revert"


@pytest.mark.parametrize("hold", [Hold.OPERATOR, Hold.FAILURE])
def test_what_an_operator_is_to_decide_is_left_to_him_though_it_fails(hold):
    assert after(picture(FLEET, "fra/a1=failed", state=RunState.PAUSED, hold=hold), "1h") is None


def test_a_revert_does_not_mind_a_freeze_window():
    night = [Freeze(begin="22:00", end="06:00")]
    run = picture(FLEET, "fra/a1=done", freezes=night, state=RunState.REVERTING, direction=Direction.REVERT)
    assert line(Watch(MONDAY + 23 * HOUR).look(run)) == "open fra/a1"


def test_a_deadline_holds_and_a_resumed_run_has_as_long_again():
    slow = {"deadline": MINUTE, "node_within": HOUR}
    watch, run = Watch(), picture(FLEET, "fra/a1=started", strategy=slow)
    assert watch.look(run) is None
    assert line(watch.after("1m").look(run)) == "hold: deadline"
    watch.look(picture(FLEET, "fra/a1=started", strategy=slow, state=RunState.PAUSED, hold=Hold.DEADLINE, version=2))
    resumed = picture(FLEET, "fra/a1=started", strategy=slow, version=3)
    assert watch.after("10m").look(resumed) is None
    assert line(watch.after("1m").look(resumed)) == "hold: deadline"


# ---- gates


def gated(nodes="fra/a1=done", window=10 * SECOND, **fields):
    strategy = {"soak": 0, **fields.pop("strategy", {})}
    return picture("fra: fra/a1 fra/a2", nodes, gates=[Gate(service="web", window=window)], strategy=strategy, **fields)


def test_a_gate_holds_for_its_window_before_the_batch_is_closed():
    run, well = gated("fra/a1=done fra/a2=done"), instances("fra/a1 passing, fra/a2 passing")
    assert after(run, "2s", "9s", instances=well) is None
    assert line(after(run, "2s", "10s", instances=well)) == "close"


def test_health_does_not_count_before_the_node_has_settled():
    run, ill = gated("fra/a1=done fra/a2=done"), instances("fra/a1 critical, fra/a2 passing")
    assert after(run, "1s", instances=ill) is None
    assert line(after(run, "2s", instances=ill)) == "revert"


def test_a_critical_instance_fails_the_gate_while_others_are_still_in_flight():
    run = gated("fra/a1=done fra/a2=started")
    assert line(after(run, "2s", instances=instances("fra/a1 critical"))) == "revert"


def test_a_starting_instance_has_the_window_to_come_up():
    run, slow = gated("fra/a1=done fra/a2=skipped"), instances("fra/a1 starting")
    assert after(run, "2s", "9s", instances=slow) is None
    assert line(after(run, "2s", "10s", instances=slow)) == "revert"


def test_a_gate_that_flaps_does_not_keep_the_run_for_ever():
    run, watch = gated("fra/a1=done fra/a2=skipped"), Watch()
    steps = []
    for turn in range(20):
        state = "passing" if turn % 2 else "starting"
        steps.append(line(watch.look(run, instances=instances(f"fra/a1 {state}"))))
        watch.after("3s")
    assert steps.index("revert") == 12


@pytest.mark.parametrize("on_failure", [OnFailure.PAUSE, OnFailure.ABORT])
def test_a_failing_gate_pauses_what_is_not_to_be_reverted(on_failure):
    run = gated("fra/a1=done fra/a2=done", strategy={"on_failure": on_failure})
    step = after(run, "2s", instances=instances("fra/a1 critical, fra/a2 passing"))
    assert line(step) == "hold: failure"
    assert "'dislocate run promote 7'" in step.words


def test_no_data_for_a_window_holds_and_data_release():
    run = gated("fra/a1=done fra/a2=done")
    assert after(run, "2s", "9s") is None
    step = after(run, "2s", "10s")
    assert line(step) == "hold: gate"
    assert "there is no web on fra/a1, fra/a2" in step.words
    held = gated("fra/a1=done fra/a2=done", state=RunState.PAUSED, hold=Hold.GATE)
    assert after(held, "2s", "10s") is None
    released = after(held, "2s", "10s", instances=instances("fra/a1 passing, fra/a2 passing"))
    assert (line(released), released.words) == ("release", "the gates have data")


def test_a_promoted_batch_needs_no_gate_and_nobody_says_that_it_has_data():
    held = gated("fra/a1=done fra/a2=done", state=RunState.PAUSED, hold=Hold.GATE, promoted=0)
    step = after(held, "2s", "10s")
    assert (line(step), step.words) == ("release", "an operator promoted it, without what its gates say")
    assert line(after(gated("fra/a1=done fra/a2=done", promoted=0), "2s")) == "close"


def test_a_late_node_without_data_after_the_last_batch_holds_until_somebody_promotes_the_end():
    watch = Watch()
    watch.look(gated("fra/a1=done fra/a2=started", batch=1, retries=("fra/a2",)))
    late = {"nodes": "fra/a1=done fra/a2=done", "batch": 1, "version": 2}
    watch.after("1s").look(gated(**late))
    watch.after("2s").look(gated(**late))
    step = watch.after("10s").look(gated(**late))
    assert line(step) == "hold: gate"
    assert "'dislocate run promote 7'" in step.words
    held = {**late, "version": 3, "promoted": 1}
    assert line(watch.look(gated(**held, state=RunState.PAUSED, hold=Hold.GATE))) == "release"
    assert line(watch.look(gated(**{**held, "version": 4}))) == "finish: done"


def test_a_window_begins_anew_when_another_node_is_judged():
    watch, well = Watch(), instances("fra/a1 passing, fra/a2 passing")
    watch.look(gated("fra/a1=done fra/a2=started"), instances=well)
    watch.after("2s").look(gated("fra/a1=done fra/a2=started"), instances=well)
    both = gated("fra/a1=done fra/a2=done", version=2)
    watch.after("9s").look(both, instances=well)
    watch.after("2s").look(both, instances=well)
    assert watch.after("9s").look(both, instances=well) is None
    assert line(watch.after("1s").look(both, instances=well)) == "close"


# ---- going back


def reverting(nodes, **fields):
    return picture(FLEET, nodes, state=RunState.REVERTING, direction=Direction.REVERT, strategy=QUICK, **fields)


def test_a_revert_grants_what_began_in_this_batch_and_no_other():
    run = reverting("fra/a1=done! fra/a2=failed! fra/a3=pending", batch=1)
    assert line(after(run)) == "open fra/a2"


def test_a_node_that_still_works_is_waited_for_and_then_reverted():
    assert after(reverting("fra/a2=unknown", batch=1), "1h") is None
    assert line(after(reverting("fra/a2=done", batch=1))) == "open fra/a2"


def test_a_failed_revert_does_not_stop_the_others():
    assert line(after(reverting("fra/a2=revert-failed fra/a3=done", batch=1))) == "open fra/a3"
    assert line(after(reverting("fra/a2=revert-failed fra/a3=reverted", batch=1))) == "close"


def test_a_revert_waits_for_who_is_away_and_says_so():
    run = reverting("fra/a2=done fra/a3=reverted", batch=1)
    assert after(run, "1h", away="fra/a2") is None
    assert line(after(run)) == "open fra/a2"
    gone = reverting("fra/a2=unreachable! fra/a3=reverted", batch=1)
    assert "for fra/a2 to be within reach" in explain(gone)
    assert line(after(gone)) == "open fra/a2"


def test_a_batch_that_nobody_began_is_passed_over():
    assert line(after(reverting("", batch=2))) == "close"


def test_what_an_operator_skipped_in_the_revert_stays():
    assert line(after(reverting("fra/a1=skipped!", batch=0))) == "close"


def test_a_revert_keeps_the_floor():
    run = picture(
        "fra: fra/a1 fra/a2",
        "fra/a1=done fra/a2=done",
        state=RunState.REVERTING,
        direction=Direction.REVERT,
        strategy={**QUICK, "floor": {"web": 0.5}},
    )
    assert line(after(run, instances=instances("fra/a1 passing, fra/a2 passing"))) == "open fra/a1"


def test_a_revert_ends_with_what_became_of_it():
    assert line(after(reverting("fra/a1=reverted", batch=-1))) == "finish: reverted"
    step = after(reverting("fra/a1=reverted fra/a2=revert-failed", batch=-1))
    assert line(step) == "finish: revert failed"
    assert step.words.startswith("1 node as before, but not fra/a2")


# ---- in words


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (
            picture(FLEET, state=RunState.AWAITING, strategy={"approvals": 2}),
            "waits for 2 approvals by others than ann: 'dislocate run approve 7'",
        ),
        (picture(FLEET), "batch 1 of 3, canary: waits for fra/a1 to be granted"),
        (
            picture(FLEET, "fra/a2=granted fra/a3=started", batch=1),
            "batch 2 of 3, fra: waits for fra/a2 to begin; for fra/a3 to report",
        ),
        (
            picture(FLEET, "fra/a1=done", gates=[WEB]),
            "batch 1 of 3, canary: its nodes settle and soak and the gates of web are watched",
        ),
        (
            picture(FLEET, "fra/a1=started", state=RunState.PAUSED, hold=Hold.OPERATOR, words="lunch"),
            "batch 1 of 3, canary: held (operator): lunch; 1 node still in flight",
        ),
        (
            reverting("fra/a1=done fra/a2=unknown", batch=1),
            "reverts batch 2 of 3, fra: waits for fra/a2 to report, out of reach or late",
        ),
        (picture(FLEET, state=RunState.DONE, words="5 nodes done"), "5 nodes done"),
    ],
)
def test_a_run_says_what_it_waits_for(run, words):
    assert explain(run) == words


def test_a_run_says_what_the_floor_holds_back():
    run = picture("fra: fra/a1 fra/a2", "fra/a1=started", strategy={"floor": {"web": 0.5}})
    words = explain(run, instances("fra/a1 passing, fra/a2 passing"))
    assert words.endswith("for fra/a2 to be granted (1 of 2 web in fra can be used, and 1 must be: fra/a2 waits)")


def test_every_state_of_a_node_is_counted_by_name():
    assert picture(FLEET, "fra/a1=done").those(NodeState.PENDING) == ("fra/a2", "fra/a3", "wdc/b1", "wdc/b2")


def test_a_revert_says_what_was_left_and_what_was_put_back_over_the_hand_of_somebody():
    run = reverting("fra/a1=reverted fra/a2=reverted fra/a3=reverted", batch=-1, words="reverted by ann")
    left = Step("key color", "left", "color was changed again since, so it was left")
    edited = Step("file /etc/motd", "replaced", "content was replaced; what it was is in /var/x")
    tasks = {
        "fra/a1": replace(run.tasks["fra/a1"], steps=(Step("a", "changed"),)),
        "fra/a2": replace(run.tasks["fra/a2"], steps=(left, edited)),
        "fra/a3": replace(run.tasks["fra/a3"], steps=(left,)),
    }
    step = after(replace(run, tasks=tasks))
    assert line(step) == "finish: reverted"
    assert step.words == (
        "1 node as before; 2 nodes as before but for what was left (fra/a2: key color: color was changed again since, so it "
        "was left, and on 1 more); on 1 node over what was changed since (fra/a2: file /etc/motd: content was replaced; what "
        "it was is in /var/x); reverted by ann"
    )


def test_a_revert_that_failed_says_why_it_was_begun_too():
    run = reverting("fra/a1=revert-failed fra/a2=reverted", batch=-1, words="1 node failed")
    task = replace(run.tasks["fra/a1"], kind="apply", words="reload: exit 1")
    step = after(replace(run, tasks={**run.tasks, "fra/a1": task}))
    assert line(step) == "finish: revert failed"
    assert step.words == "1 node as before, but not fra/a1: fra/a1: apply reload: exit 1; 1 node failed"
