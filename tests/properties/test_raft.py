"""A Raft group under anything: kills, cuts one way or both, slow and stuck disks, pauses, lost links, compaction, changes of
the voters and of the leader, in any order.

Safety first: `TinyRaft` watches the promises of Raft in each turn (election safety, leader completeness, state machine
safety, monotone commit and term, nothing said that is not durable, nothing called committed that is not on a majority of
disks, no read without what was acknowledged before it); log matching and lost writes are looked for after each step.
Then liveness: all is mended, and within `SETTLE` there is one leader, every voter has the same state, and terms have not
run away.
"""

import os

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from dislocate.core.consensus.duties import Timing
from dislocate.core.consensus.state import Role
from dislocate.core.units import MILLISECOND
from tests.support.raft_disk import name_of, server_id
from tests.support.tiny_raft import TinyRaft

FULL = os.environ.get("DISLOCATE_PROFILE") == "full"
SETTLE = "30s"
TIGHT = Timing(append_budget=200, inflight_messages=4, snapshot_window=40, uncommitted_bytes=2000)

picks = st.integers(0, 11)  # of whoever exists: an index modulo their number


class Group(RuleBasedStateMachine):
    """Rules are what can happen to a group; time passes only in `advance`."""

    @initialize(
        shape=st.sampled_from([("abc", "de"), ("abcde", ""), ("abcd", "a2b2"), ("ab", "c")]), seed=st.integers(0, 9)
    )
    def begin(self, shape, seed):
        names, spare = shape
        self.group = TinyRaft(names, spare=spare, seed=str(seed), timing=TIGHT)
        self.names = list(self.group.servers)
        self.texts = 0
        self.reads = 0
        self.group.run("3s")

    def name(self, pick):
        return self.names[pick % len(self.names)]

    def raft(self, pick):
        return self.group.servers[self.name(pick)].raft

    # ---- what passes

    @rule(pause=st.sampled_from(["1ms", "6ms", "23ms", "110ms", "700ms", "2500ms"]))
    def advance(self, pause):
        self.group.run(pause)
        self.group.check_logs_match()
        self.group.check_nothing_is_lost()

    @rule(count=st.integers(1, 12), read=st.booleans())
    def write(self, count, read):
        """Whoever believes that it leads is asked."""
        for server in self.group.running():
            if server.raft.role is not Role.LEADER or server.is_paused:
                continue
            for _ in range(count):
                self.texts += 1
                self.group.propose(f"text {self.texts}", server.name)
            if read:
                self.reads += 1
                self.group.read(self.reads, server.name)
        self.group.run("7ms")

    # ---- what goes wrong

    @rule(who=picks, verified=st.booleans(), keeps=st.sampled_from([None, 0, 1]))
    def kill(self, who, verified, keeps):
        if self.raft(who) is not None:
            self.group.kill(self.name(who), verified=verified, keeps=keeps)

    @rule(who=picks)
    def start(self, who):
        if self.raft(who) is None:
            self.group.start(self.name(who))

    @rule(one=picks, other=picks, both=st.booleans())
    def cut(self, one, other, both):
        if self.name(one) != self.name(other):
            self.group.cut(self.name(one), self.name(other), both=both)

    @rule()
    def heal(self):
        self.group.heal()

    @rule(one=picks, other=picks)
    def lose_link(self, one, other):
        if self.name(one) != self.name(other):
            self.group.lose_link(self.name(one), self.name(other))

    @rule(who=picks, latency=st.sampled_from([1, 8, 60, 700]), stuck=st.booleans())
    def disk(self, who, latency, stuck):
        disk = self.group.servers[self.name(who)].disk
        disk.latency, disk.is_stuck = latency * MILLISECOND, stuck

    @rule(who=picks)
    def pause(self, who):
        self.group.pause(self.name(who))

    @rule(who=picks, told=st.booleans())
    def resume(self, who, told):
        if self.raft(who) is not None:
            self.group.resume(self.name(who), "1s" if told else None)

    # ---- what is asked for

    @rule(who=picks, behind=st.integers(0, 5))
    def compact(self, who, behind):
        if self.raft(who) is not None:
            self.group.compact(self.name(who), behind)

    @precondition(lambda self: self.group.leader())
    @rule(to=st.lists(picks, min_size=1, max_size=5))
    def change(self, to):
        voters = tuple(sorted({server_id(self.name(pick)) for pick in to}))
        self.group.do(self.group.leader(), lambda raft: raft.change(voters, self.group.now))

    @precondition(lambda self: self.group.leader())
    @rule(to=st.one_of(st.none(), picks))
    def transfer(self, to):
        peer = None if to is None else server_id(self.name(to))
        self.group.do(self.group.leader(), lambda raft: raft.transfer(peer, self.group.now))

    # ---- all is mended

    def teardown(self):
        group = self.group
        group.heal()
        for server in group.servers.values():
            server.disk.latency, server.disk.is_stuck = MILLISECOND, False
            if server.raft is None:
                group.start(server.name)
            elif server.is_paused:
                group.resume(server.name, "1s")
        term = max(group.terms().values())
        group.run(SETTLE)
        leader = group.leader()
        assert leader, f"nobody leads: {group.terms()}"
        group.propose("in the end")
        group.run("2s")
        assert group.leader() == leader
        configuration = group.raft(leader).configuration
        assert not configuration.outgoing, "the change was not completed"
        assert group.texts(leader)[-1] == "in the end"
        for voter in configuration.voters:
            assert group.texts(name_of(voter)) == group.texts(leader)
        group.check_logs_match()
        group.check_nothing_is_lost()
        assert max(group.terms().values()) <= term + 4, "terms run away"


TestGroup = Group.TestCase
TestGroup.settings = settings(
    max_examples=1000 if FULL else 50,
    stateful_step_count=80 if FULL else 40,
    phases=(Phase.explicit, Phase.reuse, Phase.generate, *((Phase.shrink,) if FULL else ())),
)
