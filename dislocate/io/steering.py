"""Steering: the private socket over which `fleet` cuts, heals and slows the links of a shaped agent while it runs.

A stream socket in the state directory, for its owner only: one JSON `shaping.Steer` a line, each answered by
`{"ok": true, "links": 2}` (directions of this agent that it changed) or `{"ok": false, "error": "..."}`.
"""

import contextlib
from pathlib import Path as FilePath

import msgspec
from gevent import socket
from gevent.server import StreamServer

from dislocate.core.errors import ConfigError
from dislocate.io.shaping import Shaping, Steer

LINE_LIMIT = 64 * 1024  # bytes


class SteeringServer:
    """Takes commands for `shaping` at `path` until it is stopped.  Raises `ConfigError` when it cannot."""

    def __init__(self, shaping: Shaping, path: FilePath) -> None:
        self._shaping = shaping
        self._path = path
        self._decoder = msgspec.json.Decoder(Steer)
        self._server = StreamServer(_listen(path), self._serve)
        self._server.start()

    def stop(self) -> None:
        self._server.stop(timeout=0)
        self._path.unlink(missing_ok=True)

    def _serve(self, connection: socket.socket, _address: object) -> None:
        # Whoever hangs up in the middle is done; that is his right and no news.
        with contextlib.suppress(ConnectionError), connection, connection.makefile("rb") as lines:
            while line := lines.readline(LINE_LIMIT):
                connection.sendall(self._answer(line) + b"\n")

    def _answer(self, line: bytes) -> bytes:
        try:
            changed = self._shaping.steer(self._decoder.decode(line))
        except msgspec.MsgspecError as error:
            return msgspec.json.encode({"ok": False, "error": str(error)})
        return msgspec.json.encode({"ok": True, "links": changed})


def steer(path: FilePath, *commands: Steer, timeout: float = 5.0) -> int:
    """Send `commands` to the agent at `path`; how many directions they changed.  Raises OSError, and ValueError for what
    the agent refused."""
    changed = 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        connection.connect(str(path))
        with connection.makefile("rb") as answers:
            for command in commands:
                connection.sendall(msgspec.json.encode(command) + b"\n")
                answer = msgspec.json.decode(answers.readline() or b'{"ok": false, "error": "hung up"}')
                if not answer["ok"]:
                    raise ValueError(answer["error"])
                changed += answer["links"]
    return changed


def _listen(path: FilePath) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.unlink(missing_ok=True)  # of an earlier start; the state directory's lock says that nobody uses it
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(8)
    except OSError as error:
        listener.close()
        raise ConfigError(
            "node.state_dir", got=f"{path}: {error}", expected="a short path that can be written"
        ) from error
    return listener
