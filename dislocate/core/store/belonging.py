"""Belonging: which group this agent belongs to, told to others and heard from them.

It carries out what the founding of the group asks for (`consensus.bootstrap`): records to the disk, messages by datagram or,
where they are too long for one, on the link; and it gossips and hears the group as a fact (`group`).  What follows for this
agent, to become a server or to cease to be one, its owner does.
"""

from collections.abc import Callable

from msgspec.structs import replace

from dislocate.core.boundary.events import GroupJoined, StoreTroubled
from dislocate.core.boundary.settings import Settings
from dislocate.core.boundary.values import StoredRecord
from dislocate.core.catalog.ledger import Ledger
from dislocate.core.consensus.bootstrap import Founding
from dislocate.core.consensus.founding_duties import Admitted, Expelled, Founded, Joined, Write
from dislocate.core.consensus.messages import Configuration, GroupId
from dislocate.core.consensus.promises import members_of
from dislocate.core.identity import Address, NodeId, Path
from dislocate.core.membership.members import Members
from dislocate.core.outbox import Outbox
from dislocate.core.store.disks import Disks
from dislocate.core.store.durable import Found
from dislocate.core.store.group import GroupNews
from dislocate.core.store.messages import GroupAsked, GroupTold, StoreGroup
from dislocate.core.store.serverlinks import ServerLinks
from dislocate.core.tunables import DATAGRAM_BUDGET
from dislocate.core.wire import Fact, encode_envelope

LIMIT = 1 << 61  # of numbers that others say


class Belonging:
    """One agent's ties to its group."""

    def __init__(
        self,
        settings: Settings,
        out: Outbox,
        members: Members,
        ledger: Ledger,
        links: ServerLinks,
        founding: Founding,
    ) -> None:
        self.enrolled: Callable[[Found | None], None] = lambda _found: None  # this agent is a server from now on
        self.expelled: Callable[[], None] = lambda: None  # and no more
        self.moved: Callable[[], None] = lambda: None  # the group is another, or known for the first time
        self.left_behind: tuple[str, ...] = ()  # keys of what an earlier membership has on the disk
        self._settings = settings
        self._out = out
        self._members = members
        self._links = links
        self._founding = founding
        self._news = GroupNews(out, ledger, founding)
        self.disks = Disks(members, founding)
        self._problem_told = ""

    def restore(self) -> None:
        self._news.restore()

    # ---- what others say

    def on_group(self, sender: NodeId, fact: StoreGroup, repaired: bool) -> bool:
        """By gossip.  Was it news?"""
        if not 0 <= fact.index < LIMIT:
            self._out.drop(sender.path, "a group that cannot be")
            return False
        news = self._news.on_fact(sender, fact, repaired)
        self.carry_out()
        return news

    def facts_of(self, path: Path) -> list[Fact]:
        """What repair tells of the group."""
        return self._news.facts_of(path)

    def asked(self, sender: NodeId, source: Address | None, asked: GroupAsked) -> None:
        """Who asks on a link says by that that it wants to keep it."""
        self.disks.hear(sender, asked.disk)
        told = self._with_level(self._founding.asked(sender, asked))
        if source is None:
            self._links.claim(sender)
            self._out.send_message(sender, told)
        else:
            self._say(sender.path, told)
        self.carry_out()

    def told(self, sender: NodeId, told: GroupTold) -> bool:
        """Whether it can be."""
        if not (0 <= told.members_at < LIMIT and 0 <= told.disk < 4 * LIMIT):
            self._out.drop(sender.path, "a group that cannot be")
            return False
        self.disks.hear(sender, told.disk)
        self._founding.told(sender, told)
        self.carry_out()
        return True

    # ---- what this agent says

    def applied(self, group: GroupId, index: int, configuration: Configuration, *, leads: bool) -> None:
        """A configuration of the group was committed, as this server saw: everybody is to know who the servers are."""
        self._news.tell(group, index, members_of(configuration))
        self._founding.configured(configuration, index, leads=leads)
        self.carry_out()

    def ask_disk(self, path: Path) -> bool:
        """Ask an agent which disk it has; False: nobody knows it."""
        if self._members.get(path) is None:
            return False
        self._say(path, self._founding.question())
        return True

    def carry_out(self) -> None:
        """What the founding of the group asks for."""
        duties = self._founding.take()
        for write in duties.writes:
            self._write(write)
        for path, message in duties.messages:
            self._say(path, message)
        for happened in duties.happened:
            if isinstance(happened, Joined):
                self._out.notify(GroupJoined(happened.group.uuid.hex(), happened.group.epoch))
            elif isinstance(happened, Founded):
                self.enrolled(Found.of_founding(happened.configuration))
            elif isinstance(happened, Admitted):
                self.enrolled(None)
            elif isinstance(happened, Expelled):
                self.expelled()
        if duties.happened:
            self.moved()
        if self._founding.problem != self._problem_told:
            self._problem_told = self._founding.problem
            self._out.notify(StoreTroubled(self._problem_told))

    def _write(self, write: Write) -> None:
        records = write.records
        if write.drops_store:
            kept = {record.key for record in records}
            records += tuple(StoredRecord(key, None) for key in self.left_behind if key not in kept)

        def stored() -> None:
            if write.drops_store:
                self.left_behind = ()
            self._founding.stored(write.ticket)
            self.carry_out()

        def failed(reason: str) -> None:
            self._founding.store_failed(write.ticket, reason)
            self.carry_out()

        self._out.store(records, sync=True, then=stored, failed=failed)

    def _say(self, path: Path, message: GroupAsked | GroupTold) -> None:
        """By datagram; what is too long for one (many servers with long names) on the link, where there is one."""
        member = self._members.get(path)
        if member is None:
            return
        if isinstance(message, GroupTold):
            message = self._with_level(message)
        if len(encode_envelope(self._out.node, message)) > DATAGRAM_BUDGET:
            node = self._links.node(path)
            if node is not None:
                self._out.send_message(node, message)
            return
        is_home = member.node.datacenter == self._settings.node.datacenter
        self._out.send_facts(member.record.gossip if is_home else member.record.wan_gossip, message, ())

    def _with_level(self, told: GroupTold) -> GroupTold:
        return replace(told, level=self._settings.feature_level)
