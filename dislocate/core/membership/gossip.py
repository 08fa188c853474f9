"""Gossip: while there are rumours, three random members hear of them each period.

An idle node sets no timer.  The first round after a pause follows within `QUICKLY`: what is news after a quiet time, such
as a death, crosses the data center in a few hops of milliseconds, and only a busy queue waits for the period.  One who was
declared dead by silence is told too, for a while: if it lives, it objects.
"""

from collections.abc import Callable

from dislocate.core.boundary.values import MemberState
from dislocate.core.membership.beliefs import Beliefs
from dislocate.core.membership.members import Member, Members
from dislocate.core.outbox import Outbox, Timer
from dislocate.core.streams import Stream
from dislocate.core.tunables import GOSSIP_FANOUT, GOSSIP_PERIOD
from dislocate.core.units import MILLISECOND, SECOND

QUICKLY = 10 * MILLISECOND  # random up to this: lets the news of one burst travel together
ALONE = (
    10 * SECOND
)  # after so long without anybody to gossip with, what waits is dropped: a newcomer learns it by repair
DEAD_HEAR_FOR = 30 * SECOND  # memberlist's GossipToTheDeadTime


class GossipDue(Timer, frozen=True):
    """The next round."""


class Gossip:
    """One node's rounds."""

    def __init__(self, out: Outbox, members: Members, beliefs: Beliefs, stream: Stream) -> None:
        self._out = out
        self._members = members
        self._beliefs = beliefs
        self._stream = stream
        self._armed = False
        self._last = -GOSSIP_PERIOD
        self._alone_since: int | None = None  # with something to tell

    def timers(self) -> dict[type, Callable[[GossipDue], None]]:
        return {GossipDue: self._round}

    def rumors_wait(self) -> None:
        """Called after each turn that leaves rumours: whatever part put one, a round follows."""
        now = self._out.now
        if not self._members.peers:
            if self._alone_since is None:
                self._alone_since = now
            elif now - self._alone_since > ALONE:
                self._out.rumors.clear()
            return
        self._alone_since = None
        if not self._armed:
            self._armed = True
            soonest = now + 1 + self._stream.below(QUICKLY)
            self._out.arm(max(soonest, self._last + GOSSIP_PERIOD), GossipDue())

    def _round(self, _timer: GossipDue) -> None:
        self._armed = False
        self._last = self._out.now
        for member in self._stream.sample(self._members.peers, GOSSIP_FANOUT):
            if not self._out.rumors.count:
                return
            self._out.send(member.record.gossip, None)
        self._tell_one_of_the_dead()

    def _tell_one_of_the_dead(self) -> None:
        since = self._out.now - DEAD_HEAR_FOR
        hearing = [m for m in self._beliefs.gone.values() if _died_silently(m) and m.since >= since]
        if hearing and self._out.rumors.count:
            self._out.send(self._stream.choice(hearing).record.gossip, None)


def _died_silently(member: Member) -> bool:
    return member.state is MemberState.DEAD and not member.refused
