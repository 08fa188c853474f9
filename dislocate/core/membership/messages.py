"""What members say to each other.  Append fields only, with defaults; never reuse a tag.

A *fact* is true or outdated wherever it is repeated: it rides on any datagram, is kept in the rumour queue and settles by
precedence.  Other messages are said once, to one peer.
"""

from msgspec import Raw, Struct

from dislocate.core.identity import Address, NodeId, Path


class Base(Struct, frozen=True, array_like=True, gc=False):
    """A message or fact between members."""


class MemberRecord(Base, frozen=True):
    """Everything about one start of a member that others need; only itself writes it."""

    node: NodeId
    incarnation: int  # grows when the member refutes, or changes what follows
    nonce: int  # random per process start: tells a clone from a restart
    gossip: Address
    links: Address
    wan_gossip: Address
    wan_links: Address
    public_key: bytes
    tags: tuple[str, ...]
    protocol: tuple[int, int]


# ---- facts, tags 1..19


class Alive(Base, frozen=True, tag=1):
    record: MemberRecord


class Suspect(Base, frozen=True, tag=2):
    """`accusers` merge as a set; sorted paths, so that equal sets are equal bytes."""

    node: NodeId
    incarnation: int
    accusers: tuple[Path, ...]


class Dead(Base, frozen=True, tag=3):
    """Declared dead.  `refused`: settled by refusals, not by silence.  `accusers`: whose word it rests on."""

    node: NodeId
    incarnation: int
    accusers: tuple[Path, ...]
    refused: bool


class Left(Base, frozen=True, tag=4):
    node: NodeId
    incarnation: int


class Restarting(Base, frozen=True, tag=5):
    """Nothing happens to `node` for `within` nanoseconds from hearing this; a higher boot ends it."""

    node: NodeId
    incarnation: int
    within: int


class Forgotten(Base, frozen=True, tag=6):
    """An operator dropped a dead or left member: up to this boot it is not to be kept or spread any more."""

    node: NodeId


class WanRow(Base, frozen=True):
    """From the relay's data center to `datacenter`."""

    datacenter: str
    reachable: bool  # our heartbeats arrive there and theirs here
    hears: bool  # what we send arrives there, as far as anybody could tell us
    rtt: int  # nanoseconds; 0: unknown
    age: int  # nanoseconds since `datacenter` was last heard of, when this was said
    members: int
    relays: tuple[Path, ...] = ()
    coordinate: tuple[float, ...] = ()  # of that data center: 8 dimensions, height, error; empty: none yet
    brake: str = ""
    heard: bool = False  # what is sent there arrives here: the other direction alone


class WanReport(Base, frozen=True, tag=7):
    """One relay's view of other data centers (and its own coordinate, in a row of its own data center).

    Each row stands alone: per data center the higher (relay boot, version) wins.  No rows: those before are void.  Void
    too when the relay dies."""

    relay: NodeId
    version: int
    rows: tuple[WanRow, ...]


# ---- said once, tags 20..39


class Freshness(Base, frozen=True):
    """How old the sender's knowledge of another data center is: added up per hop, never a difference of two clocks."""

    datacenter: str
    age: int
    coordinate: tuple[float, ...] = ()  # only on links, now and then: 8 dimensions, height, error


class Ping(Base, frozen=True, tag=20):
    seq: int
    target: Path  # who is meant: an agent with another name at this address does not answer
    digest: int  # 64 bits over the sender's ledger; a mismatch is repaired at once
    freshness: tuple[Freshness, ...] = ()


class Ack(Base, frozen=True, tag=21):
    seq: int
    digest: int
    freshness: tuple[Freshness, ...] = ()


class PingRequest(Base, frozen=True, tag=22):
    """Probe `target` for me, answer `RelayedAck` or, when it stays silent, `Nack`."""

    seq: int
    target: Path
    address: Address


class RelayedAck(Base, frozen=True, tag=23):
    seq: int


class Nack(Base, frozen=True, tag=24):
    """You reached me, but I do not reach it either: your own link works."""

    seq: int


class RefusalCheck(Base, frozen=True, tag=25):
    """I was refused by `target`; are you?"""

    seq: int
    target: NodeId
    incarnation: int
    gossip: Address
    links: Address


class RefusalVerdict(Base, frozen=True, tag=26):
    seq: int
    target: NodeId
    refused: bool  # False: it answered, or a connect was accepted
    alive: bool = False  # it acknowledged: a veto


class Hello(Base, frozen=True, tag=27):
    """Here I am.  Asks a seed or a dead peer for a way in; precedes each dialled link, so that the other side knows my key."""

    record: MemberRecord
    wants_contacts: bool


class Welcome(Base, frozen=True, tag=28):
    """The answer to `Hello`: my own record, and members worth knowing: of your data center, and relays of mine."""

    record: MemberRecord
    contacts: tuple[MemberRecord, ...]
    you_are: str = (
        ""  # 'alive', 'dead' or '' when unknown: who hears that he is dead comes back with a higher incarnation
    )


class WhoIsThere(Base, frozen=True, tag=29):
    """Asked by `dislocate doctor`, which is no member and does not become one by asking."""

    seq: int


class ItIsI(Base, frozen=True, tag=32):
    """The answer to `WhoIsThere`."""

    seq: int
    record: MemberRecord
    unix: int  # nanoseconds, by the answerer's wall clock


# ---- on links between data centers


class LinkHeartbeat(Base, frozen=True, tag=30):
    """Each second on each link between data centers."""

    seq: int
    echo_seq: int  # the newest heartbeat heard from you, 0: none
    echo_delay: int  # nanoseconds between hearing it and saying this: rtt = now - sent(echo_seq) - echo_delay
    heard_ago: int  # nanoseconds since anything was heard from you; -1: never
    digest: int
    freshness: tuple[Freshness, ...] = ()
    coordinate: tuple[float, ...] = ()  # of the sender
    brake: str = ""  # why removals are held in the sender's data center
    reaches: tuple[str, ...] = ()  # data centers to which the sender's has a live link: they need no facts passed on


class FactsForwarded(Base, frozen=True, tag=31):
    """Facts between relays.  `path`: data centers that they crossed, the origin first; the hop limit bounds it."""

    path: tuple[str, ...]
    facts: tuple[Raw, ...] = ()  # encoded `wire.Fact`s
