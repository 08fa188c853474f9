"""A gevent service for live tests: `python shop.py ADDRESS PORT VERSION`.

GET / says the version; GET /health is 503 where the version is 'bad'.  At SIGTERM it takes no more and finishes what it has.
"""

import signal
import sys
from collections.abc import Callable, Iterable
from typing import Any

import gevent
from gevent.pywsgi import WSGIServer


def main() -> None:
    address, port, version = sys.argv[1:4]

    def answer(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
        is_bad = environ["PATH_INFO"] == "/health" and version == "bad"
        start_response("503 Service Unavailable" if is_bad else "200 OK", [("Content-Type", "text/plain")])
        return [f"{version}\n".encode()]

    server = WSGIServer((address, int(port)), answer, log=None)
    gevent.signal_handler(signal.SIGTERM, lambda: gevent.spawn(server.stop, 5))
    server.serve_forever()


if __name__ == "__main__":
    main()
