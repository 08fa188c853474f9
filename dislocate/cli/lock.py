"""`dislocate lock KEY -- CMD`: run a command while a lock is held, and only then."""

import ctypes
import errno
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from types import FrameType

import click

from dislocate.cli.output import EXIT_FAILED, agent_command, fail
from dislocate.client.connection import AgentConnection
from dislocate.client.lock import NOTE_LIMIT, Lock, LockLost, NotTaken, boottime
from dislocate.core.units import SECOND, parse_duration
from dislocate.edge.keys import check_key, check_ttl

_PR_SET_PDEATHSIG = 1
_PID_BYTES = 4
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
_SLICE = 1.0  # seconds
_TICK = 0.02  # seconds between looks whether a process group is gone


@click.command()
@click.argument("key")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND [ARGS]...")
@click.option(
    "--ttl", default="15s", show_default=True, metavar="DURATION", help="The lock ends so long after its holder."
)
@click.option("--wait", metavar="DURATION", help="Give up after waiting so long; for ever unless given.")
@click.option("--try", "is_try", is_flag=True, help="Do not wait at all.")
@agent_command
def lock(
    agent: AgentConnection,
    as_json: bool,
    key: str,
    command: tuple[str, ...],
    ttl: str,
    wait: str | None,
    is_try: bool,
) -> None:
    """Run COMMAND while holding the lock KEY, whose holder is one in all data centers.

    Waits until KEY is free, keeps it while COMMAND runs, frees it at its end and exits with its code (128 and the
    signal's number, where one ended it).  Exits 1 without running it when the lock was not free in time.

    COMMAND finds the fencing token in DISLOCATE_LOCK_TOKEN: a number that grows from holder to holder.  Let what it
    changes refuse a smaller one than it has seen.  When the lock is lost (the agent or a majority of servers out of reach
    for most of the ttl, the key deleted) COMMAND and what it started get SIGTERM, then SIGKILL, before anybody else can
    hold the lock; then this exits 1.

    \b
    dislocate lock deploy/shop -- ./deploy.sh
    dislocate lock jobs/nightly --try -- sh -c 'report --fence "$DISLOCATE_LOCK_TOKEN"'
    dislocate lock deploy/shop --ttl 30s --wait 5m -- make deploy
    dislocate kv get deploy/shop        who holds it
    """
    if is_try and wait is not None:
        raise click.UsageError("--try and --wait: got both, expected one: --try does not wait")
    patience = 0.0 if is_try else None if wait is None else parse_duration(wait, "--wait") / SECOND
    lifetime = check_ttl(parse_duration(ttl, "--ttl"), "--ttl")
    if shutil.which(command[0]) is None:
        raise click.UsageError(f"COMMAND: got {command[0]!r}, expected a program that can be run")

    def say(words: str) -> None:
        click.echo(json.dumps({"lock": words}) if as_json else words, err=True)

    held = Lock(agent, check_key(key), ttl=lifetime, note=_note(command), say=say)
    signal.signal(signal.SIGTERM, _exit_at_once)  # while waiting: the lease is given back
    try:
        held.take(patience)
        sys.exit(run_under(held, key, command, say))
    except NotTaken as error:
        fail(str(error), as_json, EXIT_FAILED)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    finally:
        held.release()


def run_under(held: Lock, key: str, command: tuple[str, ...], say: Callable[[str], None]) -> int:
    """Run `command` in a process group of its own while `held` is kept; the exit code."""
    environment = {**os.environ, "DISLOCATE_LOCK_TOKEN": str(held.token), "DISLOCATE_LOCK_KEY": key}
    terminal = _terminal()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)  # until there is somebody to forward to
    announce, dismiss_guard = _guard()
    try:
        prepare = _prepare(terminal, mask, announce)
        process = subprocess.Popen(command, env=environment, process_group=0, preexec_fn=prepare)
        before = {sign: signal.signal(sign, _forward_to(process.pid)) for sign in _FORWARDED}
    except BaseException:
        dismiss_guard()
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    try:
        return _code(_await_end(held, process))
    except LockLost as lost:
        say(str(lost))
        end_group(process, within=held.margin * 3 / 4)
        say(f"lock {key}: {command[0]} was ended")
        return EXIT_FAILED
    finally:
        dismiss_guard()
        for sign, handler in before.items():
            signal.signal(sign, handler)
        if terminal is not None:
            _take_terminal(terminal, os.getpgrp())


def end_group(process: subprocess.Popen[bytes], within: float) -> None:
    """SIGTERM for `process` and all that it started; SIGKILL for what is left of them after `within` seconds."""
    deadline = time.monotonic() + within
    _signal_group(process.pid, signal.SIGTERM)
    _signal_group(process.pid, signal.SIGCONT)  # one that is stopped could not heed it
    while time.monotonic() < deadline:
        process.poll()  # a child that ended and was not waited for would count as living
        if not _signal_group(process.pid, 0):
            return
        time.sleep(_TICK)
    _signal_group(process.pid, signal.SIGKILL)
    process.wait()


def _await_end(held: Lock, process: subprocess.Popen[bytes]) -> int:
    """The return code of `process`.  Raises `LockLost`."""
    ended = select.poll()
    descriptor = os.pidfd_open(process.pid)
    try:
        ended.register(descriptor, select.POLLIN)
        due = boottime() + held.beat
        # In slices, since poll's clock stands still while the host is suspended.
        while not ended.poll(min(_SLICE, max(0.0, due - boottime())) * 1000):
            if boottime() >= due:
                due = boottime() + held.keep()
        return process.wait()
    finally:
        os.close(descriptor)


def _prepare(terminal: int | None, mask: set[int], announce: Callable[[], None]) -> Callable[[], None]:
    """What the child does before it becomes the command: it dies with us, and reads the terminal if we did."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def prepare() -> None:
        announce()
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # nobody would keep the lock, and nobody would tell it so
        if terminal is not None:
            _take_terminal(terminal, os.getpid())
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    return prepare


def _guard() -> tuple[Callable[[], None], Callable[[], None]]:
    """A process that kills a group if we are killed: the group's leader calls the first of what is returned, before it
    becomes the command; call the second when it is not wanted any more.

    The kernel ends the command with us (see `_prepare`), but not what the command has started.  The guard is there
    before the command is, so that no moment is left in which only we are."""
    reading, writing = os.pipe()  # held by us, and by the leader until it is the command: it closes with us
    standing, stood = os.pipe()
    guard = os.fork()
    if not guard:
        try:
            os.setsid()  # what is sent to our group, or by our terminal, is not for it
            os.close(writing)
            os.write(stood, b"!")
            if group := os.read(reading, _PID_BYTES):
                os.read(reading, 1)
                os.killpg(int.from_bytes(group, sys.byteorder), signal.SIGKILL)
        finally:
            os._exit(0)
    os.read(standing, 1)
    for descriptor in (reading, standing, stood):
        os.close(descriptor)

    def announce() -> None:
        os.write(writing, os.getpid().to_bytes(_PID_BYTES, sys.byteorder))

    def dismiss() -> None:
        os.kill(guard, signal.SIGKILL)
        os.waitpid(guard, 0)
        os.close(writing)

    return announce, dismiss


def _terminal() -> int | None:
    """Our terminal, when we are in its foreground."""
    try:
        return 0 if os.isatty(0) and os.tcgetpgrp(0) == os.getpgrp() else None
    except OSError:
        return None


def _take_terminal(terminal: int, group: int) -> None:
    before = signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # else who is in the background is stopped for asking
    try:
        os.tcsetpgrp(terminal, group)
    except OSError as error:
        if error.errno not in (errno.ENOTTY, errno.EPERM, errno.ESRCH):
            raise
    finally:
        signal.signal(signal.SIGTTOU, before)


def _signal_group(group: int, sign: int) -> bool:
    """False when nobody of `group` is left."""
    try:
        os.killpg(group, sign)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # some of them changed their user: they are there
    return True


def _forward_to(group: int) -> Callable[[int, FrameType | None], None]:
    return lambda sign, _frame: (_signal_group(group, sign), None)[1]


def _exit_at_once(sign: int, _frame: FrameType | None) -> None:
    sys.exit(128 + sign)


def _code(returned: int) -> int:
    return 128 - returned if returned < 0 else returned


def _note(command: tuple[str, ...]) -> str:
    return f"{socket.gethostname()}, process {os.getpid()}: {' '.join(command)}"[:NOTE_LIMIT]
