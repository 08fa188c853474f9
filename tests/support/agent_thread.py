"""The edge of an agent in a thread with a hub of its own: for clients in threads, which must not share the agent's hub.

Behind it is a `FakeBackend`; what a test does to it is done in that thread.
"""

import threading
from collections.abc import Callable
from typing import Any, TypeVar

import gevent

from dislocate.core.boundary.requests import Request
from dislocate.core.boundary.views import InstanceView
from dislocate.edge.http.access import Access
from dislocate.edge.http.app import make_app
from dislocate.edge.http.server import HttpServer
from dislocate.edge.metrics import EdgeCounters
from dislocate.edge.unix import DatagramSocket
from dislocate.host.templates import references
from tests.support.fake_backend import SELF, FakeBackend, instance, route

T = TypeVar("T")
PATIENCE = 60.0  # seconds; ends a test that hangs


class AgentThread:
    """Listens on a free port of loopback from the start; `where` names it, also while it is stopped."""

    def __init__(self, state_dir: str = "", access: Access | None = None) -> None:
        self.backend = FakeBackend()
        self.counters = EdgeCounters()
        self._access = access or Access()
        self.port = 0
        self._state_dir = state_dir
        self._http: HttpServer | None = None
        self._datagrams: DatagramSocket | None = None
        self._hub: Any = None
        self._index = 0
        self._is_over = threading.Event()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,))
        self._thread.start()
        assert ready.wait(PATIENCE)
        self.start()

    @property
    def where(self) -> str:
        return f"unix:{self._state_dir}/http.sock" if self._state_dir else f"http://127.0.0.1:{self.port}"

    def do(self, action: Callable[[], T]) -> T:
        """Its result, in the agent's thread."""
        results: list[T] = []
        done = threading.Event()

        def act() -> None:
            try:
                results.append(action())
            finally:
                done.set()

        self._hub.loop.run_callback_threadsafe(gevent.spawn, act)
        assert done.wait(PATIENCE)
        return results[0]

    def start(self) -> None:
        self.do(self._start)

    def stop(self) -> None:
        """As a killed agent: every connection ends, nobody listens."""
        self.do(self._stop)

    def end(self) -> None:
        if self._http is not None:
            self.stop()
        self._hub.loop.run_callback_threadsafe(self._over.set)
        self._thread.join(PATIENCE)

    def put(self, *instances: InstanceView, service: str = "orders.api", **changes: Any) -> None:
        """The service's route from now on."""
        self._index += 1
        index = self._index
        made = route(*instances, service=service, **{"index": index, **changes})
        self.do(lambda: self.backend.put_route(made))

    def forget(self, service: str = "orders.api") -> None:
        self.do(lambda: self.backend.node.flows.routes.pop(service))

    @property
    def asked(self) -> list[Request]:
        return list(self.backend.asked)

    # ---- in its thread

    def _run(self, ready: threading.Event) -> None:
        self._hub = gevent.get_hub()
        self._over = gevent.event.Event()
        ready.set()
        self._over.wait(3600.0)  # a hub without a timer would say that nothing can ever happen

    def _start(self) -> None:
        counters, access = self.counters, self._access
        app = make_app(self.backend, SELF, access, counters, references=references)
        if self._state_dir:
            self._http = HttpServer(app, counters, addresses=(), socket_path=f"{self._state_dir}/http.sock")
            self._datagrams = DatagramSocket(self.backend, f"{self._state_dir}/agent.sock", access, counters)
            self._datagrams.start()
        else:
            self._http = HttpServer(app, counters, addresses=(("127.0.0.1", self.port),))
            (self.port,) = self._http.ports
        self._http.start()

    def _stop(self) -> None:
        assert self._http is not None
        self._http.stop(0.0)
        self._http = None
        if self._datagrams is not None:
            self._datagrams.stop()


def at(port: int, id: str = "o1", **changes: Any) -> InstanceView:  # noqa: A002 - the field's name
    """An instance of `orders.api` on loopback."""
    fields = {"service": "orders.api", "id": id, "address": "127.0.0.1", "port": port, "node": "fra/a1"}
    return instance(**{**fields, **changes})
