"""One TCP connection to a service: another endpoint is tried where one refuses, nothing is sent twice.

While it is open it counts as a call in flight, so that connections spread; its latency is the time that connecting took.
How it ended is how its block ended.
"""

import socket
import time
from types import TracebackType

from dislocate.client.attempts import Broken, Call, Ended
from dislocate.client.caller import Client, Pick
from dislocate.client.checking import check_seconds
from dislocate.client.outcomes import outcome_of
from dislocate.core.balance.picker import Outcome

CONNECT_WITHIN = 1.0  # seconds: three times the longest round trip on earth, and one lost SYN is sent again after 1 s


class TcpCall:
    """`with client.tcp("db.orders") as connection:`, a connected socket with TCP_NODELAY; `picked` says with whom."""

    def __init__(self, client: Client, service: str, key: str, timeout: float | None) -> None:
        self._client = client
        self._service = service
        self._key = key
        self._timeout = check_seconds(timeout, "timeout")
        self._socket: socket.socket | None = None
        self._took = 0.0
        self.picked: Pick | None = None

    def __enter__(self) -> socket.socket:
        call: Call[socket.socket] = Call(self._client, self._service, key=self._key, timeout=self._timeout)
        connection = call.run(self._connect, is_kept=True)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(call.timeout)
        self._socket = connection
        return connection

    def _connect(self, picked: Pick, seconds: float) -> Ended[socket.socket]:
        began = time.monotonic()
        try:
            connection = socket.create_connection((picked.address, picked.port), min(seconds, CONNECT_WITHIN))
        except (OSError, UnicodeError) as error:  # the latter of a host name that can be none
            raise Broken(Outcome.REFUSED, str(error) or type(error).__name__, was_sent=False) from error
        self.picked, self._took = picked, time.monotonic() - began
        picked.connected()
        return Ended(connection)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._socket is not None
        assert self.picked is not None
        self._socket.close()
        self.picked.report(outcome_of(error), latency=self._took)
