"""Asks: what kind of asking one is, and whether any agent would ask it so."""

from msgspec.structs import replace

from dislocate.core.boundary.store import BackUp, Consistency, ReadKeys, Restore, WatchKeys
from dislocate.core.identity import NodeId
from dislocate.core.store.belonging import LIMIT
from dislocate.core.store.commands import RestoreChunk
from dislocate.core.store.messages import Answered, Asked, BackupPart, StoreAsk
from dislocate.core.tunables import SNAPSHOT_CHUNK


def is_for_any(request: StoreAsk) -> bool:
    """Whether any server, not only the leader, takes it on."""
    return isinstance(request, WatchKeys) or (
        isinstance(request, ReadKeys) and request.consistency is not Consistency.LINEARIZABLE
    )


def is_linearizable(request: ReadKeys, age: int) -> bool:
    """Whether the answer takes a quorum: what is here is too old for it."""
    if request.consistency is Consistency.BOUNDED:
        return age > request.max_age
    return request.consistency is Consistency.LINEARIZABLE


def is_plausible(asked: Asked) -> bool:
    """Whether an agent asks that of a server: numbers within bounds, a backup and a restore in parts."""
    if not 0 < asked.seq < LIMIT or not 0 <= asked.floor < LIMIT:
        return False
    match asked.request:
        case RestoreChunk(restore=restore, chunk=chunk, chunks=chunks, data=data):
            return 0 <= chunk < chunks < LIMIT and 0 <= restore < 2 * LIMIT and len(data) <= SNAPSHOT_CHUNK
        case BackupPart(part=part):
            return 0 <= part < LIMIT
        case Restore() | BackUp():
            return False
    return True


def addressed(answered: Answered, asker: NodeId) -> Answered:
    """The same answer, for `asker`, on its way through a server that passed the asking on."""
    return replace(answered, asker=asker)
