"""`serve`: a WSGI application as an instance of a service, in one line.

    from gevent import monkey; monkey.patch_all()
    serve(app, "orders.api")

gevent.pywsgi with TCP_NODELAY on the listening socket, which accepted ones inherit, and the head of an answer in one piece
with its body: each alone ends the 40 ms that a kept connection else waits for the peer's delayed acknowledgement.

The end, on SIGTERM: the instance drains, so callers go elsewhere; it serves on for `grace` seconds, since some learn it late,
and asks those that still come to hang up; then nobody new is accepted, what is under way is finished, and the instance is
deregistered.  A second signal ends it at once.
"""

import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import gevent
from gevent import socket as gsocket
from gevent.event import Event as Flag
from gevent.lock import BoundedSemaphore
from gevent.pool import Pool
from gevent.pywsgi import WSGIHandler, WSGIServer

from dislocate.client.connection import Problem, find_agent
from dislocate.client.meter import Meter
from dislocate.client.registration import TTL, Instance, Registration
from dislocate.core.errors import LocalError

log = logging.getLogger("dislocate.client")

WORKERS = 100  # requests at a time: what waits for a network is cheap, what computes is limited by its core
QUEUE = 10  # times the workers: requests that may wait for one; at 20 ms each, the last waits 200 ms
CONNECTIONS = 4_096
BACKLOG = 512
GRACE = 6.0  # seconds: callers by library know within one, those by DNS after its TTL of 5
FINISH = 20.0  # seconds for what is under way; with GRACE below the 30 that supervisors wait before SIGKILL
JOINED = 1 << 16  # bytes of a body that is copied to go out with its head

REGISTERED = "DISLOCATE_REGISTERED"  # 'SERVICE ID PORT', from the agent that runs this process

App: TypeAlias = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
_EVERYWHERE = ("", "0.0.0.0", "::")


class Server:
    """One instance: `start`, then `stop`.  Raises `LocalError` for what cannot be meant, and a port that cannot be had.

    `port` 0: any free one.  `host`: where to listen; everywhere, unless given.  `address`: what callers are told; empty: a
    given `host`, else what the agent advertises.  `instance_id`: 'NAME-PORT' unless given.  `workers`: requests at a time;
    what comes beyond waits, and beyond `queue` is answered 503.  `health`: a path that is answered here; '' for none.
    `check`: 'ttl' (signs of life each second) or 'http' (the agent asks `health`, each `check_interval` such as '1s', and
    waits for `check_timeout`; empty: its default).  `agent`, `token`: as of `Client`.

    In a process that an agent runs for the service `name`, `port` 0 is the port that it was given, and there the agent
    registers it: id, check, tags and meta are then the agent's, and load is told here."""

    def __init__(
        self,
        app: App,
        name: str,
        *,
        port: int = 0,
        host: str = "",
        address: str = "",
        instance_id: str = "",
        tags: Iterable[str] = (),
        meta: Mapping[str, str] | None = None,
        weight: int = 1,
        workers: int = WORKERS,
        queue: int | None = None,
        health: str = "/health",
        check: str = "ttl",
        check_interval: str = "1s",
        check_timeout: str = "",
        agent: str | None = None,
        token: str | None = None,
    ) -> None:
        if not callable(app):
            raise LocalError(
                "app", got=app, expected="a WSGI application, which is called with environ and start_response"
            )
        if check not in ("ttl", "http") or (check == "http" and not health):
            raise LocalError("check", got=check, expected="'ttl', or 'http' with a `health` path")
        if workers < 1:
            raise LocalError("workers", got=workers, expected="at least 1")
        if isinstance(tags, str):  # which is a list of letters too
            raise LocalError("tags", got=tags, expected="a list of texts")
        own_id, given_port = _given_by_agent(name)
        self._listener = _listen(host, port or given_port)
        self.host, self.port = self._listener.getsockname()[:2]
        self._gate = _Gate(name, workers, QUEUE * workers if queue is None else queue, health)
        self._wsgi = _Server(self._listener, app, self._gate)
        shown = address or ("" if host in _EVERYWHERE else host)
        own = f"[{shown}]" if ":" in shown else shown or "127.0.0.1"
        is_agents = self.port == given_port
        instance = Instance(
            id=(is_agents and own_id) or instance_id or f"{name}-{self.port}",
            service=name,
            port=self.port,
            address=shown,
            tags=tuple(tags),
            meta=dict(meta or {}),
            weight=weight,
            check={"ttl": TTL}
            if check == "ttl"
            else {
                "http": f"http://{own}:{self.port}{health}",
                "interval": check_interval,
                **({"timeout": check_timeout} if check_timeout else {}),
            },
        )
        try:
            instance.verify()
        except LocalError:
            self._listener.close()
            raise
        self.registration = Registration(find_agent(agent, token), instance, self._gate.meter.read, is_agents=is_agents)

    @property
    def in_flight(self) -> int:
        return self._gate.meter.in_flight

    def start(self) -> None:
        """Serve, and be known.  Raises `Problem` where the agent refuses the instance; then nobody listens any more."""
        self._wsgi.start()
        try:
            self.registration.start()
        except Problem:
            self._wsgi.stop(0.0)
            raise
        log.info("%s: serving on %s:%d", self.registration.instance.id, self.host, self.port)

    def stop(self, grace: float = GRACE, finish: float = FINISH, reason: str = "stopping") -> None:
        """Drain, serve on for `grace` seconds, finish what is under way within `finish`, be forgotten."""
        self._gate.is_leaving = True
        if self.registration.drain(grace + finish + 10.0, reason):
            log.info("%s: draining, %.0f s", self.registration.instance.id, grace)
        if not self.registration.is_out:
            gevent.sleep(grace)
        self._wsgi.close()
        self._wsgi.hang_up_idle()
        self._wsgi.stop(finish)
        self.registration.end()
        log.info("%s: ended", self.registration.instance.id)


def serve(app: App, name: str, *, grace: float = GRACE, finish: float = FINISH, **options: Any) -> None:
    """Serve `app` as an instance of the service `name` until SIGTERM or SIGINT, then leave as `Server.stop` does.

    `options` are those of `Server`.  Raises `LocalError` for what cannot be meant, and a port that cannot be had; `Problem`
    where the agent refuses the instance.  An agent that does not answer is no reason not to serve."""
    server = Server(app, name, **options)
    asked = Flag()
    reasons: list[str] = []

    def end(sign: signal.Signals) -> None:
        reasons.append(sign.name)
        asked.set()

    handlers = [gevent.signal_handler(sign, end, sign) for sign in (signal.SIGTERM, signal.SIGINT)]
    try:
        server.start()
        asked.wait()
        asked.clear()
        leaving = gevent.spawn(server.stop, grace, finish, reasons[0])
        gevent.wait([leaving, asked], count=1)
        if not leaving.ready():
            log.warning("%s: a second signal, ending now", name)
            leaving.kill()
            server.stop(0.0, 0.0, "a second signal")
    finally:
        for handler in handlers:
            handler.cancel()


def _listen(host: str, port: int) -> Any:
    if type(port) is not int or not 0 <= port < 65536:
        raise LocalError("port", got=port, expected="a whole number, 1..65535, or 0: any free one")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = gsocket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise LocalError(
            "port", got=port, expected=f"one that is free at {host or 'all addresses'} ({error})"
        ) from error
    return listener


def _given_by_agent(name: str) -> tuple[str, int]:
    """Id and port of the instance as which the agent that runs this process registers it; '' and 0: it is none of `name`."""
    told = os.environ.get(REGISTERED, "").split()
    return (told[1], int(told[2])) if len(told) == 3 and told[0] == name and told[2].isdigit() else ("", 0)


class _Gate:
    """Who is let in: `workers` at a time, as many waiting as `queue` says; and what is answered without the application."""

    def __init__(self, name: str, workers: int, queue: int, health: str) -> None:
        self.meter = Meter(workers, time.monotonic, time.process_time)
        self.health = health
        self.is_leaving = False
        self._name = name
        self._most = workers + queue
        self._workers = BoundedSemaphore(workers)

    def is_full(self) -> bool:
        return self.meter.in_flight >= self._most

    def __enter__(self) -> None:
        self.meter.begin()
        try:
            self._workers.acquire()
        except BaseException:
            self.meter.end()
            raise

    def __exit__(self, *_: object) -> None:
        self._workers.release()
        self.meter.end()

    def say_healthy(self, _environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        """200 while it serves: that callers shall go elsewhere is for the catalog to say, not for health."""
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"draining\n" if self.is_leaving else b"ok\n"]

    def say_full(self, _environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        headers = [("Content-Type", "text/plain"), ("Retry-After", "1"), ("Dislocate-Not-Begun", "1")]
        start_response("503 Service Unavailable", headers)
        return [f"{self._name}: {self.meter.in_flight} requests are waiting here already\n".encode()]


class _Server(WSGIServer):
    """The listener and its connections."""

    def __init__(self, listener: Any, app: App, gate: _Gate) -> None:
        self.gate = gate
        self.idle: dict[int, _Connection] = {}  # kept connections that wait for a request, by id
        super().__init__(
            listener,
            app,
            spawn=Pool(CONNECTIONS),
            log=None,
            error_log=log,
            handler_class=_Connection,
            environ={"SERVER_NAME": "localhost"},  # else gevent asks the resolver for our name, and waits
        )

    def hang_up_idle(self) -> None:
        for connection in list(self.idle.values()):
            connection.hang_up()


class _Connection(WSGIHandler):
    """One connection and its requests."""

    _head: bytes | None = None  # None: nothing is held back; b'': the head is about to come

    def read_requestline(self) -> str:
        idle = self.server.idle
        idle[id(self)] = self
        try:
            line: str = super().read_requestline()
            return line
        finally:
            del idle[id(self)]

    def hang_up(self) -> None:
        """Nobody waits for anything here.  What was sent in this moment is lost, as it always may be."""
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            log.debug("a kept connection was gone already")

    def handle_one_response(self) -> None:
        gate: _Gate = self.server.gate
        if gate.health and self.environ["PATH_INFO"] == gate.health:
            self.application = gate.say_healthy
            super().handle_one_response()
        elif gate.is_full():
            self.application = gate.say_full
            super().handle_one_response()
        else:
            with gate:
                super().handle_one_response()

    def finalize_headers(self) -> None:
        if self.server.gate.is_leaving and not self.close_connection:
            self.response_headers.append((b"Connection", b"close"))
            self.close_connection = True
        super().finalize_headers()

    def _write_with_headers(self, data: bytes) -> None:
        """The head waits for the first piece of the body: one segment, one system call."""
        self._head = b""
        try:
            super()._write_with_headers(data)
            if self._head:
                super()._sendall(self._head)
        finally:
            self._head = None

    def _sendall(self, data: bytes) -> None:
        if self._head is None:
            super()._sendall(data)
        elif not self._head:
            self._head = bytes(data)
        else:
            head, self._head = self._head, None
            if len(data) <= JOINED:
                super()._sendall(head + data)
            else:
                super()._sendall(head)
                super()._sendall(data)

    def log_request(self) -> None:
        """Whoever wants an access log wraps the application."""
