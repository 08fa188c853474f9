"""Owner: everything that this node knows of one agent's instances."""

from dislocate.core.boundary.values import Load
from dislocate.core.catalog.fate import Fate
from dislocate.core.catalog.messages import InstanceRecord, LoadNote
from dislocate.core.catalog.records import OwnerRecords
from dislocate.core.identity import NodeId, Path

HOST = ""  # the instance id of a note about the host itself: it stands for instances that report no load


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
        self.loads: dict[str, LoadNote] = {}
        self.drain_ends: dict[str, int] = {}  # local instants

    def load_of(self, instance_id: str) -> Load | None:
        """What it reports, else what its host reports, else None."""
        note = self.loads.get(instance_id) or self.loads.get(HOST)
        return None if note is None else note.load

    def keep_drain_end(self, record: InstanceRecord, now: int) -> None:
        """Anchor the end of a drain, told as time left, at `now`."""
        if record.drain_left > 0:
            self.drain_ends[record.id] = now + record.drain_left
        else:
            self.drain_ends.pop(record.id, None)

    def drop_extras(self, instance_id: str) -> None:
        """An instance went away."""
        self.drain_ends.pop(instance_id, None)
        self.loads.pop(instance_id, None)
