"""Following: what a server does with what its leader sends.

Invariants: an acknowledged index is durable; what matches is never truncated (`log.merge`); nothing is taken into the log
while a snapshot is being installed.  An append without entries is answered without waiting for the disk: it confirms the
leader and measures the way, and acknowledges what is durable already.
"""

from itertools import takewhile

from dislocate.core.consensus.durability import Needs
from dislocate.core.consensus.messages import Append, Appended, DiskForgot, ServerId, SnapshotChunk
from dislocate.core.consensus.state import ServerState

ANSWERS_KEPT = 1_024  # rounds: a leader under load says some hundred things a second, and answers come within seconds


class Following:
    """A follower's part."""

    def __init__(self, state: ServerState) -> None:
        self._state = state

    def on_append(self, leader: ServerId, append: Append) -> None:
        """An append of this term; the state follows `leader` already."""
        state, log = self._state, self._state.log
        if append.largest_rtt:  # a leader that has just been started does not know it yet
            state.largest_rtt = append.largest_rtt
        state.leader_commit = append.commit
        self._take_age(append)
        if not _is_contiguous(append):
            return  # no leader of ours sends that
        if state.installing is not None:
            self._refuse(leader, append.round, state.commit)  # nobody has looked: the log is about to be replaced
            return
        before = log.last_index
        agreed = log.merge(append.prev_index, append.prev_term, append.entries, state.commit)
        if agreed is None:
            hint = log.agrees_at_or_before(min(append.prev_index, before), append.prev_term)
            self._refuse(leader, append.round, hint, has_looked=True)
            return
        state.flushed = log.last_index
        state.commit_to(min(append.commit, agreed))
        if append.entries and agreed > log.stable:
            self._remember(append.round)
            answer = Appended(True, agreed, 0, append.round, state.quorum_rtt)
            state.say(leader, answer, Needs.AFTER_ALL)
        else:
            self.acknowledge(leader, append.round, agreed)

    def _take_age(self, append: Append) -> None:
        """What the leader says now it said after it had the answer that it echoes, so it is no older than that answer."""
        answered = self._state.answered
        answered_at = answered.get(append.echo)
        if answered_at is not None:
            self._state.led_at = max(self._state.led_at, answered_at - append.age)
            for round_ in takewhile(lambda one: one < append.echo, tuple(answered)):
                del answered[round_]

    def _remember(self, round_: int) -> None:
        """This round is answered now, or as soon as the disk allows."""
        answered = self._state.answered
        answered[round_] = self._state.now
        if len(answered) > ANSWERS_KEPT:
            del answered[next(iter(answered))]

    def refuse_past(self, sender: ServerId, message: Append | SnapshotChunk) -> None:
        """Somebody leads a term that is over: it learns so by the term of the answer."""
        self._refuse(sender, message.round, 0)

    def acknowledge(self, leader: ServerId, round_: int, agreed: int) -> None:
        """The log agrees up to `agreed`: of that, what is durable already is acknowledged, without waiting."""
        state = self._state
        self._remember(round_)
        answer = Appended(True, min(agreed, state.log.stable), 0, round_, state.quorum_rtt)
        state.say(leader, answer, Needs.AFTER_TERM)

    def on_forgotten(self, _leader: ServerId, said: DiskForgot) -> None:
        """The leader has found out that this disk lost what it had acknowledged."""
        log = self._state.log
        term = log.term_of(said.index)  # None too where it is compacted, which is to have it
        is_another = term is not None and said.entry_term not in (term, 0)
        if said.index > log.last_index or is_another:
            self._state.forgotten = said.index

    def _refuse(self, leader: ServerId, round_: int, hint: int, *, has_looked: bool = False) -> None:
        state = self._state
        self._remember(round_)
        answer = Appended(False, hint, state.log.term_of(hint) or 0, round_, state.quorum_rtt, has_looked)
        state.say(leader, answer, Needs.AFTER_TERM)


def _is_contiguous(append: Append) -> bool:
    return all(entry.index == append.prev_index + 1 + at for at, entry in enumerate(append.entries))
