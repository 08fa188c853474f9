"""Values that cross the boundary inside inputs, effects, requests and events: small, frozen, without behaviour."""

from enum import Enum

from msgspec import Struct


class MemberState(Enum):
    """What a data center believes of one of its members."""

    ALIVE = "alive"
    SUSPECT = "suspect"
    DEAD = "dead"
    LEFT = "left"


class Status(Enum):
    """The health of an instance, best first; `UNATTENDED`: its agent was refused, so nobody checks it any more."""

    PASSING = "passing"
    WARNING = "warning"
    STARTING = "starting"
    UNATTENDED = "unattended"
    DRAINING = "draining"
    MAINTENANCE = "maintenance"
    CRITICAL = "critical"


class Refusal(Enum):
    """Why something could not be sent, or a connection not be made."""

    REFUSED = "refused"  # the host is there and says that nobody listens
    UNREACHABLE = "unreachable"  # no route, host or network down
    BACKPRESSURE = "backpressure"  # our own queue to that peer is full
    GONE = "gone"  # no link to that peer
    TOO_LARGE = "too large"


class ConnectOutcome(Enum):
    """What became of one TCP connect."""

    ACCEPTED = "accepted"  # vetoes refusal, and proves no life: the kernel accepts for a stopped process too
    REFUSED = "refused"
    TIMED_OUT = "timed out"
    UNREACHABLE = "unreachable"


class Load(Struct, frozen=True, array_like=True, omit_defaults=True, gc=False):
    """How busy an instance is: soft state, never in a log."""

    utilization: float = 0.0  # 0..1 of what it can do
    in_flight: int = 0  # requests being served
    rate: float = 0.0  # requests a second
    errors: float = 0.0  # part of the calls to it that failed, as callers of late say
    p99: float = 0.0  # seconds, of those that did not fail, as callers of late say


class CheckSpec(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """How to find out whether an instance works.  Exactly one of ttl, tcp, http, command; durations in nanoseconds."""

    ttl: int = 0  # the instance must call in at least this often
    tcp: str = ""  # 'host:port' or 'unix:/path'
    http: str = ""  # URL; https too
    command: tuple[str, ...] = ()  # exit 0, 1, other = passing, warning, critical
    interval: int = 5_000_000_000  # Consul's and HAProxy's habit lies between 2 and 10 s
    timeout: int = 2_000_000_000
    statuses: tuple[int, ...] = ()  # HTTP statuses that pass; none given: any 2xx
    body: str = ""  # text that the HTTP answer must contain
    verify: bool = True  # check the certificate of an https URL


class InstanceSpec(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One instance as its owner registers it.  An instance is known as (owner, id)."""

    id: str
    service: str
    port: int
    address: str = ""  # host without port; empty: the address that the agent advertises
    tags: tuple[str, ...] = ()
    meta: dict[str, str] = {}
    weight: int = 1  # 0..65535, relative to the other instances
    check: CheckSpec | None = None  # none: passing as long as its agent lives


class CheckOutcome(Struct, frozen=True, array_like=True):
    """What one run of a check found."""

    status: Status  # PASSING, WARNING or CRITICAL
    output: str = ""  # at most 4 KiB, for people
    duration: int = 0  # nanoseconds


class StoredRecord(Struct, frozen=True, array_like=True):
    """One key of the node's own durable state.  `value` None deletes it."""

    key: str  # 'instance/web-1', 'member/fra/a1' ...: the first word names the part that owns it
    value: bytes | None
