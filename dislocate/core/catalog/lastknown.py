"""Last known: other owners' records on disk, so that a restarted agent answers at once, with the age of what it says.

Invariant: what is written is a convenience: not synced, at most each `SAVE_PERIOD`, and never gossiped after it is read back
until its owner is heard again.  While nothing changes, one small note each `HEARD_PERIOD` says that all is still current.
Ages are the one place where two readings of the wall clock are subtracted: both are this host's.
"""

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

from dislocate.core.boundary.settings import Recovered
from dislocate.core.boundary.values import StoredRecord
from dislocate.core.catalog.messages import InstanceRecord, Manifest
from dislocate.core.catalog.owner import Owner
from dislocate.core.catalog.owners import Owners
from dislocate.core.identity import NodeId, Path
from dislocate.core.membership.members import Members
from dislocate.core.outbox import Outbox, Timer
from dislocate.core.tunables import DEAD_RETENTION, HEARD_PERIOD, SAVE_BATCH, SAVE_PERIOD

PREFIX = "owner/"
HEARD_KEY = "owners/heard"


class StoredOwner(Struct, frozen=True, array_like=True):
    """One owner; `unix` is when it was last known to live, 0: it did when this was written (see the note)."""

    owner: NodeId
    manifest: tuple[Manifest, ...]
    records: tuple[InstanceRecord, ...]
    unix: int


class SaveDue(Timer, frozen=True):
    """Write what changed."""


class HeardDue(Timer, frozen=True):
    """Note that what is on disk is still current."""


class LastKnown:
    """Writes and reads the records of other owners."""

    def __init__(self, out: Outbox, members: Members) -> None:
        self._out = out
        self._members = members
        self._dirty: dict[Path, Owner] = {}
        self._is_armed = False
        self._is_noting = False

    def timers(self) -> dict[type, Callable[[Any], None]]:
        return {SaveDue: self._save, HeardDue: self._note}

    def changed(self, owner: Owner) -> None:
        """`owner` differs from what the disk has."""
        self._dirty[owner.path] = owner
        if not self._is_armed:
            self._is_armed = True
            self._out.arm(self._out.now + SAVE_PERIOD, SaveDue())
        if not self._is_noting:
            self._is_noting = True
            self._out.arm(self._out.now + HEARD_PERIOD, HeardDue())

    def restore(self, recovered: Recovered, owners: Owners) -> None:
        """Tell `owners` what the disk has; what cannot be read is reported and left alone."""
        by_key = {record.key: record.value for record in recovered.records if record.value is not None}
        heard = _decode(self._out, HEARD_KEY, by_key.get(HEARD_KEY), int) or 0
        for key, value in by_key.items():
            stored = _decode(self._out, key, value, StoredOwner) if key.startswith(PREFIX) else None
            if stored is None or not stored.records or owners.get(stored.owner.path) is not None:
                continue
            unix = stored.unix or heard
            age = max(0, recovered.unix_ns - unix) if unix else DEAD_RETENTION
            if age > DEAD_RETENTION:
                continue
            owner = Owner(stored.owner, self._out.now - age, is_confirmed=False)
            for part in stored.manifest:
                owner.said.replace(part)
            for record in stored.records:
                owner.said.add(record)
            owners.restore(owner, DEAD_RETENTION)

    def _save(self, _timer: SaveDue) -> None:
        self._is_armed = False
        batch = list(self._dirty.values())[:SAVE_BATCH]
        for owner in batch:
            del self._dirty[owner.path]
        self._out.store((*map(self._stored, batch), self._heard()), sync=False, failed=lambda _: self._again(batch))
        if self._dirty:
            self.changed(next(iter(self._dirty.values())))

    def _again(self, batch: list[Owner]) -> None:
        for owner in batch:
            self.changed(self._dirty.get(owner.path, owner))

    def _note(self, _timer: HeardDue) -> None:
        self._out.store((self._heard(),), sync=False)
        self._out.arm(self._out.now + HEARD_PERIOD, HeardDue())

    def _heard(self) -> StoredRecord:
        return StoredRecord(HEARD_KEY, msgspec.msgpack.encode(self._out.unix()))

    def _stored(self, owner: Owner) -> StoredRecord:
        records = tuple(owner.said.records.values())
        if not owner.is_kept or not records:
            return StoredRecord(PREFIX + owner.path, None)
        member = self._members.get(owner.path)
        is_current = owner.is_confirmed and (member is None or member.is_living)
        seen = owner.heard if member is None else max(owner.heard, member.heard)
        unix = 0 if is_current else max(1, self._out.unix() - (self._out.now - seen))
        node = NodeId(owner.datacenter, owner.path.partition("/")[2], records[0].owner.boot)
        return StoredRecord(
            PREFIX + owner.path, msgspec.msgpack.encode(StoredOwner(node, owner.said.manifest, records, unix))
        )


def _decode(out: Outbox, key: str, value: bytes | None, type_: type[Any]) -> Any:
    if value is None:
        return None
    try:
        return msgspec.msgpack.decode(value, type=type_)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        out.drop(f"disk: {key}", str(error))
        return None
