"""Addresses that only this process uses.

A port of 127.0.0.1 that was free a moment ago is often another test's, or any client's, by the time it is bound; and what
was closed there and must refuse may be somebody else's who answers.
"""

import errno
import os
import socket

import gevent.socket as sockets

from dislocate.core.identity import Address, join_address

ATTEMPTS = 100


def own_host() -> str:
    """A loopback address for this process alone, as long as the kernel counts its processes below eight million."""
    pid = os.getpid()
    return f"127.{128 + (pid >> 16) % 127}.{pid >> 8 & 255}.{pid & 255}"


def free_address() -> Address:
    """A port of ours, free for both TCP and UDP."""
    for _ in range(ATTEMPTS):
        with sockets.socket() as stream, sockets.socket(type=sockets.SOCK_DGRAM) as datagrams:
            stream.bind((own_host(), 0))
            try:
                datagrams.bind(stream.getsockname())
            except OSError as error:
                if error.errno != errno.EADDRINUSE:  # else somebody has it on all addresses, such as a client just now
                    raise
            else:
                return join_address(*stream.getsockname())
    raise AssertionError(f"no port is free for both in {ATTEMPTS} attempts")


def free_port() -> int:
    """The same, for who needs the number."""
    return int(free_address().rpartition(":")[2])


def await_loopback() -> None:
    """What this process sent on loopback has arrived: a busy kernel puts that off (ksoftirqd, before Linux 6.4)."""
    with socket.socket(type=socket.SOCK_DGRAM) as fence:
        fence.bind((own_host(), 0))
        fence.settimeout(60)
        fence.sendto(b"", fence.getsockname())
        fence.recv(1)
