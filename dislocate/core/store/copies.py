"""Copies of the whole store that a leader hands out in slices: a backup is larger than a link's queue.

Each asker has one copy at a time, of one revision, kept until nobody has asked for a slice of it for a while.
Invariant: slices of two copies are never mixed; who asks for one that is not there any more is told to begin again.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from msgspec import Struct

from dislocate.core.boundary.requests import Refused
from dislocate.core.consensus.messages import GroupId
from dislocate.core.identity import NodeId
from dislocate.core.outbox import Outbox, Timer
from dislocate.core.store.backup import backup_parts
from dislocate.core.store.messages import BackupPart, BackupSlice
from dislocate.core.units import SECOND

if TYPE_CHECKING:
    from dislocate.core.store.machine import StoreMachine

SLICE = 1 << 20  # bytes: sixteen messages of a link, whose queue holds 64
IDLE = 30 * SECOND  # nobody has asked for the next slice
COPIES = 8  # kept at once: each keeps alive the values of its revision


class CopyIdle(Timer, frozen=True):
    """See which copies nobody fetches any more."""


class Copy(Struct, eq=False):
    """One copy that is being fetched; cut as it is asked for, true to the moment at which it was begun."""

    number: int
    revision: int
    rest: Iterator[bytes]
    used: int  # when its last slice was asked for
    newest: BackupSlice | None = None  # kept, in case its answer is lost


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
        copy = Copy(self._number, machine.revision, backup_parts(machine, group), self._out.now)
        self._copies[asker] = copy
        if len(self._copies) > COPIES:
            del self._copies[next(iter(self._copies))]
        if not self._armed:
            self._armed = True
            self._out.arm(self._out.now + IDLE, CopyIdle())
        return self._cut(copy, 0)

    def go_on(self, asker: NodeId, asked: BackupPart) -> BackupSlice | Refused:
        """The next slice, or the last one again."""
        copy = self._copies.get(asker)
        newest = None if copy is None or copy.number != asked.copy else copy.newest
        if copy is None or newest is None or asked.part not in (newest.part, newest.part + (not newest.last)):
            return Refused("conflict", "backup", "the leader changed, or another backup came between: begin again")
        return newest if asked.part == newest.part else self._cut(copy, asked.part)

    def _cut(self, copy: Copy, part: int) -> BackupSlice:
        copy.used = self._out.now
        pieces: list[bytes] = []
        size, last = 0, False
        while size < SLICE and not last:
            piece = next(copy.rest, None)
            last = piece is None
            pieces.append(piece or b"")
            size += len(pieces[-1])
        copy.newest = BackupSlice(copy.number, part, last, b"".join(pieces), copy.revision)
        return copy.newest

    def clear(self) -> None:
        self._copies.clear()

    def _look(self, _timer: CopyIdle) -> None:
        now = self._out.now
        for asker in [asker for asker, copy in self._copies.items() if now - copy.used >= IDLE]:
            del self._copies[asker]
        self._armed = bool(self._copies)
        if self._armed:
            self._out.arm(now + IDLE, CopyIdle())
