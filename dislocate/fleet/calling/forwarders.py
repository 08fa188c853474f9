"""Shaped TCP forwarders: an application's connections to other hosts take as long, and are cut, as the scenario has it.

A connection is made when a real one would be, a round trip later, or times out while a direction is cut.  What is sent on it
arrives in order, after that direction's delay, and waits while that is cut, as with TCP.  A host that the plan does not name
is connected to as it is.  Between an application and its forwarder there is a socket pair, so nothing above notices.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import gevent
from gevent import socket
from gevent.queue import Queue
from urllib3 import HTTPConnectionPool, PoolManager
from urllib3.connection import HTTPConnection
from urllib3.exceptions import ConnectTimeoutError

from dislocate.core.units import SECOND
from dislocate.io.shaping import Shaping
from dislocate.linkmodel import APP, Link

SYN = 64  # bytes of a packet that carries no data
PIECE = 1 << 16  # bytes read at a time
ON_THE_WAY = 64  # pieces of one direction; then who sends waits, as with a full window
HEALED = 0.02  # seconds between two looks whether a link works again
FOR_EVER = 3600.0  # seconds that a connect without a timeout takes over a link that is cut


def pools_through(shaping: Shaping, pools: int, kept: int) -> PoolManager:
    """A pool of HTTP connections as `Client.connections` has it, through forwarders."""

    class Connection(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            links = shaping.links_with(f"{self.host}:{self.port}")
            if links is None:
                return super()._new_conn()
            timeout = self.timeout if isinstance(self.timeout, int | float) else FOR_EVER
            connected = connect(*links, super()._new_conn, float(timeout))
            if connected is None:
                raise ConnectTimeoutError(self, f"{self.host}:{self.port} did not answer in {timeout:g} s")
            return connected

    class Pool(HTTPConnectionPool):
        ConnectionCls = Connection

    manager = PoolManager(pools, maxsize=kept, retries=False)
    manager.pool_classes_by_scheme = {"http": Pool}
    return manager


def connect(there: Link, back: Link, dial: Callable[[], socket.socket], timeout: float) -> socket.socket | None:
    """A connection that is made by `dial` and forwarded; None: it was not made in time.  Raises what `dial` raises."""
    deadline = time.monotonic() + timeout
    if not _passes(there, deadline):
        return _late(deadline)
    made = None
    try:
        made = dial()
    finally:  # a refusal takes its way back too
        answered = _passes(back, deadline)
        if not answered and made is not None:
            made.close()
    if not answered:
        return _late(deadline)
    made.settimeout(None)  # it has that of connecting; how long an answer may take is the application's to say
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    near, far = socket.socketpair()
    Forwarder(far, made, there, back)
    return near


def _passes(link: Link, deadline: float) -> bool:
    now = time.monotonic_ns()
    arrives = link.segment(SYN, now, APP)
    if arrives is None or arrives / SECOND > deadline:
        return False
    gevent.sleep((arrives - now) / SECOND)
    return not link.is_cut(APP)


def _late(deadline: float) -> None:
    gevent.sleep(max(0.0, deadline - time.monotonic()))


class Forwarder:
    """One connection: both directions, until both have ended or one of them breaks."""

    def __init__(self, near: Any, far: Any, there: Link, back: Link) -> None:
        self._sockets = (near, far)
        self._open = 2
        self._greenlets: list[gevent.Greenlet] = []
        for source, sink, link in ((near, far, there), (far, near, back)):
            way: Queue = Queue(ON_THE_WAY)
            self._greenlets.append(gevent.spawn(self._read, source, link, way))
            self._greenlets.append(gevent.spawn(self._write, sink, link, way))

    def _read(self, source: Any, link: Link, way: Queue) -> None:
        last, data = 0, b"."
        while data:
            try:
                data = source.recv(PIECE)
            except OSError:
                data = b""  # it was reset: whoever waits at the other end hears that it is over
            now = time.monotonic_ns()
            last = max(last, link.segment(max(SYN, len(data)), now, APP) or now)
            way.put((last, data))

    def _write(self, sink: Any, link: Link, way: Queue) -> None:
        data = b"."
        while data:
            at, data = way.get()
            gevent.sleep(max(0.0, (at - time.monotonic_ns()) / SECOND))
            while link.is_cut(APP):
                gevent.sleep(HEALED)
            try:
                if data:
                    sink.sendall(data)
                else:
                    sink.shutdown(socket.SHUT_WR)
            except OSError:
                self._end()
                return
        self._open -= 1
        if not self._open:
            self._end()

    def _end(self) -> None:
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        gevent.killall([one for one in self._greenlets if one is not gevent.getcurrent()], block=False)
