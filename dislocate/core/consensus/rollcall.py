"""Roll call: what the listed servers said of themselves, and so which set all of them would promise.

Invariant: there is at most one set at a time, all of the list, each server with the disk that it showed last, and only
while all have the same list and none has promised another set.  What a server says in a later start replaces what it said
before; evidence of a promise stays, since promises do not age.

Does not know what is durable here, nor whether there is a group already (`bootstrap`).
"""

from collections.abc import Sequence

from dislocate.core.consensus.messages import ServerId
from dislocate.core.consensus.troubles import Heard
from dislocate.core.identity import NodeId, Path


class RollCall:
    """Of the servers that one agent lists."""

    def __init__(self, me: Path, servers: tuple[Path, ...]) -> None:
        self.me = me
        self.servers = servers
        self._heard: dict[Path, Heard] = {}  # listed servers; and who lists this agent, which does not list itself
        self._evidence: dict[ServerId, tuple[ServerId, ...]] = {}  # what was promised by which disk

    @property
    def is_named(self) -> bool:
        """Whether somebody who was heard lists this agent."""
        return any(self.me in one.servers for one in self._heard.values())

    def shown(self, disk: int, promised: tuple[ServerId, ...]) -> dict[Path, Heard]:
        """What everybody said, and this agent, with `disk` and what it promised, beside them."""
        return {**self._heard, self.me: Heard(0, disk, self.servers, promised)}

    def hear(self, sender: NodeId, disk: int, servers: Sequence[Path], promised: tuple[ServerId, ...]) -> None:
        """`sender` lists `servers`, and has this disk (0: none that is durable) and promise."""
        is_listed = sender.path in self.servers or (self.me in servers and self.me not in self.servers)
        if not is_listed or sender.path == self.me or not disk:
            return
        if promised:
            self._evidence[ServerId(sender.path, disk)] = promised
        known = self._heard.get(sender.path)
        if known is not None and sender.boot < known.boot:
            return  # from before it was started last: its disk may have been another
        if known is not None and sender.boot == known.boot and not promised:
            promised = known.promised if disk == known.disk else ()
        self._heard[sender.path] = Heard(sender.boot, disk, tuple(sorted(dict.fromkeys(servers))), promised)

    def candidates(self, server: ServerId) -> tuple[ServerId, ...]:
        """The one set that all would promise, with `server` for this agent; empty while something is missing or differs."""
        others = [path for path in self.servers if path != self.me]
        heard = [self._heard[path] for path in others if path in self._heard]
        if len(heard) < len(others) or any(one.servers != self.servers for one in heard):
            return ()
        candidates = tuple(
            sorted([server, *(ServerId(path, one.disk) for path, one in zip(others, heard, strict=True))])
        )
        return candidates if all(one.promised in ((), candidates) for one in heard) else ()

    def is_promised(self, promised: tuple[ServerId, ...], server: ServerId) -> bool:
        """Whether all in that set are known to have promised it, beside `server`, which did."""
        return all(one == server or self._evidence.get(one) == promised for one in promised)
