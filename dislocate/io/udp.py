"""The gossip socket: sealed datagrams out, authentic ones in, and what hosts answer that refuse them.

One socket and one greenlet that reads it, a bounded number in a row (pitfalls 3 and 19 of our research: a greenlet a
packet loses nine of ten).  `IP_RECVERR` keeps ICMP errors in the socket's error queue with the address that they are
about (ip(7)): a "port unreachable" becomes `SendFailed(address, REFUSED)`.  The same error also fails the next, unrelated
call on the socket, which is therefore simply made again.

A lossy best: a full send buffer drops the datagram and counts it.  IPv4 and IPv6; a socket bound to [::] serves both.
Hosts limit how many refusals they send (Linux: icmp_ratelimit), so their absence means nothing.
"""

import errno
import socket as constants
import struct
from collections.abc import Callable

import gevent
from gevent import socket
from gevent.pool import Pool

from dislocate.core.boundary.inputs import DatagramReceived, SendFailed
from dislocate.core.boundary.values import Refusal
from dislocate.core.errors import ConfigError, LocalError
from dislocate.core.identity import Address, join_address, split_address
from dislocate.core.units import MILLISECOND
from dislocate.io import clock
from dislocate.io.keyring import Keyring
from dislocate.io.shaping import Shaping

RECEIVE_BUFFER = 8 << 20  # bytes: a second of a thousand nodes' gossip while the process is stalled
DRAIN_LIMIT = 64  # datagrams read in a row before others get their turn,
DRAIN_TIME = 1 * MILLISECOND  # or so long
RECEIVE_SIZE = 2_048  # above `keyring.DATAGRAM_LIMIT`: what is longer is cut off here and rejected there
RESOLVERS = 8  # names looked up at once; more are dropped and counted, as a send of the same soon follows
ATTEMPTS = 4  # calls in a row that pending errors of others may fail
KNOWN_LIMIT = 16_384  # addresses kept in the socket's own form

# linux/in.h, linux/in6.h, linux/errqueue.h; Python's socket module has no names for them.
IP_RECVERR = 11
IPV6_RECVERR = 25
ERROR_LEVELS = ((constants.IPPROTO_IP, IP_RECVERR), (constants.IPPROTO_IPV6, IPV6_RECVERR))
EXTENDED_ERROR = struct.Struct("=IBBBBII")  # errno, origin, type, code, padding, info, data

REFUSALS = {
    errno.ECONNREFUSED: Refusal.REFUSED,
    errno.EHOSTUNREACH: Refusal.UNREACHABLE,
    errno.ENETUNREACH: Refusal.UNREACHABLE,
    errno.EHOSTDOWN: Refusal.UNREACHABLE,
    errno.ENETDOWN: Refusal.UNREACHABLE,
    errno.EMSGSIZE: Refusal.TOO_LARGE,
}


class DatagramSocket:
    """The socket, from bind to close.  `deliver` gets `DatagramReceived` and `SendFailed`, on the hub."""

    def __init__(
        self,
        *,
        bind: Address,
        keyring: Keyring,
        deliver: Callable[[DatagramReceived | SendFailed], object],
        shaping: Shaping | None = None,
        now: clock.Now = clock.monotonic,
    ) -> None:
        self.sent = 0
        self.bytes_sent = 0
        self.received = 0
        self.withheld = 0  # arrived over a link that is cut
        self.dropped: dict[str, int] = {}  # what we could not send, by reason
        self._keyring = keyring
        self._deliver = deliver
        self._shaping = shaping
        self._now = now
        self._socket = _open_socket(bind)
        self._is_dual = self._socket.family == socket.AF_INET6
        self._known: dict[Address, tuple[str, int]] = {}
        self._resolvers = Pool(RESOLVERS)
        self.address = self._address_of(self._socket.getsockname())
        self.reader = gevent.spawn(self._read)

    def send(self, address: Address, plain: bytes) -> None:
        """Seal and send, as soon as the shaping lets it.  Never waits, never raises."""
        sealed = self._keyring.seal(plain)
        if self._shaping is None:
            self._send(address, sealed)
        else:
            self._shaping.send_datagram(address, len(sealed), lambda: self._send(address, sealed))

    def close(self) -> None:
        self.reader.kill()
        self._resolvers.kill()
        self._socket.close()

    # ---- out

    def _send(self, address: Address, sealed: bytes) -> None:
        target = self._known.get(address) or self._literal(address)
        if target is not None:
            self._send_to(address, target, sealed)
        elif self._resolvers.free_count():
            self._resolvers.spawn(self._resolve_and_send, address, sealed)
        else:
            self._drop("busy resolving")

    def _send_to(self, address: Address, target: tuple[str, int], sealed: bytes) -> None:
        if self._socket.closed:
            return  # the shaping held it for longer than we live
        failure = 0
        for _ in range(ATTEMPTS):
            try:
                self._socket.sendto(sealed, target)
            except BlockingIOError:
                self._drop("send buffer full")
                return
            except OSError as error:  # perhaps about an earlier datagram: only an error that stays is about this one
                failure = error.errno or errno.EIO
            else:
                self.sent += 1
                self.bytes_sent += len(sealed)
                return
        self._drop(errno.errorcode.get(failure, str(failure)))
        if failure in REFUSALS:
            self._fail(address, REFUSALS[failure])

    def _literal(self, address: Address) -> tuple[str, int] | None:
        """`address` in the socket's own form; None when its host is a name."""
        try:
            host, port = split_address(address)
        except LocalError:
            return None
        for family in (socket.AF_INET, socket.AF_INET6):
            try:
                constants.inet_pton(family, host)
            except OSError:
                continue
            mapped = f"::ffff:{host}" if self._is_dual and family == socket.AF_INET else host
            if len(self._known) >= KNOWN_LIMIT:
                self._known.clear()
            self._known[address] = (mapped, port)
            return mapped, port
        return None

    def _resolve_and_send(self, address: Address, sealed: bytes) -> None:
        """For seeds, which may be names: looked up each time, since what a name means may change."""
        try:
            host, port = split_address(address)
            family = self._socket.family
            flags = constants.AI_V4MAPPED if self._is_dual else 0
            found = socket.getaddrinfo(host, port, family, socket.SOCK_DGRAM, 0, flags)
        except (OSError, LocalError, UnicodeError):
            self._drop("unknown host")
            self._fail(address, Refusal.UNREACHABLE)
            return
        self._send_to(address, found[0][4][:2], sealed)

    def _drop(self, reason: str) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1

    def _fail(self, address: Address, reason: Refusal) -> None:
        failed = SendFailed(address, reason)
        if self._shaping is None:
            self._deliver(failed)
        else:
            self._shaping.return_refusal(address, lambda: self._deliver(failed))

    # ---- in

    def _read(self) -> None:
        while True:
            if self._drain():
                gevent.sleep(0)
            else:
                socket.wait_read(self._socket.fileno())

    def _drain(self) -> bool:
        """Read what waits, up to the limits; whether there may be more."""
        ends = self._now() + DRAIN_TIME
        for _ in range(DRAIN_LIMIT):
            try:
                sealed, source = self._socket.recvfrom(RECEIVE_SIZE)
            except BlockingIOError:
                return self._drain_errors()
            except OSError:
                self._drain_errors()  # this call told of an error, which is in the queue too
                continue
            self._receive(sealed, self._address_of(source))
            if self._now() >= ends:
                break
        return True

    def _receive(self, sealed: bytes, source: Address) -> None:
        if self._shaping is not None and not self._shaping.hears(source):
            self.withheld += 1
            return
        plain = self._keyring.open(sealed)
        if plain is not None:
            self.received += 1
            self._deliver(DatagramReceived(source, plain))

    def _drain_errors(self) -> bool:
        """Read the error queue, up to the limit; whether there may be more."""
        for _ in range(DRAIN_LIMIT):
            try:
                _, ancillary, _, target = self._socket.recvmsg(64, 512, constants.MSG_ERRQUEUE)
            except BlockingIOError:
                return False
            for level, kind, data in ancillary:
                if (level, kind) in ERROR_LEVELS and len(data) >= EXTENDED_ERROR.size:
                    reason = REFUSALS.get(EXTENDED_ERROR.unpack_from(data)[0])
                    if reason is not None:
                        self._fail(self._address_of(target), reason)
        return True

    def _address_of(self, socket_address: tuple[str, int]) -> Address:
        host, port = socket_address[:2]
        return join_address(host.removeprefix("::ffff:") if "." in host else host, port)


def _open_socket(bind: Address) -> socket.socket:
    """A bound socket.  Raises `ConfigError`."""
    try:
        host, port = split_address(bind, "node.bind")
        family, _, _, _, target = socket.getaddrinfo(host, port, 0, socket.SOCK_DGRAM, 0, constants.AI_PASSIVE)[0]
        opened = socket.socket(family, socket.SOCK_DGRAM)
        try:
            _prepare(opened, family)
            opened.bind(target)
        except OSError:
            opened.close()
            raise
    except OSError as error:
        raise ConfigError(
            "ports.gossip",
            got=f"{bind}: {error.strerror}",
            expected="an address of this host and a UDP port that is free",
        ) from error
    return opened


def _prepare(opened: socket.socket, family: int) -> None:
    opened.setblocking(False)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)  # the kernel grants up to net.core.rmem_max
    opened.setsockopt(constants.IPPROTO_IP, IP_RECVERR, 1)
    if family == socket.AF_INET6:
        opened.setsockopt(constants.IPPROTO_IPV6, constants.IPV6_V6ONLY, 0)
        opened.setsockopt(constants.IPPROTO_IPV6, IPV6_RECVERR, 1)
