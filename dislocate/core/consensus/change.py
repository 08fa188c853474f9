"""Change: who votes, from one set to any other, in steps each of which is safe by itself.

    voters A                      newcomers are added as learners: they get the log and do not vote
    voters A, learners B - A      until each has caught up: a round of catching up that was shorter than `patience()`
    voters B, outgoing A          joint: elections and commits need a majority of A and one of B
    voters B                      when the joint entry is committed

Invariant: each configuration's quorums meet those of the one before (Raft thesis, 4.3); a configuration counts from the
moment it is in the log, and the next step waits until it is committed.  A wiped server is another `ServerId` of the same
path: it takes the old one's place in one such change.

One change at a time.  Until the joint entry a change can be called off, by naming the voters of now, and is, when its
newcomers get nowhere; a new leader does not know the goal and leaves the learners for whoever asks again.  From the joint
entry on every leader completes it.  A leader that leaves itself out steps down when the last step is committed.
"""

from dislocate.core.consensus.leading import Leading
from dislocate.core.consensus.messages import Configuration, ServerId
from dislocate.core.consensus.state import Role, ServerState
from dislocate.core.consensus.transfer import Transfers


class _CatchingUp:
    """One newcomer on its way."""

    __slots__ = ("began", "goal", "is_done", "match", "moved_at")

    def __init__(self, goal: int, now: int) -> None:
        self.goal = goal  # the end of the log when this round began
        self.began = now
        self.match = 0
        self.moved_at = now
        self.is_done = False

    def look(self, match: int, last: int, now: int, patience: int) -> None:
        if match > self.match:
            self.match, self.moved_at = match, now
        if match >= self.goal:
            self.is_done = self.is_done or now - self.began <= patience
            self.goal, self.began = last, now


class Changes:
    """A leader's change of the configuration."""

    def __init__(self, state: ServerState, leading: Leading, transfers: Transfers) -> None:
        self._state = state
        self._leading = leading
        self._transfers = transfers
        self._newcomers: dict[ServerId, _CatchingUp] = {}
        self.goal: tuple[ServerId, ...] = ()  # the voters that were asked for; empty: no change is under way here
        self.problem = ""  # why the last one was called off

    def start(self, voters: tuple[ServerId, ...]) -> str:
        """Begin; '' or why not."""
        goal = tuple(sorted(dict.fromkeys(voters)))
        now_voting = self._state.log.configuration.voters
        if reason := self._refusal(goal):
            return reason
        if goal == now_voting:
            if not self._state.log.configuration.learners:
                return "these are the voters already"
            self._call_off("called off")
            return ""
        self.problem = ""
        self.goal = goal
        newcomers = tuple(one for one in goal if one not in now_voting)
        if newcomers != self._state.log.configuration.learners:
            self._leading.append_now(Configuration(now_voting, (), newcomers))
        last, now = self._state.log.last_index, self._state.now
        self._newcomers = {one: _CatchingUp(last, now) for one in newcomers}
        self._go_on()
        return ""

    def _refusal(self, goal: tuple[ServerId, ...]) -> str:
        state = self._state
        configuration = state.log.configuration
        if state.role is not Role.LEADER:
            return "this server does not lead"
        if self._transfers.to is not None:
            return "leadership is being handed over"
        if not self._leading.may_read():
            return "the leader has just been elected, try again"
        if not goal:
            return "a group needs at least one voter"
        if configuration.outgoing or (self.goal and goal != configuration.voters):
            return "another change is under way"
        if state.log.configuration_index > state.commit:
            return "the last change is not committed yet"
        return ""

    def end(self) -> None:
        """This server leads no more."""
        self.goal = ()
        self._newcomers = {}

    def _call_off(self, problem: str) -> None:
        self.end()
        self.problem = problem
        self._leading.append_now(Configuration(self._state.log.configuration.voters))

    # ---- the steps

    def look_round(self) -> None:
        """At each heartbeat: have the newcomers caught up?"""
        state = self._state
        configuration = state.log.configuration
        if not self.goal or configuration.outgoing or configuration.voters == self.goal:
            return
        for server, one in self._newcomers.items():
            progress = self._leading.progress[server]
            one.look(progress.match, state.flushed, state.now, state.patience())
            if progress.sending is not None:
                one.moved_at = max(one.moved_at, progress.sending.moved_at)
            if state.now - one.moved_at > state.timing.catch_up_patience and not one.is_done:
                self._call_off(f"{server.path} did not catch up: is its agent running, and can it be reached?")
                return
        self._go_on()

    def _go_on(self) -> None:
        """Enter the joint configuration when everybody new is ready."""
        configuration = self._state.log.configuration
        if all(one.is_done for one in self._newcomers.values()):
            self._leading.append_now(Configuration(self.goal, configuration.voters))

    def committed(self) -> None:
        """Something was committed: perhaps the present configuration."""
        state = self._state
        configuration = state.log.configuration
        if state.log.configuration_index > state.commit or not self._leading.may_read():
            return
        if configuration.outgoing:
            self._leading.append_now(Configuration(configuration.voters))
            return
        if configuration.voters == self.goal:
            self.end()
        if state.me not in configuration.voters:
            self._leading.tell()  # above all those who leave too
            self._transfers.leave()
            state.follow(state.term, None, "this server was removed from the group")
