"""Recordings: a live node's day, and the proof that a fresh node does the same."""

import io
import os
import signal
import subprocess
import sys
from pathlib import Path as FilePath

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dislocate.core.boundary.effects import Effect, Reply, RunTask
from dislocate.core.boundary.inputs import (
    ClockRead,
    ConnectTried,
    DatagramReceived,
    Input,
    LinkLost,
    Requested,
    SendFailed,
    Stored,
    TaskProgressed,
    TimeReached,
)
from dislocate.core.boundary.requests import Leave
from dislocate.core.boundary.runs import Task, TaskOutcome, TaskResult, TaskVerb, Visit
from dislocate.core.boundary.settings import Recovered, Settings
from dislocate.core.boundary.spec import Command
from dislocate.core.boundary.values import ConnectOutcome, Refusal, StoredRecord
from dislocate.core.errors import ConfigError, LocalError
from dislocate.core.identity import NodeId
from dislocate.core.node import Node
from dislocate.core.recording import Ended, Frame, Header, Step, encode_frame, read_frames, replay
from dislocate.core.streams import Streams
from dislocate.core.units import SECOND
from dislocate.io.recorder import LIMIT, Recorder

SETTINGS = Settings(
    node=NodeId("fra", "a1", 5), nonce=9, gossip="127.0.0.1:1", links="127.0.0.1:2", seeds=("127.0.0.2:1",)
)
RECOVERED = Recovered(records=(StoredRecord("member/fra/a2", b"\0"),), unix_ns=77)
PEER = NodeId("fra", "a2", 3)

INPUTS: tuple[Input, ...] = (
    ClockRead(1_700_000_000_000_000_000),
    TimeReached(),
    DatagramReceived("127.0.0.2:1", b"junk that is dropped and counted"),
    SendFailed("127.0.0.2:1", Refusal.REFUSED),
    SendFailed(PEER, Refusal.BACKPRESSURE),
    LinkLost(PEER, "reset"),
    ConnectTried("127.0.0.2:2", ConnectOutcome.TIMED_OUT),
    Requested(1, Leave()),
    TimeReached(),
)


def record(path: FilePath, inputs: tuple[Input, ...] = INPUTS, limit: int = LIMIT) -> Recorder:
    """What a driver does, with a clock of its own."""
    recorder = Recorder(path, SETTINGS, "seed", RECOVERED, limit)
    node = Node(SETTINGS, Streams("seed/fra/a1"), RECOVERED)
    recorder.before(None, 0)
    recorder.after(node.start(0))
    for number, input_ in enumerate(inputs, 1):
        recorder.before(input_, number * SECOND)
        recorder.after(node.handle(input_, number * SECOND))
    return recorder


def frames_of(path: FilePath) -> list[Frame]:
    with path.open("rb") as file:
        return list(read_frames(file))


def test_a_replay_does_the_same_again(tmp_path):
    record(tmp_path / "r").close()
    frames = frames_of(tmp_path / "r")
    seen: list[tuple[Step, list[Effect]]] = []
    report = replay(frames, lambda step, effects: seen.append((step, effects)))
    assert (report.matches, report.is_complete, report.raised) == (True, True, "")
    assert report.inputs == len(INPUTS)
    assert tuple(step.input for step, _ in seen[1:]) == INPUTS
    assert report.header.settings == SETTINGS
    assert report.header.recovered == RECOVERED
    assert report.duration == len(INPUTS) * SECOND
    assert report.digest == replay(frames).digest


def test_tasks_of_visits_replay_with_what_they_wrote(tmp_path):
    task = Task(TaskVerb.APPLY, Command(run=("uptime",), once=True), "", secrets={"db": b"sealed"}, stream=True)
    inputs: tuple[Input, ...] = (
        Requested(1, Visit(("fra/a1", "fra/a9"), (task,))),
        TaskProgressed("visit/1", TaskOutcome(TaskResult.OUTPUT, output=b"up 3 days")),
        TaskProgressed("visit/1", TaskOutcome(TaskResult.CHANGED, code=0)),
    )
    record(tmp_path / "r", inputs).close()
    seen: list[Effect] = []
    report = replay(frames_of(tmp_path / "r"), lambda _step, effects: seen.extend(effects))
    assert (report.matches, report.inputs) == (True, 3)
    assert [type(effect) for effect in seen if isinstance(effect, RunTask | Reply)] == [RunTask, Reply]


def test_a_node_that_does_otherwise_is_found_at_the_first_step_that_differs(tmp_path):
    record(tmp_path / "r").close()
    header, *steps = frames_of(tmp_path / "r")
    junk = next(number for number, step in enumerate(steps) if type(step.input) is DatagramReceived)
    steps[junk] = Step(steps[junk].now, steps[junk].digest, ClockRead(1))  # which drops nothing and tells of nothing
    report = replay([header, *steps])
    assert not report.matches
    assert report.first_divergence is not None
    assert (report.first_divergence.step, report.first_divergence.input) == (junk, ClockRead(1))


def test_a_node_made_of_other_settings_diverges_from_its_start(tmp_path):
    record(tmp_path / "r").close()
    header, *steps = frames_of(tmp_path / "r")
    other = msgspec.structs.replace(header, settings=msgspec.structs.replace(SETTINGS, nonce=10))
    assert replay([header, *steps]).matches
    report = replay([other, *steps])
    assert not report.matches
    assert report.first_divergence is not None
    assert (report.first_divergence.step, report.first_divergence.input) == (0, None)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_tail_cut_off_anywhere_is_the_end_of_a_shorter_recording(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("cut") / "r"
    record(path).close()
    whole = path.read_bytes()
    header_size = 4 + int.from_bytes(whole[:4], "big")
    kept = data.draw(st.integers(header_size, len(whole) - 1))
    report = replay(read_frames(io.BytesIO(whole[:kept])))
    assert report.matches
    assert not report.is_complete
    assert report.inputs <= len(INPUTS)


@given(st.binary(max_size=200))
def test_what_is_no_recording_is_refused_in_words(junk):
    with pytest.raises(LocalError, match="recording"):
        replay(read_frames(io.BytesIO(junk)))


def test_damage_in_the_middle_is_an_error_not_an_end(tmp_path):
    record(tmp_path / "r").close()
    whole = bytearray((tmp_path / "r").read_bytes())
    whole[len(whole) // 2 :] = b"\xff" * (len(whole) - len(whole) // 2)
    with pytest.raises(LocalError, match="frame"):
        replay(read_frames(io.BytesIO(bytes(whole))))


def test_an_input_that_broke_the_node_is_the_last_step_and_breaks_the_replay_too(tmp_path):
    recorder = record(tmp_path / "r")
    recorder.before(Stored(424_242), 100 * SECOND)  # answers a store that was never asked for
    recorder.abandon()
    report = replay(frames_of(tmp_path / "r"))
    assert report.matches
    assert "KeyError" in report.raised
    assert report.inputs == len(INPUTS) + 1


def test_a_killed_process_leaves_a_recording_up_to_its_last_flush(tmp_path):
    path = tmp_path / "r"
    script = f"""
import sys, time
sys.path[:0] = [{str(FilePath(__file__).parent)!r}]
from pathlib import Path
from test_recording import ClockRead, SECOND, record
recorder = record(Path({str(path)!r}))
recorder.before(ClockRead(1), 60 * SECOND)
print("ready", flush=True)
time.sleep(600)
"""
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=os.environ)
    assert child.stdout.readline() == b"ready\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    report = replay(frames_of(path))
    assert report.matches
    assert report.inputs == len(INPUTS) + 1


def test_a_recording_is_private_and_an_earlier_one_is_kept(tmp_path):
    path = tmp_path / "r"
    record(path).close()
    first = path.read_bytes()
    record(path, INPUTS[:1]).close()
    assert path.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "r.1").read_bytes() == first


@pytest.mark.parametrize("limit", [0, 300, 600])
def test_a_recording_that_is_as_long_as_it_may_be_ends_in_good_order_and_replays_up_to_there(tmp_path, limit, caplog):
    record(tmp_path / "whole").close()
    record(tmp_path / "r", limit=limit).close()
    frames = frames_of(tmp_path / "r")
    report = replay(frames)
    assert (report.matches, report.is_complete) == (True, True)
    assert frames[:-1] == frames_of(tmp_path / "whole")[: len(frames) - 1]
    assert report.inputs < len(INPUTS)
    assert caplog.text.count("as long as it may be") == 1


def test_a_recorder_that_cannot_write_says_so_once_and_lets_the_agent_go_on(tmp_path, caplog):
    recorder = record(tmp_path / "r")
    recorder.abandon()
    recorder._file = open("/dev/full", "wb")  # noqa: SIM115 - the recorder owns and closes it
    for second in range(100, 110):
        recorder.before(ClockRead(1), second * SECOND)
    recorder.close()
    assert caplog.text.count("ends here") == 1


def test_a_recording_is_made_where_a_file_may_be_and_nowhere_else(tmp_path):
    with pytest.raises(ConfigError, match="--record"):
        record(tmp_path / "none" / "r")
    with pytest.raises(ConfigError, match="--record"):
        record(tmp_path)


def test_frames_read_back_as_they_were_written():
    frames: tuple[Frame, ...] = (
        Header(format=1, version="0", settings=SETTINGS, seed="s", recovered=RECOVERED),
        *(Step(number, bytes(8), input_) for number, input_ in enumerate(INPUTS)),
        Ended(b"12345678"),
    )
    assert tuple(read_frames(io.BytesIO(b"".join(map(encode_frame, frames))))) == frames
