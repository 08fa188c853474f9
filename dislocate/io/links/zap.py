"""Who may open a link: ZeroMQ's authentication (RFC 27), answered by a greenlet in our loop.

Invariant: a connection is let in only if its CURVE key is bound to a path by an alive record, and that path is then the
User-Id of each of its messages.  CURVE alone encrypts, but lets any key in (libzmq #2594).
"""

from collections import Counter
from collections.abc import Callable

import gevent
import zmq

from dislocate.core.identity import Path
from dislocate.io.links.sockets import ZAP_DOMAIN, Context, messages, new_gate

_VERSION = b"1.0"


class Gatekeeper:
    """Answers every handshake of one context."""

    def __init__(self, context: Context, known_key: Callable[[bytes], Path | None], counters: Counter[str]) -> None:
        self._known_key = known_key
        self._counters = counters
        self._socket = new_gate(context)
        self._greenlet = gevent.spawn(self._serve)

    def _serve(self) -> None:
        for request in messages(self._socket):
            self._socket.send_multipart(self._answer([frame.bytes for frame in request]), zmq.NOBLOCK)

    def _answer(self, request: list[bytes]) -> list[bytes]:
        """The reply to version, request id, domain, address, identity, mechanism, credentials."""
        request_id, domain, mechanism, *credentials = request[1], request[2], request[5], *request[6:]
        path = None
        if domain == ZAP_DOMAIN.encode() and mechanism == b"CURVE" and len(credentials) == 1:
            path = self._known_key(credentials[0])
        if path is None:
            self._counters["keys_refused"] += 1
            return [_VERSION, request_id, b"400", b"unknown key", b"", b""]
        return [_VERSION, request_id, b"200", b"", path.encode(), b""]

    def close(self) -> None:
        self._socket.close()  # the greenlet ends by itself
