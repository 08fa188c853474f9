"""`dislocate dev` and `dislocate demo` as a newcomer types them."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys

import pytest

from dislocate.fleet.processes import die_with_parent
from tests.support.live import PATIENCE, command, descendants, is_alive, until

pytestmark = pytest.mark.live

STORY = """
title = "An agent is killed and a data center is cut off for a moment"
why = "Short enough for a test with real processes, with time for each on a busy machine."
duration = "45s"
[datacenters.fra]
nodes = 3
[datacenters.wdc]
nodes = 2
[[services]]
name = "shop.web"
per_datacenter = 1
interval = "1s"
timeout = "1s"
[[at]]
time = "3s"
do = "kill"
target = "fra/a3"
[[at]]
time = "5s"
do = "cut"
from = "wdc"
to = "*"
for = "1s"
[[at]]
time = "20s"
do = "restart"
target = "fra/a3"
[[expect]]
kind = "eventually"
claim = "dead"
of = "fra/a3"
by = "fra/a1"
after = "3s"
within = "17s"
[[expect]]
kind = "eventually"
claim = "converged"
after = "20s"
within = "25s"
[[expect]]
kind = "eventually"
claim = "died"
within = "20s"
[[expect]]
kind = "budget"
claim = "msgs_per_node_s"
at_most = 200.0
after = "2s"
"""


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


@pytest.fixture
def running():
    """Starts commands that stay; none is left, however the test ends: what they started dies with them."""
    started = []

    def start(*arguments: str) -> Running:
        started.append(Running(*arguments))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.communicate()


def test_dev_prints_lines_that_work_as_they_stand_and_ctrl_c_ends_it_all(tmp_path, running):
    dev = running("dev", "--dcs", "2", "--nodes", "2", "--dir", str(tmp_path / "a fleet"))
    try:
        lines = [line.strip() for line in dev.read_until("Ctrl-C ends it all")]
        environment = dict(os.environ)
        exported = next(line for line in lines if line.startswith("export DISLOCATE_AGENT="))
        environment["DISLOCATE_AGENT"] = shlex.split(exported, comments=True)[1].partition("=")[2]
        program = f"{shlex.quote(sys.executable)} -m dislocate"
        tried = [line for line in lines if re.match(r"(dislocate|curl|dig|cat) ", line)]
        assert len(tried) >= 18
        for line in tried:
            line = re.sub(r"^dislocate", program, line)
            if " watch " in line:
                line += " --once"
            done = subprocess.run(line, shell=True, env=environment, capture_output=True, text=True, timeout=PATIENCE)
            assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
            assert done.stdout.strip(), f"{line} printed nothing"
        for line in ("dev do kil fra/a1", "dev do kill fra/a9", "dev do slow fra"):
            done = command(*line.split(), "--dir", str(tmp_path / "a fleet"))
            assert (done.returncode, "Traceback" in done.stderr, bool(done.stderr)) == (1, False, True), done.stderr
    finally:
        assert dev.interrupt() == 0
    assert command("dev", "do", "cut", "fra", "--dir", str(tmp_path / "a fleet")).returncode == 3


def test_dev_plays_a_scenario_with_real_processes_and_judges_it(tmp_path):
    story = tmp_path / "story.toml"
    story.write_text(STORY)
    done = command("dev", "--scenario", str(story), "--json")
    verdicts = json.loads(done.stdout)
    assert [one["holds"] for one in verdicts] == [True] * 4, verdicts
    assert done.returncode == 0


def test_dev_refuses_a_story_that_only_the_simulator_can_tell(tmp_path):
    story = tmp_path / "story.toml"
    story.write_text(STORY.replace('do = "restart"\ntarget', 'do = "disk_fail"\ntarget'))
    done = command("dev", "--scenario", str(story))
    assert (done.returncode, "at[2].do" in done.stderr, "sim run" in done.stderr) == (1, True, True), done.stderr


RUN = """
[[runs]]
time = "3s"
[runs.spec]
name = "shop"
targets = "*"
[[runs.spec.resources]]
kind = "file"
path = "PLACE/shop.conf"
content = "blue"
[runs.spec.strategy]
soak = "0s"
settle = "0s"
batch = "100%"
"""
STEERED = """
[[at]]
time = "5s"
do = "steer"
run = "shop"
verb = "revert"
[[expect]]
kind = "eventually"
claim = "run_is"
run = "shop"
status = "reverted"
after = "3s"
within = "27s"
[[expect]]
kind = "eventually"
claim = "run_nodes"
run = "shop"
of = "fra/a1"
status = "reverted"
after = "3s"
within = "27s"
"""


def story_of_a_run(directory, place, more=""):
    head = STORY.partition("[[services]]")[0].replace('duration = "45s"', 'duration = "30s"\nservers = ["fra/a1"]')
    story = directory / "story.toml"
    story.write_text(head + RUN.replace("PLACE", place) + more)
    return str(story)


def test_dev_plays_config_runs_and_whoever_steers_them(tmp_path):
    done = command("dev", "--scenario", story_of_a_run(tmp_path, "{{ facts.state_dir }}", STEERED), "--json")
    assert [one["holds"] for one in json.loads(done.stdout)] == [True] * 2, done.stdout
    assert done.returncode == 0


def test_dev_refuses_a_run_that_would_change_the_machine_that_its_agents_share(tmp_path):
    done = command("dev", "--scenario", story_of_a_run(tmp_path, str(tmp_path)))
    assert done.returncode == 1, done.stdout
    assert "runs[0].spec.resources[0].path" in done.stderr
    assert "{{ facts.state_dir }}/" in done.stderr


def test_in_the_demo_every_observer_answers_what_is_claimed_and_in_virtual_time_within_its_bounds():
    """How many real seconds it takes is `make demo`'s to judge: here it shares the machine with whatever else runs."""
    done = command("demo", "--json", "--patience", "10", within=5 * PATIENCE)
    assert done.returncode == 0, done.stderr + done.stdout
    steps = json.loads(done.stdout)
    assert len(steps) >= 9
    assert [step for step in steps if step["took"] > step["bound"]] == []
    assert sum(step["simulated"] is not None for step in steps) >= 6


def test_ctrl_c_in_the_demo_leaves_no_process(running):
    demo = running("demo")
    demo.read_until("all processes are up")
    assert demo.interrupt() == 1
