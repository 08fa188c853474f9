"""Refusal: an agent whose host says that nobody listens is gone, and everybody knows it in about a second."""

import pytest

from dislocate.core.boundary.events import MemberDied, MemberSuspected
from dislocate.core.boundary.inputs import LinkLost
from dislocate.core.boundary.values import MemberState
from dislocate.core.membership.members import LIVING
from tests.support.tiny_fleet import TinyFleet

DEAD, SUSPECT, ALIVE = MemberState.DEAD, MemberState.SUSPECT, MemberState.ALIVE


def settled_fleet(size, **settings):
    fleet = TinyFleet(size, **settings)
    fleet.run("20s")
    assert fleet.is_whole()
    return fleet


@pytest.mark.parametrize("size", [2, 3, 4, 20, 60])
def test_a_killed_agent_is_known_everywhere_within_1500_ms(size):
    fleet = TinyFleet(size)
    fleet.run("20s")
    fleet.kill("fra/a2")
    fleet.run_until(lambda: not any(fleet.state(path, "fra/a2") in LIVING for path in fleet.running()), "1500ms")
    died = [event for _, _, event in fleet.events(MemberDied)]
    assert {event.member.path for event in died} == {"fra/a2"}
    assert all(event.refused for event in died)
    assert not fleet.events(MemberSuspected)


def test_a_verdict_names_its_observers():
    fleet = settled_fleet(20)
    fleet.kill("fra/a2")
    fleet.run("2s")
    assert all(len(event.observers) >= 3 for _, _, event in fleet.events(MemberDied))


def test_two_of_three_killed_at_once_are_known_to_the_last():
    fleet = settled_fleet(3)
    fleet.kill("fra/a2")
    fleet.kill("fra/a3")
    fleet.run("1500ms")
    assert fleet.state("fra/a1", "fra/a2") is DEAD
    assert fleet.state("fra/a1", "fra/a3") is DEAD


def test_without_links_a_refused_probe_is_enough():
    fleet = settled_fleet(4)
    fleet.hosts["fra/a2"].links.clear()
    for path in fleet.running():
        fleet.hosts[path].links.pop("fra/a2", None)
    fleet.kill("fra/a2")
    fleet.run("4s")
    assert fleet.everyone_says("fra/a2", DEAD)


def test_a_lost_link_alone_proves_nothing():
    fleet = settled_fleet(4)
    for path in ("fra/a1", "fra/a3", "fra/a4"):
        fleet.give(path, LinkLost(fleet.hosts["fra/a2"].settings.node, "reset"))
    fleet.run("10s")
    assert fleet.is_whole()
    assert not fleet.events(MemberDied)
    assert not fleet.events(MemberSuspected)


def test_a_lost_link_to_a_living_member_is_dialled_again():
    fleet = settled_fleet(3)
    node = fleet.hosts["fra/a2"].settings.node
    fleet.hosts["fra/a1"].links.pop("fra/a2")
    fleet.hosts["fra/a2"].links.pop("fra/a1")
    fleet.give("fra/a1", LinkLost(node, "reset"))
    fleet.give("fra/a2", LinkLost(fleet.hosts["fra/a1"].settings.node, "reset"))
    fleet.run("5s")
    assert "fra/a2" in fleet.hosts["fra/a1"].links


def test_a_stopped_process_accepts_connections_and_is_not_refused():
    fleet = settled_fleet(4)
    fleet.pause("fra/a2")
    for path in ("fra/a1", "fra/a3", "fra/a4"):
        fleet.give(path, LinkLost(fleet.hosts["fra/a2"].settings.node, "reset"))
    fleet.run("3s")
    assert not fleet.events(MemberDied)
    fleet.resume("fra/a2")


def test_one_member_with_a_rejecting_firewall_condemns_nobody():
    fleet = settled_fleet(6)

    killed_for_a1 = "fra/a2"
    connect, datagram = fleet._connect, fleet._datagram

    def pretend(path, act):
        host = fleet.hosts[killed_for_a1]
        host.runs = path != "fra/a1"
        act()
        host.runs = True

    fleet._connect = lambda source, address: pretend(source, lambda: connect(source, address))
    fleet._datagram = lambda source, host, address, data: pretend(source, lambda: datagram(source, host, address, data))
    fleet.run("60s")
    assert not fleet.events(MemberDied)


def test_judging_by_silence_only_takes_the_suspicion_time():
    fleet = settled_fleet(4, refusal_path=False)
    fleet.kill("fra/a2")
    fleet.run("3s")
    assert not fleet.events(MemberDied)
    fleet.run("10s")
    assert fleet.everyone_says("fra/a2", DEAD)
    assert not any(event.refused for _, _, event in fleet.events(MemberDied))
