"""The balancing part of an agent: what its callers do, and what they are told."""

from collections.abc import Callable
from typing import Any

from dislocate.core.balance.callers import Callers
from dislocate.core.balance.nearby import nearest_shares
from dislocate.core.boundary.balance import FlowRow, PlaceInput, Policy, ReportUsage, Route, ServiceFlows, Share
from dislocate.core.boundary.requests import Done
from dislocate.core.catalog.catalog import Catalog
from dislocate.core.identity import NodeId
from dislocate.core.membership.members import Members
from dislocate.core.membership.wan import Wan
from dislocate.core.outbox import Outbox


class FlowViews:
    """What the edge may ask: immutable answers, made when they are asked for."""

    def __init__(self, part: "BalancePart") -> None:
        self._part = part

    def of(self, service: str) -> ServiceFlows | None:
        """The rows of `service`, what they rest on and why; None when the name was never known."""
        return self._part.flows(service)

    def route(self, service: str) -> Route | None:
        """All that a picker here needs of `service`; None when the name was never known."""
        return self._part.route(service)

    def services(self) -> tuple[str, ...]:
        """Names of the services of which something is known beyond the catalog: they are called somewhere."""
        return self._part.services()


class BalancePart:
    """One agent's part."""

    def __init__(self, node: NodeId, out: Outbox, members: Members, wan: Wan, catalog: Catalog) -> None:
        self.views = FlowViews(self)
        self._node = node
        self._home = node.datacenter
        self._out = out
        self._members = members
        self._wan = wan
        self._catalog = catalog
        self._callers = Callers()

    def timers(self) -> dict[type, Callable[[Any], None]]:
        return {}

    def report_usage(self, request_id: int, request: ReportUsage) -> None:
        """A caller of this host says what it did."""
        refusal = self._callers.report(request, self._out.now)
        self._out.reply(request_id, refusal or Done())

    def services(self) -> tuple[str, ...]:
        return tuple(self._callers.offered())

    def _costs(self) -> dict[str, int | None]:
        names = [name for name in self._members.datacenters() if name != self._home]
        return {self._home: 0, **{name: self._wan.rtt(name) for name in names}}

    def _shares(self, service: str) -> tuple[Share, ...]:
        view = self._catalog.service(service)
        instances = () if view is None else view.instances
        return nearest_shares(self._home, instances, Policy(), self._costs())

    def route(self, service: str) -> Route | None:
        view = self._catalog.service(service)
        if view is None:
            return None
        return Route(
            service=service,
            home=self._home,
            index=view.index,
            epoch=0,
            policy=Policy(),
            shares=self._shares(service),
            instances=view.instances,
            as_of=self._out.now,
        )

    def flows(self, service: str) -> ServiceFlows | None:
        if self._catalog.service(service) is None:
            return None
        shares = self._shares(service)
        row = FlowRow(
            source=self._home,
            shares=shares,
            target=shares,
            rho=Policy().target_load,
            overload=False,
            computed_by=self._node.path,
            epoch=0,
            as_of=self._out.now,
        )
        inputs: tuple[PlaceInput, ...] = ()
        words = ("nobody reports what instances can carry: the nearest data center that has somebody",)
        return ServiceFlows(service=service, policy=Policy(), home=row, rows=(row,), inputs=inputs, explanation=words)
