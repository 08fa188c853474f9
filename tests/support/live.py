"""For live tests: wait for a claim with a deadline, agents written by hand, and plain HTTP as curl speaks it."""

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path as FilePath
from typing import Any

from dislocate.client.connection import AgentConnection, NoAgent, Problem
from dislocate.fleet.processes import FleetProcess
from dislocate.io.keyring import generate_secret

POLL = 0.05  # seconds between two questions
PATIENCE = 120.0  # seconds for anything: it ends a test that hangs, on the busiest machine, and judges no speed


def until(claim: str, holds: Callable[[], object]) -> None:
    """Ask until `holds` is true; while nobody answers, it is not.  Fails with `claim` and the last answer."""
    deadline = time.monotonic() + PATIENCE
    last: object = None
    while time.monotonic() < deadline:
        try:
            last = holds()
        except (OSError, LookupError, NoAgent, Problem) as error:
            last = error
        else:
            if last:
                return
        time.sleep(POLL)
    raise AssertionError(f"not within {PATIENCE:.0f} s: {claim}; last: {last!r}")


class HandAgent:
    """One agent as an operator sets it up: a configuration file, a state directory, a process."""

    def __init__(
        self, home: FilePath, host: str, path: str, seeds: list[str], secret: FilePath, more: str = ""
    ) -> None:
        self.home, self.host, self.path = home, host, path
        home.mkdir(parents=True, exist_ok=True)
        self.state = home / "state"
        self.file = home / "agent.toml"
        self._seeds, self._secret = seeds, secret
        self.configure(more)
        self.process = self.started_with("--config", str(self.file))

    def started_with(self, *arguments: str) -> FleetProcess:
        return FleetProcess(self.path, ["-m", "dislocate", "agent", *arguments], self.home / "agent.log")

    def configure(self, more: str = "") -> None:
        datacenter, _, name = self.path.partition("/")
        self.file.write_text(f"""
[node]
name = "{name}"
datacenter = "{datacenter}"
bind = "{self.host}"
state_dir = "state"
seeds = {json.dumps([f"{seed}:49701" for seed in self._seeds])}
[security]
secret_file = "{self._secret}"
{more}
""")

    def start(self) -> "HandAgent":
        self.process.start()
        self.process.wait_ready(PATIENCE)
        return self

    @property
    def log(self) -> str:
        return self.process.log.read_text()

    @property
    def gossip(self) -> tuple[str, int]:
        return (self.host, 49701)

    @property
    def api(self) -> AgentConnection:
        """With the rights of the agent's own user."""
        return AgentConnection(f"unix:{self.state}/http.sock", timeout=PATIENCE)

    def states(self) -> dict[str, str]:
        """What it says of each member."""
        return {f"{m['datacenter']}/{m['name']}": m["state"] for m in self.api.get("/api/members")["members"]}

    def instances(self, service: str) -> list[dict[str, Any]]:
        return list(self.api.get(f"/api/services/{service}")["instances"])

    def metric(self, name: str) -> float:
        return metric(self.api, name)


def metric(api: AgentConnection, name: str) -> float:
    """The sum of all counters whose full name, with labels, begins with `name`; 0 when there is none."""
    lines = api.text("/api/metrics").splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def new_secret(directory: FilePath, name: str = "secret") -> FilePath:
    path = directory / name
    path.touch(mode=0o600)
    path.write_text(generate_secret() + "\n")
    return path


def curl(host: str, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
    """Status and decoded JSON."""
    connection = http.client.HTTPConnection(host, 49700, timeout=PATIENCE)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json", **headers})
        response = connection.getresponse()
        return response.status, json.loads(response.read() or b"null")
    finally:
        connection.close()


def tell(agent_sock: FilePath, own: FilePath, message: bytes) -> dict[str, Any]:
    """Send one datagram to agent.sock and wait for the answer."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        own.unlink(missing_ok=True)
        client.bind(str(own))
        client.settimeout(PATIENCE)
        client.sendto(message, str(agent_sock))
        return dict(json.loads(client.recv(1 << 16)))


def command(*arguments: str, agent: str = "", within: float = PATIENCE) -> subprocess.CompletedProcess[str]:
    """Run `dislocate ARGUMENTS` to its end, with `agent` in DISLOCATE_AGENT."""
    environment = {**os.environ, **({"DISLOCATE_AGENT": agent} if agent else {})}
    return subprocess.run(
        [sys.executable, "-m", "dislocate", *arguments],
        capture_output=True,
        text=True,
        timeout=within,
        env=environment,
        check=False,
    )


def descendants(pid: int) -> list[int]:
    """Living processes below `pid`, by /proc."""
    parents: dict[int, list[int]] = {}
    for entry in FilePath("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if fields[0] != "Z":
                parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found, waiting = [], [pid]
    while waiting:
        children = parents.get(waiting.pop(), [])
        found += children
        waiting += children
    return found


def is_alive(pid: int) -> bool:
    try:
        return (FilePath("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def processes_named(text: str) -> list[int]:
    """Living processes whose command line has `text`."""
    found = []
    for entry in FilePath("/proc").iterdir():
        if entry.name.isdigit() and is_alive(int(entry.name)):
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue  # it ended meanwhile
            if text.encode() in line and int(entry.name) != os.getpid():
                found.append(int(entry.name))
    return found
