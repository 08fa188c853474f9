"""`dislocate dev --scenario FILE`: real processes play a story and are judged by it."""

import json

import pytest

from tests.support.live import command

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


@pytest.mark.full
def test_dev_plays_config_runs_and_whoever_steers_them(tmp_path):
    done = command("dev", "--scenario", story_of_a_run(tmp_path, "{{ facts.state_dir }}", STEERED), "--json")
    assert [one["holds"] for one in json.loads(done.stdout)] == [True] * 2, done.stdout
    assert done.returncode == 0


def test_dev_refuses_a_run_that_would_change_the_machine_that_its_agents_share(tmp_path):
    done = command("dev", "--scenario", story_of_a_run(tmp_path, str(tmp_path)))
    assert done.returncode == 1, done.stdout
    assert "runs[0].spec.resources[0].path" in done.stderr
    assert "{{ facts.state_dir }}/" in done.stderr
