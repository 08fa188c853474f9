"""The vocabulary of the replicated store at the door of a node: what can be asked of it, and what comes back.

Any agent takes any of these; who is no server forwards.  A key is text such as 'policy/shop.web'; a revision is a number
that grows with every change of the store, whatever the key; 0 stands for "there is none".  Sources: etcd's v3 API
(compare/then/else, created/modified/version, leases, `compacted`), with fencing tokens as Kleppmann asks for them.
"""

from enum import Enum
from typing import TypeAlias

from msgspec import Struct

from dislocate.core.boundary.runs import RunRequest, RunResult
from dislocate.core.boundary.scaling import ScaleRequest
from dislocate.core.identity import Path


class Part(Struct, frozen=True, array_like=True):
    """A value, a request or a result."""


# ---- what is in the store


class KeyValue(Part, frozen=True, gc=False):
    """One key as it stands."""

    key: str
    value: bytes
    created: int  # revision of the change that made it; a lock's fencing token
    modified: int  # revision of its last change
    version: int  # changes since it was created, from 1
    lease: int = 0  # goes away with this lease; 0: stays


class KeyChange(Part, frozen=True, gc=False):
    """One change of one key; `now` None: it was deleted (also: its lease ended)."""

    key: str
    revision: int
    now: KeyValue | None


# ---- transactions


class Field(Enum):
    """What of a key is compared; a key that is not there has number 0 and value b''."""

    VALUE = "value"
    CREATED = "created"
    MODIFIED = "modified"
    VERSION = "version"
    LEASE = "lease"


class Relation(Enum):
    EQUAL = "="
    NOT_EQUAL = "!="
    GREATER = ">"
    LESS = "<"


class Compare(Part, frozen=True):
    """One condition: `key`'s `field` stands in `relation` to `number`, or to `value` where the field is VALUE."""

    key: str
    field: Field
    relation: Relation = Relation.EQUAL
    number: int = 0
    value: bytes = b""


class Put(Part, frozen=True, tag=1):
    """Set a key.  -> one KeyValue, as it stands then."""

    key: str
    value: bytes
    lease: int = 0  # must exist


class Delete(Part, frozen=True, tag=2):
    """Remove a key, or all keys that begin with it.  -> what was removed, without its values."""

    key: str
    prefix: bool = False


class Get(Part, frozen=True, tag=3):
    """Read a key, or all keys that begin with it, in order.  -> what is there."""

    key: str
    prefix: bool = False


Operation: TypeAlias = Put | Delete | Get


class Transact(Part, frozen=True, tag=20):
    """If all of `compares` hold do `then`, else `otherwise`; all or nothing, one revision.  -> Transacted, durable on a
    majority; Refused (nothing was done); Uncertain (it may have been)."""

    compares: tuple[Compare, ...] = ()
    then: tuple[Operation, ...] = ()
    otherwise: tuple[Operation, ...] = ()


class Transacted(Part, frozen=True, tag=20):
    """What a transaction did."""

    succeeded: bool  # `then` was done, else `otherwise`
    revision: int  # of the store, afterwards
    results: tuple[tuple[KeyValue, ...], ...]  # one for each operation


# ---- reads and watches


class Consistency(Enum):
    LINEARIZABLE = "linearizable"  # nothing older than the moment of asking; takes a quorum
    BOUNDED = "bounded"  # at most `max_age` old, else as LINEARIZABLE
    LOCAL = "local"  # what this agent, or the nearest server, has; with its age


class ReadKeys(Part, frozen=True, tag=21):
    """A key, or up to `limit` keys that begin with it and come after `after`.  -> KeysRead."""

    key: str
    prefix: bool = False
    consistency: Consistency = Consistency.LINEARIZABLE
    max_age: int = 0  # nanoseconds, with BOUNDED
    limit: int = 1_000
    after: str = ""


class KeysRead(Part, frozen=True, tag=21):
    """What was there at `revision`."""

    keys: tuple[KeyValue, ...]
    revision: int
    age: int = 0  # nanoseconds that this may be behind the leader; 0 when linearizable
    more: bool = False  # `limit` ended it


class WatchKeys(Part, frozen=True, tag=22):
    """Wait for changes after revision `after` of a key or prefix.  -> KeysChanged, with all of them; Compacted."""

    key: str
    prefix: bool
    after: int


class KeysChanged(Part, frozen=True, tag=22):
    """All changes asked for, in order, up to `revision`: wait from there next."""

    changes: tuple[KeyChange, ...]
    revision: int


class Compacted(Part, frozen=True, tag=23):
    """Changes after the revision asked for are forgotten: read the keys, and watch on from the revision of that read."""

    oldest: int  # the first revision after which a watch can begin


# ---- leases


class GrantLease(Part, frozen=True, tag=23):
    """A new lease that ends when nobody has kept it alive for `ttl` nanoseconds.  -> LeaseStanding."""

    ttl: int


class KeepLeaseAlive(Part, frozen=True, tag=24):
    """-> LeaseStanding, with its full time again; Refused 'unknown' when it has ended."""

    lease: int


class RevokeLease(Part, frozen=True, tag=25):
    """End a lease and delete its keys.  -> Done."""

    lease: int


class ReadLease(Part, frozen=True, tag=26):
    """-> LeaseStanding, as its leader sees it."""

    lease: int


class LeaseStanding(Part, frozen=True, tag=24):
    """A lease that lives."""

    lease: int
    ttl: int  # nanoseconds, as granted
    remaining: int  # nanoseconds; a new leader gives every lease its full time again
    keys: tuple[str, ...] = ()


# ---- servers


class AddServer(Part, frozen=True, tag=27):
    """Make the agent `path` a server; a known one with a new disk is replaced in one step.  -> Done when it votes."""

    path: Path


class RemoveServer(Part, frozen=True, tag=28):
    """-> Done when it votes no more; it stays out, also after a restart."""

    path: Path


class TransferLeadership(Part, frozen=True, tag=29):
    """Let `path` lead; empty: whoever is placed best.  -> Done when it does."""

    path: Path = ""


# ---- backup


class BackUp(Part, frozen=True, tag=30):
    """-> BackedUp: everything, as of one revision."""


class BackedUp(Part, frozen=True, tag=30):
    """A whole store in one file, with the group it came from and a checksum; `store.backup` reads it."""

    data: bytes
    revision: int


class Restore(Part, frozen=True, tag=31):
    """Replace all keys and leases by those of a backup, in one revision above all.  -> Transacted.

    Refused when the backup is of another group, unless `force`."""

    data: bytes
    force: bool = False


class Uncertain(Part, frozen=True, tag=31):
    """It was sent, and no answer came: it may have been done, or may still be.  Read before trying again."""

    reason: str


StoreRequest: TypeAlias = (
    Transact
    | ReadKeys
    | WatchKeys
    | GrantLease
    | KeepLeaseAlive
    | RevokeLease
    | ReadLease
    | AddServer
    | RemoveServer
    | TransferLeadership
    | BackUp
    | Restore
    | RunRequest
    | ScaleRequest
)
StoreResult: TypeAlias = (
    Transacted | KeysRead | KeysChanged | Compacted | LeaseStanding | BackedUp | Uncertain | RunResult
)


# ---- snapshots for the edge


class ServerView(Struct, frozen=True, kw_only=True):
    """One server of the group, as this agent last heard of it."""

    path: Path
    disk: str  # hex; a wiped server has another
    role: str  # 'voter', 'learner', 'joining' or 'leaving'
    is_leader: bool
    matched: int | None = None  # index up to which its log is known to agree; only the leader knows
    rtt: int | None = None  # nanoseconds, from the leader
    disk_latency: int | None = None  # nanoseconds of its last durable write
    linked: bool = False  # there is a link to it from here, or it is here
    trouble: str = ""  # what is wrong with it, as far as it is known here: the leader knows most


class StoreView(Struct, frozen=True, kw_only=True):
    """Where this agent stands towards the store."""

    group: str  # UUID in hex; empty: no group is known
    epoch: int  # grows with every forced recovery
    branch: str  # in hex, which forced recovery was the last; empty: none was
    role: str  # 'leader', 'follower', 'candidate', 'learner', 'agent' (no server), 'forming', 'failed'
    leader: Path | None
    term: int
    revision: int  # applied here; of an agent that is no server: the newest heard of
    index: int  # applied log index; 0 where this is no server
    as_of: int  # monotonic instant at which `revision` was known to be current
    servers: tuple[ServerView, ...]
    problem: str = ""  # why nothing can be written here now, or this server's part has ended, and the mend
    warning: str = ""  # what is wrong while it can be, and the mend
    followed: tuple[str, ...] = ()  # prefixes held here without being a server
