"""A small HTTP service in threads, with moods: what an instance does that answers late, wrongly, or not at all."""

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PATIENCE = 60.0  # seconds; ends a test that hangs


class Moody:
    """`status`: what it answers; `cuts`: it hangs up instead; while `held` is clear it lets its callers wait."""

    def __init__(self, port: int = 0) -> None:
        self.status = 200
        self.headers: dict[str, str] = {}
        self.cuts = False
        self.held = threading.Event()
        self.held.set()
        self.requests: list[tuple[str, str, bytes]] = []
        self._server = _serve(self, port)
        self.port: int = self._server.server_port

    def end(self) -> None:
        """Nobody listens any more, and those who wait are let go."""
        self.held.set()
        self._server.shutdown()
        self._server.server_close()


def _serve(moody: Moody, port: int) -> ThreadingHTTPServer:
    class Answering(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body in one piece: nobody here wants to wait for acknowledgements
        disable_nagle_algorithm = True

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            moody.requests.append((self.command, self.path, body))
            moody.held.wait(PATIENCE)
            if moody.cuts:
                self.close_connection = True
                return
            said = f"{moody.port}\n".encode()
            self.send_response(moody.status)
            self.send_header("Content-Length", str(len(said)))
            for name, value in moody.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(b"" if self.command == "HEAD" else said)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer  # noqa: N815 (the names http.server calls)

        def log_message(self, *_: object) -> None:
            """Nothing: the test judges."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A caller that went away is no news."""

    server = Server(("127.0.0.1", port), Answering)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    return server


@contextmanager
def moody_services(count: int) -> Iterator[list[Moody]]:
    with ExitStack() as stack:
        made = [Moody() for _ in range(count)]
        for each in made:
            stack.callback(each.end)
        yield made


@contextmanager
def nobody() -> Iterator[int]:
    """A port of loopback that refuses, held for as long as that matters."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and nobody listens
        yield taken.getsockname()[1]


@contextmanager
def silent() -> Iterator[int]:
    """A port where connections are neither made nor refused, as behind a link that is cut: its backlog is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, ExitStack() as waiting:
        port: int = listener.getsockname()[1]
        for _ in range(3):
            one = waiting.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        yield port
