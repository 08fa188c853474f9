"""Programs: run one to its end, within its time, and keep what it says.

Invariant: at the end of its time, or when nobody waits any more, the program and its whole process group are killed; what it
put into another session lives on, as daemons do.  A program that ended in time keeps what it left in the background.  One
whose agent was killed is killed by the next one: see `leftovers`.
"""

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import gevent
from gevent.subprocess import DEVNULL, PIPE, STDOUT, Popen, TimeoutExpired
from msgspec import Struct

from dislocate.core.units import format_duration
from dislocate.host.leftovers import Note
from dislocate.host.work import Failure, Work

KEPT = 64 * 1024  # bytes of output kept: the last, since a failure is told at the end
WORDS = 4 * 1024  # bytes of it that people are told
STREAMED = 256 * 1024  # bytes of output told piece by piece; more belongs in a file
PIECE = 8 * 1024
_PACE = 0.005  # seconds between pieces, so that a program that never stops writing does not flood the agent
_LAST_WORDS = 0.2  # seconds for output that is still in the pipe when the program has ended


class Ended(Struct, frozen=True):
    """How a program ended."""

    code: int  # negative: the signal
    output: bytes  # the last of it, without secrets

    @property
    def words(self) -> str:
        """What it said last, or how it ended."""
        return last_words(self.output) or self.how

    @property
    def how(self) -> str:
        return f"ended by signal {-self.code}" if self.code < 0 else f"exit {self.code}"


def run_program(
    work: Work,
    command: Sequence[str],
    *,
    directory: str = "/",
    environment: Mapping[str, str] | None = None,
    stream: bool = False,
) -> Ended:
    """Run it in what is left of the task's time.  Raises `Failure`: 'apply' when there is no such program, 'timeout'."""
    note = Note(work.house.state_dir)
    try:
        marked = {**(environment or {}), **note.environment}
        process = start_program(command, directory=directory, environment=marked, stdout=PIPE)
        note.started(process.pid)
        return _to_its_end(work, process, command, stream)
    finally:
        note.ended()


def _to_its_end(work: Work, process: "Popen[bytes]", command: Sequence[str], stream: bool) -> Ended:
    ear = _Ear(work, work.tell if stream else None)
    listener = gevent.spawn(ear.listen, process.stdout)
    try:
        code = process.wait(work.left)
        listener.join(_LAST_WORDS)  # not for its end: a daemon that the program left behind may hold the pipe open
    except TimeoutExpired:
        kill_group(process.pid)
        listener.join(_LAST_WORDS)
        said = last_words(ear.kept())
        longer = "--timeout" if work.task.stream else "`timeout` in its resource"  # an ad hoc command has none
        span = format_duration(work.task.resource.timeout)
        words = f"{command[0]} did not end within {span} and was killed; give it a longer {longer}"
        raise Failure("timeout", words + (f".  It said last: {said}" if said else "")) from None
    except BaseException:  # nobody waits any more
        kill_group(process.pid)
        raise
    finally:
        listener.kill()
        process.stdout.close()
        ear.flush()
    return Ended(code, ear.kept())


def start_program(
    command: Sequence[str], *, directory: str, environment: Mapping[str, str] | None, stdout: Any
) -> Popen[bytes]:
    """Start it in a session of its own.  Raises `Failure` with the mend.

    gevent forks and then waits for the child to say that it could begin; whoever is ended in that moment would leave it behind
    unknown.  So a greenlet of its own waits, and ends what nobody waits for any more."""
    starter = gevent.spawn(_start, command, directory, environment, stdout)
    try:
        started = starter.get()
    except BaseException:
        starter.link_value(lambda late: kill_group(late.value.pid) if isinstance(late.value, Popen) else None)
        raise
    if isinstance(started, Popen):
        return started
    raise Failure("apply", _why_not(command, directory, started))


def _start(
    command: Sequence[str], directory: str, environment: Mapping[str, str] | None, stdout: Any
) -> "Popen[bytes] | Exception":
    """What went wrong is not raised here: gevent would print it."""
    try:
        return Popen(
            list(command),
            stdin=DEVNULL,
            stdout=stdout,
            stderr=STDOUT,
            cwd=directory,
            env=None if environment is None else {**os.environ, **environment},
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        return error


def kill_group(pid: int) -> None:
    """SIGKILL to the program and all in its group."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def last_words(output: bytes) -> str:
    """The end of it, in at most `WORDS` bytes."""
    text = output.decode(errors="replace").strip().encode()
    return text.decode() if len(text) <= WORDS else "... " + text[4 - WORDS :].decode(errors="ignore")


def _why_not(command: Sequence[str], directory: str, error: Exception) -> str:
    if not os.path.isdir(directory):
        return f"there is no directory {directory} to run {command[0]} in; make it first, with a directory resource"
    if isinstance(error, FileNotFoundError):
        return f"there is no program {command[0]!r} on this host; name it with its whole path, or install it first"
    if isinstance(error, PermissionError):
        return f"{command[0]} may not be run by this agent (uid {os.geteuid()}); is it executable?"
    return f"{command[0]} could not be started: {error}"


class _Ear:
    """Takes everything, so that the program never waits for us; keeps the end, tells pieces, hides secrets.

    A secret may lie across two pieces, so as many bytes as the longest one has, less one, wait for what follows them."""

    def __init__(self, work: Work, tell: Callable[[bytes], None] | None) -> None:
        self._secrets = work.secrets
        self._tell = tell
        self._held = max(0, work.secrets.longest - 1)
        self._waiting = b""
        self._kept = bytearray()
        self._told = 0
        self._left_out = 0  # bytes

    def listen(self, stream: Any) -> None:
        while chunk := stream.read1(PIECE):
            self._waiting = self._secrets.hide_bytes(self._waiting + chunk)
            cut = len(self._waiting) - self._held
            if cut > 0:
                self._take(self._waiting[:cut])
                self._waiting = self._waiting[cut:]

    def flush(self) -> None:
        """A program that is killed may have written half of a secret."""
        self._take(self._secrets.hide_part(self._waiting))
        self._waiting = b""
        if self._tell is not None and self._left_out:
            self._tell(f"... {self._left_out} bytes were left out; write them to a file there\n".encode())

    def kept(self) -> bytes:
        return bytes(self._kept) + self._secrets.hide_part(self._waiting)

    def _take(self, piece: bytes) -> None:
        self._kept += piece
        del self._kept[:-KEPT]
        if self._tell is None or not piece or self._told > STREAMED:
            self._left_out += len(piece)
            return
        self._told += len(piece)
        for start in range(0, len(piece), PIECE):
            self._tell(piece[start : start + PIECE])
        if self._told > STREAMED:
            self._tell(f"\n... more than {STREAMED // 1024} KiB: the rest is not shown\n".encode())
        gevent.sleep(_PACE)
