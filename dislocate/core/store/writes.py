"""Writes of an agent's part in the group, one after the other.

Invariant: they reach the disk in the order in which they were asked for, whatever fails.  A full disk is tried again each
second, and what comes later waits, so that no older record of the group ever replaces a newer one; any other failure is
told, and with it the end of all that waits.
"""

from collections import deque
from collections.abc import Callable

from dislocate.core.boundary.values import StoredRecord
from dislocate.core.outbox import Outbox, Timer
from dislocate.core.tunables import RETRY_FULL

FULL = "full"  # begins the reason of a write that failed for want of space


class GroupWriteAgain(Timer, frozen=True):
    """There may be space on the disk again."""


class OrderedWrites:
    """A queue of transactions, each synced."""

    def __init__(self, out: Outbox) -> None:
        self._out = out
        self._waiting: deque[tuple[tuple[StoredRecord, ...], Callable[[], None], Callable[[str], None]]] = deque()
        self._is_under_way = False
        self.is_full = False

    def timers(self) -> dict[type, Callable[[GroupWriteAgain], None]]:
        return {GroupWriteAgain: self._again}

    def add(self, records: tuple[StoredRecord, ...], then: Callable[[], None], failed: Callable[[str], None]) -> None:
        """Store `records` after all before; `then` is called when they are durable, `failed` when they will not be."""
        self._waiting.append((records, then, failed))
        self._next()

    def _again(self, _timer: GroupWriteAgain) -> None:
        self._is_under_way = False
        self._next()

    def _next(self) -> None:
        if self._is_under_way or not self._waiting:
            return
        self._is_under_way = True
        self._out.store(self._waiting[0][0], sync=True, then=self._stored, failed=self._failed)

    def _stored(self) -> None:
        _, then, _ = self._waiting.popleft()
        self._is_under_way = self.is_full = False
        then()
        self._next()

    def _failed(self, reason: str) -> None:
        if reason.startswith(FULL):
            self.is_full = True
            self._out.arm(self._out.now + RETRY_FULL, GroupWriteAgain())
            return
        waiting, self._waiting = self._waiting, deque()
        for _, _, failed in waiting:
            failed(reason)
