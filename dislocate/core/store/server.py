"""A server: the replica, what is served from it, and its ties to the other servers.

It tells consensus which links are up, and finds out by itself whether a leader whose link ended is gone: only a refused
connection that this server saw waives the leader's lease here (`consensus.raft`).
"""

from collections.abc import Callable, Sequence
from typing import Any

from dislocate.core.boundary.events import Event, LeaderDeposed, LeaderElected, ServersChanged
from dislocate.core.boundary.inputs import ConnectTried
from dislocate.core.boundary.store import (
    AddServer,
    Compacted,
    KeyChange,
    KeysChanged,
    ReadKeys,
    RemoveServer,
    ServerView,
    TransferLeadership,
    WatchKeys,
)
from dislocate.core.boundary.values import ConnectOutcome
from dislocate.core.consensus.duties import Timing
from dislocate.core.consensus.messages import Configuration, Consensus, GroupId, ServerId
from dislocate.core.errors import Bug
from dislocate.core.identity import Address, NodeId, Path
from dislocate.core.membership.members import Members
from dislocate.core.outbox import Outbox, Timer
from dislocate.core.store.audit import Audit, AuditDue
from dislocate.core.store.changing import ChangeDue, Changing
from dislocate.core.store.copies import CopyIdle
from dislocate.core.store.durable import Found
from dislocate.core.store.levels import Levels
from dislocate.core.store.messages import Answered, Asked, GroupTold
from dislocate.core.store.replica import ConsensusDue, FlushDue, Replica, StateSaveDue
from dislocate.core.store.serverlinks import ServerLinks
from dislocate.core.store.serving import Answer, LeaseDue, Serving
from dislocate.core.store.telling import FollowersDue, Telling
from dislocate.core.store.waiting import Waiting
from dislocate.core.store.writing import WriteAgain
from dislocate.core.streams import Streams
from dislocate.core.tunables import FEATURE_LEVEL, LEADERLESS
from dislocate.core.units import MILLISECOND

LOOK_AGAIN = 100 * MILLISECOND  # a full queue takes a message budget or two
VERIFY_AGAIN = 50 * MILLISECOND  # a process that ends closes its links before its listening socket
VERIFY_TIMES = 10


class LookAgain(Timer, frozen=True):
    """The queue of a link may have room again."""

    path: Path


class VerifyDue(Timer, frozen=True):
    """Try once more whether the leader's host refuses."""

    number: int  # outdated when there was a new reason to ask
    leader: ServerId
    attempt: int


SERVER_TIMERS: tuple[type[Timer], ...] = (
    FlushDue,
    ConsensusDue,
    LookAgain,
    StateSaveDue,
    WriteAgain,
    LeaseDue,
    ChangeDue,
    VerifyDue,
    CopyIdle,
    AuditDue,
    FollowersDue,
)
CONTRADICTION = "the log contradicts itself"  # begins the problem of a server that heard what cannot be


class Server:
    """One server's part.  `reconfigured` is told every configuration that was applied."""

    def __init__(
        self,
        out: Outbox,
        members: Members,
        links: ServerLinks,
        me: ServerId,
        group: GroupId,
        found: Found | None,
        streams: Streams,
        ask_disk: Callable[[Path], bool],
        timing: Timing,
        level: int = FEATURE_LEVEL,
    ) -> None:
        self.me = me
        self.group = group
        self.problem = ""  # why this part has ended; empty: it has not
        self.reconfigured: Callable[[int, Configuration], None] = lambda _index, _configuration: None
        self.settled: Callable[[], None] = lambda: None  # a leader is known again
        self.ended: Callable[[str], None] = lambda _reason: None
        self.told_changes: Callable[[Sequence[KeyChange]], None] = lambda _changes: None  # empty: anything may have
        self._out = out
        self._members = members
        self._links = links
        self.replica = Replica(out, me, group, found, streams["consensus"], timing, level)
        self.serving = Serving(out, self.replica)
        self.changing = Changing(out, self.replica, ask_disk)
        self.waiting = Waiting()
        self.audit = Audit(out, self.replica, links)
        self.levels = Levels(out, self.replica, ask_disk)
        self.telling = Telling(out, links, self.replica.machine, lambda: self.age, self._leaders_path)
        self._leader: ServerId | None = None
        self._leaderless_since = out.now
        self._verification = 0  # the chain of attempts that counts
        self._verifying: dict[Address, ServerId] = {}
        self._looking: dict[Path, None] = {}  # links whose queue was full
        self._timers: dict[type, Callable[[Any], None]] = {
            **self.replica.timers(),
            **self.serving.timers(),
            **self.changing.timers(),
            **self.audit.timers(),
            VerifyDue: self._verify_due,
            **self.telling.timers(),
            LookAgain: self._look_again,
        }
        self.replica.send = self._send
        self.replica.told = self._told
        self.replica.batch_applied = self._batch_applied
        self.replica.replaced = self._replaced
        self.replica.failed = self._failed

    def start(self) -> None:
        for path in dict.fromkeys(server.path for server in self.servers()):
            if self._links.is_open(path):
                self.link_opened(path)
        self.replica.start()
        self._look_for_leader()

    # ---- who leads

    @property
    def leader(self) -> ServerId | None:
        return self._leader

    @property
    def leads(self) -> bool:
        return self._leader == self.me and not self.problem

    @property
    def age(self) -> int:
        """How old what is here may be, nanoseconds: since when it may have missed something."""
        return self._out.now - self.replica.as_of

    @property
    def revision(self) -> int:
        return self.replica.machine.revision

    def _leaders_path(self) -> Path | None:
        return None if self._leader is None else self._leader.path

    def why_not_now(self) -> str:
        """Why nothing can be written now and for a while; empty: it can be, or may be in a moment."""
        if self.problem:
            return self.problem
        if self._leader is not None or self._out.now - self._leaderless_since < LEADERLESS:
            return ""
        raft = self.replica.raft
        then = "when there is" if raft.full() else "when they answer"
        return f"{raft.why_no_leader} (asked at {self.me.path}); writes go on by themselves {then}"

    def missing(self) -> tuple[Path, ...]:
        """Servers that were not heard of for a while, whatever their links say."""
        return tuple(server.path for server in self.replica.raft.missing())

    def no_space(self) -> str:
        """Why this server makes nothing durable for the moment; empty: it does."""
        if not self.replica.is_full:
            return ""
        return f"the disk of {self.me.path} is full: free space there; it goes on by itself then"

    def _look_for_leader(self) -> None:
        """After every turn of consensus."""
        leader = None if self.problem else self.replica.raft.leader
        if leader == self._leader:
            return
        if leader is None:
            self._leaderless_since = self._out.now
        self._leader = leader
        if leader is not None:
            self.settled()
            if not self.leads and not self._links.is_open(leader.path):
                self._verify(leader)

    # ---- input

    def receive(self, message: Consensus) -> None:
        if not self.problem:
            self.replica.receive(message)
            self._look_for_leader()

    def contradicted(self, sender: Path, bug: Bug) -> None:
        """What `sender` said cannot be, if all before it was true: nobody knows whose fault that is."""
        self.replica.give_up(
            f"{CONTRADICTION}: {bug} (said by {sender} to {self.me.path}); it takes no part any more until its agent is "
            "restarted.  This is a bug, or a disk that forgot: keep both logs"
        )

    def ask(self, asker: NodeId, asked: Asked, answer: Answer) -> None:
        """A request that this server leads for, or that any server answers."""
        request = asked.request
        if isinstance(request, WatchKeys):
            self._watch(asker, asked, answer)
        elif isinstance(request, AddServer | RemoveServer | TransferLeadership):
            self.changing.ask(asked, answer)
        else:
            self.serving.ask(asker, asked, answer)

    def read_here(self, request: ReadKeys, answer: Answer, seq: int) -> None:
        """What this server has, with its age."""
        answer(Answered(seq, self.serving.read_now(request, self.age)))

    def _watch(self, asker: NodeId, asked: Asked, answer: Answer) -> None:
        request = asked.request
        assert isinstance(request, WatchKeys)

        def then(result: KeysChanged | Compacted | None) -> None:
            if result is None:
                answer(Answered(asked.seq, None, reason=self.problem, elsewhere=True))
            else:
                answer(Answered(asked.seq, result))

        self.waiting.watch((asker, asked.seq), request, self.replica.machine, then)

    def asking_ended(self, asker: NodeId, seq: int) -> None:
        self.waiting.cancel((asker, seq))

    def peer_gone(self, asker: Path) -> None:
        """The link to an agent ended: nobody waits or follows there any more."""
        self.waiting.forget(asker)
        self.telling.lost(asker)

    def _replaced(self) -> None:
        self.waiting.replaced(self.replica.machine)
        self.telling.replaced(self.replica.machine)
        self.told_changes(())

    def time_reached(self, timer: Timer) -> None:
        self._timers[type(timer)](timer)
        self._look_for_leader()

    def stalled(self, gap: int) -> None:
        """The process stood still: nobody was silent, we did not listen."""
        self.replica.poke(lambda raft, now: raft.stalled(gap, now))

    def told(self, path: Path, told: GroupTold) -> None:
        """An agent says which disk it has, and which level it speaks."""
        self.levels.told(path, told)
        self.changing.told(path, told)

    def tick(self, quorum_rtt: int) -> None:
        """Each second.  How far a majority is from here, nanoseconds: who is nearer may be asked to lead."""
        self.replica.raft.quorum_rtt = quorum_rtt
        if self.leads:
            self.levels.tick()

    def end(self) -> tuple[str, ...]:
        """This server is in the group no more; who waits for it is told to ask elsewhere.  Keys of what it leaves on disk."""
        left = self.replica.end()
        self._ended(
            f"{self.me.path} was removed from the servers; `dislocate servers add {self.me.path}` lets it in again"
        )
        return left

    def _ended(self, problem: str) -> None:
        self.problem = self.problem or problem
        self._leader = None
        self.serving.end()
        self.changing.end()
        self.waiting.end()
        self.telling.end()

    # ---- links

    def link_opened(self, path: Path) -> None:
        for server in self._disks_of(path):
            self.replica.peer_back(server)

    def link_lost(self, path: Path) -> None:
        for server in self._disks_of(path):
            self.replica.peer_lost(server)
            if server == self._leader:
                self._verify(server)
        self._look_for_leader()

    def send_failed(self, path: Path) -> None:
        """Something for `path` did not go out: look again from where it stands, in a while.  At once, it would not go out
        either: the queue of the link is full."""
        for server in self._disks_of(path):
            self.replica.peer_lost(server)
        if path not in self._looking:
            self._looking[path] = None
            self._out.arm(self._out.now + LOOK_AGAIN, LookAgain(path))

    def _look_again(self, timer: LookAgain) -> None:
        if self._looking.pop(timer.path, "gone") is None and self._links.is_open(timer.path):
            self.link_opened(timer.path)

    def servers(self) -> tuple[ServerId, ...]:
        """Voters, of both sides of a change, and learners."""
        configuration = self.replica.raft.configuration
        return tuple(dict.fromkeys(configuration.voters + configuration.outgoing + configuration.learners))

    def _disks_of(self, path: Path) -> list[ServerId]:
        return [server for server in self.servers() if server.path == path]

    def _verify(self, leader: ServerId) -> None:
        """Does the leader's host refuse?  Asked some times, and anew when there is a new reason to ask."""
        self._verification += 1
        self._try(VerifyDue(self._verification, leader, 0))

    def _verify_due(self, timer: VerifyDue) -> None:
        if timer.number == self._verification:
            self._try(timer)

    def _try(self, timer: VerifyDue) -> None:
        leader = timer.leader
        member = self._members.get(leader.path)
        is_over = leader != self._leader or self._links.is_open(leader.path) or timer.attempt >= VERIFY_TIMES
        if is_over or member is None:
            return
        is_home = member.node.datacenter == self._members.datacenter
        address = member.record.links if is_home else member.record.wan_links
        self._verifying[address] = leader
        self._out.try_connect(address)
        self._out.arm(self._out.now + VERIFY_AGAIN, VerifyDue(timer.number, leader, timer.attempt + 1))

    def connect_tried(self, tried: ConnectTried) -> bool:
        """Whether this server asked."""
        leader = self._verifying.pop(tried.address, None)
        if leader is None:
            return False
        if tried.outcome is ConnectOutcome.REFUSED and leader == self._leader and not self._links.is_open(leader.path):
            self.replica.poke(lambda raft, now: raft.peer_refused(leader, now))
            self._look_for_leader()
        return True

    def _send(self, to: ServerId, message: Consensus) -> None:
        node = self._links.node(to.path)
        if node is not None:
            self._out.send_message(node, message)

    # ---- snapshots for the edge

    @property
    def role(self) -> str:
        """'leader', 'follower', 'candidate' or 'learner'."""
        raft = self.replica.raft
        if self.leads:
            return "leader"
        if not raft.is_voter:
            return "learner"
        return "follower" if self._leader is not None else "candidate"

    def views(self) -> tuple[ServerView, ...]:
        """All servers, as this one knows them."""
        configuration = self.replica.raft.configuration
        return tuple(self._view(server, _role_in(configuration, server)) for server in self.servers())

    def _view(self, server: ServerId, role: str) -> ServerView:
        raft, is_me = self.replica.raft, server == self.me
        return ServerView(
            path=server.path,
            disk=f"{server.disk:016x}",
            role=role,
            is_leader=server == self._leader,
            matched=None if not self.leads else raft.match_of(server),
            rtt=None if not self.leads else 0 if is_me else raft.rtt_of(server) or None,
            disk_latency=self.replica.write_latency if is_me else None,
            linked=is_me or self._links.is_open(server.path),
            trouble=self._own_trouble() if is_me else self._trouble_of(server),
        )

    def _own_trouble(self) -> str:
        return "ended" if self.problem else "disk full" if self.replica.is_full else ""

    def _trouble_of(self, server: ServerId) -> str:
        """A wiped server's agent is linked and silent; so is one whose part has ended."""
        raft = self.replica.raft
        if self.problem:
            return ""  # nothing is heard any more
        if raft.has_forgotten(server):
            return "disk went back"
        if not self._links.is_open(server.path):
            return "no link"
        if server in raft.full():
            return "disk full"
        if raft.is_silent(server) or (self._leader is None and server in raft.missing()):
            return "silent"
        return "stores nothing" if raft.is_storing_nothing(server) else ""

    # ---- what the replica tells

    def _told(self, event: Event) -> None:
        if isinstance(event, LeaderElected):
            self.serving.elected()
            self.audit.elected()
        elif isinstance(event, LeaderDeposed):
            self.serving.deposed()
            self.changing.deposed()
            self.levels.deposed()
        elif isinstance(event, ServersChanged):
            self.reconfigured(event.index, self.replica.raft.configuration_at(event.index))

    def _batch_applied(self, changes: list[KeyChange]) -> None:
        if changes:
            self.waiting.changed(changes, self.replica.machine)
            self.telling.changed(changes)
            self.told_changes(changes)

    def _failed(self, problem: str) -> None:
        self._ended(problem)
        self.ended(problem)


def _role_in(configuration: Configuration, server: ServerId) -> str:
    if server in configuration.learners:
        return "learner"
    if not configuration.outgoing:
        return "voter"
    if server not in configuration.outgoing:
        return "joining"
    return "voter" if server in configuration.voters else "leaving"
