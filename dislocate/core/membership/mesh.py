"""The mesh: which links to other data centers a relay dials, keeps and closes.

Only relays dial, but every agent accepts, because views of who is a relay may differ for a while.  Of two that want each
other the smaller path dials, so that one link comes of it; the larger dials too when none came.  While a data center is
dark, members that are no relays are knocked at with `Hello` datagrams and dialled too, and whatever is heard from there
ends the waiting: backoff spares a network that is down, and must not outlast it.

Invariant: what is remembered is bounded by the relays of the others, the links that they opened, and one knock at a time.
"""

from dislocate.core.identity import NodeId, Path
from dislocate.core.membership.members import Member, Members
from dislocate.core.membership.messages import Hello
from dislocate.core.membership.peer import CLOSED, OPEN, WanPeer
from dislocate.core.membership.relays import Relays
from dislocate.core.outbox import Outbox
from dislocate.core.streams import Stream
from dislocate.core.tunables import UNREACHABLE_FLOOR
from dislocate.core.units import SECOND

YIELD_TO_SMALLER = 5 * SECOND  # the smaller path dials; the larger one too when no link came within this
DARK_AFTER = 5 * SECOND  # without a link to a data center, before members that are no relays are dialled
KNOCK_PERIOD = 2 * SECOND  # six relays knock at each other: after a heal somebody is heard within a second
LINK_GRACE = 30 * SECOND  # a link that nobody needs any more is kept for so long, until views agree
OWNER = "mesh"


class Mesh:
    """The links of one agent to other data centers."""

    def __init__(self, path: Path, stream: Stream, out: Outbox, members: Members, relays: Relays) -> None:
        self.peers: dict[Path, WanPeer] = {}
        self.heard_at: dict[str, int] = {}  # any datagram or message from that data center
        self._path = path
        self._own = path.partition("/")[0]
        self._stream = stream
        self._out = out
        self._members = members
        self._relays = relays
        self._is_relay = False
        self._dark: dict[str, int] = {}  # data centers without a link, and since when
        self._knocked: dict[str, int] = {}  # and when to knock there next

    def heard(self, sender: NodeId) -> None:
        """Anything at all came from an agent of another data center."""
        now, datacenter = self._out.now, sender.datacenter
        self.heard_at[datacenter] = now
        if datacenter not in self._dark:
            return
        for path, peer in self.peers.items():
            if peer.node.datacenter == datacenter:
                peer.next_dial = min(peer.next_dial, now + (0 if self._path < path else KNOCK_PERIOD))

    def opened(self, node: NodeId) -> WanPeer:
        """A link to `node`, dialled by either side, is there."""
        peer = self.peers.get(node.path)
        if peer is None or peer.node.boot < node.boot:
            peer = self.peers[node.path] = WanPeer(node, self._out.now)
        peer.opened(self._out.now)
        self._dark.pop(node.datacenter, None)
        return peer

    def lost(self, node: NodeId) -> None:
        """The link to `node` ended, or could not be made."""
        peer = self.peers.get(node.path)
        if peer is not None and peer.node == node and peer.state is not CLOSED:
            self._closed(peer)

    def tend(self, is_relay: bool) -> None:
        """Once a second."""
        self._is_relay = is_relay
        self._tend_links()
        if is_relay:
            self._dial_relays()

    def _closed(self, peer: WanPeer) -> None:
        peer.closed(self._out.now, 0 if self._path < peer.node.path else YIELD_TO_SMALLER, self._stream)

    def _tend_links(self) -> None:
        """Give up what is stuck, close what nobody needs, forget what is over."""
        now = self._out.now
        for path, peer in list(self.peers.items()):
            age = now - peer.changed_at
            if peer.state is not CLOSED and age >= UNREACHABLE_FLOOR and not peer.is_heard(now):
                self._out.reset_link(peer.node)
                self._closed(peer)
            elif peer.state is OPEN and age >= LINK_GRACE and not self._is_needed(peer):
                self._out.close_link(peer.node, owner=OWNER)
                self._closed(peer)
            elif peer.state is CLOSED and not peer.is_heard(now) and not self._is_wanted(peer):
                del self.peers[path]

    def _is_wanted(self, peer: WanPeer) -> bool:
        return self._is_relay and peer.node.path in self._relays.of(peer.node.datacenter)

    def _is_needed(self, peer: WanPeer) -> bool:
        """Between relays always; with one relay at an end only while that relay has no better; else not."""
        datacenter = peer.node.datacenter
        relays = self._relays.of(datacenter)
        if not self._is_relay or peer.node.path in relays:
            return peer.node.path in relays
        others = (self.peers.get(path) for path in relays)
        return not any(other is not None and other.carries_facts(self._out.now) for other in others)

    def _dial_relays(self) -> None:
        now = self._out.now
        linked = {peer.node.datacenter for peer in self.peers.values() if peer.state is OPEN}
        for datacenter in self._members.datacenters():
            if datacenter == self._own:
                continue
            for member in self._relays_in(datacenter):
                self._want(member)
            if datacenter in linked:
                self._dark.pop(datacenter, None)
            else:
                self._knock(datacenter, now - self._dark.setdefault(datacenter, now))

    def _relays_in(self, datacenter: str) -> list[Member]:
        known = (self._members.get(path) for path in self._relays.of(datacenter))
        return [member for member in known if member is not None]

    def _want(self, member: Member) -> None:
        """Have a link to `member`, or dial one when it is time."""
        now, peer = self._out.now, self.peers.get(member.path)
        if peer is None or peer.node.boot < member.node.boot:
            if peer is not None and peer.state is not CLOSED:
                self._out.close_link(peer.node, owner=OWNER)
            peer = self.peers[member.path] = WanPeer(member.node, now)
            if self._path > member.path:
                peer.next_dial = now + YIELD_TO_SMALLER
                self._greet(member, wants_contacts=False)  # so that it knows whom to dial
        if peer.state is CLOSED and now >= peer.next_dial:
            self._greet(member, wants_contacts=False)
            self._out.open_link(member.node, member.record.wan_links, member.record.public_key, owner=OWNER)
            peer.dialled(now)

    def _knock(self, datacenter: str, dark_for: int) -> None:
        """No link to `datacenter`: ask some member there for a way in, and dial it when relays stay away."""
        now = self._out.now
        if now < self._knocked.get(datacenter, 0):
            return
        self._knocked[datacenter] = now + KNOCK_PERIOD
        relays = self._relays_in(datacenter)
        if relays and dark_for < DARK_AFTER:
            self._greet(self._stream.choice(relays), wants_contacts=True)
            return
        stray = self._stream.choice(list(self._members.of(datacenter).values()))
        self._greet(stray, wants_contacts=True)
        if stray.is_living:
            self._want(stray)

    def _greet(self, member: Member, *, wants_contacts: bool) -> None:
        """Rumours of this data center do not ride along: some of them must not leave it."""
        me = self._members.get(self._path)
        if me is not None:
            self._out.send_facts(member.record.wan_gossip, Hello(me.record, wants_contacts), ())
