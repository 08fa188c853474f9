"""`dislocate doctor` before and beside an agent: what is wrong is found, named and mended."""

import json
import socket

import pytest

from tests.support.live import HandAgent, command, new_secret, until

pytestmark = pytest.mark.live


@pytest.fixture
def pair(by_hand):
    """A running agent, and one that is about to be started and names it as its seed."""
    return by_hand("fra/a1").start(), by_hand("fra/a2")


def examine(agent):
    """(exit code, findings by what was looked at, as (level, found, mend))"""
    done = command("doctor", "--config", str(agent.file), "--json")
    assert "Traceback" not in done.stderr, done.stderr
    assert done.stderr == ""
    answer = json.loads(done.stdout)
    assert answer["healthy"] == (done.returncode == 0)
    findings: dict[str, tuple[str, str, str]] = {}
    for one in answer["findings"]:
        if findings.get(one["what"], ("ok",))[0] == "ok":
            findings[one["what"]] = (one["level"], one["found"], one["mend"])
    return done.returncode, findings


def levels(findings):
    return {what: level for what, (level, _, _) in findings.items() if level != "ok"}


def test_before_the_start_all_is_well_and_the_seed_answers(pair):
    first, second = pair
    code, findings = examine(second)
    assert (code, levels(findings)) == (0, {})
    assert "fra/a1 answers over UDP" in findings[f"seed {first.host}:49701"][1]
    assert "accepts" in findings["links to fra/a1"][1]
    assert "clock of fra/a1" in findings
    assert "is free" in findings["port gossip"][1]
    assert first.states() == {"fra/a1": "alive"}, "asking makes nobody a member"
    same = examine(first)[1]["secret"][1].split("fingerprint ")[1]
    assert findings["secret"][1].split("fingerprint ")[1] == same


def test_a_name_that_the_seed_has_already_is_named_before_the_start(pair):
    first, second = pair
    second.file.write_text(second.file.read_text().replace('name = "a2"', 'name = "a1"'))
    code, findings = examine(second)
    assert (code, levels(findings)) == (1, {"node.name": "FAIL"})
    assert f"fra/a1 is taken: an agent at {first.host}:49701 answers to it" in findings["node.name"][1]


def test_beside_the_running_agent_its_ports_are_its_own_and_its_view_is_told(pair):
    first, second = pair
    second.start()
    both = {"fra/a1": "alive", "fra/a2": "alive"}
    until("they know each other", lambda: first.states() == second.states() == both)
    code, findings = examine(second)
    assert (code, levels(findings)) == (0, {})
    assert "held, by the running agent" in findings["port http"][1]
    assert "sees 2 alive" in findings["running agent"][1]


def test_beside_a_server_the_store_its_members_and_its_links_are_looked_at(by_hand):
    servers = '[store]\nservers = ["fra/a1"]'
    first, second = by_hand("fra/a1"), by_hand("fra/a2")
    first.configure(servers)
    second.configure(servers.replace('"fra/a1"', '"fra/a1", "fra/a01", "fra/a3"'))
    first.start()
    until("the store is led", lambda: "led by fra/a1" in examine(first)[1].get("store", ("", ""))[1])
    second.start()
    until("it knows the store", lambda: "led by fra/a1" in examine(second)[1].get("store", ("", ""))[1])
    code, findings = examine(second)
    assert code == 0, "nothing keeps it from working"
    assert "a client of group" in findings["store"][1]
    level, found, mend = findings["store servers"]
    assert level == "warn"
    assert "fra/a01 is named and no member" in found
    assert "did you mean" in found
    assert "store.servers" in mend


def test_what_is_wrong_on_the_host_is_named_with_its_mend(pair, tmp_path):
    _, second = pair
    (second.home / "state").write_text("a file in its place")
    second._secret.chmod(0o644)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(second.gossip)
        code, findings = examine(second)
    assert code == 1
    assert levels(findings) == {"secret": "warn", "state directory": "FAIL", "port gossip": "FAIL"}
    assert "chmod 600" in findings["secret"][2]
    assert "node.state_dir" in findings["state directory"][2]
    assert "ss -lnup" in findings["port gossip"][2]


def test_a_file_that_cannot_be_meant_is_all_there_is_to_say(pair):
    _, second = pair
    second.configure("colour = 1")
    code, findings = examine(second)
    assert (code, list(findings)) == (1, ["configuration"])
    assert "colour" in findings["configuration"][1]
    missing = command("doctor", "--config", str(second.home / "none.toml"))
    assert (missing.returncode, "FAIL  configuration" in missing.stdout) == (1, True)
    second.configure()
    second._secret.unlink()
    code, findings = examine(second)
    assert (code, findings["secret"][0], "keys generate" in findings["secret"][2]) == (1, "FAIL", True)


def test_another_secret_is_told_from_a_refusal_and_from_silence(pair, tmp_path):
    first, second = pair
    stranger = HandAgent(tmp_path / "stranger", second.host, "fra/a3", [first.host], new_secret(tmp_path, "other"))
    code, findings = examine(stranger)
    assert (code, levels(findings)) == (1, {f"seed {first.host}:49701": "warn", "seeds": "FAIL"})
    _, found, mend = findings[f"seed {first.host}:49701"]
    assert ("the secrets differ" in found, "compare the fingerprints" in mend) == (True, True)

    _, findings = examine(first)
    assert "another secret" in findings["secret of others"][1], "and the other side has counted it"

    first.process.kill()
    code, findings = examine(second)
    assert (code, findings["seeds"][0]) == (1, "FAIL")
    assert "no agent listens there" in findings[f"seed {first.host}:49701"][1]

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mute:  # takes everything, answers nothing
        mute.bind(first.gossip)
        _, findings = examine(second)
    assert "silent over UDP, and nobody listens" in findings[f"seed {first.host}:49701"][1]
