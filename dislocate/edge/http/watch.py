"""Server-sent events: services as they change, and everything that the node notices.

A watch streams states, not steps: it keeps the names that changed since its reader last took something and sends how these
services are then, so a slow reader gets fewer events, never wrong or old ones, and memory is bounded by the number of
names.  `id:` is the service's index; events are sent in order of index, so whoever comes back with `Last-Event-ID` misses
nothing: first it is told all names that match now ('names'; what it knows besides is gone), then what changed since.  The
event log streams steps: its queue is bounded, and a reader that falls behind is dropped.

Whoever does not read at all is dropped by `server`'s send timeout.
"""

import re
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import msgspec
from gevent.event import Event as Flag

from dislocate.core.boundary.events import EntriesApplied, Event, FlowsChanged, ServiceChanged
from dislocate.core.boundary.views import ServiceView
from dislocate.core.catalog.watches import matches
from dislocate.core.errors import LocalError
from dislocate.core.identity import NodeId
from dislocate.edge.answers import service_answer
from dislocate.edge.http.access import Role
from dislocate.edge.http.call import EVENT_STREAM, Agent, Call, Operation, Query

KEEP_ALIVE = 15.0  # seconds between comments on a quiet stream: proxies cut silent ones after 30 to 60 s
RETRY = b"retry: 2000\n\n"  # milliseconds after which a browser reconnects
QUEUE_LIMIT = 1_000  # events of the log that may wait for one reader
PATTERNS_LIMIT = 64

_PATTERN = re.compile(r"\*|[a-z0-9-]+(?:\.[a-z0-9-]+)*(?:\.\*)?", re.ASCII)


class Feed(Protocol):
    """What one stream tells its reader."""

    def note(self, event: Event) -> bool:
        """Remember `event`, on the hub, without blocking; says whether there is something to send."""
        ...

    def take(self) -> bytes | None:
        """Frames to send now, empty when there are none; None ends the stream."""
        ...


class ChangedServices:
    """The services of `patterns`: first all (for who resumes: those with an index above `since`), then each that changed.

    With `flows`, a service is told again too when callers here shall go elsewhere than before."""

    def __init__(self, agent: Agent, patterns: tuple[str, ...], since: int | None, *, flows: bool = False) -> None:
        self._backend = agent.backend
        self._patterns = patterns
        self._kinds = (ServiceChanged, FlowsChanged) if flows else (ServiceChanged,)
        catalog = agent.backend.node.catalog
        views = [catalog.service(name) for name in catalog.names() if self._covers(name)]
        known = {view.name: view.index for view in views if view is not None}
        self._opening = b""
        if since is not None:
            self._opening = frame("names", msgspec.json.encode({"names": list(known)}))
        if since is None or since > max(known.values(), default=0):
            since = 0  # new, or from another agent: tell everything
        self._changed = {name: index for name, index in known.items() if index > since}

    def _covers(self, service: str) -> bool:
        return any(matches(pattern, service) for pattern in self._patterns)

    def note(self, event: Event) -> bool:
        if not isinstance(event, self._kinds) or not self._covers(event.service):
            return False
        if isinstance(event, ServiceChanged):
            self._changed[event.service] = event.index
            return True
        view = self._backend.node.catalog.service(event.service)
        if view is not None:
            self._changed.setdefault(event.service, view.index)
        return view is not None

    def take(self) -> bytes:
        changed, self._changed = self._changed, {}
        opening, self._opening = self._opening, b""
        catalog = self._backend.node.catalog
        views = [
            catalog.service(name) or ServiceView(name=name, index=index, instances=())
            for name, index in changed.items()
        ]
        now = self._backend.now()
        return opening + b"".join(
            frame("service", msgspec.json.encode(service_answer(view, now)), view.index)
            for view in sorted(views, key=lambda view: view.index)
        )


class EventLog:
    """Everything that the node notices, in order, save each entry of the store's log."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._waiting: deque[Event] = deque()
        self._has_overflowed = False

    def note(self, event: Event) -> bool:
        if type(event) is EntriesApplied:
            return False  # thousands a second; `keystream` tells what they changed
        if len(self._waiting) >= QUEUE_LIMIT:
            self._has_overflowed = True
        else:
            self._waiting.append(event)
        return True

    def take(self) -> bytes | None:
        if self._has_overflowed:
            self._agent.counters.count("streams_dropped")
            return None
        waiting, self._waiting = self._waiting, deque()
        return b"".join(frame(type(event).__name__, msgspec.json.encode(event_fields(event))) for event in waiting)


class Stream:
    """An open event stream, as WSGI wants it: an iterator of bytes.

    It holds a slot and a subscription from its making until `close`, which the server calls in every case."""

    def __init__(self, agent: Agent, feed: Feed) -> None:
        agent.streams.take()
        self._streams = agent.streams
        self._feed = feed
        self._wake = Flag()
        self._is_fresh = True
        self._unsubscribe: Callable[[], None] | None = agent.backend.subscribe(self._hear)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._is_fresh:  # at once, so that the reader sees the headers
            self._is_fresh = False
            return RETRY
        self._wake.clear()
        frames = self._feed.take()
        if frames == b"":
            if not self._wake.wait(KEEP_ALIVE):
                return b": still here\n\n"
            frames = self._feed.take()
        if frames is None:
            raise StopIteration
        return frames

    def close(self) -> None:
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
            self._streams.give_back()

    def _hear(self, event: Event) -> None:
        if self._feed.note(event):
            self._wake.set()


def watch_services(call: Call) -> Stream:
    """All services, or those of ?service=, now and at every change."""
    patterns = call.query_list("service") or ("*",)
    if len(patterns) > PATTERNS_LIMIT:
        raise LocalError("service", got=len(patterns), expected=f"at most {PATTERNS_LIMIT} names or patterns")
    for pattern in patterns:
        if not _PATTERN.fullmatch(pattern):
            raise LocalError(
                "service", got=pattern[:100], expected="names such as 'db.orders', 'db.*' or '*', by commas"
            )
    call.set_header("Cache-Control", "no-store")
    feed = ChangedServices(call.agent, patterns, call.last_event_id(), flows=call.query_flag("flows"))
    return Stream(call.agent, feed)


def watch_events(call: Call) -> Stream:
    call.set_header("Cache-Control", "no-store")
    return Stream(call.agent, EventLog(call.agent))


def frame(event: str, data: bytes, index: int | None = None) -> bytes:
    """One server-sent event; `data` is JSON and so has no line ends."""
    head = f"event: {event}\n" if index is None else f"event: {event}\nid: {index}\n"
    return head.encode() + b"data: " + data + b"\n\n"


def event_fields(event: Event) -> dict[str, Any]:
    """The fields by name, with nodes as paths: on the wire events are arrays, which people cannot read."""
    fields = {name: getattr(event, name) for name in event.__struct_fields__}
    return {name: value.path if isinstance(value, NodeId) else value for name, value in fields.items()}


OPERATIONS = (
    Operation(
        method="GET",
        path="/api/watch",
        role=Role.READ,
        summary="Server-sent events 'service': how services are now, then each change; Last-Event-ID resumes",
        respond=watch_services,
        queries=(
            Query("service", "names or patterns by commas: 'shop.web,db.*'; none given: all"),
            Query("flows", "true: also when traffic from here shall go elsewhere than before"),
        ),
        media=EVENT_STREAM,
    ),
    Operation(
        method="GET",
        path="/api/events",
        role=Role.READ,
        summary="Server-sent events: everything that the node notices, from now on",
        respond=watch_events,
        media=EVENT_STREAM,
    ),
)
