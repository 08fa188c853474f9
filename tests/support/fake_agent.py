"""An agent's HTTP API in a thread, as far as keys and leases go, with a store of its own and switches that break it."""

import json
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Condition, Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


class FakeAgent:
    """Keys and leases by the clock of this process; `status` other than 200 refuses everything."""

    def __init__(self) -> None:
        self.url = ""
        self.changed = Condition()
        self.revision = 0
        self.keys: dict[str, dict[str, Any]] = {}
        self.leases: dict[int, tuple[float, float]] = {}  # ttl, when it ends
        self.asked: deque[tuple[str, str]] = deque()
        self.status = 200

    def delete(self, key: str) -> None:
        """As somebody else would."""
        with self.changed:
            self.keys.pop(key, None)
            self._count()

    def put(self, key: str, value: str, lease: int = 0) -> int:
        with self.changed:
            created = self.keys[key]["created"] if key in self.keys else self.revision + 1
            self._count()
            found = {"key": key, "value": value, "created": created, "version": 1, "lease": lease, "age": 0.0}
            self.keys[key] = {**found, "revision": self.revision, "modified": self.revision}
            return self.revision

    def end_leases(self) -> None:
        with self.changed:
            self.leases.clear()
            self._expire()

    def wait_for(self, claim: Any, seconds: float = 60.0) -> None:
        with self.changed:
            assert self.changed.wait_for(claim, seconds), (self.keys, self.leases, list(self.asked))

    # ---- what it answers

    def answer(self, method: str, target: str, body: bytes) -> tuple[int, dict[str, Any]]:
        url = urlsplit(target)
        path, query = unquote(url.path), {name: values[-1] for name, values in parse_qs(url.query).items()}
        with self.changed:
            self.asked.append((method, target))
            self.changed.notify_all()
            if self.status != 200:
                return self.status, {"status": self.status, "detail": "missing: wdc/b1, wdc/b2"}
            self._expire()
        if path.startswith("/api/leases"):
            return self._lease(method, path, body)
        return self._key(method, path.removeprefix("/api/kv/"), query, body)

    def _lease(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        with self.changed:
            if path == "/api/leases":
                lease = len(self.asked) + 100
                ttl = float(json.loads(body)["ttl"].removesuffix("s"))
            else:
                lease = int(path.split("/")[3])
                if lease not in self.leases:
                    return 404, {"status": 404, "field": "lease", "detail": f"lease {lease} has ended"}
                ttl = self.leases[lease][0]
            if method == "DELETE":
                del self.leases[lease]
                self._expire()
                return 200, {"version": 0}
            self.leases[lease] = (ttl, time.monotonic() + ttl)
            self._count()
            return 200, {"lease": lease, "ttl": ttl, "remaining": ttl, "keys": []}

    def _key(self, method: str, key: str, query: dict[str, str], body: bytes) -> tuple[int, dict[str, Any]]:
        if method == "PUT":
            with self.changed:
                if query.get("cas") == "0" and key in self.keys:
                    return 409, {"status": 409, "detail": "conflict", "revision": self.keys[key]["revision"]}
                if int(query.get("lease", 0)) and int(query["lease"]) not in self.leases:
                    return 404, {"status": 404, "detail": "no such lease"}
            return 200, {"revision": self.put(key, body.decode(), int(query.get("lease", 0)))}
        with self.changed:
            if "index" in query:
                index, ends = int(query["index"]), time.monotonic() + float(query["wait"].removesuffix("ms")) / 1000
                while self.keys.get(key, {}).get("revision") == index and (left := ends - time.monotonic()) > 0:
                    self.changed.wait(min(left, 0.02))
                    self._expire()
            if key not in self.keys:
                return 404, {"status": 404, "field": "key", "detail": f"There is no key {key!r}"}
            return 200, self.keys[key]

    def _expire(self) -> None:
        now = time.monotonic()
        self.leases = {lease: each for lease, each in self.leases.items() if each[1] > now}
        gone = [key for key, found in self.keys.items() if found["lease"] and found["lease"] not in self.leases]
        for key in gone:
            del self.keys[key]
            self._count()

    def _count(self) -> None:
        self.revision += 1
        self.changed.notify_all()


@contextmanager
def fake_agent() -> Iterator[FakeAgent]:
    agent = FakeAgent()

    class Answering(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, answer = agent.answer(self.command, self.path, body)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        do_GET = do_PUT = do_POST = do_DELETE = answer  # noqa: N815 (the names http.server calls)

        def log_message(self, *_: object) -> None:
            """Nothing: the test judges."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A client that was killed is no news."""

    with Server(("127.0.0.1", 0), Answering) as server:
        agent.url = f"http://127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield agent
        finally:
            server.shutdown()
            thread.join()
