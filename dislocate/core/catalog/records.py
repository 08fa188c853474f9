"""Records: what one owner said of its instances, merged from facts that arrive in any order, more than once, or never.

Only the owner writes: of two records of an id the higher (boot, version) wins.  The newest complete manifest deletes: a
record that is not newer than it and not among its ids is gone, and never comes back, so there are no tombstones.  A record
newer than the manifest is shown until a manifest says otherwise; after a restart of the owner, records of its earlier start
stay until the first manifest of the new one.  Merging is commutative, associative and idempotent over what an owner says.

`content` is a fingerprint of the records kept: equal for equal content, whatever the way there.
"""

from msgspec import Struct

from dislocate.core.catalog.ledger import fingerprint
from dislocate.core.catalog.messages import InstanceRecord, Manifest
from dislocate.core.tunables import INSTANCES_PER_OWNER

_MASK = (1 << 64) - 1
_MAX_PARTS = 512  # 1,000 ids of 128 characters need 150

Stamp = tuple[int, int]  # (boot, version)

_NOTHING: tuple[Stamp, int] = ((0, -1), 0)


class Change(Struct, frozen=True):
    """One instance of the owner, before and after; None where it is not there."""

    before: InstanceRecord | None
    after: InstanceRecord | None


def stamp_of(fact: InstanceRecord | Manifest) -> Stamp:
    return fact.owner.boot, fact.version


class OwnerRecords:
    """The records of one owner."""

    __slots__ = ("_assembling", "_parts", "content", "manifest", "records")

    def __init__(self) -> None:
        self.records: dict[str, InstanceRecord] = {}
        self.manifest: tuple[Manifest, ...] = ()  # the parts of the newest complete one
        self.content = 0
        self._parts: dict[int, Manifest] | None = None  # of a newer one, not yet complete
        self._assembling = _NOTHING

    @property
    def stamp(self) -> Stamp:
        """Of the newest complete manifest; (0, -1) before the first."""
        return stamp_of(self.manifest[0]) if self.manifest else (0, -1)

    @property
    def boot(self) -> int:
        """The latest start that said any of this; 0 when nothing was said."""
        assembling = 0 if self._parts is None else self._assembling[0][0]
        return max(self.stamp[0], assembling, *(record.owner.boot for record in self.records.values()))

    def add(self, record: InstanceRecord) -> Change | None:
        """Merge one record; None when it is no news."""
        before = self.records.get(record.id)
        stamp = stamp_of(record)
        if before is not None and stamp <= stamp_of(before):
            return None
        if stamp <= self.stamp and not self._is_listed(record.id):
            return None
        if before is None and len(self.records) >= 2 * INSTANCES_PER_OWNER:
            return None
        self._set(record.id, record)
        return Change(before, record)

    def replace(self, manifest: Manifest) -> tuple[bool, list[Change]]:
        """Merge one part of a manifest: whether it is news, and what it deletes when it completes its manifest."""
        stamp = stamp_of(manifest)
        key = (stamp, manifest.parts)
        if stamp <= self.stamp or key < self._assembling or not 0 <= manifest.part < manifest.parts <= _MAX_PARTS:
            return False, []
        if key != self._assembling or self._parts is None:
            self._assembling = key
            self._parts = {}
        if manifest.part in self._parts:
            return False, []
        self._parts[manifest.part] = manifest
        if len(self._parts) < manifest.parts:
            return True, []
        self.manifest = tuple(self._parts[part] for part in range(manifest.parts))
        self._assembling, self._parts = _NOTHING, None
        listed = dict(entry for part in self.manifest for entry in part.ids)
        gone = [r for r in self.records.values() if stamp_of(r) <= stamp and r.id not in listed]
        for record in gone:
            self._set(record.id, None)
        return True, [Change(record, None) for record in gone]

    def _is_listed(self, instance_id: str) -> bool:
        """Asked for a record that comes after its manifest: seldom enough not to keep an index at every node."""
        return any(instance_id == listed for part in self.manifest for listed, _ in part.ids)

    def _set(self, instance_id: str, record: InstanceRecord | None) -> None:
        before = self.records.pop(instance_id, None)
        if before is not None:
            self.content = (self.content - _mark(before)) & _MASK
        if record is not None:
            self.records[instance_id] = record
            self.content = (self.content + _mark(record)) & _MASK


def _mark(record: InstanceRecord) -> int:
    return fingerprint(f"{record.id}/{record.owner.boot}/{record.version}")
