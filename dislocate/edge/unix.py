"""agent.sock: the cheapest way to register, call in, report load, and to read and set keys, one JSON datagram each.

    {"op": "heartbeat", "id": "web-1"}      ->  {"ok": true, "version": 7}
    {"op": "heartbaet", "id": "web-1"}      ->  {"error": {"field": "op", "got": "heartbaet", "expected": "one of ..."}}

A sender that has bound a name is answered; one that has not is only counted.  The kernel says whose datagram it is: the
agent's own user and root may register commands as checks, everybody else has the role of loopback.  Nothing that arrives
ends the loop; a sender that does not take its answers loses them.

One greenlet reads, and answers are sent from where the core gives them: a request costs no greenlet of its own.  What waits
for the core is bounded, and each gets an answer: the core's, or that there was none in time.  What a datagram means is
`datagrams`' to know.
"""

import itertools
import logging
import socket
import struct
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import gevent
from gevent import socket as gsocket
from gevent.event import Event as Flag

from dislocate.core.boundary.requests import Result
from dislocate.core.errors import LocalError
from dislocate.edge.backend import Backend
from dislocate.edge.datagrams import ANSWER_LIMIT, Answerer, say_error, say_mistake, understand
from dislocate.edge.http.access import Access, Role
from dislocate.edge.metrics import EdgeCounters
from dislocate.edge.sockets import bind_unix, unlink_unix

log = logging.getLogger(__name__)

SIZE_LIMIT = ANSWER_LIMIT  # bytes of one datagram; longer values go over HTTP
DRAIN_LIMIT = 64  # datagrams taken before others on the hub get a turn
UNDER_WAY = 1_024  # requests waiting for the core; the senders of more wait in the kernel's queue
ANSWER_WITHIN = 10.0  # seconds that the core and its disk get
LOOK_EVERY = 0.5  # seconds between looks for requests that wait too long

_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid
_ROOM = socket.CMSG_SPACE(_CREDENTIALS.size)
_SO_PASSCRED = getattr(socket, "SO_PASSCRED", 16)
_SCM_CREDENTIALS = getattr(socket, "SCM_CREDENTIALS", 2)
_BUG = say_error("agent", None, "no bug in the agent: its log has the details")
_TOO_LONG = say_error("datagram", None, f"at most {SIZE_LIMIT} bytes; longer ones go over HTTP")


class _Waiting:
    """A request that the core has not answered yet."""

    __slots__ = ("answer", "request_id", "sender", "until")

    def __init__(self, sender: str | bytes | None, answer: Answerer, until: float) -> None:
        self.sender = sender
        self.answer = answer
        self.until = until
        self.request_id = 0


class DatagramSocket:
    """agent.sock of one agent.  Taking it may raise `ConfigError`."""

    def __init__(
        self,
        backend: Backend,
        path: str,
        access: Access,
        counters: EdgeCounters,
        *,
        answer_within: float = ANSWER_WITHIN,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._backend = backend
        self._path = path
        self._access = access
        self._counters = counters
        self._answer_within = answer_within
        self._clock = clock
        self._waiting: dict[int, _Waiting] = {}  # oldest first
        self._tickets = itertools.count(1)
        self._room = Flag()
        self._socket = bind_unix(path, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_PASSCRED, 1)
        self._socket.setblocking(False)
        self._greenlets: list[gevent.Greenlet] = []

    def start(self) -> None:
        self._greenlets = [gevent.spawn(self._serve), gevent.spawn(self._give_up_late)]

    def stop(self) -> None:
        """Stop listening; what is under way is given a second."""
        gevent.killall(self._greenlets[:1])  # the reader
        with gevent.Timeout(1.0, False):
            while self._waiting:
                self._room.clear()
                self._room.wait()
        gevent.killall(self._greenlets)
        for ticket in list(self._waiting):
            self._backend.cancel(self._waiting.pop(ticket).request_id)
        self._socket.close()
        unlink_unix(self._path)

    # ---- in

    def _serve(self) -> None:
        while True:
            gsocket.wait_read(self._socket.fileno())
            self._drain()
            gevent.sleep(0)

    def _drain(self) -> None:
        for _ in range(DRAIN_LIMIT):
            while len(self._waiting) >= UNDER_WAY:
                self._room.clear()
                self._room.wait()
            try:
                received = self._socket.recvmsg(SIZE_LIMIT, _ROOM)
            except BlockingIOError:
                return
            except OSError:
                log.exception("agent.sock could not be read")
                gevent.sleep(0.1)  # so that a lasting failure does not spin
                return
            self._take(*received)

    def _take(self, data: bytes, ancillary: list[Any], flags: int, sender: str | bytes | None) -> None:
        if flags & socket.MSG_TRUNC:
            self._send(_TOO_LONG, sender)
            return
        ticket = next(self._tickets)
        try:
            request, answer = understand(data, self._role_of(ancillary))
            waiting = self._waiting[ticket] = _Waiting(sender, answer, self._clock() + self._answer_within)
            waiting.request_id = self._backend.ask(request, partial(self._answered, ticket))
        except LocalError as error:
            self._waiting.pop(ticket, None)
            self._send(say_mistake(data, error), sender)
        except Exception:  # the last resort of this socket, as `app` has one: logged, and the sender is told
            log.exception("a datagram met a bug")
            self._waiting.pop(ticket, None)
            self._send(_BUG, sender)

    def _role_of(self, ancillary: list[Any]) -> Role:
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, _SCM_CREDENTIALS) and len(data) == _CREDENTIALS.size:
                uid = _CREDENTIALS.unpack(data)[1]
                return Role.OPERATE if uid in (self._access.uid, 0) else self._access.loopback
        return self._access.loopback

    # ---- out

    def _answered(self, ticket: int, result: Result | None) -> None:
        """Called by the core, on the hub; with None when it did not answer in time."""
        waiting = self._waiting.pop(ticket, None)
        if waiting is None:
            return
        self._room.set()
        try:
            answer = waiting.answer(result)
        except Exception:
            log.exception("an answer met a bug")
            answer = _BUG
        self._send(answer, waiting.sender)

    def _send(self, answer: bytes, sender: str | bytes | None) -> None:
        self._counters.count("datagrams", outcome="error" if answer.startswith(b'{"error"') else "ok")
        if not sender:
            return
        try:
            self._socket.sendto(answer, sender)
        except OSError:  # gone, or its queue is full: it is not worth waiting for
            self._counters.count("datagram_answers_dropped")

    def _give_up_late(self) -> None:
        while True:
            gevent.sleep(min(LOOK_EVERY, self._answer_within))
            now = self._clock()
            for ticket, waiting in list(self._waiting.items()):
                if waiting.until > now:
                    break
                self._backend.cancel(waiting.request_id)
                self._answered(ticket, None)
