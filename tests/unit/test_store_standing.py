"""What is shown of the store's servers, and what an agent says of those that do not answer."""

import pytest

from dislocate.core.boundary.requests import Done, Refused
from dislocate.core.boundary.store import AddServer, RemoveServer
from tests.support.tiny_servers import TinyServers, put


@pytest.fixture
def three():
    """Three servers and two agents that are none."""
    fleet = TinyServers(5)
    fleet.found()
    return fleet


def troubles(fleet, path):
    return {server.path: server.trouble for server in fleet.hosts[path].node.store.servers if server.trouble}


def test_an_agent_in_a_data_center_that_is_cut_off_names_the_servers_that_its_own_does_not_hear():
    servers = ("fra/a1", "wdc/a1", "tok/a1")
    fleet = TinyServers(0)
    fleet.servers = servers
    for path in (*servers, "fra/a2"):
        fleet.begin(path)
        fleet.run("20ms")
    fleet.found()
    fleet.run("20s")
    fleet.cut(["fra/a1", "fra/a2"], ["wdc/a1", "tok/a1"])
    fleet.run("30s")
    refused = fleet.ask("fra/a2", put("k"))
    assert isinstance(refused, Refused)
    assert "missing: tok/a1, wdc/a1" in refused.reason
    assert "missing: tok/a1, wdc/a1" in fleet.hosts["fra/a2"].node.store.problem


def test_an_agent_that_does_not_know_who_is_missing_says_who_does(three):
    near = three.part("fra/a5")._whom.another().path
    cut = [path for path in three.servers if path != near]
    three.hears = lambda source, target, body: not {source, target} & set(cut)  # their links are silent, and they live
    three.run("6s")
    problem = three.hosts["fra/a5"].node.store.problem
    assert problem == (
        f"{near} knows no server that leads; `dislocate store status` there says who is missing (as seen from fra/a5); "
        "writes go on when one does"
    )


# ---- disks


def wipe(fleet, path):
    fleet.kill(path)
    fleet.run("3s")
    fleet.hosts[path].stored.clear()
    fleet.begin(path)
    fleet.run("15s")


def test_every_server_and_it_itself_says_that_one_was_wiped_until_it_is_added(three):
    leader = three.leader()
    wiped = three.others(leader)[0]
    wipe(three, wiped)
    for path in three.servers:
        assert troubles(three, path) == {wiped: "wiped"}, path
    assert isinstance(three.ask(leader, AddServer(wiped)), Done)
    three.run("3s")
    assert [troubles(three, path) for path in three.servers] == [{}, {}, {}]


def test_a_wiped_server_is_wiped_whether_it_is_linked_or_not_and_dead_when_it_is_dead(three):
    leader = three.leader()
    wiped, other = three.others(leader)
    wipe(three, wiped)
    three.part(other)._links._open.pop(wiped)
    assert troubles(three, other) == {wiped: "wiped"}
    three.kill(wiped)
    three.run("12s")
    assert troubles(three, other) == troubles(three, leader) == {wiped: "no link"}


def test_a_server_that_was_removed_and_added_again_has_the_disk_that_the_group_knows(three):
    leader = three.leader()
    again = three.others(leader)[0]
    for _ in range(2):
        assert isinstance(three.ask(leader, RemoveServer(again)), Done)
        three.run("3s")
        assert isinstance(three.ask(leader, AddServer(again)), Done)
        three.run("3s")
    assert [troubles(three, path) for path in three.servers] == [{}, {}, {}]
    three.restart(again)
    three.run("6s")
    assert [troubles(three, path) for path in three.servers] == [{}, {}, {}]
