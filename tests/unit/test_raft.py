"""Raft: what the owner of one server, or somebody who waits for an answer, would notice."""

import msgspec
import pytest

from dislocate.core.boundary.events import LeaderDeposed, LeaderElected, ServersChanged
from dislocate.core.consensus.duties import NOTHING, Timing
from dislocate.core.consensus.elections import NEVER
from dislocate.core.consensus.messages import (
    Append,
    Appended,
    Configuration,
    LeadNow,
    SnapshotChunk,
    SnapshotReceived,
    VoteAsked,
    VoteGiven,
)
from dislocate.core.consensus.state import Role
from dislocate.core.consensus.transfer import is_clearly_better, is_disk_too_slow
from dislocate.core.units import MILLISECOND, SECOND
from tests.support.raft_disk import disk_with, server_id, servers
from tests.support.tiny_raft import TinyRaft


def led(names="abc", **settings):
    """A group with a leader, everybody up to date."""
    group = TinyRaft(names, **settings)
    group.run_until(group.leader, "20s")
    group.run("1s")
    return group


def followers(group):
    return [one.name for one in group.running() if one.name != group.leader()]


def change(group, names):
    leader = group.leader()
    return group.do(leader, lambda raft: raft.change(servers(names), group.now))


def configuration(group):
    return group.raft(group.leader()).configuration


def fill(group, count, gap="5ms"):
    for number in range(count):
        group.propose(f"{len(group.committed)}.{number}")
        group.run(gap)
    group.run("500ms")


# ---- elections


def test_a_fresh_group_has_a_leader_within_twice_its_patience():
    for seed in range(10):
        group = TinyRaft("abc", seed=str(seed))
        assert group.run_until(group.leader, "5s") <= 2100 * MILLISECOND


def test_a_group_of_one_leads_itself_at_once_and_reads():
    group = TinyRaft("a")
    assert group.run_until(group.leader, "1s") < 10 * MILLISECOND
    group.propose("alone")
    group.read(1)
    group.run("50ms")
    assert group.texts("a") == ["alone"]
    assert group.servers["a"].reads == [1]


@pytest.mark.parametrize("names", ["a", "abc"])
def test_whose_disk_hangs_raises_its_term_once(names):
    group = TinyRaft(names)
    for name in names:
        group.servers[name].disk.is_stuck = True
    group.run("60s")
    assert set(group.terms().values()) <= {1, 2}


def test_who_could_not_keep_a_vote_promises_none_so_that_terms_do_not_climb():
    group = led()
    leader, term = group.leader(), max(group.terms().values())
    full, well = followers(group)
    group.raft(full).is_full = True
    group.servers[full].disk.is_stuck = True
    group.kill(leader)
    group.run("60s")
    assert group.terms()[well] == term
    assert group.raft(well).why_no_leader == (
        f"the disk of dc/{full} is full, without which no leader can be elected: free space there; missing: dc/{leader}"
    )
    assert group.raft(well).full() == (server_id(full),)
    assert group.raft(full).missing() == (server_id(leader),), "the other one asks it for a vote now and then"
    group.raft(full).is_full = False
    group.servers[full].disk.is_stuck = False
    group.run_until(lambda: group.leader() == well, "5s")
    group.run("1s")
    assert group.raft(well).full() == ()


def test_whose_disk_is_full_is_no_obstacle_where_the_others_are_a_majority():
    group = led("abcde")
    full = followers(group)[0]
    group.raft(full).is_full = True
    group.servers[full].disk.is_stuck = True
    group.kill(old := group.leader())
    group.run_until(lambda: group.leader() not in ("", old), "5s")


def test_servers_that_do_not_know_why_a_promise_is_refused_take_it_for_a_refusal():
    said = msgspec.msgpack.decode(msgspec.msgpack.encode(VoteGiven(False, True, disk_full=True)))
    assert said[1:3] == [False, True], "what stands behind these an older one does not read"
    assert msgspec.msgpack.decode(msgspec.msgpack.encode((2, False, True)), type=VoteGiven) == VoteGiven(False, True)


@pytest.mark.parametrize("seed", range(10))
def test_a_killed_leader_is_replaced_at_once_when_its_host_refuses(seed):
    group = led(seed=str(seed), latency="100us")
    group.kill(group.leader())
    assert group.run_until(group.leader, "5s") < 400 * MILLISECOND


@pytest.mark.parametrize("seed", range(5))
def test_across_an_ocean_too(seed):
    group = led("abcde", seed=str(seed), latency="75ms")
    group.kill(group.leader())
    assert group.run_until(group.leader, "9s") < 3 * 150 * MILLISECOND + 1 * SECOND


def test_a_silent_leader_is_replaced_within_the_drawn_out_patience():
    group = led()
    group.isolate(old := group.leader())
    took = group.run_until(lambda: group.leader() not in ("", old), "5s")
    assert 900 * MILLISECOND <= took <= 2500 * MILLISECOND


def test_patience_grows_with_the_distance_of_the_servers():
    group = led(latency="150ms")
    group.isolate(old := group.leader())
    assert group.run_until(lambda: group.leader() not in ("", old), "9s") >= 2900 * MILLISECOND


def test_a_server_that_stood_still_does_not_look_far_away():
    group = led()
    group.pause(slow := followers(group)[0])
    group.run("6s")
    group.resume(slow)
    group.run("300ms")
    assert group.raft(group.leader()).largest_rtt < 100 * MILLISECOND


def test_a_leader_without_a_majority_steps_down_and_says_who_is_missing():
    group = led()
    leader = group.leader()
    for name in followers(group):
        group.kill(name)
    group.run("1500ms")
    assert group.raft(leader).role is not Role.LEADER
    assert "majority" in group.told(LeaderDeposed, leader)[0].reason
    missing = ", ".join(f"dc/{name}" for name in sorted(set("abc") - {leader}))
    assert group.raft(leader).why_no_leader == f"1 of 3 servers can be heard, 2 are needed; missing: {missing}"
    assert group.raft(leader).missing() == tuple(server_id(name) for name in sorted(set("abc") - {leader}))


def test_a_minority_comes_back_without_an_election_storm():
    group = led("abcde")
    term = max(group.leaders)
    away = [group.leader(), followers(group)[0]]
    for one in away:
        for other in set("abcde") - set(away):
            group.cut(one, other, both=True)
    group.run("60s")
    group.heal()
    group.run("10s")
    assert len({*group.terms().values()}) == 1
    assert max(group.leaders) <= term + 2


def test_a_question_is_asked_again_when_the_link_is_there():
    group = TinyRaft("ab")
    group.cut("a", "b", both=True)
    group.campaign("a")
    group.heal()
    group.run("20ms")
    assert group.leader() == ""
    group.lose_link("a", "b")
    group.run("60ms")
    assert group.leader() == "a"


def test_a_leader_that_restarted_is_believed_that_it_does_not_lead():
    """Its host never refused, and the others heard it a moment ago."""
    group = led()
    leader = group.leader()
    group.kill(leader, verified=False)
    group.start(leader)
    group.campaign(leader)
    assert group.run_until(group.leader, "1s") < 50 * MILLISECOND


def test_patience_may_be_known_before_a_leader_measured_it():
    group = TinyRaft("abc")
    for name in "abc":
        group.raft(name).largest_rtt = 300 * MILLISECOND
    group.campaign("a")
    group.cut("*", "a")
    group.run("100ms")
    assert group.do("b", lambda raft: raft.stalled(0, group.now)) is None
    assert group.raft("b").deadline() - group.now >= 3 * SECOND


def test_a_leader_of_a_past_term_learns_so():
    group = led()
    old = group.leader()
    group.pause(old)
    group.run_until(lambda: max(group.leaders.values(), default="") and group.leader() != old, "9s")
    group.servers[old].waiting.clear()
    group.resume(old)
    group.run("300ms")
    assert group.raft(old).role is Role.FOLLOWER
    assert group.raft(old).term == max(group.leaders)


# ---- replication


def test_what_waits_together_is_one_save_and_one_append_to_each():
    group = led()
    leader = group.leader()
    before = len(group.said(Append, leader))
    raft = group.raft(leader)
    for number in range(50):
        assert raft.propose(b"%d" % number, group.now) == raft.last_index
    raft.flush(group.now)
    duties = raft.take()
    assert [len(save.entries) for save in duties.saves] == [50]
    assert [len(body.entries) for _, _, body in duties.messages] == [50, 50]
    assert before


def test_big_ones_go_in_several_appends():
    group = led(timing=Timing(append_budget=1000))
    raft = group.raft(group.leader())
    for _ in range(5):
        raft.propose(bytes(400), group.now)
    raft.flush(group.now)
    messages = raft.take().messages
    assert [len(body.entries) for _, _, body in messages] == [2, 2, 1, 2, 2, 1]


def test_a_flush_does_not_wait_for_the_one_before():
    group = led(latency="100ms")
    for number in range(10):
        group.propose(str(number))
        group.run("2ms")
    group.run("215ms")
    assert len(group.acknowledged) == 10


@pytest.mark.parametrize("timing", [Timing(inflight_messages=3), Timing(inflight_bytes=90)])
def test_no_more_is_under_way_than_may_be(timing):
    group = led(latency="100ms", timing=timing)
    leader = group.leader()
    before = len([one for one in group.said(Append, leader) if one.entries])
    for number in range(20):
        group.propose(str(number))
        group.run("2ms")
    assert len([one for one in group.said(Append, leader) if one.entries]) - before <= 2 * 4
    group.run("3s")
    assert len(group.acknowledged) == 20


def test_proposals_beyond_the_limit_are_refused_until_some_are_committed():
    group = led(timing=Timing(uncommitted_bytes=200))
    leader = group.leader()
    for name in followers(group):
        group.servers[name].disk.is_stuck = True
    accepted = [group.propose("x" * 50) for _ in range(5)]
    assert accepted[2:] == [None, None, None]
    assert "waits for a majority" in group.raft(leader).refusal
    for name in followers(group):
        group.servers[name].disk.is_stuck = False
    group.run("200ms")
    assert group.propose("again") is not None


def test_one_big_proposal_is_taken_when_nothing_waits():
    group = led(timing=Timing(uncommitted_bytes=10))
    assert group.propose("x" * 500) is not None
    group.run("100ms")
    assert len(group.acknowledged) == 1


def test_who_does_not_lead_takes_no_proposals_and_no_reads():
    group = led()
    other = followers(group)[0]
    assert group.propose("no", at=other) is None
    assert group.raft(other).refusal == "this server does not lead"
    assert not group.read(1, at=other)


def test_followers_know_of_a_commit_before_the_next_heartbeat():
    group = led()
    group.propose("quick")
    group.run("40ms")
    assert all(group.texts(name) == ["quick"] for name in "abc")


def test_a_leader_with_a_slow_disk_commits_by_the_others():
    group = led()
    group.servers[group.leader()].disk.latency = 300 * MILLISECOND
    group.propose("quick")
    group.run("20ms")
    assert b"quick" in group.acknowledged


def test_what_was_proposed_and_not_sent_is_never_committed_after_a_change_of_leaders():
    group = led()
    leader = group.leader()
    raft = group.raft(leader)
    index = raft.propose(b"not sent", group.now)
    assert raft.last_index == index
    group.do(
        leader,
        lambda raft: raft.receive(server_id(followers(group)[0]), raft.term + 1, VoteGiven(False, False), group.now),
    )
    assert raft.role is Role.FOLLOWER
    assert raft.last_index == index - 1


def test_a_long_contradiction_is_found_in_a_few_steps():
    """One question for each term that differs, not for each entry."""
    disks = {
        "a": disk_with("abc", "2 " + "5 " * 100, 5),
        "b": disk_with("abc", "2 " + "3 " * 150, 3),
        "c": disk_with("abc", "2 " + "5 " * 100, 5),
    }
    group = TinyRaft("abc", disks=disks)
    group.campaign("a")
    group.run("500ms")
    refusals = [one for one in group.said(Appended, "b", "a") if not one.accepted]
    assert 1 <= len(refusals) <= 3
    assert group.texts("a") == group.texts("b")


def test_appends_that_vanish_are_sent_again():
    group = led()
    leader, other = group.leader(), followers(group)[0]
    group.cut(leader, other)
    fill(group, 5)
    group.heal()
    group.run("300ms")
    assert group.texts(other) == group.texts(leader)


def test_nothing_to_do_is_false():
    group = led()
    duties = group.raft("a").take()
    assert duties is NOTHING
    assert not duties


# ---- reads


def test_reads_that_wait_together_share_a_round():
    group = led()
    leader = group.leader()
    before = len(group.said(Append, leader))
    for number in range(30):
        assert group.read(number)
    group.run("11ms")
    assert sorted(group.servers[leader].reads) == list(range(30))
    assert len(group.said(Append, leader)) - before <= 4


def test_a_read_waits_until_the_leader_knows_what_is_committed():
    group = TinyRaft("abc")
    for name in "abc":
        group.servers[name].disk.latency = 60 * MILLISECOND
    group.run_until(group.leader, "5s")
    leader = group.leader()
    assert group.read(1)
    group.run("30ms")
    assert group.servers[leader].reads == []
    group.run("300ms")
    assert group.servers[leader].reads == [1]


def test_reads_are_lost_with_leadership_and_said_to_be():
    group = led()
    leader = group.leader()
    group.isolate(leader)
    group.read(1)
    group.run("3s")
    assert group.servers[leader].reads == []
    assert group.servers[leader].reads_lost == [1]


# ---- transfer


def test_leadership_is_handed_over_in_a_few_round_trips():
    group = led()
    to = followers(group)[1]
    fill(group, 3)
    assert group.do(group.leader(), lambda raft: raft.transfer(server_id(to), group.now)) == ""
    assert group.run_until(lambda: group.leader() == to, "1s") < 50 * MILLISECOND


def test_while_leadership_is_handed_over_nothing_is_proposed_and_a_failure_is_overcome():
    group = led()
    leader, to = group.leader(), followers(group)[0]
    group.cut(leader, to)
    group.propose("before")
    group.run("20ms")
    assert group.do(leader, lambda raft: raft.transfer(server_id(to), group.now)) == ""
    assert group.propose("during") is None
    assert "handed over" in group.raft(leader).refusal
    group.run("1500ms")
    assert group.leader() == leader
    assert group.propose("after") is not None


def test_a_transfer_that_makes_no_sense_is_refused_with_the_reason():
    group = led(spare="d")
    leader = group.leader()

    def ask(to, at=leader):
        return group.do(at, lambda raft: raft.transfer(server_id(to), group.now))

    assert ask(leader) == f"dc/{leader} leads already"
    assert ask("d") == "dc/d is no voter"
    assert ask("a", at=followers(group)[0]) == "this server does not lead"
    for name in followers(group):
        group.do(leader, lambda raft, name=name: raft.peer_lost(server_id(name), group.now))
    assert group.do(leader, lambda raft: raft.transfer(None, group.now)) == "no other voter answers"


def test_a_server_that_is_clearly_better_placed_leads_after_a_minute():
    group = led(latency="50ms")
    better = followers(group)[0]
    group.raft(better).quorum_rtt = 20 * MILLISECOND
    group.run("50s")
    assert group.leader() != better
    group.run("20s")
    assert group.leader() == better
    assert len(group.leaders) == 2


@pytest.mark.parametrize(("own", "other", "better"), [(100, 59, True), (100, 60, False), (12, 1, True), (11, 1, False)])
def test_what_counts_as_better_placed(own, other, better):
    assert is_clearly_better(own * MILLISECOND, other * MILLISECOND) is better


@pytest.mark.parametrize(("own", "other", "slow"), [(600, 100, True), (600, 400, False), (400, 1, False)])
def test_what_counts_as_too_slow_a_disk(own, other, slow):
    assert is_disk_too_slow(own, other, 500) is slow


# ---- membership


def test_a_newcomer_gets_the_log_first_and_then_a_vote():
    group = led(spare="d")
    fill(group, 10)
    assert change(group, "abcd") == ""
    group.run("3s")
    assert configuration(group) == Configuration(servers("abcd"))
    assert group.texts("d") == group.texts("a")
    stages = [(event.voters, event.learners) for event in group.told(ServersChanged, group.leader())]
    named = [tuple(str(one) for one in servers(names)) for names in ("abc", "abcd", "d")]
    assert stages == [(named[0], ()), (named[0], named[2]), (named[1], ()), (named[1], ())]


def test_a_wiped_server_is_replaced_in_one_change():
    group = led("abc", spare="c2")
    group.run_until(lambda: group.leader() != "c" or group.do("c", lambda raft: raft.transfer(None, group.now)), "3s")
    group.run("1s")
    group.kill("c")
    fill(group, 5)
    assert change(group, "abc2") == ""
    group.run("5s")
    assert configuration(group) == Configuration(servers("abc2"))
    group.kill(followers(group)[0])
    group.run_until(group.leader, "5s")
    group.propose("still a majority")
    group.run("2s")
    assert b"still a majority" in group.acknowledged


def test_everybody_can_be_replaced_at_once():
    group = led("abc", spare="d e f")
    fill(group, 10)
    assert change(group, "def") == ""
    group.run("5s")
    assert group.leader() in "def"
    assert configuration(group) == Configuration(servers("def"))
    assert not any(group.raft(name).is_voter for name in "abc")
    assert all(group.raft(name).deadline() == NEVER for name in "abc")


def test_a_leader_that_is_removed_hands_over():
    group = led()
    old = group.leader()
    assert change(group, "".join(followers(group))) == ""
    took = group.run_until(lambda: group.leader() not in ("", old), "3s")
    assert took < 100 * MILLISECOND
    assert group.told(LeaderDeposed, old)[0].reason == "this server was removed from the group"


def test_a_removed_server_is_told():
    group = led()
    removed = followers(group)[0]
    assert change(group, "abc".replace(removed, "")) == ""
    group.run("2s")
    assert not group.raft(removed).is_voter
    assert removed not in {to for _, _, _, to, _, what in group.log[-6:] if isinstance(what, Append)}


@pytest.mark.parametrize("names", ["ab", "abcd", "a", "abcde"])
def test_even_numbers_and_single_servers_are_groups_too(names):
    group = led("abc", spare="d e")
    if group.leader() != "a":
        group.do(group.leader(), lambda raft: raft.transfer(server_id("a"), group.now))
        group.run("1s")
    assert change(group, names) == ""
    group.run("3s")
    assert configuration(group) == Configuration(servers(names))
    group.propose("written")
    group.run("300ms")
    assert all("written" in group.texts(name) for name in names)


def test_one_change_at_a_time_and_one_can_be_called_off():
    group = led(spare="d e")
    group.kill("d")
    assert change(group, "abcd") == ""
    group.run("1s")
    assert change(group, "abce") == "another change is under way"
    assert change(group, "abc") == ""
    group.run("100ms")
    assert configuration(group) == Configuration(servers("abc"))
    assert change(group, "abce") == ""
    group.run("3s")
    assert configuration(group) == Configuration(servers("abce"))


def test_a_change_that_makes_no_sense_is_refused_with_the_reason():
    group = led()
    assert change(group, "abc") == "these are the voters already"
    assert change(group, "") == "a group needs at least one voter"
    other = followers(group)[0]
    assert group.do(other, lambda raft: raft.change(servers("ab"), group.now)) == "this server does not lead"


@pytest.mark.parametrize("after", range(0, 160, 8))
def test_a_leader_killed_at_any_step_of_a_change_leaves_the_old_or_the_new_group(after):
    group = led("abc", spare="d e", seed=str(after))
    fill(group, 5)
    leader = group.leader()
    goal = f"{followers(group)[0]}de"
    assert change(group, goal) == ""
    group.run(f"{after}ms")
    group.kill(leader)
    group.run("5s")
    group.start(leader)
    group.run_until(group.leader, "9s")
    group.run("5s")
    group.propose("after")
    group.run("1s")
    final = configuration(group)
    assert not final.outgoing
    assert final.voters in (servers("abc"), servers(goal))
    assert all("after" in group.texts(name) for name in ("abc" if final.voters == servers("abc") else goal))
    if final.voters != servers(goal):
        assert change(group, goal) == ""
        group.run("5s")
        assert configuration(group) == Configuration(servers(goal))


# ---- snapshots


def test_who_is_behind_the_compacted_log_gets_a_snapshot_and_what_came_after():
    group = led()
    leader, behind = group.leader(), followers(group)[0]
    group.kill(behind)
    fill(group, 30)
    group.compact(leader)
    group.run("50ms")
    fill(group, 5)
    group.start(behind)
    group.run("1s")
    assert group.texts(behind) == group.texts(leader)
    assert [one.next_chunk for one in group.said(SnapshotReceived, behind)][-1] == group.said(SnapshotChunk)[0].chunks


def test_while_a_snapshot_is_installed_the_log_stands_still():
    group = led()
    leader, behind = group.leader(), followers(group)[0]
    group.kill(behind)
    fill(group, 10)
    group.compact(leader)
    group.run("50ms")
    group.servers[behind].disk.latency = 3 * SECOND
    group.start(behind)
    group.run("400ms")
    last = group.raft(behind).last_index
    fill(group, 10)
    assert group.raft(behind).last_index == last
    group.run("8s")
    assert group.leader() == leader
    assert group.texts(behind) == group.texts(leader)


def test_another_leader_finishes_what_one_began_to_send():
    group = led(timing=Timing(snapshot_window=30), latency="20ms")
    leader, behind = group.leader(), followers(group)[0]
    group.kill(behind)
    fill(group, 40, "25ms")
    for name in "abc":
        if name != behind:
            group.compact(name)
    group.run("100ms")
    group.start(behind)
    group.run("150ms")
    assert group.said(SnapshotChunk, leader)
    group.kill(leader)
    group.run_until(group.leader, "5s")
    group.run("4s")
    assert group.texts(behind) == group.texts(group.leader())
    assert len(group.texts(behind)) == 40


def test_a_snapshot_on_its_way_says_from_where_the_log_is_still_needed():
    group = led(timing=Timing(snapshot_window=30), latency="50ms")
    leader, behind = group.leader(), followers(group)[0]
    group.kill(behind)
    fill(group, 30, "20ms")
    group.compact(leader)
    group.run("50ms")
    group.start(behind)
    group.run("250ms")
    sent_as_of = group.said(SnapshotChunk, leader)[0].index
    fill(group, 5)
    raft = group.raft(leader)
    assert raft.applied > sent_as_of
    assert raft.keep_from == sent_as_of
    group.run("5s")
    assert raft.keep_from == raft.applied


# ---- restarts


def test_a_restarted_server_goes_on_from_its_disk():
    group = led()
    fill(group, 10)
    for name in "abc":
        group.compact(name, behind=3)
    group.run("50ms")
    fill(group, 4)
    for name in "abc":
        group.kill(name)
    for name in "abc":
        group.start(name)
    group.run_until(group.leader, "5s")
    group.run("1s")
    assert len(group.texts("a")) == 14
    assert group.texts("a") == group.texts("b") == group.texts("c")
    group.check_nothing_is_lost()


def test_only_the_leader_in_office_can_hand_over():
    group = led()
    leader, other, third = group.leader(), *followers(group)
    group.do(other, lambda raft: raft.receive(server_id(third), raft.term, LeadNow(), group.now))
    group.run("100ms")
    assert group.leader() == leader
    assert not [one for one in group.said(VoteAsked, other) if one.transferred]
    assert len(group.told(LeaderElected)) == 1
