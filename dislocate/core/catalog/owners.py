"""Owners: whose word is taken, how it is to be read, and when it is forgotten.

Invariants: only an owner's own facts change its instances; a fact is news once.  Of a living member nothing is believed
that a later start of its name says: that is a clone, or a restart whose member record is still on its way, and then repair
brings its facts again.  A dropped owner's facts are refused until it is alive again.  Owners without a member entry are
listened to, in bounded number and for a bounded time, since facts may overtake each other.  The ledger lists the living
owners whose manifest is known, by its stamp and their records; also those that have nothing any more, or whoever was away
while it went would remember it from disk for days.

Facts that came as a repair are not gossiped on: whoever else misses them is repaired as well, and a newcomer who learns
everything at once would otherwise repeat everything.
"""

from collections.abc import Callable

from dislocate.core.boundary.values import MemberState
from dislocate.core.catalog.fate import Fate, fate_after
from dislocate.core.catalog.history import History
from dislocate.core.catalog.ledger import Ledger, fingerprint
from dislocate.core.catalog.messages import InstanceRecord, LoadNote, Manifest
from dislocate.core.catalog.owner import HOST, Owner
from dislocate.core.catalog.queries import Services
from dislocate.core.catalog.records import Change, stamp_of
from dislocate.core.identity import NodeId, Path
from dislocate.core.membership.members import Member, Members
from dislocate.core.outbox import NEVER, Outbox, Timer
from dislocate.core.tunables import BRAKE_RECHECK, UNKNOWN_GRACE, UNKNOWN_OWNERS
from dislocate.core.wire import Fact

MASK = (1 << 64) - 1


class FateDue(Timer, frozen=True):
    """The fate of an owner may change by time; outdated when its member's state has another `since`."""

    path: Path
    since: int


class UnknownDue(Timer, frozen=True):
    """An owner should have a member entry by now; outdated when it was given another time."""

    path: Path
    until: int


class Owners:
    """All owners by path, this node included."""

    def __init__(
        self,
        out: Outbox,
        members: Members,
        ledger: Ledger,
        services: Services,
        history: History,
        brake_engaged: Callable[[str], bool],
        changed: Callable[[Owner], None],
    ) -> None:
        self._out = out
        self._members = members
        self._ledger = ledger
        self._services = services
        self._history = history
        self._brake_engaged = brake_engaged
        self._changed = changed  # called when what the disk should know of another owner changed
        self._owners: dict[Path, Owner] = {}
        self._unknown: dict[Path, int] = {}  # owners without a member entry, oldest first: until when
        self._dropped: dict[Path, int] = {}  # boots up to which facts are refused while the owner is not alive
        self.own = self._owners[out.node.path] = Owner(out.node, out.now)

    def get(self, path: Path) -> Owner | None:
        return self._owners.get(path)

    def others(self) -> list[Owner]:
        """Everybody but this node."""
        return [owner for owner in self._owners.values() if owner is not self.own]

    def of(self, datacenter: str) -> list[Owner]:
        return [owner for owner in self._owners.values() if owner.datacenter == datacenter]

    # ---- own facts

    def add_own(self, record: InstanceRecord, why: str) -> None:
        """This node's own word needs no admission."""
        self.own.keep_drain_end(record, self._out.now)
        change = self.own.said.add(record)
        if change is not None:
            self._services.changed(self.own, change, why)
        self._enter(self.own)

    def replace_own(self, parts: list[Manifest], why: str) -> None:
        for part in parts:
            _, gone = self.own.said.replace(part)
            self._gone(self.own, gone, why)
        self._enter(self.own)

    # ---- others' facts: was it news?

    def on_record(self, _sender: NodeId, fact: InstanceRecord, repaired: bool) -> bool:
        owner = self._admit(fact.owner)
        change = None if owner is None else owner.said.add(fact)
        if owner is None or change is None:
            return False
        if owner.is_confirmed:
            owner.heard = self._out.now
        owner.keep_drain_end(fact, self._out.now)
        self._services.changed(owner, change, fact.cause)
        self._enter(owner)
        self._changed(owner)
        if not repaired:
            self._out.spread(f"i/{owner.path}/{fact.id}", fact)
        return True

    def on_manifest(self, _sender: NodeId, fact: Manifest, repaired: bool) -> bool:
        owner = self._admit(fact.owner)
        if owner is None:
            return False
        is_news, gone = owner.said.replace(fact)
        is_whole = owner.said.stamp == stamp_of(fact)
        if is_whole and not owner.is_confirmed:
            owner.is_confirmed = True
            owner.heard = self._out.now
            self._enter(owner)
        if not is_news:
            return False
        if owner.is_confirmed:
            owner.heard = self._out.now
        self._gone(owner, gone, "its owner no longer lists it")
        self._enter(owner)
        if is_whole and (gone or owner.said.records):
            self._changed(owner)
        if not repaired:
            self._out.spread(manifest_key(fact), fact)
        return True

    def on_load(self, _sender: NodeId, fact: LoadNote, repaired: bool) -> bool:
        """Soft state of a host, or of a known instance; for one that is not (yet) known it is worth nothing."""
        owner = self._admit(fact.owner)
        if owner is None or owner is self.own or (fact.id != HOST and fact.id not in owner.said.records):
            return False
        known = owner.loads.get(fact.id)
        if known is not None and (fact.owner.boot, fact.stamp) <= (known.owner.boot, known.stamp):
            return False
        owner.keep_load(fact)
        self._services.load_changed(owner, fact.id)
        if not repaired:
            self._out.spread(f"l/{owner.path}/{fact.id}", fact)
        return True

    def facts_of(self, path: Path) -> list[Fact]:
        """Records, manifest, then loads, which a newcomer would else not hear before they change; nothing of what only the
        disk says."""
        owner = self._owners.get(path)
        if owner is None or not owner.is_confirmed:
            return []
        return [*owner.said.records.values(), *owner.said.manifest, *owner.loads.values()]

    # ---- the life of owners

    def member_changed(self, member: Member) -> None:
        """The state of a member changed, or it was forgotten."""
        path = member.path
        owner = self._owners.get(path)
        if owner is self.own:
            return
        self._unknown.pop(path, None)
        if self._members.get(path) is None:
            self._drop(path, member.node.boot, "forgotten")
            return
        if member.state is MemberState.ALIVE:
            self._dropped.pop(path, None)
        elif member.state is MemberState.LEFT:
            self._drop(path, member.node.boot, "its agent left")
            return
        if owner is not None and member.is_living and owner.boot > member.node.boot:
            self._forget(owner, "a start that its agent does not know said so")
        elif owner is not None:
            self._judge(owner, member)

    def restore(self, owner: Owner, keep: int) -> None:
        """An owner as the disk remembers it: answered with its age until it is heard or `keep` is over."""
        self._owners[owner.path] = owner
        for record in owner.said.records.values():
            self._services.changed(owner, Change(None, record), "known from disk")
        self._introduce(owner, keep)

    def fate_due(self, timer: FateDue) -> None:
        owner, member = self._owners.get(timer.path), self._members.get(timer.path)
        if owner is not None and member is not None and member.since == timer.since:
            self._judge(owner, member)

    def unknown_due(self, timer: UnknownDue) -> None:
        owner = self._owners.get(timer.path)
        if owner is not None and self._unknown.get(timer.path) == timer.until:
            self._forget(owner, "no such member")

    def timers(self) -> dict[type, Callable[..., None]]:
        return {FateDue: self.fate_due, UnknownDue: self.unknown_due}

    # ---- within

    def _admit(self, node: NodeId) -> Owner | None:
        """The owner whose facts are taken; None: they are refused."""
        path = node.path
        owner, member = self._owners.get(path), self._members.get(path)
        if owner is self.own or (member is not None and member.is_living and node.boot > member.node.boot):
            return None
        if owner is not None:
            return owner
        if (member is None or not member.is_living) and node.boot <= self._dropped.get(path, -1):
            return None
        if member is not None and (member.state is MemberState.LEFT or node.boot < member.node.boot):
            return None
        owner = self._owners[path] = Owner(node, self._out.now)
        self._introduce(owner, UNKNOWN_GRACE)
        return owner if path in self._owners else None

    def _introduce(self, owner: Owner, keep: int) -> None:
        member = self._members.get(owner.path)
        if member is not None:
            self._judge(owner, member)
            return
        until = self._unknown[owner.path] = self._out.now + keep
        self._out.arm(until, UnknownDue(owner.path, until))
        if len(self._unknown) > UNKNOWN_OWNERS:
            self._forget(self._owners[next(iter(self._unknown))], "too many owners without a member")

    def _judge(self, owner: Owner, member: Member) -> None:
        """Read the owner's records by the state of its member, and look again when that changes by time alone."""
        fate, until = fate_after(member.state, member.refused, self._out.now - member.since)
        again = NEVER if until == NEVER else member.since + until
        if fate is Fate.GONE and member.state is MemberState.DEAD and self._brake_engaged(owner.datacenter):
            fate, again = Fate.LOST, self._out.now + BRAKE_RECHECK
        if fate is Fate.GONE:
            self._drop(owner.path, member.node.boot, f"its agent is {member.state.value}")
            return
        if fate is not owner.fate:
            before, owner.fate = owner.fate, fate
            self._services.fate_changed(owner, before, f"its agent is {member.state.value}")
            self._changed(owner)
        if again != NEVER:
            self._out.arm(again, FateDue(owner.path, member.since))
        self._enter(owner)

    def _drop(self, path: Path, boot: int, why: str) -> None:
        self._dropped.pop(path, None)
        self._dropped[path] = boot
        if len(self._dropped) > UNKNOWN_OWNERS:
            del self._dropped[next(iter(self._dropped))]
        owner = self._owners.get(path)
        if owner is not None:
            self._forget(owner, why)

    def _forget(self, owner: Owner, why: str) -> None:
        del self._owners[owner.path]
        owner.is_kept = False
        self._unknown.pop(owner.path, None)
        self._ledger.remove("c", owner.path)
        records = list(owner.said.records.values())
        for record in records:
            self._services.changed(owner, Change(record, None), why)
        self._history.record(owner.path, f"{len(records)} instances dropped", why)
        if records:
            self._changed(owner)

    def _gone(self, owner: Owner, gone: list[Change], why: str) -> None:
        for change in gone:
            if change.before is not None:
                owner.drop_extras(change.before.id)
            self._services.changed(owner, change, why)

    def _enter(self, owner: Owner) -> None:
        """Keep the ledger in step."""
        member = self._members.get(owner.path)
        is_living = owner is self.own or (member is not None and member.is_living)
        if owner.said.manifest and owner.is_confirmed and is_living:
            boot, version = owner.said.stamp  # of two starts with nothing to say, too, one is newer
            self._ledger.put(
                "c", owner.path, (fingerprint(f"{owner.path}/{boot}/{version}") + owner.said.content) & MASK
            )
        else:
            self._ledger.remove("c", owner.path)


def manifest_key(fact: Manifest) -> str:
    """Parts of a manifest are rumours of their own; those of a newer one replace them."""
    return f"c/{fact.owner.path}" + (f"/{fact.part}" if fact.part else "")
