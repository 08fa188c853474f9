"""Where a proxy's routes come from: a source that tells each change, and asks what was done.

`AgentRoutes` has the client library's exchange with the agent of this host, once a second: a death is told at once, and while
the agent is down the proxy goes on with what it knew last, saying so.  The pickers are the loop's own; what is told and asked
crosses over between two of its events.
"""

from collections.abc import Callable, Sequence
from threading import Lock
from typing import Protocol

from msgspec.structs import replace

from dislocate.client.connection import AgentConnection
from dislocate.client.copy import LocalCopy
from dislocate.client.sync import Exchange, Sync
from dislocate.client.wire import NONE_KNOWN, Held, Told
from dislocate.core.boundary.balance import Route, Usage
from dislocate.core.errors import DislocateError

GONE = "no instance is registered any more"


class UnknownService(DislocateError):
    """The agent knows no such service.  Nothing was started."""

    def __init__(self, service: str, hint: str) -> None:
        super().__init__(service, hint)
        self.service = service

    def __str__(self) -> str:
        hint = f" ({self.args[1]})" if self.args[1] else ""
        return f"no service {self.service!r} is known here{hint}\nall of them: dislocate services"


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

    def start(self, told: Callable[[Route], None], done: Callable[[], Sequence[Usage]]) -> None:
        """From now on call `told`, from any thread, with each route when it changed, and with the same one when it was
        confirmed; and `done` for what was done since it was last called."""
        ...

    def trouble(self, service: str) -> str:
        """Why the route of `service` may be old; '' while it is known to be as it is."""
        ...

    def stop(self) -> None:
        """Tell nothing any more."""
        ...


class AgentRoutes:
    """Follows `services` at `agent`, as the caller `caller`."""

    def __init__(self, agent: AgentConnection, services: Sequence[str], caller: str) -> None:
        self._agent = agent
        self._services = tuple(services)
        self._caller = caller
        self._routes: dict[str, Route] = {}
        self._followed: Followed | None = None
        self._sync: Sync | None = None

    def first(self) -> tuple[Route, ...]:
        """Raises `NoAgent`, `Problem`, `UnknownService`, `EmptyService`."""
        exchange = Exchange(self._agent, self._caller)
        try:
            exchange.open()
            told = exchange.ask(None, dict.fromkeys(self._services), 0.0)
        finally:
            exchange.close()
        for service in self._services:
            if service not in told.routes:
                raise UnknownService(service, told.unknown.get(service, ""))
            if not told.routes[service].instances:
                raise EmptyService(service)
        self._routes = {service: told.routes[service] for service in self._services}
        return tuple(self._routes.values())

    def start(self, told: Callable[[Route], None], done: Callable[[], Sequence[Usage]]) -> None:
        self._followed = Followed(self._routes, told, done)
        self._sync = Sync(self._agent, self._followed)
        self._sync.start()

    def trouble(self, service: str) -> str:
        if self._sync is not None and self._sync.problem:
            return self._sync.problem
        return GONE if self._followed is not None and self._followed.is_gone(service) else ""

    def stop(self) -> None:
        if self._sync is not None:
            self._sync.close()


class Followed(LocalCopy):
    """What the exchange reads and writes: routes, where the client library has pickers."""

    def __init__(
        self, routes: dict[str, Route], told: Callable[[Route], None], done: Callable[[], Sequence[Usage]]
    ) -> None:
        super().__init__()
        self._routes = dict(routes)
        self._told = told
        self._done = done
        self._lock = Lock()  # of the routes

    def held(self) -> dict[str, Held | None]:
        with self._lock:
            return {name: Held(route.index, route.epoch) for name, route in self._routes.items()}

    def usages(self, now: int) -> list[Usage]:
        return list(self._done())

    def take(self, told: Told, asked: object, now: int) -> None:
        """The routes that did not change are confirmed."""
        with self._lock:
            for name, route in self._routes.items():
                if name in told.routes:
                    self._routes[name] = told.routes[name]
                elif name in told.unknown:
                    self._routes[name] = replace(
                        route, index=NONE_KNOWN.index, epoch=NONE_KNOWN.epoch, instances=(), as_of=now
                    )
            routes = list(self._routes.values())
        for route in routes:
            self._told(route)

    def is_gone(self, service: str) -> bool:
        with self._lock:
            return not self._routes[service].instances
