"""What owners say of their instances, and how two views are compared and repaired.  Append fields only; never reuse a tag."""

from msgspec import Struct

from dislocate.core.boundary.values import Load, Status
from dislocate.core.identity import NodeId


class Base(Struct, frozen=True, array_like=True, gc=False):
    """A message or fact about instances."""


# ---- facts, tags 8..19


class InstanceRecord(Base, frozen=True, tag=8):
    """One instance as its owner last described it.  (owner boot, version) decides between two."""

    owner: NodeId
    version: int  # grows with every change by this owner, over all of its instances
    id: str
    service: str
    address: str
    port: int
    tags: tuple[str, ...]
    meta: dict[str, str]
    weight: int
    status: Status
    cause: str = ""  # why it has this status, in words; at most 200 characters
    drain_left: int = 0  # nanoseconds of the drain left when this was said; 0: no end set, or not draining


class Manifest(Base, frozen=True, tag=9):
    """The live instances of an owner.  What is absent from the newest complete manifest is gone: there are no tombstones.

    A long one is split: it counts when all `parts` of one version are there."""

    owner: NodeId
    version: int
    ids: tuple[tuple[str, int], ...]  # (instance id, version of its record)
    part: int = 0
    parts: int = 1


class LoadNote(Base, frozen=True, tag=10):
    """Soft state: the load of one instance, quantized.  Higher (owner boot, stamp) wins; never stored."""

    owner: NodeId
    id: str
    stamp: int
    load: Load


class DrainOrder(Base, frozen=True, tag=11):
    """An operator drains a node or a data center: each owner that it names obeys.  The higher `stamp` wins per target."""

    target: str  # 'dc/name' or a data center
    draining: bool
    stamp: int  # unix nanoseconds where it was ordered, made unique by (stamp, issuer)
    issuer: NodeId
    left: int  # nanoseconds until it ends by itself when this was said; 0: no end
    reason: str = ""


# ---- repair, tags 40..49


class LedgerDigest(Base, frozen=True, tag=40):
    """64 bucket sums of the sender's ledger; answered by the inventory of those that differ."""

    buckets: tuple[int, ...]
    goes_on: bool = False  # a burst of yours ended before all was said: go on telling facts for empty buckets at once


class LedgerInventory(Base, frozen=True, tag=41):
    """All of the sender's entries in these buckets, in slices that fit.  The receiver sends what it knows of those that
    differ (as facts, with `Repaired` as the body) and, when `answer` is set, names them, to be told the rest.

    An entry of 0 says that its key is not known; fingerprints of known ones are never 0 in practice."""

    buckets: tuple[int, ...]
    entries: tuple[tuple[str, int], ...]  # (ledger key, fingerprint)
    answer: bool
    complete: bool  # of its buckets, in its range of keys, it holds all: what is missing here is missing there
    after: str = ""  # the range where a bucket was too large for one slice: after < key <= until
    until: str = ""  # empty: no end


class Repaired(Base, frozen=True, tag=42):
    """The facts in this envelope repair a difference: a `Dead` among them is a suspicion, no verdict."""

    more: bool = False  # a burst ended before all was said: ask again at once
