"""The ways in which Raft implementations have lost data or stood still, each provoked here.

The numbers are those of the project's list of hazards, of which those of the store and of the disk are tested there; 17, a
disk that went back in time, was found since.  A test whose
cure is switched off must fail: that is what `test_without_its_cure_the_hazard_is_real` asserts, with `CURES` as the table
of switches.
"""

from itertools import product

import pytest

from dislocate.core.boundary.events import LeaderDeposed, LeaderElected
from dislocate.core.consensus.change import Changes, _CatchingUp
from dislocate.core.consensus.durability import Durability
from dislocate.core.consensus.duties import Restored, Timing
from dislocate.core.consensus.elections import Elections
from dislocate.core.consensus.following import Following
from dislocate.core.consensus.leading import Leading
from dislocate.core.consensus.log import Log
from dislocate.core.consensus.messages import (
    Append,
    Appended,
    Configuration,
    DiskForgot,
    Entry,
    HardState,
    SnapshotChunk,
    VoteAsked,
)
from dislocate.core.consensus.progress import Progress, Sending
from dislocate.core.consensus.quorum import UNBOUNDED
from dislocate.core.consensus.raft import Raft
from dislocate.core.consensus.reads import Reads
from dislocate.core.consensus.state import Role, ServerState
from dislocate.core.consensus.transfer import Transfers
from dislocate.core.streams import Stream
from dislocate.core.units import MILLISECOND
from tests.support.raft_disk import disk_with, name_of, server_id, servers
from tests.support.tiny_raft import TinyRaft


def led(names="abc", **settings):
    """A group with a leader, everybody up to date."""
    group = TinyRaft(names, **settings)
    group.run_until(group.leader, "10s")
    group.run("500ms")
    return group


def follower_of(group):
    return next(one.name for one in group.running() if one.name != group.leader())


# ---- 1 and 2: what is said must be durable


def test_1_a_vote_is_durable_before_it_is_told():
    group = TinyRaft("abc", watches_promises=False)  # the consequence is to show, not the broken promise
    group.cut("a", "c", both=True)
    group.servers["b"].disk.latency = 200 * MILLISECOND
    group.campaign("a")
    group.run("50ms")
    group.kill("b", keeps=0)  # a vote for a would not be on its disk
    group.isolate("a")
    group.start("b")
    group.campaign("c")
    group.run("800ms")
    assert group.leaders == {2: "c"}


def test_1_all_restart_at_once_and_nothing_is_overwritten():
    group = led(watches_promises=False)
    for name in "abc":
        group.servers[name].disk.latency = 10 * MILLISECOND
    for number in range(60):
        group.propose(f"before {number}")
        group.run("3ms")
    for name in "abc":
        group.kill(name, keeps=0)
    for name in "abc":
        group.start(name)
    group.run_until(group.leader, "5s")
    group.propose("after")
    group.run("1s")
    group.check_nothing_is_lost()
    assert group.texts("a") == group.texts("b") == group.texts("c")
    assert len(group.acknowledged) >= 15


def test_2_an_entry_is_durable_before_it_is_acknowledged():
    group = led(watches_promises=False)
    leader = group.leader()
    for name in "abc":
        group.servers[name].disk.latency = 40 * MILLISECOND
    group.propose("kept")
    group.run("30ms")  # it is everywhere, and on nobody's disk
    for name in "abc":
        group.kill(name, keeps=0)
    for name in "abc":
        if name != leader:
            group.start(name)
    group.run("5s")
    group.check_nothing_is_lost()
    assert "kept" not in group.texts(group.leader())


# ---- the append ABA race


def test_an_old_acknowledgement_of_the_disk_does_not_speak_for_the_same_entry_come_back():
    """Entry 2 of term 1 is written, replaced by another leader's, and comes back; then the first write is acknowledged."""
    me, one, other = servers("abc")
    restored = Restored(
        hard=HardState(1),
        configuration=Configuration(()),
        entries=(Entry(1, 1, b"", Configuration((me, one, other))),),
        compacted=0,
        compacted_term=0,
        applied=0,
    )
    raft = Raft(me=me, restored=restored, stream=Stream(1), now=0)
    first, second = Entry(1, 2, b"first"), Entry(2, 2, b"second")
    tickets = []
    for sender, term, message in (
        (one, 1, Append(1, 1, (first,), 0, 1)),
        (other, 2, Append(1, 1, (second,), 0, 1)),
        (one, 3, VoteAsked(2, 1, pre=False, transferred=True)),  # refused; others elect it
        (one, 3, Append(1, 1, (first,), 0, 1)),
    ):
        raft.receive(sender, term, message, 0)
        tickets += [save.ticket for save in raft.take().saves]
    assert len(tickets) == 4
    for ticket in tickets[:3]:  # now the disk has the second one, and the first one is on its way back
        raft.stored(ticket, 0)
        raft.receive(one, 3, Append(2, 1, (), 0, 2), 0)
        assert max(acknowledged(raft), default=0) < 2
    raft.stored(tickets[3], 0)
    assert acknowledged(raft) == [2]


def acknowledged(raft):
    """What leaves now."""
    return [word.index for _, _, word in raft.take().messages if isinstance(word, Appended) and word.accepted]


# ---- 4 and 5: terms


def test_4_a_server_that_was_cut_off_comes_back_and_deposes_nobody():
    group = led()
    leader, term = group.leader(), max(group.leaders)
    away = follower_of(group)
    group.isolate(away)
    group.run("200s")
    group.heal()
    group.run("10s")
    assert group.leader() == leader
    assert group.terms() == dict.fromkeys("abc", term)


def test_4_a_server_that_the_leader_cannot_reach_deposes_nobody():
    group = led()
    leader = group.leader()
    group.cut(leader, follower_of(group))
    group.run("60s")
    assert group.leader() == leader
    assert group.told(LeaderDeposed) == []


def test_5_a_question_from_a_lower_term_is_answered():
    """b has the longer log, c the higher term: c cannot win, and b must learn the term to win."""
    disks = {"a": disk_with("abc", "", 2), "b": disk_with("abc", "2 2", 2), "c": disk_with("abc", "", 9)}
    group = TinyRaft("abc", disks=disks)
    group.kill("a")
    group.run_until(group.leader, "20s")
    assert group.leader() == "b"


# ---- 6: links that carry one way only


def cliques(cuts):
    """Pairs of a, b, c that hear each other."""
    return [pair for pair in ("ab", "ac", "bc") if not {(pair[0], pair[1]), (pair[1], pair[0])} & set(cuts)]


def test_6_any_two_that_hear_each_other_make_progress():
    ways = [(one, other) for one in "abc" for other in "abc" if one != other]
    for is_cut in product((False, True), repeat=len(ways)):
        cuts = [way for way, cut in zip(ways, is_cut, strict=True) if cut]
        if not cliques(cuts):
            continue
        group = led(seed="".join(map(str, map(int, is_cut))))
        for source, to in cuts:
            group.cut(source, to)
        group.run("10s")
        group.run_until(group.leader, "10s")
        before = len(group.acknowledged)
        for step in range(40):
            for server in group.running():
                if server.raft.role is Role.LEADER:
                    group.propose(f"{step} at {server.name}", server.name)
            group.run("500ms")
            if len(group.acknowledged) > before:
                break
        assert len(group.acknowledged) > before, f"no progress with {cuts}"


# ---- 7: stale reads


def test_7_a_leader_that_stood_still_does_not_answer_from_the_past():
    group = led()
    old = group.leader()
    group.propose("first")
    group.run("100ms")
    group.pause(old)
    group.run_until(lambda: group.leader() != old or max(group.leaders.values()) == "", "10s")
    group.run("100ms")
    group.propose("second")
    group.run("1s")
    assert b"second" in group.acknowledged
    group.servers[old].is_paused = False  # what was said to it meanwhile has not been read yet
    assert group.read(1, at=old)
    group.run("1s")
    assert group.servers[old].reads == []
    assert group.servers[old].reads_lost == [1]


# ---- 8: figure 8


def test_8_an_entry_of_an_earlier_term_is_not_committed_by_counting():
    """Figure 8 of the paper: a brings an entry of term 2 to a majority in term 4, and dies; e overwrites it."""
    disks = {
        "a": disk_with("abcde", "2", 3),
        "b": disk_with("abcde", "2", 3),
        "c": disk_with("abcde", "", 3),
        "d": disk_with("abcde", "", 3),
        "e": disk_with("abcde", "3", 3, "e"),
    }
    group = TinyRaft("abcde", disks=disks, timing=Timing(append_budget=1))
    group.ignores = lambda source, to, message: (
        "e" in (source, to) or (isinstance(message, Append) and any(entry.term == 4 for entry in message.entries))
    )
    group.campaign("a")
    group.run("500ms")
    assert group.leaders == {4: "a"}
    assert [group.servers[name].disk.entries[2].term for name in "abc"] == [2, 2, 2]
    group.kill("a")
    group.ignores = lambda source, to, message: isinstance(message, VoteAsked) and source != "e"
    group.run("50ms")
    group.campaign("e")
    group.run("2s")
    assert group.leader() == "e"
    assert [group.servers[name].disk.entries[2].term for name in "bcde"] == [3, 3, 3, 3]


# ---- 9: membership


def test_9_two_majorities_never_decide_apart_during_a_change():
    group = led("abc", spare="d e")
    leader = group.leader()
    others = [name for name in "abc" if name != leader]
    assert group.do(leader, lambda raft: raft.change(servers(f"{leader}de"), group.now)) == ""
    group.run_until(lambda: group.raft(leader).configuration.voters == servers(f"{leader}de"), "5s")
    for other in others:
        for name in (leader, "d", "e"):
            group.cut(other, name, both=True)
    for step in range(40):
        for server in group.running():
            if server.raft.role is Role.LEADER:
                group.propose(f"{step} at {server.name}", server.name)
        group.run("250ms")
    group.heal()
    group.run("10s")
    group.check_nothing_is_lost()
    group.propose("in the end")
    group.run("1s")
    configuration = group.raft(group.leader()).configuration
    assert configuration.voters in (servers("abc"), servers(f"{leader}de"))
    assert not configuration.outgoing
    assert all("in the end" in group.texts(name_of(voter)) for voter in configuration.voters)


def test_9_a_newcomer_that_never_answers_stops_nobody():
    group = led("a", spare="b")
    group.kill("b")
    assert group.do("a", lambda raft: raft.change(servers("ab"), group.now)) == ""
    group.run("5s")
    group.propose("still written")
    group.run("1s")
    assert group.texts("a") == ["still written"]
    group.run("70s")
    assert group.raft("a").configuration == Configuration(servers("a"))
    assert "did not catch up" in group.raft("a").change_problem


def test_9_a_removed_server_that_does_not_know_it_disturbs_nobody():
    group = led("abcd")
    leader = group.leader()
    removed = follower_of(group)
    group.kill(removed)
    rest = "".join(name for name in "abcd" if name != removed)
    assert group.do(leader, lambda raft: raft.change(servers(rest), group.now)) == ""
    group.run("5s")
    assert group.raft(leader).configuration == Configuration(servers(rest))
    group.start(removed)
    group.run("60s")
    assert group.raft(removed).is_voter  # as far as it knows
    assert group.leader() == leader
    assert group.told(LeaderElected) == [LeaderElected(max(group.leaders))]


def test_9_a_server_that_an_uncommitted_change_leaves_out_still_asks_for_votes():
    """a is to be the only voter and has not heard so; b has; the leader dies.  Only b can win: by a's vote."""
    group = led("abc")
    if group.leader() == "a":
        group.do("a", lambda raft: raft.transfer(server_id("b"), group.now))
        group.run("1s")
    leader = group.leader()
    last_step = Configuration(servers("a"))
    group.ignores = lambda source, to, message: (
        to == "a" and isinstance(message, Append) and any(one.configuration == last_step for one in message.entries)
    )
    assert group.do(leader, lambda raft: raft.change(servers("a"), group.now)) == ""
    group.run("50ms")
    assert group.raft("a").configuration == Configuration(servers("a"), servers("abc"))
    group.kill(leader)
    group.ignores = lambda source, to, message: False
    group.run_until(lambda: group.leader() == "a", "10s")
    group.propose("alone")
    group.run("1s")
    assert group.texts("a") == ["alone"]
    assert group.raft("a").configuration == last_step


# ---- 10: snapshots


def test_10_a_snapshot_arrives_through_links_that_are_lost_again_and_again():
    group = led(timing=Timing(snapshot_window=60))
    leader, behind = group.leader(), follower_of(group)
    group.kill(behind)
    for number in range(60):
        group.propose(f"entry {number}")
        group.run("5ms")
    group.run("500ms")
    group.compact(leader)
    group.run("100ms")
    group.start(behind)
    for _ in range(12):
        group.run("23ms")
        group.lose_link(leader, behind)
    group.run("3s")
    assert group.texts(behind) == group.texts(leader)
    chunks = [chunk.chunk for chunk in group.said(SnapshotChunk, leader, behind)]
    assert chunks.count(0) <= 3  # what is there is not sent again each time


# ---- 13: a slow disk


def test_13_a_leader_whose_disk_is_slow_hands_over():
    group = led()
    slow = group.leader()
    group.servers[slow].disk.latency = 800 * MILLISECOND
    for number in range(20):
        leader = group.leader()
        if leader:
            group.propose(f"entry {number}", leader)
        group.run("300ms")
    assert group.leader() not in ("", slow)
    group.propose("quick again")
    group.run("200ms")
    assert b"quick again" in group.acknowledged


# ---- 14: time that was not ours


def test_14_a_host_that_stood_still_elects_nobody_when_it_goes_on():
    group = led()
    leader, term = group.leader(), max(group.leaders)
    for name in "abc":
        group.pause(name)
    group.run("8s")
    for name in "abc":
        group.resume(name, "8s")
    group.run("5s")
    assert group.leader() == leader
    assert max(group.leaders) == term


# ---- a disk that goes back in time


def one_whose_disk_goes_back(entries=10, timing=None):
    """A group with one that acknowledged `entries` and has them no more; the leader, who."""
    group = led(timing=timing)
    leader, back = group.leader(), follower_of(group)
    old = group.copy_disk(back)
    for number in range(entries):
        group.propose(f"entry {number}")
    group.run("500ms")
    group.kill(back)
    group.put_back(back, old)
    return group, leader, back


def test_17_a_server_whose_disk_went_back_ends_its_part_and_nobody_else_does():
    group, leader, back = one_whose_disk_goes_back()
    acknowledged = group.raft(leader).last_index
    group.run_until(lambda: group.servers[back].forgotten, "2s")
    assert group.servers[back].forgotten == acknowledged
    assert group.raft(leader).has_forgotten(server_id(back))
    assert group.raft(leader).match_of(server_id(back)) == 0
    group.propose("two of three go on")
    group.run("1s")
    assert b"two of three go on" in group.acknowledged
    assert group.leader() == leader


def test_17_that_it_went_back_is_told_again_until_it_has_heard():
    group, _, back = one_whose_disk_goes_back()
    lost = []
    group.ignores = lambda _from, _to, message: isinstance(message, DiskForgot) and len(lost) < 3 and not lost.append(1)
    group.run_until(lambda: group.servers[back].forgotten, "3s")
    assert len(lost) == 3


def test_17_who_forgot_what_the_leader_does_not_have_in_its_log_any_more_is_found_too():
    group = led()
    leader, back = group.leader(), follower_of(group)
    old = group.copy_disk(back)
    for number in range(20):
        group.propose(f"entry {number}")
    group.run("500ms")
    group.compact(leader)
    group.run("100ms")
    group.kill(back)
    group.put_back(back, old)
    group.run_until(lambda: group.servers[back].forgotten, "2s")


def refusal(group, leader, follower, round_, *, has_looked=True, index=1):
    """What the leader says to a follower that refuses so."""
    before = len(group.said(DiskForgot, leader, follower))
    answer = Appended(False, index, 1, round_, 0, has_looked)
    raft = group.raft(leader)
    group.do(leader, lambda raft: raft.receive(server_id(follower), raft.term, answer, group.now))
    assert raft.is_leader
    return group.said(DiskForgot, leader, follower)[before:]


def test_17_only_a_refusal_of_what_was_sent_after_the_acknowledgement_proves_anything():
    """An answer that comes late, in another order or from before the follower had the entries is none."""
    group = led()
    leader, follower = group.leader(), follower_of(group)
    group.propose("acknowledged")
    group.run_until(lambda: group.raft(leader).match_of(server_id(follower)) == group.raft(leader).last_index, "1s")
    progress = group.raft(leader)._leading.progress[server_id(follower)]
    group.cut(follower, leader)  # what it says itself is not to be mixed in
    match, before = progress.match, progress.matched_round
    assert refusal(group, leader, follower, before) == []
    assert refusal(group, leader, follower, before + 1, index=match) == []
    assert refusal(group, leader, follower, before + 1, has_looked=False) == []
    assert not group.raft(leader).has_forgotten(server_id(follower))
    group.run("100ms")
    assert progress.sent_round > before
    assert refusal(group, leader, follower, progress.sent_round) == [DiskForgot(match, group.raft(leader).term)]


def test_17_who_has_what_it_is_told_that_it_forgot_goes_on():
    group = led()
    leader, follower = group.leader(), follower_of(group)
    group.propose("here")
    group.run("500ms")
    raft = group.raft(follower)
    said = DiskForgot(raft.last_index, raft.term)
    group.do(follower, lambda raft: raft.receive(server_id(leader), raft.term, said, group.now))
    group.run("1s")
    assert group.servers[follower].forgotten == 0


# ---- the switches

WAITS_FOR_NOTHING = (Durability, "_waits_for", lambda self, needs: 0)
NO_PRE_VOTE = (Elections, "time_reached", lambda self: self.deadline() <= self._state.now and self.ask(pre=False))
NO_LEASE = (Elections, "holds_lease", lambda self: False)
NO_ANSWER = (Elections, "_refuse", lambda self, sender, question: None)
NO_CLAIM_FORGOTTEN = (Log, "_forget_claims", lambda self, first: None)
NO_CHECK_QUORUM = (Leading, "silent_for", lambda self: 0)
NO_ROUND = (Reads, "confirmed", lambda self, round_, real=Reads.confirmed: real(self, UNBOUNDED))
ANY_TERM_COUNTS = (Leading, "_may_commit", lambda self, index: index != UNBOUNDED)
NO_CATCHING_UP = (_CatchingUp, "look", lambda self, *_: setattr(self, "is_done", True))
ONLY_VOTERS_ASK = (ServerState, "may_ask", ServerState.is_voter)
NO_REWIND = (Sending, "rewind", lambda self, to, now: None)
NO_LOOK_AT_THE_DISK = (Transfers, "_quicker", lambda self: None)
NO_PROOF = (Progress, "forgets", lambda self, answer: False)
ANY_REFUSAL = (
    Progress,
    "forgets",
    lambda self, answer: answer.has_looked and not answer.accepted and answer.index < self.match,
)
NO_STALL = (Raft, "stalled", lambda self, gap, now: None)
TOLD_ONCE = (
    Leading,
    "_tell_forgotten",
    lambda self, server, progress, real=Leading._tell_forgotten: progress.forgot or real(self, server, progress),
)
BELIEVES_ANYTHING = (
    Following,
    "on_forgotten",
    lambda self, leader, said: setattr(self._state, "forgotten", said.index),
)


def _go_on_at_once(changes):
    """From one set of voters to the other without the joint step."""
    if all(one.is_done for one in changes._newcomers.values()):
        changes._leading.append_now(Configuration(changes.goal))


CURES = {
    test_1_a_vote_is_durable_before_it_is_told: [WAITS_FOR_NOTHING],
    test_1_all_restart_at_once_and_nothing_is_overwritten: [WAITS_FOR_NOTHING],
    test_2_an_entry_is_durable_before_it_is_acknowledged: [WAITS_FOR_NOTHING],
    test_an_old_acknowledgement_of_the_disk_does_not_speak_for_the_same_entry_come_back: [NO_CLAIM_FORGOTTEN],
    test_4_a_server_that_was_cut_off_comes_back_and_deposes_nobody: [NO_PRE_VOTE],
    test_4_a_server_that_the_leader_cannot_reach_deposes_nobody: [NO_LEASE],
    test_5_a_question_from_a_lower_term_is_answered: [NO_ANSWER],
    test_6_any_two_that_hear_each_other_make_progress: [NO_CHECK_QUORUM],
    test_7_a_leader_that_stood_still_does_not_answer_from_the_past: [NO_ROUND],
    test_8_an_entry_of_an_earlier_term_is_not_committed_by_counting: [ANY_TERM_COUNTS],
    test_9_two_majorities_never_decide_apart_during_a_change: [(Changes, "_go_on", _go_on_at_once)],
    test_9_a_newcomer_that_never_answers_stops_nobody: [NO_CATCHING_UP],
    test_9_a_server_that_an_uncommitted_change_leaves_out_still_asks_for_votes: [ONLY_VOTERS_ASK],
    # The lease alone would do, and so would asking for promises first: each is there for other reasons too.
    test_9_a_removed_server_that_does_not_know_it_disturbs_nobody: [NO_PRE_VOTE, NO_LEASE],
    test_10_a_snapshot_arrives_through_links_that_are_lost_again_and_again: [NO_REWIND],
    test_13_a_leader_whose_disk_is_slow_hands_over: [NO_LOOK_AT_THE_DISK],
    test_17_a_server_whose_disk_went_back_ends_its_part_and_nobody_else_does: [NO_PROOF],
    test_17_that_it_went_back_is_told_again_until_it_has_heard: [TOLD_ONCE],
    test_17_who_forgot_what_the_leader_does_not_have_in_its_log_any_more_is_found_too: [NO_PROOF],
    test_17_only_a_refusal_of_what_was_sent_after_the_acknowledgement_proves_anything: [ANY_REFUSAL],
    test_17_who_has_what_it_is_told_that_it_forgot_goes_on: [BELIEVES_ANYTHING],
    test_14_a_host_that_stood_still_elects_nobody_when_it_goes_on: [NO_STALL],
}


def test_each_hazard_has_a_switch():
    tests = {each for name, each in globals().items() if name.startswith("test_")}
    assert tests == {*CURES, test_each_hazard_has_a_switch, test_without_its_cure_the_hazard_is_real}


@pytest.mark.parametrize("hazard", CURES, ids=lambda hazard: hazard.__name__.removeprefix("test_"))
def test_without_its_cure_the_hazard_is_real(hazard, monkeypatch):
    for cure in CURES[hazard]:
        monkeypatch.setattr(*cure)
    with pytest.raises(AssertionError):
        hazard()
