"""What one run is made of: data centers, callers, how they call, and what happens to them on the way.

The defaults are the fleet of balancing.md, section 3: three data centers of ten instances with four workers each, 20 ms
exponential service, round trips of 20, 80 and 70 ms, eighteen callers.
"""

from msgspec import Struct

from dislocate.core.units import MICROSECOND, MILLISECOND, SECOND
from sim.traffic.chances import Exponential, ServiceTime
from sim.traffic.demand import Demand, Keys

HERE = 100 * MICROSECOND  # RTT within a data center


class Moment(Struct, frozen=True, kw_only=True):
    """Something that happens.  `target`: numbers of instances of the data center; empty: all of them."""

    time: int
    do: str  # kill, start, slow, fail, drain, undrain, cut, heal
    datacenter: str = ""
    target: tuple[int, ...] = ()
    factor: float = 1.0  # slow: times as long; fail: part of all requests
    to: str = ""  # cut, heal: the other data center; this direction only


class Plan(Struct, frozen=True, kw_only=True):
    """One story for one service."""

    name: str
    demand: dict[str, Demand]  # by data center of the callers, whose order is that of data centers
    duration: int = 40 * SECOND
    warm_up: int = 5 * SECOND  # calls begun before are not measured
    rtt: tuple[tuple[str, str, int], ...] = (
        ("a", "b", 20 * MILLISECOND),
        ("a", "c", 80 * MILLISECOND),
        ("b", "c", 70 * MILLISECOND),
    )
    instances: int = 10  # in each data center
    workers: int = 4
    limit: int = 0  # requests that wait at an instance; 0: as many as come
    service_time: ServiceTime = Exponential(20 * MILLISECOND)
    callers: int = 6  # in each data center
    users: int = 0  # closed loop: so many at each caller, one call at a time, instead of `demand`'s rate
    think: int = 0  # closed loop: mean time between two calls of a user
    keys: Keys | None = None
    timeout: int = 10 * SECOND  # of a call with all of its attempts
    attempt_timeout: int = 10 * SECOND
    connect_timeout: int = 1 * SECOND  # where nothing comes back
    attempts: int = 3  # of a call; connections that were refused are not counted
    detection: int = 200 * MILLISECOND  # until callers are told of a death, a start or a drain
    boot: int = 0  # until an instance that is started serves
    moments: tuple[Moment, ...] = ()

    @property
    def datacenters(self) -> tuple[str, ...]:
        return tuple(self.demand)

    def round_trip(self, one: str, other: str) -> int:
        """Nanoseconds, with nothing in the way."""
        if one == other:
            return HERE
        return next(rtt for here, there, rtt in self.rtt if (one, other) in ((here, there), (there, here)))
