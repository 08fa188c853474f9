"""The audit: do all servers come to the same state by the same log?

Each server keeps the digest of its state after every entry whose index is a multiple of `AUDIT_EVERY`, the last few.  The
leader tells its own now and then, everybody answers with theirs, and what a majority of the voters agrees on is right:
whoever has another digest there, be it the leader, ends its part and has its disk marked, so that it serves nothing again
until the agent has another disk.

    leader                          others
    after 512 I have d          ->
                                <-  after 512 I have d
                                <-  after 512 I have e
    a majority has d            ->  (to who has e) then mine is wrong

A disk that lost what it had acknowledged, as its leader proves (`consensus.progress`), is marked by the same way: a copy of
`state.db` was put back, or the host's, and a vote may be lost with it.

Invariant: who differs from a majority serves nothing more, and nobody else ends on that account: one leader that went wrong
does not end the others.  Logs that differ are not its business (log matching sees to that); memory that changed by itself,
and a machine that is not deterministic, are.  Source: etcd's corruption check (etcd#13766: followers went wrong in silence).
"""

from collections.abc import Callable

from dislocate.core.consensus.messages import ServerId
from dislocate.core.consensus.quorum import majority
from dislocate.core.identity import Path
from dislocate.core.outbox import Outbox, Timer
from dislocate.core.store.messages import StateTold
from dislocate.core.store.replica import Replica
from dislocate.core.store.serverlinks import ServerLinks
from dislocate.core.tunables import AUDIT_EVERY, AUDIT_KEPT, AUDIT_PERIOD, AUDIT_TOLD_EVERY

FORGETFULNESS = "has lost entries that it had acknowledged"  # in the problem of a server whose disk went back
DIVERGENCE = "a majority of the servers has"  # in the problem of a server whose state differs


class AuditDue(Timer, frozen=True):
    """Something was applied a while ago: tell its digest."""


class Audit:
    """One server's part in it.  What others say of an index that is not applied here waits until it is."""

    def __init__(self, out: Outbox, replica: Replica, links: ServerLinks) -> None:
        self._out = out
        self._replica = replica
        self._links = links
        self._digests: dict[int, int] = {}  # own, by index, the oldest first
        self._waiting: dict[int, tuple[Path, StateTold]] = {}  # what the leader said of indexes to come
        self._votes: dict[int, dict[ServerId, int]] = {}  # at the leader: what each server has there
        self._told = 0  # the last index that was told
        self._armed = False
        self.problem = ""  # how this server's state differs; empty: it does not
        self.is_marked = False  # the disk says so, durably
        replica.index_applied = self.applied
        replica.forgotten = self.forgotten

    def timers(self) -> dict[type, Callable[[AuditDue], None]]:
        return {AuditDue: self._due}

    # ---- own digests

    def applied(self, index: int) -> None:
        """The state is that after entry `index`."""
        if index % AUDIT_EVERY:
            return
        self._digests[index] = self._replica.machine.digest
        if len(self._digests) > AUDIT_KEPT:
            del self._digests[next(iter(self._digests))]
        for at in [at for at in self._waiting if at <= index]:
            self.told(*self._waiting.pop(at))
        if not self._leads:
            return
        if index - self._told >= AUDIT_TOLD_EVERY:
            self._tell()
        elif not self._armed:
            self._armed = True
            self._out.arm(self._out.now + AUDIT_PERIOD, AuditDue())

    @property
    def _leads(self) -> bool:
        return self._replica.raft.is_leader and not self._replica.has_ended

    def elected(self) -> None:
        """Answers to another leader are not counted here."""
        self._votes.clear()

    def _due(self, _timer: AuditDue) -> None:
        self._armed = False
        if self._leads:
            self._tell()

    def _tell(self) -> None:
        """Tell the newest digest there is to everybody."""
        index = next(reversed(self._digests), 0)
        if index <= self._told:
            return
        self._told = index
        self._votes[index] = {self._replica.me: self._digests[index]}
        while len(self._votes) > AUDIT_KEPT:
            del self._votes[next(iter(self._votes))]
        for server in self._replica.raft.configuration.voters:
            self._say(server.path, StateTold(self._replica.group, index, self._digests[index]))

    def _say(self, path: Path, told: StateTold) -> None:
        node = self._links.node(path)
        if node is not None and path != self._replica.me.path:
            self._out.send_message(node, told)

    # ---- what others say

    def told(self, path: Path, told: StateTold) -> None:
        """`path` says which digest it has, or a leader which one a majority has."""
        if told.group != self._replica.group or told.index % AUDIT_EVERY or self._replica.has_ended:
            return
        if self._leads:
            if told.index in self._votes:
                self._count(path, told)
            return
        leader = self._replica.raft.leader
        if leader is None or leader.path != path:
            return  # its word counts for nothing
        own = self._digests.get(told.index)
        if own is None:
            if told.index > self._replica.machine.index:
                self._waiting[told.index] = (path, told)
                if len(self._waiting) > AUDIT_KEPT:
                    del self._waiting[next(iter(self._waiting))]
        elif told.agreed:
            self._judge(told.index, own, told.digest)
        else:
            self._say(path, StateTold(told.group, told.index, own))

    def _count(self, path: Path, told: StateTold) -> None:
        voters = self._replica.raft.configuration.voters
        server = next((voter for voter in voters if voter.path == path), None)
        if server is None:
            return
        votes = self._votes[told.index]
        votes[server] = told.digest
        digests = [votes[voter] for voter in voters if voter in votes]
        right = next((one for one in digests if digests.count(one) >= majority(len(voters))), None)
        if right is None:
            return
        for voter in voters:
            if votes.get(voter, right) != right and voter != self._replica.me:
                self._say(voter.path, StateTold(told.group, told.index, right, agreed=True))
        if votes[self._replica.me] != right:
            self._judge(told.index, votes[self._replica.me], right)

    def _judge(self, index: int, own: int, right: int) -> None:
        if own == right:
            return
        self._replica.hand_over()
        self._end(divergence(self._replica.me.path, index, own, right))

    def forgotten(self, index: int) -> None:
        """The disk acknowledged the entry at `index` and does not have it any more."""
        self._end(forgetfulness(self._replica.me.path, index, self._replica.raft.last_index))

    def _end(self, problem: str) -> None:
        self.problem = problem
        self._replica.give_up(problem)


def divergence(path: Path, index: int, own: int, right: int) -> str:
    """What to tell people."""
    return (
        f"the state of {path} after entry {index} is {own:016x}, {DIVERGENCE} {right:016x}: it serves "
        f"nothing any more.  Move its state.db (and its -wal and -shm) away, start it, and `dislocate servers add {path}`"
    )


def forgetfulness(path: Path, acknowledged: int, last: int) -> str:
    """What to tell people."""
    return (
        f"the disk of {path} {FORGETFULNESS}, up to {acknowledged}; it ends at {last}: it is an older copy of itself, "
        f"restored by hand or with its host, and serves nothing any more.  Move its state.db (and its -wal and -shm) away, "
        f"start it, and `dislocate servers add {path}`"
    )
