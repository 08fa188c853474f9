"""The runs' part of an agent: the worker, visits, and on the server that leads the control of all runs.

Here they are put together and given the store (`store.face`) and the fleet, as membership and the catalog see it.
"""

from collections.abc import Callable
from typing import Any

from dislocate.core.boundary.inputs import TaskProgressed
from dislocate.core.boundary.runs import Visit
from dislocate.core.boundary.settings import Recovered
from dislocate.core.boundary.values import MemberState
from dislocate.core.boundary.views import DatacenterView, InstanceView
from dislocate.core.catalog.catalog import Catalog
from dislocate.core.identity import NodeId, Path
from dislocate.core.membership.members import Members
from dislocate.core.membership.wan import Wan
from dislocate.core.outbox import Outbox
from dislocate.core.runs.agent.hosting import Hosting
from dislocate.core.runs.agent.visits import Visits
from dislocate.core.runs.agent.worker import Worker
from dislocate.core.runs.control.leading import Leading
from dislocate.core.runs.door import StoreDoor
from dislocate.core.runs.targeting import Candidate, candidates, parse_target
from dislocate.core.streams import Streams


class Fleet:
    """The fleet as this node sees it: a `FleetDoor`."""

    def __init__(self, members: Members, wan: Wan, catalog: Catalog) -> None:
        self._members = members
        self._wan = wan
        self._catalog = catalog

    def is_reachable(self, path: Path) -> bool:
        """Whether the node is alive and its data center within reach."""
        member = self._members.get(path)
        if member is None or not member.is_living:
            return False
        datacenter = member.node.datacenter
        return datacenter == self._members.datacenter or self._wan.is_reachable(datacenter)

    def instances(self, service: str) -> tuple[InstanceView, ...]:
        view = self._catalog.service(service)
        return () if view is None else view.instances

    def datacenters(self) -> dict[str, DatacenterView]:
        return self._wan.views()

    def drained(self) -> tuple[str, ...]:
        """Data centers that are being drained."""
        return self._catalog.drained_datacenters()

    def first_relay(self, datacenter: str) -> Path | None:
        """Who does what is done once for a data center."""
        return next(iter(self._wan.relays(datacenter)), None)

    def candidates(self) -> tuple[Candidate, ...]:
        """Whom expressions of targets may mean, by path: the dead too, so that they are told and never missing."""
        tags = {member.path: member.record.tags for member in self._members if member.state is not MemberState.LEFT}
        names = self._catalog.names()
        return candidates(tags, ((name, instance.node) for name in names for instance in self.instances(name)))

    def matching(self, expression: str) -> tuple[Path, ...]:
        """The nodes that an expression of targets selects now, by path.  Raises `LocalError` for what is none."""
        return parse_target(expression).select(self.candidates())


class RunsPart:
    """One agent's part."""

    def __init__(
        self,
        streams: Streams,
        out: Outbox,
        members: Members,
        store: StoreDoor,
        fleet: Fleet,
        recovered: Recovered,
    ) -> None:
        self.hosting = Hosting(out)
        self.visits = Visits(out, members, self.hosting, fleet.is_reachable)
        self._worker = Worker(out, store, streams, recovered)
        self._leading = Leading(out, store, fleet)

    def timers(self) -> dict[type, Callable[[Any], None]]:
        return {**self._worker.timers(), **self.visits.timers(), **self._leading.timers()}

    def start(self) -> None:
        self._worker.start()
        self._leading.start()

    def task_progressed(self, progressed: TaskProgressed) -> None:
        task_id, outcome = progressed.task_id, progressed.outcome
        if not self._worker.task_progressed(task_id, outcome):
            self.hosting.task_progressed(task_id, outcome)

    def visit(self, request_id: int, request: Visit) -> None:
        self.visits.request(request_id, request)

    def cancel(self, request_id: int) -> None:
        self.visits.cancel(request_id)

    def link_opened(self, peer: NodeId) -> None:
        self.visits.link_opened(peer)

    def link_lost(self, peer: NodeId, reason: str) -> None:
        self.hosting.link_lost(peer)
        self.visits.link_lost(peer, reason)

    def send_failed(self, peer: NodeId) -> None:
        self.visits.send_failed(peer)
