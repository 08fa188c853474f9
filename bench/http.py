"""HTTP a second: a `serve()`d hello beside the same function under gunicorn's gevent worker, and picks of an agent, in one
run.

Each server is one process pinned to one core, wrk, with the same options for all, to another; the peers take turns in short
rounds, and the median counts for each.  One kept connection tells of stalls, 32 of throughput.  gevent.pywsgi as shipped is
there to show what TCP_NODELAY and a head that goes out with its body are worth.  What is absent is 'not measured'; gunicorn
has a place of its own: `python -m venv .bench/gunicorn && .bench/gunicorn/bin/pip install gunicorn gevent packaging`.
"""

import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from shutil import which
from statistics import median
from typing import NamedTuple

from bench.report import Bound, Figure, Table
from dislocate.client.connection import AgentConnection
from dislocate.io.keyring import generate_secret

ROOT = Path(__file__).parents[1]
GUNICORN = ROOT / ".bench" / "gunicorn" / "bin" / "gunicorn"
ROUNDS = 5
DURATION = 2  # seconds a round
CONNECTIONS = 32
UP_WITHIN = 30.0  # seconds

_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


class Load(NamedTuple):
    """What one round showed."""

    rate: float  # requests a second
    p50: float  # milliseconds
    p99: float


@contextmanager
def process(command: list[str], core: int, **environment: str) -> Iterator[None]:
    """`command` on one core, ended at the end."""
    with subprocess.Popen(
        ["taskset", "-c", str(core), *command],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as server:
        try:
            yield
        finally:
            server.terminate()
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def await_answer(url: str, expected: bytes) -> None:
    """Raises RuntimeError unless `url` answers 200 with `expected` in it."""
    ends = time.monotonic() + UP_WITHIN
    seen: object = None
    while time.monotonic() < ends:
        try:
            seen = urllib.request.urlopen(url, timeout=2).read()
            if expected in seen:
                return
        except OSError as error:
            seen = error
        time.sleep(0.1)
    raise RuntimeError(f"{url}: {seen!r}")


def wrk(url: str, core: int, connections: int) -> Load:
    """Ask `url` as fast as it answers.  Raises RuntimeError when it answers badly."""
    command = ["taskset", "-c", str(core), "wrk", "-t1", f"-c{connections}", f"-d{DURATION}s", "--latency", url]
    report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rate = re.search(r"Requests/sec:\s+([\d.]+)", report)
    tail = {name: (value, unit) for name, value, unit in re.findall(r"(50|99)%\s+([\d.]+)(us|ms|s)", report)}
    if rate is None or len(tail) < 2 or "Non-2xx" in report:
        raise RuntimeError(report)
    p50, p99 = (float(tail[name][0]) * _UNITS[tail[name][1]] for name in ("50", "99"))
    return Load(float(rate[1]), p50, p99)


def in_turn(urls: dict[str, str], core: int, connections: int, rounds: int) -> dict[str, Load]:
    """The medians of each, taken in turns."""
    loads: dict[str, list[Load]] = {name: [] for name in urls}
    for at in range(rounds):
        for name in urls if at % 2 == 0 else reversed(urls):
            loads[name].append(wrk(urls[name], core, connections))
    return {name: Load(*(median(values) for values in zip(*each, strict=True))) for name, each in loads.items()}


@contextmanager
def agent(core: int, directory: Path) -> Iterator[str]:
    """An agent as anybody would start it, alone in its fleet; the URL of its API."""
    host = f"127.{os.getpid() >> 8 & 127 | 128}.{os.getpid() & 255}.2"  # a host of this run alone: the ports are the defaults
    (directory / "secret").write_text(generate_secret())
    (directory / "secret").chmod(0o600)
    (directory / "agent.toml").write_text(
        f'[node]\nname = "a1"\ndatacenter = "fra"\nbind = "{host}"\nstate_dir = "{directory}/state"\n'
        f'[security]\nsecret_file = "{directory}/secret"\n'
    )
    with process([sys.executable, "-m", "dislocate", "agent", "--config", f"{directory}/agent.toml"], core):
        await_answer(f"http://{host}:49700/api/health", b'"status"')
        yield f"http://{host}:49700"


def hello_servers(core: int, agent_url: str, opened: ExitStack) -> dict[str, str]:
    """By name the URLs of all that can be had here."""
    commands = {"serve": [sys.executable, "-m", "bench.hello", "serve", "127.0.0.1", "PORT"]}
    commands["pywsgi"] = [sys.executable, "-m", "bench.hello", "pywsgi", "127.0.0.1", "PORT"]
    if GUNICORN.exists():
        commands["gunicorn"] = [str(GUNICORN), "-k", "gevent", "-w", "1", "-b", "127.0.0.1:PORT", "bench.hello:app"]
    urls = {}
    for name, command in commands.items():
        port = str(free_port())
        placed = [part.replace("PORT", port) for part in command]
        opened.enter_context(process(placed, core, DISLOCATE_AGENT=agent_url, PYTHONPATH=str(ROOT)))
        urls[name] = f"http://127.0.0.1:{port}/"
        await_answer(urls[name], b'"order"')
    return urls


def pick_url(agent_url: str) -> str:
    """Where an agent with 20 instances says which; '' when it has no such route."""
    api = AgentConnection(agent_url)
    for number in range(20):
        fields = {"service": "bench.pool", "port": 8000 + number, "address": f"10.0.0.{number}"}
        api.send("PUT", f"/api/instances/pool-{number}", fields)
    path = "/api/services/bench.pool/pick"
    if "/api/services/{name}/pick" not in api.get("/api/openapi.json")["paths"]:
        return ""
    await_answer(f"{agent_url}{path}", b'"why"')
    return f"{agent_url}{path}"


def measure(quick: bool) -> Iterator[Table]:
    """Three tables; `quick` takes one round."""
    missing = [tool for tool in ("wrk", "taskset") if which(tool) is None]
    cores = sorted(os.sched_getaffinity(0))
    if missing or len(cores) < 2:
        yield Table(
            "http", "", (), f"not measured: {', '.join(missing)} absent" if missing else "not measured: one core"
        )
        return
    rounds = 1 if quick else ROUNDS
    with tempfile.TemporaryDirectory() as name, ExitStack() as opened:
        agent_url = opened.enter_context(agent(cores[0], Path(name)))
        urls = hello_servers(cores[0], agent_url, opened)
        many = in_turn(urls, cores[1], CONNECTIONS, rounds)
        one = in_turn({name: urls[name] for name in ("serve", "pywsgi")}, cores[1], 1, rounds)
        yield throughput(many)
        yield stalls(one)
        picks = pick_url(agent_url)
        yield picking(in_turn({"pick": picks}, cores[1], CONNECTIONS, rounds)["pick"] if picks else None)


def throughput(loads: dict[str, Load]) -> Table:
    ours, peer = loads["serve"], loads.get("gunicorn")
    note = "" if peer else "gunicorn: not measured, it is absent; "
    return Table(
        f"http, a served hello, {CONNECTIONS} kept connections",
        "gunicorn -k gevent",
        (
            Figure("requests", "a second", ours.rate, peer and peer.rate, Bound(1.0, at_least=True, of_peer=True)),
            Figure("median", "ms", ours.p50, peer and peer.p50),
            Figure("p99", "ms", ours.p99, peer and peer.p99),
        ),
        f"{note}one process, one core, wrk on another; the median of rounds in turn",
    )


def stalls(loads: dict[str, Load]) -> Table:
    ours, peer = loads["serve"], loads["pywsgi"]
    return Table(
        "http, one kept connection",
        "gevent.pywsgi",
        (
            Figure("requests", "a second", ours.rate, peer.rate),
            Figure("median", "ms", ours.p50, peer.p50, Bound(10.0)),
        ),
        "as its documentation shows it: head and body apart, Nagle on; a delayed acknowledgement takes 40 ms",
    )


def picking(load: Load | None) -> Table:
    if load is None:
        return Table("http, picks of an agent", "", (), "not measured: this agent has no /api/services/NAME/pick")
    return Table(
        "http, picks of an agent, of 20 instances",
        "",
        (
            Figure("requests", "a second", load.rate),
            Figure("median", "ms", load.p50),
            Figure("p99", "ms", load.p99),
        ),
        f"{CONNECTIONS} kept connections; the agent on one core with all else that it does",
    )
