"""Elections: when to ask for votes, and whom to give one.

    silence      nobody led for `patience()`, drawn up to twice that: would you vote for me? (PreVote)
    refusal      this server itself was refused by the leader's host: the same, after random(0, 2 RTT + 50 ms)
    LeadNow      the leader asks for it: votes at once, and its lease does not speak against it

The lease: who heard the leader within `patience()` gives no vote and no promise of one, so a server that was cut off,
removed, or hears only part of the others deposes nobody (etcd#9333, #8499).  A voter waives it for itself alone, on its
own verified refusal, or when the leader itself asks for votes: what others say of a leader is no evidence.

Invariants: one vote a term, durable before it is told and before a candidate counts its own (`durability`).  A question
for a promise changes no term, so whoever cannot win never raises one; and who could not keep a vote, since its disk is
full, promises none, else each question after a promise would raise the term for nothing.  A question from a lower term is
answered: silence would leave the asker behind for ever (etcd#8501, #9586).  Who stops hearing a leader forgets it when it
asks, else two such would refuse each other out of respect for one that is gone.
"""

from collections.abc import Callable

from dislocate.core.consensus.durability import Needs
from dislocate.core.consensus.messages import ServerId, VoteAsked, VoteGiven
from dislocate.core.consensus.quorum import UNBOUNDED, Outcome, outcome
from dislocate.core.consensus.state import Role, ServerState

NEVER = UNBOUNDED
_DRAWS = 32  # bits of the share by which silence is drawn out


class Elections:
    """One server's asking and answering."""

    def __init__(self, state: ServerState, won: Callable[[], None]) -> None:
        self._state = state
        self._won = won
        self._votes: dict[ServerId, bool] = {}
        self._heard_leader_at = 0
        self._is_waived = False  # this server itself was refused by the leader's host
        self._attempts = 0  # questions since the refusal
        self._is_transfer = False  # the present candidacy is one that the leader asked for
        self._draw = 0
        self._at = 0
        self.rearm()
        if state.voters() == (state.me,):
            self._at = state.now  # who is alone when it starts need not wait for anybody

    # ---- time

    def deadline(self) -> int:
        """When this server asks for votes, or at least forgets its leader, if nothing is heard until then."""
        state = self._state
        if state.role is Role.LEADER or state.installing is not None:
            return NEVER
        return self._at if state.leader is not None or state.may_ask else NEVER

    def rearm(self) -> None:
        """Draw anew how long silence may last, from now on."""
        self._draw = self._state.stream.bits(_DRAWS)
        self._at = self._state.now + self._silence()

    def _silence(self) -> int:
        patience = self._state.patience()
        return patience + (patience * self._draw >> _DRAWS)

    def heard_leader(self) -> None:
        """The leader of this term said something."""
        self._heard_leader_at = self._state.now
        self._is_waived = False
        self._at = self._state.now + self._silence()

    def time_reached(self) -> None:
        if self.deadline() > self._state.now:
            return
        state = self._state
        state.leader = None
        if state.durability.is_hard(state.hard):
            self.ask(pre=True)
        else:
            self.rearm()  # whose disk hangs raises its term once, and not each time that it loses patience

    def peer_refused(self, peer: ServerId) -> None:
        """Nobody listens where `peer` was: this server has verified that."""
        state = self._state
        if peer != state.leader or state.role is Role.LEADER:
            return
        self._is_waived = True
        self._attempts = 0
        self._at = state.now + state.stream.below(self._refusal_spread() + 1)

    def _refusal_spread(self) -> int:
        return 2 * self._state.largest_rtt + self._state.timing.refusal_spread

    def _rearm_to_ask_again(self) -> None:
        """Soon after a refusal, since the others may not have seen it yet; then more and more as after silence."""
        self.rearm()
        if self._is_waived:
            self._attempts += 1
            spread = self._refusal_spread() << min(self._attempts, 16)
            state = self._state
            self._at = min(self._at, state.now + state.stream.below(spread + 1))

    # ---- asking

    def ask(self, *, pre: bool, transferred: bool = False) -> None:
        """Ask everybody for a vote, or whether one would be given."""
        state = self._state
        if not state.may_ask or state.installing is not None:
            return
        self._is_transfer = transferred
        state.leader = None
        if pre:
            state.role = Role.PRE_CANDIDATE
            self._votes = {state.me: True}
        else:
            state.role = Role.CANDIDATE
            state.term, state.voted_for = state.term + 1, state.me
            self._votes = {}
        self._rearm_to_ask_again()
        for voter in state.voters():
            if voter != state.me:
                self._ask(voter)
        if pre:
            self._count()

    def _ask(self, voter: ServerId) -> None:
        state, log = self._state, self._state.log
        pre = state.role is Role.PRE_CANDIDATE
        question = VoteAsked(log.last_index, log.last_term, pre, self._is_transfer)
        state.durability.say(voter, state.term + pre, question, Needs.AT_ONCE if pre else Needs.AFTER_ALL)

    def peer_back(self, peer: ServerId) -> None:
        """A question that went out while there was no link is asked again."""
        state = self._state
        is_asking = state.role in (Role.PRE_CANDIDATE, Role.CANDIDATE)
        if is_asking and peer in state.voters() and peer not in self._votes:
            self._ask(peer)

    def stored(self) -> None:
        """Something became durable: perhaps the candidate's own vote."""
        state = self._state
        if state.role is Role.CANDIDATE and state.me not in self._votes and state.durability.is_hard(state.hard):
            self._votes[state.me] = True
            self._count()

    def on_vote_given(self, sender: ServerId, term: int, answer: VoteGiven) -> None:
        """An answer in this term, or a promise for the next one."""
        state = self._state
        if answer.disk_full:
            state.full[sender] = None
        else:
            state.full.pop(sender, None)
        if state.role is not (Role.PRE_CANDIDATE if answer.pre else Role.CANDIDATE):
            return
        if answer.pre and answer.granted and term != state.term + 1:
            return
        self._votes.setdefault(sender, answer.granted)
        self._count()

    def _count(self) -> None:
        state = self._state
        match outcome(state.log.configuration, self._votes):
            case Outcome.WON if state.role is Role.PRE_CANDIDATE:
                self.ask(pre=False)
            case Outcome.WON:
                self._is_waived = False
                self._won()
            case Outcome.LOST:
                state.follow(state.term, None, "lost an election")

    # ---- answering

    def on_vote_asked(self, sender: ServerId, term: int, question: VoteAsked) -> None:
        """May be of any term."""
        state = self._state
        if question.pre and state.is_full:
            # In the asker's own term, which says nothing of a term that may not be durable here.
            state.durability.say(sender, term - 1, VoteGiven(False, True, disk_full=True), Needs.AT_ONCE)
            return
        if term < state.term:
            self._refuse(sender, question)
            return
        if term > state.term:
            if sender == state.leader:
                state.leader = None  # who asks for votes does not lead any more: its own word for it
            if not question.transferred and self.holds_lease():
                self._refuse(sender, question)
                return
            if not question.pre:
                state.follow(term, None, f"{sender.path} asked for votes in term {term}")
        if not self._may_vote(sender, term, question):
            self._refuse(sender, question)
        elif question.pre:
            state.durability.say(sender, term, VoteGiven(True, True), Needs.AT_ONCE)
        else:
            state.voted_for = sender
            self.rearm()
            state.say(sender, VoteGiven(True, False), Needs.AFTER_ALL)

    def holds_lease(self) -> bool:
        """Whether this server has a leader that it must not help to depose."""
        state = self._state
        if state.role is Role.LEADER:
            return True  # it steps down by itself when a majority is silent
        if state.leader is None or self._is_waived:
            return False
        return state.now - self._heard_leader_at < state.patience()

    def _may_vote(self, sender: ServerId, term: int, question: VoteAsked) -> bool:
        state, log = self._state, self._state.log
        is_free = state.voted_for == sender or (state.voted_for is None and state.leader is None)
        if not is_free and not (question.pre and term > state.term):
            return False
        return (question.last_term, question.last_index) >= (log.last_term, log.last_index)

    def _refuse(self, sender: ServerId, question: VoteAsked) -> None:
        self._state.say(sender, VoteGiven(False, question.pre), Needs.AFTER_TERM)
