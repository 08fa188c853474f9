"""What each data center is to have instances for, as the flows tell it."""

import pytest

from dislocate.core.boundary.balance import FlowRow, PlaceInput, Policy, ServiceFlows, Share
from dislocate.core.boundary.scaling import ProcessDriver, ScalePolicy
from dislocate.core.boundary.values import Load, Status
from dislocate.core.scale.facts import counts_of, facts_of, scaled_datacenters
from dislocate.core.units import SECOND
from tests.support.fake_backend import instance

NOW = 1_000 * SECOND
POLICY = ScalePolicy(max=10, capacity=100.0)  # 700 req/s in a data center


def place(name, demand, capacity=0.0, age=1.0, epoch=3, served=0.0):
    return PlaceInput(
        served=served,
        datacenter=name,
        epoch=epoch,
        demand=demand,
        endpoint_capacity=capacity,
        live=4.0,
        backlog=0.0,
        capacity=400.0,
        cost=0.0,
        tier=0,
        as_of=NOW - round(age * SECOND),
    )


def row(source, **shares):
    told = tuple(Share(name, share) for name, share in shares.items())
    return FlowRow(
        source=source, shares=told, target=told, rho=0.8, overload=False, computed_by=f"{source}/a1", epoch=1, as_of=NOW
    )


def flows(*places, rows=()):
    rows = rows or tuple(row(one.datacenter, **{one.datacenter: 1.0}) for one in places)
    return ServiceFlows(service="api", policy=Policy(), home=rows[0], rows=rows, inputs=places, explanation=())


def offered(policy, names, told):
    return {one.datacenter: round(one.offered) for one in facts_of(policy, names, told, (), NOW)}


def test_what_spills_counts_where_its_callers_are():
    told = flows(place("fra", 500.0), place("wdc", 100.0), rows=(row("fra", fra=0.6, wdc=0.4), row("wdc", wdc=1.0)))
    assert offered(POLICY, ("fra", "wdc"), told) == {"fra": 500, "wdc": 100}


def test_what_can_never_fit_at_home_counts_where_it_goes():
    told = flows(place("fra", 900.0), place("wdc", 100.0), rows=(row("fra", fra=0.7, wdc=0.3), row("wdc", wdc=1.0)))
    assert offered(POLICY, ("fra", "wdc"), told) == {"fra": 700, "wdc": 300}
    assert offered(POLICY, ("fra",), flows(place("fra", 900.0))) == {"fra": 900}


def test_callers_of_a_place_that_is_not_scaled_count_where_they_are_sent():
    told = flows(place("fra", 100.0), place("tok", 200.0), rows=(row("fra", fra=1.0), row("tok", fra=0.5, wdc=0.5)))
    assert offered(POLICY, ("fra", "wdc"), told) == {"fra": 200, "wdc": 100}


def test_capacity_that_is_not_measured_here_is_the_least_that_is_elsewhere():
    told = flows(place("fra", 100.0), place("wdc", 100.0, capacity=80.0), place("tok", 9.0, capacity=60.0))
    (fra, wdc) = facts_of(ScalePolicy(), ("fra", "wdc"), told, (), NOW)
    assert (fra.capacity, wdc.capacity) == (60.0, 80.0)


@pytest.mark.parametrize(
    ("told", "age"),
    [
        (flows(place("fra", 100.0, age=40.0)), 40 * SECOND),
        (flows(place("fra", 0.0, age=40.0)), 0),
        (flows(place("wdc", 100.0, age=2.0)), 2 * SECOND),
        (flows(place("fra", 0.0, epoch=0), place("wdc", 100.0, age=2.0)), 2 * SECOND),
        (flows(place("fra", 0.0, epoch=0)), 1 << 60),
    ],
)
def test_silence_is_nobody_only_where_somebody_else_is_heard(told, age):
    (fra,) = facts_of(POLICY, ("fra",), told, (), NOW)
    assert fra.age == age


def test_errors_are_those_of_the_instances_there_by_how_many_calls_they_have():
    both = (
        instance("api", "a", load=Load(0.5, 1, 90.0, 0.0, 0.1)),
        instance("api", "b", load=Load(0.5, 1, 10.0, 1.0, 0.0)),
        instance("api", "c", datacenter="wdc", node="wdc/b1", load=Load(0.5, 1, 10.0, 1.0, 0.0)),
    )
    (fra,) = facts_of(POLICY, ("fra",), flows(place("fra", 100.0)), both, NOW)
    assert fra.errors == pytest.approx(0.1)


def test_processes_of_others_do_not_count_for_driver_process_and_those_that_go_for_nobody():
    there = (
        instance("api", "api-1", meta={"process": "api"}),
        instance("api", "api-2", meta={"process": "api"}, status=Status.DRAINING),
        instance("api", "hand", node="fra/a2"),
    )
    driven = ScalePolicy(driver=ProcessDriver(run=("x",)))
    assert counts_of(driven, there, "fra") == {"fra/a1": 1}
    assert counts_of(POLICY, there, "fra") == {"fra/a1": 1, "fra/a2": 1}


def test_it_is_scaled_where_it_is_named_else_where_it_is_or_may_be():
    assert scaled_datacenters(ScalePolicy(datacenters=("tok",)), {}, (instance("api", "a"),), ()) == ("tok",)
    assert scaled_datacenters(ScalePolicy(), {}, (instance("api", "a"),), ("wdc",)) == ("fra", "wdc")


def test_what_comes_and_no_caller_tells_of_counts_where_it_comes():
    told = flows(place("fra", 0.0, epoch=0, served=150.0), place("lon", 0.0, epoch=0, served=30.0))
    assert offered(POLICY, ("fra", "lon", "tok"), told) == {"fra": 150, "lon": 30, "tok": 0}
    assert facts_of(POLICY, ("fra",), told, (), NOW)[0].age == 0


def test_who_tells_is_believed_and_not_who_serves_what_spilled():
    told = flows(place("fra", 100.0, served=70.0), place("lon", 0.0, served=30.0))
    assert offered(POLICY, ("fra", "lon"), told) == {"fra": 100, "lon": 0}
