"""Repair: two views that differ are made equal by telling each what the other knows better.  (Skeleton.)"""

from collections.abc import Callable
from typing import Any

from dislocate.core.boundary.settings import Settings
from dislocate.core.catalog.ledger import Ledger
from dislocate.core.catalog.messages import LedgerDigest, LedgerInventory
from dislocate.core.identity import Address, NodeId, Path
from dislocate.core.membership.members import Members
from dislocate.core.outbox import Outbox
from dislocate.core.streams import Streams
from dislocate.core.wire import Fact


class Repair:
    """Compares ledgers with peers, by datagrams in the data center and on links between data centers."""

    def __init__(self, settings: Settings, streams: Streams, out: Outbox, members: Members, ledger: Ledger) -> None:
        self._out = out
        self._ledger = ledger
        # By the first word of a ledger key: what this node knows of that path, as facts.
        self.providers: dict[str, Callable[[Path], list[Fact]]] = {}

    def timers(self) -> dict[type, Callable[[Any], None]]:
        return {}

    def start(self) -> None: ...

    def compare(self, peer: NodeId, source: Address | None, digest: int) -> None:
        """`peer` said the total of its ledger; where it differs from ours, start a repair (not too often per peer)."""

    def on_digest(self, sender: NodeId, source: Address | None, body: LedgerDigest) -> None: ...
    def on_inventory(self, sender: NodeId, source: Address | None, body: LedgerInventory) -> None: ...
