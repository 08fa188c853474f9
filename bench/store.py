"""The replicated store beside etcd and PySyncObj, three servers of each on loopback.

Values of 256 bytes, every write durable on a majority (PySyncObj fsyncs nothing: that is its default).  Clients ask again as
soon as they are answered, and take the servers in turn, as etcd's own client does; ours are on the agents' unix sockets, and
on HTTP.  The stores run side by side and their rounds take turns; the median round counts.  A failover lasts from the
SIGKILL of the leader to the first write that a client of the others had acknowledged.  The last table is of a fleet over a
shaped WAN, with the links of the built-in regions.
"""

import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from msgspec import Struct

from bench.report import Bound, Figure, Table
from bench.stores import (
    SERVERS,
    Asker,
    DislocateGroup,
    EtcdGroup,
    Group,
    Load,
    PySyncObjGroup,
    ask,
    etcd_version,
    pysyncobj_version,
)
from dislocate.core.units import SECOND, seconds
from dislocate.fleet.fleet import Fleet
from sim.scenario import Datacenter, Scenario, checked, rtt_between

MANY = 64
THROUGHPUT = 1.0  # times etcd's
LATENCY = 1.3  # times etcd's
FAILOVER = 0.6  # seconds
MEMORY = 80  # MiB
WAN = ("fra", "lon", "wdc", "tok", "syd")  # a server each
SETTLE = 3.0  # seconds between two failovers over the WAN


class Plan(Struct, frozen=True):
    """How much is tried."""

    rounds: int
    duration: float  # seconds of load a round
    failovers: int
    wan_failovers: int


FULL = Plan(rounds=5, duration=4.0, failovers=9, wan_failovers=5)
QUICK = Plan(rounds=1, duration=2.0, failovers=2, wan_failovers=1)

# What is loaded: verb, clients, face.
Kind = tuple[str, int, str]
PUT_ONE, PUT_MANY = ("put", 1, "unix"), ("put", MANY, "unix")
PUT_ONE_HTTP, PUT_MANY_HTTP = ("put", 1, "tcp"), ("put", MANY, "tcp")
GET_ONE, GET_MANY = ("get", 1, "unix"), ("get", MANY, "unix")
KINDS = (PUT_ONE, PUT_MANY, PUT_ONE_HTTP, PUT_MANY_HTTP, GET_ONE, GET_MANY)
PUTS = (PUT_ONE, PUT_MANY)


class Findings(Struct, frozen=True):
    """Of one store."""

    loads: dict[Kind, list[Load]]
    failovers: list[float]  # seconds
    memory: float  # MiB

    def of(self, kind: Kind, what: Callable[[Load], float]) -> float | None:
        return median(what(load) for load in self.loads[kind]) if kind in self.loads else None

    def failed(self) -> int:
        return sum(load.errors for loads in self.loads.values() for load in loads)


def examine(groups: dict[str, Group], plan: Plan) -> dict[str, Findings]:
    """All of them, in turns."""
    loads: dict[str, dict[Kind, list[Load]]] = {name: {} for name in groups}
    for _ in range(plan.rounds):
        for kind in KINDS:
            for name, group in groups.items():
                if kind in PUTS or (name != "pysyncobj" and (name == "dislocate" or kind[2] == "unix")):
                    loads[name].setdefault(kind, []).append(group.load(kind[0], kind[1], plan.duration, kind[2]))
    memory = {name: group.memory() for name, group in groups.items()}
    failovers: dict[str, list[float]] = {name: [] for name in groups}
    for _ in range(plan.failovers):
        for name, group in groups.items():
            failovers[name].append(group.fail_over())
    return {name: Findings(loads[name], failovers[name], memory[name]) for name in groups}


def measure(quick: bool = False) -> Iterable[Table]:
    """A table beside each peer, and one of the WAN."""
    plan = QUICK if quick else FULL
    versions = {"etcd": etcd_version(), "pysyncobj": pysyncobj_version()}
    kinds: dict[str, type[Group]] = {"dislocate": DislocateGroup, "etcd": EtcdGroup, "pysyncobj": PySyncObjGroup}
    with ExitStack() as opened:
        groups = {
            name: opened.enter_context(kind()) for name, kind in kinds.items() if name == "dislocate" or versions[name]
        }
        found = examine(groups, plan)
    yield beside_etcd(found["dislocate"], found.get("etcd"), f"etcd {versions['etcd']}".strip())
    yield beside_pysyncobj(found["dislocate"], found.get("pysyncobj"), f"PySyncObj {versions['pysyncobj']}".strip())
    yield over_the_wan(plan.wan_failovers)


def beside_etcd(ours: Findings, peer: Findings | None, name: str) -> Table:
    def figure(
        what: str,
        unit: str,
        kind: Kind,
        of: Callable[[Load], float],
        bound: Bound | None = None,
        like: Kind | None = None,
    ) -> Figure:
        return Figure(what, unit, ours.of(kind, of), peer.of(like or kind, of) if peer else None, bound)

    best = Bound(LATENCY, of_peer=True)
    figures = (
        figure("put, one client, p50", "ms", PUT_ONE, p50, best),
        figure("  p99", "ms", PUT_ONE, p99),
        figure("  over HTTP, p50", "ms", PUT_ONE_HTTP, p50, like=PUT_ONE),
        figure(f"put, {MANY} clients", "/s", PUT_MANY, rate, Bound(THROUGHPUT, at_least=True, of_peer=True)),
        figure("  p50", "ms", PUT_MANY, p50),
        figure("  p99", "ms", PUT_MANY, p99),
        figure("  over HTTP", "/s", PUT_MANY_HTTP, rate, like=PUT_MANY),
        figure("linearizable get, one client, p50", "ms", GET_ONE, p50),
        figure(f"linearizable get, {MANY} clients", "/s", GET_MANY, rate),
        *failovers(ours, peer),
        Figure("memory of a server after that, PSS", "MiB", ours.memory, peer.memory if peer else None, Bound(MEMORY)),
        Figure("requests that failed", "", ours.failed(), peer.failed() if peer else None, Bound(0)),
    )
    return Table(f"store: {SERVERS} servers on loopback, 256 B values, durable writes", name, figures)


def beside_pysyncobj(ours: Findings, peer: Findings | None, name: str) -> Table:
    def figure(what: str, unit: str, kind: Kind, of: Callable[[Load], float]) -> Figure:
        return Figure(what, unit, ours.of(kind, of), peer.of(kind, of) if peer else None)

    figures = (
        figure("put, one client, p50", "ms", PUT_ONE, p50),
        figure(f"put, {MANY} clients", "/s", PUT_MANY, rate),
        *failovers(ours, peer),
    )
    return Table("store: the same", name, figures, "its clients are in its servers' processes, and it fsyncs nothing")


def failovers(ours: Findings, peer: Findings | None) -> tuple[Figure, ...]:
    def figure(what: str, of: Callable[[list[float]], float], bound: Bound | None = None) -> Figure:
        return Figure(what, "s", of(ours.failovers), of(peer.failovers) if peer else None, bound)

    return (
        figure(f"leader killed, to the first write, median of {len(ours.failovers)}", median, Bound(FAILOVER)),
        figure("  the longest", max),
    )


def rate(load: Load) -> float:
    return load.rate


def p50(load: Load) -> float:
    return load.p50 * 1_000


def p99(load: Load) -> float:
    return load.p99 * 1_000


# ---- the WAN


def over_the_wan(rounds: int) -> Table:
    """Failovers of five servers in five regions, seen by a client in the data center of another one."""
    servers = tuple(f"{region}/a1" for region in WAN)
    scenario = checked(
        Scenario(
            title="servers in five regions",
            why="Failover over a WAN.",
            duration=3_600 * SECOND,
            datacenters={region: Datacenter(nodes=1) for region in WAN},
            servers=servers,
        )
    )
    largest = seconds(max(rtt_between(scenario, one, other) for one in WAN for other in WAN))
    taken: list[float] = []
    with tempfile.TemporaryDirectory(prefix="dislocate-bench-") as directory, Fleet(scenario, Path(directory)) as fleet:
        fleet.start()
        for _ in range(rounds):
            leader = await_leader(fleet, servers)
            others = [str(fleet.home(path) / "state" / "agent.sock") for path in servers if path != leader]
            with Asker(Path(directory) / "asker", others, patience=1.0) as asker:
                asker.first()
                began = time.monotonic()
                fleet.kill(leader)
                taken.append(asker.first() - began)
            fleet.restart(leader)
            time.sleep(SETTLE)
    bound = Bound(3 * largest + 1)
    figures = (
        Figure(f"leader killed, to the first write, median of {rounds}", "s", median(taken), bound=bound),
        Figure("  the longest", "s", max(taken), bound=bound),
    )
    title = f"store: {len(WAN)} servers in {', '.join(WAN)}, largest RTT {largest * 1_000:.0f} ms"
    return Table(title, "", figures, "the bound is 3 x the largest RTT + 1 s")


def await_leader(fleet: Fleet, servers: tuple[str, ...]) -> str:
    """The path of the server that most say leads."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        said = [str(ask(f"{fleet.plans[path].http}/api/store").get("leader") or "") for path in servers]
        leader = max(said, key=said.count)
        if leader and said.count(leader) > len(servers) // 2:
            return leader
        time.sleep(0.2)
    return ""
