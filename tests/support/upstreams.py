"""Small HTTP servers for proxies to stand in front of, and a client that asks without a pause and counts what it is told."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Condition, Thread


@contextmanager
def upstream(host: str) -> Iterator[int]:
    """The port of a server on `host` that answers with its own port."""

    class Answering(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            body = str(self.server.server_port).encode()  # type: ignore[attr-defined]
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing: the test judges."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, *_: object) -> None:
            """A proxy that hung up is no news."""

    with Server((host, 0), Answering) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


class Asking:
    """A client that asks a proxy all the time, a connection a question; `since` counts who answered."""

    def __init__(self, host: str, port: int) -> None:
        self._place = (host, port)
        self._told = Condition()
        self._answers: list[str] = []
        self._is_over = False
        self.errors: list[str] = []
        self._thread = Thread(target=self._ask, daemon=True)

    def __enter__(self) -> "Asking":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        self._thread.join()

    def next(self, count: int) -> Counter[str]:
        """Who gives the next `count` answers."""
        with self._told:
            start = len(self._answers)
            assert self._told.wait_for(lambda: len(self._answers) >= start + count, 120), self.errors[:3]
            return Counter(self._answers[start : start + count])

    def _ask(self) -> None:
        while not self._is_over:
            connection = HTTPConnection(*self._place, timeout=60)
            try:
                connection.request("GET", "/")
                response = connection.getresponse()
                body = response.read().decode().strip()
                said = body if response.status == 200 else f"{response.status} {body[:80]}"
            except (OSError, HTTPException) as error:
                said = repr(error)
            finally:
                connection.close()
            if not said.isdecimal():
                self.errors.append(said)
            with self._told:
                self._answers.append(said)
                self._told.notify_all()
