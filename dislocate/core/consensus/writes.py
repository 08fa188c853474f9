"""Writes: what an agent is to remember of its group, on the way to its disk, and what follows once it is there.

Invariant: writes are made durable in the order in which they were made: while one waits for space, so do all later ones.
Does not know what the records mean (`promises`).
"""

from dislocate.core.boundary.values import StoredRecord
from dislocate.core.consensus.founding_duties import Admitted, Founded, Joined, Write


class Writes:
    """Those of one agent."""

    def __init__(self) -> None:
        self.failure = ""  # why nobody knows what is on the disk now
        self._ticket = 0  # of the last one
        self._new: list[Write] = []
        self._unstored: list[Write] = []  # for want of space; what is written later waits behind it
        self._awaiting: dict[int, Write] = {}
        self._then: dict[int, tuple[Joined | Founded | Admitted, ...]] = {}

    @property
    def lack_space(self) -> bool:
        """Whether some wait for space."""
        return bool(self._unstored)

    def is_awaited(self, key: str) -> bool:
        """Whether a record under `key` is not durable yet."""
        return any(one.key == key for write in self._awaiting.values() for one in write.records)

    def add(
        self,
        records: tuple[StoredRecord, ...],
        happened: tuple[Joined | Founded | Admitted, ...] = (),
        *,
        drops_store: bool = False,
    ) -> None:
        """`happened`: what will have happened when they are durable."""
        self._ticket += 1
        write = Write(self._ticket, records, drops_store)
        self._awaiting[self._ticket] = write
        if happened:
            self._then[self._ticket] = happened
        (self._unstored or self._new).append(write)

    def stored(self, ticket: int) -> tuple[tuple[StoredRecord, ...], tuple[Joined | Founded | Admitted, ...]]:
        """The records that are durable now, and what happened by that."""
        return self._awaiting.pop(ticket).records, self._then.pop(ticket, ())

    def failed(self, ticket: int, reason: str) -> None:
        """A full disk ('full: ...') kept nothing of it; otherwise it is not known what was kept."""
        if reason.startswith("full"):
            self._unstored.append(self._awaiting[ticket])
        else:
            self.failure = reason

    def try_again(self) -> None:
        """Those that found no space."""
        self._new += self._unstored
        self._unstored = []

    def take(self) -> tuple[Write, ...]:
        """Those that are to be carried out now."""
        new, self._new = self._new, []
        return tuple(new)
