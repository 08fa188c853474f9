"""The interface of a policy: whom a call goes to, what came of it, and what is told once a second.

A policy knows what its original knows: which instances the health checks call up, its own callers' calls, and, where it
has a channel for that, what instances report.  Only the oracle looks into a `Place`'s station.
"""

from collections.abc import Sequence
from enum import Enum
from typing import Any, Protocol

from msgspec import Struct

from dislocate.core.streams import Streams
from sim.traffic.plan import Plan
from sim.traffic.station import Station


class Known(Enum):
    """What health checks say of an instance, after `plan.detection`."""

    UP = "up"
    DRAINING = "draining"
    DOWN = "down"


class Ended(Enum):
    """How an attempt ended."""

    OK = "ok"
    FAILED = "failed"
    TIMED_OUT = "timed out"
    REFUSED = "refused"  # no connection was made


class Place:
    """An instance as callers see it."""

    __slots__ = ("at", "datacenter", "home", "id", "key", "known", "load", "station")

    def __init__(self, at: int, node: str, home: int, id_: str, station: Station) -> None:
        self.at = at  # its number, over all data centers
        self.datacenter = node.partition("/")[0]
        self.home = home  # number of its data center
        self.id = id_
        self.key = f"{node}/{id_}"  # as endpoints of a picker are named
        self.station = station
        self.known = Known.UP
        self.load = 0  # requests at it and on their way to it: for the oracle


class Caller:
    """A program that calls."""

    __slots__ = ("at", "begun", "datacenter", "home", "retried")

    def __init__(self, at: int, datacenter: str, home: int) -> None:
        self.at = at
        self.datacenter = datacenter
        self.home = home  # number of its data center
        self.begun = 0  # calls
        self.retried = 0  # attempts after the first


class Call:
    """One call with its attempts."""

    __slots__ = ("attempt", "begun", "caller", "counted", "key", "place", "sent", "token", "tried")

    def __init__(self, caller: Caller, begun: int, key: str) -> None:
        self.caller = caller
        self.begun = begun
        self.key = key
        self.attempt = 0  # grows with each; -1: the call is over
        self.counted = 0  # attempts that count: somebody was connected to
        self.place: Place | None = None
        self.sent = 0
        self.token: Any = None  # of the policy, from `choose` to `done`
        self.tried: tuple[Place, ...] = ()  # whom this call has tried without success


class Told(Struct, frozen=True):
    """What an instance reports once a second."""

    utilization: float  # 0..1 of its workers' time
    in_flight: int  # being served or waiting
    rate: float  # served a second
    failures: float  # errors a second


class Balancer(Protocol):
    """A policy, for all callers of one run."""

    def choose(self, call: Call, now: int, *, retry: bool) -> Place | None:
        """Whom the next attempt of `call` goes to; None: nobody, and the call has failed.

        `retry`: an attempt before came to somebody, so that this one is paid for from the retry budget."""
        ...

    def done(self, call: Call, now: int, ended: Ended) -> None:
        """The attempt on its way has ended.  `call.place` and `call.token` are those of `choose`."""
        ...

    def tick(self, now: int, told: Sequence[Told | None]) -> None:
        """A second has passed: what each instance reports, None for those that are down."""
        ...

    def changed(self, now: int) -> None:
        """`known` of some instance has changed, or which data centers reach each other."""
        ...


class Setting(Struct, frozen=True):
    """What a policy is made with."""

    plan: Plan
    places: tuple[Place, ...]
    callers: tuple[Caller, ...]
    streams: Streams
    cut: dict[tuple[str, str], bool]  # directed pairs of data centers between which nothing passes, as relays know
    blocked: list[list[bool]]  # the same by number, as it is: for the oracle
