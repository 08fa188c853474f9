"""Leading: replicate, count, commit, and step down when a majority is silent.

Invariants: an entry is committed when a quorum has it durably, and only an entry of this leader's own term is counted
(Raft paper, 5.4.2: one of an earlier term that a majority has may still be replaced); so a new leader begins with an
empty entry.  The leader counts itself only for what its own disk has.  A configuration counts from the moment it is in
the log.

Heartbeats go out each `heartbeat()`, in addition to appends: their answers wait for no disk, so they measure round trips
and keep leadership through somebody's slow disk.
"""

from collections.abc import Callable

from dislocate.core.boundary.events import LeaderElected
from dislocate.core.consensus.elections import NEVER
from dislocate.core.consensus.log import size_of
from dislocate.core.consensus.messages import Append, Appended, Configuration, DiskForgot, Entry, ServerId
from dislocate.core.consensus.progress import Pace, Progress
from dislocate.core.consensus.quorum import UNBOUNDED, agreed, nearest
from dislocate.core.consensus.reads import Reads
from dislocate.core.consensus.state import Role, ServerState


class Leading:
    """A leader's part; empty while this server does not lead."""

    def __init__(self, state: ServerState) -> None:
        self._state = state
        self.progress: dict[ServerId, Progress] = {}  # everybody else who gets the log
        self.reads = Reads()
        self.reads_ready: list[tuple[int, int]] = []
        self.round = 0  # of the last message sent
        self.uncommitted = 0  # bytes
        self.snapshot_needed: Callable[[ServerId, Progress], None] = _ignore  # what it needs is compacted
        self.committed: Callable[[], None] = _nothing  # `commit` has moved
        self._heartbeat_at = NEVER
        self._tell_at = NEVER  # when followers are told of a commit, if nothing else tells them before
        self._batch: tuple[int, int, tuple[Entry, ...], int] = (0, 0, (), 0)  # the last one, for the next follower

    # ---- coming and going

    def begin(self) -> None:
        """This server was elected."""
        state = self._state
        state.role, state.leader = Role.LEADER, state.me
        state.events.append(LeaderElected(state.term))
        next_index = state.log.last_index + 1
        self.progress = {server: Progress(next_index, state.now) for server in state.servers() if server != state.me}
        self.uncommitted = state.log.size_after(state.commit)
        self._heartbeat_at = state.now + self.heartbeat()
        self.append_now()

    def end(self) -> list[int]:
        """This server leads no more: what was proposed and not sent is forgotten.  The reads that are lost."""
        state = self._state
        self.progress = {}
        self._heartbeat_at = self._tell_at = NEVER
        self._batch = (0, 0, (), 0)
        if state.log.last_index > state.flushed:
            state.log.truncate(state.flushed + 1)
        return self.reads.abandon()

    # ---- appending

    def append(self, data: bytes) -> int:
        """Add an entry that leaves with the next `flush`; its index."""
        return self._add(Entry(self._state.term, self._state.log.last_index + 1, data))

    def append_now(self, configuration: Configuration | None = None) -> int:
        """Add an entry without data, or a configuration, and send it; its index."""
        state = self._state
        index = self._add(Entry(state.term, state.log.last_index + 1, b"", configuration))
        if configuration is not None:
            self._meet(index)
        self.flush()
        return index

    def _add(self, entry: Entry) -> int:
        self._state.log.append(entry)
        self.uncommitted += size_of(entry)
        return entry.index

    def _meet(self, index: int) -> None:
        """The configuration changed: begin with who is new; who is left out is told so, and then no more."""
        state = self._state
        servers = state.servers()
        for server in servers:
            if server != state.me and server not in self.progress:
                self.progress[server] = Progress(state.log.last_index + 1, state.now)
        for server, progress in self.progress.items():
            if server in servers:
                progress.leaving = 0
            elif not progress.leaving:
                progress.leaving, progress.leaving_until = index, state.now + state.patience()

    def flush(self) -> None:
        """Send what was proposed since the last time, and begin a round for the reads that wait."""
        state = self._state
        state.flushed = state.log.last_index
        last_round = self.round
        for server, progress in self.progress.items():
            self.replicate(server, progress)
        if all(progress.told_commit == state.commit for progress in self.progress.values()):
            self._tell_at = NEVER  # nobody is left to be told; a busy leader never speaks only for that
        self._begin_reads(last_round)

    def _begin_reads(self, last_round: int) -> None:
        """One round for all that wait: every voter gets a message after `last_round`, if need be a heartbeat."""
        if not self.reads.has_asked or not self.may_read():
            return
        self.reads.begin(last_round, self._state.commit)
        voters = self._state.voters()
        for server, progress in self.progress.items():
            if server in voters and progress.sent_round <= last_round:
                self._send_heartbeat(server, progress)
        self._confirm_reads()

    # ---- sending

    def replicate(self, server: ServerId, progress: Progress) -> None:
        """Send what `server` lacks, as far as may be."""
        if progress.lost or progress.forgot:
            return
        state = self._state
        while progress.next <= state.flushed:
            if progress.pace is Pace.SNAPSHOT or progress.probing or progress.is_full(state.timing):
                return
            prev_term = state.log.term_of(progress.next - 1)
            if prev_term is None:
                progress.await_snapshot()
                self.snapshot_needed(server, progress)
                return
            entries, size = self._entries_from(progress.next)
            self._send(server, progress, progress.next - 1, prev_term, entries)
            if progress.pace is Pace.PROBE:
                progress.probed(entries[-1].index, self.round)
            else:
                progress.sent(entries[-1].index, size, state.now)

    def _entries_from(self, first: int) -> tuple[tuple[Entry, ...], int]:
        """As many as an append takes; followers mostly need the same ones."""
        state = self._state
        last = state.flushed
        if self._batch[:2] != (first, last):
            self._batch = (first, last, *state.log.batch(first, last, state.timing.append_budget))
        return self._batch[2], self._batch[3]

    def _send(
        self, server: ServerId, progress: Progress, prev: int, prev_term: int, entries: tuple[Entry, ...]
    ) -> None:
        state = self._state
        self.round += 1
        progress.sent_round, progress.told_commit = self.round, state.commit
        age = state.now - self.current_at()
        told = Append(prev, prev_term, entries, state.commit, self.round, state.largest_rtt, age, progress.round)
        state.say(server, told)

    def _send_heartbeat(self, server: ServerId, progress: Progress) -> None:
        """Without entries: says that this server leads, asks whether the log still agrees, measures the way."""
        log = self._state.log
        prev = progress.next - 1
        prev_term = log.term_of(prev)
        if prev_term is None:
            prev, prev_term = log.compacted, log.compacted_term
        self._send(server, progress, prev, prev_term, ())
        progress.pinged(self.round, self._state.now)

    # ---- answers

    def on_appended(self, sender: ServerId, answer: Appended) -> None:
        state = self._state
        progress = self.progress.get(sender)
        if progress is None:
            return
        if progress.answered(answer.round, state.now):
            self._measure()
        progress.quorum_rtt = answer.quorum_rtt
        if progress.forgot or progress.forgets(answer):
            self._tell_forgotten(sender, progress)
            return
        if answer.accepted:
            self._accepted(progress, answer)
            if state.role is not Role.LEADER:
                return  # what was committed took this server out of the group
        elif progress.pace is not Pace.SNAPSHOT and answer.round > progress.ignore_until:
            next_index = state.log.agrees_at_or_before(answer.index, answer.term_there) + 1
            progress.probe_from(min(next_index, state.flushed + 1), self.round)
            if state.log.term_of(progress.next - 1) is None or answer.index < state.log.compacted:
                progress.await_snapshot()
        if progress.pace is Pace.SNAPSHOT:
            self.snapshot_needed(sender, progress)
        self.replicate(sender, progress)
        self._confirm_reads()

    def _tell_forgotten(self, server: ServerId, progress: Progress) -> None:
        """Nothing that it said counts any more, and it is not brought up to date: what it voted for may be lost too."""
        if not progress.forgot:
            progress.forgot, progress.match = progress.match, 0
            progress.probe_from(self._state.flushed + 1, self.round)
        index = progress.forgot
        self._state.say(server, DiskForgot(index, self._state.log.term_of(index) or 0))

    def has_forgotten(self, server: ServerId) -> bool:
        """Whether `server` lost what it had acknowledged."""
        progress = self.progress.get(server)
        return progress is not None and progress.forgot > 0

    def lowest_needed(self) -> int:
        """The lowest index after which somebody who answers will need entries; `UNBOUNDED` when nobody does."""
        return min(
            (one.needs_after for server, one in self.progress.items() if not self.is_silent(server)), default=UNBOUNDED
        )

    def is_silent(self, server: ServerId) -> bool:
        """Whether `server` has answered nothing for longer than patience."""
        progress = self.progress.get(server)
        return progress is not None and self._state.now - progress.heard_at > self._state.patience()

    def is_storing_nothing(self, server: ServerId) -> bool:
        """Whether `server` answers, and has acknowledged none of what was sent to it for longer than patience."""
        progress = self.progress.get(server)
        since = None if progress is None else progress.waiting_since
        return since is not None and self._state.now - since > self._state.patience()

    def _accepted(self, progress: Progress, answer: Appended) -> None:
        is_news = progress.acknowledge(min(answer.index, self._state.log.last_index), self._state.now)
        is_caught_up = progress.pace is Pace.SNAPSHOT and progress.match >= self._state.log.compacted
        if is_caught_up or progress.is_found(answer.round):
            progress.replicate()
        elif progress.sending is not None and progress.match >= progress.sending.snapshot.index:
            progress.sending = None  # it is there, and the log went on without it
        if is_news and progress.match > self._state.commit:  # less makes nobody's majority larger than it was
            self.count()

    def _confirm_reads(self) -> None:
        if self.reads.has_batches:
            confirmed = agreed(self._state.log.configuration, self._round_of)
            self.reads_ready += self.reads.confirmed(confirmed)

    def _measure(self) -> None:
        """The largest RTT of the voters; what was told before counts as long as one is unmeasured."""
        state = self._state
        rtts = [self.progress[voter].rtt for voter in state.voters() if voter in self.progress]
        known = max(rtts, default=0)
        state.largest_rtt = max(known, state.largest_rtt) if 0 in rtts else known

    # ---- counting

    def count(self) -> None:
        """Commit what a quorum has."""
        state = self._state
        index = agreed(state.log.configuration, self.match_of)
        if index <= state.commit or not self._may_commit(index):
            return
        self.uncommitted -= sum(size_of(entry) for entry in state.log.between(state.commit + 1, index))
        state.commit_to(index)
        if self._tell_at == NEVER:
            self._tell_at = state.now + state.timing.commit_told
        self._begin_reads(self.round)
        self.committed()

    def _may_commit(self, index: int) -> bool:
        """Only an entry of this term is committed by counting; those before it come along (Raft paper, figure 8)."""
        return index != UNBOUNDED and self._state.log.term_of(index) == self._state.term

    def may_read(self) -> bool:
        """Whether an entry of this term is committed: before, what others had acknowledged may not be known as such."""
        return self._state.log.term_of(self._state.commit) == self._state.term

    def match_of(self, server: ServerId) -> int:
        """Up to where `server` has the log, durably."""
        if server == self._state.me:
            return min(self._state.log.stable, self._state.flushed)
        progress = self.progress.get(server)
        return progress.match if progress is not None else 0

    def _round_of(self, server: ServerId) -> int:
        if server == self._state.me:
            return UNBOUNDED
        progress = self.progress.get(server)
        return progress.round if progress is not None else 0

    def _heard_at(self, server: ServerId) -> int:
        if server == self._state.me:
            return self._state.now
        progress = self.progress.get(server)
        return progress.heard_at if progress is not None else 0

    def rtt_of(self, server: ServerId) -> int:
        """Round trip; 0 for this server, `UNBOUNDED` where it is not known."""
        if server == self._state.me:
            return 0
        progress = self.progress.get(server)
        return progress.rtt or UNBOUNDED if progress is not None else UNBOUNDED

    def quorum_rtt(self) -> int:
        """What a majority costs from here, as measured; `UNBOUNDED` where it is not known yet."""
        return nearest(self._state.log.configuration, self.rtt_of)

    # ---- time

    def heartbeat(self) -> int:
        """At least a round trip, so that no more than one is under way; and several before anybody loses patience."""
        state = self._state
        return max(state.timing.heartbeat, min(state.largest_rtt, state.patience() // 5))

    def deadline(self) -> int:
        return min(self._heartbeat_at, self._tell_at)

    def time_reached(self) -> bool:
        """Whether a heartbeat was due: then the other parts look round too."""
        state = self._state
        if self._heartbeat_at <= state.now:
            self._heartbeat_at = state.now + self.heartbeat()
            self._tell_at = NEVER
            self._let_go()
            for server, progress in self.progress.items():
                self.replicate(server, progress)
                self._send_heartbeat(server, progress)
            return True
        if self._tell_at <= state.now:
            self._tell_at = NEVER
            self.tell()
        return False

    def tell(self) -> None:
        """Let everybody know what is committed who was not told yet."""
        for server, progress in self.progress.items():
            if progress.told_commit < self._state.commit and not progress.lost:
                self._send_heartbeat(server, progress)

    def silent_for(self) -> int:
        """How long a majority has not answered."""
        return self._state.now - agreed(self._state.log.configuration, self._heard_at)

    def current_at(self) -> int:
        """When this server last knew for sure that it led, with all that was committed applied; 0: not yet.  It led when
        it said what a majority has answered since."""
        if not self.may_read():
            return 0
        return max(0, min(self._state.now, agreed(self._state.log.configuration, self._confirmed_at)))

    def _confirmed_at(self, server: ServerId) -> int:
        if server == self._state.me:
            return self._state.now
        progress = self.progress.get(server)
        return progress.confirmed_at if progress is not None else 0

    def _let_go(self) -> None:
        """Those who left the group and know it, or do not answer."""
        now = self._state.now
        for server, progress in list(self.progress.items()):
            knows = progress.match >= progress.leaving and progress.told_commit >= progress.leaving
            if progress.leaving and (knows or progress.leaving_until <= now):
                del self.progress[server]

    def stalled(self, gap: int) -> None:
        """This process stood still: that nobody was heard meanwhile says nothing."""
        for progress in self.progress.values():
            progress.heard_at += gap
        self._heartbeat_at = min(self._heartbeat_at, self._state.now)

    # ---- links

    def peer_lost(self, peer: ServerId) -> None:
        progress = self.progress.get(peer)
        if progress is not None:
            progress.link_lost(self.round)

    def peer_back(self, peer: ServerId) -> None:
        progress = self.progress.get(peer)
        if progress is None:
            return
        progress.link_lost(self.round)
        progress.lost = False
        if progress.pace is Pace.SNAPSHOT:
            if progress.sending is not None:
                progress.sending.rewind(progress.sending.acked, self._state.now)
            self.snapshot_needed(peer, progress)
        self.replicate(peer, progress)
        self._send_heartbeat(peer, progress)


def _nothing() -> None:
    pass


def _ignore(_server: ServerId, _progress: Progress) -> None:
    pass
