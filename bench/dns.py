"""DNS answers a second beside dnsmasq, on one core each, in one run: `python -m bench.dns`.

100 names; half of the questions are A with three records, half SRV with three records and three additional.  The server is
pinned to one core, dnsperf to another; the peers take turns, and the best of `ROUNDS` counts for each, since a shared
machine only ever slows.  Prints 'not measured' where dnsmasq or dnsperf is absent, or there is but one core.
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
from random import Random
from shutil import which
from time import monotonic_ns
from typing import NamedTuple

from bench.report import Bound, Figure, Table, render
from tests.support.fake_dns_backend import FakeBackend

NAMES = 100
INSTANCES = 3
ROUNDS = 3
DURATION = 3  # seconds a round
TARGET = 1.5  # times dnsmasq

SERVICES = [f"bench{at:02}.service.dislocate" for at in range(NAMES)]


def host(service: int, instance: int) -> str:
    return f"10.1.{service}.{instance + 1}"


def serve() -> None:
    """Our side: prints its port, then answers until it is killed."""
    from gevent import sleep

    from dislocate.edge.dns import DnsServer

    backend = FakeBackend()
    for service in range(NAMES):
        for instance in range(INSTANCES):
            backend.runs(f"bench{service:02}", host(service, instance))
    backend.now = monotonic_ns  # the server must pay for its clock
    server = DnsServer(backend, "127.0.0.1", 0, Random(1))
    server.start()
    print(server.address[1], flush=True)
    while True:
        sleep(60)


class Server(NamedTuple):
    """One of the two under load; `taskset` becomes the server, so the pid is the server's."""

    port: int
    pid: int


@contextmanager
def ours(core: int) -> Iterator[Server]:
    command = ["taskset", "-c", str(core), sys.executable, "-m", "bench.dns", "--serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield Server(int(server.stdout.readline()), server.pid)
        finally:
            server.kill()


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
            yield Server(port, server.pid)
        finally:
            server.kill()


def check(port: int) -> None:
    """Both must answer the same, or the comparison is none.  Raises AssertionError."""
    from dnslib import QTYPE, DNSRecord

    for kind, additional in (("A", 0), ("SRV", INSTANCES)):
        reply = None
        for _ in range(50):  # until it is up
            try:
                reply = DNSRecord.parse(DNSRecord.question(SERVICES[7], kind).send("127.0.0.1", port, timeout=0.2))
                break
            except OSError:
                continue
        assert reply is not None, f"no answer from port {port}"
        extra = [rr for rr in reply.ar if rr.rtype != QTYPE.OPT]
        assert (len(reply.rr), len(extra)) == (INSTANCES, additional), reply


class Load(NamedTuple):
    """What one round showed."""

    rate: float  # answers a second
    cost: float  # microseconds of the server's CPU an answer: what remains comparable when others use the machine


def load(server: Server, core: int, questions: Path) -> Load:
    """Ask `server` as fast as it answers."""
    port, before = server.port, cpu_seconds(server.pid)
    command = ["taskset", "-c", str(core), "dnsperf", "-s", "127.0.0.1", "-p", str(port), "-d", str(questions)]
    report = subprocess.run(
        [*command, "-l", str(DURATION), "-c", "4"], capture_output=True, text=True, check=True
    ).stdout
    completed = re.search(r"Queries completed:\s+(\d+) \(([\d.]+)%\)", report)
    rate = re.search(r"Queries per second:\s+([\d.]+)", report)
    if completed is None or rate is None or float(completed[2]) < 99:
        raise RuntimeError(f"dnsperf lost too many questions to say anything:\n{report}")
    return Load(float(rate[1]), 1e6 * (cpu_seconds(server.pid) - before) / int(completed[1]))


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far, in steps of 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


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
        with ours(cores[0]) as mine, dnsmasq(cores[0], directory) as peer:
            check(mine.port)
            check(peer.port)
            rounds = [
                (load(mine, cores[1], questions), load(peer, cores[1], questions))
                for _ in range(1 if quick else ROUNDS)
            ]
    rates = (max(a.rate for a, _ in rounds), max(b.rate for _, b in rounds))
    costs = (min(a.cost for a, _ in rounds), min(b.cost for _, b in rounds))
    yield Table(
        "dns, 100 names, A and SRV",
        "dnsmasq",
        (
            Figure("answers", "a second", *rates, Bound(TARGET, at_least=True, of_peer=True)),
            Figure("CPU of the server", "microseconds an answer", *costs),
        ),
        "one core each, dnsperf on another; the best of the rounds",
    )


def main() -> int:
    tables = list(measure(quick="--quick" in sys.argv))
    for table in tables:
        print(render(table))
    return 0 if all(table.holds for table in tables) else 1


if __name__ == "__main__":
    if "--serve" in sys.argv:
        serve()
    else:
        sys.exit(main())
