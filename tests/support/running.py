"""`dislocate` commands that stay until they are interrupted."""

import signal
import subprocess
import sys

from dislocate.fleet.processes import die_with_parent
from tests.support.live import PATIENCE, descendants, is_alive, until


class Running:
    """`dislocate ARGUMENTS`, and all processes that it ever had."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dislocate", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )

    def read_until(self, text: str) -> list[str]:
        lines = []
        for line in self.process.stdout:
            lines.append(line.rstrip("\n"))
            if text in line:
                return lines
        raise AssertionError(f"ended without {text!r}: {lines} {self.process.stderr.read()}")

    def interrupt(self) -> int:
        """Ctrl-C; the exit code.  No process is left."""
        family = [self.process.pid, *descendants(self.process.pid)]
        assert len(family) > 1
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.communicate(timeout=PATIENCE)
        finally:
            self.process.kill()
        until("no process is left", lambda: not any(is_alive(pid) for pid in family))
        return self.process.returncode
