"""Pings under way: what was asked of whom, and what to do with the answer.

An acknowledgement is the only proof of life: it comes from the agent itself, not from its kernel.  It measures the round
trip by the asker's own clock.  Whoever asks decides how long to wait; here an unanswered ping is merely forgotten.
"""

from collections.abc import Callable
from typing import TypeAlias

from dislocate.core.identity import Address, NodeId, Path
from dislocate.core.membership.members import Member, Members
from dislocate.core.membership.messages import Freshness, Ping
from dislocate.core.outbox import Outbox
from dislocate.core.tunables import PROBE_TIMEOUT_MAX, PROBE_TIMEOUT_MIN
from dislocate.core.units import SECOND
from dislocate.core.wire import Fact, encode_fact

FORGET_AFTER = 10 * SECOND  # a probe period at the worst local health is 8 s

Answered: TypeAlias = Callable[[NodeId], None]


def probe_timeout(srtt: int, rttvar: int) -> int:
    """How long a direct probe waits: srtt + 4 rttvar (RFC 6298), within bounds; the upper one when never measured."""
    if not srtt:
        return PROBE_TIMEOUT_MAX
    return min(PROBE_TIMEOUT_MAX, max(PROBE_TIMEOUT_MIN, srtt + 4 * rttvar))


class Pings:
    """Sends pings and remembers them by sequence number."""

    def __init__(
        self, out: Outbox, members: Members, digest: Callable[[], int], freshness: Callable[[], tuple[Freshness, ...]]
    ) -> None:
        self._out = out
        self._members = members
        self._digest = digest
        self._freshness = freshness
        self._seq = 0
        self._sent: dict[int, tuple[Path, int, Answered]] = {}  # oldest first

    def ping(self, address: Address, target: Path, answered: Answered, telling: Fact | None = None) -> int:
        """Ask `target` whether it lives, and call `answered` if it says so.  `telling` it what is said of it gives it
        the chance to refute in the same breath (Lifeguard's buddy system)."""
        now = self._out.now
        while self._sent and now - next(iter(self._sent.values()))[1] > FORGET_AFTER:
            del self._sent[next(iter(self._sent))]
        self._seq += 1
        self._sent[self._seq] = (target, now, answered)
        body = Ping(self._seq, target, self._digest(), self._freshness())
        if telling is None:
            self._out.send(address, body)
        else:
            self._out.send_facts(address, body, (encode_fact(telling),))
        return self._seq

    def answered(self, sender: NodeId, seq: int) -> None:
        """`sender` acknowledged."""
        asked = self._sent.get(seq)
        if asked is None or asked[0] != sender.path:
            self._out.count("acks_late")
            return
        del self._sent[seq]
        self._out.count("acks")
        _, sent_at, answered = asked
        member = self._members.get(sender.path)
        if member is not None and member.node.boot == sender.boot:
            measure(member, self._out.now - sent_at)
        answered(sender)

    def waits_for(self, seq: int) -> bool:
        return seq in self._sent

    def forget(self, seq: int) -> None:
        """Nobody waits for this answer any more."""
        self._sent.pop(seq, None)

    def lost_touch(self) -> None:
        """This process was stalled: no ping sent before says anything."""
        self._sent.clear()


def measure(member: Member, rtt: int) -> None:
    """Smooth one round trip (RFC 6298: gains 1/8 and 1/4)."""
    if not member.srtt:
        member.srtt, member.rttvar = max(1, rtt), rtt // 2
        return
    member.rttvar += (abs(member.srtt - rtt) - member.rttvar) // 4
    member.srtt = max(1, member.srtt + (rtt - member.srtt) // 8)
