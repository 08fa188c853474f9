"""Probing: one member a period, in turn, so that each is asked within a bounded time.

Invariant: within N - 1 turns a node asks each other once.  Turns are numbered by the wall clock, and in turn n a node asks
who stands n places after it in the ring that all members share (`neighbours`): as long as clocks and views agree, everybody
is asked once a period, each time by another.  A silence is then met after 0.6 s in the mean and 2 s at most; shuffled rings
(SWIM, section 4.3) leave that to chance: 1 s in the mean, more than 2 s in one case of eight.  Where clocks or views differ,
this is a ring like those.  Who is unwell, and asks less often, counts its turns itself, so as to leave nobody out.

A probe has three stages in one period: ask directly; when that stays unanswered, ask three others to ask, and try a
stream; when the period ends without an acknowledgement, accuse.  A relay that reached nobody either says so (a nack): that
makes it an accuser too, and tells this node that its own link works.  Missing nacks are this node's own fault: its local
health worsens, and with it its patience grows (Lifeguard, arXiv 1707.00788).

An accepted stream proves no life (a stopped process accepts too); a refused one goes to `refusal`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

from dislocate.core.identity import Address, NodeId, Path
from dislocate.core.membership.members import Member, Members
from dislocate.core.membership.messages import Nack, PingRequest, RelayedAck, Suspect
from dislocate.core.membership.pings import Pings, probe_timeout
from dislocate.core.outbox import Outbox, Timer
from dislocate.core.streams import Stream
from dislocate.core.tunables import HEALTH_MAX, INDIRECT_PROBES, NACK_AT

Accuse: TypeAlias = Callable[[Member, tuple[Path, ...]], None]


class ProbeDue(Timer, frozen=True):
    """The period is over: conclude this probe, start the next."""


class ProbeUnanswered(Timer, frozen=True):
    """The direct timeout of the probe with this number has passed."""

    seq: int


class RelayedProbeUnanswered(Timer, frozen=True):
    """`asker` asked us to probe: time to say that we heard nothing either."""

    seq: int  # of our ping
    asker: Address
    asker_seq: int


class LocalHealth:
    """How far this node should doubt itself: 0 is well, `HEALTH_MAX` is the worst (Lifeguard's multiplier less one)."""

    def __init__(self) -> None:
        self.score = 0

    def worsen(self, by: int = 1) -> None:
        self.score = min(HEALTH_MAX, self.score + by)

    def improve(self) -> None:
        if self.score:
            self.score -= 1

    def stretch(self, duration: int) -> int:
        return duration * (self.score + 1)


class Probe:
    """The probe of this period."""

    __slots__ = ("asked", "boot", "is_overdue", "member", "nacks", "seq", "timer")

    def __init__(self, member: Member, seq: int, timer: int) -> None:
        self.member = member
        self.boot = member.node.boot
        self.seq = seq
        self.timer = timer  # the number of its `ProbeUnanswered`
        self.is_overdue = False  # which has come
        self.asked = 0  # relays
        self.nacks: dict[Path, None] = {}


class Prober:
    """Asks one member a period, and asks for others when they want it."""

    def __init__(
        self,
        out: Outbox,
        members: Members,
        pings: Pings,
        health: LocalHealth,
        stream: Stream,
        period: int,
        accuse: Accuse,
        successor: Callable[[int], Path | None],
    ) -> None:
        """`successor` tells who stands so many places after this node in the ring; None when there are no others."""
        self._out = out
        self._members = members
        self._pings = pings
        self._health = health
        self._stream = stream
        self._period = period
        self._accuse = accuse
        self._probe: Probe | None = None  # None: answered, or there was nobody to ask
        self._successor = successor
        self._turn = 0
        self._stopped = False

    def timers(self) -> dict[type, Callable[[Any], None]]:
        return {
            ProbeDue: self._due,
            ProbeUnanswered: self._unanswered,
            RelayedProbeUnanswered: self._relayed_unanswered,
        }

    def start(self) -> None:
        self._out.arm(self._out.now + self._stream.below(self._period), ProbeDue())

    def stop(self) -> None:
        """This node leaves: it judges nobody any more."""
        self._stopped = True
        self._probe = None

    def lost_touch(self) -> None:
        """This process was stalled: whoever did not answer may have done so in vain."""
        self._probe = None

    # ---- own probes

    def _due(self, _timer: ProbeDue) -> None:
        if self._stopped:
            return
        self._conclude()
        member = self._next()
        if member is not None:
            self._out.count("probes")
            suspicion = member.suspicion
            telling = (
                None
                if suspicion is None
                else Suspect(member.node, member.record.incarnation, suspicion.sorted_accusers)
            )
            seq = self._pings.ping(member.record.gossip, member.path, self._answered, telling)
            wait = self._health.stretch(probe_timeout(member.srtt, member.rttvar))
            self._probe = Probe(member, seq, self._out.arm(self._out.now + wait, ProbeUnanswered(seq)))
        self._out.arm(self._out.now + self._health.stretch(self._period), ProbeDue())

    def _next(self) -> Member | None:
        """Who is asked in this turn; None when there is nobody to ask."""
        by_clock = self._out.unix() // self._period
        self._turn = by_clock if by_clock and not self._health.score else self._turn + 1
        for step in range(len(self._members.peers)):  # past those that announced a restart
            path = self._successor(self._turn + step)
            member = None if path is None else self._members.get(path)
            if member is not None and member.restarting_until <= self._out.now:
                return member
        return None

    def _answered(self, sender: NodeId) -> None:
        if self._probe is not None and self._probe.member.path == sender.path:
            if not self._probe.is_overdue:
                self._out.outdate(self._probe.timer)
            self._probe = None
            self._health.improve()

    def _unanswered(self, timer: ProbeUnanswered) -> None:
        probe = self._probe
        if probe is None or probe.seq != timer.seq:
            return
        probe.is_overdue = True
        self._out.count("probes_unanswered")
        member = probe.member
        relays = [m for m in self._stream.sample(self._members.peers, INDIRECT_PROBES + 1) if m is not member]
        for relay in relays[:INDIRECT_PROBES]:
            probe.asked += 1
            self._out.send(relay.record.gossip, PingRequest(probe.seq, member.path, member.record.gossip))
        self._out.try_connect(member.record.links)

    def _conclude(self) -> None:
        """The period ends.  Whoever has not answered by now is accused, unless he was started anew or will be."""
        probe, self._probe = self._probe, None
        if probe is None:
            return
        self._pings.forget(probe.seq)
        self._health.worsen(probe.asked - len(probe.nacks) if probe.asked else 1)
        member = probe.member
        if member.is_living and member.node.boot == probe.boot:
            self._accuse(member, tuple(probe.nacks))

    def on_relayed_ack(self, sender: NodeId, _source: Address | None, body: RelayedAck) -> None:
        if self._probe is not None and self._probe.seq == body.seq:
            self._pings.forget(body.seq)
            self._probe = None
            self._health.improve()
            self._out.count("acks_relayed")

    def on_nack(self, sender: NodeId, _source: Address | None, body: Nack) -> None:
        if self._probe is not None and self._probe.seq == body.seq:
            self._probe.nacks[sender.path] = None

    # ---- probes for others

    def on_ping_request(self, sender: NodeId, source: Address | None, body: PingRequest) -> None:
        if source is None or body.target == self._members.own:
            return
        member = self._members.get(body.target)
        answered = partial(self._relay_answer, source, body.seq)
        seq = self._pings.ping(body.address, body.target, answered)
        wait = probe_timeout(member.srtt, member.rttvar) if member is not None else probe_timeout(0, 0)
        self._out.arm(self._out.now + int(NACK_AT * wait), RelayedProbeUnanswered(seq, source, body.seq))

    def _relay_answer(self, asker: Address, asker_seq: int, _sender: NodeId) -> None:
        self._out.send(asker, RelayedAck(asker_seq))

    def _relayed_unanswered(self, timer: RelayedProbeUnanswered) -> None:
        if self._pings.waits_for(timer.seq):
            self._out.send(timer.asker, Nack(timer.asker_seq))
