"""One supervised process: how it is started, found again, and ended.

It has a session of its own and outlives the agent.  `PORT.json` beside its log says who it is: its process id with the time of
its start and the boot of the host, so that another process with the same number is never taken for it.  The record is written
before the process is started, and names it afterwards; one that died in between is found by a variable of its environment.
"""

import os
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path as FilePath

import gevent
import msgspec
from gevent.subprocess import Popen, TimeoutExpired
from msgspec import Struct

from dislocate.core.boundary.spec import Process
from dislocate.core.units import SECOND
from dislocate.host.programs import kill_group, start_program
from dislocate.host.secrets import Secrets

MARK = "DISLOCATE_INSTANCE"  # names the record, in the environment of the process
_POLL = 0.5  # seconds
_KILLED_WITHIN = 5.0  # seconds after SIGKILL; one that is stuck in the kernel is not waited for
_FLEET_GRACE = 2.0  # seconds between SIGTERM and SIGKILL where a whole fleet is taken down
_BOOT_ID = FilePath("/proc/sys/kernel/random/boot_id")


class Record(Struct, frozen=True):
    """What an agent that starts anew has to know."""

    port: int
    version: str  # of its definition
    service: str = ""  # of the catalog; empty: it is not registered
    drain_for: int = 0
    stop_within: int = 0
    pid: int = 0  # 0: it was about to be started
    started: int = 0  # clock ticks after the boot, from /proc
    boot: str = ""


class Instance:
    """One process on one port; it may be started many times."""

    def __init__(self, directory: FilePath, record: Record) -> None:
        self._path = directory / f"{record.port}.json"
        self._log = directory / "log"
        self._logged = 0  # bytes that were in it when this instance was started
        self._child: Popen[bytes] | None = None
        self._boot = _BOOT_ID.read_text().strip()
        self.id = f"{directory.name}-{record.port}"  # in the catalog
        self.record = record

    @property
    def port(self) -> int:
        return self.record.port

    def adjust(self, resource: Process) -> None:
        """Its times are those of `resource` from now on."""
        self._note(drain_for=resource.drain_for, stop_within=resource.stop_within)

    def start(self, command: Sequence[str], directory: str, environment: Mapping[str, str]) -> None:
        """Raises `Failure`."""
        self._note(pid=0, started=0)
        with self._log.open("ab") as log:  # appended to, so that it can be emptied while it is written
            self._log.chmod(0o600)
            self._logged = log.tell()
            self._child = start_program(
                command, directory=directory, environment={**environment, MARK: str(self._path)}, stdout=log
            )
        self._note(pid=self._child.pid, started=_started(self._child.pid) or 0)

    def find(self) -> bool:
        """Whether the process of the record still runs; one that had been started but not noted is noted now."""
        if not self.record.pid:
            pid = _marked(str(self._path))
            if pid:
                self._note(pid=pid, started=_started(pid) or 0)
        return self.is_running

    @property
    def is_running(self) -> bool:
        record = self.record
        if self._child is not None and self._child.poll() is not None:
            return False
        return bool(record.pid) and record.boot == self._boot and _started(record.pid) == record.started

    @property
    def how_it_ended(self) -> str:
        code = None if self._child is None else self._child.poll()
        if code is None:
            return "ended"
        return f"ended by signal {-code}" if code < 0 else f"ended with exit {code}"

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for its end; False when it still runs after `timeout` seconds."""
        if self._child is not None:
            with suppress(TimeoutExpired):
                self._child.wait(timeout)
            return not self.is_running
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.is_running:  # it was started by an agent before this one, so nobody tells us
            left = _POLL if deadline is None else min(_POLL, deadline - time.monotonic())
            if left <= 0:
                return False
            gevent.sleep(left)
        return True

    def end(self, within: float | None = None) -> None:
        """SIGTERM to it and all in its group, SIGKILL after `within` seconds (its own time where none are named); the record
        goes with it."""
        if self.find():
            with suppress(ProcessLookupError):
                os.killpg(self.record.pid, signal.SIGTERM)
            self.wait(self.record.stop_within / SECOND if within is None else within)
            kill_group(self.record.pid)  # also what it left behind: it would hold the port
            self.wait(_KILLED_WITHIN)
        self._path.unlink(missing_ok=True)

    def last_words(self, secrets: Secrets, size: int = 1_024) -> str:
        """The end of what was logged since it was started, by all instances of the process, without secrets."""
        try:
            with self._log.open("rb") as log:
                end = log.seek(0, os.SEEK_END)
                was_emptied = end < self._logged  # whatever stands at its beginning now may be cut
                begin = max(end - size, min(secrets.longest, end) if was_emptied else self._logged)
                lead = min(begin, secrets.longest)
                log.seek(begin - lead)
                return secrets.hide_part(log.read(lead + end - begin), lead).decode(errors="replace").strip()
        except OSError:
            return ""

    def _note(self, **changes: int) -> None:
        self.record = msgspec.structs.replace(self.record, boot=self._boot, **changes)
        draft = self._path.with_suffix(".new")
        draft.write_bytes(msgspec.json.encode(self.record))
        draft.rename(self._path)  # not synced: a power cut ends the process too


def read_instances(directory: FilePath) -> list[Instance]:
    """Those noted there, by port."""
    found = []
    for path in directory.glob("*.json"):
        with suppress(msgspec.DecodeError, OSError):
            found.append(Instance(directory, msgspec.json.decode(path.read_bytes(), type=Record)))
    return sorted(found, key=lambda instance: instance.port)


def end_processes(*state_dirs: FilePath) -> None:
    """End all that agents of these directories supervised: for whoever takes down a fleet of a test or a demo, after them."""
    ends = [
        gevent.spawn(instance.end, _FLEET_GRACE)
        for state_dir in state_dirs
        for directory in (state_dir / "processes").glob("*/")
        for instance in read_instances(directory)
    ]
    gevent.joinall(ends)


def _started(pid: int) -> int | None:
    """When it was started, in clock ticks after the boot; None when there is no such process, or only what it left."""
    try:
        stat = FilePath(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name before it may hold anything
    return None if fields[0] in "ZX" else int(fields[19])


def _marked(mark: str) -> int:
    """The leader of a session whose environment says that it is this instance; 0: there is none."""
    wanted = f"{MARK}={mark}".encode()
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal():
            with suppress(OSError):
                pid = int(entry.name)
                if os.getsid(pid) == pid and wanted in FilePath(entry.path, "environ").read_bytes().split(b"\0"):
                    return pid
    return 0
