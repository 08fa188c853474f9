"""One link between two places: how long things take on it, and whether they arrive at all.

Pure: the simulator and the shaping of real agents ask the same code, so that a scenario means the same in both worlds.
Delays are integer nanoseconds; jitter is lognormal by an integer quantile table (no libm while running, so runs agree
across machines).  Datagrams may be lost, doubled and overtake each other; streams keep order and turn loss into delay.

Does not know addresses, queues or time: the caller says when, and keeps one `Link` per direction.
"""

from enum import Enum

from msgspec import Struct

from dislocate.core.streams import Stream
from dislocate.core.units import MILLISECOND, SECOND


class Channel(Enum):
    """What a cut or a fault applies to."""

    UDP = "udp"
    LINKS = "links"
    APP = "app"  # the workload's own connections


ALL_CHANNELS = frozenset(Channel)
UDP, LINKS, APP = Channel  # for whoever asks with each packet: Python 3.11 takes long to find a member by its name


class LinkQuality(Struct, frozen=True, kw_only=True):
    """One direction of one link.  Times in nanoseconds, probabilities 0..1."""

    delay: int = MILLISECOND // 20  # one way; 0.1 ms RTT within an availability zone
    jitter: float = 0.05  # sigma of the lognormal factor on the delay
    loss: float = 0.0  # of a datagram; on a stream a loss costs a retransmission timeout
    duplicate: float = 0.0  # of a datagram
    bandwidth: int = 0  # bytes a second; 0: not limited


RETRANSMISSION_TIMEOUT = 200 * MILLISECOND  # Linux TCP's minimum RTO


# Quantiles of the standard normal at (i + 0.5) / 256, in units of 1/1024.
def _normal_quantiles() -> tuple[int, ...]:
    from statistics import NormalDist

    normal = NormalDist()
    return tuple(round(1024 * normal.inv_cdf((i + 0.5) / 256)) for i in range(256))


_QUANTILES = _normal_quantiles()


class Link:
    """One direction of one link, with what it remembers: its queue and, for streams, the last delivery."""

    __slots__ = ("_cut", "_free_at", "_last_stream", "_stream", "extra_loss", "quality", "slow_factor")

    def __init__(self, quality: LinkQuality, stream: Stream) -> None:
        self.quality = quality
        self.slow_factor = 1.0
        self.extra_loss = 0.0
        self._stream = stream
        self._cut: set[Channel] = set()
        self._free_at = 0
        self._last_stream = 0

    def cut(self, channels: frozenset[Channel] = ALL_CHANNELS) -> None:
        self._cut |= channels

    def heal(self, channels: frozenset[Channel] = ALL_CHANNELS) -> None:
        self._cut -= channels

    def is_cut(self, channel: Channel) -> bool:
        return bool(self._cut) and channel in self._cut  # nearly always nothing is, and an enum is hashed in Python

    @property
    def is_disturbed(self) -> bool:
        """A fault acts on it, beyond what its quality says."""
        return bool(self._cut) or self.slow_factor != 1.0 or self.extra_loss != 0.0

    def copy_faults(self, other: "Link") -> None:
        """Be cut, slow and lossy as `other` is."""
        self._cut = set(other._cut)
        self.slow_factor = other.slow_factor
        self.extra_loss = other.extra_loss

    def datagram(self, size: int, now: int) -> tuple[int, ...]:
        """When a datagram sent at `now` arrives: no instant (lost or cut), one, or two (doubled)."""
        quality = self.quality
        if self.is_cut(UDP):
            return ()
        loss = quality.loss + self.extra_loss
        if loss and self._stream.chance(loss):
            return ()
        arrival = self._pass(size, now)
        if quality.duplicate and self._stream.chance(quality.duplicate):
            return (arrival, self._pass(size, now))
        return (arrival,)

    def message(self, size: int, now: int) -> int | None:
        """When a message on a stream sent at `now` arrives, never before an earlier one; None while the link is cut."""
        arrival = self.segment(size, now)
        if arrival is None:
            return None
        self._last_stream = max(self._last_stream, arrival)
        return self._last_stream

    def segment(self, size: int, now: int, channel: Channel = Channel.LINKS) -> int | None:
        """As `message`, for callers that carry several streams on one link and keep the order of each themselves."""
        if self.is_cut(channel):
            return None
        arrival = self._pass(size, now)
        loss = self.quality.loss + self.extra_loss
        while loss and self._stream.chance(min(loss, 0.9)):
            arrival += max(RETRANSMISSION_TIMEOUT, 2 * self.quality.delay)
        return arrival

    def _pass(self, size: int, now: int) -> int:
        """When the last byte arrives: once the queue has let it go, and after the delay."""
        quality = self.quality
        if quality.bandwidth:
            now = self._free_at = max(self._free_at, now) + size * SECOND // quality.bandwidth
        delay = int(quality.delay * self.slow_factor)
        if not quality.jitter:
            return now + delay
        # Lognormal by its second-order expansion: exp(s*z) ~ 1 + s*z + (s*z)^2/2, exact enough for s <= 0.3.
        z = quality.jitter * _QUANTILES[self._stream.bits(8)] / 1024
        return now + int(delay * (1.0 + z + z * z / 2.0))
