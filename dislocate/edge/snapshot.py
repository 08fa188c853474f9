"""services.json: what the agent knows, as a file, for whoever can read files and nothing else.

    {"shop.web": <the shape of GET /api/services/shop.web>, ...}

Invariant: a reader sees a whole file, old or new, never half of one, also after a power cut; the file is replaced only when
an answer changed, at most once in `COALESCE`.  Ages and loads are as of the replacement: the file's time says when that was.
A directory that cannot be written costs the file, not the agent: it is logged, counted and tried again.
"""

import logging
import os
from collections.abc import Callable
from contextlib import suppress

import gevent
import msgspec
from gevent.event import Event as Flag

from dislocate.core.boundary.events import DatacenterChanged, Event, ServiceChanged
from dislocate.core.boundary.views import ServiceView
from dislocate.edge.answers import service_answer
from dislocate.edge.backend import Backend
from dislocate.edge.metrics import EdgeCounters

log = logging.getLogger(__name__)

COALESCE = 0.2  # seconds: a burst of changes is one replacement
RETRY = 5.0  # seconds after a failure, if nothing changes before


class SnapshotFile:
    """The file of one agent."""

    def __init__(self, backend: Backend, path: str, counters: EdgeCounters) -> None:
        self._backend = backend
        self._path = path
        self._counters = counters
        self._changed = Flag()
        self._written: tuple[object, ...] | None = None  # what the file says, without its ages
        self._complaint = ""
        self._loop: gevent.Greenlet | None = None
        self._unsubscribe: Callable[[], None] | None = None

    def start(self) -> None:
        """Writes the first file soon, and then after every change."""
        self._unsubscribe = self._backend.subscribe(self._hear)
        self._changed.set()
        self._loop = gevent.spawn(self._run)

    def stop(self) -> None:
        """The file stays, as the last that was known here."""
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        if self._loop is not None:
            self._loop.kill()

    def write(self) -> bool:
        """Replace the file if it would say something else; says whether it now says what is known."""
        catalog = self._backend.node.catalog
        views = [view for name in catalog.names() if (view := catalog.service(name)) is not None]
        summary = tuple(_without_ages(view) for view in views)
        if summary == self._written:
            return True
        now = self._backend.now()
        data = msgspec.json.encode({view.name: service_answer(view, now) for view in views})
        try:
            # Off the hub: a sync may take long, and gevent does not make files cooperative.
            gevent.get_hub().threadpool.apply(replace_file, (self._path, data))
        except OSError as error:
            self._failed(error)
            return False
        self._written, self._complaint = summary, ""
        self._counters.count("snapshots_written")
        return True

    def _hear(self, event: Event) -> None:
        if type(event) in (ServiceChanged, DatacenterChanged):
            self._changed.set()

    def _run(self) -> None:
        is_current = True
        while True:
            self._changed.wait(None if is_current else RETRY)
            self._changed.clear()
            is_current = self.write()
            gevent.sleep(COALESCE)

    def _failed(self, error: OSError) -> None:
        self._counters.count("snapshot_failures")
        if str(error) != self._complaint:  # once for each reason: a full disk needs no more lines
            self._complaint = str(error)
            log.error("%s cannot be written, its readers see an old one: %s", self._path, error)


def replace_file(path: str, data: bytes) -> None:
    """`path` holds `data`, whole and durable.  Raises OSError; then the old file is still there."""
    temporary = f"{path}.tmp"
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_directory(os.path.dirname(path) or ".")


def _sync_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _without_ages(view: ServiceView) -> tuple[object, ...]:
    """What makes a new file worth writing: the index, and what reachability does to the answer."""
    return (view.name, view.index, tuple(instance.reachable for instance in view.instances))
