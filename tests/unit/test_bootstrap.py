"""Founding a group: one set, promised by all, one first entry; and what stands in the way, with the mend."""

import msgspec
import pytest

from dislocate.core.boundary.values import StoredRecord
from dislocate.core.consensus.bootstrap import REFRESH_PERIOD, Founding
from dislocate.core.consensus.founding_duties import Admitted, Expelled, Founded, Joined
from dislocate.core.consensus.messages import Append, Configuration, Consensus, Entry, GroupId, ServerId, VoteAsked
from dislocate.core.consensus.promises import (
    DISK_KEY,
    GROUP_KEY,
    HARD_KEY,
    PROMISE_KEY,
    StoredGroup,
    first_entry,
    log_key,
    uuid_of,
)
from dislocate.core.errors import LocalError
from dislocate.core.identity import NodeId
from dislocate.core.store.messages import GroupAsked, GroupTold
from dislocate.core.units import SECOND
from tests.support.founders import Town

THREE = ("fra/a1", "fra/a2", "wdc/a1")


def cut(town: Town, *apart: str) -> None:
    """Those in `apart` and the others hear nothing of each other."""
    town.may_pass = lambda sender, receiver: (sender.path in apart) == (receiver.path in apart)


def heal(town: Town) -> None:
    town.may_pass = lambda sender, receiver: True


def founded(servers=THREE, agents=()) -> Town:
    town = Town(servers, agents)
    town.start()
    town.run(5)
    return town


def groups(town: Town) -> set[str]:
    return {agent.founding.group.uuid.hex() for agent in town.agents.values() if agent.founding.group}


def heartbeat(to: ServerId, origin: ServerId, group: GroupId) -> Consensus:
    return Consensus(group, origin, to, 2, Append(1, 1, (), 1, 1))


# ---- founding


def test_servers_that_start_together_found_one_group_with_the_same_first_entry():
    town = founded()
    entries = [msgspec.msgpack.decode(town[path].records[log_key(1)], type=Entry) for path in THREE]
    assert entries[0].configuration.voters == tuple(town[path].founding.server for path in THREE)
    assert entries.count(entries[0]) == 3
    assert len(groups(town)) == 1
    assert all(town[path].founding.is_member and not town[path].founding.problem for path in THREE)


def test_entry_one_is_of_term_one_and_the_uuid_is_the_hash_of_the_promised_set():
    town = founded()
    promised = tuple(town[path].founding.server for path in THREE)
    assert town["fra/a1"].founding.group == GroupId(uuid_of(promised), 0)
    assert first_entry(promised) == Entry(1, 1, b"", Configuration(promised))


def test_a_single_server_founds_at_once():
    town = Town(["fra/a1"])
    town.start()
    town["fra/a1"].tick()
    town.settle()
    assert len(town["fra/a1"].founded()) == 1


def test_a_list_in_another_order_or_with_doubles_is_the_same_list():
    town = Town(THREE)
    town["fra/a2"].servers = ("wdc/a1", "fra/a2", "fra/a1", "fra/a1")
    town.start()
    town.run(3)
    assert len(groups(town)) == 1


def test_no_disk_is_told_before_its_number_is_durable():
    town = Town(THREE)
    town.start("fra/a1")
    answer = town["fra/a1"].founding.asked(NodeId("fra", "a2", 1), GroupAsked(5, THREE, ()))
    assert answer.disk == 0
    town["fra/a1"].store()
    answer = town["fra/a1"].founding.asked(NodeId("fra", "a2", 1), GroupAsked(5, THREE, ()))
    assert answer.disk == town["fra/a1"].founding.server.disk


def test_no_promise_is_told_before_it_is_durable():
    town = Town(THREE)
    a1 = town["fra/a1"]
    town.start()
    for agent in town.agents.values():
        agent.store()
        agent.tick()
    while town.under_way:
        town.deliver()
    assert PROMISE_KEY in [one.key for write in a1.unstored for one in write.records]
    ask = GroupAsked(5, THREE, ())
    assert a1.founding.asked(NodeId("fra", "b9", 1), ask).promised == ()
    a1.store()
    assert len(a1.founding.asked(NodeId("fra", "b9", 1), ask).promised) == 3


def test_a_majority_that_is_cut_off_founds_nothing_and_says_whom_it_waits_for():
    five = ("fra/a1", "fra/a2", "fra/a3", "wdc/a1", "wdc/a2")
    town = Town(five)
    cut(town, "wdc/a1", "wdc/a2")
    town.start()
    town.run(30)
    assert groups(town) == set()
    assert "waiting to hear from wdc/a1 and wdc/a2" in town["fra/a1"].founding.problem
    heal(town)
    town.run(3)
    assert len(groups(town)) == 1


def test_a_promise_is_kept_over_a_crash_and_the_group_founded_afterwards():
    town = Town(THREE)
    town.start()
    town["wdc/a1"].store()
    cut(town, "wdc/a1")
    town.run(1)
    heal(town)
    while PROMISE_KEY not in town["fra/a1"].records:
        town.now += SECOND
        for agent in town.agents.values():
            agent.tick()
        while town.under_way:
            town.deliver()
        for path in ("fra/a1", "fra/a2"):
            while town[path].unstored:
                town[path].store()
        town.under_way = [one for one in town.under_way if one[0].path == "wdc/a1"]
    promise = town["fra/a1"].records[PROMISE_KEY]
    for agent in town.agents.values():
        agent.stop()
    town.under_way.clear()
    town.start()
    town.run(4)
    assert len(groups(town)) == 1
    assert town["fra/a1"].records[PROMISE_KEY] == promise


def test_a_promiser_founds_when_a_message_of_the_promised_group_reaches_it():
    town = Town(THREE)
    town.start()
    a1 = town["fra/a1"]
    others = tuple(ServerId(path, 7) for path in ("fra/a2", "wdc/a1"))
    a1.tick()
    a1.store()
    for one in others:
        a1.founding.told(NodeId(*one.path.split("/"), 1), GroupTold(None, 7, THREE, ()))
    a1.carry_out()
    a1.store()
    assert a1.founding.group is None
    promised = tuple(sorted((a1.founding.server, *others)))
    group = GroupId(uuid_of(promised))
    message = heartbeat(a1.founding.server, others[0], group)
    assert not a1.founding.consensus(NodeId("fra", "a2", 1), message)
    a1.carry_out()
    a1.store()
    assert a1.happened == [Joined(group), Founded(group, Configuration(promised))]
    assert {GROUP_KEY, HARD_KEY, log_key(1)} <= set(a1.records)
    assert a1.founding.consensus(NodeId("fra", "a2", 1), message)


# ---- a group is known


def test_an_agent_that_is_no_server_remembers_the_group_over_restarts():
    town = founded(agents=("fra/b1",))
    b1 = town["fra/b1"]
    group = b1.founding.group
    assert group is not None
    assert not b1.founding.is_member
    assert b1.founding.problem == ""
    b1.stop()
    b1.start()
    assert b1.founding.group == group
    assert [one.path for one in b1.founding.members] == list(THREE)


def test_a_wiped_server_does_not_found_again_and_names_the_mend():
    town = founded()
    town["wdc/a1"].wipe()
    town["wdc/a1"].start()
    town.run(3)
    wiped = town["wdc/a1"].founding
    assert len(groups(town)) == 1
    assert not wiped.is_member
    assert wiped.problem == "this server's disk is new; the group exists: dislocate servers add wdc/a1"


def test_when_all_servers_are_wiped_the_other_agents_still_know_the_group():
    town = founded(agents=("fra/b1",))
    for path in THREE:
        town[path].wipe()
        town[path].start()
    town.run(5)
    assert len(groups(town)) == 1
    assert not any(town[path].founding.is_member for path in THREE)


def test_servers_wait_for_another_agent_to_answer_before_they_promise():
    town = Town(THREE, ("fra/b1",))
    town.start()
    town.may_pass = lambda sender, receiver: sender.path != "fra/b1" or not town.under_way or receiver.path not in THREE
    town.run(2)
    heal(town)
    town.run(4)
    assert len(groups(town)) == 1


def test_an_agent_refuses_every_other_group_and_says_so():
    town = founded(agents=("fra/b1",))
    b1 = town["fra/b1"].founding
    other = GroupId(bytes(16))
    stranger = NodeId("lon", "a1", 1)
    assert not b1.told(stranger, GroupTold(other, 3, ("lon/a1",), ()))
    assert b1.group != other
    assert "lon/a1 belongs to another group (00000000000000000000000000000000)" in b1.problem
    b1.told(stranger, GroupTold(b1.group, 3, THREE, ()))
    assert b1.problem == ""


def test_a_message_of_another_group_is_answered_with_the_right_one_once_a_second():
    town = founded()
    a1 = town["fra/a1"]
    message = heartbeat(a1.founding.server, ServerId("lon/a1", 1), GroupId(bytes(16)))
    for _ in range(3):
        assert not a1.founding.consensus(NodeId("lon", "a1", 1), message)
    sent = a1.founding.take().messages
    assert [(path, told.group) for path, told in sent] == [("lon/a1", a1.founding.group)]


# ---- in and out


def test_a_new_server_is_let_in_by_the_leaders_first_message_to_its_disk():
    town = founded(agents=("lon/a1",))
    new, old = town["lon/a1"], town["fra/a1"].founding
    new.receive(town["fra/a1"].node, heartbeat(new.founding.server, old.server, old.group))
    town.settle()
    assert new.happened[-1] == Admitted(old.group)
    assert new.founding.is_member


def test_a_vote_asked_for_lets_nobody_in():
    town = founded(agents=("lon/a1",))
    new, old = town["lon/a1"], town["fra/a1"].founding
    new.receive(
        town["fra/a1"].node,
        Consensus(old.group, old.server, new.founding.server, 3, VoteAsked(1, 1, pre=True)),
    )
    town.settle()
    assert not new.founding.is_member


def test_who_was_let_in_is_not_put_out_by_an_older_configuration():
    town = founded(agents=("lon/a1",))
    new, old = town["lon/a1"], town["fra/a1"].founding
    new.receive(town["fra/a1"].node, heartbeat(new.founding.server, old.server, old.group))
    town.settle()
    new.founding.configured(Configuration(old.members), 4, leads=False)
    new.founding.told(town["fra/a2"].node, GroupTold(old.group, 1, THREE, (), None, old.members, 5))
    new.carry_out()
    town.settle()
    assert new.founding.is_member
    new.founding.configured(Configuration((*old.members, new.founding.server)), 6, leads=False)
    new.founding.configured(Configuration(old.members), 7, leads=False)
    assert not new.founding.is_member


def remove_wdc(town: Town) -> None:
    """The leader commits a configuration without wdc/a1."""
    leader = town["fra/a1"]
    rest = tuple(one for one in leader.founding.members if one.path != "wdc/a1")
    leader.founding.configured(Configuration(rest), 9, leads=True)
    leader.carry_out()


def test_a_removed_server_is_told_stays_out_and_stays_out_after_a_restart():
    town = founded()
    removed = town["wdc/a1"]
    remove_wdc(town)
    town.settle()
    assert isinstance(removed.happened[-1], Expelled)
    assert "removed from the group and stays out" in removed.founding.problem
    removed.stop()
    removed.start()
    town.run(12)
    assert not removed.founding.is_member
    assert "dislocate servers add wdc/a1" in removed.founding.problem


def test_a_server_removed_while_it_was_down_learns_it_when_it_is_back():
    town = founded()
    town["wdc/a1"].stop()
    remove_wdc(town)
    town.settle()
    town["wdc/a1"].start()
    town.run(1 + REFRESH_PERIOD // SECOND * 2)
    assert not town["wdc/a1"].founding.is_member
    assert any(isinstance(fact, Expelled) for fact in town["wdc/a1"].happened)


def test_a_removed_server_comes_back_as_another_disk_and_without_its_old_log():
    town = founded()
    removed, leader = town["wdc/a1"], town["fra/a1"].founding
    before = removed.founding.server
    remove_wdc(town)
    town.settle()
    after = removed.founding.server
    assert after.disk != before.disk
    assert log_key(1) in removed.records
    removed.receive(town["fra/a1"].node, heartbeat(before, leader.server, leader.group))
    town.settle()
    assert not removed.founding.is_member, "a late message was for the old disk"
    removed.receive(town["fra/a1"].node, heartbeat(after, leader.server, leader.group))
    town.settle()
    assert removed.founding.is_member
    assert log_key(1) not in removed.records
    removed.stop()
    removed.start()
    assert removed.founding.server == after


def test_a_higher_epoch_of_the_group_puts_the_other_servers_out_and_keeps_what_they_had():
    town = founded()
    other = town["fra/a2"]
    survivor = town["fra/a1"].founding.server
    group = GroupId(other.founding.group.uuid, 1)
    other.receive(town["fra/a1"].node, GroupTold(group, survivor.disk, THREE, (), "fra/a1", (survivor,), 12))
    town.settle()
    assert other.founding.group == group
    assert not other.founding.is_member
    assert "recovered by force elsewhere (epoch 1)" in other.founding.problem
    assert log_key(1) in other.records
    assert msgspec.msgpack.decode(other.records[GROUP_KEY], type=StoredGroup).log_epoch == 0


def test_a_lower_epoch_is_history():
    town = founded(agents=("fra/b1",))
    b1 = town["fra/b1"].founding
    uuid = b1.group.uuid
    b1.told(NodeId("fra", "a1", 1), GroupTold(GroupId(uuid, 2), 5, THREE, ()))
    assert not b1.told(NodeId("fra", "a2", 1), GroupTold(GroupId(uuid, 1), 5, THREE, ()))
    assert b1.group.epoch == 2


def test_a_promiser_that_missed_everything_up_to_a_forced_recovery_does_not_found():
    town = Town(THREE)
    town.start()
    a1 = town["fra/a1"]
    promised = tuple(sorted((ServerId("fra/a1", 1), ServerId("fra/a2", 2), ServerId("wdc/a1", 3))))
    records = (
        StoredRecord(DISK_KEY, msgspec.msgpack.encode(1)),
        StoredRecord(PROMISE_KEY, msgspec.msgpack.encode(promised)),
    )
    a1.founding = Founding("fra/a1", THREE, 99, records)
    a1.unstored = []
    group = GroupId(uuid_of(promised), 1)
    a1.receive(NodeId("fra", "a2", 1), GroupTold(group, 2, THREE, promised, None, (promised[1],), 40))
    a1.store()
    assert not a1.founding.is_member
    assert log_key(1) not in a1.records


# ---- what stands in the way


def test_differing_lists_are_told_with_who_has_which():
    town = Town(THREE)
    town["wdc/a1"].servers = ("fra/a1", "wdc/a1")
    town.start()
    town.run(5)
    assert groups(town) == set()
    assert (
        "[fra/a1, fra/a2, wdc/a1] on fra/a1 and fra/a2; [fra/a1, wdc/a1] on wdc/a1.  Make it the same everywhere"
        in town["fra/a1"].founding.problem
    )


def half_promised() -> Town:
    """fra/a1 and fra/a2 have promised, wdc/a1 has not."""
    town = Town(THREE)
    town.start()
    for agent in town.agents.values():
        agent.store()
    for agent in town.agents.values():
        agent.tick()
    while town.under_way:
        town.deliver()
    town["fra/a1"].store()
    town["fra/a2"].store()
    return town


def test_a_promised_disk_that_is_lost_before_entry_one_is_named_with_its_mend():
    town = half_promised()
    town["wdc/a1"].wipe()
    town["wdc/a1"].start()
    town.run(5)
    assert groups(town) == set()
    for path in THREE:
        problem = town[path].founding.problem
        assert "the disk of wdc/a1 is another than the one that fra/a1 and fra/a2 promised" in problem
        assert "On fra/a1 and fra/a2: stop the agent, run `dislocate store forget-promise --config FILE`" in problem


def test_promises_given_up_on_stopped_servers_let_the_group_be_founded():
    town = half_promised()
    town["wdc/a1"].wipe()
    town["wdc/a1"].start()
    town.run(2)
    for path in ("fra/a1", "fra/a2"):
        town[path].stop()
        town[path].forget_promise()
        town[path].start()
    town.run(5)
    assert len(groups(town)) == 1
    assert all(town[path].founding.is_member for path in THREE)


def test_a_promise_over_another_list_is_named_with_its_mend():
    town = half_promised()
    for agent in town.agents.values():
        agent.stop()
    del town.agents["wdc/a1"]
    for agent in town.agents.values():
        agent.servers = ("fra/a1", "fra/a2")
    town.under_way.clear()
    town.start()
    town.run(3)
    assert "promised to found it with fra/a1, fra/a2 and wdc/a1" in town["fra/a2"].founding.problem
    assert groups(town) == set()


def test_a_failed_disk_promises_and_founds_nothing_and_says_so():
    town = Town(["fra/a1"])
    a1 = town["fra/a1"]
    town.start()
    a1.tick()
    write = a1.unstored.pop(0)
    a1.founding.store_failed(write.ticket, "database or disk is full")
    a1.tick()
    assert a1.unstored == []
    assert "database or disk is full" in a1.founding.problem


def test_a_full_disk_is_tried_again_in_order_until_there_is_room():
    town = Town(["fra/a1"])
    a1 = town["fra/a1"]
    town.start()
    for _ in range(3):
        a1.founding.store_failed(a1.unstored.pop(0).ticket, "full: database or disk is full")
        assert "the disk is full" in a1.founding.problem
        a1.tick()
    town.run(2)
    assert len(a1.founded()) == 1
    assert a1.founding.problem == ""


def test_what_is_written_while_the_disk_is_full_waits_behind_what_was_not():
    town = founded(agents=("fra/b1",))
    b1 = town["fra/b1"]
    uuid = b1.founding.group.uuid
    b1.receive(NodeId("fra", "a1", 9), GroupTold(GroupId(uuid, 1), 5, THREE, ()))
    b1.founding.store_failed(b1.unstored.pop(0).ticket, "full: no space")
    b1.receive(NodeId("fra", "a1", 9), GroupTold(GroupId(uuid, 2), 5, THREE, ()))
    assert b1.unstored == []
    town.run(1)
    assert msgspec.msgpack.decode(b1.records[GROUP_KEY], type=StoredGroup).group.epoch == 2


def test_a_record_that_cannot_be_read_is_named():
    with pytest.raises(LocalError, match="raft/group"):
        Founding("fra/a1", THREE, 1, (StoredRecord(GROUP_KEY, b"\xc1"),))
