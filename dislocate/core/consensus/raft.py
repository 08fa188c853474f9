"""Raft: one server's part in keeping one log, without clock, disk or network.

    raft = Raft(me=server_id, restored=restored, stream=streams["raft"], now=now)
    raft.receive(sender, term, message, now)      what others said
    raft.time_reached(now)                        when `deadline()` has come
    raft.stored(ticket, now)                      what the disk said
    index = raft.propose(data, now)               queued, until
    raft.flush(now)                               one save, and one append to each follower, for all that waited
    duties = raft.take()                          after each turn: what there is to do (`duties`)

What holds at any time, whatever is lost, late or restarted, as long as no disk forgets what it called durable:

    election safety        one leader a term                                  `elections`, `durability`
    log matching           two logs with an entry in common agree before it   `log`, `following`
    leader completeness    what is committed is in every later leader's log   `elections`, `leading`
    state machine safety   at one index, everybody applies the same entry     the three above
    bounded terms          a server that cannot win raises no term            `elections`

Source: Ongaro and Ousterhout's paper and Ongaro's thesis; the form is that of etcd's raft.  Knows nothing of nodes,
links or what entries mean.  A call out of order (a proposal to a follower) is answered with why not; a broken promise of
the owner or of the disk is a `Bug`.
"""

from collections.abc import Callable
from typing import Any

from dislocate.core.consensus.change import Changes
from dislocate.core.consensus.duties import NOTHING, Duties, Restored, Snapshot, Timing
from dislocate.core.consensus.elections import Elections
from dislocate.core.consensus.following import Following
from dislocate.core.consensus.leading import Leading
from dislocate.core.consensus.log import ENTRY_OVERHEAD
from dislocate.core.consensus.messages import (
    Append,
    Appended,
    Configuration,
    DiskForgot,
    LeadNow,
    RaftMessage,
    ServerId,
    SnapshotChunk,
    SnapshotReceived,
    VoteAsked,
    VoteGiven,
)
from dislocate.core.consensus.quorum import UNBOUNDED, majority
from dislocate.core.consensus.snapshots import SnapshotReceiving, SnapshotsSent
from dislocate.core.consensus.state import Role, ServerState
from dislocate.core.consensus.transfer import Transfers
from dislocate.core.errors import require
from dislocate.core.streams import Stream


class Raft:
    """One server."""

    def __init__(
        self, *, me: ServerId, restored: Restored, stream: Stream, now: int, timing: Timing | None = None
    ) -> None:
        self.me = me
        self._state = state = ServerState(me, restored, stream, now, timing or Timing())
        self._following = Following(state)
        self._leading = Leading(state)
        self._elections = Elections(state, self._leading.begin)
        self._transfers = Transfers(state, self._leading)
        self._changes = Changes(state, self._leading, self._transfers)
        self._snapshots = SnapshotsSent(state, self._leading)
        self._receiving = SnapshotReceiving(state, self._following)
        self._reads_lost: list[int] = []
        self.refusal = ""  # why the last `propose` or `read` was refused
        state.deposed = self._deposed
        self._leading.snapshot_needed = self._snapshots.needed
        self._leading.committed = self._changes.committed
        self._followers_words: dict[type, Callable[[ServerId, Any], None]] = {
            Append: self._following.on_append,
            SnapshotChunk: self._receiving.on_chunk,
            DiskForgot: self._following.on_forgotten,
        }
        self._leaders_ears: dict[type, Callable[[ServerId, Any], None]] = {
            Appended: self._appended,
            SnapshotReceived: self._snapshots.on_received,
        }

    # ---- what is so

    @property
    def role(self) -> Role:
        return self._state.role

    @property
    def term(self) -> int:
        return self._state.term

    @property
    def leader(self) -> ServerId | None:
        """Whom this server takes for the leader."""
        return self._state.leader

    @property
    def is_leader(self) -> bool:
        return self._state.role is Role.LEADER

    @property
    def is_voter(self) -> bool:
        return self._state.is_voter

    @property
    def commit(self) -> int:
        return self._state.commit

    @property
    def has_reads(self) -> bool:
        """Whether a read waits for the next `flush`."""
        return self._leading.reads.has_asked

    @property
    def has_uncommitted(self) -> bool:
        """Whether something was sent to the others that is not committed yet."""
        return self._state.commit < self._state.flushed

    @property
    def applied(self) -> int:
        """Up to where `take` has handed out entries, or a snapshot was installed."""
        return self._state.applied

    @property
    def compacted(self) -> int:
        return self._state.log.compacted

    @property
    def last_index(self) -> int:
        return self._state.log.last_index

    @property
    def configuration(self) -> Configuration:
        """As the log has it, committed or not."""
        return self._state.log.configuration

    def configuration_at(self, index: int) -> Configuration:
        """As of `index`, which is not below the compaction point: what a snapshot or the disk is to say."""
        return self._state.log.configuration_at(index)

    def term_at(self, index: int) -> int:
        """The term of the entry at `index`; 0 when it is compacted or not there."""
        return self._state.log.term_of(index) or 0

    @property
    def largest_rtt(self) -> int:
        """Nanoseconds, among the voters, as far as it is known."""
        return self._state.largest_rtt

    @largest_rtt.setter
    def largest_rtt(self, nanoseconds: int) -> None:
        """What the owner knows before any leader has measured it; a leader's word replaces it."""
        self._state.largest_rtt = nanoseconds

    @property
    def quorum_rtt(self) -> int:
        """Nanoseconds that this server would need for a majority; its owner sets it, 0 is not known."""
        return self._state.quorum_rtt

    @quorum_rtt.setter
    def quorum_rtt(self, nanoseconds: int) -> None:
        self._state.quorum_rtt = nanoseconds

    @property
    def change_goal(self) -> tuple[ServerId, ...]:
        """The voters that a change under way here leads to; empty: none is."""
        return self._changes.goal

    @property
    def change_problem(self) -> str:
        """Why the last change was called off; '': it was not."""
        return self._changes.problem

    @property
    def keep_from(self) -> int:
        """An index up to which compacting costs nobody a snapshot, as far as is known here: one on its way goes on from
        where it ends, and who answers goes on from what it has.  Never above what is applied."""
        return min(self._leading.lowest_needed(), self._state.applied)

    def match_of(self, server: ServerId) -> int:
        """At the leader: up to where `server` has the log, durably."""
        return self._leading.match_of(server)

    def has_forgotten(self, server: ServerId) -> bool:
        """At the leader: whether `server` lost what it had acknowledged."""
        return self._leading.has_forgotten(server)

    def is_silent(self, server: ServerId) -> bool:
        """At the leader: whether `server` has not answered it for a while."""
        return self._leading.is_silent(server)

    def is_storing_nothing(self, server: ServerId) -> bool:
        """At the leader: whether `server` answers, and makes nothing durable for a while."""
        return self._leading.is_storing_nothing(server)

    def rtt_of(self, server: ServerId) -> int:
        """At the leader: nanoseconds to `server` and back; 0 when it was not measured."""
        rtt = self._leading.rtt_of(server)
        return 0 if rtt == UNBOUNDED else rtt

    @property
    def current_at(self) -> int:
        """When what is applied here was last known to be all that was committed anywhere; 0: not now."""
        state = self._state
        if state.role is Role.LEADER:
            return self._leading.current_at()
        is_behind = state.leader is None or state.applied < state.leader_commit
        return 0 if is_behind else max(0, state.led_at)

    @property
    def is_full(self) -> bool:
        """Whether this server's disk has no room, so that it could keep no vote; its owner sets it."""
        return self._state.is_full

    @is_full.setter
    def is_full(self, is_full: bool) -> None:
        self._state.is_full = is_full

    def full(self) -> tuple[ServerId, ...]:
        """Voters that can vote for nobody, as far as this server knows, since their disks are full."""
        state = self._state
        return tuple(one for one in state.voters() if one in state.full or (one == state.me and state.is_full))

    def missing(self) -> tuple[ServerId, ...]:
        """Voters that this server has not heard of for twice its patience: where nobody leads, as long as that may be between
        two questions of one that is well."""
        state = self._state
        since = state.now - 2 * state.patience()
        return tuple(one for one in state.voters() if one != state.me and state.heard.get(one, since) <= since)

    @property
    def why_no_leader(self) -> str:
        """For people; '' while there is a leader."""
        state = self._state
        if state.leader is not None:
            return ""
        voters, missing = state.voters(), self.missing()
        if not voters:
            return "this server has no log yet: it waits for the leader of its group"
        heard = len(voters) - len(missing)
        names = ", ".join(one.path for one in missing)
        if heard < majority(len(voters)):
            return (
                f"{heard} of {len(voters)} servers can be heard, {majority(len(voters))} are needed; missing: {names}"
            )
        gone = f"; missing: {names}" if missing else ""
        full = tuple(one for one in self.full() if one not in missing)
        if heard - len(full) < majority(len(voters)):
            disks = "the disk of {} is" if len(full) == 1 else "the disks of {} are"
            words = disks.format(", ".join(one.path for one in full))
            return f"{words} full, without which no leader can be elected: free space there{gone}"
        return f"an election is under way{gone}"

    # ---- inputs

    def receive(self, sender: ServerId, term: int, message: RaftMessage, now: int) -> None:
        """`sender` said `message` in `term`."""
        state = self._state
        state.now = state.heard[sender] = now
        kind = type(message)
        if isinstance(message, VoteAsked):
            self._elections.on_vote_asked(sender, term, message)
            return
        if term < state.term:
            if isinstance(message, Append | SnapshotChunk):
                self._following.refuse_past(sender, message)
            return
        if isinstance(message, VoteGiven):
            if term > state.term and not (message.pre and message.granted):
                self._outranked(sender, term)
            self._elections.on_vote_given(sender, term, message)
            return
        if kind in self._followers_words:
            self._hear_leader(sender, term)
            self._followers_words[kind](sender, message)
            return
        if term > state.term:
            self._outranked(sender, term)
        if isinstance(message, LeadNow):
            self._lead_now(sender)
        elif state.role is Role.LEADER:
            self._leaders_ears[kind](sender, message)

    def _outranked(self, sender: ServerId, term: int) -> None:
        self._state.follow(term, None, f"{sender.path} is in term {term}")

    def _hear_leader(self, leader: ServerId, term: int) -> None:
        state = self._state
        if term > state.term or state.leader != leader:
            require(term > state.term or state.leader is None, f"two leaders in term {term}: {leader}, {state.leader}")
            state.follow(term, leader, f"{leader.path} leads term {term}")
        self._elections.heard_leader()

    def _lead_now(self, sender: ServerId) -> None:
        if sender == self._state.leader and self._state.role is Role.FOLLOWER:
            self._elections.ask(pre=False, transferred=True)

    def _appended(self, sender: ServerId, answer: Appended) -> None:
        self._leading.on_appended(sender, answer)
        if self._transfers.to is not None:
            self._transfers.acknowledged(sender)

    def time_reached(self, now: int) -> None:
        """What has become due by `now`."""
        state = self._state
        state.now = now
        if state.role is not Role.LEADER:
            self._elections.time_reached()
        elif self._leading.time_reached():
            if self._leading.silent_for() > state.patience():
                state.follow(state.term, None, "a majority of the voters is silent")
                return
            self._snapshots.look_round()
            self._changes.look_round()
            self._transfers.look_round()

    def stored(self, ticket: int, now: int) -> None:
        """The save `ticket`, and all before it, are durable."""
        state = self._state
        state.now = now
        state.durability.stored(ticket, state.term, now)
        state.log.stored(ticket)
        if state.role is Role.LEADER:
            self._leading.count()
        else:
            self._elections.stored()

    def stalled(self, gap: int, now: int) -> None:
        """This process stood still for `gap`: silence of others in that time was not theirs."""
        self._state.now = now
        self._elections.rearm()
        self._leading.stalled(gap)

    def peer_refused(self, peer: ServerId, now: int) -> None:
        """Nobody listens where `peer` was: this server has verified that itself."""
        self._state.now = now
        self._state.heard.pop(peer, None)
        self._elections.peer_refused(peer)

    def peer_lost(self, peer: ServerId, now: int) -> None:
        """The link to `peer` ended: what was under way may be lost."""
        self._state.now = now
        self._leading.peer_lost(peer)

    def peer_back(self, peer: ServerId, now: int) -> None:
        """There is a link to `peer`."""
        self._state.now = now
        self._leading.peer_back(peer)
        self._elections.peer_back(peer)

    # ---- what the owner wants

    def propose(self, data: bytes, now: int) -> int | None:
        """The index that `data` will have if it is committed in this term; it leaves with the next `flush`.  None: it is
        refused, and `refusal` says why."""
        self._state.now = now
        self.refusal = self._why_not(len(data))
        return None if self.refusal else self._leading.append(data)

    def _why_not(self, size: int) -> str:
        state, leading = self._state, self._leading
        if state.role is not Role.LEADER:
            return "this server does not lead"
        if self._transfers.to is not None:
            return "leadership is being handed over"
        if leading.uncommitted and leading.uncommitted + size + ENTRY_OVERHEAD > state.timing.uncommitted_bytes:
            return "too much waits for a majority of the servers already"
        return ""

    def read(self, read_id: int, now: int) -> bool:
        """Confirm that a read asked now may be answered: `Duties.reads` says when, or `reads_lost` that it never will be.
        It leaves with the next `flush`.  False: refused."""
        self._state.now = now
        if self._state.role is not Role.LEADER:
            self.refusal = "this server does not lead"
            return False
        self._leading.reads.ask(read_id)
        return True

    def flush(self, now: int) -> None:
        """Send what was proposed and asked since the last time."""
        self._state.now = now
        if self._state.role is Role.LEADER:
            self._leading.flush()

    def change(self, voters: tuple[ServerId, ...], now: int) -> str:
        """Make `voters` the voters, in as many steps as it takes; '' or why not.  `change_goal` and `configuration` tell
        how far it is; naming the voters of now calls off what has not reached the joint step."""
        self._state.now = now
        return self._changes.start(voters)

    def transfer(self, to: ServerId | None, now: int) -> str:
        """Hand leadership to `to`, or to whoever is best; '' or why not."""
        self._state.now = now
        return self._transfers.start(to)

    def offer_snapshot(self, peer: ServerId, snapshot: Snapshot, now: int) -> None:
        """What `Duties.snapshots_wanted` asked for; kept in memory until `peer` has it."""
        self._state.now = now
        if self._state.role is Role.LEADER:
            self._snapshots.offer(peer, snapshot)

    def installed(self, snapshot_index: int, now: int) -> None:
        """`Duties.install` is durable, in place of all that was there."""
        self._state.now = now
        self._receiving.installed(snapshot_index)

    def compact(self, index: int) -> None:
        """The owner has durable state up to `index`: forget the entries up to there."""
        self._state.log.compact(min(index, self._state.applied))

    # ---- outputs

    def deadline(self) -> int:
        """When to call `time_reached`; `elections.NEVER` when at no time."""
        if self._state.role is Role.LEADER:
            return self._leading.deadline()
        return self._elections.deadline()

    def take(self) -> Duties:
        """What there is to do now, each duty once; `NOTHING`, which is false, when there is nothing."""
        state = self._state
        durability, log = state.durability, state.log
        save = durability.save(state.hard, log, state.flushed, state.term, state.now)
        words = durability.words()
        committed = log.between(state.applied + 1, state.commit) if state.commit > state.applied else ()
        leading, receiving = self._leading, self._receiving
        told = leading.reads_ready or self._reads_lost or self._snapshots.wanted or state.events
        if not (save or words or committed or told or receiving.install or state.forgotten):
            return NOTHING
        state.applied = max(state.applied, state.commit)
        duties = Duties(
            () if save is None else (save,),
            words,
            committed,
            tuple(leading.reads_ready),
            tuple(self._reads_lost),
            tuple(self._snapshots.wanted),
            receiving.install,
            state.forgotten,
            tuple(state.events),
        )
        leading.reads_ready, self._reads_lost, state.events = [], [], []
        self._snapshots.wanted.clear()
        receiving.install = None
        state.forgotten = 0
        return duties

    def _deposed(self) -> None:
        self._reads_lost += self._leading.end()
        self._transfers.end()
        self._changes.end()
        self._snapshots.wanted.clear()
        self._elections.rearm()
