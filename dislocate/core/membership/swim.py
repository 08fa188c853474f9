"""The protocol inside one data center: greet, probe, gossip.  (Skeleton: two nodes greet and ping.)"""

from collections.abc import Callable
from typing import Any

from dislocate.core.boundary.events import MemberJoined
from dislocate.core.boundary.inputs import ConnectTried, Stopped
from dislocate.core.boundary.requests import Done, Forget, Leave, Refused
from dislocate.core.boundary.settings import Recovered, Settings
from dislocate.core.boundary.values import MemberState, Refusal
from dislocate.core.catalog.antientropy import Repair
from dislocate.core.catalog.ledger import Ledger, fingerprint
from dislocate.core.identity import Address, NodeId, Path
from dislocate.core.membership.members import Member, Members
from dislocate.core.membership.messages import (
    Ack,
    Alive,
    Dead,
    Forgotten,
    Hello,
    Left,
    MemberRecord,
    Nack,
    Ping,
    PingRequest,
    RefusalCheck,
    RefusalVerdict,
    RelayedAck,
    Restarting,
    Suspect,
    Welcome,
)
from dislocate.core.membership.wan import Wan
from dislocate.core.outbox import Outbox, Timer
from dislocate.core.streams import Streams
from dislocate.core.tunables import PROTOCOL
from dislocate.core.wire import Fact


class ProbeDue(Timer, frozen=True, tag=1):
    """Time to probe the next member."""


class Swim:
    """One node's part in its data center's membership."""

    def __init__(
        self,
        settings: Settings,
        streams: Streams,
        out: Outbox,
        members: Members,
        ledger: Ledger,
        wan: Wan,
        repair: Repair,
        recovered: Recovered,
    ) -> None:
        self._settings = settings
        self._stream = streams["probe"]
        self._out = out
        self._members = members
        self._ledger = ledger
        self._wan = wan
        self._repair = repair
        self._seq = 0
        # Called as listener(member, state before; None when it was unknown) after each change of a member's state.
        self.listeners: list[Callable[[Member, MemberState | None], None]] = []
        self.record = MemberRecord(
            settings.node,
            1,
            settings.nonce,
            settings.gossip,
            settings.links,
            settings.wan_gossip or settings.gossip,
            settings.wan_links or settings.links,
            settings.public_key,
            settings.tags,
            PROTOCOL,
        )

    def timers(self) -> dict[type, Callable[[Any], None]]:
        return {ProbeDue: self._probe}

    def start(self) -> None:
        self._accept(self.record)
        for seed in self._settings.seeds:
            if seed != self._settings.gossip:
                self._out.send(seed, Hello(self.record, True))
        self._out.arm(self._out.now + self._stream.below(self._settings.probe_period), ProbeDue())

    def stalled(self, gap: int) -> None:
        pass

    def heard(self, sender: NodeId, source: Address | None) -> None:
        member = self._members.get(sender.path)
        if member is not None and member.node.boot == sender.boot:
            member.heard = self._out.now

    def _accept(self, record: MemberRecord) -> bool:
        path = record.node.path
        if self._members.get(path) is not None:
            return False
        member = Member(record, MemberState.ALIVE, self._out.now)
        self._members.add(member)
        self._ledger.put(f"m/{path}", fingerprint(f"{record.node}/{record.incarnation}"))
        self._out.members = self._members.living(self._settings.node.datacenter)
        self._out.spread(f"m/{path}", Alive(record))
        self._out.notify(MemberJoined(record.node, record.gossip))
        for listener in self.listeners:
            listener(member, None)
        return True

    def _probe(self, _timer: ProbeDue) -> None:
        others = [
            m for m in self._members.of(self._settings.node.datacenter).values() if m.path != self.record.node.path
        ]
        if others:
            self._seq += 1
            target = self._stream.choice(others)
            self._out.send(target.record.gossip, Ping(self._seq, target.path, self._ledger.total))
        self._out.arm(self._out.now + self._settings.probe_period, ProbeDue())

    # ---- messages

    def on_hello(self, sender: NodeId, source: Address | None, body: Hello) -> None:
        self._accept(body.record)
        if source is not None:
            contacts = tuple(m.record for m in self._members.of(body.record.node.datacenter).values())[:3]
            self._out.send(source, Welcome(self.record, contacts))

    def on_welcome(self, sender: NodeId, source: Address | None, body: Welcome) -> None:
        for record in (body.record, *body.contacts):
            self._accept(record)

    def on_ping(self, sender: NodeId, source: Address | None, body: Ping) -> None:
        if source is not None and body.target == self.record.node.path:
            self._out.send(source, Ack(body.seq, self._ledger.total))

    def on_ack(self, sender: NodeId, source: Address | None, body: Ack) -> None:
        self._out.count("acks")

    def on_ping_request(self, sender: NodeId, source: Address | None, body: PingRequest) -> None: ...
    def on_relayed_ack(self, sender: NodeId, source: Address | None, body: RelayedAck) -> None: ...
    def on_nack(self, sender: NodeId, source: Address | None, body: Nack) -> None: ...
    def on_refusal_check(self, sender: NodeId, source: Address | None, body: RefusalCheck) -> None: ...
    def on_refusal_verdict(self, sender: NodeId, source: Address | None, body: RefusalVerdict) -> None: ...

    # ---- facts: (sender, fact, repaired) -> was it news?

    def on_alive(self, sender: NodeId, fact: Alive, repaired: bool) -> bool:
        return self._accept(fact.record)

    def on_suspect(self, sender: NodeId, fact: Suspect, repaired: bool) -> bool:
        return False

    def on_dead(self, sender: NodeId, fact: Dead, repaired: bool) -> bool:
        return False

    def on_left(self, sender: NodeId, fact: Left, repaired: bool) -> bool:
        return False

    def on_restarting(self, sender: NodeId, fact: Restarting, repaired: bool) -> bool:
        return False

    def on_forgotten(self, sender: NodeId, fact: Forgotten, repaired: bool) -> bool:
        return False

    def facts_of(self, path: Path) -> list[Fact]:
        """What this node knows of a member, to repair another view."""
        member = self._members.get(path)
        return [] if member is None else [Alive(member.record)]

    # ---- inputs and requests

    def connect_tried(self, tried: ConnectTried) -> None: ...
    def send_failed(self, address: Address, reason: Refusal) -> None: ...
    def link_opened(self, peer: NodeId) -> None: ...
    def link_lost(self, peer: NodeId, reason: str) -> None: ...
    def stopped(self, stopped: Stopped) -> None: ...
    def retag(self, tags: tuple[str, ...]) -> None: ...

    def leave(self, request_id: int, _request: Leave) -> None:
        self._out.reply(request_id, Done())

    def forget(self, request_id: int, request: Forget) -> None:
        self._out.reply(request_id, Refused("unknown", "path", f"no member {request.path}"))
