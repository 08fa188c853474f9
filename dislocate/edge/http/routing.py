"""Who waits for a route to change: any number of callers, one listener to the node's events, none while nobody waits."""

from collections.abc import Callable, Collection

from gevent.event import Event as Flag

from dislocate.core.boundary.events import Event, FlowsChanged, ServiceChanged
from dislocate.edge.backend import Backend


class RouteChanges:
    """Wakes those who wait for what changed, and nobody else.  A change before `wait` is the caller's to look for: until
    it waits nothing else runs on the hub."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._waiting: dict[str, list[Flag]] = {}
        self._unsubscribe: Callable[[], None] | None = None

    def wait(self, services: Collection[str], timeout: float) -> bool:
        """Whether the route of one of `services` may have changed within `timeout` seconds."""
        flag = Flag()
        for name in services:
            self._waiting.setdefault(name, []).append(flag)
        if self._unsubscribe is None:
            self._unsubscribe = self._backend.subscribe(self._hear)
        try:
            return bool(flag.wait(timeout))
        finally:
            for name in services:
                self._forget(name, flag)

    def _forget(self, name: str, flag: Flag) -> None:
        flags = self._waiting[name]
        flags.remove(flag)
        if not flags:
            del self._waiting[name]
        if not self._waiting and self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None

    def _hear(self, event: Event) -> None:
        if type(event) in (FlowsChanged, ServiceChanged):
            for flag in self._waiting.get(event.service, ()):
                flag.set()
