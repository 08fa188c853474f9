"""One agent of another data center as a relay knows it: its link, its heartbeats, when to dial it again.

Invariants: a round trip is counted once a heartbeat echoed; `hears_us_at` and `phi.last` only ever come from what the
peer itself said; a lost link changes neither, so that reachability ends by silence and by nothing else.

Does not send: `wan` asks for the next heartbeat and passes in what arrived.
"""

from enum import Enum

from dislocate.core.identity import NodeId
from dislocate.core.membership.messages import Freshness, LinkHeartbeat
from dislocate.core.membership.phi import LIVE, SILENT, Phi, Standing
from dislocate.core.streams import Stream
from dislocate.core.tunables import HEARTBEAT_PERIOD, UNREACHABLE_FLOOR
from dislocate.core.units import SECOND

REDIAL_MIN = 1 * SECOND
REDIAL_MAX = 30 * SECOND  # AWS's and gRPC's habit lies between 20 and 120 s; a heard datagram ends the wait anyway
SENT_REMEMBERED = 64  # heartbeats: an echo older than a minute measures nothing


class LinkState(Enum):
    CLOSED = "closed"
    DIALLING = "dialling"
    OPEN = "open"


CLOSED, DIALLING, OPEN = LinkState  # asked with each heartbeat: Python 3.11 takes long to find a member by its name


class WanPeer:
    """One end of a link between data centers."""

    __slots__ = (
        "_echo",
        "_last_echoed",
        "_sent",
        "_seq",
        "brake",
        "changed_at",
        "coordinate",
        "failures",
        "has_spoken",
        "hears_us_at",
        "next_dial",
        "node",
        "phi",
        "reaches",
        "rtt",
        "state",
    )

    def __init__(self, node: NodeId, now: int) -> None:
        self.node = node
        self.state = CLOSED
        self.changed_at = now  # when `state` last changed
        self.phi = Phi(HEARTBEAT_PERIOD, now)
        self.has_spoken = False
        self.hears_us_at: int | None = None  # the last instant of which the peer confirmed that our words arrived
        self.rtt = 0  # smoothed, nanoseconds; 0: not measured
        self.coordinate: tuple[float, ...] = ()
        self.reaches: tuple[str, ...] = ()  # data centers to which its own has a live link
        self.brake = ""
        self.failures = 0  # dials in a row that led to no heartbeat
        self.next_dial = now
        self._seq = 0
        self._sent: dict[int, int] = {}  # heartbeat -> when it was said
        self._echo = (0, 0)  # the newest heartbeat heard: (seq, when)
        self._last_echoed = 0

    # ---- the link

    def dialled(self, now: int) -> None:
        self._become(DIALLING, now)

    def opened(self, now: int) -> None:
        """A fresh link counts its heartbeats anew on both sides."""
        self._become(OPEN, now)
        self._seq = 0
        self._sent.clear()
        self._echo = (0, 0)
        self._last_echoed = 0

    def closed(self, now: int, wait: int, stream: Stream) -> None:
        """The link ended or could not be made: dial again after `wait` and a backoff that doubles, with jitter."""
        self._become(CLOSED, now)
        backoff = min(REDIAL_MAX, REDIAL_MIN << min(self.failures, 5))
        self.failures += 1
        self.next_dial = now + wait + backoff // 2 + stream.below(backoff)

    def _become(self, state: LinkState, now: int) -> None:
        self.state = state
        self.changed_at = now

    # ---- heartbeats

    def next_heartbeat(
        self,
        now: int,
        digest: int,
        freshness: tuple[Freshness, ...],
        coordinate: tuple[float, ...],
        brake: str,
        reaches: tuple[str, ...],
    ) -> LinkHeartbeat:
        self._seq += 1
        self._sent[self._seq] = now
        if len(self._sent) > SENT_REMEMBERED:
            del self._sent[next(iter(self._sent))]
        echo_seq, echo_at = self._echo
        heard_ago = now - self.phi.last if self.has_spoken else -1
        return LinkHeartbeat(
            self._seq,
            echo_seq,
            now - echo_at if echo_seq else 0,
            heard_ago,
            digest,
            freshness,
            coordinate,
            brake,
            reaches,
        )

    def heard(self, heartbeat: LinkHeartbeat, now: int) -> int | None:
        """The peer spoke on its link.  Returns a new round trip in nanoseconds, if its echo measured one."""
        self.phi.heartbeat(now)
        self.has_spoken = True
        self.failures = 0
        self._echo = (heartbeat.seq, now)
        self.coordinate, self.reaches, self.brake = heartbeat.coordinate, heartbeat.reaches, heartbeat.brake
        sample = self._round_trip(heartbeat, now)
        if heartbeat.heard_ago >= 0:
            self.hears_us_at = now - heartbeat.heard_ago - self.rtt // 2
        return sample

    def _round_trip(self, heartbeat: LinkHeartbeat, now: int) -> int | None:
        sent = self._sent.get(heartbeat.echo_seq)
        if sent is None or heartbeat.echo_seq <= self._last_echoed:
            return None
        self._last_echoed = heartbeat.echo_seq
        sample = now - sent - heartbeat.echo_delay
        if sample <= 0:
            return None
        self.rtt = sample if self.rtt == 0 else self.rtt + (sample - self.rtt) // 8  # TCP's smoothing (RFC 6298)
        return sample

    def stalled(self, gap: int) -> None:
        """This process stood still for `gap`."""
        self.phi.stalled(gap)
        if self.hears_us_at is not None:
            self.hears_us_at += gap

    # ---- what follows from it

    def standing(self, now: int) -> Standing:
        return self.phi.standing(now) if self.has_spoken else SILENT

    def is_heard(self, now: int) -> bool:
        """What the peer sends arrives here."""
        return self.standing(now) is not SILENT

    def hears_us(self, now: int) -> bool:
        """What we send arrives there."""
        return self.hears_us_at is not None and now - self.hears_us_at < UNREACHABLE_FLOOR

    def is_reached(self, now: int) -> bool:
        return self.is_heard(now) and self.hears_us(now)

    def carries_facts(self, now: int) -> bool:
        """Facts sent on this link now will arrive soon."""
        return self.state is OPEN and self.standing(now) is LIVE
