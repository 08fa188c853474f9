"""Views of a fleet that only repair: no gossip, no links, no time but what a test passes."""

from dislocate.core.boundary.effects import SendDatagram, SendMessage
from dislocate.core.boundary.settings import Settings
from dislocate.core.catalog.antientropy import Repair
from dislocate.core.catalog.ledger import Ledger, fingerprint
from dislocate.core.catalog.messages import LedgerDigest, LedgerInventory, Repaired
from dislocate.core.identity import NodeId
from dislocate.core.membership.members import Members
from dislocate.core.membership.messages import Alive, Dead, MemberRecord
from dislocate.core.outbox import Outbox
from dislocate.core.rumors import Rumors
from dislocate.core.streams import Streams
from dislocate.core.units import SECOND
from dislocate.core.wire import FactMemo, decode_envelope


def alive(path, incarnation=1, tags=()):
    datacenter, name = path.split("/")
    key = fingerprint(path).to_bytes(8, "big") * 4
    node = NodeId(datacenter, name, 1_760_000_000_000)
    address = "10.200.100.50:49701"
    return Alive(MemberRecord(node, incarnation, 77, address, address, address, address, key, tags, (1, 1)))


def dead(path, incarnation=1):
    datacenter, name = path.split("/")
    return Dead(NodeId(datacenter, name, 1_760_000_000_000), incarnation, ("fra/x",), False)


class View:
    """One agent's knowledge: the dead have no entry, the higher incarnation wins, the dead among equals."""

    def __init__(self, name, *facts):
        self.node = NodeId("fra", name, 1)
        self.out = Outbox(self.node, Rumors())
        self.ledger = Ledger()
        settings = Settings(node=self.node, nonce=1, gossip=name, links=name)
        self.repair = Repair(settings, Streams(name), self.out, Members("fra"), self.ledger)
        self.repair.providers = {"m": lambda path: [self.known[path]] if path in self.known else []}
        self.known = {}
        self.refused = 0
        for fact in facts:
            self.accept(fact)

    def accept(self, fact):
        node, incarnation = (fact.record.node, fact.record.incarnation) if isinstance(fact, Alive) else fact_key(fact)
        known = self.known.get(node.path)
        if known is not None and rank(known) >= rank(fact):
            self.refused += 1
            return
        self.known[node.path] = fact
        if isinstance(fact, Alive):
            self.ledger.put("m", node.path, fingerprint(f"{node}/{incarnation}"))
        else:
            self.ledger.remove("m", node.path)

    def living(self):
        return sorted(path for path, fact in self.known.items() if isinstance(fact, Alive))


def fact_key(fact):
    return fact.node, fact.incarnation


def rank(fact):
    return (fact.record.incarnation, 0) if isinstance(fact, Alive) else (fact.incarnation, 1)


class Talk:
    """Carries what views say to each other, at once; counts packets and bytes; may lose every `loses`-th."""

    def __init__(self, *views, on_links=False, loses=0):
        self.views = {view.node.name: view for view in views}
        self.on_links = on_links
        self.loses = loses
        self.packets = self.bytes = self.largest = 0
        self._memo = FactMemo()

    def compare(self, one, other, at):
        """`one` hears the digest of `other` at second `at`; returns how many packets that caused."""
        before = self.packets
        for view in self.views.values():
            view.out.now = round(at * SECOND)
        one.repair.compare(other.node, None if self.on_links else other.node.name, other.ledger.total)
        self._deliver()
        return self.packets - before

    def _deliver(self):
        busy = True
        while busy:
            busy = False
            for view in list(self.views.values()):
                effects, view.out.effects = view.out.effects, []
                for effect in effects:
                    if isinstance(effect, SendDatagram | SendMessage):
                        busy = True
                        to = effect.address if isinstance(effect, SendDatagram) else effect.peer.name
                        self._packet(view, self.views[to], effect.data)

    def _packet(self, sender, receiver, data):
        self.packets += 1
        self.bytes += len(data)
        self.largest = max(self.largest, len(data))
        if self.loses and self.packets % self.loses == 0:
            return
        envelope = decode_envelope(data, sender.node.name)
        for raw in envelope.facts:
            receiver.accept(self._memo.decode(raw, "x"))
        source = None if self.on_links else sender.node.name
        handlers = {
            LedgerDigest: receiver.repair.on_digest,
            LedgerInventory: receiver.repair.on_inventory,
            Repaired: receiver.repair.on_repaired,
        }
        handlers[type(envelope.body)](sender.node, source, envelope.body)
