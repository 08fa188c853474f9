"""Changes: the history that watches are answered from.

Invariant: all changes after `floor` are here, in order, and whoever asks for changes after something older is told so
(`Compacted`) and never given a part: etcd#18089, #19179 and #17529 all lost events around a compaction.  Revisions are
forgotten whole.  The history is bounded in count, bytes and age; how far it reaches back is local to a server, is in no
record and in no digest, and begins anew after a restart.  Does not know who waits: see `watching`.
"""

from bisect import bisect_right
from collections.abc import Sequence
from operator import attrgetter

from dislocate.core.boundary.store import Compacted, KeyChange
from dislocate.core.tunables import CHANGES_AGE, CHANGES_BYTES, CHANGES_KEPT

_revision = attrgetter("revision")
_CHANGE_COST = 200  # bytes of the structs and numbers that one change keeps alive
_MARKS = 60  # instants remembered: age is told to a sixtieth


def cost(change: KeyChange) -> int:
    """Bytes that a change keeps in memory, roughly; equal everywhere."""
    return _CHANGE_COST + (len(change.now.value) if change.now is not None else 0)


class ChangeHistory:
    """The last changes of all keys."""

    def __init__(self, floor: int, limit: int = CHANGES_KEPT, limit_bytes: int = CHANGES_BYTES) -> None:
        self.floor = floor  # the last revision that is forgotten
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._changes: list[KeyChange] = []
        self._first = 0  # what is before it in the list is forgotten; cut off when it is half
        self._bytes = 0
        self._marks: list[tuple[int, int]] = []  # (instant, revision reached then)

    def __len__(self) -> int:
        return len(self._changes) - self._first

    def add(self, changes: Sequence[KeyChange]) -> None:
        """The changes of one revision, higher than all before."""
        self._changes.extend(changes)
        for change in changes:
            self._bytes += cost(change)
        if len(self._changes) - self._first > self._limit or self._bytes > self._limit_bytes:
            self._shrink(self._limit, self._limit_bytes)

    def after(self, key: str, prefix: bool, revision: int) -> tuple[KeyChange, ...] | Compacted:
        """The changes of a key, or of all that begin with it, after `revision`."""
        if revision < self.floor:
            return Compacted(self.floor)
        start = bisect_right(self._changes, revision, self._first, key=_revision)
        later = self._changes[start:]
        if prefix:
            return tuple([change for change in later if change.key.startswith(key)])
        return tuple([change for change in later if change.key == key])

    def keep(self, count: int) -> None:
        """Forget the oldest changes until at most `count` are left."""
        self._shrink(count, self._limit_bytes)

    def forget_to(self, revision: int) -> None:
        """Forget all changes up to `revision`."""
        if revision > self.floor:
            self._drop(bisect_right(self._changes, revision, self._first, key=_revision))
            self.floor = revision

    def age_out(self, now: int, revision: int) -> None:
        """It is `now` (monotonic, local) and the store is at `revision`: forget what is older than `CHANGES_AGE`."""
        old = 0
        for instant, reached in self._marks:
            if now - instant < CHANGES_AGE:
                break
            self.forget_to(reached)
            old += 1
        del self._marks[:old]
        if not self._marks or now - self._marks[-1][0] >= CHANGES_AGE // _MARKS:
            self._marks.append((now, revision))

    def _shrink(self, count: int, limit_bytes: int) -> None:
        first, size, left = self._first, self._bytes, len(self)
        while left and (left > count or size > limit_bytes):
            size -= cost(self._changes[first])
            first += 1
            left -= 1
        if first > self._first:
            self.forget_to(self._changes[first - 1].revision)

    def _drop(self, first: int) -> None:
        self._bytes -= sum(cost(change) for change in self._changes[self._first : first])
        self._first = first
        if self._first * 2 > len(self._changes):
            del self._changes[: self._first]
            self._first = 0
