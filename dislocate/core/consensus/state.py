"""What one server is: its term, its role, its log, and what it is about to say.

The parts of a Raft (`elections`, `following`, `leading` and its parts) share one `ServerState` and know each other only
through the arguments that `raft` gives them.  Here is what several of them change, each in one place.

Invariant: the term only grows; in one term this server votes once, and whom it follows never changes from one server to
another; `commit` only grows, and `applied` follows it.
"""

from collections.abc import Callable
from enum import Enum

from dislocate.core.boundary.events import LeaderDeposed, LeaderElected, ServersChanged
from dislocate.core.consensus.durability import Durability, Needs
from dislocate.core.consensus.duties import Restored, Snapshot, Timing
from dislocate.core.consensus.log import Log
from dislocate.core.consensus.messages import HardState, RaftMessage, ServerId
from dislocate.core.consensus.quorum import servers_of, voters_of
from dislocate.core.errors import require
from dislocate.core.streams import Stream


class Role(Enum):
    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre_candidate"  # asks whether it would be voted for; its term is as it was
    CANDIDATE = "candidate"
    LEADER = "leader"


class ServerState:
    """One server."""

    def __init__(self, me: ServerId, restored: Restored, stream: Stream, now: int, timing: Timing) -> None:
        self.me = me
        self.timing = timing
        self.stream = stream
        self.now = now
        self.term = restored.hard.term
        self.voted_for = restored.hard.voted_for
        self.role = Role.FOLLOWER
        self.leader: ServerId | None = None
        self.log = Log(restored.compacted, restored.compacted_term, restored.configuration, restored.entries)
        require(restored.compacted <= restored.applied <= self.log.last_index, "the applied state is not of this log")
        self.commit = self.applied = restored.applied
        self.flushed = self.log.last_index  # a leader's entries after this one wait for `flush`
        self.durability = Durability(restored.hard)
        self.largest_rtt = 0  # nanoseconds among the voters: measured by the leader, told to the others
        self.quorum_rtt = 0  # what this server would need for a majority; its owner knows
        self.leader_commit = 0  # as the leader last told it
        self.answered: dict[int, int] = {}  # rounds of this leader that were answered, and when; oldest first
        self.led_at = 0  # when the leader surely led, and had committed no more than that; 0 or less: not known
        self.heard: dict[ServerId, int] = {}  # when each server last said anything
        self.is_full = False  # this server's disk has no room: its owner knows
        self.full: dict[ServerId, None] = {}  # who could not vote for this server for that reason
        self.forgotten = 0  # what this disk once acknowledged in this term, and lost; 0: nothing
        self.installing: Snapshot | None = None  # the owner makes it durable; until then the log stands still
        self.events: list[LeaderElected | LeaderDeposed | ServersChanged] = []
        self.deposed: Callable[[], None] = _nothing  # called when this server ceases to lead

    # ---- facts

    @property
    def is_voter(self) -> bool:
        """Whether its vote counts, as far as its own log says."""
        configuration = self.log.configuration
        return self.me in configuration.voters or self.me in configuration.outgoing

    @property
    def may_ask(self) -> bool:
        """Whether it may ask for votes: also when the change that leaves it out is not known to be committed, since perhaps
        nobody else has that entry and can win with it (thesis, 4.2.2).  Its own vote does not count then."""
        if self.is_voter:
            return True
        log = self.log
        return log.configuration_index > self.commit and self.me in voters_of(log.configuration_at(self.commit))

    @property
    def hard(self) -> HardState:
        return HardState(self.term, self.voted_for)

    def voters(self) -> tuple[ServerId, ...]:
        return voters_of(self.log.configuration)

    def servers(self) -> tuple[ServerId, ...]:
        return servers_of(self.log.configuration)

    def patience(self) -> int:
        """How long silence is no reason for an election: `clamp(10 x largest RTT, 1 s, 10 s)`."""
        timing = self.timing
        return max(timing.election_floor, min(timing.election_ceiling, timing.rtt_factor * self.largest_rtt))

    # ---- changes

    def say(self, to: ServerId, body: RaftMessage, needs: Needs = Needs.AT_ONCE) -> None:
        """Say it in this server's term."""
        self.durability.say(to, self.term, body, needs)

    def follow(self, term: int, leader: ServerId | None, reason: str) -> None:
        """Be a follower in `term`, which is not below the present one; `reason` is why, should this server have led."""
        was_leader, old_term = self.role is Role.LEADER, self.term
        if term > self.term:
            self.term, self.voted_for = term, None
        self.role, self.leader = Role.FOLLOWER, leader
        self.answered.clear()
        if leader is not None:
            self.full.clear()
        if was_leader:
            self.events.append(LeaderDeposed(old_term, reason))
            self.deposed()

    def commit_to(self, index: int) -> None:
        """Everything up to `index` is committed."""
        if index <= self.commit:
            return
        require(index <= self.log.last_index, f"{index} is committed, and the log ends at {self.log.last_index}")
        for at, configuration in self.log.configurations_between(self.commit, index):
            voters = tuple(str(voter) for voter in voters_of(configuration))
            self.events.append(ServersChanged(at, voters, tuple(str(one) for one in configuration.learners)))
        self.commit = index


def _nothing() -> None:
    pass
