"""Copies of the whole store that a leader hands out in slices: a backup is larger than a link's queue.

Each asker has one copy at a time, made at one revision and kept until its last slice is fetched or nobody asks for the next
one.  Invariant: slices of two copies are never mixed; who asks for one that is not there any more is told to begin again.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec import Struct

from dislocate.core.boundary.requests import Refused
from dislocate.core.consensus.messages import GroupId
from dislocate.core.identity import NodeId
from dislocate.core.outbox import Outbox, Timer
from dislocate.core.store.backup import write_backup
from dislocate.core.store.messages import BackupPart, BackupSlice
from dislocate.core.units import SECOND

if TYPE_CHECKING:
    from dislocate.core.store.machine import StoreMachine

SLICE = 1 << 20  # bytes: sixteen messages of a link, whose queue holds 64
IDLE = 30 * SECOND  # nobody has asked for the next slice
COPIES = 2  # kept at once: each may be as large as the store


class CopyIdle(Timer, frozen=True):
    """See which copies nobody fetches any more."""


class Copy(Struct, eq=False):
    """One copy that is being fetched."""

    number: int
    revision: int
    data: bytes
    used: int  # when its last slice was asked for


class Copies:
    """The copies that one server holds."""

    def __init__(self, out: Outbox) -> None:
        self._out = out
        self._copies: dict[NodeId, Copy] = {}  # by asker, the least recently begun first
        self._number = 0
        self._armed = False

    def timers(self) -> dict[type, Callable[[CopyIdle], None]]:
        return {CopyIdle: self._look}

    def __len__(self) -> int:
        return len(self._copies)

    def begin(self, asker: NodeId, machine: "StoreMachine", group: GroupId) -> BackupSlice:
        """The first slice of a new copy."""
        self._copies.pop(asker, None)
        self._number += 1
        copy = Copy(self._number, machine.revision, write_backup(machine, group), self._out.now)
        self._copies[asker] = copy
        if len(self._copies) > COPIES:
            del self._copies[next(iter(self._copies))]
        if not self._armed:
            self._armed = True
            self._out.arm(self._out.now + IDLE, CopyIdle())
        return self._slice(asker, copy, 0)

    def go_on(self, asker: NodeId, asked: BackupPart) -> BackupSlice | Refused:
        """The slice asked for."""
        copy = self._copies.get(asker)
        if copy is None or copy.number != asked.copy or not 0 <= asked.part * SLICE < len(copy.data):
            return Refused("conflict", "backup", "the leader changed, or another backup came between: begin again")
        return self._slice(asker, copy, asked.part)

    def clear(self) -> None:
        self._copies.clear()

    def _slice(self, asker: NodeId, copy: Copy, part: int) -> BackupSlice:
        copy.used = self._out.now
        parts = -(-len(copy.data) // SLICE)
        data = copy.data[part * SLICE : (part + 1) * SLICE]
        return BackupSlice(copy.number, part, parts, data, copy.revision)

    def _look(self, _timer: CopyIdle) -> None:
        now = self._out.now
        for asker in [asker for asker, copy in self._copies.items() if now - copy.used >= IDLE]:
            del self._copies[asker]
        self._armed = bool(self._copies)
        if self._armed:
            self._out.arm(now + IDLE, CopyIdle())
