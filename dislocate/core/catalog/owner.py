"""Owner: everything that this node knows of one agent's instances."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from dislocate.core.boundary.values import Load
from dislocate.core.catalog.fate import Fate
from dislocate.core.catalog.messages import InstanceRecord, LoadNote
from dislocate.core.catalog.records import OwnerRecords
from dislocate.core.identity import NodeId, Path

HOST = ""  # the instance id of a note about the host itself: it stands for instances that report no load

_NONE: Final[Mapping[str, Any]] = MappingProxyType({})  # most owners have neither loads nor drains, and there are many


class Owner:
    """One owner, this node itself included.  Written by `owners.Owners` and `loads.Loads` alone."""

    __slots__ = ("datacenter", "drain_ends", "fate", "heard", "is_confirmed", "is_kept", "loads", "path", "said")

    def __init__(self, node: NodeId, now: int, *, is_confirmed: bool = True) -> None:
        self.path: Path = node.path
        self.datacenter = node.datacenter
        self.said = OwnerRecords()
        self.fate = Fate.ATTENDED
        self.heard = now  # when its facts last came in, or what the disk says of that
        self.is_confirmed = is_confirmed  # False: only the disk says so yet; never gossiped
        self.is_kept = True  # False once it was dropped
        self.loads: Mapping[str, LoadNote] = _NONE
        self.drain_ends: Mapping[str, int] = _NONE  # local instants

    @property
    def boot(self) -> int:
        """The latest start that anything known of it comes from; 0 when nothing is known."""
        return max(self.said.boot, *(note.owner.boot for note in self.loads.values()), 0)

    def load_of(self, instance_id: str) -> Load | None:
        """What it reports, else what its host reports, else None."""
        note = self.loads.get(instance_id) or self.loads.get(HOST)
        return None if note is None else note.load

    def keep_load(self, note: LoadNote) -> None:
        self.loads = {**self.loads, note.id: note}

    def keep_drain_end(self, record: InstanceRecord, now: int) -> None:
        """Anchor the end of a drain, told as time left, at `now`."""
        if record.drain_left > 0:
            self.drain_ends = {**self.drain_ends, record.id: now + record.drain_left}
        elif record.id in self.drain_ends:
            self.drain_ends = _without(self.drain_ends, record.id)

    def drop_extras(self, instance_id: str) -> None:
        """An instance went away."""
        if instance_id in self.drain_ends:
            self.drain_ends = _without(self.drain_ends, instance_id)
        if instance_id in self.loads:
            self.loads = _without(self.loads, instance_id)


def _without(mapping: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    return {one: value for one, value in mapping.items() if one != key} or _NONE
