"""HTTP over gevent's sockets, for checks and webhooks: only the greenlet that asks waits."""

import http.client
from collections.abc import Callable
from typing import Any

from gevent import socket, ssl


class Connection(http.client.HTTPConnection):
    """HTTP over gevent's sockets."""

    _encrypt: Callable[[Any], Any] | None = None

    def connect(self) -> None:
        plain = socket.create_connection((self.host, self.port))
        self.sock = plain if self._encrypt is None else self._encrypt(plain)


def open_connection(scheme: str, host: str, port: int | None, verify: bool) -> Connection:
    """One that is made when it is first used, and waits as long as its greenlet may."""
    connection = Connection(host, port or (443 if scheme == "https" else 80))
    if scheme == "https":
        # Not `create_default_context`: gevent passes on the standard one, whose sockets block the hub.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if verify:
            context.load_default_certs()
        else:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        connection._encrypt = lambda plain: context.wrap_socket(plain, server_hostname=host)
    return connection
