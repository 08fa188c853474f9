"""agent.sock: the cheapest way to register, call in and report load, one JSON datagram each.

    {"op": "heartbeat", "id": "web-1"}      ->  {"ok": true, "version": 7}
    {"op": "heartbaet", "id": "web-1"}      ->  {"error": {"field": "op", "got": "heartbaet", "expected": "one of ..."}}

A sender that has bound a name is answered; one that has not is only counted.  The kernel says whose datagram it is: the
agent's own user and root may register commands as checks, everybody else has the role of loopback.  Nothing that arrives
ends the loop; a sender that does not take its answers loses them.
"""

import logging
import socket
import struct
from collections.abc import Callable
from typing import Any

import gevent
import msgspec
from gevent import socket as gsocket
from gevent.pool import Pool

from dislocate.core.boundary.requests import Done, Refused, Register, Request, Result
from dislocate.core.errors import LocalError
from dislocate.edge.backend import Backend
from dislocate.edge.bodies import Datagram, request_of
from dislocate.edge.http.access import Access, Role
from dislocate.edge.metrics import EdgeCounters
from dislocate.edge.sockets import bind_unix, unlink_unix
from dislocate.strict import decode

log = logging.getLogger(__name__)

SIZE_LIMIT = 64 * 1024  # bytes of one datagram
DRAIN_LIMIT = 64  # datagrams taken before others on the hub get a turn
UNDER_WAY = 64  # requests waiting for the core; the senders of more wait in the kernel's queue
ANSWER_WITHIN = 10.0  # seconds that the core and its disk get

_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid
_SO_PASSCRED = getattr(socket, "SO_PASSCRED", 16)
_SCM_CREDENTIALS = getattr(socket, "SCM_CREDENTIALS", 2)


def handle_datagram(data: bytes, role: Role, ask: Callable[[Request], Result]) -> bytes:
    """The answer to one datagram, whatever its bytes are; `ask` is called at most once."""
    try:
        request = request_of(decode(data, Datagram))
        needed = _needed(request)
        if role < needed:
            raise LocalError("op", got=role.label, expected=f"a sender with the role {needed.label!r}")
        result = ask(request)
    except LocalError as error:
        return _error(error.field, error.got, error.expected)
    except TimeoutError:
        return _error("op", None, "an answer of the core in time: ask again, twice does no harm")
    if isinstance(result, Refused):
        return _error(result.field, None, result.reason)
    return msgspec.json.encode({"ok": True, "version": result.version if isinstance(result, Done) else 0})


class DatagramSocket:
    """agent.sock of one agent.  Taking it may raise `ConfigError`."""

    def __init__(self, backend: Backend, path: str, access: Access, counters: EdgeCounters) -> None:
        self._backend = backend
        self._path = path
        self._access = access
        self._counters = counters
        self._under_way = Pool(UNDER_WAY)
        self._socket = bind_unix(path, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_PASSCRED, 1)
        self._socket.setblocking(False)
        self._loop: gevent.Greenlet | None = None

    def start(self) -> None:
        self._loop = gevent.spawn(self._serve)

    def stop(self) -> None:
        """Stop listening; what is under way is given a second."""
        if self._loop is not None:
            self._loop.kill()
        self._under_way.join(timeout=1.0)
        self._under_way.kill()
        self._socket.close()
        unlink_unix(self._path)

    def _serve(self) -> None:
        while True:
            gsocket.wait_read(self._socket.fileno())
            for _ in range(DRAIN_LIMIT):
                try:
                    received = self._socket.recvmsg(SIZE_LIMIT, socket.CMSG_SPACE(_CREDENTIALS.size))
                except BlockingIOError:
                    break
                except OSError:
                    log.exception("agent.sock could not be read")
                    gevent.sleep(0.1)  # so that a lasting failure does not spin
                    break
                self._under_way.spawn(self._answer, *received)
            gevent.sleep(0)

    def _answer(self, data: bytes, ancillary: list[Any], flags: int, sender: str | bytes | None) -> None:
        if flags & socket.MSG_TRUNC:
            answer = _error("datagram", None, f"at most {SIZE_LIMIT} bytes; longer ones go to PUT /api/instances/ID")
        else:
            answer = self._safe_answer(data, self._role_of(ancillary))
        self._counters.count("datagrams", outcome="error" if answer.startswith(b'{"error"') else "ok")
        if not sender:
            return
        try:
            self._socket.sendto(answer, sender)
        except OSError:  # gone, or its queue is full: it is not worth waiting for
            self._counters.count("datagram_answers_dropped")

    def _safe_answer(self, data: bytes, role: Role) -> bytes:
        try:
            return handle_datagram(data, role, lambda request: self._backend.request(request, ANSWER_WITHIN))
        except Exception:  # the last resort of this socket, as `app` has one: logged, and the sender is told
            log.exception("a datagram met a bug")
            return _error("agent", None, "no bug in the agent: its log has the details")

    def _role_of(self, ancillary: list[Any]) -> Role:
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, _SCM_CREDENTIALS) and len(data) == _CREDENTIALS.size:
                uid = _CREDENTIALS.unpack(data)[1]
                return Role.OPERATE if uid in (self._access.uid, 0) else self._access.loopback
        return self._access.loopback


def _needed(request: Request) -> Role:
    if isinstance(request, Register) and request.instance.check is not None and request.instance.check.command:
        return Role.OPERATE
    return Role.REGISTER


def _error(field: str, got: object, expected: str) -> bytes:
    return msgspec.json.encode({"error": {"field": field, "got": got, "expected": expected}})
