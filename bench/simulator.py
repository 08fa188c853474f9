"""How fast the simulator is: messages and node-seconds a second, at 10, 100 and 1,000 nodes.
And the store in it: how long 10,000 operations of clients on five voters take, while leaders are killed and cut off.

Each size runs in a process of its own, on one core: the fleet is built and joins, is quiet, loses an agent to SIGKILL, loses
and finds a data center, and is split inside a data center and made whole.  Time is CPU time of that process, and of the
quiet time the best of `ROUNDS` counts: neighbours on the machine only ever slow.  Peak memory is what the kernel says at its
end.  A node-second is one agent living through one second of virtual time.
"""

import json
import resource
import subprocess
import sys
from collections.abc import Callable, Iterable
from itertools import cycle
from time import process_time

from bench.report import Bound, Figure, Table
from dislocate.core.boundary.events import Event, MemberDied
from dislocate.core.units import SECOND, seconds
from sim.faults import do
from sim.history import Outcome
from sim.process import Process
from sim.scenario import Datacenter, Fault, Scenario, Service
from sim.workload.plan import Workload
from sim.workload.scripts import place_clients
from sim.world import World

REGIONS = ("fra", "wdc", "lon", "tok", "syd")
FLEETS = {10: (2, 5), 100: (4, 25), 1_000: (5, 200)}  # nodes: data centers, agents in each
STEADY = {10: 120, 100: 30, 1_000: 10}  # virtual seconds a round
ROUNDS = 4
SETTLED = 12 * SECOND  # virtual: the store is founded and led
FAULT_PERIOD = 3 * SECOND  # virtual
DISTURBED = 20  # virtual seconds that a cut lasts, and that its mending is watched
SPEED = {100: 100, 1_000: 5}  # times real time, to reach
MEMORY = 2_048  # MiB
SPREAD = 3  # a node-second of the largest fleet costs at most so many times that of the smallest
OPERATIONS = 10_000  # of clients of the store
OPERATIONS_WITHIN = 10  # seconds of CPU, to reach
JOIN_LIMIT = 180  # virtual seconds
DETECTION = 1.5  # virtual seconds from SIGKILL until all know


def scenario(nodes: int) -> Scenario:
    """Data centers in regions of the built-in table; an instance of one service on every second agent."""
    count, size = FLEETS[nodes]
    return Scenario(
        title=f"{nodes} agents",
        why="Speed.",
        duration=3_600 * SECOND,
        datacenters={name: Datacenter(nodes=size) for name in REGIONS[:count]},
        services=(Service(name="shop.web", per_datacenter=size // 2),),
    )


class Trial:
    """One fleet, and what each part of its life cost."""

    def __init__(self, nodes: int) -> None:
        self.nodes = nodes
        began = process_time()
        self.world = World(scenario(nodes), seed=1)
        self.found: dict[str, dict[str, float]] = {}
        self.built = process_time() - began
        self.deaths: dict[str, list[int]] = {}  # path: when each observer declared it dead
        self.world.observers.append(self._observe)

    def _observe(self, _process: Process, event: Event) -> None:
        if isinstance(event, MemberDied):
            self.deaths.setdefault(event.member.path, []).append(self.world.now)

    def spend(self, name: str, virtual: int, *, until: Callable[[], bool] | None = None) -> None:
        """Let `virtual` seconds pass, or fewer when `until` holds before, and add what they cost to `name`."""
        world, began_at, sent = self.world, self.world.now, self._sent()
        cpu = 0.0
        while world.now < began_at + virtual * SECOND:
            began = process_time()
            world.run(world.now + SECOND)
            cpu += process_time() - began
            if until is not None and until():
                break
        part = self.found.setdefault(name, {"virtual": 0.0, "cpu": 0.0, "messages": 0.0})
        part["virtual"] += seconds(world.now - began_at)
        part["cpu"] += cpu
        part["messages"] += self._sent() - sent

    def disturb(self, name: str, *cuts: tuple[tuple[str, ...], str]) -> None:
        """Cut, wait, heal, wait."""
        for verb in ("cut", "heal"):
            for origin, dest in cuts:
                do(self.world, Fault(time=self.world.now, do=verb, origin=origin, dest=dest))
            self.spend(name, DISTURBED)

    def is_settled(self) -> bool:
        """Everybody knows everybody and everything, and nobody has anything left to tell."""
        nodes = [machine.process.node for machine in self.world.machines.values() if machine.process is not None]
        return (
            len(nodes) == self.nodes
            and len({node.digest for node in nodes}) == 1
            and not any(node.queued_rumors for node in nodes)
            and all(view.members == FLEETS[self.nodes][1] for view in nodes[0].datacenters.values())
        )

    def _sent(self) -> int:
        return _sent(self.world)


def live(nodes: int, quick: bool) -> dict[str, object]:
    """One fleet's life, in this process."""
    trial = Trial(nodes)
    trial.spend("join", JOIN_LIMIT, until=trial.is_settled)
    settled = trial.is_settled()
    trial.spend("rest", 10)
    for at in range(ROUNDS):
        trial.spend(f"steady {at}", 5 if quick else STEADY[nodes])
    rounds = [trial.found.pop(f"steady {at}") for at in range(ROUNDS)]
    trial.found["steady"] = min(rounds, key=lambda part: part["cpu"] / part["virtual"])
    everywhere = trial.world.layout.nodes
    home, size = next(iter(everywhere)), FLEETS[nodes][1]
    victim, killed_at = everywhere[home][-1], trial.world.now
    do(trial.world, Fault(time=killed_at, do="kill", target=victim))
    trial.spend("killed", 5)
    known = trial.deaths.pop(victim, [])
    trial.disturb("data center cut off", ((home,), "*"))
    wrongly_dead = len(trial.deaths)
    trial.disturb("data center split", (tuple(everywhere[home][: size // 2]), home))
    return {
        "built": trial.built,
        "settled": settled,
        "parts": trial.found,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "wrongly_dead": wrongly_dead,
        "detection": seconds(max(known) - killed_at) if len(known) == nodes - 1 else None,
    }


def measure(quick: bool = False) -> Iterable[Table]:
    """A table for each size, then what they say together."""
    costs: dict[int, float] = {}
    for nodes in list(FLEETS)[: 2 if quick else 3]:
        command = [sys.executable, "-m", "bench.simulator", str(nodes), "quick" if quick else "full"]
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        steady = found["parts"]["steady"]
        costs[nodes] = steady["cpu"] / steady["virtual"] / nodes
        yield _table(nodes, found)
    small, large = min(costs), max(costs)
    ratio = Figure(
        f"a node-second at {large:,} costs", f"x that at {small}", costs[large] / costs[small], bound=Bound(SPREAD)
    )
    yield Table("simulator: cost by size", "", (ratio,))
    yield _store_table(operate(1_000 if quick else OPERATIONS))


def operate(operations: int) -> dict[str, float]:
    """Clients on five voters in three data centers, one fault after the other, until so many operations are answered."""
    world = World(_store_scenario(), seed=1)
    place_clients(world)
    world.run(SETTLED)
    history = world.truth.clients.history
    before = len(history.operations())  # asked while the group was founded: not what is measured
    began, began_at, sent = process_time(), world.now, _sent(world)
    faults = cycle(_store_faults(world))
    while len(history.operations()) - before < operations:
        for fault in next(faults):
            do(world, fault)
        world.run(world.now + FAULT_PERIOD)
    answered = [one for one in history.operations()[before:] if one.outcome is Outcome.OK]
    cpu = process_time() - began
    return {
        "operations": len(answered),
        "cpu": cpu,
        "virtual": seconds(world.now - began_at),
        "messages": (_sent(world) - sent) / cpu,
    }


def _store_scenario() -> Scenario:
    return Scenario(
        title="Five voters under faults",
        why="Speed.",
        duration=3_600 * SECOND,
        datacenters={name: Datacenter(nodes=2) for name in REGIONS[:3]},
        servers=("fra/a1", "fra/a2", "wdc/a1", "wdc/a2", "lon/a1"),
        workloads=(Workload(name="kv", clients=32, keys=100, rate=0),),
    )


def _store_faults(world: World) -> list[tuple[Fault, ...]]:
    """What happens each `FAULT_PERIOD`, round and round."""
    now = world.now

    def both(verb: str, **fields: str) -> Fault:
        return Fault(time=now, do=verb, **fields)

    return [
        (both("kill", target="fra/a1"),),
        (both("restart", target="fra/a1"),),
        (both("cut", origin="wdc", dest="*"),),
        (both("heal"),),
        (both("kill", target="lon/a1"), both("kill", target="wdc/a1")),
        (both("restart", target="lon/a1"), both("restart", target="wdc/a1")),
    ]


def _store_table(found: dict[str, float]) -> Table:
    bound = Bound(OPERATIONS_WITHIN) if found["operations"] >= OPERATIONS / 2 else None
    figures = (
        Figure("operations answered", "", found["operations"]),
        Figure("  which takes", "s", found["cpu"], bound=bound),
        Figure("", "virtual s", found["virtual"]),
        Figure("", "operations/s", found["operations"] / found["cpu"]),
        Figure("", "messages/s", found["messages"]),
    )
    return Table("simulator: five voters, kills and cuts", "", figures)


def _sent(world: World) -> int:
    return sum(machine.datagrams_sent + machine.messages_sent for machine in world.machines.values())


def _table(nodes: int, found: dict[str, dict[str, dict[str, float]]]) -> Table:
    parts = found["parts"]
    figures = [
        Figure("built", "s", found["built"]),
        Figure("joined and settled", "virtual s", parts["join"]["virtual"] if found["settled"] else None),
        Figure("  which takes", "s", parts["join"]["cpu"]),
    ]
    for name in ("steady", "data center cut off", "data center split"):
        part = parts[name]
        speed = part["virtual"] / part["cpu"]
        bound = Bound(SPEED[nodes], at_least=True) if name == "steady" and nodes in SPEED else None
        figures += [
            Figure(name, "x real time", speed, bound=bound),
            Figure("", "node-seconds/s", nodes * speed),
            Figure("", "messages/s", part["messages"] / part["cpu"]),
            Figure("", "messages a node and second", part["messages"] / part["virtual"] / nodes),
        ]
    figures += [
        Figure("SIGKILL to all", "virtual s", found["detection"], bound=Bound(DETECTION)),
        Figure("others declared dead, save in the split", "", found["wrongly_dead"], bound=Bound(0)),
        Figure("peak memory", "MiB", found["peak"], bound=Bound(MEMORY)),
    ]
    return Table(f"simulator: {nodes:,} nodes in {FLEETS[nodes][0]} data centers", "", tuple(figures))


if __name__ == "__main__":  # one size, in a process of its own: its peak of memory is a figure
    print(json.dumps(live(int(sys.argv[1]), sys.argv[2] == "quick")))
