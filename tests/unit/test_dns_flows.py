"""DNS that follows the flows: parts as SRV weights, addresses drawn by them, short lives while traffic moves."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dislocate.core.balance.parts import parts
from dislocate.core.boundary.balance import Policy, Spill
from dislocate.core.boundary.values import Status
from tests.support.fake_dns_backend import FakeBackend
from tests.unit.test_dns import World, three_data_centers

NAME = "web.service.dislocate"


@pytest.fixture
def world():
    world = World()
    three_data_centers(world)
    return world


def srv(world, name=NAME):
    return {
        (str(rr.rdata.target).partition(".")[0], rr.rdata.priority, rr.rdata.weight) for rr in world.ask(name, "SRV").rr
    }


FRA, LON, WDC = "0a010001", "0a020001", "0a030001"


def test_srv_weights_carry_the_shares_and_the_spare_have_a_lower_priority(world):
    world.backend.shares("web", fra=0.7, lon=0.3)
    assert srv(world) == {(FRA, 10, 700), (LON, 10, 300), (WDC, 20, 1)}


def test_a_share_is_divided_by_weight_within_its_data_center_and_none_is_told_as_zero(world):
    world.backend.runs("web", "10.1.0.2", datacenter="fra", weight=3)
    world.backend.shares("web", fra=0.9999, lon=0.0001)
    assert srv(world) == {(FRA, 10, 250), ("0a010002", 10, 750), (LON, 10, 1), (WDC, 20, 1)}


def test_addresses_are_drawn_by_share_of_all_data_centers_that_have_one(world):
    world.backend.shares("web", fra=0.75, lon=0.25)
    answers = [world.addresses(NAME) for _ in range(320)]
    assert all(sorted(answer) == ["10.1.0.1", "10.2.0.1"] for answer in answers)
    firsts = Counter(answer[0] for answer in answers)
    assert firsts["10.1.0.1"] / 320 == pytest.approx(0.75, abs=2 / 32)


def test_a_change_of_the_flows_outdates_what_was_answered(world):
    assert world.addresses(NAME) == ["10.1.0.1"]
    world.backend.shares("web", wdc=1.0)
    assert world.addresses(NAME) == ["10.3.0.1"]


def test_answers_are_short_lived_while_traffic_spills(world):
    assert world.ask(NAME).rr[0].ttl == 5
    world.backend.shares("web", fra=0.9, lon=0.1)
    assert {rr.ttl for type_ in ("A", "SRV", "TXT") for rr in world.ask(NAME, type_).rr} == {2}
    world.backend.shares("web", lon=1.0)
    assert world.ask(NAME).rr[0].ttl == 5


def test_a_name_with_a_data_center_does_not_follow_the_flows(world):
    world.backend.shares("web", fra=0.5, lon=0.5)
    assert srv(world, "web.service.wdc.dislocate") == {(WDC, 10, 1)}
    assert world.addresses("web.service.wdc.dislocate") == ["10.3.0.1"]
    assert world.ask("web.service.wdc.dislocate").rr[0].ttl == 5


def test_a_policy_that_keeps_traffic_at_home_is_kept_by_dns_too(world):
    world.backend.tell(world.backend.flows.govern("web", Policy(spill=Spill.NEVER)))
    assert srv(world) == {(FRA, 10, 1000)}
    world.backend.turns("web", "10.1.0.1", status=Status.MAINTENANCE)
    reply = world.ask(NAME)
    assert (reply.header.rcode, reply.rr) == (0, [])


def test_who_only_warns_in_one_data_center_is_not_put_behind_who_passes_in_another(world):
    world.backend.turns("web", "10.2.0.1", status=Status.WARNING)
    world.backend.shares("web", fra=0.5, lon=0.5)
    firsts = Counter(world.addresses(NAME)[0] for _ in range(320))
    assert firsts["10.2.0.1"] / 320 == pytest.approx(0.5, abs=2 / 32)


def test_who_passes_comes_first_with_the_whole_share_of_its_data_center(world):
    world.backend.turns("web", "10.1.0.1", weight=1)
    world.backend.runs("web", "10.1.0.2", datacenter="fra", status=Status.WARNING, weight=99)
    world.backend.shares("web", fra=0.5, lon=0.5)
    answers = [world.addresses(NAME) for _ in range(320)]
    assert {answer[2] for answer in answers} == {"10.1.0.2"}
    firsts = Counter(answer[0] for answer in answers)
    assert firsts["10.1.0.1"] / 320 == pytest.approx(0.5, abs=2 / 32)


# ---- parts

INSTANCES = st.lists(
    st.tuples(st.sampled_from(Status), st.booleans(), st.sampled_from(["fra", "wdc", "lon"]), st.integers(0, 3)),
    max_size=8,
)
SHARES = st.dictionaries(st.sampled_from(["fra", "wdc", "lon", "tok"]), st.floats(0.0, 1.0), max_size=4)


@given(INSTANCES, SHARES, st.sampled_from(Spill))
def test_parts_add_up_to_one_wherever_anybody_may_be_used_and_shares_are_kept(specs, shares, spill):
    backend = FakeBackend()
    for at, (status, reachable, place, weight) in enumerate(specs):
        backend.runs("web", f"10.0.0.{at}", status=status, reachable=reachable, datacenter=place, weight=weight)
    if backend.catalog.service("web") is None:
        return
    backend.shares("web", **shares)
    backend.flows.govern("web", Policy(spill=spill))
    route = backend.flows.route("web")
    found = parts(route)
    assert [each.instance for each in found] == list(route.instances)
    given_ = [each.part for each in found if each.part is not None]
    assert all(0.0 <= part <= 1.0 for part in given_)
    assert all(each.part is None for each in found if each.instance.status is Status.MAINTENANCE)
    may_be_used = any(each.status is not Status.MAINTENANCE for each in route.instances)
    if spill is not Spill.NEVER and may_be_used:
        assert sum(given_) == pytest.approx(1.0)
    else:
        assert sum(given_) == pytest.approx(1.0) or sum(given_) == 0.0
    answering = {each.datacenter for each in route.instances if each.reachable and each.status is Status.PASSING}
    positive = [share for share in route.shares if share.share > 0.0]
    if positive and {share.datacenter for share in positive} <= answering:
        whole = sum(share.share for share in positive)
        for share in positive:
            there = sum(each.part or 0.0 for each in found if each.instance.datacenter == share.datacenter)
            assert there == pytest.approx(share.share / whole)


def test_who_is_told_nothing_is_out_and_who_is_spare_has_a_part_of_nothing():
    backend = FakeBackend()
    backend.runs("web", "10.1.0.1", datacenter="fra")
    backend.runs("web", "10.1.0.2", datacenter="fra", status=Status.CRITICAL)
    backend.runs("web", "10.2.0.1", datacenter="lon")
    backend.flows.share("web", fra=1.0)
    found = {each.instance.address: each.part for each in parts(backend.flows.route("web"))}
    assert found == {"10.1.0.1": 1.0, "10.1.0.2": None, "10.2.0.1": 0.0}
