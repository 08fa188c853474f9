"""A small real HTTP service, for `dev`, `demo` and live scenarios: `python -m dislocate.fleet.service HOST PORT NAME`.

GET /health answers 200 `ok`; every other GET says who answers.  Standard library only, so that it starts in a moment.
"""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def handler_for(name: str) -> type[BaseHTTPRequestHandler]:
    """A request handler that answers in the name of `name`."""

    class Service(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # an answer goes out in one piece: who is killed has answered, or has not

        def do_GET(self) -> None:
            body = b"ok\n" if self.path == "/health" else f"{name}\n".encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the base class names it so)
            """Checks come every second: nobody wants to read them."""

    return Service


class Server(ThreadingHTTPServer):
    request_queue_size = (
        128  # five, as it is, are too few for several callers at once: their connections would be dropped
    )


def main() -> None:
    host, port, name = sys.argv[1:4]
    with Server((host, int(port)), handler_for(name)) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
