"""A backend without an agent: snapshots made by hand, for tests and measurements of the DNS face."""

from collections.abc import Callable
from types import SimpleNamespace

import msgspec

from dislocate.core.boundary.events import Event, ServiceChanged
from dislocate.core.boundary.settings import Settings
from dislocate.core.boundary.values import MemberState, Status
from dislocate.core.boundary.views import DatacenterView, InstanceView, MemberView, ServiceView
from dislocate.core.identity import NodeId
from dislocate.core.units import MILLISECOND, SECOND
from tests.support.fake_flows import FakeFlows

STATUS_ORDER = list(Status)


class FakeCatalog:
    def __init__(self) -> None:
        self.services: dict[str, ServiceView] = {}

    def names(self) -> tuple[str, ...]:
        return tuple(sorted(name for name, view in self.services.items() if view.instances))

    def service(self, name: str) -> ServiceView | None:
        return self.services.get(name)


class FakeBackend:
    """An agent 'fra/a1' that knows what it is told."""

    def __init__(self) -> None:
        self.time = 1_000 * SECOND
        self.listeners: list[Callable[[Event], None]] = []
        self.catalog = FakeCatalog()
        self.datacenters: dict[str, DatacenterView] = {}
        self.members: dict[str, MemberView] = {}
        settings = Settings(node=NodeId("fra", "a1", 7), nonce=1, gossip="10.0.0.1:49701", links="10.0.0.1:49702")
        self.flows = FakeFlows("fra", self.catalog, self.datacenters)
        self.node = SimpleNamespace(
            settings=settings,
            catalog=self.catalog,
            datacenters=self.datacenters,
            members=self.members,
            flows=self.flows,
        )
        self.knows_datacenter("fra", rtt_ms=0)
        self.knows_member("fra/a1", "10.0.0.1")

    def now(self) -> int:
        return self.time

    def request(self, request: object, timeout: float | None = None) -> object:
        raise AssertionError("DNS only reads")

    def subscribe(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        self.listeners.append(listener)
        return lambda: self.listeners.remove(listener)

    def knows_datacenter(self, name: str, rtt_ms: int | None, reachable: bool = True) -> None:
        self.datacenters[name] = DatacenterView(
            name=name,
            reachable=reachable,
            hears=reachable,
            rtt=None if rtt_ms is None else rtt_ms * MILLISECOND,
            measured=True,
            members=3,
            as_of=self.time,
        )

    def knows_member(self, path: str, host: str, state: MemberState = MemberState.ALIVE) -> None:
        datacenter, name = path.split("/")
        self.members[path] = MemberView(
            node=NodeId(datacenter, name, 7),
            state=state,
            address=f"[{host}]:49701" if ":" in host else f"{host}:49701",
            links=f"{host}:49702",
            public_key=bytes(32),
            incarnation=0,
            tags=(),
            since=self.time,
            as_of=self.time - SECOND,
        )

    def runs(self, service: str, address: str, **fields: object) -> None:
        """One more instance of `service`; told to whoever listens, as the core would."""
        view = self.catalog.services.get(service, ServiceView(name=service, index=0, instances=()))
        number = len(view.instances) + 1
        instance = InstanceView(
            **{
                "id": f"{service}-{number}",
                "service": service,
                "node": "fra/a1",
                "datacenter": "fra",
                "address": address,
                "port": 8000,
                "status": Status.PASSING,
                "tags": (),
                "meta": {},
                "weight": 1,
                "load": None,
                "as_of": self.time - SECOND // 2,
                "reachable": True,
                **fields,
            }
        )
        self._replace(view, (*view.instances, instance))

    def turns(self, service: str, at: str, **fields: object) -> None:
        """The instances with the address `at` change."""
        view = self.catalog.services[service]
        self._replace(
            view,
            tuple(msgspec.structs.replace(i, **fields) if i.address == at else i for i in view.instances),
        )

    def stops(self, service: str) -> None:
        self._replace(self.catalog.services[service], ())

    def shares(self, service: str, **shares: float) -> None:
        """Callers here go where `shares` say; told as the core would."""
        self.tell(self.flows.share(service, **shares))

    def tell(self, event: Event) -> None:
        for listener in list(self.listeners):
            listener(event)

    def _replace(self, view: ServiceView, instances: tuple[InstanceView, ...]) -> None:
        ordered = tuple(sorted(instances, key=lambda i: (STATUS_ORDER.index(i.status), i.node, i.id)))
        index = view.index + 1
        self.catalog.services[view.name] = ServiceView(name=view.name, index=index, instances=ordered)
        self.tell(ServiceChanged(view.name, index))
