"""Immutable snapshots of what a node knows, for the edge to keep while the core moves on.

Ages are anchored: a view holds monotonic instants of this node (nanoseconds, as `now`), so that an answer made later can
say how old its knowledge is then: `age = now - as_of`.
"""

from msgspec import Struct

from dislocate.core.boundary.values import Load, MemberState, Status
from dislocate.core.identity import Address, NodeId, Path


class MemberView(Struct, frozen=True, kw_only=True):
    """One member as this node believes it to be."""

    node: NodeId
    state: MemberState
    address: Address  # gossip
    links: Address
    public_key: bytes
    incarnation: int
    tags: tuple[str, ...]
    since: int  # when this node learned of the state
    as_of: int  # when the knowledge was last confirmed
    restarting: bool = False


class DatacenterView(Struct, frozen=True, kw_only=True):
    """One data center as seen from this node's own."""

    name: str
    reachable: bool  # requests from here get there and their answers back
    hears: bool  # the other direction alone: what is sent there arrives here
    rtt: int | None  # nanoseconds; None: neither measured nor estimated well enough
    measured: bool  # a link measured `rtt`; False: estimated from coordinates
    members: int  # alive or suspect
    as_of: int
    relays: tuple[Path, ...] = ()
    brake: str = ""  # why removals are held there, empty: they are not


class InstanceView(Struct, frozen=True, kw_only=True):
    """One instance, its health and where the knowledge stands."""

    id: str
    service: str
    node: Path
    datacenter: str
    address: str  # host
    port: int
    status: Status
    tags: tuple[str, ...]
    meta: dict[str, str]
    weight: int
    load: Load | None
    as_of: int
    reachable: bool
    output: str = ""  # of its last check, for people
    drain_until: int = 0  # 0: no end set
    suspected: bool = False  # its agent is: counts no capacity and is picked last


class ServiceView(Struct, frozen=True, kw_only=True):
    """All instances of one name, best first: order of `Status`, then path and id."""

    name: str
    index: int
    instances: tuple[InstanceView, ...]


class HistoryEntry(Struct, frozen=True, kw_only=True, gc=False):
    """One thing that happened to a node, service or instance."""

    subject: str  # 'dc/name', a service name, or 'dc/name/instance'
    at: int  # unix nanoseconds of this node's clock; 0 before it was read
    what: str  # 'suspected', 'died', 'passing -> critical' ...
    why: str
    observers: tuple[Path, ...]
