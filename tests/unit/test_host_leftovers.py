"""Programs whose agent was killed in the middle are ended by the next one; whatever ended in time keeps what it left."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dislocate.core.boundary.spec import Command
from dislocate.host.leftovers import MARK, end_leftovers
from tests.support.hosted import Hosted, until
from tests.support.live import is_alive

# An agent's hand that begins the command in argv[2] and is killed while it runs.
HAND = """
import sys
from pathlib import Path
from dislocate.core.boundary.runs import TaskVerb
from dislocate.core.boundary.spec import Command
from tests.support.hosted import Hosted, until
host = Hosted(Path(sys.argv[1]))
task = host.begin(TaskVerb.APPLY, Command(run=("sh", "-c", sys.argv[2]), once=True))
until(lambda: host.last(task))
"""


@pytest.fixture
def killed(tmp_path):
    """killed(SCRIPT): its hand is killed once the file 'pids' has so many lines; those of the processes."""
    pids = tmp_path / "pids"

    def begin(script: str, lines: int) -> list[int]:
        hand = subprocess.Popen(
            [sys.executable, "-c", HAND, str(tmp_path / "state"), script], cwd=Path(__file__).parents[2]
        )
        until(lambda: pids.exists() and len(pids.read_text().splitlines()) == lines)
        hand.kill()
        hand.wait()
        return [int(line) for line in pids.read_text().splitlines()]

    yield begin
    for line in pids.read_text().split() if pids.exists() else ():
        if is_alive(int(line)):
            os.kill(int(line), signal.SIGKILL)


def test_what_a_killed_agent_had_begun_is_ended_with_all_that_it_started(killed, tmp_path):
    parent, child, bare, daemon = killed(
        f"echo $$ >> {tmp_path}/pids; sleep 1000 & echo $! >> {tmp_path}/pids; "
        f"env -i sleep 1001 & echo $! >> {tmp_path}/pids; "
        f"setsid sleep 1002 & echo $! >> {tmp_path}/pids; wait",
        4,
    )
    until(lambda: os.getsid(daemon) == daemon)
    assert all(is_alive(pid) for pid in (parent, child, bare, daemon))
    assert end_leftovers(tmp_path / "state") == 3
    until(lambda: not any(is_alive(pid) for pid in (parent, child, bare)))
    assert is_alive(daemon), "what a command put into another session lives on"
    assert end_leftovers(tmp_path / "state") == 0


def test_a_note_without_a_number_finds_what_was_about_to_be_started(tmp_path):
    note = tmp_path / "programs" / "x"
    note.parent.mkdir()
    note.touch()
    program = subprocess.Popen(["sleep", "1000"], env={**os.environ, MARK: str(note)}, start_new_session=True)
    other = subprocess.Popen(["sleep", "1000"], env={**os.environ, MARK: f"{note}y"}, start_new_session=True)
    try:
        assert end_leftovers(tmp_path) == 1
        assert program.wait() == -signal.SIGKILL
        assert other.poll() is None
    finally:
        program.kill()
        other.kill()
        other.wait()


def test_another_process_that_has_the_number_by_now_is_left_alone(tmp_path):
    note = tmp_path / "programs" / "x"
    note.parent.mkdir()
    other = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    try:
        note.write_text(str(other.pid))
        assert end_leftovers(tmp_path) == 0
        assert other.poll() is None
        assert not note.exists()
    finally:
        other.kill()
        other.wait()


def test_a_command_that_ended_leaves_no_note_and_keeps_what_it_left(tmp_path):
    host = Hosted(tmp_path / "state")
    pids = tmp_path / "pids"
    try:
        host.apply(Command(run=("sh", "-c", f"sleep 1000 > /dev/null 2>&1 & echo $! > {pids}"), once=True))
        left = int(pids.read_text())
        assert list((tmp_path / "state" / "programs").iterdir()) == []
        assert end_leftovers(tmp_path / "state") == 0
        assert is_alive(left)
        os.kill(left, signal.SIGKILL)
    finally:
        host.stop()


def test_a_disk_that_takes_no_note_stops_no_command(tmp_path):
    host = Hosted(tmp_path / "state")
    (tmp_path / "state" / "programs").write_text("in the way")
    try:
        assert host.apply(Command(run=("echo", "done"), once=True)).words == "done"
    finally:
        host.stop()
