"""Commands: guarded, run once, streamed, and killed with all that they started."""

import os
import sys
from pathlib import Path

import pytest

from dislocate.core.boundary.effects import CancelTask
from dislocate.core.boundary.runs import TaskResult, TaskVerb
from dislocate.core.boundary.spec import Command
from dislocate.core.units import MILLISECOND
from tests.support.hosted import Hosted, until


@pytest.fixture
def host(tmp_path):
    hosted = Hosted(tmp_path / "state")
    yield hosted
    hosted.stop()


def shell(program: str, **fields) -> Command:
    return Command(run=("sh", "-c", program), **fields)


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def pids_in(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().split()] if path.exists() else []


@pytest.mark.parametrize("guard", ["creates", "unless", "check"])
def test_a_command_runs_where_its_guard_says_so_and_not_again(host, tmp_path, guard):
    made = tmp_path / "made"
    guards = {"creates": str(made), "unless": ("test", "-e", str(made)), "check": ("test", "-e", str(made))}
    resource = shell(f"echo made; echo x >> {made}", **{guard: guards[guard]})
    looked = host.look(resource)
    assert (looked.result, looked.before, looked.after) == (TaskResult.WOULD_CHANGE, "needed", "settled")
    assert not made.exists()
    applied = host.apply(resource)
    assert (applied.result, applied.before, applied.after, applied.code) == (TaskResult.CHANGED, "needed", "settled", 0)
    assert applied.words == "made"
    assert host.look(resource).result is TaskResult.SAME
    assert host.apply(resource).result is TaskResult.SAME
    assert made.read_text() == "x\n"


def test_a_check_that_cannot_tell_stops_the_command(host, tmp_path):
    resource = shell(f"touch {tmp_path}/ran", check=("sh", "-c", "echo broken; exit 3"))
    looked = host.look(resource)
    assert looked.result is TaskResult.UNTOLD
    assert "exit 3: broken" in looked.words
    outcome = host.apply(resource)
    assert (outcome.result, outcome.kind) == (TaskResult.FAILED, "apply")
    assert not (tmp_path / "ran").exists()


def test_a_command_without_a_guard_cannot_be_told_before_it_ran(host, tmp_path):
    for resource in (shell("true", once=True), shell("true", only_notified=True)):
        looked = host.look(resource)
        assert (looked.result, looked.before, looked.after) == (TaskResult.UNTOLD, "", "")
    assert host.apply(shell("echo done", once=True)).words == "done"


def test_a_guard_that_is_not_content_afterwards_is_a_failure(host, tmp_path):
    outcome = host.apply(shell("true", creates=str(tmp_path / "never")))
    assert (outcome.result, outcome.kind) == (TaskResult.FAILED, "verify")
    assert "mend the command or its guard" in outcome.words


def test_a_failure_tells_its_code_and_last_words(host):
    outcome = host.apply(shell("echo first; echo this was wrong >&2; exit 7", once=True))
    assert (outcome.result, outcome.kind, outcome.code) == (TaskResult.FAILED, "apply", 7)
    assert outcome.words == "sh: exit 7: first\nthis was wrong"


def test_long_output_keeps_its_end(host):
    outcome = host.apply(Command(run=(sys.executable, "-c", "print('x' * 200_000 + ' the end')"), once=True))
    assert len(outcome.words.encode()) <= 4 * 1024
    assert outcome.words.endswith(" the end")


def test_it_gets_its_directory_and_environment_and_templates_are_filled_in(host, tmp_path):
    resource = shell(
        'echo "$(pwd) $NAME $COLOR"',
        once=True,
        directory=str(tmp_path),
        environment={"NAME": "{{ facts.hostname }}", "COLOR": "{{ key('color') }}"},
    )
    assert host.apply(resource, values={"color": "blue"}).words == f"{tmp_path} web-1 blue"


def test_what_cannot_be_started_is_named(host, tmp_path):
    assert "no program 'no-such-program'" in host.apply(Command(run=("no-such-program",), once=True)).words
    assert "no directory /nowhere" in host.apply(shell("true", once=True, directory="/nowhere")).words
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n")
    assert "is it executable?" in host.apply(Command(run=(str(script),), once=True)).words


def test_at_its_timeout_it_dies_with_its_whole_group(host, tmp_path):
    pids = tmp_path / "pids"
    resource = shell(
        f"sleep 1000 & echo $! >> {pids}; echo $$ >> {pids}; echo started; wait", once=True, timeout=700 * MILLISECOND
    )
    outcome = host.apply(resource)
    assert (outcome.result, outcome.kind) == (TaskResult.FAILED, "timeout")
    assert "did not end within 700ms and was killed; give it a longer `timeout` in its resource" in outcome.words
    until(lambda: not any(lives(pid) for pid in pids_in(pids)))


def test_cancelled_it_dies_too_and_tells_nothing(host, tmp_path):
    pids = tmp_path / "pids"
    task_id = host.begin(TaskVerb.APPLY, shell(f"echo $$ >> {pids}; sleep 1000", once=True))
    until(lambda: pids_in(pids))
    host.tasks.cancel(CancelTask(task_id))
    until(lambda: not any(lives(pid) for pid in pids_in(pids)))
    assert host.last(task_id) is None


def test_output_is_told_while_it_runs(host, tmp_path):
    task_id = host.begin(
        TaskVerb.APPLY,
        shell(f"echo one; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done; echo two", once=True),
        stream=True,
    )
    until(lambda: host.output(task_id) == b"one\n")
    assert host.last(task_id) is None
    (tmp_path / "go").touch()
    until(lambda: host.last(task_id))
    assert host.output(task_id) == b"one\ntwo\n"


def test_a_flood_of_output_is_cut(host):
    task_id = host.begin(TaskVerb.APPLY, shell("yes | head -c 3000000", once=True), stream=True)
    assert until(lambda: host.last(task_id)).result is TaskResult.CHANGED
    assert len(host.output(task_id)) < 300 * 1024
    shown, _, rest = host.output(task_id).partition(b"\n... more than 256 KiB: the rest is not shown\n")
    assert rest == b"... %d bytes were left out; write them to a file there\n" % (3_000_000 - len(shown))
    assert all(len(told.outcome.output) <= 8 * 1024 for told in host.told)


def test_a_secret_in_its_output_is_hidden_also_across_two_pieces(host, caplog):
    program = (
        "import os, time; s = os.environ['P']; print('p=' + s[:4], end='', flush=True); time.sleep(0.3); print(s[4:])"
    )
    resource = Command(run=(sys.executable, "-c", program), once=True, environment={"P": "{{ secret('pw') }}"})
    task_id = host.begin(TaskVerb.APPLY, resource, stream=True, secrets={"pw": "hunter22"})
    outcome = until(lambda: host.last(task_id))
    said = host.output(task_id).decode()
    assert said.startswith("p=<secret pw #")
    for text in (said, outcome.words, caplog.text):
        assert "hunt" not in text
        assert "er22" not in text


def test_a_revert_runs_what_undoes_it_or_says_that_nothing_does(host, tmp_path):
    made = tmp_path / "made"
    resource = shell(f"touch {made}", creates=str(made), revert=("rm", str(made)))
    host.apply(resource)
    assert host.revert(resource).result is TaskResult.CHANGED
    assert not made.exists()
    assert host.revert(shell("true", once=True)).result is TaskResult.LEFT
    assert host.revert(resource).result is TaskResult.FAILED


def test_what_it_leaves_in_the_background_lives_on(host, tmp_path):
    pids = tmp_path / "pids"
    outcome = host.apply(shell(f"sleep 1000 & echo $! >> {pids}", once=True))
    (pid,) = pids_in(pids)
    try:
        assert outcome.result is TaskResult.CHANGED
        assert lives(pid)
    finally:
        os.kill(pid, 9)
