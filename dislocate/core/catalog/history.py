"""History: the last things that happened to each node, service and instance, with cause and observers.  (Skeleton.)"""

from dislocate.core.boundary.views import HistoryEntry


class History:
    """Bounded per subject and in subjects."""

    def of(self, subject: str) -> tuple[HistoryEntry, ...]:
        """Oldest first."""
        return ()
