"""Publisher: this node's own word, in versions.

Invariant: the version grows with every change, and whatever is published carries it.  A change of one instance costs one
record; a manifest is spread only when the set of ids changes (a record newer than the manifest needs none), in parts that
fit a datagram.
"""

from dislocate.core.boundary.settings import Settings
from dislocate.core.catalog.drains import Drains
from dislocate.core.catalog.instance import OwnInstance
from dislocate.core.catalog.messages import InstanceRecord, Manifest
from dislocate.core.catalog.owners import Owners, manifest_key
from dislocate.core.errors import require
from dislocate.core.identity import NodeId, split_address
from dislocate.core.outbox import Outbox
from dislocate.core.tunables import CAUSE_LIMIT, RECORD_BUDGET
from dislocate.core.wire import encoded_size

_MANIFEST_HEAD = 180  # bytes of everything but the ids, with the longest names


def clipped(text: str, limit: int = CAUSE_LIMIT) -> str:
    """The first line of `text`, at most `limit` bytes of UTF-8."""
    line = text.strip().partition("\n")[0]
    return line.encode()[:limit].decode(errors="ignore")


def split_manifest(owner: NodeId, version: int, ids: list[tuple[str, int]]) -> list[Manifest]:
    """A manifest in parts of at most `RECORD_BUDGET` bytes; one empty part when there is nothing."""
    slices: list[list[tuple[str, int]]] = [[]]
    size = _MANIFEST_HEAD
    for entry in ids:
        cost = encoded_size(entry)
        if size + cost > RECORD_BUDGET:
            slices.append([])
            size = _MANIFEST_HEAD
        slices[-1].append(entry)
        size += cost
    return [Manifest(owner, version, tuple(ids), part, len(slices)) for part, ids in enumerate(slices)]


class Publisher:
    """Says what this node's instances are."""

    def __init__(self, settings: Settings, out: Outbox, owners: Owners, drains: Drains) -> None:
        self._out = out
        self._owners = owners
        self._drains = drains
        self._address = split_address(settings.gossip, "node.advertise")[0]
        self._parts = 0
        self.version = 0

    def publish(self, instance: OwnInstance) -> None:
        """Spread the instance's record, unless it says what it said before."""
        spec, now = instance.spec, self._out.now
        known = self._owners.own.said.records.get(instance.id)
        order = self._drains.on_self()
        status, cause = instance.status(None if order is None else order[0].reason)
        until = self._drain_end(instance, None if order is None else order[1])
        if known is not None and not self._differs(known, instance, status.value, clipped(cause), until):
            return
        self.version += 1
        record = InstanceRecord(
            self._out.node,
            self.version,
            spec.id,
            spec.service,
            spec.address or self._address,
            spec.port,
            spec.tags,
            spec.meta,
            spec.weight,
            status,
            clipped(cause),
            max(1, until - now) if until else 0,
        )
        require(encoded_size(record) <= RECORD_BUDGET, f"record of {spec.id} is too large")
        self._owners.add_own(record, record.cause)
        self._out.spread(f"i/{self._out.node.path}/{spec.id}", record)

    def publish_ids(self, ids: list[str], why: str) -> None:
        """Spread the manifest of `ids`, each published before."""
        self.version += 1
        records = self._owners.own.said.records
        parts = split_manifest(self._out.node, self.version, [(one, records[one].version) for one in ids])
        self._owners.replace_own(parts, why)
        for part in parts:
            self._out.spread(manifest_key(part), part)
        for leftover in range(len(parts), self._parts):
            self._out.rumors.drop(f"c/{self._out.node.path}/{leftover}")
        self._parts = len(parts)

    def _drain_end(self, instance: OwnInstance, ordered_end: int | None) -> int:
        """When its drains are over; 0: never, or it is not draining."""
        ends = [instance.drain_until] if instance.is_draining else []
        if ordered_end is not None:
            ends.append(ordered_end)
        return max(ends) if ends and all(ends) else 0

    def _differs(self, known: InstanceRecord, instance: OwnInstance, status: str, cause: str, until: int) -> bool:
        spec = instance.spec
        told = (known.service, known.address, known.port, known.tags, known.meta, known.weight)
        asked = (spec.service, spec.address or self._address, spec.port, spec.tags, spec.meta, spec.weight)
        said = (known.status.value, known.cause, self._owners.own.drain_ends.get(instance.id, 0))
        return told != asked or said != (status, cause, until) or known.owner != self._out.node
