"""The simulated world: three hosts of one data center, each with a node that only listens; time is virtual."""

from collections.abc import Callable
from pathlib import Path as FilePath

from dislocate.core.boundary.effects import Effect
from dislocate.core.boundary.inputs import Input
from dislocate.core.identity import Address, NodeId
from dislocate.core.units import MILLISECOND, SECOND
from sim.process import Machine, Process
from sim.scenario import Datacenter, Scenario, checked
from sim.world import START_SPREAD, World
from tests.conformance.fabric import End
from tests.support.listener import Listeners

LAB = Scenario(
    title="conformance",
    why="Both worlds answer alike.",
    duration=60 * SECOND,
    datacenters={"lab": Datacenter(nodes=3)},
)
STEP = MILLISECOND // 10


class SimulatedEnd:
    """One start of the agent on a host."""

    def __init__(self, world: World, machine: Machine, process: Process) -> None:
        self.node: NodeId = process.node_id
        self.gossip: Address = machine.gossip
        self.links: Address = machine.links
        self.public_key: bytes = machine.public_key
        self.inputs: list[Input] = process.node.inputs
        self.machine = machine
        self._world = world
        self._process = process

    def do(self, effect: Effect) -> None:
        self._world.carry_out(self._process, [effect])


class SimulatedFabric:
    """Ends are the agents of `LAB`, all of which run from the start; who was not asked for is not heard of."""

    def __init__(self, directory: FilePath) -> None:
        self._listeners = Listeners()
        self._world = World(checked(LAB), seed=1, new_node=self._listeners)
        self._world.run(START_SPREAD)

    def start(self, name: str, *, is_known: bool = True) -> SimulatedEnd:
        machine = self._machine(name)
        machine.disk.is_failing = False
        self._world.start(machine)
        assert machine.process is not None
        if not is_known:
            del self._listeners.keys[machine.path]
        return SimulatedEnd(self._world, machine, machine.process)

    def kill(self, end: End) -> None:
        self._world.end(self._machine(end.node.name))

    def pause(self, end: End) -> None:
        self._world.pause(self._machine(end.node.name))

    def resume(self, end: End) -> None:
        self._world.resume(self._machine(end.node.name))

    def fail_disk(self, end: End) -> None:
        self._machine(end.node.name).disk.is_failing = True

    def fill_disk(self, end: End) -> None:
        self._machine(end.node.name).disk.is_full = True

    def free_disk(self, end: End) -> None:
        self._machine(end.node.name).disk.is_full = False

    def records(self, end: End) -> dict[str, bytes]:
        found = self._machine(end.node.name).disk.records()
        return {record.key: record.value for record in found if record.value is not None}

    def run_until(self, claim: Callable[[], bool], within: float) -> bool:
        deadline = self._world.now + round(within * SECOND)
        while not claim():
            if self._world.now >= deadline:
                return False
            self._world.run(self._world.now + STEP)
        return True

    def stop(self) -> None:
        """Nothing outlives the test."""

    def _machine(self, name: str) -> Machine:
        return self._world.machines[f"lab/{name}"]
