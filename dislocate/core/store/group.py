"""The group as a fact: which one keeps the store, and who its servers are, gossiped to everybody.

The newest (epoch, index) of the group wins everywhere: the fact stands in the ledger (`s/group`) and is repaired like any
other, so that an agent learns of the group by being in touch with anybody.  A fact that fits no datagram (a dozen servers
with long names) is not gossiped: agents ask servers, on links.  Whether it is this agent's group, now and after a restart, is
for `consensus.bootstrap` to say.
"""

from dislocate.core.catalog.ledger import Ledger, fingerprint
from dislocate.core.consensus.bootstrap import Founding
from dislocate.core.consensus.messages import GroupId, ServerId
from dislocate.core.identity import NodeId, Path
from dislocate.core.outbox import Outbox
from dislocate.core.store.messages import StoreGroup
from dislocate.core.tunables import RECORD_BUDGET
from dislocate.core.wire import Fact, encoded_size

NAME = "group"  # the one that ships


class GroupNews:
    """The newest fact about this agent's group."""

    def __init__(self, out: Outbox, ledger: Ledger, founding: Founding) -> None:
        self._out = out
        self._ledger = ledger
        self._founding = founding
        self._fact: StoreGroup | None = None

    def restore(self) -> None:
        """What was known before this start stands in the ledger from the first comparison on."""
        if self._founding.group is not None and self._founding.members:
            fact = StoreGroup(self._founding.group, self._founding.members_at, self._founding.members)
            if self._is_news(fact):
                self._enter(fact)

    def tell(self, group: GroupId, index: int, members: tuple[ServerId, ...]) -> None:
        """A server of ours applied this configuration."""
        fact = StoreGroup(group, index, members)
        if self._is_news(fact):
            self._enter(fact)
            self._out.spread(f"s/{NAME}", fact)

    def on_fact(self, sender: NodeId, fact: StoreGroup, repaired: bool) -> bool:
        """Was it news?"""
        if not self._founding.heard(sender.path, fact.group, fact.members, fact.index) or not self._is_news(fact):
            return False
        self._enter(fact)
        if not repaired:
            self._out.spread(f"s/{NAME}", fact)
        return True

    def facts_of(self, _path: Path) -> list[Fact]:
        return [] if self._fact is None else [self._fact]

    def _is_news(self, fact: StoreGroup) -> bool:
        known = self._fact
        if encoded_size(fact) > RECORD_BUDGET:
            return False
        return known is None or (fact.group.epoch, fact.index) > (known.group.epoch, known.index)

    def _enter(self, fact: StoreGroup) -> None:
        self._fact = fact
        text = f"{fact.group.uuid.hex()}/{fact.group.epoch}/{fact.group.branch}/{fact.index}"
        self._ledger.put("s", NAME, fingerprint(text))
