"""A living agent records itself while its fleet is cut, stopped and killed; the recording does the same again."""

import json

import pytest

from dislocate.core.recording import Step, encode_frame, read_frames
from dislocate.fleet.dev import dev_scenario
from dislocate.fleet.fleet import Fleet
from tests.support.live import command, curl, until

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Two: of an agent that was stopped in order, and of one that was killed, after faults."""
    with Fleet(dev_scenario(2, 2), tmp_path_factory.mktemp("recorded"), record=True) as fleet:
        fleet.start()
        watcher = fleet.observers["fra/a1"]
        until("four are alive", lambda: [m["state"] for m in watcher.members().values()] == ["alive"] * 4)
        host = fleet.plans["fra/a1"].host
        assert curl(host, "PUT", "/api/instances/r1", b'{"service": "recorded", "port": 1}')[0] == 200
        fleet.pause("fra/a2")
        until("the stopped one is missed", lambda: watcher.members()["fra/a2"]["state"] in ("suspect", "dead"))
        fleet.resume("fra/a2")
        until("it refutes", lambda: watcher.members()["fra/a2"]["state"] == "alive")
        fleet.kill("fra/shop.web#1")
        fleet.steer(**{"do": "cut", "from": "fra", "to": "wdc"})
        until("wdc is out of reach", lambda: not watcher.datacenters()["wdc"]["reachable"])
        fleet.kill("fra/a2")
        until("the killed one is dead", lambda: watcher.members()["fra/a2"]["state"] == "dead")
        fleet.steer(**{"do": "heal", "from": "fra", "to": "wdc"})
        until("wdc is back", lambda: watcher.datacenters()["wdc"]["reachable"])
        assert curl(host, "DELETE", "/api/instances/r1")[0] == 200
        fleet.kill("wdc/a1")
        fleet.stop_gently("fra/a1")
        yield fleet.home("fra/a1") / "recording", fleet.home("wdc/a1") / "recording"


def test_a_recording_under_faults_does_the_same_again_with_the_same_digest(recordings):
    ended, killed = recordings
    answers = []
    for _ in range(2):
        done = command("sim", "replay", str(ended), "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        answers.append(json.loads(done.stdout))
    assert answers[0]["matches"]
    assert answers[0]["is_complete"]
    assert answers[0]["inputs"] > 200
    assert answers[0]["digest"] == answers[1]["digest"]
    done = command("sim", "replay", str(killed))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "breaks off" in done.stdout
    assert "digest: " in done.stdout


def test_a_recording_that_does_not_fit_exits_1_with_the_first_input_that_parts(recordings, tmp_path):
    with recordings[0].open("rb") as file:
        frames = list(read_frames(file))
    at = len(frames) // 2
    assert isinstance(frames[at], Step)
    frames[at] = Step(frames[at].now, b"otherwis", frames[at].input)
    changed = tmp_path / "changed"
    changed.write_bytes(b"".join(encode_frame(frame) for frame in frames))
    done = command("sim", "replay", str(changed))
    assert (done.returncode, "OTHER effects after input" in done.stdout) == (1, True), done.stdout + done.stderr
    changed.write_bytes(b"no recording at all")
    done = command("sim", "replay", str(changed))
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
