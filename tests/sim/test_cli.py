"""`dislocate sim`: what it prints, and how it ends."""

import json

import pytest
from click.testing import CliRunner

from dislocate.cli.main import COMMANDS, cli
from dislocate.core.boundary.settings import Recovered
from dislocate.core.node import Node
from dislocate.core.recording import FORMAT, EffectsDigest, Ended, Header, Step, encode_frame, read_frames
from dislocate.core.streams import Streams
from dislocate.core.units import SECOND
from sim.scenario import parse_scenario
from sim.world import World

STORY = """
title = "Two greet"
why = "A fleet assembles."
duration = "20s"
[datacenters.fra]
nodes = 2
[[at]]
time = "10s"
do = "pause"
target = "fra/a2"
for = "500ms"
[[expect]]
kind = "{kind}"
claim = "everyone_sees"
within = "5s"
"""


@pytest.fixture
def story(tmp_path):
    path = tmp_path / "story.toml"
    path.write_text(STORY.replace("{kind}", "eventually"))
    return path


def run(*arguments):
    return CliRunner().invoke(cli, [str(one) for one in arguments])


def test_a_story_is_told_and_ends_with_its_digest(story):
    result = run("sim", "run", story, "--seed", 7)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0] == "Two greet"
    assert "   10.000s  * pause fra/a2" in lines
    assert "   10.500s  * resume fra/a2" in lines
    assert any(line.startswith("  ok    eventually everyone_sees within 5s") for line in lines)
    assert lines[-1].startswith("digest: ")
    assert run("sim", "run", story, "--seed", 7).output.splitlines()[-1] == lines[-1]
    assert run("sim", "run", story, "--seed", 8).output.splitlines()[-1] != lines[-1]


def test_a_negative_seed_is_a_mistake_of_usage(story):
    assert run("sim", "run", story, "--seed", -1).exit_code == 2


def test_a_failed_expectation_exits_1_and_says_how_to_repeat_it(story):
    story.write_text(STORY.replace("{kind}", "eventually").replace("everyone_sees", 'dead"\nof = "fra/a1'))
    result = run("sim", "run", story, "--seed", 7)
    assert result.exit_code == 1
    assert f"repeat with: dislocate sim run {story} --seed 7" in result.output
    assert result.output.splitlines()[-1].startswith("digest: ")


def test_json_is_for_programs(story):
    report = json.loads(run("sim", "run", story, "--json").output)
    assert report["holds"] is True
    assert report["digest"]


def test_many_seeds_are_told_one_a_line(story):
    lines = run("sim", "run", story, "--seeds", "3..5").output.splitlines()
    assert [line.split()[1] for line in lines[:3]] == ["3", "4", "5"]
    assert lines[-1] == "3 of 3 seeds held"


def test_a_trace_has_every_turn(story, tmp_path):
    trace = tmp_path / "trace.jsonl"
    run("sim", "run", story, "--trace", trace)
    head, *turns = [json.loads(line) for line in trace.read_text().splitlines()]
    assert head["seed"] == 0
    assert {"at", "node", "input", "effects"} == turns[0].keys()
    assert any(turn["input"][0] == "DatagramReceived" for turn in turns)


@pytest.mark.parametrize("arguments", [("--seeds", "5"), ("--seed", "x"), ("--nonsense",)])
def test_wrong_usage_exits_2(story, arguments):
    assert run("sim", "run", story, *arguments).exit_code == 2


def test_a_wrong_scenario_exits_2_and_names_the_mend(story):
    story.write_text(STORY.replace("{kind}", "evntually"))
    result = run("sim", "run", story)
    assert result.exit_code == 2
    assert "expect[0].kind: got 'evntually', expected one of always, eventually, " in result.output
    assert "did you mean 'eventually'?" in result.output


def test_help_imports_no_command():
    assert "Run scenarios in virtual time." in run("--help").output
    assert COMMANDS["sim"][0] == "dislocate.cli.sim"


def test_an_unknown_command_exits_2():
    assert run("simulate").exit_code == 2


@pytest.fixture
def recording(tmp_path):
    """What `agent --record` would have written of fra/a1 in twenty simulated seconds."""
    steps = []

    def record(now, machine, input_, effects):
        if machine.path == "fra/a1":
            steps.append((now, input_, list(effects)))

    world = World(parse_scenario(STORY.replace("{kind}", "eventually")), 7, tracer=record)
    world.run(20 * SECOND)
    settings = world.node("fra/a1").settings
    recovered = Recovered(unix_ns=world.machines["fra/a1"].unix_ns(world.machines["fra/a1"].process.started))
    begun = world.machines["fra/a1"].process.started
    steps.insert(0, (begun, None, Node(settings, Streams("7/fra/a1"), recovered).start(begun)))
    digest = EffectsDigest()
    frames = [Header(format=FORMAT, version="test", settings=settings, seed="7", recovered=recovered)]
    for now, input_, effects in steps:
        frames.append(Step(now, digest.value(), input_))
        digest.add(effects)
    path = tmp_path / "a1.rec"
    path.write_bytes(b"".join(encode_frame(frame) for frame in (*frames, Ended(digest.value()))))
    return path


def test_a_recording_of_a_simulated_node_is_told_again(recording):
    result = run("sim", "replay", recording)
    assert result.exit_code == 0, result.output
    assert result.output.startswith("fra/a1, start ")
    assert "the same effects after every input" in result.output
    report = json.loads(run("sim", "replay", recording, "--json").output)
    assert report["matches"] is True
    assert report["inputs"] > 50


def test_a_recording_of_another_behaviour_exits_1_and_shows_where(recording):
    *frames, end = read_frames(recording.open("rb"))
    at = len(frames) // 2
    frames[at] = Step(frames[at].now, b"otherwis", frames[at].input)
    recording.write_bytes(b"".join(encode_frame(frame) for frame in (*frames, end)))
    result = run("sim", "replay", recording)
    assert result.exit_code == 1
    assert "OTHER effects after input" in result.output


def test_what_is_no_recording_says_so(story):
    result = run("sim", "replay", story)
    assert result.exit_code == 1
    assert "recording" in result.output
