"""Writing: a server's part gives its disk one write at a time.

Invariants: nothing is given to the disk before the write under way is answered for; one that met a full disk is tried again,
each `RETRY_FULL`, and nothing else before it, so what is durable is always a prefix of what was wanted; any other failure is
told once, and is for the owner to end over.  After `end` nobody is told anything.
"""

from collections.abc import Callable
from typing import Any

from dislocate.core.boundary.values import StoredRecord
from dislocate.core.outbox import Outbox, Timer
from dislocate.core.tunables import RETRY_FULL

FULL = "full"  # begins the reason of a write that will succeed when there is room again


class WriteAgain(Timer, frozen=True):
    """The disk was full: is there room now?"""


class Writing:
    """The writes of one server.  `failed` is told a failure, `filled` whether the disk is full: each time that it was found
    so, and once when it is not any more."""

    def __init__(self, out: Outbox, failed: Callable[[str], None], filled: Callable[[bool], None]) -> None:
        self.is_busy = False
        self.is_full = False  # the disk has no room: nothing new is promised
        self.latency = 0  # nanoseconds that the last synced write took
        self.under_way: tuple[StoredRecord, ...] = ()  # what the disk has been given and has not answered for
        self._out = out
        self._failed = failed
        self._filled = filled
        self._has_ended = False
        self._again: Callable[[], None] | None = None

    def timers(self) -> dict[type, Callable[[Any], None]]:
        return {WriteAgain: self._write_again}

    def write(self, records: tuple[StoredRecord, ...], *, sync: bool, then: Callable[[], None]) -> None:
        """Make `records` durable; `then` is called when they are.  Not while it `is_busy`."""
        self.is_busy = True
        self.under_way = records
        self._store(records, sync, then, self._out.now)

    def end(self) -> None:
        self._has_ended = True

    def _store(self, records: tuple[StoredRecord, ...], sync: bool, then: Callable[[], None], began: int) -> None:
        def stored() -> None:
            was_full, self.is_busy, self.is_full = self.is_full, False, False
            self.under_way = ()
            if was_full:
                self._filled(False)
            if sync:
                self.latency = self._out.now - began
            then()

        def failed(reason: str) -> None:
            if self._has_ended:
                return
            if not reason.startswith(FULL):
                self._failed(reason)
                return
            self.is_full = True
            self._again = lambda: self._store(records, sync, then, self._out.now)
            self._out.arm(self._out.now + RETRY_FULL, WriteAgain())
            self._filled(True)

        self._out.store(records, sync=sync, then=stored, failed=failed)

    def _write_again(self, _timer: WriteAgain) -> None:
        if self._again is not None:
            again, self._again = self._again, None
            again()
