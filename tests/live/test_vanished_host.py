"""A host that vanishes: each agent in a network namespace of its own, all on one switch, and a cable that is pulled.

Skipped where namespaces cannot be made (no root, no `ip`).  They have no names, and every process in them ends with the
test, or with the process that runs it: nothing is left behind.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path as FilePath

import pytest

from dislocate.client.connection import AgentConnection, NoAgent, Problem
from dislocate.fleet.processes import die_with_parent
from dislocate.io.keyring import generate_secret
from tests.support.switch import OWN_HOST, Switch, why_impossible

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(bool(why_impossible()), reason=why_impossible() or "namespaces can be made here"),
]

NAMES = ("a1", "a2", "a3", "a4")
VICTIM, *OTHERS = reversed(NAMES)
WITHIN = 120.0  # seconds for anything, on any machine: it ends a test that hangs, and says nothing of our speed


class Hosts:
    """One agent on each, with one service."""

    def __init__(self, directory: FilePath, switch: Switch) -> None:
        self._directory = directory
        self._switch = switch
        self._agents: dict[str, subprocess.Popen[bytes]] = {}
        secret = directory / "secret"
        secret.touch(mode=0o600)
        secret.write_text(generate_secret())

    def start(self, name: str) -> None:
        place = NAMES.index(name) + 1
        config = self._directory / f"{name}.toml"
        config.write_text(
            f'[node]\nname = "{name}"\ndatacenter = "fra"\nbind = "10.79.0.{place}"\nseeds = ["10.79.0.1:49701"]\n'
            f'state_dir = "{self._directory / name}"\n[security]\nsecret_file = "{self._directory / "secret"}"\n'
            f'[[service]]\nname = "shop.web"\nport = 8000\ncheck = {{ command = ["true"], interval = "1s" }}\n'
        )
        with (self._directory / f"{name}.log").open("wb") as log:
            agent = self._agents[name] = subprocess.Popen(
                [*OWN_HOST, sys.executable, "-m", "dislocate", "agent", "--config", str(config)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent,
            )
        self._switch.plug(agent.pid, f"10.79.0.{place}")
        agent.stdin.write(b"\n")
        agent.stdin.close()

    def stop(self) -> None:
        for agent in self._agents.values():
            agent.kill()
        for agent in self._agents.values():
            agent.wait()

    def unplug(self, name: str) -> None:
        self._switch.unplug(self._agents[name].pid)

    def replug(self, name: str) -> None:
        self._switch.replug(self._agents[name].pid)

    def states(self, observer: str) -> dict[str, str]:
        """Of every member that `observer` knows, by name."""
        members = self._ask(observer, "/api/members")["members"]
        return {member["name"]: member["state"] for member in members}

    def service_status(self, observer: str) -> dict[str, str]:
        """Of every instance that `observer` knows, by the name of its node."""
        instances = self._ask(observer, "/api/services/shop.web")["instances"]
        return {instance["node"].removeprefix("fra/"): instance["status"] for instance in instances}

    def history(self, observer: str, name: str) -> list[dict]:
        return list(self._ask(observer, f"/api/history/fra/{name}")["events"])

    def _ask(self, observer: str, path: str) -> dict:
        """Over the unix socket, which passes between network namespaces."""
        return AgentConnection(f"unix:{self._directory / observer / 'http.sock'}").get(path)

    def log(self, name: str) -> str:
        return (self._directory / f"{name}.log").read_text()


@pytest.fixture
def hosts(tmp_path: FilePath) -> Iterator[Hosts]:
    with subprocess.Popen(["unshare", "--net", "sleep", "infinity"], preexec_fn=die_with_parent) as owner:
        try:
            built = Hosts(tmp_path, Switch(owner.pid))
            try:
                for name in NAMES:
                    built.start(name)
                everybody = dict.fromkeys(NAMES, "alive")
                for name in NAMES:
                    eventually(lambda name=name: built.states(name) == everybody)
                    eventually(lambda name=name: built.service_status(name) == dict.fromkeys(NAMES, "passing"))
                yield built
            finally:
                built.stop()
        finally:
            owner.kill()


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN
    while not _answers(holds):
        assert time.monotonic() < deadline, "did not come to hold"
        time.sleep(0.05)


def _answers(holds: Callable[[], bool]) -> bool:
    try:
        return holds()
    except (NoAgent, Problem, KeyError):  # not yet
        return False


def test_a_vanished_host_is_declared_dead_by_all_others_and_nobody_else_is(hosts):
    hosts.unplug(VICTIM)
    expected = {**dict.fromkeys(OTHERS, "alive"), VICTIM: "dead"}
    for observer in OTHERS:
        eventually(lambda observer=observer: hosts.states(observer) == expected)
    for observer in OTHERS:
        assert "silent to" in hosts.log(observer), "silence, not a refusal: nobody was there to refuse"
        assert not [name for name in OTHERS if f"member fra/{name} dead" in hosts.log(observer)]


def test_services_of_a_vanished_host_are_kept_as_critical(hosts):
    hosts.unplug(VICTIM)
    expected = {**dict.fromkeys(OTHERS, "passing"), VICTIM: "critical"}
    for observer in OTHERS:
        eventually(lambda observer=observer: hosts.service_status(observer) == expected)


def test_a_host_whose_cable_is_plugged_in_again_is_alive_everywhere_without_a_restart(hosts):
    hosts.unplug(VICTIM)
    for observer in OTHERS:
        eventually(lambda observer=observer: hosts.states(observer)[VICTIM] == "dead")
    hosts.replug(VICTIM)
    everybody = dict.fromkeys(NAMES, "alive")
    for observer in NAMES:
        eventually(lambda observer=observer: hosts.states(observer) == everybody)
        eventually(lambda observer=observer: hosts.service_status(observer) == dict.fromkeys(NAMES, "passing"))
