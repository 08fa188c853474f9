"""The rule of scaling over any history: within its bounds, never less while frozen, and never more than it needs."""

from math import ceil

from hypothesis import given
from hypothesis import strategies as st

from dislocate.core.boundary.scaling import ScalePolicy, Survive
from dislocate.core.scaling import FULL, Action, Facts, Track, decide, reversals, survival, wants
from dislocate.core.units import HOUR, SECOND

POLICIES = st.builds(
    lambda least, more, load, reversals, window: ScalePolicy(
        min=least, max=least + more, target_load=load, capacity=100.0, reversals=reversals, down_window=window * SECOND
    ),
    st.integers(0, 5),
    st.integers(1, 60),
    st.floats(0.2, 1.0),
    st.integers(0, 6),
    st.integers(10, 600),
)
STEPS = st.lists(
    st.tuples(
        st.one_of(st.floats(0, 8_000), st.sampled_from([-1.0, float("inf"), float("nan")])),
        st.integers(1, 40),
        st.sampled_from(["", "", "", "frozen", "errors", "old"]),
    ),
    min_size=1,
    max_size=12,
)


@given(POLICIES, STEPS, st.integers(0, 40))
def test_sizes_stay_within_bounds_and_nothing_goes_while_the_picture_is_not_whole(policy, steps, present):
    now, track, actions = HOUR, Track(HOUR), []
    for offered, looks, trouble in steps:
        for _ in range(looks):
            now += 5 * SECOND
            age = 60 * SECOND if trouble == "old" else 0
            facts = Facts(datacenter="fra", offered=offered, errors=0.2 if trouble == "errors" else 0.0, age=age)
            track.observe(now, facts, policy.up_window)
            want = wants(policy, (facts,), {"fra": track.load()}).get("fra")
            frozen = ("a data center is cut off",) if trouble == "frozen" else ()
            verdict = decide(policy, facts, track, want, present, actions=actions, frozen=frozen, now=now)
            assert verdict.reason
            assert verdict.changes is (verdict.desired != present)
            if not verdict.changes:
                continue
            assert policy.min <= verdict.desired <= policy.max
            if verdict.desired < present:
                assert present > policy.max or not trouble
                assert present > policy.max or verdict.desired >= ceil(want.count)
                actions.append(Action(now, present, verdict.desired))
                assert present > policy.max or reversals(actions, now) <= policy.reversals
            else:
                actions.append(Action(now, present, verdict.desired))
                began = next(one.before for one in actions if one.at > now - policy.up_window)
                assert verdict.desired <= max(2 * began, began + 4, policy.min)
            present = verdict.desired


@given(
    st.dictionaries(st.sampled_from("abcde"), st.tuples(st.floats(0, 5_000), st.floats(1, 500)), min_size=2, max_size=5)
)
def test_whichever_data_center_is_lost_the_others_carry_everything(places):
    policy = ScalePolicy(survive=Survive.ONE_DATACENTER)
    loads = {name: load for name, (load, _) in places.items()}
    facts = [Facts(datacenter=name, offered=load, capacity=capacity) for name, (load, capacity) in places.items()]
    found = survival(policy, facts, loads)
    total = sum(loads.values())
    for lost in places:
        carried = sum(found[name][0] * places[name][1] for name in found if name != lost)
        assert not found or carried * FULL >= total * (1 - 1e-9)
