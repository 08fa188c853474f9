"""Asking the API: in the same greenlet through WSGI, or over a real socket in the same process.

Every answer is checked against the type that the table of operations promises, and every error must be a problem."""

import http.client
import re
import socket
from typing import Any

import falcon.testing
import msgspec
from gevent import socket as gsocket

from dislocate.edge.http.access import Access
from dislocate.edge.http.app import all_operations, make_app
from dislocate.edge.http.call import JSON, types_of
from dislocate.edge.http.problems import Problem
from dislocate.edge.metrics import EdgeCounters
from tests.support.fake_backend import SELF, FakeBackend

HOST = "localhost:49700"


class ApiClient:
    """Asks from loopback unless told otherwise; `problem` is the typed last error."""

    def __init__(self, backend: FakeBackend, access: Access | None = None, **options: Any) -> None:
        self.counters = EdgeCounters()
        self.app = make_app(backend, SELF, access or Access(), self.counters, **options)
        self.environ: dict[str, Any] = {"REMOTE_ADDR": "127.0.0.1"}
        self._client = falcon.testing.TestClient(self.app)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> falcon.testing.Result:
        path, _, query = path.partition("?")
        sent = {"Host": HOST, **{name.replace("_", "-"): value for name, value in headers.items()}}
        data = body if body is None or isinstance(body, bytes) else msgspec.json.encode(body)
        if data is not None:
            sent.setdefault("Content-Type", "application/json")
        result = self._client.simulate_request(
            method, path, query_string=query, body=data, headers=sent, extras=self.environ
        )
        check_answer(method, path, result)
        return result

    def get(self, path: str, **headers: str) -> Any:
        """The JSON of a good answer."""
        result = self.ask("GET", path, **headers)
        assert result.status_code == 200, result.text
        return result.json

    def problem(self, method: str, path: str, body: Any = None, **headers: str) -> Problem:
        """The problem of a bad one."""
        result = self.ask(method, path, body, **headers)
        assert result.status_code >= 400, result.text
        return msgspec.json.decode(result.content, type=Problem)


def check_answer(method: str, path: str, result: falcon.testing.Result) -> None:
    """The body is what the schema says, no more and no less; errors are problems without stack traces."""
    if method == "HEAD":
        assert result.content == b""
        return
    if result.status_code >= 400:
        assert result.headers["content-type"] == "application/problem+json"
        problem = msgspec.json.decode(result.content, type=Problem)
        assert problem.status == result.status_code
        assert "Traceback" not in result.text
        return
    promised = [
        operation.answer
        for operation in all_operations()
        if operation.method == method and re.fullmatch(_as_regex(operation.path), path)
    ]
    types = types_of(promised[0]) if promised else ()
    if types and result.headers["content-type"] == JSON:
        assert any(is_exactly(result, type_) for type_ in types), result.text


def is_exactly(result: falcon.testing.Result, type_: type) -> bool:
    try:
        decoded = msgspec.json.decode(result.content, type=type_)
    except msgspec.ValidationError:
        return False
    return msgspec.json.decode(msgspec.json.encode(decoded)) == result.json


def _as_regex(template: str) -> str:
    return re.sub(r"\{\w+\}", "[^/]+", re.sub(r"\{\w+:path\}", ".+", template))


class Connection(http.client.HTTPConnection):
    """One kept connection that lets other greenlets run."""

    def __init__(self, address: tuple[str, int] | str) -> None:
        super().__init__("localhost", 49700, timeout=60)
        self._address = address

    def connect(self) -> None:
        family = socket.AF_UNIX if isinstance(self._address, str) else socket.AF_INET
        self.sock = gsocket.socket(family, socket.SOCK_STREAM)
        self.sock.settimeout(60)
        self.sock.connect(self._address)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Status and JSON."""
        data = None if body is None else msgspec.json.encode(body)
        sent = {"Content-Type": "application/json", **headers}
        self.request(method, path, data, sent)
        response = self.getresponse()
        return response.status, msgspec.json.decode(response.read())
