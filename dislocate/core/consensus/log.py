"""The log in memory: entries after the compaction point, which of them are durable, and the configurations among them.

    compacted <= stable <= handed <= last_index
    entries up to `compacted` are only in the applied state; up to `stable` they are on disk for good; up to `handed`
    they have been given to the disk; those after it wait for the next save

Invariant: `stable` never covers an entry that a save under way is to replace.  An entry may leave the log and come back
with the same index and term while the disk still works on all three saves; the first one's acknowledgement then says
nothing about what will be there after the third (etcd's "append ABA race").  Hence truncation takes their claims from
the saves under way.

A configuration counts from the moment its entry is in the log, committed or not (Raft paper, section 6), and is gone
when that entry is.  Does not know terms of servers, nor who has which entries.
"""

from collections import deque
from collections.abc import Sequence

from dislocate.core.consensus.messages import Configuration, Entry
from dislocate.core.errors import require

ENTRY_OVERHEAD = 24  # bytes that an entry costs in a message besides its data, at most, without a configuration


def size_of(entry: Entry) -> int:
    """Bytes that `entry` counts for in limits."""
    if entry.configuration is None:
        return len(entry.data) + ENTRY_OVERHEAD
    configuration = entry.configuration
    servers = len(configuration.voters) + len(configuration.outgoing) + len(configuration.learners)
    return ENTRY_OVERHEAD + 150 * servers


class Log:
    """One server's entries."""

    def __init__(
        self, compacted: int, compacted_term: int, configuration: Configuration, entries: Sequence[Entry]
    ) -> None:
        self.compacted = compacted
        self.compacted_term = compacted_term
        self._entries = list(entries)
        require(
            all(entry.index == compacted + 1 + at for at, entry in enumerate(entries)), "restored entries have a gap"
        )
        self._configurations = [(compacted, configuration)]
        self._configurations += [(e.index, e.configuration) for e in entries if e.configuration is not None]
        self.configuration_index, self.configuration = self._configurations[-1]
        self.last_index = compacted + len(self._entries)
        self.last_term = self._entries[-1].term if self._entries else compacted_term
        self.stable = self.handed = self.last_index
        self._on_disk = self.last_index  # the last entry that is or will be there, of those given to the disk
        self._drop_from = 0
        self._under_way: deque[list[int]] = deque()  # [ticket, the last index that its save makes stable]

    # ---- looking

    def term_of(self, index: int) -> int | None:
        """The term of the entry at `index`; None when it is compacted or was never here."""
        at = index - self.compacted
        if 0 < at <= len(self._entries):
            return self._entries[at - 1].term
        return self.compacted_term if at == 0 else None

    def between(self, first: int, last: int) -> tuple[Entry, ...]:
        """The entries `first` to `last`, both included."""
        return tuple(self._entries[first - self.compacted - 1 : last - self.compacted])

    def batch(self, first: int, last: int, budget: int) -> tuple[tuple[Entry, ...], int]:
        """Entries from `first` on, up to `last`, that together stay within `budget` bytes, but at least one; their size."""
        start = first - self.compacted - 1
        stop, size = start, 0
        end = last - self.compacted
        entries = self._entries
        while stop < end:
            grown = size + size_of(entries[stop])
            if grown > budget and stop > start:
                break
            stop, size = stop + 1, grown
        return tuple(entries[start:stop]), size

    def size_after(self, index: int) -> int:
        """Bytes of all entries after `index`."""
        return sum(size_of(entry) for entry in self._entries[index - self.compacted :])

    def agrees_at_or_before(self, index: int, term: int) -> int:
        """The last index <= `index` whose term is <= `term`: where two logs may still agree (Raft paper, 5.3, the
        optimization); at least `compacted`."""
        at = min(index, self.last_index) - self.compacted
        while at > 0 and self._entries[at - 1].term > term:
            at -= 1
        return self.compacted + max(0, at)

    def configuration_at(self, index: int) -> Configuration:
        """The configuration as of `index`, which is not compacted."""
        return next(found for since, found in reversed(self._configurations) if since <= index)

    def configurations_between(self, after: int, last: int) -> list[tuple[int, Configuration]]:
        """(index, configuration) of those that came after `after`, up to `last`."""
        return [(index, found) for index, found in self._configurations if after < index <= last]

    # ---- growing

    def append(self, entry: Entry) -> None:
        require(entry.index == self.last_index + 1, "an entry leaves a gap")
        self._entries.append(entry)
        self.last_index, self.last_term = entry.index, entry.term
        if entry.configuration is not None:
            self._configurations.append((entry.index, entry.configuration))
            self.configuration_index, self.configuration = self._configurations[-1]

    def merge(self, prev_index: int, prev_term: int, entries: tuple[Entry, ...], committed: int) -> int | None:
        """Take what a leader sent.  The last index up to which the log agrees with the leader's now; None: it does not
        have (prev_index, prev_term).

        What matches already is never touched: an append that comes late must not take away what a later one brought.
        """
        last = prev_index + len(entries)
        if prev_index < self.compacted:
            if last <= self.compacted:
                return last
            entries = entries[self.compacted - prev_index :]
        elif self.term_of(prev_index) != prev_term:
            return None
        for at, entry in enumerate(entries):
            if entry.index > self.last_index or self.term_of(entry.index) != entry.term:
                if entry.index <= self.last_index:
                    require(entry.index > committed, f"the leader contradicts entry {entry.index}, which is committed")
                    self.truncate(entry.index)
                for new in entries[at:]:
                    self.append(new)
                break
        return last

    def truncate(self, first: int) -> None:
        """Forget the entries from `first` on: another leader has others."""
        del self._entries[first - self.compacted - 1 :]
        self.last_index = first - 1
        self.last_term = self._entries[-1].term if self._entries else self.compacted_term
        while self._configurations[-1][0] >= first:
            self._configurations.pop()
        self.configuration_index, self.configuration = self._configurations[-1]
        if first <= self._on_disk:
            self._drop_from = min(self._drop_from or first, first)
        self.handed = min(self.handed, first - 1)
        self.stable = min(self.stable, first - 1)
        self._forget_claims(first)

    def _forget_claims(self, first: int) -> None:
        """What the saves under way write from `first` on will be replaced: their acknowledgement is none for it."""
        for claim in self._under_way:
            claim[1] = min(claim[1], first - 1)

    # ---- the disk

    def has_unsaved(self, last: int) -> bool:
        """Whether a save up to `last` has anything to do."""
        return last > self.handed or self._drop_from > 0

    def hand_over(self, ticket: int, last: int) -> tuple[int, int, tuple[Entry, ...]]:
        """(drop_from, drop_to, entries) of the save `ticket`, which brings the disk up to `last`."""
        entries = self.between(self.handed + 1, last)
        drop_from, drop_to = self._drop_from, self._on_disk if self._drop_from else 0
        self._under_way.append([ticket, last])
        self.handed = self._on_disk = last
        self._drop_from = 0
        return drop_from, drop_to, entries

    def stored(self, ticket: int) -> None:
        """The save `ticket`, and all before it, are durable."""
        while self._under_way and self._under_way[0][0] <= ticket:
            self.stable = max(self.stable, self._under_way.popleft()[1])

    # ---- shrinking

    def compact(self, index: int) -> None:
        """Forget the entries up to `index`: a durable applied state stands for them."""
        index = min(index, self.stable)
        if index <= self.compacted:
            return
        term = self.term_of(index)
        require(term is not None, f"compaction at {index}, beyond the log")
        self._configurations = [
            (index, self.configuration_at(index)),
            *((since, found) for since, found in self._configurations if since > index),
        ]
        self.configuration_index = self._configurations[-1][0]
        del self._entries[: index - self.compacted]
        self.compacted, self.compacted_term = index, term or 0

    def restore(self, index: int, term: int, configuration: Configuration) -> None:
        """A snapshot took the place of everything, in memory and on disk."""
        self._entries.clear()
        self._under_way.clear()
        self.compacted = self.last_index = self.stable = self.handed = self._on_disk = index
        self.compacted_term = self.last_term = term
        self._drop_from = 0
        self._configurations = [(index, configuration)]
        self.configuration_index, self.configuration = index, configuration
