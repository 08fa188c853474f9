"""The store's part of an agent, in whole nodes: every request is answered once, and rightly, whatever ends or fails."""

import pytest

from dislocate.core.boundary.events import StoreTroubled
from dislocate.core.boundary.inputs import LinkLost, LinkOpened, SendFailed
from dislocate.core.boundary.requests import Done, Refused
from dislocate.core.boundary.store import (
    AddServer,
    BackedUp,
    BackUp,
    Consistency,
    GrantLease,
    KeysChanged,
    KeysRead,
    RemoveServer,
    Restore,
    Transacted,
    TransferLeadership,
    Uncertain,
)
from dislocate.core.boundary.values import Refusal, StoredRecord
from dislocate.core.consensus.founding_duties import Write
from dislocate.core.consensus.messages import Consensus
from dislocate.core.consensus.promises import is_of_store
from dislocate.core.identity import NodeId
from dislocate.core.store.asks import addressed
from dislocate.core.store.commands import RestoreChunk
from dislocate.core.store.messages import Answered, Asked, BackupPart
from dislocate.core.units import MILLISECOND, SECOND
from tests.support.tiny_servers import TinyServers, put, read, watch


@pytest.fixture
def three():
    """Three servers and two agents that are none."""
    fleet = TinyServers(5)
    fleet.found()
    return fleet


def troubles(fleet, path):
    return [event.problem for _, who, event in fleet.events(StoreTroubled) if who == path and event.problem]


# ---- requests


def test_a_put_through_an_agent_that_is_no_server_is_read_at_every_server(three):
    assert isinstance(three.ask("fra/a5", put("k", "v")), Transacted)
    three.run("200ms")
    for path in three.servers:
        found = three.ask(path, read("k", Consistency.LOCAL))
        assert [kv.value for kv in found.keys] == [b"v"]


def test_an_asking_that_is_sent_twice_is_done_once(three):
    three.hears = lambda source, target, body: not (isinstance(body, Answered) and target == "fra/a5")
    number = three.begin_asking("fra/a5", put("k"))
    three.run("2s")
    assert three.answer("fra/a5", number) is None
    three.hears = lambda *_: True
    three.run("3s")
    done = three.answer("fra/a5", number)
    assert isinstance(done, Transacted)
    assert three.ask("fra/a5", read("k")).keys[0].version == 1


def test_a_killed_leader_costs_a_request_under_way_no_more_than_an_election(three):
    leader = three.leader()
    asker = three.others(leader)[0]
    three.kill(leader)
    began = three.now
    assert isinstance(three.ask(asker, put("k")), Transacted)
    assert three.now - began < 600 * MILLISECOND, "a refused connection is no silence"


def test_a_minority_refuses_at_once_and_says_who_is_missing(three):
    three.cut(["fra/a3"], ["fra/a1", "fra/a2", "fra/a4", "fra/a5"])
    three.run("20s")
    began = three.now
    refused = three.ask("fra/a3", put("k"))
    assert isinstance(refused, Refused)
    assert refused.kind == "unavailable"
    assert "fra/a1, fra/a2" in refused.reason
    assert three.now == began
    three.heal()
    three.run("15s")
    assert isinstance(three.ask("fra/a3", put("k")), Transacted)


def test_a_server_that_alone_lost_the_leader_asks_by_way_of_another_one(three):
    leader = three.leader()
    cut, _ = three.others(leader)
    three.cut([leader], [cut])
    for one, peer in ((leader, cut), (cut, leader)):
        three.hosts[one].links.pop(peer, None)
        three.give(one, LinkLost(three.hosts[peer].node.identity, "cut"))
    three.run("15s")
    assert three.hosts[cut].node.store.leader is None
    assert isinstance(three.ask(cut, put("k")), Transacted)
    assert three.leader() == leader, "and nobody was deposed for it"


def test_an_agent_without_servers_in_reach_waits_for_another_before_it_refuses(three):
    """Since it lost its server, not since it was started."""
    three.run("10s")
    server = three.part("fra/a5")._whom.another().path
    three.kill(server)
    three.run("1ms")
    assert isinstance(three.ask("fra/a5", put("k")), Transacted)


def test_what_is_passed_on_is_forgotten_when_it_is_answered_or_nobody_waits_any_more(three):
    leader = three.leader()
    follower = three.others(leader)[0]
    stale = read("k", Consistency.BOUNDED, max_age=0)
    assert isinstance(three.ask(follower, stale), KeysRead)
    assert len(three.part(follower).answering.passing) == 0
    three.hears = lambda source, target, body: not (isinstance(body, Answered) and source == leader)
    three.begin_asking(follower, stale)
    three.run("1s")
    assert len(three.part(follower).answering.passing) == 1
    three.run("90s")
    assert len(three.part(follower).answering.passing) == 0


def test_what_an_agent_with_a_higher_boot_may_have_done_it_does_not_ask_again(three):
    """The store would not know that it is the same asking: it would be done twice."""
    three.hears = lambda source, target, body: not (isinstance(body, Answered) and target == "fra/a5")
    number = three.begin_asking("fra/a5", put("k"))
    three.run("100ms")
    part = three.part("fra/a5")
    part._out.node = NodeId("fra", "a5", 9)
    for path in list(three.hosts["fra/a5"].links):
        three.give("fra/a5", LinkLost(three.hosts[path].node.identity, "this agent took a higher boot"))
    three.run("1s")
    assert isinstance(three.answer("fra/a5", number), Uncertain)
    three.hears = lambda *_: True
    assert three.ask("fra/a1", read("k")).keys[0].version == 1


# ---- watches


def test_a_watch_at_a_server_that_is_removed_goes_on_elsewhere(three):
    leader = three.leader()
    gone = three.others(leader)[0]
    number = three.begin_asking(gone, watch("k", 0))
    assert isinstance(three.ask(leader, RemoveServer(gone)), Done)
    three.run("3s")
    assert three.hosts[gone].node.store.role == "agent"
    three.ask(leader, put("k"))
    three.run("1s")
    assert isinstance(three.answer(gone, number), KeysChanged)


def test_a_watch_at_a_server_whose_disk_fails_goes_on_elsewhere(three):
    leader = three.leader()
    broken = three.others(leader)[0]
    number = three.begin_asking(broken, watch("k", 0))
    three.hosts[broken].disk_says = "it fails"
    three.ask(leader, put("other"))
    three.run("2s")
    assert three.hosts[broken].node.store.role == "failed"
    three.ask(leader, put("k"))
    three.run("1s")
    assert isinstance(three.answer(broken, number), KeysChanged)


def test_a_watch_survives_a_new_start_of_its_server_that_nobody_saw_end(three):
    """The new link is there before the end of the old one was told."""
    part = three.part("fra/a5")
    server = part._whom.another()
    number = three.begin_asking("fra/a5", watch("k", 0))
    three.run("10ms")
    restarted = NodeId(server.datacenter, server.name, server.boot + 1)
    three.give("fra/a5", LinkOpened(restarted))
    asking = next(iter(part._router._asking.values()))
    assert asking.sent_to != server, "it is asked anew"
    assert three.answer("fra/a5", number) is None


def test_an_answer_that_did_not_go_out_ends_the_link_so_that_who_watches_asks_again(three):
    server = three.part("fra/a5")._whom.another().path
    number = three.begin_asking("fra/a5", watch("k", 0))
    three.run("10ms")
    three.hears = lambda source, target, body: not (isinstance(body, Answered) and target == "fra/a5")
    three.ask(three.leader(), put("k"))
    three.run("50ms")
    three.begin_asking("fra/a5", watch("later", 0))
    three.run("10ms")
    three.hears = lambda *_: True
    three.give(server, SendFailed(three.hosts["fra/a5"].node.identity, Refusal.BACKPRESSURE))
    three.run("3s")
    assert isinstance(three.answer("fra/a5", number), KeysChanged)


def test_what_an_agent_follows_it_follows_anew_when_its_link_turns_out_to_be_none(three):
    """The world has lost a link and the agent was not told: all that it says there goes nowhere."""
    server = three.part("fra/a5")._whom.another()
    three.hears = lambda source, target, body: "fra/a5" not in (source, target)
    three.give("fra/a5", SendFailed(server, Refusal.GONE))
    assert not three.part("fra/a5")._links.is_open(server.path), "nobody believes in it any more"
    three.hears = lambda *_: True
    three.ask("fra/a1", put("system/x", "v"))
    three.run("10s")
    assert [kv.value for kv in three.part("fra/a5")._near.held("system/") if kv.key == "system/x"] == [b"v"]


# ---- ages


def test_a_server_that_has_just_started_does_not_call_itself_current(three):
    three.ask("fra/a1", put("k"))
    three.run("2s")
    three.cut(["fra/a3"], ["fra/a1", "fra/a2", "fra/a4", "fra/a5"])
    three.restart("fra/a3")
    view = three.hosts["fra/a3"].node.store
    assert three.now - view.as_of > 3600 * SECOND
    found = three.ask("fra/a3", read("k", Consistency.LOCAL))
    assert found.age > 3600 * SECOND
    bounded = three.ask("fra/a3", read("k", Consistency.BOUNDED, max_age=60 * SECOND))
    assert isinstance(bounded, Refused)


def test_a_leader_that_hears_nobody_grows_older(three):
    leader = three.leader()
    three.cut([leader], [path for path in three.hosts if path != leader])
    three.run("800ms")
    assert three.hosts[leader].node.store.role == "leader"
    age = three.ask(leader, read("k", Consistency.LOCAL)).age
    assert age >= 600 * MILLISECOND
    answer = three.begin_asking(leader, read("k", Consistency.BOUNDED, max_age=100 * MILLISECOND))
    three.run("100ms")
    assert three.answer(leader, answer) is None, "it asks a majority, which does not answer"


# ---- disks


@pytest.mark.parametrize("own", [("fra/a1", "fra/a2"), ()])
def test_who_is_named_as_a_server_and_does_not_name_itself_says_that_the_lists_differ(own):
    fleet = TinyServers(2, servers=3)
    fleet.begin("fra/a3", servers=own)
    fleet.begin("fra/a4", servers=("fra/a1", "fra/a2", "fra/a3"))
    fleet.run("10s")
    lists = (
        "no group can be founded: `servers` in [store] is [fra/a1, fra/a2, fra/a3] on fra/a1 and fra/a2; "
        f"[{', '.join(own)}] on fra/a3.  Make it the same everywhere and restart"
    )
    for path in fleet.servers:
        assert fleet.hosts[path].node.store.problem == lists
        assert fleet.ask(path, put("k")).reason == lists
    waits = "the store is not founded yet: all of fra/a1, fra/a2, fra/a3 must have been up together once"
    assert fleet.hosts["fra/a4"].node.store.problem == fleet.ask("fra/a4", put("k")).reason == waits
    fleet.restart("fra/a3")
    fleet.found()
    assert all(fleet.hosts[path].node.store.problem == "" for path in (*fleet.servers, "fra/a4"))


def test_an_agent_says_that_no_server_can_be_reached(three):
    assert three.hosts["fra/a5"].node.store.problem == ""
    for path in three.servers:
        three.kill(path)
    three.run("5s")
    assert three.hosts["fra/a5"].node.store.problem == (
        "no server of the store can be reached from fra/a5: fra/a1, fra/a2, fra/a3 do not answer"
    )


def test_an_agent_says_that_its_server_knows_no_leader_and_who_is_missing(three):
    left = three.part("fra/a5")._whom.another().path
    gone = sorted(three.others(left))
    for path in gone:
        three.kill(path)
    three.run("12s")
    problem = three.hosts["fra/a5"].node.store.problem
    assert f"{left} knows no server that leads" in problem
    assert ", ".join(gone) in problem
    three.restart(gone[0])
    three.run("10s")
    assert three.hosts["fra/a5"].node.store.problem == ""


def test_an_agent_that_is_no_server_lists_what_is_known_of_each(three):
    near = three.part("fra/a5")._whom.another().path
    assert troubles_of_servers(three, "fra/a5") == {}
    gone = three.others(near)
    for path in gone:
        three.kill(path)
    three.run("12s")
    assert troubles_of_servers(three, "fra/a5") == dict.fromkeys(gone, "dead")


def test_a_server_that_knows_no_leader_lists_who_is_silent_before_the_link_ends(three):
    leader = three.leader()
    cut, _ = three.others(leader)
    three.hears = lambda source, target, body: cut not in (source, target)
    three.run("10s")
    assert troubles_of_servers(three, cut) == dict.fromkeys(three.others(cut), "silent")


def test_a_full_disk_of_a_leader_hands_over_and_writes_go_on_by_themselves(three):
    leader = three.leader()
    three.hosts[leader].disk_says = "full: no space"
    three.begin_asking(leader, put("k"))
    three.run("3s")
    assert three.leader() != leader
    view = three.hosts[leader].node.store
    assert "is full" in view.warning
    assert f"{three.leader()} leads" in view.warning
    assert view.problem == "", "it can be written to from here"
    assert isinstance(three.ask(leader, put("l")), Transacted)
    three.hosts[leader].disk_says = ""
    three.run("3s")
    assert three.hosts[leader].node.store.warning == ""
    found = three.ask(leader, read("l", Consistency.LOCAL))
    assert found.keys


def test_who_is_kept_from_leading_by_the_full_disk_of_another_names_that_disk(three):
    leader = three.leader()
    full, well = three.others(leader)
    three.hosts[full].disk_says = "full: no space"
    three.begin_asking(leader, put("k"))
    three.run("3s")
    three.kill(leader)
    three.run("30s")
    cause = f"the disk of {full} is full, without which no leader can be elected: free space there; missing: {leader}"
    for path in (full, well):
        refused = three.ask(path, put("k2"))
        assert isinstance(refused, Refused)
        assert refused.reason.startswith(cause)
        assert refused.reason.endswith("writes go on by themselves when there is")
        assert three.hosts[path].node.store.problem.startswith(cause)
    assert troubles_of_servers(three, well) == {full: "disk full", leader: "no link"}
    three.hosts[full].disk_says = ""
    three.run("6s")
    assert isinstance(three.ask(well, put("k3")), Transacted)
    assert troubles_of_servers(three, three.leader()) == {leader: "no link"}


def test_a_failed_disk_ends_one_part_loudly_and_its_agent_asks_others(three):
    leader = three.leader()
    three.hosts[leader].disk_says = "input/output error"
    three.begin_asking(leader, put("k"))
    three.run("5s")
    assert three.hosts[leader].node.store.role == "failed"
    assert "input/output error" in troubles(three, leader)[-1]
    assert three.leader() not in (leader, None)
    assert isinstance(three.ask(leader, put("l")), Transacted)
    since = three.now
    three.run("3s")
    assert not [source for source, _, _ in three.bodies(Consensus, since) if source == leader], "it says nothing more"


def test_agents_go_to_another_server_when_theirs_has_failed(three):
    server = three.part("fra/a5")._whom.another().path
    if server == three.leader():
        three.ask(server, TransferLeadership())
    three.hosts[server].disk_says = "input/output error"
    three.ask(three.leader(), put("k"))
    three.run("2s")
    assert three.hosts[server].node.store.role == "failed"
    assert isinstance(three.ask("fra/a5", put("l")), Transacted)


# ---- changes of servers


def test_an_agent_is_added_removed_and_added_again_and_starts_afresh_each_time(three):
    leader = three.leader()
    disks = []
    for _ in range(2):
        assert isinstance(three.ask(leader, AddServer("fra/a4")), Done)
        three.ask(leader, put("k"))
        three.run("2s")
        assert three.hosts["fra/a4"].node.store.role == "follower"
        disks.append(three.server("fra/a4").me.disk)
        assert isinstance(three.ask(leader, RemoveServer("fra/a4")), Done)
        three.run("3s")
        assert three.hosts["fra/a4"].node.store.role == "agent"
    assert disks[0] != disks[1]
    three.restart("fra/a4")
    three.run("2s")
    assert three.hosts["fra/a4"].node.store.role == "agent"


def troubles_of_servers(fleet, path):
    return {server.path: server.trouble for server in fleet.hosts[path].node.store.servers if server.trouble}


def test_the_leader_knows_who_is_dead_wiped_or_stores_nothing(three):
    leader = three.leader()
    wiped, full = three.others(leader)
    assert troubles_of_servers(three, leader) == {}
    three.hosts[full].disk_says = "full: no space"
    three.begin_asking(leader, put("k"))
    three.run("4s")
    assert troubles_of_servers(three, leader) == {full: "stores nothing"}
    assert troubles_of_servers(three, full) == {full: "disk full"}
    three.hosts[full].disk_says = ""
    three.run("3s")
    assert troubles_of_servers(three, leader) == {}
    three.kill(wiped)
    three.run("3s")
    assert troubles_of_servers(three, leader) == {wiped: "no link"}
    three.hosts[wiped].stored.clear()
    three.begin(wiped)
    three.run("5s")
    assert troubles_of_servers(three, leader) == {wiped: "wiped"}


def test_a_wiped_server_has_no_problem_as_long_as_the_others_take_writes_for_it(three):
    wiped = three.others(three.leader())[0]
    three.kill(wiped)
    three.hosts[wiped].stored.clear()
    three.begin(wiped)
    three.run("5s")
    assert isinstance(three.ask(wiped, put("k")), Transacted)
    view = three.hosts[wiped].node.store
    assert view.problem == ""
    assert f"disk is new; the group exists: dislocate servers add {wiped}" in view.warning


def test_an_agent_that_is_no_server_any_more_has_a_problem_when_nobody_takes_its_writes(three):
    leader = three.leader()
    removed, other = three.others(leader)
    assert isinstance(three.ask(leader, RemoveServer(removed)), Done)
    three.kill(leader)
    three.kill(other)
    three.run("6s")
    view = three.hosts[removed].node.store
    assert "can be reached" in view.problem
    assert "stays out" in view.warning


def test_a_removed_server_has_no_problem_as_long_as_the_others_take_writes_for_it(three):
    leader = three.leader()
    removed = three.others(leader)[0]
    assert isinstance(three.ask(leader, RemoveServer(removed)), Done)
    three.run("3s")
    assert isinstance(three.ask(removed, put("k")), Transacted)
    view = three.hosts[removed].node.store
    assert view.problem == ""
    assert "was removed from the group" in view.warning


def test_what_an_earlier_membership_left_on_the_disk_is_gone_when_the_agent_is_let_in_again(three):
    leader = three.leader()
    three.ask(leader, AddServer("fra/a4"))
    for number in range(20):
        three.ask(leader, put(f"k{number}"))
    three.run("2s")
    three.ask(leader, RemoveServer("fra/a4"))
    three.run("3s")
    assert any(is_of_store(record.key) for record in three.disk("fra/a4")), "kept, in case somebody wants it"
    three.restart("fra/a4")
    three.run("2s")
    three.hosts["fra/a4"].stored.append(StoredRecord("store/key/left", b"x"))
    left = three.part("fra/a4")
    left._belonging.left_behind += ("store/key/left",)
    assert isinstance(three.ask(leader, AddServer("fra/a4")), Done)
    three.run("3s")
    assert "store/key/left" not in {record.key for record in three.disk("fra/a4")}
    three.restart("fra/a4")
    three.run("3s")
    assert three.hosts["fra/a4"].node.store.role == "follower"


def test_what_is_to_be_dropped_at_an_admission_is_dropped_by_the_write_that_succeeds(three):
    belonging = three.part("fra/a4")._belonging
    belonging.left_behind = ("log/0000000000000001", "store/key/old")
    written = []
    store = belonging._out.store
    belonging._out.store = lambda records, **more: (
        written.append({one.key for one in records}),
        store(records, **more),
    )
    write = Write(99, (StoredRecord("raft/group", b""),), drops_store=True)
    belonging._founding._writes._awaiting[99] = write
    belonging._write(write)
    seq = belonging._out._store_seq
    belonging._out.store_failed(seq, "full: no space")
    belonging._write(write)
    assert written[0] == written[1] == {"raft/group", "log/0000000000000001", "store/key/old"}


def test_a_leader_that_removes_itself_says_done(three):
    leader = three.leader()
    assert isinstance(three.ask(leader, RemoveServer(leader)), Done)
    three.run("3s")
    assert three.leader() not in (leader, None)


def test_a_removal_asked_again_of_the_next_leader_is_done_not_unknown(three):
    leader = three.leader()
    gone, _ = three.others(leader)
    three.hears = lambda source, target, body: not (isinstance(body, Answered) and target == "fra/a5")
    number = three.begin_asking("fra/a5", RemoveServer(gone))
    three.run("2s")
    three.hears = lambda *_: True
    for path in list(three.hosts["fra/a5"].links):
        three.hosts["fra/a5"].links.pop(path)
        three.hosts[path].links.pop("fra/a5", None)
        three.give("fra/a5", LinkLost(three.hosts[path].node.identity, "cut"))
        three.give(path, LinkLost(three.hosts["fra/a5"].node.identity, "cut"))
    three.run("5s")
    assert isinstance(three.answer("fra/a5", number), Done)


def test_an_addition_whose_agent_never_answers_is_refused_and_one_that_is_unknown_at_once(three):
    leader = three.leader()
    three.vanish("fra/a4")
    began = three.now
    refused = three.ask(leader, AddServer("fra/a4"))
    assert isinstance(refused, Refused)
    assert "does not answer" in refused.reason
    assert three.now - began < 9 * SECOND
    assert "no agent 'fra/zz'" in three.ask(leader, AddServer("fra/zz")).reason


def test_an_addition_that_is_called_off_is_answered_with_why(three):
    """Its newcomer said which disk it has, and was never heard of again."""
    leader = three.leader()
    three.hears = lambda source, target, body: not (isinstance(body, Consensus) and target == "fra/a4")
    number = three.begin_asking(leader, AddServer("fra/a4"))
    three.run("59s")
    assert three.answer(leader, number) is None
    three.run("8s")
    answer = three.answer(leader, number)
    assert isinstance(answer, Refused | Uncertain)
    assert three.server(leader).changing._changes == []


def test_leadership_is_handed_to_whom_is_named_and_asking_again_is_done_too(three):
    leader = three.leader()
    to = three.others(leader)[0]
    assert isinstance(three.ask(leader, TransferLeadership(to)), Done)
    assert three.leader() == to
    assert isinstance(three.ask(leader, TransferLeadership(to)), Done)
    refused = three.ask(leader, TransferLeadership("fra/a5"))
    assert isinstance(refused, Refused)


# ---- copies


def test_a_backup_larger_than_a_links_queue_comes_in_slices_and_is_restored(three):
    leader = three.leader()
    for number in range(24):
        assert isinstance(three.ask("fra/a5", put(f"big/{number:02}", "x" * 200_000)), Transacted)
    backup = three.ask("fra/a5", BackUp())
    assert isinstance(backup, BackedUp)
    assert len(backup.data) > 4 << 20
    slices = [body for _, to, body in three.bodies(Asked) if isinstance(body.request, BackupPart)]
    assert len(slices) >= 5
    assert three.ask(leader, BackUp()).data == backup.data
    three.ask("fra/a5", put("big/00", "changed"))
    restored = three.ask("fra/a5", Restore(backup.data), within="60s")
    assert isinstance(restored, Transacted)
    assert three.ask("fra/a5", read("big/00")).keys[0].value == b"x" * 200_000


def test_a_restore_that_ends_in_the_middle_was_not_done(three):
    backup = three.ask("fra/a5", BackUp())
    for number in range(20):
        three.ask("fra/a5", put(f"big/{number}", "x" * 60_000))
    backup = three.ask("fra/a5", BackUp())
    three.ask("fra/a5", put("big/0", "changed"))
    heard = []

    def hears(source, target, body):
        """Servers hear each other no more when eight parts have been heard of some thirty."""
        if isinstance(body, Asked) and isinstance(body.request, RestoreChunk):
            heard.append(body.request.chunk)
        return len(heard) < 8 or not isinstance(body, Consensus)

    three.hears = hears
    number = three.begin_asking("fra/a5", Restore(backup.data))
    three.run("30s")
    assert len(heard) >= 8
    answer = three.answer("fra/a5", number)
    assert isinstance(answer, Refused), answer
    assert answer.reason.startswith("nothing was restored")
    three.heal()
    three.hears = lambda *_: True
    three.run("20s")
    assert three.ask("fra/a5", read("big/0")).keys[0].value == b"changed"


# ---- nonsense


def test_requests_that_no_agent_makes_are_dropped_and_counted(three):
    leader = three.leader()
    before = three.hosts[leader].node.counters.get("input_dropped", 0)
    three.say("fra/a5", leader, Asked(1 << 63, 0, put("k")))
    three.say("fra/a5", leader, Asked(77, 0, BackUp()))
    three.say("fra/a5", leader, Asked(78, 0, Restore(b"")))
    assert three.hosts[leader].node.counters["input_dropped"] == before + 3


def test_a_request_that_another_version_let_through_is_refused_by_the_server(three):
    leader = three.leader()
    three.say("fra/a5", leader, Asked(79, 0, put("/no")))
    three.say("fra/a5", leader, Asked(80, 0, GrantLease(-5)))
    three.run("50ms")
    answers = [body for source, to, body in three.bodies(Answered) if to == "fra/a5" and body.seq in (79, 80)]
    assert [type(answer.result) for answer in answers] == [Refused, Refused]


def test_an_answer_of_another_kind_than_was_asked_for_is_dropped(three):
    three.hears = lambda source, target, body: not isinstance(body, Answered)
    number = three.begin_asking("fra/a5", read("k"))
    seq = next(iter(three.part("fra/a5")._router._asking))
    server = three.part("fra/a5")._whom.another().path
    three.say(server, "fra/a5", Answered(seq, Transacted(True, 1, ())))
    assert three.answer("fra/a5", number) is None
    assert three.hosts["fra/a5"].node.counters["input_dropped"] >= 1


def test_records_of_the_store_are_readable_again_after_all_servers_were_killed(three):
    three.ask("fra/a1", put("k"))
    for path in three.servers:
        three.kill(path)
    three.run("200ms")
    for path in three.servers:
        three.begin(path)
    three.found()
    assert [kv.value for kv in three.ask("fra/a5", read("k")).keys] == [b"v"]


def test_an_answer_that_is_passed_on_keeps_all_that_it_says():
    """Found by the swarm: a refusal that had lost `unlogged` on its way hid a sending that was done."""
    asker = NodeId("fra", "a9", 1)
    answered = Answered(3, None, "fra/a1", "why", doubt=True, elsewhere=True, unlogged=True)
    assert addressed(answered, asker) == Answered(
        3, None, "fra/a1", "why", doubt=True, asker=asker, elsewhere=True, unlogged=True
    )
