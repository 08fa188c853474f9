"""The sockets of DNS: UDP drained by an event watcher, TCP by one greenlet a connection.

UDP does without greenlets and without a system call a packet: the watcher's callback takes one batch of at most `DRAIN`
datagrams (see `batch`) and returns to the loop, which calls again while there are more, so that a flood of questions delays
gossip by a millisecond, not for ever.  A question asked lately costs 3.4 microseconds (one quiet core of a Xeon, 2026),
most of them the kernel's: 45 % is sendmmsg, 15 % recvmmsg, so that what is left to gain is no longer in this file.
"""

import socket
from random import Random
from typing import Any

from gevent import Timeout, get_hub, sleep
from gevent.pool import Pool
from gevent.server import StreamServer

from dislocate.core.errors import ConfigError
from dislocate.edge.backend import Backend
from dislocate.edge.dns.batch import ID, open_exchange
from dislocate.edge.dns.resolver import Resolver
from dislocate.edge.dns.wire import EDNS_LIMIT
from dislocate.edge.sockets import listen_tcp

DRAIN = 64  # datagrams in one callback
RECEIVE_BUFFER = 4 * 1024 * 1024  # bytes asked of the kernel; it may give less
CHUNK = 4_096  # bytes read at once from a connection
CHANCES = 10  # to find a port that is free for UDP and TCP, where any will do
CONNECTIONS = 512  # at once; more wait in the backlog
FIRST = 2.0  # seconds for the first whole query: who says nothing must not keep others waiting
IDLE = (
    10.0  # seconds for the next whole query on a connection, and for a reply to be taken (RFC 7766 asks for 'seconds')
)


class DnsServer:
    """DNS on one address, UDP and TCP."""

    def __init__(self, backend: Backend, host: str, port: int, random: Random) -> None:
        """Binds both.  Raises `ConfigError` when the address cannot be had."""
        self.resolver = Resolver(backend.node, random)
        self.queries = 0
        self.unsent = 0  # replies that the kernel did not take
        self._backend = backend
        self._udp, listener = _bind(host, port)
        self._exchange = open_exchange(self._udp, DRAIN, EDNS_LIMIT)
        self._watcher = get_hub().loop.io(self._udp.fileno(), 1)
        self._streams = StreamServer(listener, self._converse, spawn=Pool(CONNECTIONS))
        self._unsubscribe = lambda: None

    @property
    def address(self) -> tuple[str, int]:
        host, port, *_ = self._udp.getsockname()
        return host, port

    @property
    def counters(self) -> dict[str, int]:
        """Queries, what was none ('malformed'), replies by rcode, and those of them that could not be sent."""
        return {"queries": self.queries, "unsent": self.unsent, **self.resolver.counters}

    def start(self) -> None:
        self._unsubscribe = self._backend.subscribe(self.resolver.notice)
        self._watcher.start(self._drain)
        self._streams.start()

    def stop(self) -> None:
        self._unsubscribe()
        self._watcher.stop()
        self._watcher.close()
        self._streams.stop(timeout=0)
        self._udp.close()

    def _drain(self) -> None:
        try:
            questions = self._exchange.receive()
        except BlockingIOError:
            return
        except OSError:  # an ICMP error for an earlier reply: that asker is gone, the socket is well
            self.unsent += 1
            return
        now, recall, reply = self._backend.now(), self.resolver.recent.get, self._reply
        replies = [
            next(entry.replies)
            if (entry := recall(question)) is not None and entry.expires > now
            else reply(question, now)
            for question in questions
        ]
        self.queries += len(questions)
        self.unsent += self._exchange.reply(replies)  # UDP may lose them: the asker asks again

    def _reply(self, question: bytes, now: int) -> bytes | None:
        """The slow path: a question not asked lately.  Neither it nor the reply has an id."""
        reply = self.resolver.reply(bytes(ID) + question, now)
        return None if reply is None else reply[ID:]

    def _converse(self, connection: Any, _peer: object) -> None:
        """Queries on one connection, each after two bytes of length, answered in order until it is idle."""
        waiting = b""
        patience = FIRST
        try:
            while True:
                with Timeout(patience):
                    while len(waiting) < 2 or len(waiting) < 2 + int.from_bytes(waiting[:2], "big"):
                        received = connection.recv(CHUNK)
                        if not received:
                            return
                        waiting += received
                    end = 2 + int.from_bytes(waiting[:2], "big")
                    query, waiting = waiting[2:end], waiting[end:]
                    self.queries += 1
                    reply = self.resolver.reply(query, self._backend.now(), stream=True)
                    if reply is None:  # no query at all: whoever speaks something else is not kept
                        return
                    connection.sendall(len(reply).to_bytes(2, "big") + reply)
                patience = IDLE
                sleep(0)  # neither recv nor sendall yields while the other side keeps up
        except (Timeout, OSError):
            return  # idle, or gone: nothing is owed
        finally:
            connection.close()


def _bind(host: str, port: int) -> tuple[socket.socket, Any]:
    """UDP and TCP on one port; where any will do (0), one that is free for both.  Raises `ConfigError`."""
    for chance in range(CHANCES):
        udp = _bind_udp(host, port)
        try:
            return udp, listen_tcp(host, udp.getsockname()[1], "ports.dns")
        except ConfigError:
            udp.close()
            if port != 0 or chance == CHANCES - 1:
                raise
    raise AssertionError("the last chance returns or raises")


def _bind_udp(host: str, port: int) -> socket.socket:
    udp = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    udp.setblocking(False)
    udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    try:
        udp.bind((host, port))
    except OSError as error:
        udp.close()
        raise ConfigError(
            "ports.dns",
            got=port,
            expected=f"a UDP port that is free on {host} and may be bound ({error.strerror}; ss -lnup shows who has it)",
        ) from error
    return udp
