"""Greeting: how a node finds its way in, and how parted views find each other again.

A joiner greets its seeds, and the members that its disk remembers, until somebody answers; then one of those that it does
not know yet, at the same times.  From the end of that on, for ever, each `RECONNECT_PERIOD` one seed that nobody here knows
as living, or one dead member, is greeted: a partition of any length heals without an operator (memberlist never contacts
the dead, and its partitions stay: memberlist#222).

An answer brings the answerer's record and contacts: members of the joiner's data center, then relays of the answerer's.
Who learns that it is held dead comes back with a higher incarnation.  Addresses from the disk are greeted, not believed.
"""

from collections.abc import Callable, Sequence
from typing import Any

from dislocate.core.boundary.values import MemberState
from dislocate.core.identity import Address, NodeId
from dislocate.core.membership.beliefs import Beliefs
from dislocate.core.membership.members import Member, Members
from dislocate.core.membership.messages import Alive, Forgotten, Hello, MemberRecord, Welcome
from dislocate.core.membership.pings import Pings
from dislocate.core.membership.wan import Wan
from dislocate.core.outbox import Outbox, Timer
from dislocate.core.streams import Stream
from dislocate.core.tunables import DEAD_RETENTION, LEFT_RETENTION, RECONNECT_PERIOD
from dislocate.core.units import MILLISECOND
from dislocate.core.wire import encode_fact, encoded_size

JOIN_RETRY = 500 * MILLISECOND  # then twice that, up to RECONNECT_PERIOD
SEEDS_AT_ONCE = 8
CONTACTS = 24  # told to a joiner: repair tells it the rest


class JoinDue(Timer, frozen=True):
    """Nobody answered yet?"""

    attempt: int


class HealDue(Timer, frozen=True):
    """Time to greet a seed or a dead member."""


class Greeter:
    """Hellos and welcomes of one node."""

    def __init__(
        self,
        out: Outbox,
        members: Members,
        beliefs: Beliefs,
        pings: Pings,
        wan: Wan,
        stream: Stream,
        seeds: Sequence[Address],
        accept: Callable[[MemberRecord, bool], bool],
    ) -> None:
        self._out = out
        self._members = members
        self._beliefs = beliefs
        self._pings = pings
        self._wan = wan
        self._stream = stream
        self._accept = accept
        own = beliefs.record
        self._seeds = [seed for seed in seeds if seed not in (own.gossip, own.wan_gossip)]
        self._is_answered = False
        self._stopped = False

    def timers(self) -> dict[type, Callable[[Any], None]]:
        return {JoinDue: self._join, HealDue: self._heal}

    def start(self) -> None:
        self._join(JoinDue(0))
        self._out.arm(self._out.now + RECONNECT_PERIOD + self._stream.below(RECONNECT_PERIOD), HealDue())

    def stop(self) -> None:
        """This node leaves: it looks for nobody any more."""
        self._stopped = True

    def _join(self, timer: JoinDue) -> None:
        if self._stopped or not self._seeds:
            return
        wait = min(RECONNECT_PERIOD, JOIN_RETRY << min(timer.attempt, 10))
        if not self._is_answered:
            greeted = self._stream.sample(self._seeds, SEEDS_AT_ONCE)
        else:
            # Perhaps by others that look for the same seed: a data center that starts a moment before it is no fleet yet,
            # and would be alone until the first heal.
            unknown = [seed for seed in self._seeds if not self._is_known(seed)]
            if not unknown or wait == RECONNECT_PERIOD:
                return
            greeted = [self._stream.choice(unknown)]
        for seed in greeted:
            self._out.send(seed, Hello(self._beliefs.record, True))
        self._out.arm(self._out.now + wait + self._stream.below(wait // 4), JoinDue(timer.attempt + 1))

    def _heal(self, _timer: HealDue) -> None:
        if self._stopped:
            return
        self._out.arm(self._out.now + RECONNECT_PERIOD, HealDue())
        self._drop_the_long_gone()
        missing = [seed for seed in self._seeds if not self._is_in_touch(seed)]
        dead = [member.record.gossip for member in self._beliefs.gone.values() if member.state is MemberState.DEAD]
        candidates = missing + dead
        if candidates:
            self._out.count("heals_tried")
            self._out.send(self._stream.choice(candidates), Hello(self._beliefs.record, True))

    def _is_known(self, seed: Address) -> bool:
        """Whether somebody lives there; a seed that is a name never is."""
        member = self._members.at(seed)
        return member is not None and member.is_living

    def _is_in_touch(self, seed: Address) -> bool:
        member = self._members.at(seed)
        if member is None or not member.is_living:
            return False
        return self._beliefs.is_home(member.node) or self._wan.is_reachable(member.node.datacenter)

    def _drop_the_long_gone(self) -> None:
        now = self._out.now
        for member in list(self._beliefs.gone.values()):
            kept_for = DEAD_RETENTION if member.state is MemberState.DEAD else LEFT_RETENTION
            if now - member.since > kept_for:
                self._beliefs.drop(member.path, "not seen for too long")

    # ---- messages

    def on_hello(self, sender: NodeId, source: Address | None, body: Hello) -> None:
        """Somebody wants in, or to be known before it dials."""
        if body.record.node != sender:
            self._out.drop(source or sender.path, f"greets as {body.record.node}")
            return
        self._accept(body.record, False)
        if sender.path == self._members.own:
            self._out.drop(source or sender.path, f"greets as {body.record.node}")
            return
        if source is None or self._stopped:
            return
        slices = self._contacts(sender) if body.wants_contacts else [()]
        for contacts in slices:
            self._welcome(source, sender, contacts)

    def _welcome(self, address: Address, guest: NodeId, contacts: tuple[MemberRecord, ...]) -> None:
        """Greet back.  A guest that is an outdated start of itself is told so: its clock or its disk went back."""
        member = self._members.get(guest.path)
        standing = ""
        if member is not None and member.node.boot == guest.boot:
            standing = "alive" if member.is_living else "dead"
        if self._beliefs.is_outdated(guest):
            newest = Forgotten(guest) if member is None else Alive(member.record)
            self._out.send_facts(address, Welcome(self._beliefs.record, ()), (encode_fact(newest),))
        else:
            self._out.send(address, Welcome(self._beliefs.record, contacts, standing))

    def tell_its_death(self, address: Address, guest: NodeId) -> None:
        """`guest` speaks, and is held dead here."""
        self._welcome(address, guest, ())

    def introduce_to(self, address: Address) -> None:
        """Say who we are, to hear in return who listens at `address`."""
        self._out.send(address, Hello(self._beliefs.record, False))

    def _contacts(self, guest: NodeId) -> list[tuple[MemberRecord, ...]]:
        """Members worth knowing, in slices that fit a datagram each."""
        kin = [m for m in self._members.of(guest.datacenter).values() if m.is_living and m.path != guest.path]
        chosen: dict[str, Member] = {m.path: m for m in self._stream.sample(kin, CONTACTS)}
        if not self._beliefs.is_home(guest):
            for path in self._wan.relays(self._members.datacenter):
                member = self._members.get(path)
                if member is not None and member.is_living:
                    chosen[path] = member
        chosen.pop(self._members.own, None)
        room = self._out.room(Welcome(self._beliefs.record, (), "alive"))
        slices: list[tuple[MemberRecord, ...]] = [()]
        left = room
        for member in chosen.values():
            size = encoded_size(member.record)
            if size > left and slices[-1]:
                slices.append(())
                left = room
            if size <= left:
                slices[-1] = (*slices[-1], member.record)
                left -= size
        return slices

    def on_welcome(self, sender: NodeId, source: Address | None, body: Welcome) -> None:
        """Somebody answered."""
        if body.record.node != sender or sender.path == self._members.own:
            self._out.drop(source or sender.path, f"answers as {body.record.node}")
            return
        is_first, self._is_answered = not self._is_answered, True
        self._accept(body.record, False)
        for record in body.contacts:
            self._accept(record, False)  # gossiped on: others who join just now may not have heard
        if self._stopped or source is None:
            return
        if body.you_are == "dead":
            self._beliefs.renew()
            self.introduce_to(source)
        member = self._members.get(sender.path)
        if member is not None and not member.is_living and member.node.boot == sender.boot:
            self.tell_its_death(source, sender)
        elif is_first and self._beliefs.is_home(sender):
            self._pings.ping(
                source, sender.path, _nothing_more
            )  # exchanges digests, so that repair brings the rest now


def _nothing_more(_sender: NodeId) -> None:
    """An answer whose side effects (round trip, digest) were all that was wanted."""
