"""One agent's HTTP API, over its unix socket or TCP, with http.client; and what went wrong, in words."""

import http.client
import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import quote, urlsplit

from msgspec import Struct

from dislocate.core.errors import DislocateError, LocalError
from dislocate.core.tunables import RESTORE_PACE

DEFAULT_URL = "http://127.0.0.1:49700"
DEFAULT_SOCKET = Path("/var/lib/dislocate/http.sock")
TIMEOUT = 12.0  # seconds; the agent answers from memory, or says after 10 s that its disk does not
STORE_TIMEOUT = 20.0  # seconds; longer than an agent waits for a majority of servers, so that its words arrive
QUIET_TIMEOUT = 60.0  # seconds; an event stream says "still here" each 15 s
CHANGE_TIMEOUT = 150.0  # seconds; the same for what moves a whole store: a new server, a restore


def restore_timeout(size: int) -> float:
    """Seconds for a restore of so many bytes, which goes on as long as its parts arrive."""
    return CHANGE_TIMEOUT + size / RESTORE_PACE


class NoAgent(DislocateError):
    """Nothing answers where the agent should be.  Nothing was changed, unless the reason is a TimeoutError."""

    def __init__(self, where: str, reason: object) -> None:
        super().__init__(where, reason)
        self.where = where
        self.reason = reason

    def __str__(self) -> str:
        if isinstance(self.reason, TimeoutError):
            return f"{self.where} did not answer in time: what was asked may have been done"
        return (
            f"no agent at {self.where} ({self.reason})\n"
            "start one:   dislocate agent --config FILE   or, to try it out, dislocate dev\n"
            "or name one: --agent http://HOST:49700, --agent unix:/PATH/http.sock, or DISLOCATE_AGENT"
        )


class Problem(DislocateError):
    """The agent refused (RFC 9457).  Nothing was changed.  `about`: the file that the refused request came from."""

    def __init__(self, status: int, answer: dict[str, Any], about: str = "") -> None:
        super().__init__(status, answer, about)
        self.status = status
        self.answer = answer
        self.about = about

    def __str__(self) -> str:
        """A mistake that was found there reads as one that was found here: place, what stood there, the mend."""
        text = str(self.answer.get("detail") or self.answer.get("title") or f"HTTP {self.status}")
        field, hint, expected = (str(self.answer.get(name, "")) for name in ("field", "hint", "expected"))
        if text == f"{field}: expected {expected}" and "got" in self.answer:
            text = f"{field}: got {self.answer['got']!r}, expected {expected}"
        if field and not text.startswith(f"{field}:"):
            text = f"{field}: {text}"
        mend = f"expected {expected}" if expected not in text else ""
        about = f"{self.about}: " if self.about else ""
        return "\n".join(line for line in (f"{about}{text}", mend, hint) if line)


class Raw(Struct, frozen=True):
    """An answer as bytes, with its headers in lower case."""

    body: bytes
    headers: dict[str, str]


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    make_socket: Callable[..., socket.socket] = socket.socket  # gevent's, where nothing is monkey-patched

    def __init__(self, path: str, timeout: float | None) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = self.make_socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class AgentConnection:
    """Where an agent is, and one request at a time to it."""

    def __init__(self, where: str, token: str | None = None, timeout: float = TIMEOUT) -> None:
        self.where = where
        self.token = token
        self.last_event_id: int | None = None  # of the latest event that `events` gave: where to resume
        self._timeout = timeout
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}

    def get(self, path: str, timeout: float | None = None) -> Any:
        """The JSON answer.  Raises `NoAgent` or `Problem`."""
        return self.send("GET", path, timeout=timeout)

    def send(self, method: str, path: str, body: object = None, timeout: float | None = None) -> Any:
        """The JSON answer, None for an empty one.  Raises `NoAgent` or `Problem`."""
        data = None if body is None else json.dumps(body).encode()
        status, raw = self._exchange(method, path, data, "application/json", timeout)
        return answer_of(status, raw.body)

    def raw(self, method: str, path: str, data: bytes | None = None, timeout: float | None = None) -> Raw:
        """The answer as it is, to a body as it is.  Raises `NoAgent` or `Problem`."""
        status, raw = self._exchange(method, path, data, "application/octet-stream", timeout)
        if status >= 400:
            answer_of(status, raw.body)
        return raw

    def text(self, path: str) -> str:
        """The answer as text.  Raises `NoAgent` or `Problem`."""
        return self.raw("GET", path).body.decode()

    def _exchange(
        self, method: str, path: str, data: bytes | None, media: str, timeout: float | None
    ) -> tuple[int, Raw]:
        connection = self.connection(timeout or self._timeout)
        try:
            response = self._request(connection, method, path, data, {} if data is None else {"Content-Type": media})
            headers = {name.lower(): value for name, value in response.getheaders()}
            return response.status, Raw(response.read(), headers)
        except (OSError, http.client.HTTPException) as error:
            raise NoAgent(self.where, error) from error
        finally:
            connection.close()

    def events(self, path: str, since: int | None = None) -> Iterator[tuple[str, Any]]:
        """(event name, data) of a stream of server-sent events, until the agent ends it.  Raises as `send`.

        With `since`, an index, the stream is resumed after it: a watch of services then begins with 'names', all that
        match.  `last_event_id` is where to resume after what was given."""
        connection = self.connection(QUIET_TIMEOUT)
        resume = {} if since is None else {"Last-Event-ID": str(since)}
        try:
            response = self._request(connection, "GET", path, None, resume)
            if response.status != 200:
                answer_of(response.status, response.read())
            name, data, number = "message", list[str](), self.last_event_id
            for raw in response:
                line = raw.decode().rstrip("\r\n")
                field, _, value = line.partition(": ")
                if field == "event":
                    name = value
                elif field == "data":
                    data.append(value)
                elif field == "id":
                    number = int(value)
                elif not line and not data:
                    self.last_event_id = number
                elif not line and data:
                    event = name, json.loads("\n".join(data))
                    name, data = "message", []
                    yield event
                    self.last_event_id = number
        except (OSError, http.client.HTTPException) as error:
            raise NoAgent(self.where, error) from error
        finally:
            connection.close()

    def lines(self, method: str, path: str, body: object) -> Iterator[Any]:
        """The JSON objects of an answer that has one a line, as they come.  Raises `NoAgent` or `Problem`."""
        connection = self.connection(QUIET_TIMEOUT)
        try:
            headers = {"Content-Type": "application/json"}
            response = self._request(connection, method, path, json.dumps(body).encode(), headers)
            if response.status != 200:
                answer_of(response.status, response.read())
            for line in response:
                if line.strip():
                    yield json.loads(line)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise NoAgent(self.where, error) from error
        finally:
            connection.close()

    def connection(self, timeout: float | None) -> http.client.HTTPConnection:
        """A connection to it that is not open yet.  Raises `LocalError` for a place that cannot be one."""
        if self.where.startswith("unix:"):
            return UnixConnection(self.where.removeprefix("unix:"), timeout)
        mistake = LocalError("--agent", got=self.where, expected="http://HOST:PORT or unix:/PATH")
        try:
            url = urlsplit(self.where if "//" in self.where else f"http://{self.where}")
            port = url.port or 49700
        except ValueError:  # a port that is no number or beyond 65535, a bracket too few
            raise mistake from None
        if url.scheme != "http" or not url.hostname:
            raise mistake
        return http.client.HTTPConnection(url.hostname, port, timeout=timeout)

    def _request(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        data: bytes | None,
        more_headers: Mapping[str, str] = MappingProxyType({}),
    ) -> http.client.HTTPResponse:
        connection.request(method, path, body=data, headers={**self.headers, **more_headers})
        return connection.getresponse()


def answer_of(status: int, text: bytes) -> Any:
    """The JSON of an answer, None of an empty one.  Raises `Problem`."""
    try:
        answer = json.loads(text) if text else None
    except ValueError:
        answer = {"title": f"HTTP {status}", "detail": text[:200].decode(errors="replace")}
    if status >= 400:
        raise Problem(status, answer if isinstance(answer, dict) else {})
    return answer


def find_agent(where: str | None, token: str | None = None) -> AgentConnection:
    """The agent that is named, else `DISLOCATE_AGENT`, else the local one: its http.sock first, then TCP."""
    where = where or os.environ.get("DISLOCATE_AGENT")
    if not where:
        where = f"unix:{DEFAULT_SOCKET}" if DEFAULT_SOCKET.is_socket() else DEFAULT_URL
    return AgentConnection(where, token or os.environ.get("DISLOCATE_TOKEN"))


def segment(text: str) -> str:
    """`text` as one segment of a path."""
    return quote(text, safe="")
