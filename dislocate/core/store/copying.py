"""Copying: a backup fetched, and a restore sent, in parts each of which waits for the one before.

Invariant: nothing of a restore shows before its last part, so one that ends earlier was certainly not done, whatever became
of a part; only the last one leaves a doubt.  A backup whose copy was lost is begun anew, a few times.
"""

from collections import deque
from collections.abc import Callable

from dislocate.core.boundary.requests import Done, Refused, Result
from dislocate.core.boundary.store import BackedUp, Restore, Uncertain
from dislocate.core.catalog.validation import refused
from dislocate.core.consensus.messages import GroupId
from dislocate.core.errors import LocalError
from dislocate.core.outbox import Outbox
from dislocate.core.store.backup import check_group, read_header, restore_chunks
from dislocate.core.store.messages import BackupPart, BackupSlice
from dislocate.core.store.router import Router

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
            chunks = deque(restore_chunks(request.data, stream()))
            if not request.force and group is not None:
                check_group(read_header(request.data), group)
        except LocalError as error:
            self._out.reply(request_id, refused(error))
            return
        self._under_way[request_id] = None

        def go_on(result: Result | BackupSlice) -> None:
            if request_id not in self._under_way or isinstance(result, BackupSlice):
                return
            if isinstance(result, Done) and chunks:
                self._router.ask(chunks.popleft(), go_on)
            elif isinstance(result, Uncertain) and chunks:
                words = f"nothing was restored: {result.reason}"
                self._answer(request_id, Refused("unavailable", "store", words))
            else:
                self._answer(request_id, result)

        self._router.ask(chunks.popleft(), go_on)
