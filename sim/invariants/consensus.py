"""Invariants of the group's log (Raft paper, figure 3; design, section 6), and of what must be durable before what is said.

They compare what servers say with what their disks have for sure at that moment, so that a crash at the next instant has not
to come for a promise that it would break to be seen.
"""

from collections.abc import Callable
from typing import Any

from dislocate.core.boundary.effects import Store
from dislocate.core.boundary.events import EntriesApplied, GroupJoined, LeaderElected, StoreTroubled
from dislocate.core.consensus.messages import Append, Appended, Configuration, Consensus, LeadNow, ServerId, VoteGiven
from dislocate.core.identity import Path
from dislocate.core.store.audit import DIVERGENCE, FORGETFULNESS
from dislocate.core.store.replica import UNREADABLE
from dislocate.core.store.server import CONTRADICTION
from dislocate.core.tunables import AUDIT_EVERY
from sim.invariants.monitor import Invariant
from sim.process import Process
from sim.wiretap import begins_anew, durable_hard, durable_term, had_durably, has_durably, written_hard
from sim.world import World

Handlers = dict[type, Callable[[Process, Any], None]]


class LogInvariant(Invariant):
    """One that is about the servers of a store, and idle in a scenario without."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.is_needed = bool(world.scenario.servers)
        if self.is_needed:
            world.wiretap.on_sent.append(self.sent)
            world.wiretap.on_written.append(self.written)

    def sent(self, process: Process, message: Consensus) -> None:
        """A message leaves a server."""

    def written(self, process: Process, store: Store) -> None:
        """A transaction is handed to a server's disk."""


class OneGroup(LogInvariant):
    """Nobody ever belongs to a group other than everybody else's, however the fleet was cut when it was founded."""

    name = "one group"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._group: str | None = None

    def handlers(self) -> Handlers:
        return {GroupJoined: self._joined}

    def _joined(self, process: Process, event: GroupJoined) -> None:
        self._group = self._group or event.group
        self.exercised += 1
        if event.group != self._group:
            raise self.violated(process.node_id.path, f"joined group {event.group}; others are in {self._group}")


class OneLeaderATerm(LogInvariant):
    """In one term at most one server leads."""

    name = "one leader a term"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._leaders: dict[tuple[int, int], Process] = {}  # (epoch, term)
        self._epoch = 0

    def handlers(self) -> Handlers:
        return {LeaderElected: self._elected, GroupJoined: self._joined}

    def _joined(self, _process: Process, event: GroupJoined) -> None:
        self._epoch = max(self._epoch, event.epoch)

    def _elected(self, process: Process, event: LeaderElected) -> None:
        self.exercised += 1
        first = self._leaders.setdefault((self._epoch, event.term), process)
        if first is not process:
            words = f"leads term {event.term}, in which {first.node_id.path} was elected"
            raise self.violated(process.node_id.path, words)


class OneLog(LogInvariant):
    """At one index all servers have applied the same log, for ever; what is applied is never taken back."""

    name = "one log"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._digests: dict[int, tuple[int, Path]] = {}  # by index: digest, who told it first
        self._applied: dict[Process, int] = {}

    def handlers(self) -> Handlers:
        return {EntriesApplied: self._entries_applied}

    def written(self, process: Process, store: Store) -> None:
        if begins_anew(store):
            self._applied.pop(process, None)

    def _entries_applied(self, process: Process, event: EntriesApplied) -> None:
        path = process.node_id.path
        before = self._applied.get(process, 0)
        if event.index < before:
            raise self.violated(path, f"applied up to {event.index} after it had applied {before}")
        self._applied[process] = event.index
        digest, other = self._digests.setdefault(event.index, (event.digest, path))
        self.exercised += other != path
        if digest != event.digest:
            raise self.violated(path, f"applied another log than {other}, up to entry {event.index}")


class SameState(LogInvariant):
    """After one entry every server is at the revision at which the same commands bring a second, simple store."""

    name = "the state is that of the log"

    def check(self) -> None:
        if not self.is_needed:
            return
        wiretap = self.world.wiretap
        self.exercised += bool(wiretap.agreed)
        if wiretap.unlike is not None:
            raise self.violated(wiretap.unlike.partition(" ")[0], wiretap.unlike)


class LeadersHaveWhatWasApplied(LogInvariant):
    """Who is elected has every entry that anybody has applied; but for who counts its votes late, when a later term has its
    leader: what that one committed it need not have, and nobody follows it."""

    name = "leaders are complete"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._latest = 0  # term that had a leader

    def handlers(self) -> Handlers:
        return {LeaderElected: self._elected}

    def _elected(self, process: Process, event: LeaderElected) -> None:
        agreed = self.world.wiretap.agreed
        self._latest = max(self._latest, event.term)
        if not agreed or event.term < self._latest:
            return
        self.exercised += 1
        last, path = agreed[-1].entry, process.node_id.path
        if process.node.store.index >= last.index:
            return
        term = self.world.wiretap.term_at(process, last.index)
        if term != last.term:
            words = "nothing there" if term is None else f"one of term {term}"
            raise self.violated(
                path, f"leads term {event.term} with {words}, where {last.index} of {last.term} is applied"
            )


class CommitsOnlyGrow(LogInvariant):
    """What a leader says is committed stays so."""

    name = "commits only grow"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._told: dict[tuple[ServerId, int, ServerId], int] = {}

    def sent(self, process: Process, message: Consensus) -> None:
        if not isinstance(message.body, Append):
            return
        key = (message.origin, message.term, message.to)
        before = self._told.get(key, 0)
        self.exercised += before > 0
        if message.body.commit < before:
            words = f"tells {message.to.path} that {message.body.commit} is committed, after it had told {before}"
            raise self.violated(process.node_id.path, words)
        self._told[key] = message.body.commit


class DurableBeforeSaid(LogInvariant):
    """A vote is on the voter's disk for sure before it leaves."""

    name = "a vote is durable before it is said"

    def sent(self, process: Process, message: Consensus) -> None:
        body = message.body
        if not isinstance(body, VoteGiven) or not body.granted or body.pre:
            return
        self.exercised += 1
        hard = durable_hard(process.machine.disk)
        if hard.term < message.term or (hard.term == message.term and hard.voted_for != message.to):
            words = f"votes for {message.to} in term {message.term}; its disk has {hard.voted_for} in {hard.term}"
            raise self.violated(process.node_id.path, words)


class DurableBeforeAcknowledged(LogInvariant):
    """An entry is on the disk for sure, in the leader's version, before it is acknowledged; so is the term in which it is."""

    name = "an entry is durable before it is acknowledged"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._sent: dict[int, dict[int, int]] = {}  # by leader's term: the term of each entry that it sent

    def sent(self, process: Process, message: Consensus) -> None:
        body = message.body
        if isinstance(body, Append):
            terms = self._sent.setdefault(message.term, {})
            terms[body.prev_index] = body.prev_term
            terms.update((entry.index, entry.term) for entry in body.entries)
        elif isinstance(body, Appended) and body.accepted and body.index:
            self._acknowledged(process, message.term, body.index)

    def _acknowledged(self, process: Process, term: int, index: int) -> None:
        wanted = self._sent.get(term, {}).get(index)
        if wanted is None:
            return
        self.exercised += 1
        hard = durable_hard(process.machine.disk)
        if hard.term < term:
            raise self.violated(process.node_id.path, f"acknowledges in term {term}; its disk has term {hard.term}")
        if not has_durably(process.machine.disk, index, wanted):
            found = durable_term(process.machine.disk, index)
            words = "nothing there" if found is None else f"one of term {found}"
            raise self.violated(process.node_id.path, f"acknowledges entry {index} of {wanted}; its disk has {words}")


class AppliedIsOnAMajority(LogInvariant):
    """What is applied anywhere is on the disks of a majority of the voters for sure (in a joint configuration, of both).

    A disk that was lost counts with what it had: it acknowledged before, and the leader may hear of that later."""

    name = "what is applied is on a majority of disks"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._judged = 0

    def handlers(self) -> Handlers:
        return {EntriesApplied: self._entries_applied}

    def _entries_applied(self, process: Process, event: EntriesApplied) -> None:
        agreed = self.world.wiretap.agreed
        if event.index <= self._judged or event.index > len(agreed):
            return
        self._judged = event.index
        entry = agreed[event.index - 1].entry
        machines = self.world.machines.items()
        holders = [
            path
            for path, one in machines
            if has_durably(one.disk, entry.index, entry.term) or had_durably(one.disk, entry.index, entry.term)
        ]
        configurations = self.world.wiretap.configurations(entry.index)
        if not configurations:
            return
        self.exercised += 1
        if not any(_is_majority(holders, one) for one in configurations):
            words = f"applied entry {entry.index}, which is on the disks of {', '.join(holders) or 'nobody'} only"
            raise self.violated(process.node_id.path, words)


def _is_majority(holders: list[Path], configuration: Configuration) -> bool:
    halves = [half for half in (configuration.voters, configuration.outgoing) if half]
    return all(2 * sum(server.path in holders for server in half) > len(half) for half in halves)


class NobodyRaisesTheTermAlone(LogInvariant):
    """A server begins a new term only when a majority has said that it would vote for it, or the leader asked it to: who is
    cut off, or removed, does not come back with a high term and depose the leader (etcd#9333)."""

    name = "nobody raises the term alone"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._promised: dict[
            tuple[ServerId, int], dict[ServerId, None]
        ] = {}  # (candidate, term): who would vote for it
        self._asked: dict[Path, None] = {}  # the leader wants it to lead

    def sent(self, process: Process, message: Consensus) -> None:
        body = message.body
        if isinstance(body, VoteGiven) and body.pre and body.granted:
            self._promised.setdefault((message.to, message.term), {})[message.origin] = None
        elif isinstance(body, LeadNow):
            self._asked[message.to.path] = None

    def written(self, process: Process, store: Store) -> None:
        hard = written_hard(store)
        path = process.node_id.path
        if hard is None or hard.voted_for is None or hard.voted_for.path != path:
            return
        if hard.term <= durable_hard(process.machine.disk).term or self._asked.pop(path, "no") is None:
            return
        configurations = self.world.wiretap.configurations(1 << 62)
        promised = [server.path for server in self._promised.get((hard.voted_for, hard.term), {})]
        self.exercised += bool(configurations)
        if configurations and not any(_is_majority([*promised, path], one) for one in configurations):
            words = f"begins term {hard.term}, for which {', '.join(promised) or 'nobody'} would vote"
            raise self.violated(path, words)


class OnlyDisksEndServers(LogInvariant):
    """No server ends its part because what it heard cannot be, or its state is not that of the others: where an agent goes
    on with its other business, a run of the simulator does not.  Nor because its disk went back, unless it did."""

    name = "no server contradicts the log"

    def handlers(self) -> Handlers:
        return {StoreTroubled: self._troubled, EntriesApplied: self._entries_applied}

    def _entries_applied(self, _process: Process, event: EntriesApplied) -> None:
        self.exercised += event.index % AUDIT_EVERY == 0

    def _troubled(self, process: Process, event: StoreTroubled) -> None:
        if CONTRADICTION in event.problem or DIVERGENCE in event.problem or UNREADABLE in event.problem:
            raise self.violated(process.node_id.path, event.problem)
        if FORGETFULNESS in event.problem and not process.machine.disk.went_back:
            raise self.violated(process.node_id.path, event.problem)


CONSENSUS: tuple[type[Invariant], ...] = (
    OneGroup,
    OneLeaderATerm,
    OneLog,
    SameState,
    LeadersHaveWhatWasApplied,
    CommitsOnlyGrow,
    DurableBeforeSaid,
    DurableBeforeAcknowledged,
    AppliedIsOnAMajority,
    NobodyRaisesTheTermAlone,
    OnlyDisksEndServers,
)
