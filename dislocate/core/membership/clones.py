"""One name at two addresses: a machine that moved, or two that claim to be the same.

A higher boot of a name at another address wins only when the old address fails a direct probe.  While the old one answers,
the newcomer is a clone: that is reported, and the older keeps the name.  Each node asks for itself and believes no rumour
about it.  Of two equal boots (a copied disk, started in the same millisecond) the lower nonce counts as the older.

Who hears a later start of its own name asks it as well.  One that is silent to `SILENCES` pings is over, and this node takes
a boot above it, so that whoever believed it comes back; at most once in `REPORT_AGAIN`: the two may only not hear each other.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

from dislocate.core.boundary.events import CloneDetected
from dislocate.core.identity import NodeId, Path
from dislocate.core.membership.members import Member
from dislocate.core.membership.messages import Alive, MemberRecord
from dislocate.core.membership.pings import Pings
from dislocate.core.outbox import Outbox, Timer
from dislocate.core.tunables import PROBE_TIMEOUT_MAX
from dislocate.core.units import MINUTE
from dislocate.core.wire import encode_fact

REPORT_AGAIN = 1 * MINUTE  # the same clone
REPORTED_KEPT = 100
SILENCES = 3  # pings: of a thousand rivals that live, one is not heard three times where 5 % of all packets are lost

Claim: TypeAlias = tuple[Path, int, int]  # path, boot, nonce


class OldAddressSilent(Timer, frozen=True):
    """The old address had the time to answer."""

    path: Path
    seq: int


class RivalSilent(Timer, frozen=True):
    """Who claims this node's own name had the time to answer."""

    seq: int
    node: NodeId


class Clones:
    """Names in dispute."""

    def __init__(
        self, out: Outbox, pings: Pings, accept: Callable[[MemberRecord], None], outlived: Callable[[int], None]
    ) -> None:
        self._out = out
        self._pings = pings
        self._accept = accept
        self._outlived = outlived  # called with the boot of a rival that is over
        self._rival_seq = 0  # the ping to a rival that is under way
        self._silent_rival = out.node, 0  # who did not answer, and how many pings in a row
        self._outlived_at = -REPORT_AGAIN
        self._asked: dict[Path, tuple[int, MemberRecord]] = {}  # the claim under examination, by the ping that does it
        self._reported: dict[Claim, int] = {}  # until when

    def timers(self) -> dict[type, Callable[[Any], None]]:
        return {OldAddressSilent: self._silent, RivalSilent: self._rival_silent}

    def examine(self, member: Member, claim: MemberRecord) -> None:
        """Somebody claims to be a newer start of `member` at another address: ask at the old one."""
        known = self._reported.get(_claim(claim), 0) > self._out.now
        if member.path in self._asked or known:
            return
        answered = partial(self._answered, member.record, claim)
        seq = self._pings.ping(member.record.gossip, member.path, answered)
        self._asked[member.path] = (seq, claim)
        self._out.arm(self._out.now + PROBE_TIMEOUT_MAX, OldAddressSilent(member.path, seq))

    def dispute(self, older: MemberRecord, newer: MemberRecord, other: MemberRecord) -> None:
        """Both claim this node's own name, and `other` is not this node: if it lives, the operators of both are to know."""
        if self._pings.waits_for(self._rival_seq) or self._reported.get(_claim(newer), 0) > self._out.now:
            return
        answered = partial(self._rival_answered, older, newer, other)
        self._rival_seq = self._pings.ping(other.gossip, other.node.path, answered)
        self._out.arm(self._out.now + PROBE_TIMEOUT_MAX, RivalSilent(self._rival_seq, other.node))

    def _rival_silent(self, timer: RivalSilent) -> None:
        if not self._pings.waits_for(timer.seq):
            return
        self._pings.forget(timer.seq)
        rival, times = self._silent_rival
        self._silent_rival = timer.node, times + 1 if rival == timer.node else 1
        is_over = self._silent_rival[1] >= SILENCES and timer.node.boot >= self._out.node.boot
        if is_over and self._out.now - self._outlived_at >= REPORT_AGAIN:
            self._outlived_at = self._out.now
            self._outlived(timer.node.boot)

    def _rival_answered(self, older: MemberRecord, newer: MemberRecord, other: MemberRecord, sender: NodeId) -> None:
        if sender == other.node:
            self._silent_rival = other.node, 0
            self.report(older, newer)
            # It learns of us by nobody else when we are its only seed.  It disputes in turn, and by then we have reported.
            own = newer if other is older else older
            self._out.send_facts(other.gossip, None, (encode_fact(Alive(own)),))

    def is_rival(self, known: MemberRecord, claim: MemberRecord) -> bool:
        """Whether `claim` has the same boot and is another process; reports it.  At the same address it is the next start of
        the same agent, which raises its boot as soon as it hears of the one before."""
        if claim.node != known.node or claim.nonce == known.nonce or claim.gossip == known.gossip:
            return False
        older, newer = sorted((known, claim), key=lambda record: record.nonce)
        self.report(older, newer)
        return True

    def report(self, kept: MemberRecord, rejected: MemberRecord) -> None:
        """Tell the operator, once in a while."""
        claim = _claim(rejected)
        if self._reported.get(claim, 0) > self._out.now:
            return
        self._reported.pop(claim, None)
        self._reported[claim] = self._out.now + REPORT_AGAIN
        if len(self._reported) > REPORTED_KEPT:
            del self._reported[next(iter(self._reported))]
        self._out.count("clones")
        self._out.notify(CloneDetected(kept.node, kept.gossip, rejected.gossip))

    def _answered(self, old: MemberRecord, claim: MemberRecord, sender: NodeId) -> None:
        self._asked.pop(old.node.path, None)
        if sender.boot == old.node.boot:
            self.report(old, claim)
        else:
            self._accept(claim)

    def _silent(self, timer: OldAddressSilent) -> None:
        asked = self._asked.get(timer.path)
        if asked is not None and asked[0] == timer.seq:
            del self._asked[timer.path]
            self._pings.forget(timer.seq)
            self._accept(asked[1])


def _claim(record: MemberRecord) -> Claim:
    return (record.node.path, record.node.boot, record.nonce)
