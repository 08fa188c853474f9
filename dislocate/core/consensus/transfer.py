"""Transfer: a leader hands over, because it was asked to, its disk is slow, or another server is better placed.

    wait until the other has the whole log, taking no proposals meanwhile
    LeadNow: it asks for votes at once, and nobody refuses out of respect for this leader's lease
    no new leader within `patience()`: this one goes on

Invariant: handing over never costs an entry; it is an ordinary election with a voter that has the whole log.
Source: Raft thesis, 3.10; the two reasons of its own are ours, each a pure function here.
"""

from dislocate.core import tunables
from dislocate.core.consensus.leading import Leading
from dislocate.core.consensus.messages import LeadNow, ServerId
from dislocate.core.consensus.progress import Pace, Progress
from dislocate.core.consensus.quorum import UNBOUNDED
from dislocate.core.consensus.state import Role, ServerState


def is_clearly_better(own: int, other: int) -> bool:
    """Whether a server that needs `other` nanoseconds for a majority should lead instead of one that needs `own`."""
    return own > tunables.BETTER_PLACED_FACTOR * other + tunables.BETTER_PLACED_MARGIN


def is_disk_too_slow(own: int, other: int, limit: int) -> bool:
    """Whether saves that take `own` are reason to hand over to a server whose saves take `other`."""
    return own > limit and 2 * other < own


class Transfers:
    """A leader's handing over."""

    def __init__(self, state: ServerState, leading: Leading) -> None:
        self._state = state
        self._leading = leading
        self.to: ServerId | None = None
        self._until = 0
        self._has_told = False
        self._not_before = 0  # of its own accord

    def start(self, to: ServerId | None) -> str:
        """Begin; '' or why not."""
        state = self._state
        if state.role is not Role.LEADER:
            return "this server does not lead"
        if self.to is not None:
            return f"leadership is being handed to {self.to.path} already"
        if to == state.me:
            return f"{to.path} leads already"
        if to is not None and to not in state.log.configuration.voters:
            return f"{to.path} is no voter"
        to = to or self._best()
        if to is None:
            return "no other voter answers"
        self.to, self._until, self._has_told = to, state.now + state.patience(), False
        self.acknowledged(to)
        return ""

    def end(self) -> None:
        self.to = None

    def acknowledged(self, server: ServerId) -> None:
        """`server` has more of the log: perhaps all of it."""
        if server != self.to or self._has_told:
            return
        progress = self._leading.progress.get(server)
        if progress is not None and progress.match == self._state.log.last_index:
            self._has_told = True
            self._state.say(server, LeadNow())

    def leave(self) -> None:
        """This server belongs to the group no more: whoever is best goes on."""
        to = self._best()
        if to is not None:
            self._state.say(to, LeadNow())

    def _best(self) -> ServerId | None:
        """A voter that answers, keeps up, is near to the others and quick."""
        able = [(server, one) for server, one in self._leading.progress.items() if self._is_able(server, one)]
        if not able:
            return None
        return min(able, key=lambda pair: (pair[1].quorum_rtt or UNBOUNDED, pair[1].append_latency, pair[0]))[0]

    def _is_able(self, server: ServerId, progress: Progress) -> bool:
        state = self._state
        if server not in state.log.configuration.voters or progress.lost or progress.pace is not Pace.REPLICATE:
            return False
        return state.now - progress.heard_at < state.patience() and progress.match >= state.commit

    # ---- of its own accord

    def look_round(self) -> None:
        """At each heartbeat: go on after a transfer that failed; see whether somebody else should lead."""
        if self.to is not None:
            if self._until <= self._state.now:
                self.to = None
            return
        better = self._better_placed() or self._quicker()
        if better is not None and self._state.now >= self._not_before:
            self._not_before = self._state.now + self._state.timing.better_placed_for  # proposals are refused meanwhile
            self.start(better)

    def _quicker(self) -> ServerId | None:
        state = self._state
        own = state.durability.slowness(state.now)
        if own <= state.timing.slow_save:
            return None
        for server, progress in self._leading.progress.items():
            disk = max(0, progress.append_latency - progress.rtt)
            if self._is_able(server, progress) and is_disk_too_slow(own, disk, state.timing.slow_save):
                return server
        return None

    def _better_placed(self) -> ServerId | None:
        state = self._state
        own = state.quorum_rtt or self._leading.quorum_rtt()
        found: tuple[int, ServerId] | None = None
        for server, progress in self._leading.progress.items():
            other = progress.quorum_rtt
            if not other or own >= UNBOUNDED or not is_clearly_better(own, other):
                progress.better_since = 0
                continue
            progress.better_since = progress.better_since or state.now
            if state.now - progress.better_since >= state.timing.better_placed_for and self._is_able(server, progress):
                found = min(found or (other, server), (other, server))
        return None if found is None else found[1]
