"""Between data centers: relays, their links, reachability.  (Skeleton.)"""

from collections.abc import Callable
from typing import Any

from dislocate.core.boundary.settings import Settings
from dislocate.core.boundary.values import MemberState, Refusal
from dislocate.core.boundary.views import DatacenterView
from dislocate.core.catalog.ledger import Ledger
from dislocate.core.identity import Address, NodeId
from dislocate.core.membership.members import Member, Members
from dislocate.core.membership.messages import Freshness, LinkHeartbeat, WanReport
from dislocate.core.outbox import Outbox
from dislocate.core.streams import Streams
from dislocate.core.wire import Fact


class Wan:
    """One node's view of the other data centers, and its duties when it is a relay."""

    def __init__(self, settings: Settings, streams: Streams, out: Outbox, members: Members, ledger: Ledger) -> None:
        self._settings = settings
        self._out = out
        self._members = members
        self.is_relay = False

    def timers(self) -> dict[type, Callable[[Any], None]]:
        return {}

    def start(self) -> None: ...

    def views(self) -> dict[str, DatacenterView]:
        """Every data center known, by name, sorted."""
        return {}

    def is_reachable(self, datacenter: str) -> bool:
        return True

    def as_of(self, datacenter: str) -> int:
        """When (local monotonic) the knowledge of `datacenter` was current."""
        return self._out.now

    def freshness(self) -> tuple[Freshness, ...]:
        """What a ping or ack tells of the age of other data centers."""
        return ()

    def learn_freshness(self, rows: tuple[Freshness, ...]) -> None: ...

    def forward(self, news: list[tuple[tuple[str, ...], Fact]]) -> None:
        """A relay passes on what this turn spread."""

    def member_changed(self, member: Member, before: MemberState | None) -> None: ...
    def on_heartbeat(self, sender: NodeId, source: Address | None, body: LinkHeartbeat) -> None: ...

    def on_report(self, sender: NodeId, fact: WanReport, repaired: bool) -> bool:
        return False

    def link_opened(self, peer: NodeId) -> None: ...
    def link_lost(self, peer: NodeId, reason: str) -> None: ...
    def send_failed(self, peer: NodeId, reason: Refusal) -> None: ...
