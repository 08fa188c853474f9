"""The vocabulary of balancing at the door of a node: what callers tell, how an operator wants it, what the edge shows.

A caller is a program that picks: a client library, `dislocate proxy`, the agent's own edge.  It tells its agent once a
second what it did; the first relay of each data center gathers that, decides which part of its callers' traffic goes to
which data center (a row of flows), and publishes the row with what it was computed from.  Source: the design's section 5.
"""

from enum import Enum

from msgspec import Struct

from dislocate.core.boundary.views import InstanceView
from dislocate.core.identity import Path
from dislocate.core.units import SECOND, Duration


class Part(Struct, frozen=True, array_like=True, gc=False):
    """A value, a request or a fact's part."""


# ---- what callers tell


class Outcomes(Part, frozen=True):
    """How calls to one instance went in one interval, as its callers saw them."""

    node: Path
    instance: str  # id
    calls: int  # that ended
    failed: int  # of them: an error, a timeout, a connection that was not made
    p99: float  # seconds, of those that did not fail; 0: none


class Usage(Part, frozen=True):
    """What one caller did with one service in one interval."""

    service: str
    offered: float  # first attempts a second, begun
    retries: float = 0.0  # further attempts a second: never a reason to scale
    outcomes: tuple[Outcomes, ...] = ()  # busiest first, at most `tunables.OUTCOMES_TOLD`


class ReportUsage(Part, frozen=True, tag=11):
    """A caller says what it did since its last report.  -> Done; Refused for absurd numbers, which count for nothing.

    One that says nothing for `tunables.CALLER_GONE` offers nothing any more."""

    caller: str  # unique on this host: '{pid}-{number}'
    usages: tuple[Usage, ...]


# ---- how an operator wants it: the key policy/NAME


class Spill(Enum):
    """When traffic may leave its data center."""

    NEVER = "never"  # not even when nothing lives here
    DEAD = "dead"  # when nothing lives here
    LOAD = "load"  # when what is here would be loaded above `target_load`


class Algorithm(Enum):
    """How one of a data center's endpoints is chosen."""

    P2C = "p2c"  # the better of two, by requests in flight and by peak EWMA of latency
    WEIGHTED = "weighted"  # by weight alone
    HASH = "hash"  # of the key: the same one while it lives and is not overfull (bounded load)


class Eject(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """When a caller stops using an endpoint that fails, whatever its health check says (outlier ejection)."""

    consecutive: int = 5  # failures in a row; 0: never
    success_sigma: float = 1.9  # deviations below the mean success ratio; 0: not judged
    base: Duration = 30 * SECOND  # times the number of ejections in a row
    longest: Duration = 300 * SECOND
    at_most: float = 0.1  # part of a data center's endpoints at a time; one always, half never exceeded


class Retries(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """How often calls may be tried again.  A connection that was refused costs nothing."""

    attempts: int = 3  # of one call, the first included
    ratio: float = 0.2  # retries per call, over ten seconds
    per_second: float = 10.0  # besides, so that a quiet caller may retry at all


class Policy(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """How a service is balanced.  The defaults are what a service without a policy has."""

    spill: Spill = Spill.LOAD
    target_load: float = 0.8  # part of its capacity that a data center is given, while there is room elsewhere
    capacity: float = 0.0  # requests a second of one endpoint of weight 1; 0: measured
    tiers: dict[str, int] = {}  # by data center; a lower one is used up first; not named: 0
    prices: dict[str, float] = {}  # by data center, in any unit
    price_weight: Duration = 0  # nanoseconds of RTT that one unit of price is worth
    probe: float = 0.0  # part of the traffic that goes to the next data center to keep it known; 0.01 is usual
    algorithm: Algorithm = Algorithm.P2C
    aperture: int = 12  # endpoints of a data center that one caller uses at least; all, where there are no more
    slow_start: Duration = (
        30 * SECOND
    )  # a fresh endpoint grows from a tenth to its whole weight in this time; 0: at once
    eject: Eject = Eject()
    retries: Retries = Retries()
    timeout: Duration = 10 * SECOND  # of one call with all of its attempts
    hedge: bool = False  # idempotent calls only: a second attempt after the 95th percentile, within the retry budget
    throttle: float = 2.0  # K of the client throttle (SRE book): requests may be K times what is accepted; 0: off


# ---- what the edge shows


class PlaceInput(Struct, frozen=True, kw_only=True):
    """What a row was computed from, of one data center."""

    datacenter: str
    epoch: int  # of the report that said so; 0: none came
    demand: float  # requests a second that callers there offer, those that tell
    endpoint_capacity: float  # requests a second of one endpoint of weight 1; 0: unknown
    live: float  # weighted endpoints that may be used
    backlog: float  # requests waiting there
    capacity: float  # requests a second, after backlog and age
    cost: float | None  # nanoseconds from the row's source, with price; None: it cannot be reached from there
    tier: int
    as_of: int  # when the report came, this node's monotonic nanoseconds
    served: float = 0.0  # requests a second that its endpoints say they get, from whomever; 0 where they say nothing


class Share(Part, frozen=True):
    """The part of a source's traffic that goes to one data center."""

    datacenter: str
    share: float  # 0..1


class FlowRow(Struct, frozen=True, kw_only=True):
    """Where callers of one data center should send their requests for one service."""

    source: str
    shares: tuple[Share, ...]  # smoothed; nearest first; they add up to 1; empty: nobody anywhere
    target: tuple[Share, ...]  # unsmoothed: what `shares` moves to
    rho: float  # the part of its capacity that each data center is given
    overload: bool  # all together cannot carry it: it is spread by capacity
    computed_by: Path  # a relay of `source`, or this node where no relay's word is fresh
    epoch: int  # of the relay's report; 0: computed here
    as_of: int


class ServiceFlows(Struct, frozen=True, kw_only=True):
    """All rows known of one service, what this data center's was computed from, and why, in words."""

    service: str
    policy: Policy
    home: FlowRow
    rows: tuple[FlowRow, ...]  # by source; `home` among them
    inputs: tuple[PlaceInput, ...]  # of `home`, nearest first
    explanation: tuple[str, ...]  # a sentence a line


class Route(Struct, frozen=True, kw_only=True):
    """All that a picker needs of one service: a snapshot, replaced whole."""

    service: str
    home: str  # the caller's data center
    index: int  # of the service's instances
    epoch: int  # grows with each change of shares or policy, on this node
    policy: Policy
    shares: tuple[Share, ...]
    instances: tuple[InstanceView, ...]
    as_of: int  # nanoseconds of whoever made it
