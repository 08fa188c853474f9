"""What an operator does when servers are lost for good, with real agents and their disks."""

import json
import shutil

import pytest

from dislocate.cli.output import EXIT_FAILED
from dislocate.client.connection import CHANGE_TIMEOUT, Raw
from dislocate.core.boundary.effects import Store
from dislocate.core.boundary.values import StoredRecord
from dislocate.core.consensus.messages import ServerId
from dislocate.core.consensus.promises import DISK_KEY, PROMISE_KEY, record
from dislocate.io.disk import Disk
from tests.support.live import HandAgent, command, new_secret, until

pytestmark = pytest.mark.live

PATHS = ("fra/a1", "fra/a2", "wdc/a1")
LIST = f"[store]\nservers = {json.dumps(list(PATHS))}"


@pytest.fixture
def servers(tmp_path, network):
    """Three servers, written down and not started."""
    secret = new_secret(tmp_path)
    hosts = [f"{network}.31.{at}" for at in (1, 2, 3)]
    agents = {
        path: HandAgent(tmp_path / path.replace("/", "-"), host, path, hosts[:1], secret, LIST)
        for path, host in zip(PATHS, hosts, strict=True)
    }
    yield agents
    for agent in agents.values():
        if agent.process.is_running:
            agent.process.kill()


def keep(agent: HandAgent, *records: StoredRecord) -> None:
    """Write on the disk of an agent that does not run."""
    disk = Disk(agent.state)
    disk.store(Store(1, records, sync=True), lambda _: None)
    disk.close()


def store_of(agent: HandAgent) -> dict:
    return agent.api.get("/api/store")


def works(agent: HandAgent) -> None:
    until(f"{agent.path} takes part", lambda: store_of(agent)["problem"] == "" and store_of(agent)["leader"])


def put(agent: HandAgent, key: str, value: str) -> int:
    """Write it, through whatever elections a busy machine has; the revision."""
    answers: list[Raw] = []
    until(
        f"{agent.path} writes",
        lambda: answers.append(agent.api.raw("PUT", f"/api/kv/{key}", value.encode())) is None,
    )
    return int(json.loads(answers[-1].body)["revision"])


def reads(agent: HandAgent, key: str, value: str) -> None:
    until(f"{agent.path} reads {value!r}", lambda: agent.api.get(f"/api/kv/{key}")["value"] == value)


def test_a_server_that_gets_an_old_copy_of_its_disk_back_ends_its_part_and_says_so(servers):
    for agent in servers.values():
        agent.start()
    for agent in servers.values():
        works(agent)
    leader = store_of(servers["fra/a1"])["leader"]
    back = next(agent for path, agent in servers.items() if path != leader)
    put(back, "app/color", "blue")
    back.process.kill()
    copy = back.state.with_name("copy")
    shutil.copytree(back.state, copy, ignore=shutil.ignore_patterns("*.sock"))
    back.start()
    works(back)
    for number in range(30):
        last = put(back, f"app/{number}", "kept")
    until("it has them", lambda: store_of(back)["revision"] >= last)
    back.process.kill()
    shutil.rmtree(back.state)
    shutil.copytree(copy, back.state)
    back.start()
    until("it knows that it forgot", lambda: store_of(back)["role"] == "failed")
    at = f"unix:{back.state}/http.sock"
    status = command("store", "status", agent=at)
    assert status.returncode == EXIT_FAILED
    assert "older copy of itself" in status.stderr
    (seen,) = [one for one in store_of(servers[leader])["servers"] if one["path"] == back.path]
    assert seen["trouble"] == "disk went back"
    reads(back, "app/29", "kept")


def test_one_server_that_is_left_becomes_the_group_and_the_others_come_back(servers):
    for agent in servers.values():
        agent.start()
    for agent in servers.values():
        works(agent)
    before = put(servers["fra/a1"], "app/color", "blue")
    until("all have it", lambda: all(store_of(agent)["revision"] >= before for agent in servers.values()))
    for agent in servers.values():
        agent.process.kill()
    left, wiped, cut = (servers[path] for path in ("fra/a1", "fra/a2", "wdc/a1"))
    shutil.rmtree(wiped.state)

    refused = command("store", "recover", "--config", str(left.file))
    assert refused.returncode == 2
    assert "--yes-lose-what-others-had" in refused.stderr
    done = command("store", "recover", "--config", str(left.file), "--yes-lose-what-others-had")
    assert done.returncode == 0, done.stderr
    assert "FORCED RECOVERY OF THE STORE" in done.stdout

    left.start()
    works(left)
    reads(left, "app/color", "blue")
    assert put(left, "app/color", "green") > before + (1 << 40) - 1

    cut.start()
    until("who has the old epoch is put out", lambda: "recovered by force elsewhere" in store_of(cut)["warning"])
    wiped.start()
    until("the wiped one knows the group", lambda: "the group exists" in store_of(wiped)["warning"])
    for agent in (cut, wiped):
        added = command("servers", "add", agent.path, agent=f"unix:{left.state}/http.sock", within=2 * CHANGE_TIMEOUT)
        assert added.returncode == 0, added.stderr
        works(agent)
    left.process.kill()
    put(cut, "app/color", "red")  # the two go on
    reads(wiped, "app/color", "red")


def test_a_running_agent_is_neither_recovered_nor_made_to_forget(servers):
    agent = servers["fra/a1"].start()
    done = command("store", "forget-promise", "--config", str(agent.file))
    assert done.returncode == EXIT_FAILED
    assert "stop the other one" in done.stderr


def test_a_disk_lost_before_the_group_was_founded_is_named_and_mended(servers):
    promised = tuple(ServerId(path, at + 1) for at, path in enumerate(PATHS))
    for number, path in enumerate(PATHS[:2]):  # as if the third had lost its disk after it had told its number
        keep(servers[path], record(DISK_KEY, number + 1), record(PROMISE_KEY, promised))
    for agent in servers.values():
        agent.start()
    words = "the disk of wdc/a1 is another than the one that fra/a1 and fra/a2 promised to found it with"
    until("the mend is named", lambda: all(words in store_of(agent)["problem"] for agent in servers.values()))
    for path in PATHS[:2]:
        servers[path].process.kill()
        done = command("store", "forget-promise", "--config", str(servers[path].file))
        assert done.returncode == 0, done.stderr
        servers[path].start()
    for agent in servers.values():
        works(agent)
    servers["fra/a1"].process.kill()
    done = command("store", "forget-promise", "--config", str(servers["fra/a1"].file))
    assert done.returncode == EXIT_FAILED
    assert "that one was founded" in done.stderr
