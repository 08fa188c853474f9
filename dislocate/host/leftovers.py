"""Leftovers: programs of tasks whose agent was killed, ended before anything is looked at again.

Such a program goes on without its agent; begun again beside it, it would do twice what is to be done once.  Invariant: from
before its start until its end a program has a note on the disk, which its environment names, and an agent that starts kills
what is left of the session of each program that has one.  What that put into another session lives on, as daemons do, and so
does what a program left behind that ended.

    state_dir/programs/XXXXXXXX     the process id of one program; empty while it is about to be started
"""

import logging
import os
import signal
import tempfile
from contextlib import suppress
from pathlib import Path as FilePath

from msgspec import Struct

MARK = "DISLOCATE_PROGRAM"  # names the note, in the environment of the program

log = logging.getLogger(__name__)


class Note:
    """That of one program.  A disk that takes none stops no program: it may be needed to make room there."""

    def __init__(self, state_dir: FilePath) -> None:
        directory = state_dir / "programs"
        self._path: FilePath | None = None
        try:
            directory.mkdir(mode=0o700, exist_ok=True)
            file, path = tempfile.mkstemp(prefix="", dir=directory)
        except OSError as error:
            log.warning("a program goes without its note: %s", error)
            return
        os.close(file)
        self._path = FilePath(path)

    @property
    def environment(self) -> dict[str, str]:
        return {} if self._path is None else {MARK: str(self._path)}

    def started(self, pid: int) -> None:
        if self._path is not None:
            with suppress(OSError):
                self._path.write_text(str(pid))

    def ended(self) -> None:
        if self._path is not None:
            self._path.unlink(missing_ok=True)


class _Found(Struct, frozen=True):
    """A process."""

    pid: int
    session: int
    mark: str


def end_leftovers(state_dir: FilePath) -> int:
    """Kill them, with all in their sessions; how many processes that were."""
    notes = list((state_dir / "programs").glob("*"))
    if not notes:
        return 0
    processes = _processes()
    killed = 0
    for path in notes:
        session = _session(path, processes)
        if session and any(one.session == session and one.mark == str(path) for one in processes):
            for one in processes:
                if one.session == session:
                    killed += 1
                    with suppress(ProcessLookupError, PermissionError):
                        os.kill(one.pid, signal.SIGKILL)
        path.unlink(missing_ok=True)
    if killed:
        log.warning("%d processes of commands that the agent before this one had begun were ended", killed)
    return killed


def _session(path: FilePath, processes: list[_Found]) -> int:
    """Of the program with this note; 0: there is none."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # it had been started and not noted yet
        return next((one.session for one in processes if one.mark == str(path) and one.pid == one.session), 0)


def _processes() -> list[_Found]:
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal():
            with suppress(OSError):
                pid = int(entry.name)
                found.append(_Found(pid, os.getsid(pid), _mark(FilePath(entry.path))))
    return found


def _mark(process: FilePath) -> str:
    """Empty where there is none, or where it may not be seen."""
    head = f"{MARK}=".encode()
    try:
        variables = (process / "environ").read_bytes().split(b"\0")
    except OSError:
        return ""
    return next((one[len(head) :].decode(errors="replace") for one in variables if one.startswith(head)), "")
