"""Snapshots: the applied state for a server that needs entries which are compacted.

    leader                                  follower
    wanted, then offered by its owner
    chunk 0, 1, 2 ... within a window   ->
                                        <-  n: I have those before chunk n
                                            all are here: the owner installs them, durably
                                        <-  all of them: entries after the snapshot may follow

Invariant: a snapshot is acknowledged only when it is durable, and it replaces nothing that is committed here already.
Chunks come in order; after a lost link the follower names the next one it needs, so nothing is sent twice for long.
Chunks of two leaders are never mixed.
"""

from dislocate.core.consensus.durability import Needs
from dislocate.core.consensus.duties import Snapshot
from dislocate.core.consensus.following import Following
from dislocate.core.consensus.leading import Leading
from dislocate.core.consensus.messages import ServerId, SnapshotChunk, SnapshotReceived
from dislocate.core.consensus.progress import Pace, Progress, Sending
from dislocate.core.consensus.state import Role, ServerState


class SnapshotsSent:
    """A leader's snapshots on their way."""

    def __init__(self, state: ServerState, leading: Leading) -> None:
        self._state = state
        self._leading = leading
        self.wanted: dict[ServerId, None] = {}  # what the owner has not been asked for yet

    def needed(self, server: ServerId, progress: Progress) -> None:
        """`server` needs what is compacted: ask the owner for a snapshot, or go on sending the one there is."""
        now = self._state.now
        if progress.sending is not None:
            if not progress.lost:
                self._push(server, progress, progress.sending)
        elif not progress.wanted_at or now - progress.wanted_at >= self._state.timing.snapshot_again:
            progress.wanted_at = now
            self.wanted[server] = None

    def offer(self, server: ServerId, snapshot: Snapshot) -> None:
        """The owner made `snapshot`; ignored when nobody needs it any more, or the log does not go on from there."""
        progress = self._leading.progress.get(server)
        if progress is None or progress.pace is not Pace.SNAPSHOT or progress.sending is not None:
            return
        if snapshot.index < self._state.log.compacted or not snapshot.chunks:
            return
        progress.sending = Sending(snapshot, self._state.now)
        self.needed(server, progress)

    def _push(self, server: ServerId, progress: Progress, sending: Sending) -> None:
        snapshot = sending.snapshot
        while (next_one := sending.next_chunk(self._state.timing.snapshot_window)) is not None:
            chunk, data = next_one
            self._leading.round += 1
            progress.sent_round = self._leading.round
            body = SnapshotChunk(
                snapshot.index,
                snapshot.term,
                snapshot.configuration,
                snapshot.digest,
                chunk,
                len(snapshot.chunks),
                data,
                progress.sent_round,
            )
            self._state.say(server, body)

    def on_received(self, sender: ServerId, answer: SnapshotReceived) -> None:
        progress = self._leading.progress.get(sender)
        if progress is None:
            return
        now = self._state.now
        progress.answered(answer.round, now)
        sending = progress.sending
        if sending is None or answer.index != sending.snapshot.index:
            return
        if answer.next_chunk >= len(sending.snapshot.chunks):
            progress.acknowledge(answer.index, now)
            progress.replicate()
            self._leading.count()
            if self._state.role is Role.LEADER:
                self._leading.replicate(sender, progress)
        elif answer.next_chunk > sending.acked:
            if answer.next_chunk > sending.acked + 1:
                progress.ignore_until = self._leading.round  # it had more than we knew: answers to the rest say nothing
            sending.acked, sending.moved_at = answer.next_chunk, now
            sending.sent = max(sending.sent, sending.acked)
            self._push(sender, progress, sending)
        elif answer.round > progress.ignore_until:
            progress.ignore_until = self._leading.round
            sending.rewind(answer.next_chunk, now)
            self._push(sender, progress, sending)

    def look_round(self) -> None:
        """Send again what got no answer; forget snapshots for those who are gone."""
        state = self._state
        for server, progress in self._leading.progress.items():
            if progress.pace is not Pace.SNAPSHOT:
                continue
            sending = progress.sending
            if sending is not None and state.now - progress.heard_at > state.timing.snapshot_patience:
                progress.sending, progress.wanted_at = None, state.now  # it will want another when it is back
            elif sending is not None and state.now - sending.moved_at > state.timing.snapshot_again:
                sending.rewind(sending.acked, state.now)
                self.needed(server, progress)


class SnapshotReceiving:
    """A follower's half of a snapshot."""

    def __init__(self, state: ServerState, following: Following) -> None:
        self._state = state
        self._following = following
        self._of: tuple[ServerId, int, int, int, int] | None = None  # leader, index, entry's term, digest, chunks
        self._chunks: list[bytes] = []
        self._last_round = 0
        self.install: Snapshot | None = None  # complete; the owner has not been told yet

    def on_chunk(self, leader: ServerId, chunk: SnapshotChunk) -> None:
        state = self._state
        if state.installing is not None:
            return  # answered when it is durable
        if state.log.term_of(chunk.index) == chunk.entry_term:
            state.commit_to(chunk.index)
        if chunk.index <= state.commit:
            self._following.acknowledge(leader, chunk.round, state.commit)
            self._forget()
            return
        of = (leader, chunk.index, chunk.entry_term, chunk.digest, chunk.chunks)
        if of != self._of:
            self._forget()
            self._of = of
        if chunk.chunk == len(self._chunks):
            self._chunks.append(chunk.data)
        self._last_round = chunk.round
        if len(self._chunks) < chunk.chunks:
            state.say(leader, SnapshotReceived(chunk.index, len(self._chunks), chunk.round), Needs.AFTER_TERM)
            return
        snapshot = Snapshot(chunk.index, chunk.entry_term, chunk.configuration, chunk.digest, tuple(self._chunks))
        state.installing = self.install = snapshot
        self._chunks = []

    def installed(self, index: int) -> None:
        """The owner made the snapshot durable, in place of everything it had."""
        state = self._state
        snapshot = state.installing
        if snapshot is None or snapshot.index != index:
            return
        state.installing = None
        state.log.restore(snapshot.index, snapshot.term, snapshot.configuration)
        state.commit_to(index)
        state.applied = state.flushed = index
        if self._of is not None and self._of[0] == state.leader:
            answer = SnapshotReceived(index, len(snapshot.chunks), self._last_round)
            state.say(state.leader, answer, Needs.AFTER_TERM)
        self._forget()

    def _forget(self) -> None:
        self._of = None
        self._chunks = []
