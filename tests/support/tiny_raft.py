"""A few Rafts in virtual time: simulated disks, directed links, and every promise of Raft watched in each turn.

    group = TinyRaft("abc")
    group.run_until(lambda: group.leader(), "5s")
    group.propose("x"); group.run("1s")
    group.cut("a", "b"); group.kill("c"); group.start("c")

A disk is a queue: it acknowledges late, keeps some prefix of what it was working on when its server is killed, or refuses
(`stuck`).  A link is directed and keeps its order; a cut one loses silently, a lost one (`lose_link`) is told to both ends.
What is applied is a list of texts; a snapshot is that list.  Breaking an invariant raises `AssertionError` at once.
"""

from collections.abc import Callable
from copy import copy
from heapq import heappop, heappush
from typing import Any

import msgspec

from dislocate.core.boundary.events import LeaderElected
from dislocate.core.consensus.duties import Duties, Snapshot, Timing
from dislocate.core.consensus.messages import (
    Configuration,
    RaftMessage,
    ServerId,
)
from dislocate.core.consensus.raft import Raft
from dislocate.core.consensus.state import Role
from dislocate.core.streams import Streams
from dislocate.core.units import MILLISECOND, parse_duration
from tests.support.raft_disk import NOBODY, Disk, name_of, servers
from tests.support.raft_promises import Promises, Server

CHUNK = 3  # texts in a chunk of a snapshot


class TinyRaft(Promises):
    """A group and its world."""

    def __init__(
        self,
        names: str,
        *,
        seed: str = "1",
        latency: str = "5ms",
        timing: Timing | None = None,
        raft: type[Raft] = Raft,
        spare: str = "",
        disks: dict[str, Disk] | None = None,
        watches_promises: bool = True,
    ) -> None:
        super().__init__(watches_disks=watches_promises)
        self.now = 0
        self.latency = parse_duration(latency)
        self.latencies: dict[tuple[str, str], int] = {}
        self.timing = timing or Timing()
        self.streams = Streams(seed)
        self._raft = raft
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._seq = 0
        self._flushes: dict[str, None] = {}
        self._busy_until: dict[tuple[str, str], int] = {}
        self._link: dict[tuple[str, str], int] = {}  # grows when a link is lost: what was under way is lost too
        self.cuts: dict[tuple[str, str], None] = {}
        self.log: list[tuple[int, str, int, str, str, Any]] = []  # (at, from, term, to, verb, what): the transcript
        self.ignores: Callable[[str, str, RaftMessage], bool] = lambda source, to, message: False
        configuration = Configuration(servers(names))
        for server in configuration.voters:
            self.servers[name_of(server)] = Server(name_of(server), configuration)
        for server in servers(spare):
            self.servers[name_of(server)] = Server(name_of(server), NOBODY)
        for name, disk in (disks or {}).items():
            self.servers[name].disk = disk
        for name in self.servers:
            self.start(name)

    # ---- what a test does

    def start(self, name: str) -> None:
        """Start, or start again with what the disk has."""
        server = self.servers[name]
        assert server.raft is None
        server.life += 1
        server.is_paused = False
        server.applied = server.disk.compacted
        server.texts = list(server.disk.texts)
        server.raft = self._raft(
            me=server.id,
            restored=server.disk.restored(),
            stream=self.streams[f"{name}/{server.life}"],
            now=self.now,
            timing=self.timing,
        )
        self._note(server, "starts")
        self._turn(server, lambda raft: None)
        for other in self.servers.values():
            if other is not server and other.raft is not None:
                self._turn(other, lambda raft: raft.peer_back(server.id, self.now))
                self._turn(server, lambda raft, other=other: raft.peer_back(other.id, self.now))

    def kill(self, name: str, *, keeps: int | None = None, verified: bool = True) -> None:
        """The process ends.  Of what its disk was working on, the first `keeps` saves are there (by chance, if None).
        `verified`: the others' owners find out that nobody listens there."""
        server = self.servers[name]
        server.raft = None
        queue, server.disk.queue = server.disk.queue, []
        kept = self.streams["crash"].below(len(queue) + 1) if keeps is None else keeps
        for _, act in queue[:kept]:
            act()
        server.waiting.clear()
        self._note(server, "is killed")
        for other in self.running():
            self.lose_link(name, other.name, back=False)
            if verified and (name, other.name) not in self.cuts and (other.name, name) not in self.cuts:
                self._later(
                    self._latency(other.name, name) * 2,
                    lambda other=other, life=server.life: self._refused(server, life, other),
                )

    def _refused(self, dead: Server, life: int, other: Server) -> None:
        if dead.raft is None and dead.life == life and other.raft is not None:
            self._note(other, "is refused by", None, dead.name)
            self._turn(other, lambda raft: raft.peer_refused(dead.id, self.now))

    def copy_disk(self, name: str) -> Disk:
        """What its disk has now."""
        copied = copy(self.servers[name].disk)
        copied.entries, copied.queue = dict(copied.entries), []
        return copied

    def put_back(self, name: str, copied: Disk) -> None:
        """Start it, which is not running, with what its disk once had."""
        server = self.servers[name]
        server.disk, server.went_back = copied, True
        self.start(name)

    def pause(self, name: str) -> None:
        self.servers[name].is_paused = True

    def resume(self, name: str, gap: str | None = None) -> None:
        """Go on: first `stalled`, if `gap` says how long it was, then what has arrived, as a driver does."""
        server = self.servers[name]
        server.is_paused = False
        if gap is not None:
            self._turn(server, lambda raft: raft.stalled(parse_duration(gap), self.now))
        waiting, server.waiting = server.waiting, []
        for act in waiting:
            act()

    def cut(self, source: str, to: str, *, both: bool = False) -> None:
        """What `source` says to `to` is lost, silently; '*' is everybody."""
        for a in self.servers if source == "*" else (source,):
            for b in self.servers if to == "*" else (to,):
                if a != b:
                    self.cuts[a, b] = None
                    if both:
                        self.cuts[b, a] = None

    def isolate(self, name: str) -> None:
        self.cut(name, "*", both=True)

    def heal(self) -> None:
        self.cuts.clear()

    def lose_link(self, one: str, other: str, *, back: bool = True) -> None:
        """The link ends, and what is on its way with it; both ends are told, and then that there is another."""
        for a, b in ((one, other), (other, one)):
            self._link[a, b] = self._link.get((a, b), 0) + 1
            self._busy_until.pop((a, b), None)
            if (server := self.servers[a]).raft is not None:
                peer = self.servers[b].id
                self._turn(server, lambda raft, peer=peer: raft.peer_lost(peer, self.now))
                if back:
                    self._turn(server, lambda raft, peer=peer: raft.peer_back(peer, self.now))

    def propose(self, text: str, at: str | None = None) -> int | None:
        """At the leader, or `at` another; the index."""
        assert at or self.leader(), "nobody leads"
        server = self.servers[at or self.leader()]
        assert server.raft is not None
        index = server.raft.propose(text.encode(), self.now)
        self._flush_later(server)
        return index

    def read(self, read_id: int, at: str | None = None) -> bool:
        server = self.servers[at or self.leader()]
        assert server.raft is not None
        accepted = server.raft.read(read_id, self.now)
        server.asked[read_id] = tuple(self.acknowledged)
        self._flush_later(server)
        return accepted

    def _flush_later(self, server: Server) -> None:
        if server.name not in self._flushes:
            self._flushes[server.name] = None
            self._later(0, lambda: self._flush(server))

    def _flush(self, server: Server) -> None:
        self._flushes.pop(server.name, None)
        if server.raft is not None:
            self._turn(server, lambda raft: raft.flush(self.now))

    def do(self, name: str, act: Callable[[Raft], Any]) -> Any:
        """Whatever else one can ask of a Raft, as a turn; what it answered."""
        answers = []
        self._turn(self.servers[name], lambda raft: answers.append(act(raft)))
        return answers[0]

    def campaign(self, name: str) -> None:
        """Let `name` ask for votes now, as if it had waited long enough."""
        raft = self.raft(name)
        self._turn(self.servers[name], lambda _: raft._elections.ask(pre=True))

    def compact(self, name: str, behind: int = 0) -> None:
        """Make the applied state durable and forget the log up to `behind` entries before it."""
        server = self.servers[name]
        raft = server.raft
        assert raft is not None
        index = server.applied
        texts, term, configuration = tuple(server.texts), raft.term_at(index), raft.configuration_at(index)
        if index <= server.disk.compacted or not term:
            return

        def done() -> None:
            if index > server.disk.compacted:
                server.disk.checkpoint(index, term, configuration, texts)
            if server.raft is raft:
                raft.compact(index - behind)

        self._write(server, 0, done)

    # ---- what a test sees

    def raft(self, name: str) -> Raft:
        raft = self.servers[name].raft
        assert raft is not None
        return raft

    def leader(self) -> str:
        """The leader of the highest term; '' when nobody leads."""
        leading = [one for one in self.running() if one.raft.role is Role.LEADER]
        return max(leading, key=lambda one: one.raft.term).name if leading else ""

    def terms(self) -> dict[str, int]:
        return {one.name: one.raft.term for one in self.running()}

    def texts(self, name: str) -> list[str]:
        return [text.decode() for text in self.servers[name].texts]

    def said(self, kind: type, source: str = "", to: str = "") -> list[Any]:
        """Every message of `kind` that was sent."""
        return [
            what
            for _, a, _, b, verb, what in self.log
            if verb == "says" and isinstance(what, kind) and source in ("", a) and to in ("", b)
        ]

    def _note(self, server: Server, verb: str, what: Any = None, to: str = "") -> None:
        self.log.append((self.now, server.name, server.disk.hard.term, to, verb, what))

    def told(self, kind: type, name: str = "") -> list[Any]:
        """Every event of `kind`."""
        return [
            event
            for server in self.servers.values()
            if name in ("", server.name)
            for event in server.events
            if isinstance(event, kind)
        ]

    # ---- time

    def run(self, duration: str) -> None:
        end = self.now + parse_duration(duration)
        while self._step(end):
            pass
        self.now = end

    def run_until(self, claim: Callable[[], Any], within: str) -> int:
        """How long it took until `claim` held."""
        start, end = self.now, self.now + parse_duration(within)
        while not claim():
            assert self._step(end), f"not within {within}: leader {self.leader() or 'nobody'}, terms {self.terms()}"
        return self.now - start

    def _step(self, end: int) -> bool:
        """The next thing that happens, if it does until `end`.  What arrives goes before a timer that is late."""
        awake = [one for one in self.running() if not one.is_paused]
        due, name = min(((one.raft.deadline(), one.name) for one in awake), default=(1 << 62, ""))
        due = max(due, self.now)
        at = self._events[0][0] if self._events else 1 << 62
        if min(at, due) > end:
            return False
        self.now = max(self.now, min(at, due))
        if at <= due:
            heappop(self._events)[2]()
        else:
            self._turn(self.servers[name], lambda raft: raft.time_reached(self.now))
        return True

    def _later(self, delay: int, act: Callable[[], None]) -> None:
        self._seq += 1
        heappush(self._events, (self.now + delay, self._seq, act))

    # ---- one turn

    def _turn(self, server: Server, act: Callable[[Raft], Any]) -> None:
        raft = server.raft
        if raft is None:
            return
        commit, term = raft.commit, raft.term
        act(raft)
        assert raft.commit >= commit, "commit went back"
        assert raft.term >= term, "the term went back"
        self._carry_out(server, raft, raft.take())

    def _carry_out(self, server: Server, raft: Raft, duties: Duties) -> None:
        for save in duties.saves:
            self._note(server, "writes", save)
            self._write(server, save.ticket, lambda save=save: server.disk.write(save))
        for to, term, message in duties.messages:
            self._send(server, to, term, message)
        for entry in duties.committed:
            self._apply(server, entry)
        for read_id, index in duties.reads:
            self._answered(server, read_id, index)
            server.reads.append(read_id)
        server.reads_lost += duties.reads_lost
        for peer in duties.snapshots_wanted:
            self._later(MILLISECOND, lambda peer=peer: self._offer(server, raft, peer))
        if duties.forgotten:
            assert server.went_back, f"{server.name} is told that its disk forgot, and it did not"
            server.forgotten, server.raft = duties.forgotten, None
            self._note(server, "ends")
            return
        if duties.install is not None:
            self._install(server, raft, duties.install)
        for event in duties.events:
            server.events.append(event)
            self._note(server, "notes", event)
            if isinstance(event, LeaderElected):
                self._elected(server, raft, event.term)

    def _write(self, server: Server, ticket: int, act: Callable[[], None]) -> None:
        """The disk does one thing after the other."""
        server.disk.queue.append((ticket, act))
        self._later(server.disk.latency * len(server.disk.queue), lambda life=server.life: self._written(server, life))

    def _written(self, server: Server, life: int) -> None:
        disk = server.disk
        if server.life != life or server.raft is None or not disk.queue:
            return
        if disk.is_stuck:
            self._later(disk.latency, lambda: self._written(server, life))
            return
        ticket, act = disk.queue.pop(0)
        act()
        if ticket:
            self._note(server, "has written", ticket)
            self._arrive(server, life, lambda: self._turn(server, lambda raft: raft.stored(ticket, self.now)))

    def _arrive(self, server: Server, life: int, act: Callable[[], None]) -> None:
        if server.raft is None or server.life != life:
            return
        if server.is_paused:
            server.waiting.append(act)
        else:
            act()

    def _latency(self, source: str, to: str) -> int:
        return self.latencies.get((source, to), self.latency)

    def _send(self, server: Server, to: ServerId, term: int, message: RaftMessage) -> None:
        target = self.servers[name_of(to)]
        self._said(server, to, term, message)
        way = (server.name, target.name)
        is_lost = way in self.cuts or target.raft is None or self.ignores(server.name, target.name, message)
        self.log.append((self.now, server.name, term, target.name, "loses" if is_lost else "says", message))
        if is_lost:
            return
        at = max(self.now + self._latency(*way), self._busy_until.get(way, 0))
        self._busy_until[way] = at
        link, life = self._link.get(way, 0), target.life

        def arrive() -> None:
            if self._link.get(way, 0) == link and way not in self.cuts:
                self._arrive(
                    target,
                    life,
                    lambda: self._turn(target, lambda raft: raft.receive(server.id, term, message, self.now)),
                )

        self._later(at - self.now, arrive)

    def _offer(self, server: Server, raft: Raft, peer: ServerId) -> None:
        if server.raft is not raft:
            return
        texts, index = server.texts, server.applied
        parts = [texts[at : at + CHUNK] for at in range(0, len(texts), CHUNK)] or [[]]
        chunks = tuple(msgspec.msgpack.encode(part) for part in parts)
        snapshot = Snapshot(index, raft.term_at(index), raft.configuration_at(index), len(texts), chunks)
        self._turn(server, lambda raft: raft.offer_snapshot(peer, snapshot, self.now))

    def _install(self, server: Server, raft: Raft, snapshot: Snapshot) -> None:
        self._note(server, "installs", snapshot)

        def done() -> None:
            server.disk.install(snapshot)
            if server.raft is raft:
                server.applied, server.texts = snapshot.index, list(server.disk.texts)
                self._later(0, lambda: self._turn(server, lambda raft: raft.installed(snapshot.index, self.now)))

        self._write(server, 0, done)
