"""Replicated stores under measurement: three servers of each on loopback as real processes, shipped defaults.

A store that is not installed has no version, and its figures read 'not measured'.
"""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from math import inf
from pathlib import Path
from shutil import which
from types import TracebackType
from typing import Protocol, Self
from urllib.request import urlopen

from msgspec import Struct

from bench.opened import Opened
from bench.peers import name_of
from dislocate.fleet.blueprint import claim_network
from dislocate.fleet.processes import die_with_parent
from dislocate.io.keyring import generate_secret

SERVERS = 3
STARTED_WITHIN = 30.0  # seconds to the first leader
ACKNOWLEDGED_WITHIN = 30.0  # seconds; a failover that takes longer counts as never
TRY = 0.05  # seconds that a try gets before another server is asked, as etcd's client has it here
MIB = 1 << 20

HERE = Path(__file__).parent
PEERS = HERE.parent / ".bench"


class Load(Struct, frozen=True):
    """What a closed loop of clients saw; latencies in seconds."""

    rate: float  # answers a second
    p50: float
    p99: float
    errors: int = 0


class Group(Protocol):
    """Three running servers.  Ends them when it is left."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def load(self, verb: str, clients: int, seconds: float, face: str) -> Load:
        """`put` or `get` (linearizable) over `face`: 'unix', or 'tcp' for whatever the store has on it."""
        ...

    def fail_over(self) -> float:
        """Seconds from the SIGKILL of the leader to the first write that a client had acknowledged; it is restarted then."""
        ...

    def memory(self) -> float:
        """MiB, proportional, of the server that holds most."""
        ...


# ---- processes


class Process:
    """One server, which ends with us."""

    def __init__(self, command: list[str], log: Path) -> None:
        self._command = command
        self._log = log
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                preexec_fn=die_with_parent,
            )

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()

    def say(self, line: str) -> None:
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{' '.join(self._command)} ended; its log ends:\n{self._log.read_text()[-2000:]}")
        return line.strip()

    def memory(self) -> float:
        rollup = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        return int(re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)[1]) * 1024 / MIB


class Processes(Opened):
    """Three of them."""

    def __init__(self) -> None:
        super().__init__()
        self.servers: list[Process] = []

    def end(self) -> None:
        for server in self.servers:
            server.kill()

    def start(self, command: list[str]) -> Process:
        server = Process(command, self.directory / f"{len(self.servers)}.log")
        self.servers.append(server)
        return server

    def memory(self) -> float:
        return max(server.memory() for server in self.servers)


def free_ports(count: int) -> list[int]:
    with ExitStack() as opened:
        sockets = [opened.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def say_load(command: list[str]) -> Load:
    return read_load(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def read_load(line: str) -> Load:
    return Load(**json.loads(line))


# ---- ours


class DislocateGroup(Processes):
    """Three agents of one data center, each a server."""

    def found(self) -> None:
        network, claim = claim_network()
        self.opened.callback(claim.close)
        self.hosts = [f"{network}.1.{at + 1}" for at in range(SERVERS)]
        secret = self.directory / "secret"
        secret.touch(mode=0o600)
        secret.write_text(generate_secret() + "\n")
        names = ", ".join(f'"lab/{name_of(at)}"' for at in range(SERVERS))
        for at, host in enumerate(self.hosts):
            config = self.directory / f"{name_of(at)}.toml"
            config.write_text(
                f'[node]\nname = "{name_of(at)}"\ndatacenter = "lab"\nbind = "{host}"\n'
                f'seeds = ["{self.hosts[at - 1]}:49701"]\nstate_dir = "{self.directory / name_of(at)}"\n'
                f'[store]\nservers = [{names}]\n[security]\nsecret_file = "{secret}"\n'
            )
            self.start([sys.executable, "-m", "dislocate", "agent", "--config", str(config)])
        for server in self.servers:
            _await_ready(server)
        _await_leader(self.leader)

    def leader(self) -> int:
        for at, host in enumerate(self.hosts):
            if self.servers[at].process.poll() is None:
                leader = ask(f"http://{host}:49700/api/store").get("leader")
                if leader:
                    return int(leader.rpartition("/n")[2])
        return -1

    def load(self, verb: str, clients: int, seconds: float, face: str) -> Load:
        places = [self.agent_socket(at) if face == "unix" else f"{host}:49700" for at, host in enumerate(self.hosts)]
        kind = "unix" if face == "unix" else "http"
        script = str(HERE / "store_clients.py")
        return say_load([sys.executable, script, verb, str(clients), str(seconds), kind, *places])

    def fail_over(self) -> float:
        leader = self.leader()
        others = [self.agent_socket(at) for at in range(SERVERS) if at != leader]
        with Asker(self.directory / "asker", others) as asker:
            asker.first()
            began = time.monotonic()
            self.servers[leader].kill()
            taken = asker.first() - began
        self.servers[leader].start()
        _await_ready(self.servers[leader])
        time.sleep(2)  # what it has missed
        return taken

    def agent_socket(self, at: int) -> str:
        return str(self.directory / name_of(at) / "agent.sock")


class Asker:
    """A client that wants one write acknowledged, by whomever."""

    def __init__(self, path: Path, places: list[str], patience: float = TRY) -> None:
        self._path = path
        self._patience = patience
        self._places = places
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._asked = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
        self._path.unlink()

    def first(self) -> float:
        """When a write asked for from now on was acknowledged; inf for never."""
        began, first_asked = time.monotonic(), self._asked + 1
        while time.monotonic() < began + ACKNOWLEDGED_WITHIN:
            self._asked += 1
            question = {"op": "put", "id": self._asked, "key": "first", "value": "x" * 256}
            self._socket.sendto(json.dumps(question).encode(), self._places[self._asked % len(self._places)])
            until = time.monotonic() + self._patience
            while (left := until - time.monotonic()) > 0:
                self._socket.settimeout(left)
                try:
                    answer = json.loads(self._socket.recv(1 << 16))
                except TimeoutError:
                    break
                if answer.get("ok") and answer["id"] >= first_asked:
                    return time.monotonic()
                if answer.get("id") == self._asked:
                    time.sleep(0.002)
                    break
        return inf


def ask(url: str) -> dict[str, object]:
    """What the agent says; nothing where it says nothing."""
    try:
        with urlopen(url, timeout=2) as answer:
            return json.load(answer)
    except (OSError, ValueError):
        return {}


def _await_ready(server: Process) -> None:
    while not server.hear().startswith("ready"):
        pass


def _await_leader(leader: Callable[[], int]) -> None:
    deadline = time.monotonic() + STARTED_WITHIN
    while leader() < 0:
        if time.monotonic() > deadline:
            raise RuntimeError(f"no leader within {STARTED_WITHIN:.0f} s")
        time.sleep(0.1)


# ---- etcd


def build_etcd_client() -> Path | None:
    """The client, built where Go and etcd's packages are; None elsewhere."""
    built, source = PEERS / "etcd_client", HERE / "etcd_client.go"
    if not (built.exists() and built.stat().st_mtime >= source.stat().st_mtime):
        if which("go") is None or not Path("/usr/share/gocode/src/go.etcd.io/etcd/clientv3").exists():
            return None
        PEERS.mkdir(exist_ok=True)
        place = {"GO111MODULE": "off", "GOPATH": "/usr/share/gocode"}
        subprocess.run(["go", "build", "-o", built, source], check=True, env={**os.environ, **place})
    return built


class EtcdGroup(Processes):
    """Three members."""

    def found(self) -> None:
        ports = free_ports(2 * SERVERS)
        self.endpoints = [f"127.0.0.1:{port}" for port in ports[:SERVERS]]
        peers = [f"http://127.0.0.1:{port}" for port in ports[SERVERS:]]
        cluster = ",".join(f"{name_of(at)}={peer}" for at, peer in enumerate(peers))
        for at, endpoint in enumerate(self.endpoints):
            command = ["etcd", "--name", name_of(at), "--data-dir", str(self.directory / name_of(at))]
            command += ["--listen-client-urls", f"http://{endpoint}", "--advertise-client-urls", f"http://{endpoint}"]
            command += ["--listen-peer-urls", peers[at], "--initial-advertise-peer-urls", peers[at]]
            self.start([*command, "--initial-cluster", cluster, "--log-level", "error"])
        self._client = str(build_etcd_client())
        _await_leader(self.leader)

    def leader(self) -> int:
        command = [self._client, "leader", ",".join(self.endpoints)]
        return int(subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout)

    def load(self, verb: str, clients: int, seconds: float, face: str) -> Load:
        return say_load([self._client, verb, str(clients), str(seconds), ",".join(self.endpoints)])

    def fail_over(self) -> float:
        leader = self.leader()
        client = Process([self._client, "first", ",".join(self.endpoints)], self.directory / "first.log")
        client.hear()
        began = time.monotonic()
        self.servers[leader].kill()
        client.say("")
        client.hear()
        taken = time.monotonic() - began
        client.kill()
        self.servers[leader].start()
        time.sleep(2)  # what it has missed
        _await_leader(self.leader)
        return taken


# ---- PySyncObj


class PySyncObjGroup(Processes):
    """Three processes whose clients are in them."""

    def found(self) -> None:
        addresses = [f"127.0.0.1:{port}" for port in free_ports(SERVERS)]
        for address in addresses:
            others = [other for other in addresses if other != address]
            self.start([str(_PYSYNCOBJ), str(HERE / "pysyncobj_node.py"), address, *others])
        for server in self.servers:
            _await_ready(server)

    def leader(self) -> int:
        for at, server in enumerate(self.servers):
            server.say("leader")
            if server.hear() == "true":
                return at
        return -1

    def load(self, verb: str, clients: int, seconds: float, face: str) -> Load:
        at = self.leader()
        self.servers[at].say(f"{verb} {clients} {seconds}")
        return read_load(self.servers[at].hear())

    def fail_over(self) -> float:
        leader = self.leader()
        other = self.servers[(leader + 1) % SERVERS]
        began = time.monotonic()
        self.servers[leader].kill()
        other.say("first")
        other.hear()
        taken = time.monotonic() - began
        self.servers[leader].start()
        _await_ready(self.servers[leader])
        return taken


_PYSYNCOBJ = PEERS / "pysyncobj" / "bin" / "python"


# ---- what is installed


def etcd_version() -> str:
    if which("etcd") is None or build_etcd_client() is None:
        return ""
    said = subprocess.run(["etcd", "--version"], capture_output=True, text=True, check=True).stdout
    return said.splitlines()[0].removeprefix("etcd Version: ")


def pysyncobj_version() -> str:
    if not _PYSYNCOBJ.exists():
        return ""
    script = "from importlib.metadata import version; print(version('pysyncobj'))"
    return subprocess.run([_PYSYNCOBJ, "-c", script], capture_output=True, text=True, check=True).stdout.strip()
