"""`dislocate demo`: the story that a newcomer sees first."""

import json

import pytest

from tests.support.live import PATIENCE, command

pytestmark = pytest.mark.live


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
