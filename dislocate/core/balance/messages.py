"""What agents say to each other for balancing.  Append fields only, with defaults; never reuse a tag.

A `FlowReport` is a fact: the first relay of a data center says what callers there offer, what instances there can carry,
and where it sends its callers.  It is soft state: never stored, never repaired, told anew while anybody calls.
"""

from msgspec import Struct

from dislocate.core.identity import NodeId


class Base(Struct, frozen=True, array_like=True, gc=False):
    """A message or fact about traffic."""


class PlaceTold(Base, frozen=True):
    """One data center, as the row of a source has it."""

    datacenter: str
    epoch: int  # of the numbers that were used of it; 0: none had come
    cost: int  # nanoseconds from the source, with price; negative: it cannot be reached from there
    target: float  # 0..1, unsmoothed
    share: float  # 0..1


class FlowReport(Base, frozen=True, tag=13):
    """One service in one data center.  Of one relay the higher (boot, stamp) wins; of several, the first living one."""

    relay: NodeId
    service: str
    stamp: int  # grows with each report
    epoch: int  # grows with each change of the numbers that follow
    demand: float  # requests a second that callers there offer, first attempts
    endpoint_capacity: float  # requests a second of one endpoint of weight 1; 0: unknown
    concurrency: float  # requests that one endpoint of weight 1 serves at a time; 0: unknown
    live: float  # endpoints there that carry load, weighted, in slow start too
    weight: float  # the same without slow start: who counts as much takes `live` as it is told
    backlog: float  # requests that wait there
    places: tuple[PlaceTold, ...]  # nearest first
    rho: float
    overload: bool


class UsageTold(Base, frozen=True, tag=84):
    """To the relays of one's own data center: what callers of this host offered in the last second."""

    usages: tuple[tuple[str, float, float], ...]  # (service, first attempts a second, retries a second)


class CallsTold(Base, frozen=True, tag=85):
    """To the agent of instances: how calls to them went in the last second, as callers of one host saw them."""

    calls: tuple[tuple[str, int, int, float], ...]  # (instance id, calls that ended, of them failed, p99 in seconds)
