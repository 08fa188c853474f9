"""A backend whose routes a test sets whole, and which tells of each change; None for the rest."""

from dislocate.core.boundary.balance import Policy, Route, Share
from dislocate.core.boundary.events import FlowsChanged
from dislocate.core.boundary.views import InstanceView
from dislocate.core.errors import LocalError
from tests.support.fake_backend import NOW, FakeBackend


def route(*instances: InstanceView, service: str = "shop.web", **changes: object) -> Route:
    fields: dict[str, object] = {
        "service": service,
        "home": "fra",
        "index": 17,
        "epoch": 5,
        "policy": Policy(),
        "shares": (Share("fra", 1.0),),
        "instances": instances,
        "as_of": NOW,
    }
    return Route(**{**fields, **changes})


class Routes:
    """`node.flows`, as far as callers go."""

    def __init__(self) -> None:
        self.routes: dict[str, Route] = {}
        self.refused: set[str] = set()

    def route(self, service: str) -> Route | None:
        if service in self.refused:
            raise LocalError("routes", got=service, expected="another one: this is no name")
        return self.routes.get(service)


class RoutingBackend(FakeBackend):
    def __init__(self) -> None:
        super().__init__()
        self.node.flows = Routes()

    def put_route(self, new: Route) -> None:
        """Callers are to go there from now on; everybody hears of it."""
        self.node.flows.routes[new.service] = new
        self.tell(FlowsChanged(new.service, new.epoch))

    def forget_route(self, service: str) -> None:
        del self.node.flows.routes[service]

    def refuse(self, service: str) -> None:
        """Refuse each request in which its route is asked for."""
        self.node.flows.refused.add(service)
        self.tell(FlowsChanged(service, 0))
