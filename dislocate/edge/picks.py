"""Picks for whoever only asks: one `Picker` a service, fed with this node's routes, for callers that never say how it went.

A pick counts as under way for `HELD`, so that a burst is spread as if its calls were seen; how a call ends is not known here,
so nothing is ejected and nothing throttled for it, and panic is not for these callers (`parts`).  What is picked is offered
load like any other: once a second, while there are picks, it is reported as the usage of the caller 'edge'.

Invariant: memory is bounded by the services known and by the picks of one `HELD`.  Does no I/O of its own.
"""

from collections import deque
from collections.abc import Container

import gevent
from msgspec.structs import replace

from dislocate.core.balance.endpoints import usable
from dislocate.core.balance.parts import parts
from dislocate.core.balance.picker import Outcome, Picked, Picker
from dislocate.core.boundary.balance import FlowRow, ReportUsage, Route, Share, Spill
from dislocate.core.boundary.requests import Result
from dislocate.core.streams import Streams
from dislocate.core.units import SECOND
from dislocate.edge.backend import Backend

CALLER = "edge"
SETTLED = SECOND // 5  # shares move once a second
HELD = 1 * SECOND  # most calls are over by then
REPORT_EACH = 1.0  # seconds, as every caller reports
QUIET = 3  # reports without anything, after which it stops until the next pick


class Picks:
    """The pickers of one agent."""

    def __init__(self, backend: Backend, caller: str, streams: Streams) -> None:
        """`caller` places the apertures, so it must be another on each host."""
        self._backend = backend
        self._caller = caller
        self._streams = streams
        self._pickers: dict[tuple[str, str], Picker] = {}  # by service and the data center that asks
        self._routes: dict[tuple[str, str], tuple[int, int, tuple[Share, ...]]] = {}  # what each was fed last
        self._known: dict[str, tuple[int, int, Route | None]] = {}  # until when, of which index
        self._held: deque[tuple[int, Picker, Picked]] = deque()
        self._reporter: gevent.Greenlet | None = None

    def route(self, service: str) -> Route | None:
        """The route to `service`: of its instances as they are now, with shares of `SETTLED` ago at most.

        Making one looks at every instance, which is too much for each pick."""
        node, now = self._backend.node, self._backend.now()
        view = node.catalog.service(service)
        if view is None:
            self._known.pop(service, None)
            return None
        until, index, route = self._known.get(service, (0, 0, None))
        if route is None or index != view.index or until <= now:
            route = node.flows.route(service)
            if route is not None:
                self._known[service] = (now + SETTLED, view.index, route)
        return route

    def pick(self, route: Route, *, key: str = "", exclude: Container[str] = ()) -> Picked:
        """An instance for a call from `route.home`.  Raises `NoEndpoint`."""
        now = self._backend.now()
        self._release(now)
        picker = self._picker(route, now)
        picked = picker.pick(now, key=key, exclude=exclude)
        self._held.append((now + HELD, picker, picked))
        if self._reporter is None:
            self._reporter = gevent.spawn(self._report)
        return picked

    def _picker(self, route: Route, now: int) -> Picker:
        name = (route.service, route.home)
        picker = self._pickers.get(name)
        if picker is None:
            picker = self._pickers[name] = Picker(route.service, self._streams[f"pick/{route.service}"], self._caller)
        fed = (route.index, route.epoch, route.shares)
        if self._routes.get(name) == fed:
            picker.confirm(now)
        else:
            self._routes[name] = fed
            in_use = tuple(each.instance for each in parts(route) if each.part is not None) or route.instances
            unjudged = replace(route.policy, throttle=0.0)
            picker.update(replace(route, policy=unjudged, instances=in_use), now)
        return picker

    def _release(self, now: int) -> None:
        """Picks of more than `HELD` ago are over; that took no time, as far as anybody told."""
        while self._held and self._held[0][0] <= now:
            _, picker, picked = self._held.popleft()
            picker.done(picked, picked.began, Outcome.CANCELLED)

    def _report(self) -> None:
        quiet = 0
        while quiet < QUIET:
            gevent.sleep(REPORT_EACH)
            quiet = 0 if self.report() else quiet + 1
        self._reporter = None

    def report(self) -> bool:
        """Say what was picked since this was last called; whether there was anything."""
        now = self._backend.now()
        self._release(now)
        found = [picker.usage(now) for picker in self._pickers.values()]
        usages = tuple(usage for usage in found if usage is not None)
        if usages:
            self._backend.ask(ReportUsage(CALLER, usages), _heard)
        return bool(usages)


def _heard(_result: Result) -> None:
    """Nobody is told: a refusal would only say that the next report comes."""


def seen_from(route: Route, source: str, rows: tuple[FlowRow, ...]) -> Route:
    """`route` for callers in `source`: by its row; where none is known, there itself if it has somebody or nothing may leave
    it, else as from here."""
    if source == route.home:
        return route
    row = next((row for row in rows if row.source == source and row.shares), None)
    if row is not None:
        return replace(route, home=source, shares=row.shares)
    has_somebody = bool(usable([instance for instance in route.instances if instance.datacenter == source]))
    stays = has_somebody or route.policy.spill is Spill.NEVER
    return replace(route, home=source, shares=(Share(source, 1.0),) if stays else route.shares)
