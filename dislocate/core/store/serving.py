"""Serving: what a server does with a request, its own agent's or another's.

Writes are proposed and answered when they are applied; reads that must not be stale, and the life of leases, are answered
when a quorum has confirmed that this server still leads.  The leader alone counts the time of leases, and gives each its
full time again when it begins to lead: a lease may live longer than it was promised, never shorter.

Invariant: every request that is taken is answered exactly once: with a result, or with where to ask instead, and then it
says whether the thing may have been done.
"""

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any, TypeAlias, get_args

from dislocate.core.boundary.requests import Refused
from dislocate.core.boundary.runs import RunRequest, StartRun
from dislocate.core.boundary.scaling import ScaleRequest
from dislocate.core.boundary.store import (
    GrantLease,
    KeepLeaseAlive,
    KeysRead,
    LeaseStanding,
    ReadKeys,
    ReadLease,
    RevokeLease,
    Transact,
)
from dislocate.core.consensus.messages import Entry
from dislocate.core.identity import NodeId
from dislocate.core.outbox import NEVER, Outbox, Timer
from dislocate.core.runs.ledger.ledger import level_refusal
from dislocate.core.scale import ledger as scale
from dislocate.core.store.commands import Command, LeasesEnded, Origin, RestoreChunk, encode_command
from dislocate.core.store.copies import Copies
from dislocate.core.store.machine import Applied
from dislocate.core.store.messages import Answered, Asked, BackupPart
from dislocate.core.store.replica import Replica
from dislocate.core.tunables import RUNS_LEVEL, SCALE_LEVEL
from dislocate.core.units import MILLISECOND

LEASE_RETRY = 200 * MILLISECOND  # the log took nothing: the leader changes or is full

Answer: TypeAlias = Callable[[Answered], None]


class LeaseDue(Timer, frozen=True):
    """A lease may have ended."""

    at: int  # outdated when another instant was armed since


class Serving:
    """The requests that one server works on."""

    def __init__(self, out: Outbox, replica: Replica) -> None:
        self._out = out
        self._replica = replica
        self._proposed: dict[int, tuple[int, int, Answer]] = {}  # index -> (term, seq, answer)
        self._reads: dict[int, Callable[[bool], None]] = {}  # read id -> what to do once it is confirmed (or lost)
        self._read_id = 0
        self._lease_ends: dict[int, int] = {}  # by lease; only while leading
        self._lease_heap: list[tuple[int, int]] = []
        self._ending: dict[int, int] = {}  # leases whose end is proposed: at which index
        self._armed = NEVER
        self.copies = Copies(out)
        replica.applied = self._applied
        replica.read_ready = lambda read: self._read_over(read, True)
        replica.read_lost = lambda read: self._read_over(read, False)
        self._asks: dict[type, Callable[[NodeId, Asked, Answer], None]] = {
            Transact: self._propose,
            GrantLease: self._propose,
            RevokeLease: self._propose,
            RestoreChunk: self._propose,
            **dict.fromkeys(get_args(RunRequest), self._propose_run),
            **dict.fromkeys(get_args(ScaleRequest), self._propose_scale),
            ReadKeys: self._read_keys,
            KeepLeaseAlive: self._keep_alive,
            ReadLease: self._read_lease,
            BackupPart: self._back_up,
        }

    def timers(self) -> dict[type, Callable[[Any], None]]:
        return {LeaseDue: self._lease_due, **self.copies.timers()}

    @property
    def leads(self) -> bool:
        return self._replica.raft.leader == self._replica.me

    def ask(self, asker: NodeId, asked: Asked, answer: Answer) -> None:
        """Work on a request that only the leader can answer; this server leads."""
        self._asks[type(asked.request)](asker, asked, answer)

    # ---- writes

    def _propose(self, asker: NodeId, asked: Asked, answer: Answer) -> None:
        command = Command(asked.request, Origin(str(asker), asked.seq, asked.floor))  # type: ignore[arg-type]
        if self._replica.is_full:
            words = f"the disk of {self._replica.me.path} is full: free space there; it goes on by itself then"
            answer(Answered(asked.seq, Refused("storage", "node.state_dir", words), unlogged=True))
            return
        index = self._replica.propose(encode_command(command))
        if index is None:
            answer(Answered(asked.seq, None, reason=self._replica.raft.refusal))
            return
        self._proposed[index] = (self._replica.raft.term, asked.seq, answer)

    def _propose_run(self, asker: NodeId, asked: Asked, answer: Answer) -> None:
        """An older server could not even read it in the log."""
        level = self._replica.machine.feature_level
        if level < RUNS_LEVEL:
            answer(Answered(asked.seq, level_refusal(level), unlogged=True))
        elif level < SCALE_LEVEL and _judges_calls(asked.request):
            words = f"the store is at feature level {level}: its servers know no gates on 'errors' and 'p99'; upgrade them all"
            answer(Answered(asked.seq, Refused("unavailable", "gates", words), unlogged=True))
        else:
            self._propose(asker, asked, answer)

    def _propose_scale(self, asker: NodeId, asked: Asked, answer: Answer) -> None:
        """The same."""
        level = self._replica.machine.feature_level
        if level < SCALE_LEVEL:
            answer(Answered(asked.seq, scale.level_refusal(level), unlogged=True))
        else:
            self._propose(asker, asked, answer)

    def _applied(self, entry: Entry, applied: Applied) -> None:
        result = applied.result
        if self.leads:
            for lease in applied.ended:
                self._lease_ends.pop(lease, None)
                self._ending.pop(lease, None)
            if applied.restored:
                self._restored(entry.index)
            elif type(result) is LeaseStanding:
                self._renew(result.lease, result.ttl)
        waiting = self._proposed.pop(entry.index, None)
        if waiting is None:
            return
        term, seq, answer = waiting
        if term == entry.term:
            answer(Answered(seq, result))
        else:  # what was proposed here was overwritten: it is nowhere
            answer(Answered(seq, None, reason="another leader took over"))

    def deposed(self) -> None:
        """This server leads no more: what it was asked may be done by the next leader, or never."""
        proposed, self._proposed = self._proposed, {}
        for _, seq, answer in proposed.values():
            answer(Answered(seq, None, reason="the leader changed", doubt=True))
        self._lease_ends.clear()
        self._lease_heap.clear()
        self._ending.clear()
        self.copies.clear()

    def end(self) -> None:
        """This server takes no part any more: nothing that waits will come."""
        self.deposed()
        for read in list(self._reads):
            self._read_over(read, False)

    # ---- reads

    def _confirm(self, seq: int, answer: Answer, then: Callable[[], None]) -> None:
        """Do `then` when it is certain that nothing newer was acknowledged before it was asked."""
        self._read_id += 1
        read = self._read_id

        def over(ready: bool) -> None:
            if ready:
                then()
            else:
                answer(Answered(seq, None, reason="the leader changed"))

        self._reads[read] = over
        if not self._replica.read(read):
            self._read_over(read, False)

    def _read_over(self, read: int, ready: bool) -> None:
        over = self._reads.pop(read, None)
        if over is not None:
            over(ready)

    def _read_keys(self, asker: NodeId, asked: Asked, answer: Answer) -> None:
        request = asked.request
        assert isinstance(request, ReadKeys)
        self._confirm(asked.seq, answer, lambda: answer(Answered(asked.seq, self.read_now(request, 0))))

    def read_now(self, request: ReadKeys, age: int) -> KeysRead:
        """What this server has."""
        machine = self._replica.machine
        keys, more = machine.read(request.key, request.prefix, request.limit, request.after)
        return KeysRead(keys, machine.revision, age, more)

    def _back_up(self, asker: NodeId, asked: Asked, answer: Answer) -> None:
        request = asked.request
        assert isinstance(request, BackupPart)

        def then() -> None:
            copies, replica = self.copies, self._replica
            is_first = request.part == 0
            found = copies.begin(asker, replica.machine, replica.group) if is_first else copies.go_on(asker, request)
            answer(Answered(asked.seq, found))

        self._confirm(asked.seq, answer, then)

    # ---- leases

    def elected(self) -> None:
        """Every lease has its full time again."""
        for lease, held in self._replica.machine.leases.items():
            self._renew(lease, held.ttl)

    def _restored(self, index: int) -> None:
        """These may be other leases under the same numbers: only an end that is proposed after `index` is theirs too."""
        self._lease_ends.clear()
        self._lease_heap.clear()
        self._ending = {lease: at for lease, at in self._ending.items() if at > index}
        self.elected()

    def _renew(self, lease: int, ttl: int) -> None:
        is_new = lease not in self._lease_ends
        self._lease_ends[lease] = ends = self._out.now + ttl
        if is_new:
            heappush(self._lease_heap, (ends, lease))
            self._arm()

    def _arm(self) -> None:
        if self._lease_heap and self._lease_heap[0][0] < self._armed:
            self._armed = self._lease_heap[0][0]
            self._out.arm(self._armed, LeaseDue(self._armed))

    def _lease_due(self, timer: LeaseDue) -> None:
        if timer.at != self._armed:
            return
        self._armed = NEVER
        if not self.leads:
            return
        now, ended = self._out.now, []
        while self._lease_heap and self._lease_heap[0][0] <= now:
            _, lease = heappop(self._lease_heap)
            ends = self._lease_ends.get(lease)
            if ends is None or lease in self._ending:
                continue
            if ends <= now:
                ended.append(lease)
            else:
                heappush(self._lease_heap, (ends, lease))
        index = self._replica.propose(encode_command(Command(LeasesEnded(tuple(ended))))) if ended else None
        if index is not None:
            self._ending |= dict.fromkeys(ended, index)
        elif ended:  # not now: try again
            for lease in ended:
                heappush(self._lease_heap, (now + LEASE_RETRY, lease))
        self._arm()

    def _keep_alive(self, asker: NodeId, asked: Asked, answer: Answer) -> None:
        request = asked.request
        assert isinstance(request, KeepLeaseAlive)

        def then() -> None:
            held = self._replica.machine.leases.get(request.lease)
            if held is not None and request.lease not in self._ending and self.leads:
                self._renew(request.lease, held.ttl)
            answer(Answered(asked.seq, self._standing(request.lease)))

        self._confirm(asked.seq, answer, then)

    def _read_lease(self, asker: NodeId, asked: Asked, answer: Answer) -> None:
        request = asked.request
        assert isinstance(request, ReadLease)
        self._confirm(asked.seq, answer, lambda: answer(Answered(asked.seq, self._standing(request.lease))))

    def _standing(self, lease: int) -> LeaseStanding | Refused:
        held = self._replica.machine.leases.get(lease)
        if held is None or lease in self._ending:
            return Refused("unknown", "lease", f"no lease {lease}: it ended, or never was; grant a new one")
        remaining = max(0, self._lease_ends.get(lease, self._out.now + held.ttl) - self._out.now)
        return LeaseStanding(lease, held.ttl, remaining, held.ordered_keys())


def _judges_calls(request: object) -> bool:
    """Whether it is a run with a gate that servers of an older level cannot read."""
    gates = request.spec.gates if isinstance(request, StartRun) else ()
    return any(gate.errors or gate.p99 or gate.control for gate in gates)
