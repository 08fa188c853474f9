"""Steering a running `dislocate dev`: `dislocate dev do VERB ...` from another shell, with the verbs of scenarios.

The fleet listens on `dev.sock` in its directory, for its owner only.  A command is one JSON line, the fields of a fault in
a scenario; the answer is `{"did": "cut tok <-> *"}` or `{"error": "..."}`.  The fleet's own process does it, since only
the parent of the agents may start and reap them.
"""

import contextlib
import json
import os
import socket
import tempfile
from pathlib import Path as FilePath
from typing import Any, NoReturn

import msgspec

from dislocate.core.errors import DislocateError
from dislocate.fleet.fleet import Fleet
from dislocate.fleet.live import LiveFaults, in_words
from dislocate.fleet.operators import Operators
from dislocate.fleet.processes import READY_WITHIN
from sim.scenario import Fault, checked

SOCKET = "dev.sock"
LINE_LIMIT = 64 << 10  # bytes
ANSWER_WITHIN = READY_WITHIN + 30.0  # seconds: a restart waits until the agent is ready
DIRECTORY_PREFIX = "dislocate-dev-"  # of those in the directory for temporary files


class NoFleet(DislocateError):
    """No `dislocate dev` answers, or more than one does.  Nothing was done."""


class FleetRefused(DislocateError):
    """The fleet could not do it."""


class Control:
    """The listening end, in the fleet's process."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._faults = LiveFaults(fleet, Operators(fleet))
        path = fleet.directory / SOCKET
        path.unlink(missing_ok=True)  # of a fleet that was killed: its ports are free, so it is gone
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        path.chmod(0o600)
        self._listener.listen(8)

    def serve(self) -> NoReturn:
        """Do what is asked, one after the other, until a signal ends the process."""
        while True:
            connection, _ = self._listener.accept()
            with contextlib.suppress(OSError), connection, connection.makefile("rb") as lines:
                connection.settimeout(2.0)  # whoever connects and says nothing, or goes away, holds nobody up
                if line := lines.readline(LINE_LIMIT):
                    connection.sendall(json.dumps(self._do(line)).encode() + b"\n")

    def _do(self, line: bytes) -> dict[str, str]:
        try:
            fault = msgspec.convert(json.loads(line), Fault, strict=False)
            # Checked as a line of a scenario is: verb, fields, selectors.
            checked(msgspec.structs.replace(self._fleet.scenario, at=(fault,)))
            self._faults.check(fault, "do")
            idle = self._faults.not_running(fault)
            self._faults.do(fault)
        except (DislocateError, ValueError, OSError) as error:
            return {"error": str(error).removeprefix("at[0].")}
        except KeyError as error:  # a mistyped command must not end the fleet
            return {"error": f"nobody is named {error}"}
        return {"did": in_words(fault) + (f" (not running: {', '.join(idle)})" if idle else "")}


def ask_fleet(directory: FilePath, command: dict[str, Any]) -> str:
    """What the fleet in `directory` did.  Raises `NoFleet` or `FleetRefused`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(ANSWER_WITHIN)
        try:
            connection.connect(str(directory / SOCKET))
            connection.sendall(json.dumps({"time": 0, **command}).encode() + b"\n")
            with connection.makefile("rb") as stream:
                answer = json.loads(stream.readline() or b'{"error": "it hung up"}')
        except OSError as error:
            raise NoFleet(f"no running `dislocate dev` in {directory} ({error})") from error
    if "error" in answer:
        raise FleetRefused(answer["error"])
    return str(answer["did"])


def find_fleet() -> FilePath:
    """The directory of the one fleet of this user that runs without `--dir`.  Raises `NoFleet`."""
    running = [path for path in FilePath(tempfile.gettempdir()).glob(f"{DIRECTORY_PREFIX}*") if _is_ours(path)]
    if len(running) == 1:
        return running[0]
    found = "none runs here" if not running else "several run: " + ", ".join(str(path) for path in running)
    raise NoFleet(
        f"which fleet? {found}\nstart one with `dislocate dev`, or name its directory: dislocate dev do --dir DIR"
    )


def _is_ours(directory: FilePath) -> bool:
    try:
        if directory.stat().st_uid != os.getuid():
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.connect(str(directory / SOCKET))
    except OSError:
        return False
    return True
