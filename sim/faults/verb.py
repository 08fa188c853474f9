"""What a verb is: a function of the world and the fault, and whom the fault is about."""

from collections.abc import Callable
from typing import TypeAlias

from sim.process import Machine
from sim.scenario import Fault
from sim.world import World

Verb: TypeAlias = Callable[[World, Fault], None]


def machines_of(world: World, fault: Fault) -> list[Machine]:
    """The hosts of the agents that `fault` is about."""
    return [world.machines[path] for path in world.layout.agents(fault.target)]
