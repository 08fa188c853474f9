"""The protocol inside one data center: SWIM with all of Lifeguard, and a path of its own for refusals.

    greeting     finds a way in, and the way back together after a partition
    probe        asks one member a period whether it lives; `pings` knows what is under way
    judge        silence becomes suspicion, suspicion death (`suspicion` has the formulas), unless the `brake` holds
    refusal      a refused connection, verified, is death without a wait; `neighbours`' links make us look
    gossip       spreads rumours while there are any; `clones` settles names in dispute; `contacts` keeps addresses

This file wires them, and decides what this node says of itself: that it lives, restarts or leaves.  The table changes in
`beliefs` only.  Members of other data centers are believed by precedence alone: only their home judges them.
"""

from collections.abc import Callable
from typing import Any

from dislocate.core.boundary.inputs import Stopped
from dislocate.core.boundary.requests import Done, Forget, Leave, Refused
from dislocate.core.boundary.settings import Recovered, Settings
from dislocate.core.boundary.values import MemberState, Refusal
from dislocate.core.catalog.antientropy import Repair
from dislocate.core.catalog.ledger import Ledger
from dislocate.core.identity import Address, NodeId, Path
from dislocate.core.membership.beliefs import TAGS_BUDGET, Beliefs, do_tags_fit
from dislocate.core.membership.brake import Brake
from dislocate.core.membership.clones import Clones
from dislocate.core.membership.contacts import Contacts, recovered_contacts
from dislocate.core.membership.gossip import Gossip
from dislocate.core.membership.greeting import Greeter
from dislocate.core.membership.judge import Judge
from dislocate.core.membership.members import Member, Members
from dislocate.core.membership.messages import (
    Ack,
    Alive,
    Dead,
    Forgotten,
    Freshness,
    Left,
    MemberRecord,
    Ping,
    Restarting,
    Suspect,
    Welcome,
)
from dislocate.core.membership.neighbours import Neighbours
from dislocate.core.membership.pings import Pings
from dislocate.core.membership.probe import LocalHealth, Prober
from dislocate.core.membership.refusal import Refusals
from dislocate.core.membership.wan import Wan
from dislocate.core.outbox import Outbox, Timer
from dislocate.core.streams import Streams
from dislocate.core.tunables import RESTART_GRACE
from dislocate.core.wire import Fact, encode_fact

FAREWELLS = 64  # members told directly of a restart or farewell, since this process may end before it can gossip


class RestartOverdue(Timer, frozen=True):
    """The announced restart of this start of a member should be over."""

    path: Path
    boot: int


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
        self._stream = streams["farewell"]
        self._out = out
        self._members = members
        self._ledger = ledger
        self._wan = wan
        self._repair = repair
        self._leaving = False
        self._beliefs = beliefs = Beliefs(settings, out, members, ledger)
        self._health = LocalHealth()
        period, multiplier = settings.probe_period, settings.suspicion_multiplier
        self._pings = pings = Pings(out, members, lambda: ledger.total, wan.freshness)
        self._brake = Brake(out, members, period, multiplier, lambda: self._judge.released())
        self._judge = Judge(settings, out, members, beliefs, self._brake, pings)
        self._refusals = Refusals(out, members, pings, self._judge, streams["refusal"], settings.refusal_path)
        self._neighbours = Neighbours(out, members, beliefs, streams["neighbours"], self._refusals.look)
        accuse, successor = self._judge.accuse, self._neighbours.successor
        self._prober = Prober(out, members, pings, self._health, streams["probe"], period, accuse, successor)
        self._gossip = Gossip(out, members, beliefs, streams["gossip"])
        self._clones = Clones(out, pings, self._take, self._outlive)
        self._contacts = Contacts(out, members, beliefs, recovered)
        seeds = dict.fromkeys((*settings.seeds, *recovered_contacts(recovered).values()))
        self._greeter = Greeter(out, members, beliefs, pings, wan, streams["greeting"], tuple(seeds), self._accept)
        # Called as listener(member, state before; None when it was unknown) after each change: see `beliefs.Listener`.
        self.listeners = beliefs.listeners
        self.listeners.append(self._member_changed)
        # What the node dispatches to the parts themselves.
        self.on_ping_request = self._prober.on_ping_request
        self.on_relayed_ack = self._prober.on_relayed_ack
        self.on_nack = self._prober.on_nack
        self.on_refusal_check = self._refusals.on_refusal_check
        self.on_refusal_verdict = self._refusals.on_refusal_verdict
        self.on_hello = self._greeter.on_hello
        self.connect_tried = self._refusals.connect_tried
        self.link_opened = self._neighbours.link_opened
        self.link_lost = self._neighbours.link_lost
        self.rumors_wait = self._gossip.rumors_wait  # after each turn that leaves rumours: they are on their way

    @property
    def record(self) -> MemberRecord:
        """What this node says of itself."""
        return self._beliefs.record

    def timers(self) -> dict[type, Callable[[Any], None]]:
        parts = (
            self._prober,
            self._judge,
            self._refusals,
            self._brake,
            self._neighbours,
            self._gossip,
            self._clones,
            self._contacts,
            self._greeter,
        )
        timers: dict[type, Callable[[Any], None]] = {RestartOverdue: self._restart_overdue}
        for part in parts:
            timers.update(part.timers())
        return timers

    def start(self) -> None:
        self._beliefs.introduce()
        self._prober.start()
        self._greeter.start()

    def stalled(self, gap: int) -> None:
        """This process did not run for `gap` although a timer was due: others may have spoken to nobody."""
        self._out.count("stalls")
        self._prober.lost_touch()
        self._pings.lost_touch()
        self._refusals.lost_touch()
        self._judge.stalled(gap)

    def heard(self, sender: NodeId, source: Address | None) -> None:
        member = self._members.get(sender.path)
        if member is not None and member.record.node.boot == sender.boot:
            member.heard = self._out.now

    def _member_changed(self, member: Member, before: MemberState | None) -> None:
        """The first listener: what this data center's machinery needs to know."""
        if member.path == self._members.own:
            return
        self._contacts.member_changed(member, before)
        if not self._beliefs.is_home(member.node):
            return
        self._brake.member_changed(member, before)
        self._judge.member_changed(member, before)
        self._neighbours.member_changed(member, before)

    # ---- what others say of themselves

    def _accept(self, record: MemberRecord, quiet: bool) -> bool:
        """Believe `record` if it is the newest known of a member, or have its name examined.  Whether it was news."""
        path = record.node.path
        if path == self._members.own:
            self._consider_own(record)
            return False
        member = self._members.get(path)
        if member is None:
            if self._beliefs.is_forgotten(record.node):
                return False
            self._beliefs.meet(record, quiet=quiet)
            return True
        known = member.record
        if record.node.boot < known.node.boot or self._clones.is_rival(known, record):
            return False
        if record.node.boot == known.node.boot and record.incarnation <= known.incarnation:
            return False
        is_home_and_moved = self._beliefs.is_home(record.node) and record.gossip != known.gossip
        if is_home_and_moved and member.is_living:
            self._clones.examine(member, record)
            return False
        self._beliefs.revive(member, record)
        return True

    def _take(self, record: MemberRecord) -> None:
        """The old address of `record`'s name failed a direct probe."""
        member = self._members.get(record.node.path)
        if member is not None and record.node.boot > member.node.boot:
            self._beliefs.revive(member, record)

    def _consider_own(self, record: MemberRecord) -> None:
        """Somebody repeats what is said under our name."""
        own = self.record
        is_from_here = record.gossip == own.gossip
        if record.node.boot == own.node.boot and record.nonce != own.nonce and not is_from_here:
            older, newer = sorted((own, record), key=lambda one: one.nonce)
            self._clones.dispute(older, newer, other=record)
        elif record.node.boot == own.node.boot and record.nonce == own.nonce:
            if record.incarnation > own.incarnation:
                self._beliefs.renew(record.incarnation)
        elif not is_from_here:
            older, newer = (own, record) if own.node.boot < record.node.boot else (record, own)
            self._clones.dispute(older, newer, other=record)
        elif record.node.boot >= own.node.boot and not self._leaving:
            # That start was ours, and is over: the disk was wiped since, in the same millisecond or with the clock set back.
            self._out.count("boots_raised")
            self._beliefs.renew(boot=record.node.boot + 1)

    def _outlive(self, boot: int) -> None:
        """A start of our name elsewhere is over: whoever believed it is to believe us again."""
        if not self._leaving:
            self._out.count("boots_raised")
            self._beliefs.renew(boot=boot + 1)

    # ---- messages

    def on_ping(self, sender: NodeId, source: Address | None, body: Ping) -> None:
        if source is None or body.target != self._members.own:
            return
        self._out.send(source, Ack(body.seq, self._ledger.total, self._wan.freshness()))
        self._compare(sender, source, body.digest, body.freshness)

    def on_ack(self, sender: NodeId, source: Address | None, body: Ack) -> None:
        self._pings.answered(sender, body.seq)
        self._compare(sender, source, body.digest, body.freshness)

    def on_welcome(self, sender: NodeId, source: Address | None, body: Welcome) -> None:
        self._greeter.on_welcome(sender, source, body)
        self._neighbours.greeted(sender)

    def _compare(self, sender: NodeId, source: Address | None, digest: int, freshness: tuple[Freshness, ...]) -> None:
        """Each ping and its answer compare views; one who is not known as living is dealt with first."""
        if freshness:
            self._wan.learn_freshness(freshness)
        member = self._members.get(sender.path)
        if member is not None and member.is_living and member.node.boot == sender.boot:
            self._repair.compare(sender, source, digest)
        elif source is None or self._leaving or sender.path == self._members.own:
            return
        elif self._beliefs.is_outdated(sender) or (member is not None and member.node.boot == sender.boot):
            self._greeter.tell_its_death(source, sender)
        else:
            self._greeter.introduce_to(source)

    # ---- facts: (sender, fact, repaired) -> was it news?

    def on_alive(self, sender: NodeId, fact: Alive, repaired: bool) -> bool:
        # What a neighbour tells a newcomer of old members is no news to anybody else.
        quiet = repaired and self._beliefs.is_home(sender)
        return self._accept(fact.record, quiet)

    def on_suspect(self, sender: NodeId, fact: Suspect, repaired: bool) -> bool:
        if fact.node.path == self._members.own:
            return self._refute(sender, fact.node, fact.incarnation)
        return self._beliefs.is_home(fact.node) and self._judge.on_suspect(fact)

    def on_dead(self, sender: NodeId, fact: Dead, repaired: bool) -> bool:
        if fact.node.path == self._members.own:
            return self._refute(sender, fact.node, fact.incarnation)
        return self._judge.on_dead(sender, fact, repaired)

    def on_left(self, sender: NodeId, fact: Left, repaired: bool) -> bool:
        if fact.node.path == self._members.own:
            return self._refute(sender, fact.node, fact.incarnation)
        member = self._members.get(fact.node.path)
        if member is None or member.node.boot != fact.node.boot or fact.incarnation < member.record.incarnation:
            return False
        if member.state is MemberState.LEFT:
            return False
        self._beliefs.leave(member, fact.incarnation)
        return True

    def on_restarting(self, sender: NodeId, fact: Restarting, repaired: bool) -> bool:
        member = self._members.get(fact.node.path)
        if member is None or member is self._beliefs.own or member.node.boot != fact.node.boot:
            return False
        if not member.is_living or member.restarting_until or fact.incarnation < member.record.incarnation:
            return False
        within = min(fact.within, 2 * RESTART_GRACE)
        self._beliefs.restart(member, within)
        if self._beliefs.is_home(member.node):
            self._out.arm(self._out.now + within, RestartOverdue(member.path, member.node.boot))
        return True

    def _restart_overdue(self, timer: RestartOverdue) -> None:
        member = self._members.get(timer.path)
        if member is not None and member.node.boot == timer.boot:
            self._members.version += 1
            self._refusals.look(member)

    def on_forgotten(self, sender: NodeId, fact: Forgotten, repaired: bool) -> bool:
        if fact.node.path == self._members.own:
            if fact.node.boot >= self.record.node.boot and not self._leaving:
                self._beliefs.renew(boot=fact.node.boot + 1)
            return False
        member = self._members.get(fact.node.path)
        if self._beliefs.is_forgotten(fact.node) or (member is not None and member.is_living):
            return False
        self._beliefs.forget(fact.node, "an operator dropped it")
        return True

    def _refute(self, sender: NodeId, node: NodeId, incarnation: int) -> bool:
        """Answer an accusation against this node, whose accuser knows this incarnation.  It is no news to spread."""
        own = self.record
        if node.boot != own.node.boot or self._leaving:
            return False
        if incarnation < own.incarnation:
            self._repeat_to(sender)  # it missed our refutation, which may have stopped spreading
            return False
        self._health.worsen()
        self._out.count("refutations")
        self._beliefs.renew(incarnation)
        return False

    def _repeat_to(self, sender: NodeId) -> None:
        member = self._members.get(sender.path)
        if member is not None and member.is_living and self._beliefs.is_home(sender):
            self._out.send_facts(member.record.gossip, None, (encode_fact(Alive(self.record)),))

    def facts_of(self, path: Path) -> list[Fact]:
        """What this node knows of a member, to repair another view."""
        return self._beliefs.facts_of(path)

    # ---- inputs and requests

    def send_failed(self, address: Address, reason: Refusal) -> None:
        self._out.count("datagrams_failed")
        if reason is Refusal.REFUSED:
            self._refusals.datagram_refused(address)

    def stopped(self, stopped: Stopped) -> None:
        """The process ends after this turn, and comes back: nobody is to worry."""
        if not self._leaving:
            restarting = Restarting(self.record.node, self.record.incarnation, RESTART_GRACE)
            self._out.spread(f"m/{self._members.own}", restarting)
            self._say_goodbye(restarting)

    def retag(self, tags: tuple[str, ...]) -> None:
        """The configuration was read again.  Tags that fit no datagram are refused, and the old ones stay."""
        if not do_tags_fit(tags):
            self._out.drop("configuration", f"node.tags are longer than {TAGS_BUDGET} bytes")
        elif tags != self.record.tags:
            self._beliefs.renew(tags=tags)

    def leave(self, request_id: int, _request: Leave) -> None:
        if not self._leaving:
            self._beliefs.leave(self._beliefs.own, self.record.incarnation)
            self._say_goodbye(Left(self.record.node, self.record.incarnation))
        self._out.reply(request_id, Done())

    def _say_goodbye(self, fact: Fact) -> None:
        """Tell as many as possible now: first those whose links with us are about to end, then anybody."""
        self._leaving = True
        for part in (self._prober, self._judge, self._refusals, self._neighbours, self._greeter):
            part.stop()
        told = dict.fromkeys(self._neighbours.around)
        told.update((member.path, None) for member in self._stream.sample(self._members.peers, FAREWELLS))
        for path in told:
            member = self._members.get(path)
            if member is not None:
                self._out.send_facts(member.record.gossip, None, (encode_fact(fact),))

    def forget(self, request_id: int, request: Forget) -> None:
        member = self._members.get(request.path)
        if member is None:
            self._out.reply(request_id, Refused("unknown", "", f"no member {request.path}"))
        elif member.is_living:
            reason = f"{request.path} is {member.state.value}: stop its agent, or wait until it is declared dead"
            self._out.reply(request_id, Refused("conflict", "", reason))
        else:
            self._beliefs.forget(member.node, "an operator dropped it")
            self._out.reply(request_id, Done())
