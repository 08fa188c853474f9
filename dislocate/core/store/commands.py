"""Commands: what an entry of the log tells the store to do.

A command names who asked and the how-manyeth of its asking it is, so that one sent twice is done once and answered the same
both times (Raft thesis, 6.3).
"""

from typing import TypeAlias

import msgspec
from msgspec import Struct

from dislocate.core.boundary.runs import RunRequest
from dislocate.core.boundary.scaling import ScaleRequest
from dislocate.core.boundary.store import GrantLease, RevokeLease, Transact
from dislocate.core.errors import Bug
from dislocate.core.runs.steps import RunStep
from dislocate.core.scale.steps import ScaleStep


class Part(Struct, frozen=True, array_like=True):
    """Part of an entry."""


class Origin(Part, frozen=True, gc=False):
    """Which asking of which agent this is."""

    session: str  # 'dc/name#boot': one start of one agent; a higher boot ends the session before it
    seq: int  # from 1
    floor: int  # askings below this have been answered: their results need not be kept any more


class LeasesEnded(Part, frozen=True, tag=100):
    """The leader saw that nobody kept these leases alive.  What a lease's keys were is deleted, in one revision each."""

    leases: tuple[int, ...]


class RestoreChunk(Part, frozen=True, tag=101):
    """Part of a backup that is to replace everything.  Nothing shows before all parts are applied."""

    restore: int  # tells two restores apart
    chunk: int
    chunks: int
    data: bytes


class SetFeatureLevel(Part, frozen=True, tag=102):
    """From here on all servers apply commands as `level` says; proposed when every server speaks it."""

    level: int


CommandBody: TypeAlias = (
    Transact
    | GrantLease
    | RevokeLease
    | LeasesEnded
    | RestoreChunk
    | SetFeatureLevel
    | RunRequest
    | RunStep
    | ScaleRequest
    | ScaleStep
)


class Command(Part, frozen=True):
    """The data of an entry."""

    body: CommandBody
    origin: Origin | None = None  # None: the leader's own


class UnreadableEntry(Bug):
    """The log has an entry that this version cannot read: a newer one wrote it, or an older one broke it."""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Command)


def encode_command(command: Command) -> bytes:
    return _encoder.encode(command)


def decode_command(data: bytes) -> Command:
    """Raises `msgspec.MsgspecError`: what is in the log was checked before it was proposed, so that is a bug."""
    return _decoder.decode(data)
