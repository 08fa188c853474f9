"""History: the last things that happened to each node, service and instance, with cause and observers.

Invariant: at most `HISTORY_PER_SUBJECT` entries of at most `HISTORY_SUBJECTS` subjects; the subject untouched for longest
goes first.  Asked for since consul#965 (2015): "why did it disappear, and who says so?"
"""

from collections.abc import Callable

from dislocate.core.boundary.views import HistoryEntry
from dislocate.core.identity import Path
from dislocate.core.tunables import HISTORY_PER_SUBJECT, HISTORY_SUBJECTS


class History:
    """Bounded per subject and in subjects."""

    def __init__(self, unix: Callable[[], int]) -> None:
        self._unix = unix
        # Least recently touched first.  Tuples: most subjects have one entry or two, and every node keeps thousands.
        self._entries: dict[str, tuple[HistoryEntry, ...]] = {}

    def record(self, subject: str, what: str, why: str, observers: tuple[Path, ...] = ()) -> None:
        """`what` happened to `subject`: 'dc/name', a service, or 'dc/name/instance'."""
        entries = self._entries.pop(subject, ())
        if not entries and len(self._entries) >= HISTORY_SUBJECTS:
            del self._entries[next(iter(self._entries))]
        entry = HistoryEntry(subject=subject, at=self._unix(), what=what, why=why, observers=observers)
        self._entries[subject] = (*entries[1 - HISTORY_PER_SUBJECT :], entry)

    def of(self, subject: str) -> tuple[HistoryEntry, ...]:
        """Oldest first; empty when nothing is remembered."""
        return self._entries.get(subject, ())
