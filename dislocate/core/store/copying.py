"""Copying: a backup fetched, part after part, and a restore sent, some parts at a time.

Invariant: nothing of a restore shows before its last part, which is sent when all others have arrived; so one that ends
earlier was certainly not done, whatever became of a part, and only the last one leaves a doubt.  There is no limit to the
whole: each part is answered within `ASK_WITHIN`, so a restore takes as long as it gets on.  A backup whose copy was lost is
begun anew, a few times.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeGuard

from dislocate.core.boundary.requests import Done, Refused, Result
from dislocate.core.boundary.store import BackedUp, Restore, Uncertain
from dislocate.core.catalog.validation import refused
from dislocate.core.consensus.messages import GroupId
from dislocate.core.errors import LocalError
from dislocate.core.outbox import Outbox
from dislocate.core.store.backup import check_group, read_header, restore_chunks
from dislocate.core.store.commands import RestoreChunk
from dislocate.core.store.messages import BackupPart, BackupSlice
from dislocate.core.store.router import Router
from dislocate.core.tunables import RESTORE_WINDOW

BACKUP_TRIES = 3  # a leader that changes twice within one backup changes for a reason


class Copying:
    """What this agent copies."""

    def __init__(self, out: Outbox, router: Router) -> None:
        self._out = out
        self._router = router
        self._under_way: dict[int, None] = {}  # request ids that somebody waits for

    def cancel(self, request_id: int) -> None:
        """Nobody waits any more: no further part is asked for or sent."""
        self._under_way.pop(request_id, None)

    def _answer(self, request_id: int, result: Result) -> None:
        if self._under_way.pop(request_id, "gone") is None:
            self._out.reply(request_id, result)

    # ---- backup

    def back_up(self, request_id: int) -> None:
        """Answered by `BackedUp`."""
        self._under_way[request_id] = None
        self._begin(request_id, 1)

    def _begin(self, request_id: int, attempt: int) -> None:
        slices: list[bytes] = []

        def go_on(result: Result | BackupSlice) -> None:
            if request_id not in self._under_way:
                return
            if isinstance(result, Refused) and result.kind == "conflict" and attempt < BACKUP_TRIES:
                self._begin(request_id, attempt + 1)
            elif not isinstance(result, BackupSlice):
                self._answer(request_id, result)
            else:
                slices.append(result.data)
                if result.last:
                    self._answer(request_id, BackedUp(b"".join(slices), result.revision))
                else:
                    self._router.ask(BackupPart(result.copy, len(slices)), go_on)

        self._router.ask(BackupPart(0, 0), go_on)

    # ---- restore

    def restore(self, request_id: int, request: Restore, group: GroupId | None, stream: Callable[[], int]) -> None:
        """Answered by `Transacted`; `stream` gives the number that tells it from other restores."""
        try:
            parts = restore_chunks(request.data, stream())
            if not request.force and group is not None:
                check_group(read_header(request.data), group)
        except LocalError as error:
            self._out.reply(request_id, refused(error))
            return
        self._under_way[request_id] = None

        def answer(result: Result) -> None:
            self._answer(request_id, result)

        PartsSent(self._router, parts, lambda: request_id in self._under_way, answer).go_on()


class PartsSent:
    """A restore on its way.  Its first part goes alone, since it begins the restore, and so does the last, which makes it
    whole and is sent only when all others are there; those between go within a window, and arrive in any order."""

    def __init__(
        self,
        router: Router,
        parts: Sequence[RestoreChunk],
        is_wanted: Callable[[], bool],
        over: Callable[[Result], None],
    ) -> None:
        self._router = router
        self._is_wanted = is_wanted
        self._over = over
        self._left = deque(parts)
        self._arrived = 0
        self._under_way = 0

    def go_on(self) -> None:
        """Send what may be."""
        while self._is_wanted() and self._left and self._under_way < self._window():
            self._send(self._left.popleft())

    def _window(self) -> int:
        return RESTORE_WINDOW if self._arrived and len(self._left) > 1 else 1

    def _send(self, part: RestoreChunk) -> None:
        is_last = not self._left
        self._under_way += 1

        def answered(result: Result | BackupSlice) -> None:
            self._under_way -= 1
            if not self._is_wanted() or isinstance(result, BackupSlice):
                return
            if isinstance(result, Done) and not is_last:
                self._arrived += 1
                self.go_on()
            elif not is_last and (isinstance(result, Uncertain) or _is_unavailable(result)):
                self._over(Refused("unavailable", "store", f"nothing was restored: {result.reason}"))
            else:
                self._over(result)

        self._router.ask(part, answered)


def _is_unavailable(result: Result) -> TypeGuard[Refused]:
    return isinstance(result, Refused) and result.kind == "unavailable"
