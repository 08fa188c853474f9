"""Serving the API with gevent: on TCP and on http.sock, with bounded connections and patience.

Invariant: nobody outside holds a greenlet for longer than `IDLE` without sending or taking a byte, and no request's head
takes longer than `HEAD_WITHIN`; only a long poll or a stream that the API itself holds open lasts longer.
"""

import logging
import socket
import struct
from collections.abc import Callable, Iterable
from http import HTTPStatus
from http.client import HTTPException
from typing import Any

import gevent
from gevent.pool import Pool
from gevent.pywsgi import Input, WSGIHandler, WSGIServer

from dislocate.edge.http.access import PEER_UID
from dislocate.edge.http.call import IS_GONE
from dislocate.edge.http.problems import MEDIA_TYPE, encode, problem
from dislocate.edge.metrics import EdgeCounters
from dislocate.edge.sockets import bind_unix, listen_tcp, unlink_unix

log = logging.getLogger(__name__)

CONNECTIONS = 512  # per listener; the 513th waits in the kernel's backlog
IDLE = 60.0  # seconds: a kept connection without a request, or a reader that takes nothing
HEAD_WITHIN = 10.0  # seconds from the first byte of a request to the end of its headers
DISCARD_WITHIN = 2.0  # seconds that an unread body may still take: hanging up at once would lose our answer

_PEER_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid


class HttpServer:
    """The API of one agent on all of its listeners.  Taking them may raise `ConfigError`; then nothing is listening."""

    def __init__(
        self,
        app: Callable[..., Iterable[bytes]],
        counters: EdgeCounters,
        *,
        addresses: tuple[tuple[str, int], ...],
        socket_path: str = "",
    ) -> None:
        self._socket_path = socket_path
        self._listeners: list[Any] = []
        try:
            for host, port in addresses:
                self._listeners.append(listen_tcp(host, port))
            if socket_path:
                self._listeners.append(bind_unix(socket_path, socket.SOCK_STREAM))
        except BaseException:
            for listener in self._listeners:
                listener.close()
            raise
        self._servers = [_Server(listener, app, counters) for listener in self._listeners]

    @property
    def ports(self) -> tuple[int, ...]:
        """The TCP ports listened on, in the order of the addresses."""
        inet = (listener for listener in self._listeners if listener.family != socket.AF_UNIX)
        return tuple(listener.getsockname()[1] for listener in inet)

    def start(self) -> None:
        for server in self._servers:
            server.start()

    def stop(self, timeout: float = 1.0) -> None:
        """Stop listening, give requests under way `timeout` seconds together, end them."""
        for server in self._servers:
            server.close()
        gevent.joinall([gevent.spawn(server.stop, timeout) for server in self._servers])
        if self._socket_path:
            unlink_unix(self._socket_path)


class _Server(WSGIServer):
    """One listener."""

    def __init__(self, listener: Any, app: Callable[..., Iterable[bytes]], counters: EdgeCounters) -> None:
        self.counters = counters
        super().__init__(
            listener,
            app,
            spawn=Pool(CONNECTIONS),
            log=None,
            error_log=_Complaints(counters),
            handler_class=_Connection,
            environ={"SERVER_NAME": "dislocate"},  # else gevent asks the resolver for our name, and waits
        )


class _Complaints:
    """Where pywsgi writes that a client sent nonsense: counted, and in the log only for who wants to see it."""

    def __init__(self, counters: EdgeCounters) -> None:
        self._counters = counters

    def write(self, text: str) -> None:
        self._counters.count("http_rejected_connections")
        log.debug("%s", text.rstrip())

    def flush(self) -> None:
        """Nothing is kept back."""


class _Body(Input):
    """A request's body whose unread rest is not awaited for ever."""

    __slots__ = ("hang_up",)
    hang_up: Callable[[], None]

    def _discard(self) -> None:
        with gevent.Timeout(DISCARD_WITHIN, False):
            super()._discard()
            return
        self.hang_up()


class _Connection(WSGIHandler):
    """One connection and its requests, one after the other."""

    _complaint = ""  # what was wrong with the head of the last request

    def handle(self) -> None:
        self.socket.settimeout(IDLE)
        super().handle()

    def read_requestline(self) -> str:
        """Waits `IDLE` for the first byte, then `HEAD_WITHIN` for the line; a TimeoutError ends the connection quietly."""
        self.rfile.peek(1)
        with gevent.Timeout(HEAD_WITHIN, TimeoutError):
            line: str = super().read_requestline()
            return line

    def read_request(self, raw_requestline: str) -> bool:
        """Raises ValueError for all that is the client's fault: pywsgi prints a trace for anything else."""
        try:
            with gevent.Timeout(HEAD_WITHIN, TimeoutError):
                return bool(super().read_request(raw_requestline))
        except (OSError, HTTPException, IndexError) as error:
            raise ValueError(f"bad or late headers: {error or type(error).__name__}") from None

    def handle_one_request(self) -> Any:
        """What pywsgi refuses before the API sees it is answered by an empty body: say what was wrong."""
        answer = super().handle_one_request()
        if not isinstance(answer, tuple):
            return answer
        status = HTTPStatus(int(answer[0]))
        return answer[0], _refusal(
            status, self._complaint or f"the request line is too long: {len(self.requestline)} bytes or more"
        )

    def _handle_client_error(self, error: Exception) -> Any:
        self._complaint = str(getattr(error, "formatted_message", error))
        return super()._handle_client_error(error)

    def get_environ(self) -> dict[str, Any]:
        environ: dict[str, Any] = super().get_environ()
        if self.socket.family == socket.AF_UNIX:
            environ[PEER_UID] = peer_uid(self.socket)
        environ[IS_GONE] = self._is_gone
        plain = self.wsgi_input
        body = _Body(plain.rfile, plain.content_length, plain.socket, plain.chunked_input)
        body.hang_up = self._hang_up
        if environ["wsgi.input"] is plain:
            environ["wsgi.input"] = body
        self.wsgi_input = body
        return environ

    def handle_error(self, kind: Any, error: Any, trace: Any) -> None:
        """A client that went away, or took nothing for `IDLE`, is no error of ours; anything else is a bug."""
        self.close_connection = True
        if issubclass(kind, OSError):
            self.server.counters.count("http_rejected_connections")
            return
        if not issubclass(kind, gevent.GreenletExit):
            self.server.counters.count("http_failures")
            log.error("an answer met a bug while it was sent", exc_info=(kind, error, trace))
        self._send_error_response_if_possible(500)

    def _is_gone(self) -> bool:
        """Whether the other end closed; asks the kernel without waiting and takes nothing from the stream."""
        self.socket.settimeout(0.0)
        try:
            return bool(self.socket.recv(1, socket.MSG_PEEK) == b"")
        except BlockingIOError:
            return False
        except OSError:
            return True
        finally:
            self.socket.settimeout(IDLE)

    def _hang_up(self) -> None:
        self.close_connection = True


def _refusal(status: HTTPStatus, detail: str) -> bytes:
    """A whole answer that ends its connection."""
    body = encode(problem(status, detail[:200]))
    head = f"HTTP/1.1 {status.value} {status.phrase}\r\nConnection: close\r\nContent-Type: {MEDIA_TYPE}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def peer_uid(connection: Any) -> int:
    """The user at the other end of a unix stream socket, by the kernel's word."""
    size = _PEER_CREDENTIALS.size
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    uid: int = _PEER_CREDENTIALS.unpack(credentials)[1]
    return uid
