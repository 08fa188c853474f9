"""The audit of states, and feature levels: who differs, or is too old, serves nothing more and says why."""

import pytest

from dislocate.core.boundary.events import StoreTroubled
from dislocate.core.boundary.requests import Done, Refused
from dislocate.core.boundary.store import (
    AddServer,
    Consistency,
    KeyValue,
    ReadKeys,
    RemoveServer,
    Transacted,
    TransferLeadership,
)
from dislocate.core.consensus.promises import DIVERGED_KEY
from dislocate.core.store.audit import FORGETFULNESS, Audit, divergence
from dislocate.core.store.commands import Command, SetFeatureLevel, encode_command
from dislocate.core.store.messages import StateTold
from dislocate.core.tunables import AUDIT_EVERY
from tests.support.tiny_servers import TinyServers, put


@pytest.fixture
def three():
    fleet = TinyServers(4)
    fleet.found()
    return fleet


def write(fleet, path, count):
    """So many entries, as fast as they go."""
    for number in range(count):
        fleet.begin_asking(path, put(f"k{number % 50}", str(number)))
        if number % 50 == 49:
            fleet.run("20ms")
    fleet.run("1s")


def go_wrong(fleet, path):
    """Memory changed by itself."""
    fleet.server(path).replica.machine.keys.put(KeyValue("k0", b"wrong", 1, 1, 1))


def roles(fleet):
    return {path: fleet.hosts[path].node.store.role for path in fleet.servers}


def test_servers_that_agree_go_on_and_have_compared(three):
    leader = three.leader()
    write(three, leader, 2 * AUDIT_EVERY + 20)
    three.run("11s")
    told = three.bodies(StateTold)
    assert {target for source, target, _ in told if source == leader} == set(three.others(leader))
    assert {source for source, target, _ in told if target == leader} == set(three.others(leader))
    assert "failed" not in roles(three).values()


def test_a_follower_that_differs_ends_its_part_and_says_where_and_what_to_do(three):
    leader = three.leader()
    wrong = three.others(leader)[0]
    go_wrong(three, wrong)
    write(three, leader, AUDIT_EVERY + 20)
    three.run("11s")
    assert roles(three)[wrong] == "failed"
    assert list(roles(three).values()).count("failed") == 1
    problem = three.hosts[wrong].node.store.problem
    assert f"after entry {AUDIT_EVERY}" in problem
    assert f"dislocate servers add {wrong}" in problem
    assert problem in [event.problem for _, path, event in three.events(StoreTroubled) if path == wrong]
    assert isinstance(three.ask(wrong, put("k")), Transacted), "its agent asks the others"


def forged_that_is_read(fleet):
    """What a local read at a server finds of a key that nobody ever put there, after the audit had its time."""
    leader = fleet.leader()
    wrong = fleet.others(leader)[0]
    fleet.server(wrong).replica.machine.keys.put(KeyValue("forged", b"wrong", 1, 1, 1))
    write(fleet, leader, AUDIT_EVERY + 20)
    fleet.run("11s")
    return fleet.ask(wrong, ReadKeys("forged", consistency=Consistency.LOCAL)).keys, fleet.hosts[wrong].node.store


def test_hazard_12_what_differs_is_not_read(three):
    keys, view = forged_that_is_read(three)
    assert (keys, view.role) == ((), "failed")


def test_hazard_12_without_the_comparison_it_is_read_and_nobody_notices(three, monkeypatch):
    monkeypatch.setattr(Audit, "told", lambda self, path, told: None)
    keys, view = forged_that_is_read(three)
    assert [found.value for found in keys] == [b"wrong"]
    assert (view.role, view.problem) == ("follower", "")
    assert "failed" not in roles(three).values()


def test_a_leader_that_differs_ends_its_own_part_and_no_others(three):
    leader = three.leader()
    go_wrong(three, leader)
    write(three, leader, AUDIT_EVERY + 20)
    three.run("15s")
    assert roles(three)[leader] == "failed"
    assert list(roles(three).values()).count("failed") == 1
    assert isinstance(three.ask(three.others(leader)[0], put("k")), Transacted)


def test_who_differed_serves_nothing_after_a_restart_and_again_with_another_disk(three):
    leader = three.leader()
    wrong = three.others(leader)[0]
    go_wrong(three, wrong)
    write(three, leader, AUDIT_EVERY + 20)
    three.run("11s")
    assert DIVERGED_KEY in {record.key for record in three.disk(wrong)}
    three.restart(wrong)
    three.run("5s")
    assert roles(three)[wrong] == "failed"
    assert "Move its state.db" in three.hosts[wrong].node.store.problem
    three.kill(wrong)
    three.hosts[wrong].stored.clear()
    three.begin(wrong)
    three.run("5s")
    assert isinstance(three.ask(leader, AddServer(wrong)), Done)
    three.run("3s")
    assert roles(three)[wrong] == "follower"


def test_who_differed_is_well_again_when_it_was_removed_and_added(three):
    leader = three.leader()
    wrong = three.others(leader)[0]
    go_wrong(three, wrong)
    write(three, leader, AUDIT_EVERY + 20)
    three.run("11s")
    assert isinstance(three.ask(leader, RemoveServer(wrong)), Done)
    three.run("3s")
    assert isinstance(three.ask(leader, AddServer(wrong)), Done)
    three.run("3s")
    assert roles(three)[wrong] == "follower"
    assert DIVERGED_KEY not in {record.key for record in three.disk(wrong)}


# ---- a disk that went back


def put_back_an_old_copy(fleet, path, entries=30):
    """Of what `path` had before it acknowledged so many more."""
    fleet.run("6s")
    old = list(fleet.hosts[path].stored)
    write(fleet, fleet.leader(), entries)
    fleet.kill(path)
    fleet.hosts[path].stored = old
    fleet.begin(path)
    fleet.run("5s")


def test_a_server_whose_disk_went_back_ends_its_part_says_so_and_is_marked(three):
    leader = three.leader()
    back = three.others(leader)[0]
    put_back_an_old_copy(three, back)
    assert roles(three)[back] == "failed"
    assert list(roles(three).values()).count("failed") == 1
    assert [(one.path, one.trouble) for one in three.hosts[leader].node.store.servers if one.trouble] == [
        (back, "disk went back")
    ]
    problem = three.hosts[back].node.store.problem
    assert FORGETFULNESS in problem
    assert f"dislocate servers add {back}" in problem
    assert problem in [event.problem for _, path, event in three.events(StoreTroubled) if path == back]
    assert isinstance(three.ask(back, put("k")), Transacted), "its agent asks the others"
    assert DIVERGED_KEY in {record.key for record in three.disk(back)}
    three.restart(back)
    three.run("5s")
    assert roles(three)[back] == "failed"


def test_a_server_whose_disk_went_back_is_well_with_another_one(three):
    leader = three.leader()
    back = three.others(leader)[0]
    put_back_an_old_copy(three, back)
    three.kill(back)
    three.hosts[back].stored.clear()
    three.begin(back)
    three.run("5s")
    assert isinstance(three.ask(leader, AddServer(back)), Done)
    three.run("3s")
    assert roles(three)[back] == "follower"


# ---- what counts for nothing


def test_the_word_of_one_that_does_not_lead_ends_nobody(three):
    leader = three.leader()
    one, other = three.others(leader)
    write(three, leader, AUDIT_EVERY + 20)
    group = three.server(one).group
    three.say(other, one, StateTold(group, AUDIT_EVERY, 1, agreed=True))
    three.say("fra/a4", one, StateTold(group, AUDIT_EVERY, 1, agreed=True))
    three.say(other, leader, StateTold(group, AUDIT_EVERY, 1))
    three.run("1s")
    assert "failed" not in roles(three).values()


def test_indexes_to_come_wait_and_only_so_many(three):
    leader = three.leader()
    follower = three.others(leader)[0]
    audit = three.server(follower).audit
    for index in range(1, 100):
        three.say(leader, follower, StateTold(three.server(follower).group, index * AUDIT_EVERY, 1))
    assert len(audit._waiting) <= 16


def test_a_divergence_is_told_with_both_digests():
    assert "00000000000000ff, a majority of the servers has 0000000000000100" in divergence("fra/a1", 256, 255, 256)


# ---- feature levels


def level(fleet, path):
    return fleet.server(path).replica.machine.feature_level


def test_a_higher_level_is_switched_on_when_every_server_speaks_it():
    fleet = TinyServers(3)
    leader = fleet.found()
    for path in fleet.others(leader):
        fleet.restart(path, feature_level=2)
        fleet.run("3s")
    fleet.run("30s")
    assert level(fleet, leader) == 1
    fleet.restart(leader, feature_level=2)
    fleet.run("30s")
    assert [level(fleet, path) for path in fleet.servers] == [2, 2, 2]


def test_who_speaks_less_than_the_log_ends_its_part_and_goes_on_when_it_is_upgraded():
    fleet = TinyServers(3, feature_level=2)
    leader = fleet.found()
    fleet.run("30s")
    assert level(fleet, leader) == 2
    old = fleet.others(leader)[0]
    fleet.restart(old, feature_level=1)
    fleet.run("5s")
    view = fleet.hosts[old].node.store
    assert view.role == "failed"
    assert "upgrade" in view.problem
    assert isinstance(fleet.ask(leader, put("k")), Transacted)
    fleet.restart(old, feature_level=2)
    fleet.run("5s")
    assert fleet.hosts[old].node.store.role == "follower"


def test_who_would_have_to_apply_what_it_cannot_does_not_even_when_the_level_comes_in_the_log():
    fleet = TinyServers(3)
    leader = fleet.found()
    replica = fleet.server(leader).replica
    replica.level = 2
    fleet.ask(leader, put("before"))
    assert replica.propose(encode_command(Command(SetFeatureLevel(2)))) is not None
    fleet.run("1s")
    others = fleet.others(leader)
    assert [fleet.hosts[path].node.store.role for path in others] == ["failed", "failed"]
    assert all("upgrade" in fleet.hosts[path].node.store.problem for path in others)


def test_an_agent_that_speaks_less_is_not_let_in():
    fleet = TinyServers(4, feature_level=2)
    leader = fleet.found()
    fleet.run("30s")
    fleet.restart("fra/a4", feature_level=1)
    fleet.run("3s")
    refused = fleet.ask(leader, AddServer("fra/a4"))
    assert isinstance(refused, Refused)
    assert "upgrade it first" in refused.reason


def test_a_new_leader_asks_anew_what_the_servers_speak():
    fleet = TinyServers(3, feature_level=2)
    leader = fleet.found()
    to = fleet.others(leader)[0]
    fleet.ask(leader, TransferLeadership(to))
    assert fleet.server(leader).levels._spoken == {}
    fleet.run("30s")
    assert level(fleet, to) == 2
