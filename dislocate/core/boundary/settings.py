"""What one start of a node is told before its first input: who it is, whom it may know, what was saved."""

from msgspec import Struct

from dislocate.core.boundary.values import InstanceSpec, StoredRecord
from dislocate.core.identity import Address, NodeId, Path
from dislocate.core.tunables import FEATURE_LEVEL


class Settings(Struct, frozen=True, kw_only=True):
    """The node's identity and configuration.  Times in nanoseconds."""

    node: NodeId
    nonce: int  # random at each process start: tells a clone from a restart
    gossip: Address  # where others in the data center send datagrams
    links: Address  # where others dial links
    wan_gossip: Address = ""  # the same for other data centers, where NAT makes them differ; empty: the same
    wan_links: Address = ""
    public_key: bytes = bytes(32)
    tags: tuple[str, ...] = ()
    seeds: tuple[Address, ...] = ()  # gossip addresses of any agents, in any data center
    services: tuple[InstanceSpec, ...] = ()  # from the configuration file
    processors: int = 1
    servers: tuple[Path, ...] = ()  # of the store, for its bootstrap: the same everywhere; who is named is a server
    feature_level: int = FEATURE_LEVEL  # of the store, that this version speaks; lower or higher only in tests

    # What scenarios and notebooks vary; the defaults are in `core.tunables` with their reasons.
    probe_period: int = 1_000_000_000
    suspicion_multiplier: int = 4
    refusal_path: bool = True  # False: judge refused members by silence only, as the peers do


class Recovered(Struct, frozen=True, kw_only=True):
    """What the disk had: the records of earlier starts, and the wall clock at this one."""

    records: tuple[StoredRecord, ...] = ()
    unix_ns: int = 0
