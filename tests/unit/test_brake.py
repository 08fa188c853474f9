"""The brake: too many failures at once remove nobody."""

import pytest

from dislocate.core.boundary.events import BrakeChanged, MemberDied
from dislocate.core.boundary.values import MemberState
from dislocate.core.membership.brake import takes_hold
from tests.support.tiny_fleet import TinyFleet

DEAD, SUSPECT, ALIVE = MemberState.DEAD, MemberState.SUSPECT, MemberState.ALIVE


@pytest.mark.parametrize(
    ("failing", "population", "holds"),
    [(2, 3, False), (3, 4, True), (3, 14, True), (3, 15, False), (4, 20, False), (5, 20, True)],
)
def test_it_takes_hold_above_a_fifth_and_never_below_three(failing, population, holds):
    assert takes_hold(failing, population) is holds


@pytest.fixture
def braked():
    """Six of twelve hosts vanished; the brake holds at everybody left."""
    fleet = TinyFleet(12)
    fleet.run("15s")
    for i in range(7, 13):
        fleet.vanish(f"fra/a{i}")
    fleet.run("30s")
    return fleet


def test_many_vanished_hosts_are_suspected_and_nobody_is_removed(braked):
    assert all(braked.everyone_says(f"fra/a{i}", SUSPECT) for i in range(7, 13))
    assert not braked.events(MemberDied)
    assert all("suspected" in braked.hosts[path].node._members.brake for path in braked.running())
    assert {path for _, path, event in braked.events(BrakeChanged) if event.engaged} == set(braked.running())


def test_it_lets_go_when_the_surviving_view_is_stable(braked):
    braked.run("60s")
    assert all(braked.everyone_says(f"fra/a{i}", DEAD) for i in range(7, 13))
    assert all(braked.hosts[path].node._members.brake == "" for path in braked.running())


def test_those_who_come_back_while_it_holds_were_never_dead(braked):
    for i in range(7, 13):
        braked.start(f"fra/a{i}", boot=2, seeds=("fra-a1:1",))
    braked.run("100s")
    assert braked.is_whole()
    assert not braked.events(MemberDied)


def test_refused_members_are_held_back_too():
    fleet = TinyFleet(12)
    fleet.run("15s")
    for i in range(5, 13):
        fleet.kill(f"fra/a{i}")
    fleet.run("10s")
    states = [fleet.state("fra/a1", f"fra/a{i}") for i in range(5, 13)]
    assert set(states) == {DEAD, SUSPECT}
    assert states.count(DEAD) <= 3
    fleet.run("90s")
    assert all(fleet.everyone_says(f"fra/a{i}", DEAD) for i in range(5, 13))
