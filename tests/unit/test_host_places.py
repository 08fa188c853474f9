"""Paths that begin with a fact: each agent has a place of its own, and equal differences look equal."""

import pytest

from dislocate.core.boundary.runs import TaskResult
from dislocate.core.boundary.spec import Command, Directory, File
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


def test_a_command_runs_in_a_place_of_its_own(host, tmp_path):
    here = Command(run=("pwd",), directory="{{ facts.state_dir }}", once=True)
    assert host.apply(here).words == f"{tmp_path}/a place"
    (tmp_path / "a place" / "below").mkdir()
    below = Command(run=("pwd",), directory="{{ facts.state_dir }}/below", once=True)
    assert host.apply(below).words == f"{tmp_path}/a place/below"


@pytest.mark.parametrize(
    ("resource", "says"),
    [
        (Command(run=("true",), creates="{{ facts.datacenter }}/x"), "creates is 'fra/x' on this node, which is no"),
        (Command(run=("true",), once=True, directory="{{ facts.datacenter }}"), "directory is 'fra' on this node"),
        (Directory(path="{{ facts.processors }}/x"), "begin it with a fact that is a place"),
    ],
)
def test_a_fact_that_is_no_place_is_named(host, resource, says):
    outcome = host.apply(resource)
    assert (outcome.result, outcome.kind) == (TaskResult.FAILED, "render")
    assert says in outcome.words
