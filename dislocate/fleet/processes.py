"""Real processes of a fleet: started in sessions of their own, ended by process id, and never left behind.

Whoever starts them may end in any way: on Linux the kernel then kills them too (PR_SET_PDEATHSIG).
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from dislocate.core.errors import DislocateError

PR_SET_PDEATHSIG = 1
READY_WITHIN = 120.0  # seconds, on a busy machine that starts a whole fleet at once; one that ends is noticed at once


class ProcessFailed(DislocateError):
    """A process of the fleet ended, or did not get ready in time."""

    def __init__(self, name: str, reason: str, log: Path) -> None:
        super().__init__(name, reason, log)
        self.name = name
        self.reason = reason
        self.log = log

    def __str__(self) -> str:
        tail = self.log.read_text(errors="replace").splitlines()[-5:] if self.log.exists() else []
        return "\n".join(
            [f"{self.name} {self.reason}; its log is {self.log} and ends:", *("  " + line for line in tail)]
        )


class FleetProcess:
    """One process and its log file."""

    def __init__(self, name: str, arguments: list[str], log: Path) -> None:
        self.name = name
        self.log = log
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it (again).  Its output is appended to the log."""
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )

    def wait_ready(self, within: float = READY_WITHIN) -> None:
        """Return when the log has a line that begins with `ready`.  Raises `ProcessFailed`."""
        deadline = time.monotonic() + within
        while not self._said_ready():
            if not self.is_running:
                raise ProcessFailed(self.name, "ended before it was ready", self.log)
            if time.monotonic() > deadline:
                raise ProcessFailed(self.name, f"was not ready within {within:.0f} s", self.log)
            time.sleep(0.02)

    def _said_ready(self) -> bool:
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return any(line.startswith(b"ready") for line in log)

    def send_signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self._process is not None and self.is_running:
            self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        self.send_signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def pause(self) -> None:
        self.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.send_signal(signal.SIGCONT)

    def terminate(self, within: float = 10.0) -> int:
        """SIGTERM, wait, SIGKILL where that was not enough.  The exit status, negative for a signal."""
        self.send_signal(signal.SIGTERM)
        if self._process is None:
            return 0
        try:
            return self._process.wait(within)
        except subprocess.TimeoutExpired:
            self.kill()
            return -signal.SIGKILL

    def wait(self, within: float) -> int | None:
        """The exit status, or None while it still runs after `within` seconds."""
        if self._process is None:
            return 0
        try:
            return self._process.wait(within)
        except subprocess.TimeoutExpired:
            return None

    def proportional_memory(self) -> int:
        """PSS in bytes: its own pages, and its share of those it shares."""
        with open(f"/proc/{self.pid}/smaps_rollup") as rollup:
            return sum(int(line.split()[1]) * 1024 for line in rollup if line.startswith("Pss:"))


def stop_all(processes: list[FleetProcess]) -> None:
    """End all at once: SIGCONT and SIGTERM, two seconds of grace together, then SIGKILL.  None is left."""
    for process in processes:
        process.resume()
        process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + 2.0
    for process in processes:
        process.wait(max(0.0, deadline - time.monotonic()))
        process.kill()


def die_with_parent() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        os._exit(127)
