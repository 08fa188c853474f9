"""Testimony: what clients of the store asked and were told, for invariants to judge at any time."""

from msgspec import Struct

from dislocate.core.boundary.store import KeyChange, KeyValue
from sim.history.operations import History, Value


class LocalRead(Struct, frozen=True):
    """A read that may be old, and says how old."""

    client: str
    at: int  # virtual time of the answer
    key: str
    value: Value
    revision: int
    age: int


class Watched(Struct, frozen=True):
    """A watcher was told all changes below `prefix` after `after` up to `upto`."""

    client: str
    prefix: str
    after: int
    upto: int
    changes: tuple[KeyChange, ...]


class Reread(Struct, frozen=True):
    """A watcher began, or began anew after `Compacted`, with what was there at `revision`."""

    client: str
    prefix: str
    revision: int
    keys: tuple[KeyValue, ...]


class Lease(Struct):
    """A lease as its client knows it.  Virtual time."""

    lease: int
    client: str
    ttl: int
    kept: int  # when the last asking that was answered began
    tried: int  # when the last asking ended, answered or not: it may have been kept until then
    is_given_up: bool = False  # nobody keeps it alive any more
    is_revoked: bool = False  # revoking was asked for


class Grant(Struct, frozen=True):
    """A client was told that it holds a lock."""

    client: str
    key: str
    token: int
    revision: int


class FencedWrite(Struct, frozen=True):
    """A write that only the holder of a lock may do was acknowledged."""

    client: str
    lock: str
    token: int
    revision: int


class Testimony:
    """Of all clients of one world."""

    def __init__(self) -> None:
        self.history = History()
        self.local_reads: list[LocalRead] = []
        self.watched: list[Watched | Reread] = []
        self.watching: dict[
            str, tuple[str, int, int]
        ] = {}  # by client: (prefix, revision it knows, when it learned it)
        self.leases: dict[int, Lease] = {}
        self.grants: list[Grant] = []
        self.fenced: list[FencedWrite] = []
        self.refusals: dict[str, int] = {}  # how often, by kind
