"""Paths that begin with a fact: each agent has a place of its own, and equal differences look equal."""

import pytest

from dislocate.core.boundary.runs import TaskResult
from dislocate.core.boundary.spec import Command, File
from tests.support.hosted import FACTS, Hosted


@pytest.fixture
def host(tmp_path):
    facts = {**FACTS, "state_dir": str(tmp_path / "a place")}
    (tmp_path / "a place").mkdir()
    hosted = Hosted(tmp_path / "state", facts=lambda: facts)
    yield hosted
    hosted.stop()


def test_a_difference_names_the_path_as_it_is_written(host, tmp_path):
    resource = File(path="{{ facts.state_dir }}/x", content="one\n")
    assert host.look(resource).diff.startswith("--- /dev/null\n+++ {{ facts.state_dir }}/x\n")
    assert host.apply(resource).result is TaskResult.CHANGED
    assert (tmp_path / "a place" / "x").read_text() == "one\n"
    looked = host.look(File(path="{{ facts.state_dir }}/x", content=f"{tmp_path}/a place/x\n")).diff
    assert looked.startswith("--- {{ facts.state_dir }}/x\n+++ {{ facts.state_dir }}/x\n")
    assert f"+{tmp_path}/a place/x" in looked, "what is in the file is shown as it is"


def test_a_fact_that_there_is_none_of_is_named(host):
    outcome = host.look(File(path="{{ facts.nowhere }}/x", content="one\n"))
    assert (outcome.result, outcome.kind) == (TaskResult.FAILED, "render")
    assert "nowhere" in outcome.words
    assert host.look(Command(run=("true",), creates="{{ facts.state_dir }}/x")).result is TaskResult.WOULD_CHANGE
