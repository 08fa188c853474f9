"""Beliefs: how the table of members changes, and who is told.

Facts settle by precedence: the higher boot, then the higher incarnation, then left over dead over suspect over alive.
Only a member itself raises its incarnation, so it wins every argument about whether it lives by answering it.

Every change goes through one method here, which keeps the table, the ledger, the rumours, the events and the listeners
in step.  Does not judge: whether a fact is to be believed is decided by the callers.
"""

from collections.abc import Callable
from typing import TypeAlias

import msgspec

from dislocate.core.boundary.events import (
    MemberDied,
    MemberForgotten,
    MemberJoined,
    MemberLeft,
    MemberRefuted,
    MemberRestarting,
    MemberSuspected,
)
from dislocate.core.boundary.settings import Settings
from dislocate.core.boundary.values import MemberState
from dislocate.core.catalog.ledger import Ledger, fingerprint
from dislocate.core.errors import LocalError
from dislocate.core.identity import Address, NodeId, Path
from dislocate.core.membership.members import Member, Members
from dislocate.core.membership.messages import (
    Alive,
    Dead,
    Forgotten,
    Left,
    MemberRecord,
    Restarting,
    Suspect,
)
from dislocate.core.membership.suspicion import Suspicion
from dislocate.core.outbox import Outbox
from dislocate.core.tunables import PROTOCOL
from dislocate.core.wire import Fact, encoded_size

TAGS_BUDGET = 512  # bytes, as memberlist's MetaMaxSize: a record must fit a datagram beside a greeting
FORGOTTEN_KEPT = 1_000  # boots that an operator dropped; the oldest are let go first

# Called as listener(member, state before; None when it was unknown) after each change of a member's state, and when it
# was started anew (a higher boot) or, of this node itself, had to take a higher boot.
Listener: TypeAlias = Callable[[Member, MemberState | None], None]


class Beliefs:
    """What one node holds true of all members."""

    def __init__(self, settings: Settings, out: Outbox, members: Members, ledger: Ledger) -> None:
        self._out = out
        self._members = members
        self._ledger = ledger
        self._forgotten: dict[Path, NodeId] = {}
        self.gone: dict[Path, Member] = {}  # members of this data center that are dead or left
        self.listeners: list[Listener] = []
        self.own = Member(_own_record(settings), MemberState.ALIVE, 0)

    @property
    def record(self) -> MemberRecord:
        """What this node says of itself."""
        return self.own.record

    def is_home(self, node: NodeId) -> bool:
        return node.datacenter == self._members.datacenter

    def address_of(self, record: MemberRecord) -> Address:
        """Where datagrams for `record` go from this data center."""
        return record.gossip if self.is_home(record.node) else record.wan_gossip

    # ---- this node itself

    def introduce(self) -> None:
        """Enter this node."""
        self.own.since = self.own.heard = self._out.now
        self._enter(self.own, quiet=False)

    def renew(
        self, incarnation: int = 0, *, boot: int | None = None, tags: tuple[str, ...] | None = None
    ) -> MemberRecord:
        """Say anew that this node lives, with an incarnation above `incarnation` and the present one.

        With a `boot` it is, from now on, that start of itself."""
        record = self.record
        node = record.node if boot is None else msgspec.structs.replace(record.node, boot=boot)
        record = msgspec.structs.replace(
            record,
            node=node,
            incarnation=max(record.incarnation, incarnation) + 1,
            tags=record.tags if tags is None else tags,
        )
        self._out.node = node
        self._members.set_record(self.own, record)
        self._enter_ledger(self.own)
        self._spread(self.own, Alive(record))
        if boot is not None:
            self._tell_listeners(self.own, self.own.state)
        return record

    # ---- transitions

    def is_forgotten(self, node: NodeId) -> bool:
        dropped = self._forgotten.get(node.path)
        return dropped is not None and node.boot <= dropped.boot

    def is_outdated(self, node: NodeId) -> bool:
        """Whether a later start of `node` is known, or this one was forgotten."""
        member = self._members.get(node.path)
        return self.is_forgotten(node) if member is None else member.node.boot > node.boot

    def meet(self, record: MemberRecord, *, quiet: bool) -> Member:
        """A member unknown so far is alive; `quiet`: the others know that already."""
        member = Member(record, MemberState.ALIVE, self._out.now)
        self._enter(member, quiet=quiet)
        return member

    def revive(self, member: Member, record: MemberRecord) -> None:
        """`member` is alive by a newer record: it refuted, came back, was changed, or was started anew."""
        before, reborn = member.state, record.node.boot > member.node.boot
        self._members.set_record(member, record)
        member.heard = self._out.now
        member.suspicion, member.accusers, member.refused = None, (), False
        if reborn:
            member.restarting_until = member.srtt = member.rttvar = 0
        if before is not MemberState.ALIVE:
            self._members.set_state(member, MemberState.ALIVE, self._out.now)
        self._enter_ledger(member)
        self._spread(member, Alive(record))
        if before is MemberState.SUSPECT and not reborn:
            self._out.notify(MemberRefuted(member.node))
        elif reborn or before is not MemberState.ALIVE:
            self._out.notify(MemberJoined(member.node, record.gossip))
        if reborn or before is not MemberState.ALIVE:
            self._changed(member, before)

    def suspect(self, member: Member, incarnation: int, accusers: tuple[Path, ...], population: int) -> Suspicion:
        """`member` becomes suspect.  The fact stays in the data center: only home judges."""
        before = member.state
        suspicion = Suspicion(incarnation, population, self._out.now)
        suspicion.add(accusers)
        self._raise_incarnation(member, incarnation)
        member.suspicion = suspicion
        self._members.set_state(member, MemberState.SUSPECT, self._out.now)
        self._enter_ledger(member)
        self._out.count("suspicions")
        self._out.notify(MemberSuspected(member.node, suspicion.sorted_accusers))
        self.spread_suspicion(member)
        self._changed(member, before)
        return suspicion

    def spread_suspicion(self, member: Member) -> None:
        """Gossip who accuses `member`, in this data center only."""
        if member.suspicion is not None:
            accusers = member.suspicion.sorted_accusers
            self._out.rumors.put(f"m/{member.path}", Suspect(member.node, member.record.incarnation, accusers))

    def die(self, member: Member, incarnation: int, accusers: tuple[Path, ...], refused: bool) -> None:
        """`member` is dead, on the word of `accusers`."""
        before = member.state
        self._raise_incarnation(member, incarnation)
        member.suspicion, member.accusers, member.refused = None, accusers, refused
        self._members.set_state(member, MemberState.DEAD, self._out.now)
        self._ledger.remove("m", member.path)
        self._out.count("deaths_refused" if refused else "deaths_silent")
        self._out.notify(MemberDied(member.node, refused, accusers))
        self._spread(member, Dead(member.node, member.record.incarnation, accusers, refused))
        self._changed(member, before)

    def leave(self, member: Member, incarnation: int) -> None:
        """`member` said goodbye."""
        before = member.state
        self._raise_incarnation(member, incarnation)
        member.suspicion = None
        self._members.set_state(member, MemberState.LEFT, self._out.now)
        self._ledger.remove("m", member.path)
        self._out.notify(MemberLeft(member.node))
        self._spread(member, Left(member.node, member.record.incarnation))
        self._changed(member, before)

    def restart(self, member: Member, within: int) -> None:
        """`member` announced a restart: nothing happens to it until then."""
        before = member.state
        member.restarting_until = self._out.now + within
        member.suspicion = None
        self._members.version += 1
        if before is MemberState.SUSPECT:
            self._members.set_state(member, MemberState.ALIVE, self._out.now)
        self._out.notify(MemberRestarting(member.node, within))
        self._spread(member, Restarting(member.node, member.record.incarnation, within))
        if before is not member.state:
            self._changed(member, before)

    def forget(self, node: NodeId, reason: str) -> None:
        """Up to this boot `node` is not to be kept any more, and whoever asks is told so."""
        self._forgotten[node.path] = node
        if len(self._forgotten) > FORGOTTEN_KEPT:
            del self._forgotten[next(iter(self._forgotten))]
        self._out.spread(f"m/{node.path}", Forgotten(node))
        self.drop(node.path, reason)

    def drop(self, path: Path, reason: str) -> None:
        """Remove a dead or left member from the table; its services go as if it had left."""
        member = self._members.get(path)
        if member is None:
            return
        before = member.state
        self.gone.pop(path, None)
        self._ledger.remove("m", path)
        self._members.set_state(member, MemberState.LEFT, self._out.now)
        self._members.remove(path)
        self._out.notify(MemberForgotten(member.node, reason))
        self._tell_listeners(member, before)

    def facts_of(self, path: Path) -> list[Fact]:
        """What this node knows of a member, to repair another view."""
        member = self._members.get(path)
        if member is None:
            dropped = self._forgotten.get(path)
            return [] if dropped is None else [Forgotten(dropped)]
        incarnation = member.record.incarnation
        if member.state is MemberState.DEAD:
            return [Dead(member.node, incarnation, member.accusers, member.refused)]
        if member.state is MemberState.LEFT:
            return [Left(member.node, incarnation)]
        return [Alive(member.record)]

    # ---- what every transition does

    def _enter(self, member: Member, *, quiet: bool) -> None:
        self._members.add(member)
        self._enter_ledger(member)
        if not quiet:
            self._spread(member, Alive(member.record))
        self._out.notify(MemberJoined(member.node, member.record.gossip))
        self._changed(member, None)

    def _enter_ledger(self, member: Member) -> None:
        self._ledger.put("m", member.path, fingerprint(f"{member.node}/{member.record.incarnation}"))

    def _raise_incarnation(self, member: Member, incarnation: int) -> None:
        if incarnation > member.record.incarnation:
            self._members.set_record(member, msgspec.structs.replace(member.record, incarnation=incarnation))

    def _spread(self, member: Member, fact: Fact) -> None:
        self._out.spread(f"m/{member.path}", fact)

    def _changed(self, member: Member, before: MemberState | None) -> None:
        if self.is_home(member.node):
            self._out.members = self._members.living(self._members.datacenter)
            if member.is_living:
                self.gone.pop(member.path, None)
            else:
                self.gone[member.path] = member
        self._tell_listeners(member, before)

    def _tell_listeners(self, member: Member, before: MemberState | None) -> None:
        for listener in self.listeners:
            listener(member, before)


def do_tags_fit(tags: tuple[str, ...]) -> bool:
    """Whether a record with these tags can be told to anybody."""
    return encoded_size(tags) <= TAGS_BUDGET


def _own_record(settings: Settings) -> MemberRecord:
    if not do_tags_fit(settings.tags):
        raise LocalError("node.tags", got=settings.tags, expected=f"at most {TAGS_BUDGET} bytes together")
    return MemberRecord(
        node=settings.node,
        incarnation=1,
        nonce=settings.nonce,
        gossip=settings.gossip,
        links=settings.links,
        wan_gossip=settings.wan_gossip or settings.gossip,
        wan_links=settings.wan_links or settings.links,
        public_key=settings.public_key,
        tags=settings.tags,
        protocol=PROTOCOL,
    )
