"""Systems that bring one file to many hosts, under measurement: real agents of each on loopback, with shipped defaults.

Each is told to write the same new content on every host, and a round lasts from the moment at which an operator types the
command until it has said that all are done; then every file is read.  One that is not installed has no version.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from statistics import mean
from types import TracebackType
from typing import Protocol, Self

from bench.opened import Opened
from bench.peers import name_of
from bench.stores import MIB, PEERS, ask, free_ports
from dislocate.fleet.blueprint import claim_network
from dislocate.fleet.processes import FleetProcess, die_with_parent, stop_all
from dislocate.io.keyring import generate_secret

SERVERS = 3  # of the store
STARTED_WITHIN = 180.0  # seconds for a whole fleet, on few cores
A_ROUND = 300.0  # seconds after which a round counts as failed
DATACENTER = "lab"
AT_ONCE = 'canary = 0\nbatch = "100%"\nsoak = "0s"\nsettle = "0s"\n'
AS_SHIPPED = ""


class Changer(Protocol):
    """A running fleet.  Ends it when it is left."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def change(self, content: str) -> float:
        """Seconds from typing the command to its saying that every host has `content`.  Raises `RuntimeError`."""
        ...

    def memory(self) -> float:
        """MiB an agent, proportional, on average."""
        ...


def typed(command: list[str], directory: Path) -> float:
    """Seconds that a command takes as an operator types it; its output goes into `directory`."""
    began = time.monotonic()
    with (directory / "typed.log").open("ab") as log:
        status = subprocess.run(command, stdout=log, stderr=log, timeout=A_ROUND, check=False).returncode
    took = time.monotonic() - began
    if status:
        raise RuntimeError(f"{' '.join(command)} ended with {status}: {(directory / 'typed.log').read_text()[-2000:]}")
    return took


def check_files(files: list[Path], content: str) -> None:
    """Raises `RuntimeError` unless all of them hold it."""
    wrong = [str(file) for file in files if not file.exists() or file.read_text().strip() != content]
    if wrong:
        raise RuntimeError(
            f"{len(wrong)} of {len(files)} hosts do not have what the command said they have: {wrong[:3]}"
        )


# ---- ours


class DislocateFleet(Opened):
    """Agents of one data center, the first three of them servers of the store."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self._agents: list[FleetProcess] = []
        self._hosts: list[str] = []

    def change(self, content: str, strategy: str = AT_ONCE) -> float:
        """And until every agent that is asked answers so: its own view of the store, as every observer has one."""
        spec = self.directory / "bench.toml"
        spec.write_text(
            f'name = "bench"\ntargets = "*"\nconfirm = {self.size}\n[[resources]]\nkind = "file"\n'
            f'path = "{{{{ facts.state_dir }}}}/bench.txt"\ncontent = "{content}"\n[strategy]\n{strategy}'
        )
        took = typed(
            [
                sys.executable,
                "-m",
                "dislocate",
                "run",
                "start",
                str(spec),
                "--agent",
                f"unix:{self._state(0)}/http.sock",
            ],
            self.directory,
        )
        began = time.monotonic()
        run = ask(f"{self._url(0)}/api/runs?limit=1")["runs"][0]["id"]
        for at in range(self.size):
            while not self._says_done(at, run):
                time.sleep(0.01)
        took += time.monotonic() - began
        check_files([self._state(at) / "bench.txt" for at in range(self.size)], content)
        return took

    def memory(self) -> float:
        """Of those that keep no store."""
        return mean(agent.proportional_memory() for agent in self._agents[SERVERS:]) / MIB

    def server_memory(self) -> float:
        return mean(agent.proportional_memory() for agent in self._agents[:SERVERS]) / MIB

    def _says_done(self, at: int, run: str) -> bool:
        answer = ask(f"{self._url(at)}/api/runs/{run}?consistency=local")
        return answer.get("state") == "done" and answer.get("counts") == {"done": self.size}

    def _url(self, at: int) -> str:
        return f"http://{self._hosts[at]}:49700"

    def _state(self, at: int) -> Path:
        return self.directory / name_of(at)

    def found(self) -> None:
        network, claim = claim_network()
        self.opened.callback(claim.close)
        self._hosts = [f"{network}.1.{at + 1}" for at in range(self.size)]
        secret = self.directory / "secret"
        secret.touch(mode=0o600)
        secret.write_text(generate_secret() + "\n")
        servers = ", ".join(f'"{DATACENTER}/{name_of(at)}"' for at in range(SERVERS))
        for at, host in enumerate(self._hosts):
            config = self.directory / f"{name_of(at)}.toml"
            seeds = ", ".join(f'"{seed}:49701"' for seed in self._hosts[:SERVERS] if seed != host)
            config.write_text(
                f'[node]\nname = "{name_of(at)}"\ndatacenter = "{DATACENTER}"\nbind = "{host}"\nseeds = [{seeds}]\n'
                f'state_dir = "{self._state(at)}"\n[store]\nservers = [{servers}]\n[security]\nsecret_file = "{secret}"\n'
            )
            command = ["-m", "dislocate", "agent", "--config", str(config)]
            self._agents.append(FleetProcess(name_of(at), command, self.directory / f"{name_of(at)}.log"))
            self._agents[-1].start()
        for agent in self._agents:
            agent.wait_ready(STARTED_WITHIN)
        _await(lambda: all(self._knows_all(at) for at in range(self.size)), "an agent does not know all others")
        _await(self._takes_runs, "the store does not rise to the feature level that runs need")

    def _takes_runs(self) -> bool:
        """A store is founded at the lowest feature level, and rises when its leader has heard all servers."""
        try:
            self.change("first")
        except RuntimeError as error:
            if "feature level" not in str(error):
                raise
            return False
        return True

    def _knows_all(self, at: int) -> bool:
        store, members = ask(f"{self._url(at)}/api/store"), ask(f"{self._url(at)}/api/members").get("members", [])
        knows_leader = bool(store.get("leader")) or at >= SERVERS  # others may hear of one only with the first write
        return knows_leader and sum(one["state"] == "alive" for one in members) == self.size

    def end(self) -> None:
        stop_all(self._agents)


# ---- Salt


_SALT = PEERS / "salt" / "bin"


def salt_version() -> str:
    """'' where `python -m venv .bench/salt && .bench/salt/bin/pip install salt` was not done."""
    if not (_SALT / "salt").exists():
        return ""
    said = subprocess.run([_SALT / "salt", "--version"], capture_output=True, text=True, check=True).stdout
    return said.split()[1]


class SaltFleet(Opened):
    """One master and its minions, each with directories of its own; keys are accepted before anything is measured."""

    def __init__(self, size: int) -> None:
        super().__init__("salt-")  # short, as paths of sockets have to be
        self.size = size
        self._processes: list[subprocess.Popen[bytes]] = []

    def change(self, content: str) -> float:
        self._write_state(content)
        took = typed([*self._salt(), "--timeout=120", "*", "state.apply", "bench"], self.directory)
        check_files([self._file(at) for at in range(self.size)], content)
        return took

    def memory(self) -> float:
        return sum(_group_memory(minion.pid) for minion in self._processes[1:]) / self.size

    def master_memory(self) -> float:
        return _group_memory(self._processes[0].pid)

    def _salt(self) -> list[str]:
        return [str(_SALT / "salt"), "-c", str(self.directory / "master")]

    def _file(self, at: int) -> Path:
        return self.directory / name_of(at) / "bench.txt"

    def _write_state(self, content: str) -> None:
        path = f"{self.directory}/{{{{ grains['id'] }}}}/bench.txt"
        (self.directory / "states" / "bench.sls").write_text(f"{path}:\n  file.managed:\n    - contents: '{content}'\n")

    def found(self) -> None:
        publish, returns = free_ports(2)
        (self.directory / "states").mkdir()
        common = {"root_dir": "", "log_level": "error", "publish_port": publish, "user": "root"}
        self._start(
            "master",
            "salt-master",
            common
            | {
                "interface": "127.0.0.1",
                "ret_port": returns,
                "auto_accept": True,
                "file_roots": {"base": [str(self.directory / "states")]},
            },
        )
        for at in range(self.size):
            self._start(
                name_of(at),
                "salt-minion",
                common
                | {
                    "id": name_of(at),
                    "master": "127.0.0.1",
                    "master_port": returns,
                },
            )
        ping = [*self._salt(), "--timeout=10", "--out=json", "--static", "*", "test.ping"]

        def all_answer() -> bool:
            said = subprocess.run(ping, capture_output=True, text=True, check=False).stdout
            try:
                return sum(answer is True for answer in json.loads(said).values()) == self.size
            except ValueError:
                return False

        _await(all_answer, "a minion does not answer")

    def _start(self, name: str, program: str, config: dict[str, object]) -> None:
        home = self.directory / name
        home.mkdir()
        (home / program.removeprefix("salt-")).write_text(json.dumps(config | {"root_dir": str(home)}))  # which is YAML
        with (home / "log").open("ab") as log:
            self._processes.append(
                subprocess.Popen(
                    [str(_SALT / program), "-c", str(home)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    preexec_fn=die_with_parent,
                )
            )

    def end(self) -> None:
        """Each with what it started, by its own session."""
        for process in self._processes:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        for process in self._processes:
            process.wait()
        time.sleep(0.5)  # what they were writing


def _group_memory(leader: int) -> float:
    """MiB of a process and of all that it started, proportional."""
    kilobytes = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.getpgid(int(entry.name)) == leader:
                    rollup = (entry / "smaps_rollup").read_text().splitlines()
                    kilobytes += sum(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))
            except OSError:
                continue
    return kilobytes / 1024


def _await(holds, otherwise: str) -> None:
    deadline = time.monotonic() + STARTED_WITHIN
    while not holds():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{otherwise} within {STARTED_WITHIN:.0f} s")
        time.sleep(0.2)
