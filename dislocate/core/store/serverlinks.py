"""Links for the store: servers hold one to each other, agents that are no servers to the nearest of them.

Of two servers the one with the smaller path dials, the other one too when no link came; a dial that failed is repeated, ever
more slowly, and at once when the other is heard of.  Whoever is linked is claimed, so that the ring and the relays of
membership do not close it; so is who says on its link that it needs one (`claim`).

Invariant: to one path at most one link counts, that to its newest start, and at most one timer waits to dial it.
"""

from collections.abc import Callable
from typing import Any

from dislocate.core.identity import NodeId, Path
from dislocate.core.membership.dialling import dial
from dislocate.core.membership.members import Member, Members
from dislocate.core.outbox import Outbox, Timer
from dislocate.core.streams import Stream
from dislocate.core.units import MILLISECOND, SECOND

YIELD_TO_SMALLER = 1 * SECOND
RETRY_FIRST = 200 * MILLISECOND
RETRY_MAX = 5 * SECOND
MANY = 3  # dials without success, after which one waits for seconds
OWNER = "store"


class ServerLinkDue(Timer, frozen=True):
    """Time to dial, if the link is wanted and missing."""

    path: Path
    number: int  # outdated when another one was armed for the path since


class ServerLinks:
    """The links that one agent holds for the store."""

    def __init__(self, path: Path, out: Outbox, members: Members, stream: Stream) -> None:
        self._path = path
        self._out = out
        self._members = members
        self._stream = stream
        self._wanted: dict[Path, bool] = {}  # path: whether the other side wants it too
        self._open: dict[Path, NodeId] = {}
        self._attempts: dict[Path, int] = {}
        self._armed: dict[Path, int] = {}  # the timer that counts
        self._timer = 0

    def timers(self) -> dict[type, Callable[[Any], None]]:
        return {ServerLinkDue: self._due}

    def want(self, paths: dict[Path, None], *, mutual: bool) -> None:
        """Hold links to `paths` and to no others; `mutual`: they will want one to us as well."""
        for path in [path for path in self._wanted if path not in paths]:
            del self._wanted[path]
            self._attempts.pop(path, None)
            self._armed.pop(path, None)
            node = self._open.get(path)
            if node is not None:
                self._out.close_link(node, owner=OWNER)
        for path in paths:
            if path == self._path:
                continue
            is_new = path not in self._wanted
            self._wanted[path] = mutual
            node = self._open.get(path)
            if node is not None:
                self._out.claim_link(node, OWNER)
            elif is_new:
                self._schedule(path, 0, YIELD_TO_SMALLER if mutual and self._path > path else 0)

    def is_open(self, path: Path) -> bool:
        return path in self._open

    def node(self, path: Path) -> NodeId | None:
        """Who is at the other end of the open link to `path`."""
        return self._open.get(path)

    def claim(self, node: NodeId) -> None:
        """Whoever is at the other end of this link needs it."""
        if self._open.get(node.path) == node:
            self._out.claim_link(node, OWNER)

    def opened(self, node: NodeId) -> None:
        """There is a link; one to another start of the same agent was `lost` before."""
        self._open[node.path] = node
        self._attempts.pop(node.path, None)
        self._armed.pop(node.path, None)
        if node.path in self._wanted:
            self._out.claim_link(node, OWNER)
        for path in [path for path in self._wanted if path not in self._open]:
            if self._attempts.get(path, 0) >= MANY:  # whatever was cut between us may be healed for all
                self._schedule(path, MANY - 1, RETRY_FIRST + self._stream.below(RETRY_FIRST))

    def lost(self, node: NodeId) -> bool:
        """The link ended, or could not be made; whether it was open."""
        was_open = self._open.get(node.path) == node
        if was_open:
            del self._open[node.path]
        if node.path in self._wanted and node.path not in self._open:
            attempt = self._attempts.get(node.path, -1) + 1
            wait = min(RETRY_MAX, RETRY_FIRST << min(attempt, 10))
            self._schedule(node.path, attempt, wait + self._stream.below(wait))
        return was_open

    def member_changed(self, member: Member) -> None:
        """A new start of a wanted server, or one that lives again: do not wait."""
        if member.path in self._wanted and member.path not in self._open and member.is_living:
            self._schedule(member.path, 0, RETRY_FIRST if self._path < member.path else 2 * RETRY_FIRST)

    def _schedule(self, path: Path, attempt: int, wait: int) -> None:
        self._attempts[path] = attempt
        self._timer += 1
        self._armed[path] = self._timer
        self._out.arm(self._out.now + wait, ServerLinkDue(path, self._timer))

    def _due(self, timer: ServerLinkDue) -> None:
        path = timer.path
        if self._armed.get(path) != timer.number or path not in self._wanted or path in self._open:
            return
        attempt = self._attempts[path]
        member = self._members.get(path)
        if member is not None and member.is_living:
            dial(self._out, self._members, member, owner=OWNER)
        wait = min(RETRY_MAX, RETRY_FIRST << min(attempt + 2, 10))
        self._schedule(path, attempt + 1, wait + self._stream.below(wait))
