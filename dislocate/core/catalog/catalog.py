"""The catalog: own instances and their health, other owners' records, answers, watches.  (Skeleton.)"""

from collections.abc import Callable
from typing import Any

from dislocate.core.boundary.inputs import CheckCompleted, LoadReported
from dislocate.core.boundary.requests import (
    Deregister,
    Done,
    Heartbeat,
    Register,
    ReplaceConfigured,
    ReportLoad,
    SetDraining,
    SetMaintenance,
    Watch,
)
from dislocate.core.boundary.settings import Recovered, Settings
from dislocate.core.boundary.values import MemberState
from dislocate.core.boundary.views import ServiceView
from dislocate.core.catalog.history import History
from dislocate.core.catalog.ledger import Ledger
from dislocate.core.catalog.messages import DrainOrder, InstanceRecord, LoadNote, Manifest
from dislocate.core.identity import NodeId, Path
from dislocate.core.membership.members import Member, Members
from dislocate.core.outbox import Outbox
from dislocate.core.streams import Streams
from dislocate.core.wire import Fact


class Catalog:
    """What runs where, as this node knows it."""

    def __init__(
        self,
        settings: Settings,
        streams: Streams,
        out: Outbox,
        members: Members,
        ledger: Ledger,
        recovered: Recovered,
    ) -> None:
        self._out = out
        self.history = History()

    def timers(self) -> dict[type, Callable[[Any], None]]:
        return {}

    def start(self) -> None: ...

    # ---- answers

    def names(self) -> tuple[str, ...]:
        """Names of all services that have an instance, sorted."""
        return ()

    def service(self, name: str) -> ServiceView | None:
        """All instances of `name`; None when the name was never known."""
        return None

    # ---- what others say

    def on_record(self, sender: NodeId, fact: InstanceRecord, repaired: bool) -> bool:
        return False

    def on_manifest(self, sender: NodeId, fact: Manifest, repaired: bool) -> bool:
        return False

    def on_load(self, sender: NodeId, fact: LoadNote, repaired: bool) -> bool:
        return False

    def on_drain_order(self, sender: NodeId, fact: DrainOrder, repaired: bool) -> bool:
        return False

    def facts_of(self, path: Path) -> list[Fact]:
        """What this node knows of an owner's instances: its records, then its manifest."""
        return []

    def member_changed(self, member: Member, before: MemberState | None) -> None: ...

    # ---- what this host says

    def check_completed(self, completed: CheckCompleted) -> None: ...
    def host_load_reported(self, reported: LoadReported) -> None: ...
    def request_cancelled(self, request_id: int) -> None: ...

    def register(self, request_id: int, request: Register) -> None:
        self._out.reply(request_id, Done())

    def deregister(self, request_id: int, request: Deregister) -> None: ...
    def heartbeat(self, request_id: int, request: Heartbeat) -> None: ...
    def report_load(self, request_id: int, request: ReportLoad) -> None: ...
    def set_draining(self, request_id: int, request: SetDraining) -> None: ...
    def set_maintenance(self, request_id: int, request: SetMaintenance) -> None: ...
    def replace_configured(self, request_id: int, request: ReplaceConfigured) -> None: ...
    def watch(self, request_id: int, request: Watch) -> None: ...
