"""Agents of one system in a network namespace of our own, and what they were seen to say, with the time it came.

Most are residents of this namespace, each with an address of its own; the last few live in a namespace each, behind a
cable that can be pulled.  Every observation is a line that an agent wrote; nothing is taken from when we acted.
"""

import os
import re
import selectors
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from msgspec import Struct

from bench.peers import Fact, System, name_of
from tests.support.switch import BRIDGE, OWN_HOST, Switch

READ_SIZE = 1 << 16
TICKS = os.sysconf("SC_CLK_TCK")
MIB = 1 << 20


class Observation(Struct, frozen=True):
    """`observer` said at `at` (seconds, monotonic) that `fact` holds of `member`."""

    at: float
    observer: int
    fact: Fact
    member: str


class Usage(Struct, frozen=True):
    """What the living agents have used so far, and hold now."""

    at: float
    cpu: float  # seconds, of all agents
    traffic: int  # bytes, between all agents
    memory: float  # MiB, proportional, of an agent in the mean


class Cluster:
    """`size` agents, of which the last `removable` have hosts of their own."""

    def __init__(self, system: System, size: int, removable: int, directory: Path) -> None:
        self.size = size
        self.removable = range(size - removable, size)
        self.observations: list[Observation] = []
        self.unplugged: dict[int, None] = {}
        self._system = system
        self._directory = directory
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._views: dict[int, set[str]] = {}
        self._ready: set[int] = set()
        self._partial: dict[int, bytes] = {}
        self._selector = selectors.DefaultSelector()
        self._switch = Switch(os.getpid())
        self._switch.add_residents([_host(index) for index in range(size - removable)])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            process.wait()
            process.stdout.close()
        self._selector.close()

    # ---- what is done to it

    def start(self, index: int, seed: int | None) -> None:
        """Start an agent that joins by `seed`."""
        command = self._system.command(index, _host(index), None if seed is None else _host(seed), self._directory)
        is_removable = index in self.removable
        process = subprocess.Popen(
            [*OWN_HOST, *command] if is_removable else command,
            stdin=subprocess.PIPE if is_removable else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        if process.stdin is not None:
            self._switch.plug(process.pid, _host(index))
            process.stdin.write(b"\n")
            process.stdin.close()
        os.set_blocking(process.stdout.fileno(), False)
        self._processes[index] = process
        self._views[index] = {name_of(index)}
        self._partial[index] = b""
        self._ready.discard(index)
        self._selector.register(process.stdout, selectors.EVENT_READ, index)

    def kill(self, index: int) -> None:
        self._processes[index].kill()
        self._processes[index].wait()

    def pause(self, index: int) -> None:
        self._processes[index].send_signal(signal.SIGSTOP)

    def resume(self, index: int) -> None:
        self._processes[index].send_signal(signal.SIGCONT)

    def unplug(self, index: int) -> None:
        """The host vanishes: no packet to it or from it arrives any more."""
        self.unplugged[index] = None
        self._switch.unplug(self._processes[index].pid)

    # ---- what is seen of it

    def now(self) -> float:
        return time.monotonic()

    def is_ready(self, index: int) -> bool:
        return index in self._ready

    def running(self) -> list[int]:
        return [index for index, process in self._processes.items() if process.poll() is None]

    def all_see_all(self) -> bool:
        """Whether every running agent holds all others, and nobody else, for alive."""
        running = self.running()
        everybody = {name_of(index) for index in running}
        return all(self._views[index] == everybody for index in running)

    def run_until(self, holds: Callable[[], bool], limit: float) -> bool:
        """Read what is said until `holds`, for at most `limit` seconds; whether it did."""
        deadline = time.monotonic() + limit
        while not holds():
            if time.monotonic() >= deadline:
                return False
            self._read(0.02)
        return True

    def run_for(self, seconds: float) -> None:
        self.run_until(lambda: False, seconds)

    def usage(self) -> Usage:
        pids = [self._processes[index].pid for index in self.running()]
        return Usage(
            at=time.monotonic(),
            cpu=sum(map(_cpu_seconds, pids)),
            traffic=_bytes_carried(),
            memory=sum(map(_proportional_memory, pids)) / max(1, len(pids)) / MIB,
        )

    def _read(self, timeout: float) -> None:
        for key, _ in self._selector.select(timeout):
            self._read_one(key.data, key.fileobj)

    def _read_one(self, index: int, pipe: IO[bytes]) -> None:
        data = os.read(pipe.fileno(), READ_SIZE)
        at = time.monotonic()
        if not data:
            self._selector.unregister(pipe)
            return
        *lines, self._partial[index] = (self._partial[index] + data).split(b"\n")
        for line in lines:
            said = self._system.read(line)
            if said is not None:
                self._observe(Observation(at, index, *said))

    def _observe(self, seen: Observation) -> None:
        self.observations.append(seen)
        if seen.fact is Fact.READY:
            self._ready.add(seen.observer)
        elif seen.fact is Fact.ALIVE:
            self._views[seen.observer].add(seen.member)
        elif seen.fact is Fact.DEAD:
            self._views[seen.observer].discard(seen.member)


def _host(index: int) -> str:
    return f"10.77.{index // 250}.{index % 250 + 1}"


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _proportional_memory(pid: int) -> int:
    """PSS in bytes: its own pages, and its share of those it shares."""
    found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def _bytes_carried() -> int:
    """Between residents they pass `lo`, to the removable they leave by the bridge, from those they enter by its ports."""
    carried = 0
    for line in Path("/proc/net/dev").read_text().splitlines()[2:]:
        name, _, counts = line.partition(":")
        received, sent = int(counts.split()[0]), int(counts.split()[8])
        carried += sent if name.strip() == BRIDGE else received
    return carried
