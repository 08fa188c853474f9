"""The catalog: own instances and their health, other owners' records, answers, watches.

A front: it puts the parts together, and says for each request, fact and input which part decides.

    own, checks, health, publisher   what runs on this host, and how it is said
    owners, records, fate            whose word is taken, how it merges, what an agent's death does to it
    queries, watches, history        what is answered, who waits for it, what happened
    drains, loads, lastknown         operators' orders, soft load, the disk's memory of others
"""

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
from dislocate.core.catalog.drains import Drains
from dislocate.core.catalog.history import History
from dislocate.core.catalog.lastknown import LastKnown
from dislocate.core.catalog.ledger import Ledger
from dislocate.core.catalog.loads import Loads
from dislocate.core.catalog.messages import DrainOrder, InstanceRecord, LoadNote, Manifest
from dislocate.core.catalog.own import REGISTER_FIRST, OwnInstances, unknown_instance
from dislocate.core.catalog.owner import HOST, Owner
from dislocate.core.catalog.owners import Owners
from dislocate.core.catalog.publisher import Publisher
from dislocate.core.catalog.queries import Services
from dislocate.core.catalog.validation import check_load, refused
from dislocate.core.catalog.watches import Watches
from dislocate.core.errors import LocalError
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
        self._settings = settings
        self._out = out
        self._members = members
        self._recovered = recovered
        # Whom the node asks for what the catalog cannot know: whether removals are held, reachability, and age.
        self.brake: Callable[[str], str] = lambda _datacenter: ""
        self.is_reachable: Callable[[str], bool] = lambda _datacenter: True
        self.as_of: Callable[[str], int] = lambda _datacenter: out.now

        self.history = History(out.unix)
        self._watches = Watches(out, settings.node)
        self._services = Services(
            out,
            self._watches,
            self.history,
            self._owner_as_of,
            lambda datacenter: self.is_reachable(datacenter),
            self._last_output,
        )
        self._last_known = LastKnown(out, members)
        self._owners = Owners(
            out,
            members,
            ledger,
            self._services,
            self.history,
            lambda datacenter: bool(self.brake(datacenter)),
            self._last_known.changed,
        )
        self._drains = Drains(out, members, ledger, self.history, self._drain_ordered)
        self._loads = Loads(out, self._owners.own, self._services.load_changed)
        publisher = Publisher(settings, out, self._owners, self._drains)
        self._own = OwnInstances(streams["checks"], out, publisher, self._own_ids_changed)

    def timers(self) -> dict[type, Callable[[Any], None]]:
        parts = (self._own, self._owners, self._drains, self._loads, self._last_known)
        return {timer: handler for part in parts for timer, handler in part.timers().items()}

    def start(self) -> None:
        """Take up what was configured and what the disk remembers.  Raises `LocalError` for a bad configuration."""
        self._drains.restore(self._recovered)
        self._last_known.restore(self._recovered, self._owners)
        self._own.start(self._settings.services, self._recovered)

    # ---- answers

    def names(self, prefix: str = "") -> tuple[str, ...]:
        """Names of all services that have an instance and start with `prefix`, sorted."""
        return self._services.names(prefix)

    def service(self, name: str) -> ServiceView | None:
        """All instances of `name`, best first; None when the name was never known."""
        return self._services.service(name)

    # ---- what others say: was it news?

    def on_record(self, sender: NodeId, fact: InstanceRecord, repaired: bool) -> bool:
        return self._owners.on_record(sender, fact, repaired)

    def on_manifest(self, sender: NodeId, fact: Manifest, repaired: bool) -> bool:
        return self._owners.on_manifest(sender, fact, repaired)

    def on_load(self, sender: NodeId, fact: LoadNote, repaired: bool) -> bool:
        return self._owners.on_load(sender, fact, repaired)

    def on_drain_order(self, sender: NodeId, fact: DrainOrder, repaired: bool) -> bool:
        return self._drains.on_order(sender, fact, repaired)

    def facts_of(self, path: Path) -> list[Fact]:
        """What this node knows of an owner's instances (`c/` in the ledger): its records, then its manifest."""
        return self._owners.facts_of(path)

    def drains_of(self, target: str) -> list[Fact]:
        """What this node knows of drains of a node or data center (`d/` in the ledger)."""
        return self._drains.facts_of(target)

    def member_changed(self, member: Member, _before: MemberState | None) -> None:
        """The state of a member changed; one that `Members` no longer has was forgotten."""
        if member.path == self._out.node.path:
            self._own.renamed()
        self._owners.member_changed(member)

    def wan_changed(self, datacenter: str) -> None:
        """`datacenter` became reachable, or ceased to be: answers with instances there changed."""
        records = [record for owner in self._owners.of(datacenter) for record in owner.said.records.values()]
        for name in dict.fromkeys(record.service for record in records):
            self._services.touch(name)

    # ---- what this host says

    def check_completed(self, completed: CheckCompleted) -> None:
        self._own.checks.completed(completed)

    def host_load_reported(self, reported: LoadReported) -> None:
        try:
            self._loads.report(HOST, check_load(reported.load))
        except LocalError as error:
            self._out.drop("host load", str(error))

    def request_cancelled(self, request_id: int) -> None:
        self._watches.cancel(request_id)

    def register(self, request_id: int, request: Register) -> None:
        self._own.register(request_id, request)

    def deregister(self, request_id: int, request: Deregister) -> None:
        self._own.deregister(request_id, request)

    def heartbeat(self, request_id: int, request: Heartbeat) -> None:
        self._own.heartbeat(request_id, request)

    def report_load(self, request_id: int, request: ReportLoad) -> None:
        if self._own.get(request.instance_id) is None:
            self._out.reply(request_id, unknown_instance(request.instance_id, REGISTER_FIRST))
            return
        try:
            self._loads.report(request.instance_id, check_load(request.load))
        except LocalError as error:
            self._out.reply(request_id, refused(error))
            return
        self._out.reply(request_id, Done())

    def is_own(self, instance_id: str) -> bool:
        """Whether this agent owns an instance of that id."""
        return self._own.get(instance_id) is not None

    def calls_told(self, instance_id: str, errors: float, p99: float) -> None:
        """How calls to an instance of this host go, as callers say: part of its load."""
        if self.is_own(instance_id):
            self._loads.called(instance_id, errors, p99)

    def set_draining(self, request_id: int, request: SetDraining) -> None:
        if request.scope == "instance":
            self._own.set_draining(request_id, request)
        else:
            self._drains.request(request_id, request)

    def set_maintenance(self, request_id: int, request: SetMaintenance) -> None:
        self._own.set_maintenance(request_id, request)

    def replace_configured(self, request_id: int, request: ReplaceConfigured, accepted: Callable[[], None]) -> None:
        """`accepted` is called when the instances were taken over, and not at all when they are refused."""
        self._own.replace_configured(request_id, request, accepted)

    def watch(self, request_id: int, request: Watch) -> None:
        self._watches.watch(request_id, request)

    # ---- what the parts ask of each other

    def _owner_as_of(self, owner: Owner) -> int:
        """When the knowledge of an owner's instances was current, as a local instant."""
        if owner is self._owners.own:
            return self._out.now
        member = self._members.get(owner.path)
        if not owner.is_confirmed or member is None:
            return owner.heard
        return self.as_of(owner.datacenter) if member.is_living else max(owner.heard, member.heard)

    def _last_output(self, owner: Owner, instance_id: str) -> str:
        instance = self._own.get(instance_id) if owner is self._owners.own else None
        return "" if instance is None else instance.output

    def _own_ids_changed(self, gone: str | None) -> None:
        if gone is None:
            self._loads.introduce()
        else:
            self._loads.forget(gone)

    def _drain_ordered(self) -> None:
        self._own.republish()
