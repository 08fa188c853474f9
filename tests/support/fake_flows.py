"""Flows without a node: rows and policies that a test sets; what it does not set goes to the nearest data center."""

from collections.abc import Mapping
from typing import Any

from dislocate.core.balance.nearby import nearest_shares
from dislocate.core.boundary.balance import FlowRow, PlaceInput, Policy, Route, ServiceFlows, Share
from dislocate.core.boundary.events import FlowsChanged
from dislocate.core.boundary.views import DatacenterView


class FakeFlows:
    """`node.flows` of a node in `home`."""

    def __init__(self, home: str, catalog: Any, datacenters: Mapping[str, DatacenterView]) -> None:
        self._home, self._catalog, self._datacenters = home, catalog, datacenters
        self._rows: dict[str, dict[str, tuple[Share, ...]]] = {}
        self._policies: dict[str, Policy] = {}
        self._inputs: dict[str, tuple[PlaceInput, ...]] = {}
        self._routes: dict[str, Route] = {}
        self._epoch = 0

    def put(self, route: Route) -> None:
        """The route of its service, as it stands."""
        self._routes[route.service] = route

    def share(self, service: str, source: str = "", **shares: float) -> FlowsChanged:
        """Callers in `source` (else at home) of `service` go where `shares` say from now on; the event that tells it."""
        row = tuple(Share(name, share) for name, share in shares.items())
        self._rows.setdefault(service, {})[source or self._home] = row
        return self._changed(service)

    def govern(self, service: str, policy: Policy) -> FlowsChanged:
        self._policies[service] = policy
        return self._changed(service)

    def told(self, service: str, *inputs: PlaceInput) -> FlowsChanged:
        """What the row of home is computed from."""
        self._inputs[service] = inputs
        return self._changed(service)

    def _changed(self, service: str) -> FlowsChanged:
        self._epoch += 1
        return FlowsChanged(service, self._epoch)

    # ---- as the node's

    def policy(self, service: str) -> Policy:
        return self._policies.get(service, Policy())

    def services(self) -> tuple[str, ...]:
        return tuple(sorted({*self._rows, *self._inputs}))

    def route(self, service: str) -> Route | None:
        if service in self._routes:
            return self._routes[service]
        view = self._catalog.service(service)
        if view is None:
            return None
        policy = self._policies.get(service, Policy())
        shares = self._rows.get(service, {}).get(self._home)
        if shares is None:
            costs = {name: each.rtt for name, each in self._datacenters.items()}
            shares = nearest_shares(self._home, view.instances, policy, costs)
        return Route(
            service=service,
            home=self._home,
            index=view.index,
            epoch=self._epoch,
            policy=policy,
            shares=shares,
            instances=view.instances,
            as_of=0,
        )

    def of(self, service: str) -> ServiceFlows | None:
        route = self.route(service)
        if route is None:
            return None
        rows = {**self._rows.get(service, {}), self._home: route.shares}
        found = tuple(_row(source, rows[source]) for source in sorted(rows))
        return ServiceFlows(
            service=service,
            policy=route.policy,
            home=next(row for row in found if row.source == self._home),
            rows=found,
            inputs=self._inputs.get(service, ()),
            explanation=("a test says so",),
        )


def _row(source: str, shares: tuple[Share, ...]) -> FlowRow:
    return FlowRow(
        source=source,
        shares=shares,
        target=shares,
        rho=0.8,
        overload=False,
        computed_by=f"{source}/a1",
        epoch=3,
        as_of=0,
    )
