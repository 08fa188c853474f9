"""The doctor on this host: secret, state directory, ports, open files, clock.

It binds ports for a moment, and makes and removes one file.  What a running agent holds is no trouble: that is said.
"""

import fcntl
import os
import resource
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Generator, Iterator
from pathlib import Path as FilePath

from dislocate.config import Config
from dislocate.core.errors import ConfigError, LocalError
from dislocate.core.identity import join_address
from dislocate.edge.sockets import UNIX_PATH_LIMIT
from dislocate.findings import Finding, Level
from dislocate.io.keyring import fingerprint, read_secrets

FILES_WANTED = 4_096  # HTTP and DNS connections at their limits (2 x 512 + 64), links, files, and as much again
FILES_NEEDED = 256  # a quiet agent with a few watchers
SPACE_NEEDED = 8 << 20  # bytes free: below it the database and its log soon cannot grow, and registrations are refused
SPACE_WANTED = 100 << 20  # bytes free: a large fleet's last known state, several times over
RELEASED = 1_767_225_600  # unix seconds, 2026: a clock before that was never set


def examine_secret(config: Config) -> Generator[Finding, None, tuple[bytes, ...]]:
    """Returns the secrets; none when they cannot be read."""
    path = FilePath(config.security.secret_file)
    try:
        secrets = read_secrets(path)
        mode = stat.S_IMODE(path.stat().st_mode)
    except (ConfigError, OSError) as error:
        yield _failure("secret", error)
        return ()
    marks = ", ".join(fingerprint(secret).hex() for secret in secrets)
    yield Finding("secret", Level.OK, f"{path} has fingerprint {marks}: the same on every host, if all is well")
    if mode & 0o077:
        yield Finding("secret", Level.WARN, f"{path} may be read by others (mode {mode:o})", f"chmod 600 {path}")
    return secrets


def running_agent(config: Config) -> int:
    """The process that uses the state directory now, 0 for none."""
    try:
        with open(FilePath(config.node.state_dir) / "agent.lock", "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(file.read(32).split()[0])
    except (OSError, ValueError, IndexError):
        pass  # no directory, no agent; what is wrong with the directory is found elsewhere
    return 0


def examine_host(config: Config, running: int) -> Iterator[Finding]:
    """All but the secret.  `running`: the process of the agent that runs here, 0 for none."""
    yield from _state_dir(config, running)
    yield from _ports(config, running)
    yield _file_limit()
    yield _clock()


def _state_dir(config: Config, running: int) -> Iterator[Finding]:
    path = FilePath(config.node.state_dir)
    mend = "a directory on a local disk that the agent's user may write: node.state_dir, its owner and mode"
    try:
        home = path if path.exists() else next(parent for parent in path.parents if parent.exists())
        with tempfile.NamedTemporaryFile(dir=home, prefix="doctor-"):
            free = shutil.disk_usage(home).free
    except OSError as error:
        yield Finding("state directory", Level.FAIL, f"{path}: {error.strerror or error}", mend)
        return
    if len(os.fsencode(path / "shaping.sock")) > UNIX_PATH_LIMIT:
        found = f"{path} is too long for the sockets in it ({UNIX_PATH_LIMIT} bytes)"
        yield Finding("state directory", Level.FAIL, found, "a shorter node.state_dir")
    elif free < SPACE_WANTED:
        found = f"{path} has {free >> 20} MiB left"
        level = Level.FAIL if free < SPACE_NEEDED else Level.WARN
        yield Finding("state directory", level, found, f"free at least {SPACE_WANTED >> 20} MiB")
    else:
        holder = f", used by the running agent (process {running})" if running else ""
        new = "" if path.exists() else " does not exist yet and can be made;"
        yield Finding("state directory", Level.OK, f"{path}{new} {free >> 30} GiB free{holder}")


def _ports(config: Config, running: int) -> Iterator[Finding]:
    ports, bind = config.ports, config.node.bind
    wanted = (
        ("http", ports.http, socket.SOCK_STREAM),
        ("gossip", ports.gossip, socket.SOCK_DGRAM),
        ("links", ports.links, socket.SOCK_STREAM),
        ("dns", ports.dns, socket.SOCK_DGRAM),
        ("dns", ports.dns, socket.SOCK_STREAM),
    )
    for name, port, kind in wanted:
        protocol = "tcp" if kind == socket.SOCK_STREAM else "udp"
        where = f"{protocol} {join_address(bind, port)}"
        what = f"port {name}"
        try:
            _bind(bind, port, kind).close()
        except OSError as error:
            if running:
                yield Finding(what, Level.OK, f"{where} is held, by the running agent (process {running}) as it seems")
            else:
                mend = f"ports.{name} or node.bind; who has it: ss -ln{protocol[0]}p 'sport = :{port}'"
                yield Finding(what, Level.FAIL, f"{where}: {error.strerror}", mend)
            continue
        if running:
            mend = "the running agent was started with another configuration: restart it"
            yield Finding(what, Level.WARN, f"{where} is free although the agent runs", mend)
        else:
            yield Finding(what, Level.OK, f"{where} is free")


def _bind(host: str, port: int, kind: socket.SocketKind) -> socket.socket:
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind)
    try:
        if kind == socket.SOCK_STREAM:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of yesterday are no obstacle
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    return bound


def _file_limit() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= FILES_WANTED:
        return Finding("open files", Level.OK, f"limit {soft}")
    limit = "unlimited" if hard == resource.RLIM_INFINITY else hard
    mend = f"ulimit -n {FILES_WANTED} before the start, or LimitNOFILE={FILES_WANTED} in the unit (hard limit: {limit})"
    found = f"limit {soft}, {FILES_WANTED} are wanted"
    return Finding("open files", Level.FAIL if soft < FILES_NEEDED else Level.WARN, found, mend)


def _clock() -> Finding:
    now = time.time()
    said = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if now < RELEASED:
        return Finding("clock", Level.FAIL, f"{said} is in the past", "set it, with chrony or systemd-timesyncd")
    return Finding("clock", Level.OK, said)


def _failure(what: str, error: LocalError | OSError) -> Finding:
    if isinstance(error, LocalError):
        return Finding(what, Level.FAIL, f"{error.field}: {error.got}", f"expected {error.expected}")
    return Finding(what, Level.FAIL, str(error), "see its owner and mode")
