"""One agent as a process: how it starts, what it says when it cannot, how it ends."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path as FilePath

import pytest
from dnslib import DNSRecord

from dislocate.fleet.processes import die_with_parent
from dislocate.host.drafts import Draft
from dislocate.host.paths import Seen
from dislocate.io.keyring import generate_secret
from tests.support.live import PATIENCE

pytestmark = pytest.mark.live

PROGRAM = "from dislocate.cli.agent import agent; agent()"


class Process:
    """An agent started from `directory`, and its output."""

    def __init__(self, directory: FilePath, *options: str) -> None:
        self.directory = directory
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "--config", str(directory / "agent.toml"), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=die_with_parent,
        )

    def ready(self) -> str:
        return self.process.stdout.readline()

    def signal(self, sign: signal.Signals) -> None:
        self.process.send_signal(sign)

    def end(self) -> tuple[int, str]:
        """Exit code and standard error."""
        try:
            _, errors = self.process.communicate(timeout=PATIENCE)
        finally:
            self.process.kill()
        return self.process.returncode, errors

    def read_until(self, text: str) -> None:
        for line in self.process.stderr:
            if text in line:
                return
        raise AssertionError(f"ended without {text!r}")


@pytest.fixture
def host(network):
    return f"{network}.7.1"


@pytest.fixture
def directory(tmp_path, host):
    (tmp_path / "secret").write_text(generate_secret())
    (tmp_path / "secret").chmod(0o600)
    write(tmp_path, host, port=8001)
    return tmp_path


@pytest.fixture
def started(directory):
    """Starts agents; none is left, however the test ends."""
    agents = []

    def start() -> Process:
        agents.append(Process(directory))
        return agents[-1]

    yield start
    for agent in agents:
        agent.process.kill()
        agent.process.communicate()


def write(directory: FilePath, host: str, port: int, name: str = "a1") -> None:
    (directory / "agent.toml").write_text(f"""
[node]
name = "{name}"
datacenter = "fra"
bind = "{host}"
state_dir = "state"
[security]
secret_file = "secret"
[[service]]
name = "web"
port = {port}
""")


def srv_ports(host: str) -> list[int]:
    reply = DNSRecord.parse(DNSRecord.question("web.service.dislocate", "SRV").send(host, 49703, timeout=PATIENCE))
    return [rr.rdata.port for rr in reply.rr]


def test_an_agent_answers_when_it_is_ready_reloads_at_sighup_and_ends_at_sigterm(directory, host, started):
    agent = started()
    line = agent.ready()
    assert line.startswith("ready fra/a1 ")
    assert f"dns={host}:49703" in line
    assert srv_ports(host) == [8001]
    write(directory, host, port=8002)
    agent.signal(signal.SIGHUP)
    agent.read_until("SIGHUP: services and tags are those of the file now")
    assert srv_ports(host) == [8002]
    (directory / "agent.toml").write_text("[nod]")
    agent.signal(signal.SIGHUP)
    agent.read_until("did you mean 'node'?")
    assert srv_ports(host) == [8002]
    agent.signal(signal.SIGTERM)
    assert agent.end()[0] == 0
    assert not (directory / "state" / "agent.sock").exists()
    assert not (directory / "state" / "http.sock").exists()


def test_what_keeps_an_agent_from_starting_is_said_with_its_field_and_its_mend(directory, host, started):
    (directory / "secret").unlink()
    code, said = started().end()
    assert (code, "security.secret_file" in said, "dislocate keys generate >" in said) == (1, True, True)
    write(directory, host, port=0)
    code, said = started().end()
    assert (code, "service[0].port" in said) == (2, True)
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("kind", "port", "field"),
    [
        (socket.SOCK_STREAM, 49700, "ports.http"),
        (socket.SOCK_DGRAM, 49701, "ports.gossip"),
        (socket.SOCK_STREAM, 49702, "ports.links"),
        (socket.SOCK_DGRAM, 49703, "ports.dns"),
        (socket.SOCK_STREAM, 49703, "ports.dns"),
    ],
)
def test_a_port_that_is_taken_is_named(host, started, kind, port, field):
    with socket.socket(socket.AF_INET, kind) as taken:
        if kind == socket.SOCK_STREAM:
            taken.setsockopt(
                socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
            )  # an earlier agent's last connections may linger
        taken.bind((host, port))
        if kind == socket.SOCK_STREAM:
            taken.listen()
        code, said = started().end()
    assert (code, field in said, "Traceback" in said) == (1, True, False), said


def test_two_agents_do_not_share_a_state_directory(directory, host, started):
    first = started()
    assert first.ready().startswith("ready")
    write(directory, host, port=1, name="a2")
    code, said = started().end()
    assert (code, "node.state_dir" in said, "another agent" in said) == (1, True, True)
    first.signal(signal.SIGINT)
    assert first.end()[0] == 0


def test_a_start_after_a_kill_finds_its_way_back(host, started):
    for sign in (signal.SIGKILL, signal.SIGTERM):
        agent = started()
        assert agent.ready().startswith("ready")
        assert srv_ports(host) == [8001]
        agent.signal(sign)
        agent.end()


def test_an_agent_discards_the_draft_of_a_file_that_a_killed_one_left(directory, started):
    draft = Draft(directory / "state", str(directory / "motd"))
    draft.write(Seen(0o644, os.geteuid(), os.getegid(), b"half of a secret"))
    assert draft.path.exists()
    assert started().ready()
    assert not draft.path.exists()
