"""Watching: who waits for which key or prefix.

Invariant: a change finds exactly those who wait for its key or for a prefix of it, at a cost that grows with the number of
different prefix lengths and not with the number of watchers: ten thousand agents that each wait for a key of their own cost
one look-up a change.  Knows nothing of revisions: what to answer is in `changes`.
"""

from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

from dislocate.core.boundary.store import KeyChange

Ticket = TypeVar("Ticket", bound=Hashable)  # whatever its owner knows a watcher by


class Watchers(Generic[Ticket]):
    """Watchers by what they wait for; each stays until it is removed."""

    def __init__(self) -> None:
        self._interests: dict[Ticket, tuple[str, bool]] = {}
        self._by_key: dict[str, dict[Ticket, None]] = {}
        self._by_prefix: dict[str, dict[Ticket, None]] = {}
        self._lengths: dict[int, int] = {}  # of how many different prefixes, by their length

    def __len__(self) -> int:
        return len(self._interests)

    def add(self, ticket: Ticket, key: str, prefix: bool) -> None:
        """`ticket` waits for `key`, or for all that begin with it; what it waited for before is forgotten."""
        self.remove(ticket)
        self._interests[ticket] = (key, prefix)
        if not prefix:
            self._by_key.setdefault(key, {})[ticket] = None
            return
        if key not in self._by_prefix:
            self._by_prefix[key] = {}
            self._lengths[len(key)] = self._lengths.get(len(key), 0) + 1
        self._by_prefix[key][ticket] = None

    def remove(self, ticket: Ticket) -> None:
        """`ticket` waits no more; one that does not wait is no mistake."""
        key, prefix = self._interests.pop(ticket, ("", False))
        waiting = (self._by_prefix if prefix else self._by_key).get(key)
        if waiting is None or ticket not in waiting:
            return
        del waiting[ticket]
        if waiting:
            return
        if not prefix:
            del self._by_key[key]
            return
        del self._by_prefix[key]
        self._lengths[len(key)] -= 1
        if not self._lengths[len(key)]:
            del self._lengths[len(key)]

    def interest(self, ticket: Ticket) -> tuple[str, bool]:
        """(key, prefix) that `ticket` waits for."""
        return self._interests[ticket]

    def concerned(self, changes: Iterable[KeyChange]) -> tuple[Ticket, ...]:
        """Who waits for one of these changes: each once, in the order of the changes."""
        if not self._interests:
            return ()
        found: dict[Ticket, None] = {}
        for change in changes:
            name = change.key
            found.update(self._by_key.get(name, {}))
            for length in self._lengths:
                if length <= len(name):
                    found.update(self._by_prefix.get(name[:length], {}))
        return tuple(found)

    def everyone(self) -> tuple[Ticket, ...]:
        """All who wait, in the order of coming: for a history that was compacted under them."""
        return tuple(self._interests)
