"""The copy that one process keeps of what the agent says: a picker a service.

Invariant: what was known once stays usable; a service that nobody knows any more keeps its last instances, and says so.
The pickers are pure and do not lock, so all that reads or moves one holds `lock`, for microseconds and across no I/O.
"""

import os
from collections.abc import Iterable, Mapping
from threading import Event, Lock
from types import MappingProxyType

from msgspec.structs import replace

from dislocate.client.wire import NONE_KNOWN, Held, Told
from dislocate.core.balance.errors import NoEndpoint
from dislocate.core.balance.picker import Picker
from dislocate.core.boundary.balance import Route, Usage
from dislocate.core.identity import check_service_name
from dislocate.core.streams import Stream

SERVICES = 1_000  # of one process: as many as an agent takes of one caller


class KnownService:
    """What is known of one service."""

    __slots__ = ("gave_up", "has_come", "hint", "is_unknown", "name", "picker")

    def __init__(self, name: str) -> None:
        self.name = name
        self.picker = Picker(name, Stream(int.from_bytes(os.urandom(8), "big")))
        self.has_come = Event()  # a route
        self.is_unknown = False  # the agent says that there is no such service
        self.hint = ""
        self.gave_up = False  # somebody waited for the first route in vain: others need not

    def held(self) -> Held | None:
        if self.is_unknown:
            return NONE_KNOWN
        route = self.picker.route
        return None if route is None else Held(route.index, route.epoch)


class LocalCopy:
    """All services that this process asked for.  `inherited`: routes that are known before anybody asked."""

    def __init__(self, inherited: Mapping[str, Route] = MappingProxyType({})) -> None:
        self.lock = Lock()
        self.services: dict[str, KnownService] = {}
        self._inherited = inherited

    def add(self, name: str) -> tuple[KnownService, bool]:
        """The service, and whether it is new here.  Raises `LocalError` for what can be no service's name: nobody needs to be
        asked for it."""
        check_service_name(name, "service")
        with self.lock:
            known = self.services.get(name)
            if known is not None:
                return known, False
            self._make_room(name)
            known = self.services[name] = KnownService(name)
            if name in self._inherited:
                route = self._inherited[name]
                known.picker.update(route, route.as_of)
                known.has_come.set()
            return known, True

    def _make_room(self, name: str) -> None:
        """Names that turned out to be nobody's go first: a program may be asked for any.  Raises `NoEndpoint`."""
        if len(self.services) < SERVICES:
            return
        nobody = next(
            (known.name for known in self.services.values() if known.gave_up and not known.has_come.is_set()), None
        )
        if nobody is None:
            raise NoEndpoint(name, f"this process calls {SERVICES} services already, which is as many as it can")
        del self.services[nobody]

    def anew(self) -> "LocalCopy":
        """A copy for another process: the same routes, nothing in flight, other random numbers.  Takes no lock: whoever
        held it may not exist any more."""
        routes = {known.name: known.picker.route for known in list(self.services.values())}
        return LocalCopy({name: route for name, route in routes.items() if route is not None})

    def held(self) -> dict[str, Held | None]:
        with self.lock:
            return {name: known.held() for name, known in self.services.items()}

    def usages(self, now: int) -> list[Usage]:
        """What was done since this was last asked."""
        with self.lock:
            told = [known.picker.usage(now) for known in self.services.values()]
        return [usage for usage in told if usage is not None]

    def take(self, told: Told, asked: Mapping[str, Held | None], now: int) -> None:
        """The agent answered: some routes are new, all others that were `asked` for are as they were."""
        with self.lock:
            for known in self._of(asked):
                if known.name in told.routes:
                    known.picker.update(told.routes[known.name], now)
                    known.is_unknown = False
                    known.has_come.set()
                elif known.name in told.unknown:
                    self._lose(known, told.unknown[known.name], now)
                elif known.picker.route is not None:
                    known.picker.confirm(now)

    def _of(self, names: Iterable[str]) -> list[KnownService]:
        return [self.services[name] for name in names if name in self.services]

    def _lose(self, known: KnownService, hint: str, now: int) -> None:
        known.is_unknown, known.hint = True, hint
        route = known.picker.route
        if route is not None:
            known.picker.update(replace(route, index=0, epoch=0, instances=()), now)
