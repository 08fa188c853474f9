"""The waterfill, whatever is asked of it: nothing is lost, nobody is overfilled, and the same inputs make the same rows."""

from hypothesis import assume, example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from dislocate.core.balance.flows import Place, aged, capacity_of, cost_class, is_other_cost, solve, within_reach
from dislocate.core.balance.gathering import backlog, concurrency, endpoint_capacity
from dislocate.core.balance.smoothing import Smoothing, with_probe
from dislocate.core.boundary.balance import Policy, Share, Spill
from dislocate.core.boundary.values import Load, Status
from dislocate.core.boundary.views import InstanceView
from dislocate.core.tunables import BELIEVED, COST_CLASS, FLOW_KEPT, REPORT_HALVES
from dislocate.core.units import MILLISECOND, SECOND

NAMES = ("fra", "gru", "lon", "nrt", "wdc")

rates = st.one_of(st.just(0.0), st.floats(0.01, 1e6))
costs = st.integers(0, 400 * MILLISECOND)
policies = st.builds(
    Policy,
    spill=st.sampled_from(Spill),
    target_load=st.floats(0.3, 1.0),
    tiers=st.dictionaries(st.sampled_from(NAMES), st.integers(0, 2)),
)


@st.composite
def fleets(draw, *, least=1, whole=False):
    """(places, costs): some data centers, and from each to some (or, `whole`, to each) what a request costs."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=least, unique=True))
    places = [Place(name, draw(rates), draw(rates)) for name in names]
    table = {
        source: {name: 0 if source == name else draw(costs if whole else st.none() | costs) for name in names}
        for source in names
    }
    return places, table


def into(rows, name):
    """Requests a second that go to `name`."""
    return sum(flow for row in rows.values() for to, flow in row.flows if to == name)


def near(one, other):
    return abs(one - other) <= 1e-6 * max(1.0, abs(one), abs(other))


@given(fleets(), policies)
def test_all_that_a_source_offers_goes_somewhere_while_it_reaches_anybody(fleet, policy):
    places, table = fleet
    carries = {place.datacenter: place.capacity for place in places}
    rows = solve(places, table, policy)
    for place in places:
        row = rows[place.datacenter]
        reached = [name for name, cost in table[place.datacenter].items() if cost is not None and carries[name] > 0.0]
        if reached or row.shares:
            assert near(sum(share.share for share in row.shares), 1.0)
            assert near(sum(flow for _, flow in row.flows), place.demand)
        assert all(share.share > 0.0 for share in row.shares)


@given(fleets(), policies)
def test_without_overload_nobody_is_given_more_than_its_part(fleet, policy):
    places, table = fleet
    rows = solve(places, table, policy)
    if any(row.overload for row in rows.values()):
        rows = solve([replace(place, demand=place.demand / 1e6) for place in places], table, policy)
    for place in places if not any(row.overload for row in rows.values()) else ():
        rho = rows[place.datacenter].rho
        assert policy.target_load <= rho <= 1.0
        assert into(rows, place.datacenter) <= rho * place.capacity * (1 + 1e-9) + 1e-6


@given(fleets(whole=True), policies)
def test_what_fits_is_no_overload_and_what_does_not_is_spread_by_capacity(fleet, policy):
    places, table = fleet
    demand, capacity = sum(place.demand for place in places), sum(place.capacity for place in places)
    assume(capacity > 0.0 and not near(demand, capacity))
    rows = solve(places, table, replace(policy, spill=Spill.LOAD))
    assert any(row.overload for row in rows.values()) is (demand > capacity)
    if demand > capacity:
        loads = [into(rows, place.datacenter) / place.capacity for place in places if place.capacity > 0.0]
        assert all(near(load, demand / capacity) for load in loads)


@given(fleets(), policies, st.randoms())
def test_the_order_in_which_data_centers_are_named_changes_nothing(fleet, policy, random):
    places, table = fleet
    shuffled = list(places)
    random.shuffle(shuffled)
    mixed = {name: dict(sorted(row.items(), key=lambda _: random.random())) for name, row in table.items()}
    again = solve(shuffled, mixed, policy)
    for name, row in solve(places, table, policy).items():
        assert [share.datacenter for share in row.shares] == [share.datacenter for share in again[name].shares]
        assert all(near(a.share, b.share) for a, b in zip(row.shares, again[name].shares, strict=True))


@given(fleets(whole=True, least=2), st.floats(0.3, 1.0), st.floats(0.0, 0.99), st.data())
def test_who_loses_capacity_is_not_given_more(fleet, target, part, data):
    places, table = fleet
    lossy = data.draw(st.sampled_from(places))
    rest = [replace(place, capacity=place.capacity * part) if place is lossy else place for place in places]
    assume(sum(place.capacity for place in rest) > 0.0)
    policy = Policy(target_load=target)
    before, after = (
        into(solve(places, table, policy), lossy.datacenter),
        into(solve(rest, table, policy), lossy.datacenter),
    )
    assert after <= before * (1 + 1e-6) + 1e-6


@given(fleets(), policies)
def test_what_is_out_of_reach_gets_nothing(fleet, policy):
    places, table = fleet
    for source, row in solve(places, table, policy).items():
        for share in row.shares:
            assert share.datacenter == source or table[source][share.datacenter] is not None


@given(fleets(), st.sampled_from([Spill.NEVER, Spill.DEAD]))
def test_a_policy_that_lets_nothing_out_keeps_everything_at_home(fleet, spill):
    places, table = fleet
    rows = solve(places, table, Policy(spill=spill))
    for place in places:
        if spill is Spill.NEVER or place.capacity > 0.0:
            assert rows[place.datacenter].shares == (Share(place.datacenter, 1.0),)


@given(fleets(whole=True, least=2), st.data())
def test_jitter_within_a_class_of_cost_moves_nothing(fleet, data):
    places, table = fleet
    jittered = {
        source: {
            name: cost if source == name else data.draw(st.integers(_first(cost), _last(cost)))
            for name, cost in row.items()
        }
        for source, row in table.items()
    }
    assert solve(places, table, Policy()) == solve(places, jittered, Policy())


def _first(cost):
    """The least cost of the class of `cost`."""
    low, high = 0, cost
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if cost_class(middle) == cost_class(cost) else (middle + 1, high)
    return low


def _last(cost):
    width = max(COST_CLASS, _first(cost) // 10)
    return _first(cost) + width - 1


@given(costs, costs)
def test_a_class_of_cost_is_a_millisecond_or_a_tenth_wide(one, other):
    if cost_class(one) == cost_class(other):
        assert abs(one - other) < max(COST_CLASS, max(one, other) // 10)
    if not is_other_cost(one, other):
        assert abs(cost_class(one) - cost_class(other)) <= 2


@given(fleets())
def test_who_shares_capacity_is_whoever_is_connected(fleet):
    places, table = fleet
    names = [place.datacenter for place in places]
    for name in names:
        together = within_reach(name, names, table)
        assert name in together
        assert all(within_reach(other, names, table) == together for other in together)


@given(rates, st.floats(0, 1e3), st.floats(0, 1e6), st.integers(0, 10**13))
def test_capacity_is_never_negative_and_age_only_halves_it(each, live, backlog, age):
    whole = capacity_of(each, live, backlog)
    assert 0.0 <= whole <= each * live * (1 + 1e-9)
    assert (whole > 0.0) is (each * live > 0.0)
    assert aged(whole, age) <= whole
    if age < REPORT_HALVES:
        assert aged(whole, age) == whole
    elif age < 2 * REPORT_HALVES:
        assert aged(whole, age) == whole / 2


# ---- smoothing


@st.composite
def rows(draw):
    """Shares that add up to 1."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True))
    parts = [draw(st.integers(1, 1_000)) for _ in names]
    return tuple(Share(name, part / sum(parts)) for name, part in zip(names, parts, strict=True))


@given(st.lists(st.tuples(rows(), st.booleans()), min_size=1, max_size=12))
def test_shares_always_add_up_to_one(steps):
    smoothing = Smoothing("fra")
    for second, (target, at_once) in enumerate(steps):
        smoothing.step(target, second * SECOND, at_once)
        assert near(sum(share.share for share in smoothing.shares), 1.0)
        if at_once:
            assert smoothing.shares == target


@given(rows(), rows())
def test_shares_reach_a_target_that_stays(before, target):
    smoothing = Smoothing("fra")
    smoothing.step(before, 0, True)
    for second in range(1, 11 + FLOW_KEPT // SECOND):
        smoothing.step(target, second * SECOND, False)
    found = {share.datacenter: share.share for share in smoothing.shares}
    assert all(abs(found.get(share.datacenter, 0.0) - share.share) < 0.03 for share in target)
    assert found.keys() <= {share.datacenter for share in target}


@given(rows(), st.floats(0.0, 0.5))
def test_a_probe_takes_its_part_and_no_more(shares, probe):
    probed = with_probe(shares, probe, NAMES)
    assert near(sum(share.share for share in probed), 1.0)
    if len(shares) < len(NAMES) and probe > 0.0:
        assert near(probed[-1].share, probe)
        assert probed[-1].datacenter not in {share.datacenter for share in shares}


# ---- what instances say of their load


def instance(load):
    return InstanceView(
        id="web",
        service="orders.api",
        node="fra/a1",
        datacenter="fra",
        address="10.0.0.1",
        port=80,
        status=Status.PASSING,
        tags=(),
        meta={},
        weight=1,
        load=load,
        as_of=0,
        reachable=True,
        suspected=False,
    )


@st.composite
def honest(draw, least=3):
    """Instances of one program: what one could do differs by less than the factor that is believed."""
    usual = draw(st.floats(1.0, 1e5))
    loads = []
    for _ in range(draw(st.integers(least, 8))):
        utilization, pace = draw(st.floats(0.21, 0.89)), draw(st.floats(1.0, 0.99 * BELIEVED))
        requests = max(1, round(usual * pace * utilization))
        loads.append(Load(utilization, requests, usual * pace * utilization))
    return loads


lies = st.builds(Load, st.floats(0.0, 1.0), st.integers(0, 10**6), st.floats(0.0, 1e12))


@given(honest())
def test_instances_that_tell_the_truth_are_added_up_as_they_are(loads):
    rate, used = 0.0, 0.0
    for load in loads:
        rate += load.rate
        used += load.utilization
    assert endpoint_capacity(map(instance, loads)) == rate / used


PACE_2 = Load(0.5, 1, 1.0)
PACE_1 = Load(0.25, 1, 0.25)


@given(honest(), lies, st.data())
@example([PACE_1, PACE_1, PACE_2, PACE_2], Load(1.0, 0, 8.0), None)
def test_one_that_lies_moves_the_estimate_by_a_stated_factor_at_most(loads, lie, data):
    paces = [load.rate / load.utilization for load in loads]
    told = [*loads, lie]
    at = data.draw(st.permutations(range(len(told)))) if data else range(len(told))
    found = endpoint_capacity(instance(told[where]) for where in at)
    middle = sorted(paces)[len(paces) // 2]  # the lower median of all, where the one that lies is above it
    assert min(paces) / 3 <= found <= BELIEVED * middle * (1 + 1e-9)
    served = [load.in_flight / load.utilization for load in loads]
    assert concurrency(instance(told[where]) for where in at) <= BELIEVED * max(served) * (1 + 1e-9)


@given(honest(least=1), lies)
def test_the_backlog_of_one_that_lies_takes_away_what_it_carries_and_no_more(loads, lie):
    carries = endpoint_capacity(map(instance, loads))
    each = concurrency(map(instance, loads))
    waits = backlog([instance(lie), *map(instance, loads)], each, carries)
    assert capacity_of(carries, len(loads) + 1.0, waits) >= 0.999 * carries * len(loads) or carries < 1.0
