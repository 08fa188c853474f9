"""A data center to which no connection is made: left before the flows say so, tried now and then, and taken back."""

from collections import Counter

import pytest

from dislocate.core.balance.picker import Outcome
from dislocate.core.boundary.balance import Eject, Policy, Spill
from dislocate.core.units import MILLISECOND, SECOND
from tests.support.tiny_picker import START, Caller, fleet, route

OPEN = Policy(eject=Eject(consecutive=0, success_sigma=0.0), throttle=0.0)  # nobody is ejected: it is not about that
BOTH = [*fleet("fra", 4), *fleet("wdc", 4)]


def caller_of(*instances, policy=OPEN, **shares):
    return Caller(route(instances or BOTH, policy, **(shares or {"fra": 0.5, "wdc": 0.5})))


def serve(caller, seconds, outcome=Outcome.REFUSED, dark=("wdc",)):
    """A call each 10 ms; those to `dark` end so.  When calls to wdc, or to `dark`, began: seconds from the first."""
    began, tried = caller.now, []
    while caller.now < began + seconds * SECOND:
        picked = caller.pick()
        where = picked.endpoint.datacenter
        if where in (*dark, "wdc"):
            tried.append((caller.now - began) / SECOND)
        caller.done(picked, 10 * MILLISECOND, outcome if where in dark else Outcome.OK)
    return tried


def test_five_refusals_in_a_row_are_enough_and_trials_become_rare():
    tried = serve(caller_of(), 40)
    assert max(tried[:5]) < 0.2
    assert tried[5:] == pytest.approx([2, 4, 8, 16, 26, 36], abs=0.1)  # at the turn of a second


def test_an_answer_in_between_begins_a_row_anew():
    caller = caller_of()
    for _ in range(10):
        serve(caller, 0.05)
        serve(caller, 0.05, dark=())
    assert len(serve(caller, 1.0, dark=())) > 40


@pytest.mark.parametrize("answer", [Outcome.OK, Outcome.FAILED])
def test_one_that_refuses_among_others_that_answer_is_no_darkness(answer):
    caller = caller_of()
    for _ in range(200):
        picked = caller.pick()
        caller.done(picked, MILLISECOND, Outcome.REFUSED if picked.endpoint.node == "wdc/a1" else answer)
    assert caller.picker._known.dark == ()


def test_timeouts_make_nothing_dark_and_are_no_answer():
    caller = caller_of()
    assert len(serve(caller, 1.0, Outcome.TIMED_OUT)) > 20
    assert caller.picker._known.dark == ()
    for outcome in [Outcome.REFUSED, Outcome.TIMED_OUT] * 5:
        serve(caller, 0.02, outcome)
    assert caller.picker._known.dark == ("wdc",)


def test_a_single_endpoint_can_be_dark_but_one_of_several_cannot():
    alone = caller_of(*fleet("fra", 4), *fleet("wdc", 1))
    serve(alone, 1.0)
    assert alone.picker._known.dark == ("wdc",)
    one_of_two = caller_of(*fleet("fra", 4), *fleet("wdc", 2))
    picked = [
        caller_pick for caller_pick in (one_of_two.pick() for _ in range(60)) if caller_pick.endpoint.node == "wdc/a0"
    ]
    for each in picked[:10]:
        one_of_two.done(each, MILLISECOND, Outcome.REFUSED)
    assert one_of_two.picker._known.dark == ()


def test_who_lives_among_many_that_are_dead_keeps_its_data_center_light():
    caller = caller_of(*fleet("fra", 4), *fleet("wdc", 10))
    for _ in range(400):
        picked = caller.pick()
        is_dead = picked.endpoint.node in {f"wdc/a{at}" for at in range(6)}
        caller.done(picked, 10 * MILLISECOND, Outcome.REFUSED if is_dead else Outcome.OK)
    assert caller.picker._known.dark == ()


@pytest.mark.parametrize("answer", [Outcome.OK, Outcome.FAILED])
def test_an_answer_to_a_trial_gives_the_share_back_within_a_second(answer):
    caller = caller_of()
    serve(caller, 5)
    tried = serve(caller, 5, answer)
    assert tried[0] == pytest.approx(3, abs=0.1)
    assert tried[1] - tried[0] <= 1.1
    assert len(tried) > 40


def test_what_is_said_to_be_reached_again_is_believed_at_once():
    caller = caller_of()
    serve(caller, 1)
    cut = [*fleet("fra", 4), *fleet("wdc", 4, reachable=False)]
    caller.picker.update(route(cut, OPEN, fra=1.0), caller.now)
    assert serve(caller, 30) == []
    caller.picker.update(route(BOTH, OPEN, fra=0.5, wdc=0.5), caller.now)
    assert len(serve(caller, 1, dark=())) > 40


def test_a_row_that_changes_or_an_instance_that_leaves_is_no_news_of_the_way():
    caller = caller_of()
    serve(caller, 1.5, dark=("wdc",))
    caller.picker.update(route([*fleet("fra", 4), *fleet("wdc", 3)], OPEN, fra=0.4, wdc=0.6), caller.now)
    assert caller.picker._known.dark == ("wdc",)
    assert len(serve(caller, 2)) <= 2


def test_where_all_goes_there_others_that_answer_take_it():
    assert len(serve(caller_of(wdc=1.0), 5)) <= 5 + 3


def test_a_policy_that_never_spills_goes_on_trying():
    assert len(serve(caller_of(policy=Policy(spill=Spill.NEVER, throttle=0.0), fra=1.0), 1, dark=("fra",))) == 100


def test_where_everything_is_dark_nothing_is():
    assert len(serve(caller_of(), 3, dark=("fra", "wdc"))) == 300


def test_a_key_goes_elsewhere_and_comes_back():
    caller = caller_of()
    key = next(key for key in map(str, range(100)) if caller.pick(key=key).endpoint.datacenter == "wdc")
    serve(caller, 1)
    assert caller.pick(key=key).endpoint.datacenter == "fra"
    serve(caller, 5, Outcome.OK)
    assert caller.pick(key=key).endpoint.datacenter == "wdc"


def test_calls_that_all_have_keys_try_the_way_too():
    caller = caller_of()
    serve(caller, 1)
    for number in range(500):
        caller.call(10 * MILLISECOND, key=str(number % 50))
    assert caller.picker._known.dark == ()


def test_a_call_tried_again_goes_where_connections_are_made():
    caller = caller_of(*BOTH, *fleet("tok", 2), fra=0.4, wdc=0.4, tok=0.2)
    serve(caller, 1)
    everyone_near = tuple(f"fra/a{at}/1" for at in range(4))
    assert {caller.pick(exclude=everyone_near).endpoint.datacenter for _ in range(50)} == {"tok"}


def test_a_clock_that_goes_back_asks_again_at_once():
    caller = caller_of()
    serve(caller, 20)
    caller.now = START
    assert serve(caller, 1)[0] < 0.5


def test_it_is_said_why():
    caller = caller_of()
    serve(caller, 1.5)
    assert "no connection to wdc was made lately: what goes there goes elsewhere" in caller.pick().why
    caller.now += 30 * SECOND
    assert caller.pick().why.startswith("a trial: no connection to wdc was made lately")


@pytest.mark.parametrize(
    ("shares", "becomes"),
    [
        ({"fra": 0.6, "wdc": 0.3, "tok": 0.1}, {"fra": 0.6, "tok": 0.4}),  # the farthest that has a part has room
        ({"fra": 0.7, "wdc": 0.3}, {"fra": 0.7, "tok": 0.3}),  # who has none is empty
        ({"wdc": 0.9, "fra": 0.1}, {"fra": 0.1, "tok": 0.9}),  # home only takes it where it must
        ({"wdc": 0.98, "sin": 0.02}, {"sin": 0.2, "tok": 0.8}),  # by members: sin has one, tok four
    ],
)
def test_what_is_lost_goes_where_there_is_room(shares, becomes):
    sin = fleet("sin", 1) if "sin" in shares else []
    caller = caller_of(*BOTH, *fleet("tok", 4), *sin, **shares)
    serve(caller, 1.5)
    assert caller.picker._known.dark == ("wdc",)
    went = Counter(caller.call().partition("/")[0] for _ in range(90))
    assert went.pop("wdc", 0) <= 1  # a trial
    assert {name: count / went.total() for name, count in went.items()} == pytest.approx(becomes, abs=0.05)


def test_connections_that_stay_open_are_answers_too():
    caller = caller_of()
    for _ in range(100):
        picked = caller.pick()
        if picked.endpoint.node in ("wdc/a0", "wdc/a1"):
            caller.done(picked, MILLISECOND, Outcome.REFUSED)
        else:
            caller.picker.reached(picked)
    assert caller.picker._known.dark == ()


def test_a_trial_that_is_open_for_ten_seconds_has_its_connection():
    caller = caller_of()
    serve(caller, 1.5)
    caller.now += SECOND
    assert caller.pick().why.startswith("a trial")
    caller.now += 9 * SECOND
    caller.pick()
    assert caller.picker._known.dark == ("wdc",)
    caller.now += 2 * SECOND
    caller.pick()
    assert caller.picker._known.dark == ()
