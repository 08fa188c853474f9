"""Where a proxy's routes come from: a source that tells each change, and takes what was done.

`AgentRoutes` follows services at the agent of this host and goes on with what it knew last while that is down, saying so.
A route names all instances; where the agent does not say how traffic is shared, all of it goes to the data center of the
agent while anybody is up there, else to the nearest that has somebody.
"""

from collections.abc import Callable, Sequence
from threading import Event, Lock, Thread
from time import monotonic_ns
from typing import Any, Protocol

import msgspec

from dislocate.client.connection import AgentConnection, NoAgent, Problem, segment
from dislocate.core.boundary.balance import Policy, Route, Share, Usage
from dislocate.core.boundary.values import Load, Status
from dislocate.core.boundary.views import InstanceView
from dislocate.core.errors import DislocateError
from dislocate.core.units import SECOND

WAIT = 5.0  # seconds that a question is held by the agent while nothing changes: knowledge is never much older
PAUSE = 1.0  # seconds between tries while it does not answer
_UP = (Status.PASSING, Status.WARNING)


class EmptyService(DislocateError):
    """Nobody serves it.  Nothing was started."""

    def __init__(self, service: str) -> None:
        super().__init__(service)
        self.service = service

    def __str__(self) -> str:
        return f"{self.service} has no instances: there is nobody to connect to\nlook: dislocate service {self.service}"


class RouteSource(Protocol):
    """What feeds a proxy's pickers."""

    def first(self) -> tuple[Route, ...]:
        """The route of each service, before anything is served.  Raises what makes that impossible."""
        ...

    def start(self, told: Callable[[Route], None]) -> None:
        """From now on call `told`, from any thread, with each route: when it changed, and when it was confirmed."""
        ...

    def tell(self, usages: Sequence[Usage]) -> None:
        """What was done since the last call.  Returns at once."""
        ...

    def trouble(self, service: str) -> str:
        """Why the route of `service` may be old; '' while it is known to be as it is."""
        ...

    def stop(self) -> None:
        """Tell nothing any more."""
        ...


class AgentRoutes:
    """Follows `services` at the agent that `connect` makes connections to: one thread and one long poll each."""

    def __init__(self, connect: Callable[[], AgentConnection], services: Sequence[str], wait: float = WAIT) -> None:
        self._connect = connect
        self._services = tuple(services)
        self._wait = wait
        self._routes: dict[str, Route] = {}
        self._troubles: dict[str, str] = {}
        self._lock = Lock()  # of the troubles: a service's route is its own thread's
        self._stopped = Event()

    def first(self) -> tuple[Route, ...]:
        """Raises `NoAgent`, `Problem` for an unknown service, `EmptyService`."""
        agent = self._connect()
        for service in self._services:
            answer = agent.get(f"/api/services/{segment(service)}")
            if not answer["instances"]:
                raise EmptyService(service)
            self._learn(agent, service, answer)
        return tuple(self._routes[service] for service in self._services)

    def start(self, told: Callable[[Route], None]) -> None:
        for service in self._services:
            Thread(target=self._follow, args=(service, told), daemon=True, name=f"follow {service}").start()

    def tell(self, usages: Sequence[Usage]) -> None:
        """The agent is not asked to count them yet."""

    def trouble(self, service: str) -> str:
        with self._lock:
            return self._troubles.get(service, "")

    def stop(self) -> None:
        self._stopped.set()

    def _follow(self, service: str, told: Callable[[Route], None]) -> None:
        agent = self._connect()
        while not self._stopped.is_set():
            try:
                index = self._routes[service].index if service in self._routes else 0
                path = f"/api/services/{segment(service)}?index={index}&wait={self._wait:g}s"
                route = self._learn(agent, service, agent.get(path, timeout=self._wait + 10))
            except (NoAgent, Problem) as error:
                trouble, route = str(error).splitlines()[0], None
            except (KeyError, TypeError, ValueError) as error:
                trouble, route = f"the agent's answer cannot be understood: {error!r}", None
            else:
                trouble = "" if route.instances else "no instance is registered any more"
            with self._lock:
                self._troubles[service] = trouble
            if self._stopped.is_set():
                return
            if route is None:
                self._stopped.wait(PAUSE)
            else:
                told(route)

    def _learn(self, agent: AgentConnection, service: str, answer: Any) -> Route:
        """Keep what `answer` says."""
        now = monotonic_ns()
        home = agent.get("/api/health")["node"].partition("/")[0]
        rtts = {view["name"]: view["rtt_ms"] for view in agent.get("/api/datacenters")["datacenters"]}
        instances = tuple(_instance(service, each, now) for each in answer["instances"])
        before = self._routes.get(service)
        route = Route(
            service=service,
            home=home,
            index=answer["index"],
            epoch=before.epoch if before else 1,
            policy=Policy(),
            shares=shares(instances, home, rtts),
            instances=instances,
            as_of=now,
        )
        if before is not None and before.shares != route.shares:
            route = msgspec.structs.replace(route, epoch=before.epoch + 1)
        self._routes[service] = route
        return route


def shares(instances: Sequence[InstanceView], home: str, rtts: dict[str, float | None]) -> tuple[Share, ...]:
    """All to the nearest data center in which somebody is up, `home` before the others; where nobody is, to the nearest."""
    is_up = {i.datacenter for i in instances if i.reachable and i.status in _UP}
    places = is_up or {i.datacenter for i in instances}

    def distance(place: str) -> tuple[bool, bool, float, str]:
        rtt = rtts.get(place)
        return place != home, rtt is None, rtt or 0.0, place

    nearest = min(places, key=distance, default=None)
    return (Share(nearest, 1.0),) if nearest is not None else ()


def _instance(service: str, answer: Any, now: int) -> InstanceView:
    load = answer["load"]
    return InstanceView(
        id=answer["id"],
        service=service,
        node=answer["node"],
        datacenter=answer["datacenter"],
        address=answer["address"],
        port=answer["port"],
        status=Status(answer["status"]),
        tags=tuple(answer["tags"]),
        meta=answer["meta"],
        weight=answer["weight"],
        load=None if load is None else Load(load["utilization"], load["in_flight"], load["rate"]),
        as_of=now - round(answer["age"] * SECOND),
        reachable=answer["reachable"],
    )
