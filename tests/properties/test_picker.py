"""The picker under any story: routes that come and go, calls that end anyhow, a clock that does what it likes."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from dislocate.core.balance.aperture import pair_table, single_table, window
from dislocate.core.balance.dividing import is_bright
from dislocate.core.balance.ejection import duration, outliers, room
from dislocate.core.balance.errors import NoEndpoint, RetriesSpent, Throttled
from dislocate.core.balance.hashing import Ring, digest
from dislocate.core.balance.latency import CAP, after_error, decay
from dislocate.core.balance.picker import Outcome
from dislocate.core.boundary.balance import Algorithm, Eject, Policy, Retries, Spill
from dislocate.core.boundary.values import Status
from dislocate.core.streams import Streams
from dislocate.core.units import HOUR, MILLISECOND, SECOND
from tests.support.tiny_picker import Caller, fleet, instance, route

DATACENTERS = ("fra", "ams", "wdc")

views = st.builds(
    lambda dc, name, status, weight, reachable, suspected: instance(
        f"{dc}/a{name}", status, weight=weight, reachable=reachable, suspected=suspected
    ),
    st.sampled_from(DATACENTERS),
    st.integers(0, 5),
    st.sampled_from((*[Status.PASSING] * 4, *Status)),
    st.integers(0, 4),
    st.booleans(),
    st.booleans(),
)
policies = st.builds(
    lambda spill, algorithm, aperture, slow_start, consecutive, throttle, hedge: Policy(
        spill=spill,
        algorithm=algorithm,
        aperture=aperture,
        slow_start=slow_start,
        eject=Eject(consecutive=consecutive),
        throttle=throttle,
        hedge=hedge,
    ),
    st.sampled_from(Spill),
    st.sampled_from(Algorithm),
    st.integers(1, 20),
    st.sampled_from((0, 30 * SECOND)),
    st.integers(0, 5),
    st.sampled_from((0.0, 2.0)),
    st.booleans(),
)
shares = st.dictionaries(st.sampled_from(DATACENTERS), st.floats(0.0, 1.0), max_size=3)
routes = st.builds(
    lambda found, policy, parts: route(list({view.node: view for view in found}.values()), policy, **parts),
    st.lists(views, max_size=12),
    policies,
    shares,
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("route"), routes),
        st.tuples(
            st.just("pick"), st.tuples(st.sampled_from(("", "", "a", "b")), st.booleans(), st.booleans(), st.booleans())
        ),
        st.tuples(st.just("done"), st.tuples(st.integers(0, 20), st.sampled_from(Outcome), st.booleans())),
        st.tuples(
            st.just("wait"),
            st.sampled_from((0, 1, MILLISECOND, SECOND, 40 * SECOND, HOUR, -1, -SECOND, -HOUR // 10)),
        ),
        st.tuples(st.just("usage"), st.none()),
    ),
    max_size=60,
)


@given(steps, st.sampled_from(("1", "2")))
def test_whatever_happens_calls_are_counted_and_somebody_is_named_where_somebody_was_ever_known(story, seed):
    caller, open_calls, told = Caller(seed=seed), [], 0.0
    for what, how in story:
        if what == "route":
            caller.picker.update(how, caller.now)
        elif what == "wait":
            caller.now = max(0, caller.now + how)
        elif what == "usage":
            usage = caller.picker.usage(caller.now)
            told += 0 if usage is None else usage.offered
            assert usage is None or (usage.offered >= 0.0 and usage.retries >= 0.0)
            assert usage is None or all(0 <= one.failed <= one.calls and one.p99 >= 0.0 for one in usage.outcomes)
        elif what == "done" and open_calls:
            at, outcome, again = how
            picked = open_calls.pop(at % len(open_calls))
            for _ in range(1 + again):
                caller.done(picked, 0, outcome)
        elif what == "pick":
            open_calls += _pick(caller, *how)
        _check(caller, open_calls)


def _pick(caller, key, excludes_some, excludes_all, is_retry):
    known = list(caller.picker._endpoints)
    exclude = known if excludes_all else known[::2] if excludes_some else ()
    try:
        picked = caller.pick(key=key, exclude=exclude, retry=is_retry)
    except (Throttled, RetriesSpent):
        return []
    except NoEndpoint:
        current = caller.picker.route
        assert (
            current is None
            or current.policy.spill is Spill.NEVER
            or all(view.status is Status.MAINTENANCE for view in current.instances)
        )
        return []
    assert picked.why
    assert picked.endpoint.view.status is not Status.MAINTENANCE
    if picked.endpoint.place.darkness.is_dark and not exclude and not picked.why.startswith("a trial"):
        policy, places = caller.picker.route.policy, caller.picker._places.values()
        assert policy.spill is Spill.NEVER or not any(map(is_bright, places))
    return [picked]


def _check(caller, open_calls):
    in_flight = Counter(id(picked.endpoint) for picked in open_calls)
    for endpoint in caller.picker._endpoints.values():
        assert endpoint.pending == in_flight[id(endpoint)]
        assert 0.0 < endpoint.cost <= CAP * 10.0
    for place in caller.picker._places.values():
        ejected = [endpoint for endpoint in place.members if endpoint.ejected_until]
        assert len(ejected) <= room(len(place.members), caller.picker._policy.eject)
        assert not {id(endpoint) for endpoint in place.drawn} & {id(endpoint) for endpoint in ejected}
        assert bool(place.table) == bool(place.members)
        assert len(place.table) in (0, 1 << place.width)


@given(steps)
def test_the_same_story_is_told_the_same(story):
    def tell():
        caller, open_calls, went = Caller(), [], []
        for what, how in story:
            if what == "route":
                caller.picker.update(how, caller.now)
            elif what == "wait":
                caller.now = max(0, caller.now + how)
            elif what == "usage":
                went.append(repr(caller.picker.usage(caller.now)))
            elif what == "done" and open_calls:
                caller.done(open_calls.pop(how[0] % len(open_calls)), 0, how[1])
            elif what == "pick":
                found = _pick(caller, *how)
                open_calls += found
                went += [picked.endpoint.key + picked.why for picked in found]
        return went

    assert tell() == tell()


@given(st.lists(st.floats(0.02, 1.0), min_size=1, max_size=3), st.integers(0, 1_000), st.integers(0, 300))
def test_any_hundred_picks_in_a_row_follow_any_shares_within_four_points(parts, seed, skipped):
    total = sum(parts)
    wanted = {name: part / total for name, part in zip(DATACENTERS, parts, strict=False)}
    caller = Caller(route([view for name in wanted for view in fleet(name, 3)], **wanted), seed=str(seed))
    caller.calls(skipped)
    went: Counter[str] = Counter(caller.call().partition("/")[0] for _ in range(100))
    assert all(abs(went[name] - 100 * part) <= 4.0 for name, part in wanted.items())


@given(st.lists(st.floats(0.01, 5.0), min_size=1, max_size=60), st.integers(0, 100))
def test_a_table_draws_each_member_as_often_as_its_weight_says(weights, seed):
    members = [object() for _ in weights]
    for table in (
        pair_table(members, weights, Streams(str(seed))["table"]),
        single_table(members, weights),
    ):
        assert len(table) & (len(table) - 1) == 0
        for side in (0, 1):
            drawn = Counter(id(pair[side]) for pair in table)
            for member, weight in zip(members, weights, strict=True):
                exact = weight / sum(weights) * len(table)
                slack = len(table) / 512 + 0.01 * len(table) / len(members)
                assert abs(drawn[id(member)] - exact) <= max(slack, 0.12 * exact)


@given(st.integers(2, 200), st.integers(0, 100))
def test_alike_members_are_hardly_ever_compared_with_themselves(count, seed):
    table = pair_table(list(range(count)), [1.0] * count, Streams(str(seed))["table"])
    assert not [pair for pair in table if pair[0] == pair[1]]


@given(st.lists(st.booleans(), min_size=1, max_size=80), st.floats(0.0, 1.0, exclude_max=True), st.integers(1, 100))
def test_an_aperture_covers_so_many_units_of_those_available_or_all(available, offset, units):
    covered = window(available, offset, units)
    assert all(available[at] and 0.0 < part <= 1.0 for at, part in covered)
    assert len({at for at, _ in covered}) == len(covered)
    there = sum(available)
    # where others are passed over it may come round to where it began, and that one is covered in part only
    assert sum(part for _, part in covered) >= min(units, there) - 1.0 - 1e-6
    assert sum(part for _, part in covered) <= min(units, there) + 1e-6
    assert len(covered) <= min(there, units + 1)


@given(st.integers(1, 60), st.floats(0.0, 2.0), st.integers(1, 9))
def test_never_more_than_half_is_ejected_and_one_may_be_where_there_are_two(endpoints, at_most, times):
    eject = Eject(at_most=at_most)
    assert room(endpoints, eject) <= endpoints / 2
    assert room(endpoints, eject) >= (endpoints > 1)
    lasts = duration(times, eject, Streams(str(times))["ejection"])
    assert 0.8 * min(30 * times, 300) <= lasts / SECOND <= 1.2 * min(30 * times, 300)


@given(st.lists(st.floats(0.0, 1.0), max_size=30), st.floats(0.1, 4.0))
def test_an_outlier_is_worse_than_the_mean_and_never_the_best(ratios, sigma):
    for at in outliers(ratios, sigma):
        assert ratios[at] < sum(ratios) / len(ratios) - 0.04
        assert ratios[at] < max(ratios)


@given(st.lists(st.text(max_size=8), min_size=1, max_size=30, unique=True), st.text(max_size=8), st.data())
def test_a_ring_names_everybody_once_and_a_leaver_changes_nothing_for_the_others(names, key, data):
    ring = Ring([(name, 1.0) for name in names])
    order = [names[at] for at in ring.walk(digest(key))]
    assert sorted(order) == sorted(names)
    gone = data.draw(st.sampled_from(names))
    left = [name for name in names if name != gone]
    if left:
        after = Ring([(name, 1.0) for name in left])
        assert [left[at] for at in after.walk(digest(key))] == [name for name in order if name != gone]


@given(st.integers(1, 50), st.integers(1, 500))
def test_bounded_loads_have_room_for_everything(members, in_flight):
    ring = Ring([(str(at), 1.0) for at in range(members)])
    assert sum(ring.bound(at, in_flight) for at in range(members)) >= in_flight


@given(st.floats(0.0, 1e6), st.floats(0.0, 10.0), st.floats(0.001, 100.0))
def test_an_error_is_dearer_than_before_up_to_a_bound(cost, elapsed, timeout):
    after = after_error(cost, min(elapsed, timeout), timeout)
    assert timeout <= after <= CAP * timeout
    assert after >= min(2.0 * cost, CAP * timeout)


@given(st.floats(0.0, 1e9), st.floats(0.0, 1e9))
def test_decay_goes_down_from_one_and_never_below_nothing(x, y):
    assert 0.0 < decay(x) <= 1.0
    assert x >= y or decay(x) >= decay(y)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=60), st.floats(0.0, 1.0), st.floats(0.0, 20.0))
def test_retries_of_any_ten_seconds_stay_within_what_their_calls_allow(seconds, ratio, per_second):
    policy = Policy(retries=Retries(ratio=ratio, per_second=per_second), throttle=0.0)
    caller = Caller(route(fleet("fra", 3), policy))
    calls, retries = [], []
    for count in seconds:
        caller.calls(count, takes=0)
        made = 0
        while made < 60:
            try:
                caller.call(0, retry=True)
            except RetriesSpent:
                break
            made += 1
        calls.append(count)
        retries.append(made)
        caller.wait(SECOND)
        assert sum(retries[-10:]) <= ratio * sum(calls[-10:]) + 10 * per_second + 1e-9
