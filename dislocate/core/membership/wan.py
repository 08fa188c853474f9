"""Between data centers: relays, their links, reachability.

Three relays of each data center hold links to the relays of every other one and speak a heartbeat a second on each.  From
that every relay judges what it reaches and tells its own data center; the others put those reports together (`reach`).

Invariants:
- Nothing that happens between data centers changes the state of a member: node death and data center unreachability are
  different facts.
- A link that is lost or closed says nothing: a data center becomes unreachable by silence (phi, and a floor) alone.

`mesh` dials and closes the links.  Who is no relay spends nothing here but a few dictionary look-ups a ping.
"""

from collections.abc import Callable
from typing import Any

from dislocate.core.boundary.events import RelayChanged
from dislocate.core.boundary.settings import Settings
from dislocate.core.boundary.values import MemberState, Refusal
from dislocate.core.boundary.views import DatacenterView
from dislocate.core.catalog.ledger import Ledger
from dislocate.core.coordinates import Coordinate, Coordinates, is_coordinate
from dislocate.core.identity import Address, NodeId, Path
from dislocate.core.membership.forwarding import Forwarding
from dislocate.core.membership.members import LIVING, Member, Members
from dislocate.core.membership.mesh import Mesh
from dislocate.core.membership.messages import Freshness, LinkHeartbeat, WanReport, WanRow
from dislocate.core.membership.peer import OPEN, WanPeer
from dislocate.core.membership.reach import Reach
from dislocate.core.membership.relays import Relays
from dislocate.core.membership.reporting import Reporting, is_material
from dislocate.core.outbox import Outbox, Timer
from dislocate.core.packing import ENVELOPE_ROOM, packed
from dislocate.core.streams import Streams
from dislocate.core.tunables import DATAGRAM_BUDGET, HEARTBEAT_PERIOD, UNREACHABLE_FLOOR, VIVALDI_ERROR
from dislocate.core.units import MILLISECOND
from dislocate.core.wire import Fact, encode_fact

FORWARD_DELAY = 100 * MILLISECOND  # facts wait for company; as much as a round trip between continents
COORDINATES_EVERY = 10  # heartbeats: those of third data centers move slowly


class WanTick(Timer, frozen=True):
    """A relay's second."""


class ForwardDue(Timer, frozen=True):
    """The batch has waited long enough."""


class HoldEnds(Timer, frozen=True):
    """The last verdict on `datacenter` may no longer rest on a relay that is gone."""

    datacenter: str


class Wan:
    """One node's view of the other data centers, and its duties when it is a relay."""

    def __init__(self, settings: Settings, streams: Streams, out: Outbox, members: Members, ledger: Ledger) -> None:
        self.is_relay = False
        # Told the digest of each heartbeat; the node sets it.
        self.compare: Callable[[NodeId, Address | None, int], None] = lambda _peer, _source, _digest: None
        # Told when a relay of this data center said something material; the node sets it.
        self.reported: Callable[[], None] = lambda: None
        self._node = settings.node
        self._path = settings.node.path
        self._own = settings.node.datacenter
        self._stream = streams["wan"]
        self._out = out
        self._members = members
        self._ledger = ledger
        self._reach = reach = Reach(out, members, self._own)
        self.freshness = reach.some_ages  # what a ping or ack tells of the age of other data centers
        self._relays = Relays(members)
        self._coordinates = Coordinates(streams["coordinates"])
        self._forwarding = Forwarding(self._own)
        self._mesh = Mesh(self._path, self._stream, out, members, self._relays)
        self._ticking = False
        self._ticks = 0
        self._third: dict[str, Coordinate] = {}  # coordinates of data centers that others have links to
        self._reporting = Reporting(settings.node, out, self._reach)

    def timers(self) -> dict[type, Callable[[Any], None]]:
        return {WanTick: self._tick, ForwardDue: self._forward_due, HoldEnds: self._hold_ended}

    def start(self) -> None:
        self._reach.started = self._out.now
        self._elect()

    # ---- answers

    def views(self) -> dict[str, DatacenterView]:
        """Every data center known, by name, sorted."""
        names = sorted({*self._members.datacenters(), self._own})
        return {name: self._view(name) for name in names}

    def _view(self, name: str) -> DatacenterView:
        reach, own = self._reach, name == self._own
        rows = reach.rows(name)
        measured = reach.measured_rtt(name)
        return DatacenterView(
            name=name,
            reachable=reach.is_reached(name),
            hears=own or any(row.heard for row in rows),
            rtt=0 if own else self.rtt(name),
            measured=own or measured is not None,
            members=self._members.living(name),
            as_of=reach.as_of(name),
            relays=self._relays.of(name),
            brake=self.brake(name),
        )

    def brake(self, datacenter: str) -> str:
        """Why removals are held in `datacenter`, as far as is known here; empty: they are not."""
        if datacenter == self._own:
            return self._members.brake
        return next((row.brake for row in self._reach.rows(datacenter) if row.brake), "")

    def is_reachable(self, datacenter: str) -> bool:
        """Whether any relay of this data center has a live link there.  False for one never heard of."""
        return self._reach.is_reached(datacenter)

    def as_of(self, datacenter: str) -> int:
        """When (local monotonic) the knowledge of `datacenter` was current."""
        return self._reach.as_of(datacenter)

    def rtt(self, datacenter: str) -> int | None:
        """Nanoseconds there and back, as measured or else estimated; None: neither is known."""
        return self._reach.measured_rtt(datacenter) or self._reach.estimated_rtt(datacenter)

    def relays(self, datacenter: str) -> tuple[Path, ...]:
        """Living relays, the first relay first."""
        return self._relays.of(datacenter)

    # ---- age, on pings and acks

    def learn_freshness(self, rows: tuple[Freshness, ...]) -> None:
        """What a member of this data center knows of the age of the others."""
        self._reach.learn(rows, self._out.arrived)

    # ---- members

    def member_changed(self, member: Member, before: MemberState | None) -> None:
        """A member of any data center appeared, died, left or came back."""
        self._relays.member_changed(member)
        if member.node.datacenter != self._own:
            return
        if not member.is_living:
            for datacenter in self._reach.relay_lost(member.path):
                self._hold(datacenter, f"relay {member.path} is gone")
        elif before is not None and before not in LIVING:
            for datacenter in self._reach.relay_back(member.path, member.node.boot):
                self._hold(datacenter, f"relay {member.path} is back")
        self._elect()
        if member.state is MemberState.ALIVE and member.path != self._path:
            self._brief([member])  # also one that was never missed: a restart forgets what its predecessor was told

    def _elect(self) -> None:
        """See whether this node is a relay now."""
        is_relay = self._path in self._relays.of(self._own)
        if is_relay is self.is_relay:
            return
        self.is_relay = is_relay
        self._out.notify(RelayChanged(is_relay))
        if is_relay:
            self._reporting.since = self._out.now
            self._keep_ticking()
        else:
            self._reporting.step_down()
            self._forwarding.clear()

    def _brief(self, members: list[Member]) -> None:
        """Tell a newcomer, or whose turn it is, what gossip told everybody before."""
        facts = [encode_fact(report) for report in self._reporting.current()] if members else []
        for batch in packed(facts, DATAGRAM_BUDGET - ENVELOPE_ROOM):
            for member in members:
                self._out.send_facts(member.record.gossip, None, batch)

    def on_report(self, sender: NodeId, fact: WanReport, repaired: bool) -> bool:
        """A relay of this data center says what it reaches."""
        relay = self._members.get(fact.relay.path)
        if fact.relay.datacenter != self._own or fact.relay.path == self._path:
            return False
        if relay is not None and (relay.state is MemberState.LEFT or relay.node.boot > fact.relay.boot):
            return False
        told = tuple(row.datacenter for row in fact.rows) or self._members.datacenters()
        before = [self._reach.said(fact.relay, datacenter) for datacenter in told]
        if not self._reach.reported(fact):
            return False
        if fact.rows and not any(map(is_material, fact.rows, before)):
            return True  # it only drifted: the relay itself tells everybody
        self.reported()
        for datacenter in told:
            self._hold(datacenter, f"{fact.relay.path} stepped down")
        self._out.rumors.put(f"w/{fact.relay.path}/{fact.rows[0].datacenter if fact.rows else ''}", fact)
        return True

    def _hold(self, datacenter: str, reason: str) -> None:
        """Judge anew; where no report is left, look again when the last verdict ends."""
        self._reach.judge(datacenter, 0.0, reason)
        until = self._reach.hold_ends(datacenter)
        if until is not None:
            self._out.arm(until, HoldEnds(datacenter))

    def _hold_ended(self, timer: HoldEnds) -> None:
        self._hold(timer.datacenter, "no relay of ours speaks of it")

    def stalled(self, gap: int) -> None:
        """This process stood still for `gap` nanoseconds: nobody was silent, we did not listen."""
        for peer in self._mesh.peers.values():
            peer.stalled(gap)

    # ---- links

    def heard(self, sender: NodeId) -> None:
        """Anything at all came from an agent of another data center."""
        if self._ticking:
            self._mesh.heard(sender)

    def link_opened(self, node: NodeId) -> None:
        """A link to an agent of this data center is none of our business."""
        if node.datacenter != self._own:
            peer = self._mesh.opened(node)
            self._keep_ticking()
            self._beat(peer)

    def link_lost(self, node: NodeId, reason: str) -> None:
        self._mesh.lost(node)

    def send_failed(self, node: NodeId, reason: Refusal) -> None:
        self._out.count("wan_send_failed")
        if reason is Refusal.GONE:
            self._mesh.lost(node)

    # ---- a relay's second

    def _keep_ticking(self) -> None:
        if not self._ticking:
            self._ticking = True
            self._out.arm(self._out.now + self._stream.below(HEARTBEAT_PERIOD), WanTick())

    def _tick(self, _timer: WanTick) -> None:
        self._ticks += 1
        self._mesh.tend(self.is_relay)
        self._beat(*(peer for peer in self._mesh.peers.values() if peer.state is OPEN))
        if self.is_relay:
            self._report()
            self._brief(self._reporting.listeners(self._members.peers))
        self._ticking = self.is_relay or bool(self._mesh.peers)
        if self._ticking:
            self._out.arm(self._out.now + HEARTBEAT_PERIOD, WanTick())

    # ---- heartbeats

    def _beat(self, *peers: WanPeer) -> None:
        ages, reached = self._reach.ages(), self._reach.reached()
        if self._ticks % COORDINATES_EVERY == 0:
            ages = tuple(Freshness(row.datacenter, row.age, self._coordinate(row.datacenter)) for row in ages)
        here, brake = self._coordinates.here, self._members.brake
        for peer in peers:
            heartbeat = peer.next_heartbeat(self._out.now, self._ledger.total, ages, here, brake, reached)
            self._out.send_message(peer.node, heartbeat)

    def on_heartbeat(self, sender: NodeId, source: Address | None, body: LinkHeartbeat) -> None:
        peer = self._mesh.peers.get(sender.path)
        if source is not None or peer is None or peer.node != sender:
            self._out.count("wan_heartbeat_ignored")
            return
        now, datacenter = self._out.now, sender.datacenter
        if peer.state is not OPEN:  # the link that a second dial was refused for is the one that speaks
            peer.opened(now)
        sample = peer.heard(body, now)
        if sample is not None:
            self._coordinates.measured(sender.path, body.coordinate, sample)
        said_at = self._out.arrived - peer.rtt // 2
        self._reach.heard_of(datacenter, said_at)
        self._reach.learn(body.freshness, said_at)
        for row in body.freshness:
            if row.coordinate and is_coordinate(row.coordinate) and self._members.of(row.datacenter):
                self._third[row.datacenter] = row.coordinate
        if body.heard_ago < 0:
            self._beat(peer)  # it does not know yet that it is heard
        if self.is_relay and not self._reporting.says_reached(datacenter) and peer.is_reached(now):
            self._report_on(datacenter)
        self.compare(sender, None, body.digest)

    # ---- reports

    def _report(self) -> None:
        for datacenter in self._members.datacenters():
            self._report_on(datacenter)

    def _report_on(self, datacenter: str) -> None:
        if datacenter == self._own:
            if self._coordinates.settled:
                living = self._members.living(datacenter)
                row = WanRow(
                    datacenter, True, True, 0, 0, living, (), self._coordinates.settled, self._members.brake, True
                )
                if self._reporting.is_worth(row):
                    self._reporting.tell(row, 0.0)
            return
        now = self._out.now
        peers = [peer for peer in self._mesh.peers.values() if peer.node.datacenter == datacenter]
        if not any(peer.has_spoken for peer in peers) and now - self._reporting.since < UNREACHABLE_FLOOR:
            return  # no verdict yet
        row = WanRow(
            datacenter,
            any(peer.is_reached(now) for peer in peers),
            any(peer.hears_us(now) for peer in peers),
            min((peer.rtt for peer in peers if peer.rtt), default=0),  # distance outlives a cut
            now - self._reach.as_of(datacenter),
            self._members.living(datacenter),
            (),  # relays: everybody ranks them from the table
            self._coordinate(datacenter),
            next((peer.brake for peer in peers if peer.brake), ""),
            any(peer.is_heard(now) for peer in peers)
            or now - self._mesh.heard_at.get(datacenter, 0) < UNREACHABLE_FLOOR,
        )
        if self._reporting.is_worth(row):
            phi = min((peer.phi.value(now) for peer in peers if peer.has_spoken), default=0.0)
            self._reporting.tell(row, phi)
            self.reported()

    def _coordinate(self, datacenter: str) -> Coordinate:
        """The surest known for another data center, fit to be told; empty while all are unsure."""
        own = (peer.coordinate for peer in self._mesh.peers.values() if peer.node.datacenter == datacenter)
        sure = [coordinate for coordinate in own if coordinate and coordinate[-1] <= VIVALDI_ERROR]
        return min(sure, key=lambda coordinate: coordinate[-1]) if sure else self._third.get(datacenter, ())

    # ---- facts

    def forward(self, news: list[tuple[tuple[str, ...], Fact]]) -> None:
        """A relay passes on what this turn spread."""
        if not self.is_relay or not self._mesh.peers:
            return
        was_empty = not len(self._forwarding)
        for via, fact in news:
            if not self._forwarding.add(via, fact):
                self._out.count("forward_overflow")
        if was_empty and len(self._forwarding):
            self._out.arm(self._out.now + FORWARD_DELAY, ForwardDue())

    def _forward_due(self, _timer: ForwardDue) -> None:
        if not len(self._forwarding):
            return
        carriers: dict[str, list[WanPeer]] = {}
        for path in sorted(self._mesh.peers):
            peer = self._mesh.peers[path]
            if peer.carries_facts(self._out.now):
                carriers.setdefault(peer.node.datacenter, []).append(peer)
        relays = self._relays.of(self._own)
        place = relays.index(self._path) if self._path in relays else 0
        for datacenter, peers in carriers.items():
            peer = peers[place % len(peers)]  # each relay on another link, where there are enough
            for message in self._forwarding.messages_for(datacenter, peer.reaches):
                self._out.send_message(peer.node, message)
        self._forwarding.clear()
