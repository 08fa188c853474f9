"""`dislocate proxy` beside haproxy (mode tcp, one thread) in front of one nginx, in one run.

wrk asks nginx through each in turn, in many short rounds, of which the median counts: for a page of 1 KiB over connections
that stay, for the same over a connection a request, and for files of 1 MiB.  Ours runs as anybody would start it, fed by an
agent in which nginx is a registered service.  The rates of one machine that wrk and nginx share say less than the CPU a
request: that is given too.  Prints 'not measured' where haproxy, nginx or wrk is absent.
"""

import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from shutil import which
from statistics import median
from time import clock_gettime, monotonic, sleep
from typing import NamedTuple

from bench.report import Bound, Figure, Table
from dislocate.io.keyring import generate_secret

ROUNDS = 9
DURATION = 1  # seconds a round
CONNECTIONS = 32

NGINX = """daemon off; master_process off; worker_processes 1; error_log {here}/nginx.log crit; pid {here}/nginx.pid;
events {{ worker_connections 4096; }}
http {{ access_log off; sendfile on; keepalive_requests 1000000000; client_body_temp_path {here}/t; proxy_temp_path {here}/t;
  fastcgi_temp_path {here}/t; uwsgi_temp_path {here}/t; scgi_temp_path {here}/t;
  server {{ listen 127.0.0.1:{port} backlog=4096; root {here}/www; }} }}
"""
HAPROXY = """global
  nbthread 1
  maxconn 8000
defaults
  mode tcp
  timeout connect 2s
  timeout client 60s
  timeout server 60s
listen bench
  bind 127.0.0.1:{port}
  server one 127.0.0.1:{behind}
"""


class Load(NamedTuple):
    """A kind of request."""

    title: str
    path: str
    connections: int
    headers: tuple[str, ...] = ()


LOADS = (
    Load("1 KiB, connections stay", "1k", CONNECTIONS),
    Load("1 KiB, a connection a request", "1k", CONNECTIONS, ("-H", "Connection: close")),
    Load("1 MiB, connections stay", "1m", 8),
)


class Front(NamedTuple):
    """What is under load: where it listens, and the processes whose CPU counts."""

    name: str
    port: int
    pids: tuple[int, ...]


class Round(NamedTuple):
    rate: float  # requests a second
    p99: float  # milliseconds
    cost: float  # microseconds of the proxy's CPU a request
    errors: int


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def await_port(port: int) -> None:
    ends = monotonic() + 10
    while monotonic() < ends:
        with closing(socket.socket()) as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        sleep(0.01)
    raise RuntimeError(f"nobody listens at port {port}")


@contextmanager
def running(command: list[str], log: Path, **more: object) -> Iterator[subprocess.Popen[str]]:
    with log.open("w") as written, subprocess.Popen(command, stderr=written, text=True, **more) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.wait(20)


def first_line(process: subprocess.Popen[str], log: Path) -> str:
    line = process.stdout.readline() if process.stdout else ""
    if not line.startswith("ready"):
        raise RuntimeError(f"{process.args} did not start: {line}{log.read_text()}")
    return line


@contextmanager
def nginx(directory: Path) -> Iterator[int]:
    port = free_port()
    (directory / "www").mkdir()
    (directory / "www" / "1k").write_bytes(b"x" * 1024)
    (directory / "www" / "1m").write_bytes(b"x" * (1 << 20))
    (directory / "nginx.conf").write_text(NGINX.format(here=directory, port=port))
    with running(["nginx", "-c", f"{directory}/nginx.conf"], directory / "nginx.out"):
        await_port(port)
        yield port


@contextmanager
def haproxy(directory: Path, behind: int) -> Iterator[Front]:
    port = free_port()
    (directory / "haproxy.cfg").write_text(HAPROXY.format(port=port, behind=behind))
    with running(["haproxy", "-q", "-db", "-f", f"{directory}/haproxy.cfg"], directory / "haproxy.out") as process:
        await_port(port)
        yield Front("haproxy", port, (process.pid,))


@contextmanager
def agent(directory: Path, behind: int) -> Iterator[str]:
    at = f"127.{os.getpid() >> 8 & 127 | 128}.{os.getpid() & 255}.1"  # a host of this run alone: the ports are the defaults
    (directory / "secret").touch(0o600)
    (directory / "secret").write_text(generate_secret())
    (directory / "agent.toml").write_text(
        f'[node]\nname = "a1"\ndatacenter = "fra"\nbind = "{at}"\nstate_dir = "state"\n[security]\nsecret_file = "secret"\n'
        f'[[service]]\nname = "bench.web"\nid = "web-1"\naddress = "127.0.0.1"\nport = {behind}\n'
    )
    command = [sys.executable, "-m", "dislocate", "agent", "--config", f"{directory}/agent.toml"]
    with running(command, directory / "agent.log", stdout=subprocess.PIPE) as process:
        first_line(process, directory / "agent.log")
        yield f"http://{at}:49700"


@contextmanager
def ours(directory: Path, where: str, workers: int) -> Iterator[Front]:
    command = [sys.executable, "-m", "dislocate", "proxy", "--listen", "127.0.0.1:0=bench.web", "--agent", where]
    log = directory / f"proxy-{workers}.log"
    with running([*command, "--workers", str(workers)], log, stdout=subprocess.PIPE) as process:
        found = re.search(r":(\d+)=", first_line(process, log))
        assert found is not None
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        yield Front(f"{workers} workers", int(found[1]), (process.pid, *map(int, children)))


def cpu_seconds(pid: int) -> float:
    """By the clock that clock_getcpuclockid(3) names."""
    return clock_gettime(~pid << 3 | 2)


def measured(front: Front, load: Load) -> Round:
    """One round."""
    before = sum(map(cpu_seconds, front.pids))
    url = f"http://127.0.0.1:{front.port}/{load.path}"
    command = ["wrk", "-t1", f"-c{load.connections}", f"-d{DURATION}s", "--latency", *load.headers, url]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    total, rate = re.search(r"(\d+) requests in", said), re.search(r"Requests/sec:\s+([\d.]+)", said)
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s)", said)
    if total is None or rate is None or p99 is None:
        raise RuntimeError(f"wrk said:\n{said}")
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", said)
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    return Round(
        rate=float(rate[1]),
        p99=float(p99[1]) * {"us": 0.001, "ms": 1, "s": 1000}[p99[2]],
        cost=1e6 * (sum(map(cpu_seconds, front.pids)) - before) / max(1, int(total[1])),
        errors=(sum(map(int, errors.groups())) if errors else 0) + (int(bad[1]) if bad else 0),
    )


def measure(quick: bool) -> Iterator[Table]:
    """A table a load; `quick` takes one round."""
    missing = [
        tool for tool in ("haproxy", "nginx", "wrk") if which(tool, path=f"{os.environ['PATH']}:/usr/sbin") is None
    ]
    if missing:
        yield Table("proxy", "", (), f"not measured: {', '.join(missing)} absent")
        return
    os.environ["PATH"] += ":/usr/sbin"
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        directory = Path(name)
        behind = stack.enter_context(nginx(directory))
        where = stack.enter_context(agent(directory, behind))
        fronts = [
            stack.enter_context(haproxy(directory, behind)),
            stack.enter_context(ours(directory, where, 1)),
            stack.enter_context(ours(directory, where, 2)),
        ]
        for load in LOADS:
            rounds: dict[Front, list[Round]] = {front: [] for front in fronts}
            for at in range(1 if quick else ROUNDS):
                for front in fronts if at % 2 == 0 else reversed(fronts):
                    rounds[front].append(measured(front, load))
            yield table(load, [rounds[front] for front in fronts], is_judged=load is LOADS[0])


def table(load: Load, rounds: list[list[Round]], is_judged: bool) -> Table:
    """The issue sets bounds for connections that stay; the other loads show where we are weaker or stronger."""
    peer, one, two = ({name: median(getattr(r, name) for r in each) for name in Round._fields} for each in rounds)
    least, twice, no_more = (
        (Bound(0.8, at_least=True, of_peer=True), Bound(1.2, at_least=True, of_peer=True), Bound(2.0, of_peer=True))
        if is_judged
        else (None, None, None)
    )
    return Table(
        f"proxy, {load.title}, {load.connections} connections",
        "haproxy",
        (
            Figure("requests, one worker", "a second", one["rate"], peer["rate"], least),
            Figure("requests, two workers", "a second", two["rate"], peer["rate"], twice),
            Figure("p99, one worker", "ms", one["p99"], peer["p99"], no_more),
            Figure("p99, two workers", "ms", two["p99"], peer["p99"], no_more),
            Figure("CPU, one worker", "microseconds a request", one["cost"], peer["cost"]),
            Figure("CPU, two workers", "microseconds a request", two["cost"], peer["cost"]),
            Figure("errors that wrk saw", "", sum(r.errors for each in rounds[1:] for r in each), None, Bound(0)),
        ),
        f"wrk and nginx on the same {os.cpu_count()} cores; the median of rounds in turn",
    )
