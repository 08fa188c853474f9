"""Waiting: watches that a server holds until there is something to say.

Whoever waits has been told everything up to the revision that it waits from, so the changes of the batch that wakes it are
all that it missed: a history that is compacted meanwhile takes nothing from it.  Who waits from a revision that this server
has not come to yet is not told of what is before it: a watch never goes back.
"""

from collections.abc import Callable
from typing import TypeAlias

from dislocate.core.boundary.store import Compacted, KeyChange, KeysChanged, WatchKeys
from dislocate.core.identity import NodeId, Path
from dislocate.core.store.changes import cost
from dislocate.core.store.machine import StoreMachine
from dislocate.core.store.watching import Watchers
from dislocate.core.tunables import WATCH_ANSWER

Ticket: TypeAlias = tuple[NodeId, int]  # who asked, and the number of its asking
Then: TypeAlias = Callable[[KeysChanged | Compacted | None], None]  # None: not here any more, ask another server


class Waiting:
    """Who waits on this server for which changes."""

    def __init__(self) -> None:
        self._watchers: Watchers[Ticket] = Watchers()
        self._then: dict[Ticket, tuple[WatchKeys, Then]] = {}

    def watch(self, ticket: Ticket, request: WatchKeys, machine: StoreMachine, then: Then) -> None:
        """Answer now, when there is something after `request.after`, or with the next change."""
        found = machine.changes_after(request.key, request.prefix, request.after)
        if isinstance(found, Compacted):
            then(found)
        elif found:
            then(_told(found, machine.revision))
        else:
            self._watchers.add(ticket, request.key, request.prefix)
            self._then[ticket] = (request, then)

    def changed(self, changes: list[KeyChange], machine: StoreMachine) -> None:
        """Wake those whom `changes` concern.

        Who waits from a revision that this server has not reached yet knows what comes up to there from another one."""
        for ticket in self._watchers.concerned(changes):
            request, _ = self._then[ticket]
            seen = tuple(change for change in changes if _concerns(change, request) and change.revision > request.after)
            if seen:
                _, then = self._take(ticket)
                then(_told(seen, machine.revision))

    def replaced(self, machine: StoreMachine) -> None:
        """The state was replaced by a snapshot: what happened in between is not known here."""
        for ticket in self._watchers.everyone():
            request, then = self._take(ticket)
            self.watch(ticket, request, machine, then)

    def cancel(self, ticket: Ticket) -> None:
        if ticket in self._then:
            self._take(ticket)

    def forget(self, path: Path) -> None:
        """Nobody waits at `path` any more."""
        for ticket in [ticket for ticket in self._then if ticket[0].path == path]:
            self._take(ticket)

    def end(self) -> None:
        """This server takes no part any more: whoever waits here is to wait elsewhere."""
        for ticket in self._watchers.everyone():
            _, then = self._take(ticket)
            then(None)

    def holds(self, path: Path) -> bool:
        """Whether anybody waits at `path`."""
        return any(ticket[0].path == path for ticket in self._then)

    def __len__(self) -> int:
        return len(self._then)

    def _take(self, ticket: Ticket) -> tuple[WatchKeys, Then]:
        self._watchers.remove(ticket)
        return self._then.pop(ticket)


def _told(changes: tuple[KeyChange, ...], revision: int) -> KeysChanged:
    """As many of the changes as one answer takes, whole revisions of them; who watches on hears the rest."""
    size = 0
    for at, change in enumerate(changes):
        if size > WATCH_ANSWER and change.revision > changes[at - 1].revision:
            return KeysChanged(changes[:at], changes[at - 1].revision)
        size += cost(change)
    return KeysChanged(changes, revision)


def _concerns(change: KeyChange, request: WatchKeys) -> bool:
    return change.key.startswith(request.key) if request.prefix else change.key == request.key
