"""The mirror: a live fleet and a config run that somebody means to start, as a scenario.

What is kept is what such a run depends on: who is where and who is dead, how far data centers are apart, which agents keep the
store and who leads it, where instances are and whether they pass, and the specification's strategy, gates and windows.  What
resources hold is not: files and commands have stand-ins of the same shape, so that the scenario holds no secret and nobody
takes `run = ["sleep", "9"]` for a model of a real command.  How long a node's part takes is `task_times`.

Invariant: agents of a scenario are a1, a2 ... in each data center, and the names here are dealt out so that they sort as those
of the live fleet do: the plan that is made of the one is the plan of the other.
"""

import re
from collections.abc import Collection, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from dislocate.core.boundary.spec import Command, File, Gate, Key, Process, Resource, RunSpec
from dislocate.core.identity import Path
from dislocate.core.runs.plan import make_plan
from dislocate.core.units import SECOND
from sim.process import EPOCH
from sim.scenario import Datacenter, Fault, LinkOverride, PlannedRun, Scenario, Service, checked

CALLED = 14 * SECOND  # by then the group is founded; the live leader is made to lead then
BEGIN = 20 * SECOND  # when the run is started
CALM = 90 * SECOND  # after all that it may take: what is held then does not go on by itself
SLACK = 3  # times what batches, tasks, soaks and windows add up to
_NODE = re.compile(r"\b([a-z0-9-]+)/(a\d+)\b")


class Placed(Struct, frozen=True):
    """One instance."""

    node: Path
    is_passing: bool


class LiveFleet(Struct, frozen=True, kw_only=True):
    """A fleet as its agents answer."""

    names: Mapping[str, tuple[str, ...]]  # by data center: its agents, dead ones too
    dead: tuple[Path, ...]
    rtts: Mapping[tuple[str, str], int]  # nanoseconds, of each pair of data centers
    servers: tuple[Path, ...]
    leader: Path | None
    asked: Path  # whom the operator asks
    services: Mapping[str, tuple[Placed, ...]]
    unix: int  # nanoseconds


class Names:
    """Names there and here."""

    def __init__(self, fleet: LiveFleet) -> None:
        self.there: dict[Path, Path] = {}  # by the name in the scenario
        self.here: dict[Path, Path] = {}  # by the live name
        for datacenter, names in fleet.names.items():
            numbered = sorted(f"a{number}" for number in range(1, len(names) + 1))
            for name, own in zip(sorted(names), numbered, strict=True):
                self.here[f"{datacenter}/{name}"] = f"{datacenter}/{own}"
                self.there[f"{datacenter}/{own}"] = f"{datacenter}/{name}"

    def live(self, words: str) -> str:
        """`words` of the scenario with the names that operators know."""
        return _NODE.sub(lambda found: self.there.get(found[0], found[0]), words)


def mirrored(fleet: LiveFleet, spec: RunSpec, targets: Sequence[Path], task_times: Sequence[int]) -> Scenario:
    """The scenario of a run of `spec` on these nodes.  Raises `LocalError`, as `make_plan` does."""
    names = Names(fleet)
    own = tuple(names.here[path] for path in targets)
    plan = make_plan(spec, own)
    longest = max(task_times)
    run = PlannedRun(
        time=BEGIN,
        spec=stand_in(spec, own, fleet.services),
        by=names.here.get(fleet.asked, ""),
        task_times=tuple(task_times),
    )
    return checked(
        Scenario(
            title=f"A run of {spec.name}",
            why="The live fleet, as its agents described it, and what they are to do.",
            duration=BEGIN
            + SLACK * sum(_of_batch(spec, longest) for _ in plan.batches)
            + spec.strategy.deadline
            + CALM,
            datacenters={name: Datacenter(len(members)) for name, members in fleet.names.items()},
            links=tuple(
                LinkOverride(origin, target, rtt=rtt)
                for (origin, target), rtt in fleet.rtts.items()
                if origin != target
            ),
            services=tuple(_services(fleet, names)),
            servers=tuple(names.here[path] for path in fleet.servers),
            runs=(run,),
            at=tuple(_as_it_is(fleet, spec, names)),
        )
    )


def stand_in(spec: RunSpec, targets: Sequence[Path], services: Collection[str]) -> RunSpec:
    """The same run of these nodes, without what its resources hold, and without what nothing is known of here: approvals, how
    busy instances are, what callers say of them, and services that are none yet because its own processes are their first
    instances."""
    own = [each.service for each in spec.resources if isinstance(each, Process) and each.service not in services]
    return replace(
        spec,
        title="",
        targets=f"id in {{{', '.join(targets)}}}",
        resources=tuple(_stand_in(resource) for resource in spec.resources),
        strategy=replace(spec.strategy, approvals=0),
        gates=tuple(_by_health(gate) for gate in spec.gates if gate.passing and gate.service not in own),
        enforce=False,
        task_time=0,
    )


def _by_health(gate: Gate) -> Gate:
    """The same, but that nothing is judged except whether instances pass."""
    return replace(gate, utilization=0.0, errors=0.0, p99=0, control=0.0)


def _stand_in(resource: Resource) -> Resource:
    match resource:
        case File():
            return replace(resource, content="as it is to be", validate=(), owner="")
        case Command():
            return replace(resource, run=("true",), environment={}, directory="/")
        case Process():
            return replace(resource, run=("true",), environment={}, directory="/")
        case Key():
            return replace(resource, value="as it is to be")
    return resource


def _of_batch(spec: RunSpec, task: int) -> int:
    strategy = spec.strategy
    return task + strategy.soak + strategy.settle + sum(gate.window for gate in spec.gates) + 2 * SECOND


def _in_whole_seconds(span: int) -> int:
    return -(-span // SECOND) * SECOND


def _services(fleet: LiveFleet, names: Names) -> list[Service]:
    return [
        Service(
            name=name,
            datacenters=tuple(dict.fromkeys(_datacenter(one.node) for one in placed)),
            nodes=tuple(names.here[one.node] for one in placed),
        )
        for name, placed in fleet.services.items()
        if placed
    ]


def _as_it_is(fleet: LiveFleet, spec: RunSpec, names: Names) -> list[Fault]:
    """What is not well already, who leads, and the time of day where windows depend on it."""
    faults = [Fault(0, "clock", "*", offset=max(0, fleet.unix - EPOCH))] if spec.freezes else []
    for name, placed in fleet.services.items():
        numbers: dict[str, int] = {}
        for one in placed:
            datacenter = _datacenter(one.node)
            numbers[datacenter] = numbers.get(datacenter, 0) + 1
            if not one.is_passing:
                faults.append(Fault(0, "kill", f"{datacenter}/{name}#{numbers[datacenter]}"))
    if fleet.leader in fleet.servers and fleet.leader is not None:
        faults.append(Fault(CALLED, "lead", names.here[fleet.leader]))
    dead = tuple(names.here[path] for path in fleet.dead)
    if dead:
        faults.append(Fault(CALLED - 5 * SECOND, "kill", dead))  # once it is a member, so that its absence is known
    return sorted(faults, key=lambda fault: fault.time)


def _datacenter(path: Path) -> str:
    return path.partition("/")[0]
