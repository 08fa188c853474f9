"""Listening sockets: taken, or an error that names the setting and the mend.

A unix socket left behind by a dead agent is replaced; one that somebody answers on is not.
"""

import errno
import os
import socket
import stat
from contextlib import suppress

from gevent import socket as gsocket

from dislocate.core.errors import ConfigError
from dislocate.core.identity import join_address

BACKLOG = 256
UNIX_PATH_LIMIT = 107  # bytes, of sockaddr_un

_MENDS = {
    errno.EADDRINUSE: "a free port: somebody listens on {address} (ss -ltnp shows who)",
    errno.EADDRNOTAVAIL: "an address of this host: {address} is none (ip addr shows them)",
    errno.EACCES: "a port that this user may bind: {address} is not (below 1024 only root may)",
}


def listen_tcp(host: str, port: int, field: str = "ports.http") -> gsocket.socket:
    """A listening TCP socket whose connections send at once.  Raises `ConfigError` naming `field`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = gsocket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # pywsgi sends head and body apart: with Nagle each request on a kept connection waits 40 ms for the peer's
        # delayed acknowledgement.  Accepted sockets inherit this (gevent #1233).
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        mend = _MENDS.get(error.errno or 0, "an address to listen on: {address} fails ({error})")
        address = join_address(host, port)
        raise ConfigError(field, got=port, expected=mend.format(address=address, error=error)) from error
    return listener


def bind_unix(path: str, kind: socket.SocketKind, mode: int = 0o660) -> gsocket.socket:
    """A bound unix socket at `path`, listening when `kind` is SOCK_STREAM.  Raises `ConfigError` naming node.state_dir."""
    if len(os.fsencode(path)) > UNIX_PATH_LIMIT:
        raise ConfigError(
            "node.state_dir", got=path, expected=f"a shorter one: at most {UNIX_PATH_LIMIT} bytes a socket"
        )
    _remove_stale(path, kind)
    bound = gsocket.socket(socket.AF_UNIX, kind)
    try:
        bound.bind(path)
        os.chmod(path, mode)
        if kind == socket.SOCK_STREAM:
            bound.listen(BACKLOG)
    except OSError as error:
        bound.close()
        raise ConfigError("node.state_dir", got=path, expected=f"a directory to write in ({error})") from error
    return bound


def unlink_unix(path: str) -> None:
    """Removes a socket of ours; one that is gone already is fine."""
    with suppress(FileNotFoundError):
        os.unlink(path)


def _remove_stale(path: str, kind: socket.SocketKind) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigError("node.state_dir", got=path, expected=f"a directory to write in ({error})") from error
    if not stat.S_ISSOCK(mode):
        raise ConfigError("node.state_dir", got=path, expected="a directory of the agent's own: this file is no socket")
    with socket.socket(socket.AF_UNIX, kind) as probe:
        try:
            probe.setblocking(False)
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except OSError:
            pass  # a full queue, or not ours to ask: somebody is there
    raise ConfigError("node.state_dir", got=path, expected="a directory of its own: another agent answers here")
