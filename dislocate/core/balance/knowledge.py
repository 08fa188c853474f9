"""Knowledge: what one node knows of the services that are called, and the answers made of it.

Reading changes nothing: answers are made when they are asked for, from what the turns before left here.  Written by `part`
alone.  A service that nobody calls goes to the nearest data center that has somebody; its route has the epoch of the
geography, which grows when distances or policies change.
"""

from msgspec.structs import replace

from dislocate.core.balance.called import Called, answering
from dislocate.core.balance.endpoints import lives
from dislocate.core.balance.explain import explain
from dislocate.core.balance.flows import cost_of, is_other_cost
from dislocate.core.balance.gathering import Numbers
from dislocate.core.balance.messages import FlowReport
from dislocate.core.balance.nearby import nearest_shares
from dislocate.core.balance.picture import Picture, Told, picture, told_by
from dislocate.core.balance.policies import Policies
from dislocate.core.balance.reports import Heard, Reports
from dislocate.core.balance.warming import Warming
from dislocate.core.boundary.balance import FlowRow, Policy, Route, ServiceFlows, Share
from dislocate.core.boundary.views import InstanceView
from dislocate.core.catalog.catalog import Catalog
from dislocate.core.identity import NodeId
from dislocate.core.membership.members import Members
from dislocate.core.membership.wan import Wan
from dislocate.core.outbox import Outbox
from dislocate.core.runs.door import StoreDoor
from dislocate.core.tunables import RTT_UNKNOWN


class Knowledge:
    """One node's."""

    def __init__(
        self, node: NodeId, out: Outbox, members: Members, wan: Wan, catalog: Catalog, store: StoreDoor
    ) -> None:
        self.policies = Policies(store.held)
        self.reports = Reports(wan.relays)
        self.warming = Warming()
        self.called: dict[str, Called] = {}
        self.offered: dict[str, tuple[float, float]] = {}  # by callers here, as last told: first attempts, retries
        self.geography = 0  # epoch of the routes of services that nobody calls
        self._path = node.path
        self._home = node.datacenter
        self._out = out
        self._members = members
        self._wan = wan
        self._catalog = catalog
        self._rtts: dict[str, int | None] = {}  # to other data centers; None: out of reach

    # ---- the fleet

    def measure(self) -> bool:
        """Look at distances; whether one is clearly another than before.  Only then it changes, so that rows stay."""
        moved = False
        for name in self._members.datacenters():
            if name == self._home:
                continue
            rtt = (self._wan.rtt(name) or RTT_UNKNOWN) if self._wan.is_reachable(name) else None
            if name not in self._rtts or is_other_cost(self._rtts[name], rtt):
                self._rtts[name] = rtt
                moved = True
        return moved

    def instances(self, service: str) -> tuple[InstanceView, ...]:
        view = self._catalog.service(service)
        return () if view is None else view.instances

    def living_here(self, service: str) -> tuple[InstanceView, ...]:
        """Those in this data center that carry load."""
        return tuple(one for one in self.instances(service) if one.datacenter == self._home and lives(one))

    def nearest(self, service: str) -> tuple[Share, ...]:
        """Where its requests go while nobody calls it."""
        policy = self.policies.of(service)
        costs = {name: cost_of(rtt, name, policy) for name, rtt in self._rtts.items()}
        costs[self._home] = cost_of(0, self._home, policy)
        return nearest_shares(self._home, self.instances(service), policy, costs)

    # ---- the row of this data center

    def picture(self, service: str) -> Picture:
        """What would be computed here now, unsmoothed."""
        now, policy = self._out.now, self.policies.of(service)
        told: dict[str, Told] = {}
        for datacenter in self.reports.datacenters(service):
            heard = self.reports.best(service, datacenter, now)
            if heard is not None:
                told[datacenter] = told_by(heard.report, heard.at)
        called = self.called.get(service)
        if called is not None and self._wan.is_relay and called.gathering.epoch:
            told[self._home] = Told(called.gathering.told, called.gathering.epoch, now, {})
        elif self._home not in told:
            demand = self.offered.get(service, (0.0, 0.0))[0]
            told[self._home] = Told(Numbers(demand=demand), 0, now, {})
        return picture(
            self._home,
            self.instances(service),
            told,
            self._rtts,
            policy,
            lambda instances: self.warming.weight(instances, now, policy),
            now,
        )

    def row(self, service: str) -> tuple[FlowRow, Picture | None]:
        """The row that counts here, and the picture that it was computed from, where that was here and now."""
        heard = self.reports.first(service, self._home, self._out.now)
        if heard is not None:
            shares = answering(shares_of(heard.report), self.instances(service))
            if shares:
                return replace(_row_of(heard), shares=shares), None
        seen = self.picture(service)
        return self._own_row(seen), seen

    def _own_row(self, seen: Picture) -> FlowRow:
        return FlowRow(
            source=self._home,
            shares=seen.row.shares,
            target=seen.row.shares,
            rho=seen.row.rho,
            overload=seen.row.overload,
            computed_by=self._path,
            epoch=0,
            as_of=self._out.now,
        )

    # ---- answers

    def services(self) -> tuple[str, ...]:
        return tuple(sorted(self.called))

    def route(self, service: str) -> Route | None:
        view = self._catalog.service(service)
        if view is None:
            return None
        called = self.called.get(service)
        if called is None:
            epoch, shares = self.geography, self.nearest(service)
        else:
            epoch, shares = called.epoch, answering(called.shares, view.instances) or self.nearest(service)
        return Route(
            service=service,
            home=self._home,
            index=view.index,
            epoch=epoch,
            policy=self.policies.of(service),
            shares=shares,
            instances=view.instances,
            as_of=self._out.now,
        )

    def flows(self, service: str) -> ServiceFlows | None:
        route = self.route(service)
        if route is None:
            return None
        now, called = self._out.now, self.called.get(service)
        row, seen = self.row(service)
        if called is not None and called.picture is not None:  # a relay's: what its row was computed from, and no newer
            seen = called.picture
            if row.computed_by == self._path:
                row = replace(row, target=seen.row.shares, rho=seen.row.rho, overload=seen.row.overload)
        seen = seen or self.picture(service)
        home = replace(row, shares=route.shares)
        others = (
            self.reports.best(service, name, now) for name in self.reports.datacenters(service) if name != self._home
        )
        rows = [home, *(_row_of(heard) for heard in others if heard is not None)]
        policy, problem = route.policy, self.policies.problem(service)
        return ServiceFlows(
            service=service,
            policy=policy,
            home=home,
            rows=tuple(sorted(rows, key=lambda one: one.source)),
            inputs=seen.inputs,
            explanation=explain(home, seen.inputs, policy, now, is_known=seen.is_known, problem=problem),
        )


def shares_of(report: FlowReport) -> tuple[Share, ...]:
    """What a relay tells its callers."""
    return tuple(Share(place.datacenter, place.share) for place in report.places if place.share > 0.0)


def _row_of(heard: Heard) -> FlowRow:
    report = heard.report
    return FlowRow(
        source=report.relay.datacenter,
        shares=shares_of(report),
        target=tuple(Share(place.datacenter, place.target) for place in report.places if place.target > 0.0),
        rho=report.rho,
        overload=report.overload,
        computed_by=report.relay.path,
        epoch=report.epoch,
        as_of=heard.at,
    )


class FlowViews:
    """What the edge may ask: immutable answers, made when they are asked for."""

    def __init__(self, known: Knowledge) -> None:
        self._known = known

    def of(self, service: str) -> ServiceFlows | None:
        """The rows of `service`, what they rest on and why; None when the name was never known."""
        return self._known.flows(service)

    def route(self, service: str) -> Route | None:
        """All that a picker here needs of `service`; None when the name was never known."""
        return self._known.route(service)

    def policy(self, service: str) -> Policy:
        """That which is followed here: the last that could be read, or the defaults."""
        return self._known.policies.of(service)

    def services(self) -> tuple[str, ...]:
        """Names of the services that somebody calls somewhere."""
        return self._known.services()
