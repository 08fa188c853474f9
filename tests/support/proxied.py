"""Streams and whole workers of the proxy on loopback, in a thread of this process, and endpoints that misbehave."""

import gc
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

from dislocate.core.boundary.balance import Policy, Route, Share, Usage
from dislocate.core.boundary.values import Status
from dislocate.core.boundary.views import InstanceView
from dislocate.proxy.entrance import listen_at
from dislocate.proxy.loop import Loop
from dislocate.proxy.settings import Limits, Listen, Plan
from dislocate.proxy.stream import BUFFER, End, Stream
from dislocate.proxy.worker import Worker

LIMIT = 20.0  # seconds that anything may take


def until(claim: Callable[[], Any], what: str = "") -> Any:
    """What `claim` returns, as soon as that is true."""
    ends = time.monotonic() + LIMIT
    while not (found := claim()):
        assert time.monotonic() < ends, what or claim
        time.sleep(0.001)
    return found


def descriptors() -> dict[str, str]:
    """What this process has open, by number."""
    gc.collect()  # what an earlier test left to it
    found = {}
    for path in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the folder itself, which is closed again
            found[path.name] = os.readlink(path)
    return found


def reset(connection: socket.socket) -> None:
    """Close it so that the peer sees a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def is_reset(connection: socket.socket) -> bool:
    """Whether the peer's end was a reset; reads what came before."""
    try:
        while connection.recv(65536):
            pass
    except ConnectionResetError:
        return True
    return False


def read_all(connection: socket.socket) -> bytes:
    """To the clean end."""
    parts = []
    while data := connection.recv(65536):
        parts.append(data)
    return b"".join(parts)


@contextmanager
def running(loop: Loop) -> Iterator[None]:
    """`loop` in a thread; what broke there breaks the test."""
    broken: list[BaseException] = []

    def run() -> None:
        try:
            loop.run()
        except BaseException as error:  # noqa: BLE001 (raised again below)
            broken.append(error)

    thread = Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        if not broken:
            loop.stop()
        thread.join(LIMIT)
        if broken:
            raise broken[0]
        assert not thread.is_alive()


def connected(small: bool = False) -> tuple[socket.socket, socket.socket]:
    """Two ends of one TCP connection; `small`: with as small buffers as the kernel gives."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        if small:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        near = socket.socket()
        if small:
            near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        near.settimeout(LIMIT)
        near.connect(server.getsockname())
        far, _ = server.accept()
        if small:
            far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        far.settimeout(LIMIT)
        for end in (near, far):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return near, far


class Relay:
    """A loop and the streams that are made in it."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.ends: dict[Stream, End] = {}
        self.made: list[Stream] = []
        self._buffer = bytearray(BUFFER)

    def stream(self, first: bytes = b"", small: bool = False) -> tuple[socket.socket, socket.socket, Stream]:
        """The client's socket, the endpoint's, and the stream between them."""
        client, near = connected(small)
        far, endpoint = connected(small)
        near.setblocking(False)
        far.setblocking(False)
        number = len(self.made)

        def make() -> None:
            stream = Stream(self.loop, near, far, self._buffer, self.ends.__setitem__)
            stream.begin(first)
            self.made.append(stream)

        self.loop.soon(make)
        until(lambda: len(self.made) > number)
        return client, endpoint, self.made[number]

    def end(self, stream: Stream) -> End:
        """How it ended."""
        until(lambda: stream in self.ends, "it does not end")
        return self.ends[stream]


@contextmanager
def relay() -> Iterator[Relay]:
    """Every stream ends when its peers are closed, and no descriptor is left over."""
    before = descriptors()
    loop = Loop()
    with running(loop):
        relayed = Relay(loop)
        yield relayed
        until(lambda: len(relayed.ends) == len(relayed.made), "a stream is left")
    assert descriptors() == before


# ---- whole workers


class Server:
    """An endpoint: `speak` is called in a thread with each connection, which is closed after it."""

    def __init__(self, speak: Callable[[socket.socket], None]) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self.accepted = 0
        self._speak = speak
        self._threads = [Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.accepted += 1
            connection.settimeout(LIMIT)
            thread = Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                self._speak(connection)
            except OSError:
                return

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for thread in self._threads:
            thread.join(LIMIT)


def echo(connection: socket.socket) -> None:
    while data := connection.recv(65536):
        connection.sendall(data)


def says(name: bytes) -> Callable[[socket.socket], None]:
    """Says its name and goes on as `echo`."""

    def speak(connection: socket.socket) -> None:
        connection.sendall(name)
        echo(connection)

    return speak


def dead_port() -> int:
    """Nobody listens there."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def deaf_port() -> Iterator[int]:
    """Somebody listens there whose queue is full: a connect is never answered."""
    with socket.socket() as server, ExitStack() as stack:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(3):
            filler = stack.enter_context(closing(socket.socket()))
            filler.setblocking(False)
            filler.connect_ex(server.getsockname())
        yield int(server.getsockname()[1])


def instance(name: str, port: int, datacenter: str = "fra", address: str = "127.0.0.1") -> InstanceView:
    return InstanceView(
        id=name, service="shop.web", node=f"{datacenter}/a1", datacenter=datacenter, address=address, port=port,
        status=Status.PASSING, tags=(), meta={}, weight=1, load=None, as_of=0, reachable=True,
    )  # fmt: skip


def route(*instances: InstanceView, epoch: int = 1, **policy: Any) -> Route:
    home = [each.datacenter for each in instances if each.datacenter == "fra"]
    places = dict.fromkeys(home or [each.datacenter for each in instances])
    return Route(
        service="shop.web", home="fra", index=epoch, epoch=epoch, policy=Policy(**{"slow_start": 0, **policy}),
        shares=tuple(Share(place, 1 / len(places)) for place in places), instances=instances, as_of=0,
    )  # fmt: skip


class Routes:
    """A source of routes that a test writes."""

    def __init__(self, *instances: InstanceView, **policy: Any) -> None:
        self.route = route(*instances, **policy)
        self.done: Callable[[], Sequence[Usage]] = list
        self.words = ""
        self._told: Callable[[Route], None] | None = None

    def first(self) -> tuple[Route, ...]:
        return (self.route,)

    def start(self, told: Callable[[Route], None], done: Callable[[], Sequence[Usage]]) -> None:
        self._told, self.done = told, done

    def change(self, *instances: InstanceView, **policy: Any) -> None:
        self.route = route(*instances, epoch=self.route.epoch + 1, **policy)
        assert self._told is not None
        self._told(self.route)

    def trouble(self, _service: str) -> str:
        return self.words

    def stop(self) -> None:
        self._told = None


class Front:
    """A worker under test."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.exchange = worker.exchanges["shop.web"]
        self.port = worker.entrances[0].port

    @property
    def tally(self) -> Any:
        return self.exchange.tally

    def connect(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=LIMIT)
        connection.settimeout(LIMIT)
        return connection


@contextmanager
def front(routes: Routes, host: str = "127.0.0.1", **limits: Any) -> Iterator[Front]:
    """A worker that listens for shop.web; no descriptor is left over when it ends."""
    before = descriptors()
    plan = Plan(listens=(Listen(host, 0, "shop.web"),), agent="", limits=Limits(**{"grace": 0, **limits}))
    said: list[str] = []
    worker = Worker(plan, routes, [listen_at(plan.listens[0])], f"test-{os.getpid()}", said.append)
    broken: list[BaseException] = []

    def run() -> None:
        try:
            worker.run(ready=is_ready.set)
        except BaseException as error:  # noqa: BLE001 (raised again below)
            broken.append(error)

    is_ready = Event()
    thread = Thread(target=run)
    thread.start()
    assert is_ready.wait(LIMIT)
    try:
        yield Front(worker)
    finally:
        if thread.is_alive():
            worker.end()
        thread.join(LIMIT)
        if broken:
            raise broken[0]
        assert not thread.is_alive()
    until(lambda: descriptors() == before, "descriptors are left")


@contextmanager
def serving(*speaks: Callable[[socket.socket], None]) -> Iterator[list[Server]]:
    servers = [Server(speak) for speak in speaks]
    try:
        yield servers
    finally:
        for server in servers:
            server.close()
