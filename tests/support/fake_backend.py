"""A backend without an agent: views that a test sets, requests that it records, events that it sends."""

from collections.abc import Callable
from types import MappingProxyType

import gevent
from gevent.event import Event as Flag

from dislocate.core.boundary.events import Event, ServiceChanged
from dislocate.core.boundary.requests import Changed, Done, Request, Result, Watch
from dislocate.core.boundary.store import ServerView, StoreView
from dislocate.core.boundary.values import Load, MemberState, Status
from dislocate.core.boundary.views import DatacenterView, HistoryEntry, InstanceView, MemberView, ServiceView
from dislocate.core.identity import NodeId
from dislocate.core.runs.targeting import Candidate, candidates
from dislocate.core.units import SECOND
from tests.support.fake_flows import FakeFlows

NEVER = object()  # as a result: no answer comes
SELF = NodeId("fra", "a1", 1_700_000_000_000)
NOW = 1_000 * SECOND


def instance(service: str = "shop.web", id: str = "web-1", **changes: object) -> InstanceView:  # noqa: A002 - the field's name
    fields: dict[str, object] = {
        "id": id,
        "service": service,
        "node": "fra/a1",
        "datacenter": "fra",
        "address": "10.0.0.1",
        "port": 8080,
        "status": Status.PASSING,
        "tags": ("blue",),
        "meta": {"version": "7"},
        "weight": 1,
        "load": Load(0.25, 3, 12.5),
        "as_of": NOW - 2 * SECOND,
        "reachable": True,
    }
    return InstanceView(**{**fields, **changes})


def member(path: str = "fra/a1", state: MemberState = MemberState.ALIVE) -> MemberView:
    datacenter, _, name = path.partition("/")
    return MemberView(
        node=NodeId(datacenter, name, 1_700_000_000_000),
        state=state,
        address="10.0.0.1:49701",
        links="10.0.0.1:49702",
        public_key=bytes(32),
        incarnation=2,
        tags=("edge",),
        since=NOW - 60 * SECOND,
        as_of=NOW - SECOND // 2,
    )


def datacenter(name: str = "fra", **changes: object) -> DatacenterView:
    fields: dict[str, object] = {
        "name": name,
        "reachable": True,
        "hears": True,
        "rtt": 95_000_000,
        "measured": True,
        "members": 3,
        "as_of": NOW - SECOND,
    }
    return DatacenterView(**{**fields, **changes})


def server(path: str = "fra/a1", **changes: object) -> ServerView:
    fields: dict[str, object] = {"path": path, "disk": "d15c", "role": "voter", "is_leader": False}
    return ServerView(**{**fields, **changes})


def store(**changes: object) -> StoreView:
    fields: dict[str, object] = {
        "group": "9f" * 16,
        "epoch": 0,
        "branch": "",
        "role": "follower",
        "leader": "wdc/b1",
        "term": 3,
        "revision": 41,
        "index": 44,
        "as_of": NOW - SECOND // 4,
        "servers": (server(), server("wdc/b1", is_leader=True, matched=44, rtt=0, disk_latency=300_000)),
    }
    return StoreView(**{**fields, **changes})


class FakeCatalog:
    def __init__(self) -> None:
        self.services: dict[str, ServiceView] = {}

    def names(self) -> tuple[str, ...]:
        return tuple(sorted(self.services))

    def service(self, name: str) -> ServiceView | None:
        return self.services.get(name)


class FakeScale:
    """As of an agent that does not lead."""

    def why(self, service: str, datacenter: str) -> str:
        return ""


class FakeNode:
    def __init__(self) -> None:
        self.scale = FakeScale()
        self.catalog = FakeCatalog()
        self.members = {view.node.path: view for view in (member(), member("wdc/b1", MemberState.DEAD))}
        self.datacenters = {view.name: view for view in (datacenter("fra", rtt=None), datacenter("wdc"))}
        self.flows = FakeFlows("fra", self.catalog, self.datacenters)
        self.counters = MappingProxyType({"acks": 7, "input_dropped": 1})
        self.histories: dict[str, tuple[HistoryEntry, ...]] = {}
        self.is_relay = True
        self.store = store()

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        tags = {path: view.tags for path, view in self.members.items() if view.state is not MemberState.LEFT}
        services = self.catalog.services.items()
        return candidates(tags, ((name, one.node) for name, view in services for one in view.instances))

    def history(self, subject: str) -> tuple[HistoryEntry, ...]:
        return self.histories.get(subject, ())


class FakeBackend:
    """Answers every request with `result` (or by calling it) and remembers it; a Watch waits for a change."""

    def __init__(self) -> None:
        self.node = FakeNode()
        self.asked: list[Request] = []
        self.result: Result | Exception | Callable[[Request], Result] | object = Done(7)
        self.clock = NOW
        self.pending: dict[int, Callable[[Result], object]] = {}  # asked for while `result` was NEVER
        self.cancelled: list[int] = []
        self._asks = 0
        self._listeners: list[Callable[[Event], None]] = []
        self._index = 0
        self._changed = Flag()

    def request(self, request: Request, timeout: float | None = None) -> Result:
        self.asked.append(request)
        if isinstance(request, Watch):
            return self._watch(request, timeout)
        if isinstance(self.result, Exception):
            raise self.result
        if self.result is NEVER:
            gevent.sleep(timeout or 0)
            raise TimeoutError
        return self.result(request) if callable(self.result) else self.result

    def ask(self, request: Request, then: Callable[[Result], object]) -> int:
        """Answers before it returns, as a stopping agent does; an Exception instead of a result is raised."""
        self._asks += 1
        if self.result is NEVER:
            self.asked.append(request)
            self.pending[self._asks] = then
        else:
            then(self.request(request))
        return self._asks

    def cancel(self, request_id: int) -> None:
        self.cancelled.append(request_id)
        self.pending.pop(request_id, None)

    def subscribe(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def now(self) -> int:
        return self.clock

    # ---- for tests

    @property
    def listeners(self) -> int:
        return len(self._listeners)

    def put(self, *instances: InstanceView, service: str = "shop.web") -> int:
        """The service is so from now on; everybody hears of it.  Returns its new index."""
        self._index += 1
        self.node.catalog.services[service] = ServiceView(name=service, index=self._index, instances=instances)
        self.tell(ServiceChanged(service, self._index))
        self._changed.set()
        self._changed = Flag()
        return self._index

    def tell(self, event: Event) -> None:
        for listener in list(self._listeners):
            listener(event)

    def _watch(self, request: Watch, timeout: float | None) -> Result:
        (name,) = request.patterns
        while True:
            view = self.node.catalog.service(name)
            if view is not None and view.index > request.index:
                return Changed((name,), view.index)
            if not self._changed.wait(timeout):
                raise TimeoutError
