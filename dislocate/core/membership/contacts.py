"""Contacts: whom to greet after a restart, kept on disk.

A bounded number of members' addresses, without sync: losing them costs nothing while a seed answers.  They are written
together a while after the first change, and again only when a member has another address: never on each incarnation.
"""

from collections.abc import Callable

from dislocate.core.boundary.settings import Recovered
from dislocate.core.boundary.values import MemberState, StoredRecord
from dislocate.core.identity import Address, Path
from dislocate.core.membership.beliefs import Beliefs
from dislocate.core.membership.members import Member, Members
from dislocate.core.outbox import Outbox, Timer
from dislocate.core.units import SECOND

CONTACTS_KEPT = 64
WRITE_AFTER = 5 * SECOND
PREFIX = "member/"


class ContactsDue(Timer, frozen=True):
    """Write what changed."""


def recovered_contacts(recovered: Recovered) -> dict[Path, Address]:
    """Addresses that the disk remembers, by path."""
    found: dict[Path, Address] = {}
    for record in recovered.records:
        if record.key.startswith(PREFIX) and record.value is not None and len(found) < CONTACTS_KEPT:
            found[record.key.removeprefix(PREFIX)] = record.value.decode("utf-8", "replace")
    return found


class Contacts:
    """The part of the table that is worth keeping."""

    def __init__(self, out: Outbox, members: Members, beliefs: Beliefs, recovered: Recovered) -> None:
        self._out = out
        self._members = members
        self._beliefs = beliefs
        self._kept = recovered_contacts(recovered)
        self._changed: dict[Path, None] = {}

    def timers(self) -> dict[type, Callable[[ContactsDue], None]]:
        return {ContactsDue: self._write}

    def member_changed(self, member: Member, _before: MemberState | None) -> None:
        """Called after each change of another member, also of other data centers."""
        is_room = len(self._kept) + len(self._changed) < CONTACTS_KEPT
        known = self._kept.get(member.path)
        wanted = self._wanted(member.path)
        if known == wanted or (known is None and not is_room):
            return
        if not self._changed:
            self._out.arm(self._out.now + WRITE_AFTER, ContactsDue())
        self._changed[member.path] = None

    def _wanted(self, path: Path) -> Address | None:
        """The address to keep: also of the dead, who may come back, but not of those that left."""
        member = self._members.get(path)
        if member is None or member.state is MemberState.LEFT:
            return None
        return self._beliefs.address_of(member.record)

    def _write(self, _timer: ContactsDue) -> None:
        records: list[StoredRecord] = []
        for path in self._changed:
            address = self._wanted(path)
            if address is None:
                self._kept.pop(path, None)
            else:
                self._kept[path] = address
            records.append(StoredRecord(PREFIX + path, None if address is None else address.encode()))
        self._changed.clear()
        self._out.store(tuple(records), sync=False)
