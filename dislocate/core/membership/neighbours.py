"""Ring neighbours: links that tell of a death at once, because the kernel closes them.

Each agent holds links to its three successors in the ring of its data center, ordered by the fingerprint of the path, so
that each is held by three.  Losing one is only a trigger: `refusal` finds out what it means.  A link that was lost while
the other lives is dialled again, ever more slowly.  Before dialling, a `Hello` makes sure that the other side knows our
key; its `Welcome` is what we dial on.

Links between data centers are not ours: they are `wan`'s.
"""

from bisect import bisect_left, insort
from collections.abc import Callable
from typing import Any

from dislocate.core.boundary.values import MemberState
from dislocate.core.catalog.ledger import fingerprint
from dislocate.core.identity import NodeId, Path
from dislocate.core.membership.beliefs import Beliefs
from dislocate.core.membership.members import Member, Members
from dislocate.core.membership.messages import Hello
from dislocate.core.outbox import Outbox, Timer
from dislocate.core.streams import Stream
from dislocate.core.tunables import LINK_NEIGHBOURS
from dislocate.core.units import MILLISECOND, SECOND

SETTLE = 100 * MILLISECOND  # after a change of the ring: a fleet that starts changes it a hundred times
RETRY_FIRST = 500 * MILLISECOND
RETRY_MAX = 30 * SECOND
OWNER = "ring"


class NeighboursDue(Timer, frozen=True):
    """The ring changed a moment ago."""


class LinkDue(Timer, frozen=True):
    """Time to dial again, if the link is still missing."""

    path: Path
    attempt: int


class Neighbours:
    """The links that this node holds in its data center."""

    def __init__(self, out: Outbox, members: Members, beliefs: Beliefs, stream: Stream, lost: Callable[[Member], None]):
        self._out = out
        self._members = members
        self._beliefs = beliefs
        self._stream = stream
        self._lost = lost
        self._place = (fingerprint(members.own), members.own)
        self._ring: list[tuple[int, Path]] = []  # living others, sorted
        self._at = 0  # where this node would stand among them
        self._wanted: dict[Path, None] = {}
        self._open: dict[Path, NodeId] = {}  # ready, dialled by either side
        self._dialled: dict[Path, NodeId] = {}  # asked for by us, ready or not
        self._attempts: dict[Path, int] = {}  # links wanted and not open
        self._due = False
        self._stopped = False

    def timers(self) -> dict[type, Callable[[Any], None]]:
        return {NeighboursDue: self._settle, LinkDue: self._retry}

    def stop(self) -> None:
        """This node leaves: links that end now tell nothing."""
        self._stopped = True

    @property
    def around(self) -> tuple[Path, ...]:
        """The successors and predecessors that are most likely to hold a link with this node."""
        count = min(len(self._ring), 2 * LINK_NEIGHBOURS)
        return tuple(self._ring[(self._at - LINK_NEIGHBOURS + i) % len(self._ring)][1] for i in range(count))

    def successor(self, distance: int) -> Path | None:
        """Who stands `distance` places after the next one in the ring, round and round; None when nobody is there."""
        if not self._ring:
            return None
        return self._ring[(self._at + distance) % len(self._ring)][1]

    def member_changed(self, member: Member, _before: MemberState | None) -> None:
        """Called after each change of another member of this data center."""
        entry = (fingerprint(member.path), member.path)
        at = bisect_left(self._ring, entry)
        is_there = at < len(self._ring) and self._ring[at] == entry
        if member.is_living and not is_there:
            insort(self._ring, entry)
        elif not member.is_living and is_there:
            del self._ring[at]
        elif not member.is_living or self._open.get(member.path, member.node) == member.node:
            return
        self._at = bisect_left(self._ring, self._place)
        if not self._due:
            self._due = True
            self._out.arm(self._out.now + SETTLE, NeighboursDue())

    def _settle(self, _timer: NeighboursDue) -> None:
        """Dial new successors, hang up on those that are none any more."""
        self._due = False
        count = min(len(self._ring), LINK_NEIGHBOURS)
        self._wanted = {self._ring[(self._at + i) % len(self._ring)][1]: None for i in range(count)}
        for path, peer in list(self._dialled.items()):
            member = self._members.get(path)
            if path not in self._wanted or member is None or member.node != peer:
                self._out.close_link(peer, owner=OWNER)
                self._hung_up(path)
        for path in self._wanted:
            if path not in self._open and path not in self._attempts:
                self._greet(path, 0)

    def _greet(self, path: Path, attempt: int) -> None:
        member = self._members.get(path)
        if self._stopped or member is None or not member.is_living:
            self._attempts.pop(path, None)
            return
        self._attempts[path] = attempt
        self._out.send(member.record.gossip, Hello(self._beliefs.record, False))
        wait = min(RETRY_MAX, RETRY_FIRST << min(attempt, 10))
        self._out.arm(self._out.now + wait + self._stream.below(wait // 4), LinkDue(path, attempt))

    def greeted(self, peer: NodeId) -> None:
        """`peer` knows us now: dial, if that is what we greeted it for."""
        member = self._members.get(peer.path)
        if peer.path in self._attempts and peer.path not in self._open and member is not None and member.node == peer:
            self._dialled[peer.path] = peer
            self._out.open_link(peer, member.record.links, member.record.public_key, owner=OWNER)

    def _retry(self, timer: LinkDue) -> None:
        if self._attempts.get(timer.path) != timer.attempt:
            return
        if timer.path in self._wanted and timer.path not in self._open:
            self._greet(timer.path, timer.attempt + 1)
        else:
            del self._attempts[timer.path]

    def link_opened(self, peer: NodeId) -> None:
        if self._beliefs.is_home(peer):
            self._open[peer.path] = peer
            self._attempts.pop(peer.path, None)

    def link_lost(self, peer: NodeId, _reason: str) -> None:
        """A link ended, or could not be opened: look closer, and dial again if the member lives on."""
        if not self._beliefs.is_home(peer) or self._open.get(peer.path, peer) != peer:
            return
        was_open = peer.path in self._open
        self._open.pop(peer.path, None)
        self._dialled.pop(peer.path, None)
        member = self._members.get(peer.path)
        if self._stopped or member is None or member.node != peer:
            return
        self._lost(member)
        if was_open and peer.path in self._wanted and peer.path not in self._attempts:
            self._attempts[peer.path] = 0
            self._out.arm(self._out.now + RETRY_FIRST + self._stream.below(RETRY_FIRST), LinkDue(peer.path, 0))

    def _hung_up(self, path: Path) -> None:
        self._open.pop(path, None)
        self._dialled.pop(path, None)
        self._attempts.pop(path, None)
