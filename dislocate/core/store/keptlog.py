"""The log that a server keeps on its disk: from where to where it goes, what of it may be dropped, and who the servers were.

    base <= applied <= end        entries up to `base` are only in the applied state; those to `end` were given to the disk

Invariant: what is named by `keys` is all of the log that the disk may have, also while a write is under way.  Entries that
are applied are kept for followers that are a little behind, up to a count and a size; dropping some has its price too, so it
is done seldom and many at once.  What somebody is known to need, above all who takes a snapshot and goes on from there, is
kept longer, up to what a whole store weighs: from there on another snapshot costs no more than the log.
"""

from collections import deque
from collections.abc import Iterator

from dislocate.core.consensus.duties import Save, Snapshot
from dislocate.core.consensus.messages import Configuration, Entry
from dislocate.core.consensus.promises import log_key
from dislocate.core.store.durable import NO_BASE, Base, Found, base_record, records_of
from dislocate.core.tunables import LOG_HELD, LOG_HELD_BYTES, LOG_KEPT, LOG_KEPT_BYTES

LOG_SLACK = 1_000  # entries more than LOG_KEPT before some are dropped, and how many at once


class KeptLog:
    """What one server knows of its log on the disk."""

    def __init__(self, found: Found | None) -> None:
        self.base = found.base if found else NO_BASE
        self._base_on_disk = self.base.index  # the log on the disk may begin here
        self._end = self.base.index + (len(found.entries) if found else 0)
        self._configurations: deque[tuple[int, Configuration]] = deque([(self.base.index, self.base.configuration)])
        self._applied: deque[tuple[int, int, int]] = deque()  # (index, term, bytes) of those kept
        self._bytes = 0
        for entry in found.entries if found else ():
            if found is not None and entry.index <= found.applied.index:
                self.remember(entry)

    def remember(self, entry: Entry) -> None:
        """`entry` was applied."""
        if entry.configuration is not None:
            self._configurations.append((entry.index, entry.configuration))
        size = len(entry.data)
        self._applied.append((entry.index, entry.term, size))
        self._bytes += size

    def configuration_at(self, index: int) -> Configuration:
        """The configuration as of an applied index, which is not below the base."""
        return next(one for at, one in reversed(self._configurations) if at <= index)

    def keys(self) -> Iterator[str]:
        """Of all entries that the disk may have."""
        return map(log_key, range(self._base_on_disk + 1, self._end + 1))

    # ---- what is written

    def saved(self, save: Save) -> dict[str, bytes | None]:
        """What `save` changes."""
        if save.entries:
            self._end = save.entries[-1].index
        elif save.drop_from:
            self._end = save.drop_from - 1
        return records_of(save)

    @property
    def is_long(self) -> bool:
        """Whether it is worth it to drop some."""
        return len(self._applied) > LOG_KEPT + LOG_SLACK or self._bytes > LOG_KEPT_BYTES

    def shortened(self, saved: int, needed_after: int) -> tuple[int, dict[str, bytes | None]]:
        """(up to where some of the log may be dropped, what that changes), once the state as of entry `saved` is on the
        disk; (0, nothing) when that is nowhere.  Somebody needs what is after `needed_after`."""
        changes: dict[str, bytes | None] = {}
        index = term = 0
        for _ in range(LOG_SLACK):
            is_enough = len(self._applied) <= LOG_KEPT and self._bytes <= LOG_KEPT_BYTES // 2
            is_needed = self._applied[0][0] > needed_after and not self._is_too_long
            if is_enough or is_needed or self._applied[0][0] > saved:
                break
            index, term, size = self._applied.popleft()
            self._bytes -= size
            changes[log_key(index)] = None
        if not index:
            return 0, {}
        configuration = self.configuration_at(index)
        while len(self._configurations) > 1 and self._configurations[1][0] <= index:
            self._configurations.popleft()
        self.base = Base(index, term, configuration)
        base = base_record(self.base)
        changes[base.key] = base.value
        return index, changes

    @property
    def _is_too_long(self) -> bool:
        return len(self._applied) > LOG_HELD or self._bytes > LOG_HELD_BYTES

    def replaced(self, snapshot: Snapshot) -> dict[str, bytes | None]:
        """A snapshot takes the place of all of it: what that changes."""
        changes: dict[str, bytes | None] = dict.fromkeys(map(log_key, range(self.base.index + 1, self._end + 1)))
        self.base = Base(snapshot.index, snapshot.term, snapshot.configuration)
        self._configurations = deque([(snapshot.index, snapshot.configuration)])
        self._applied.clear()
        self._bytes = 0
        self._end = snapshot.index
        base = base_record(self.base)
        changes[base.key] = base.value
        return changes

    def stored(self, base: int) -> None:
        """A write is durable that was made when the base was this one."""
        self._base_on_disk = base
