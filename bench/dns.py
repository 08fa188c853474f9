"""DNS answers a second beside dnsmasq, on one core each, in one run.

100 names; half of the questions are A with three records, half SRV with three records and three additional.  Ours is a whole
agent as `dislocate agent` starts it, with the names as registered services; the peer has them in its files.  Each server is
pinned to one core, dnsperf, with the same options for both, to another.  The peers take turns in many short rounds, first
the one, then the other, and the median of `ROUNDS` counts for each: who else uses the machine for a while slows a few rounds
of both, where of few long rounds the best of one may have met a quiet moment that the other did not.  Prints 'not measured'
where dnsmasq or dnsperf is absent, or there is but one core.
"""

import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import which
from statistics import median
from time import clock_gettime, monotonic
from typing import NamedTuple

from dnslib import QTYPE, DNSRecord

from bench.report import Bound, Figure, Table
from dislocate.io.keyring import generate_secret

NAMES = 100
INSTANCES = 3
ROUNDS = 15
DURATION = 1  # seconds a round
TARGET = 1.5  # times dnsmasq

SERVICES = [f"bench{at:02}.service.dislocate" for at in range(NAMES)]


def host(service: int, instance: int) -> str:
    return f"10.1.{service}.{instance + 1}"


class Server(NamedTuple):
    """One of the two under load; `taskset` becomes the server, so the pid is the server's."""

    host: str
    port: int
    pid: int


@contextmanager
def ours(core: int, directory: Path) -> Iterator[Server]:
    """An agent as anybody would start it, alone in its fleet, with all that an agent does beside answering."""
    at = f"127.{os.getpid() >> 8 & 127 | 128}.{os.getpid() & 255}.1"  # a host of this run alone: the ports are the defaults
    services = "".join(
        f'[[service]]\nname = "bench{service:02}"\nid = "bench{service:02}-{instance}"\n'
        f'address = "{host(service, instance)}"\nport = 8000\n'
        for service in range(NAMES)
        for instance in range(INSTANCES)
    )
    (directory / "secret").write_text(generate_secret())
    (directory / "secret").chmod(0o600)
    (directory / "agent.toml").write_text(
        f'[node]\nname = "a1"\ndatacenter = "fra"\nbind = "{at}"\nstate_dir = "state"\n'
        f'[security]\nsecret_file = "secret"\n{services}'
    )
    agent = [sys.executable, "-m", "dislocate", "agent", "--config", f"{directory}/agent.toml"]
    with (
        (directory / "agent.log").open("w") as log,
        subprocess.Popen(["taskset", "-c", str(core), *agent], stdout=subprocess.PIPE, stderr=log, text=True) as server,
    ):
        try:
            found = re.search(r" dns=\S+:(\d+)", server.stdout.readline())
            if found is None:
                raise RuntimeError(f"the agent did not start:\n{(directory / 'agent.log').read_text()}")
            yield Server(at, int(found[1]), server.pid)
        finally:
            server.terminate()
            server.wait(10)


@contextmanager
def dnsmasq(core: int, directory: Path) -> Iterator[Server]:
    """The peer, with the same names and records."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    hosts, lines = [], []
    for service, name in enumerate(SERVICES):
        for instance in range(INSTANCES):
            address = host(service, instance)
            target = f"{socket.inet_aton(address).hex()}.addr.dislocate"
            hosts += [f"{address} {name}", f"{address} {target}"]
            lines.append(f"srv-host={name},{target},8000,10,1")
    (directory / "hosts").write_text("\n".join(hosts))
    (directory / "dnsmasq.conf").write_text(
        "\n".join([*lines, "local-ttl=5", "cache-size=10000", "no-hosts", "no-resolv"])
    )
    command = ["taskset", "-c", str(core), "dnsmasq", "--keep-in-foreground", f"--port={port}", "--bind-interfaces"]
    command += [
        "--listen-address=127.0.0.1",
        f"--conf-file={directory}/dnsmasq.conf",
        f"--addn-hosts={directory}/hosts",
    ]
    command += ["--pid-file=", f"--user={os.environ.get('USER', 'root')}"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:
        try:
            yield Server("127.0.0.1", port, server.pid)
        finally:
            server.kill()


def check(server: Server) -> None:
    """Both must answer the same, or the comparison is none.  Raises AssertionError when it does not within seconds."""
    for kind, additional in (("A", 0), ("SRV", INSTANCES)):
        question, seen = DNSRecord.question(SERVICES[-1], kind), None
        deadline = monotonic() + 10
        while seen != (INSTANCES, additional):  # until it is up, and knows its services
            assert monotonic() < deadline, f"{server} said {seen} to {kind}"
            try:
                reply = DNSRecord.parse(question.send(server.host, server.port, timeout=0.2))
            except OSError:
                continue
            seen = len(reply.rr), len([rr for rr in reply.ar if rr.rtype != QTYPE.OPT])


class Load(NamedTuple):
    """What one round showed."""

    rate: float  # answers a second
    cost: float  # microseconds of the server's CPU an answer: what remains comparable when others use the machine


def load(server: Server, core: int, questions: Path) -> Load:
    """Ask `server` as fast as it answers."""
    before = cpu_seconds(server.pid)
    command = ["taskset", "-c", str(core), "dnsperf", "-s", server.host, "-p", str(server.port), "-d", str(questions)]
    report = subprocess.run(
        [*command, "-l", str(DURATION), "-c", "4"], capture_output=True, text=True, check=True
    ).stdout
    completed = re.search(r"Queries completed:\s+(\d+) \(([\d.]+)%\)", report)
    rate = re.search(r"Queries per second:\s+([\d.]+)", report)
    if completed is None or rate is None or float(completed[2]) < 99:
        raise RuntimeError(f"dnsperf lost too many questions to say anything:\n{report}")
    return Load(float(rate[1]), 1e6 * (cpu_seconds(server.pid) - before) / int(completed[1]))


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and its threads so far, to the nanosecond, by the clock that
    clock_getcpuclockid(3) names; /proc/PID/stat tells it in steps of 10 ms, too coarse for a short round."""
    return clock_gettime(~pid << 3 | 2)


def measure(quick: bool) -> Iterator[Table]:
    """One table; `quick` takes one round."""
    missing = [tool for tool in ("dnsmasq", "dnsperf", "taskset") if which(tool) is None]
    cores = sorted(os.sched_getaffinity(0))
    if missing or len(cores) < 2:
        why = f"{', '.join(missing)} absent" if missing else "one core only"
        yield Table("dns", "", (), f"not measured: {why}")
        return
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        questions = directory / "questions"
        questions.write_text("".join(f"{name} A\n{name} SRV\n" for name in SERVICES))
        with ours(cores[0], directory) as mine, dnsmasq(cores[0], directory) as peer:
            check(mine)
            check(peer)
            peers = (mine, peer)
            rounds: dict[Server, list[Load]] = {server: [] for server in peers}
            for at in range(1 if quick else ROUNDS):
                for server in peers if at % 2 == 0 else reversed(peers):
                    rounds[server].append(load(server, cores[1], questions))
    rates = [median(load.rate for load in loads) for loads in rounds.values()]
    costs = [median(load.cost for load in loads) for loads in rounds.values()]
    yield Table(
        "dns, 100 names, A and SRV",
        "dnsmasq",
        (
            Figure("answers", "a second", *rates, Bound(TARGET, at_least=True, of_peer=True)),
            Figure("CPU of the server", "microseconds an answer", *costs),
        ),
        "one core each, dnsperf on another; the median of rounds in turn",
    )
