"""Coordinates: an estimate of the round trip between data centers that have no link to measure it.

Vivaldi with height: each relay is a point in 8 dimensions plus the height of its access link, moved a little by every
measured round trip.  Without Serf's adjustment term, which did not help where it was measured; gravity keeps the cloud
near the origin.  Never proof that two places can talk, and never used inside a data center, where noise is the signal.

Invariant: all components stay finite (a move that would not is undone and counted in `resets`); height >= HEIGHT_MIN;
0 < error <= ERROR_MAX.  Units inside are seconds, as floats.

Source: Dabek et al., "Vivaldi" (SIGCOMM 2004); constants as Serf ships them.
"""

from math import sqrt
from operator import sub
from typing import TypeAlias

from msgspec import Struct

from dislocate.core.identity import Path
from dislocate.core.streams import Stream
from dislocate.core.tunables import VIVALDI_DIMENSIONS, VIVALDI_ERROR, VIVALDI_SAMPLES
from dislocate.core.units import SECOND

# On the wire: 8 components, height, error.
Coordinate: TypeAlias = tuple[float, ...]

ERROR_MAX = 1.5  # where everybody starts
TUNING = 0.25  # Vivaldi's ce and cc: how much one sample may move error and position
HEIGHT_MIN = 10e-6  # seconds
GRAVITY = 150.0  # Serf's rho: at this distance, in seconds, gravity pulls a whole second
FILTER = 3  # the median of so many samples of one peer: a single outlier moves nothing
RTT_MAX = 10 * SECOND
ZERO = 1e-6  # seconds: nearer than this is no direction
PEERS_REMEMBERED = 256


class Estimate(Struct, frozen=True):
    """A round trip read off two coordinates."""

    rtt: int  # nanoseconds
    error: float  # relative, the worse of the two


def is_coordinate(value: Coordinate) -> bool:
    """Whether `value`, from outside, has the right shape and range."""
    if len(value) != VIVALDI_DIMENSIONS + 2:
        return False
    for component in value:  # a loop: asked twice a heartbeat, and `all` with a generator takes three times as long
        if not -100.0 <= component <= 100.0:  # infinity and NaN are not
            return False
    return value[-2] >= 0.0 and 0.0 < value[-1] <= ERROR_MAX


def distance(one: Coordinate, other: Coordinate) -> float:
    """Estimated round trip in seconds."""
    return _length(_apart(one, other)) + one[-2] + other[-2]


def estimate(one: Coordinate, other: Coordinate) -> Estimate | None:
    """The round trip between two places, or None while either is not sure enough (error above VIVALDI_ERROR)."""
    if not is_coordinate(one) or not is_coordinate(other):
        return None
    error = max(one[-1], other[-1])
    return None if error > VIVALDI_ERROR else Estimate(round(distance(one, other) * SECOND), error)


def _apart(one: Coordinate, other: Coordinate) -> list[float]:
    """The vector from `other` to `one`."""
    return list(map(sub, one[:VIVALDI_DIMENSIONS], other))


def _length(vector: list[float]) -> float:
    """Added up in order: neither `sum` nor `math.dist` promises to round alike in the next Python."""
    total = 0.0
    for component in vector:
        total += component * component
    return sqrt(total)


class Coordinates:
    """The coordinate of one relay."""

    def __init__(self, stream: Stream) -> None:
        self.samples = 0
        self.resets = 0
        self._stream = stream
        self._origin: Coordinate = (0.0,) * VIVALDI_DIMENSIONS + (HEIGHT_MIN, ERROR_MAX)
        self.here = self._origin
        self._latest: dict[Path, tuple[int, ...]] = {}  # the last round trips of each peer

    @property
    def settled(self) -> Coordinate:
        """The own coordinate once others may rely on it; empty before."""
        return self.here if self.samples >= VIVALDI_SAMPLES and self.here[-1] <= VIVALDI_ERROR else ()

    def measured(self, peer: Path, there: Coordinate, rtt: int) -> None:
        """A link to `peer`, which says it is at `there`, took `rtt` nanoseconds.  Absurd samples are ignored."""
        if not 0 < rtt <= RTT_MAX or not is_coordinate(there):
            return
        recent = (*self._latest.pop(peer, ()), rtt)[-FILTER:]
        if len(self._latest) >= PEERS_REMEMBERED:
            del self._latest[next(iter(self._latest))]
        self._latest[peer] = recent
        moved = self._moved(there, sorted(recent)[len(recent) // 2] / SECOND)
        if is_coordinate(moved):
            self.here = moved
            self.samples += 1
        else:
            self.here = self._origin
            self.samples = 0
            self.resets += 1

    def _moved(self, there: Coordinate, rtt: float) -> Coordinate:
        here = self.here
        apart = _apart(here, there)
        length = _length(apart)
        expected = length + here[-2] + there[-2]
        weight = here[-1] / max(here[-1] + there[-1], ZERO)
        wrong = abs(expected - rtt) / max(rtt, ZERO)
        error = min(ERROR_MAX, TUNING * weight * wrong + here[-1] * (1.0 - TUNING * weight))
        force = TUNING * weight * (rtt - expected)
        height = here[-2]
        if length > ZERO:
            height = max(HEIGHT_MIN, (here[-2] + there[-2]) * force / length + here[-2])
        else:
            apart, length = self._anywhere()
        position = [here[i] + away / length * force for i, away in enumerate(apart)]
        return (*_pulled_home(position, height), height, max(error, ZERO))

    def _anywhere(self) -> tuple[list[float], float]:
        """Some vector, for two that are in one place, and its length."""
        while True:
            some = [self._stream.unit() - 0.5 for _ in range(VIVALDI_DIMENSIONS)]
            length = _length(some)
            if length > ZERO:
                return some, length


def _pulled_home(position: list[float], height: float) -> list[float]:
    """Gravity: without it the whole cloud would drift, since only differences are measured."""
    length = _length(position)
    if length <= ZERO:
        return position
    ratio = (length + height + HEIGHT_MIN) / GRAVITY
    pull = ratio * ratio / length
    return [component - component * pull for component in position]
