"""What the founding of a group asks of its owner, and what it tells: see `bootstrap`."""

from msgspec import Struct

from dislocate.core.boundary.values import StoredRecord
from dislocate.core.consensus.messages import Configuration, GroupId
from dislocate.core.identity import Path
from dislocate.core.store.messages import GroupAsked, GroupTold


class Write(Struct, frozen=True):
    """Make `records` durable (synced), then call `stored(ticket)`; `drops_store`: delete in the same transaction all
    records for which `promises.is_of_store` holds, except those in `records`."""

    ticket: int
    records: tuple[StoredRecord, ...]
    drops_store: bool = False


class Joined(Struct, frozen=True):
    """This agent remembers its group, or a higher epoch of it, durably."""

    group: GroupId


class Founded(Struct, frozen=True):
    """This server wrote entry 1 of its log, durably: start Raft with what is on disk.  Follows `Joined`."""

    group: GroupId
    configuration: Configuration


class Admitted(Struct, frozen=True):
    """This disk is in the group: start Raft without a log.  Follows `Joined`."""

    group: GroupId


class Expelled(Struct, frozen=True):
    """This server is in the group no more: end Raft at once.  Its records stay until it is let in as another disk."""

    group: GroupId


class FoundingDuties(Struct, frozen=True):
    """What is to be done, in this order."""

    writes: tuple[Write, ...]
    messages: tuple[tuple[Path, GroupAsked | GroupTold], ...]
    happened: tuple[Joined | Founded | Admitted | Expelled, ...]
