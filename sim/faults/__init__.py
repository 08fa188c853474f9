"""Faults: what each verb of a scenario does to the world.  Fields and undoing: `scenario.VERBS`, `scenario.UNDO`.

A fault on an agent that is already so (killing the dead, resuming the running) does nothing; it still is in the story.
To add one, write the function where its like are and put it into the table there.
"""

from collections.abc import Callable

from msgspec.structs import replace

from dislocate.core.units import format_duration
from sim.faults.agents import AGENTS
from sim.faults.catalog import CATALOG
from sim.faults.disks import DISKS
from sim.faults.hosts import HOSTS
from sim.faults.network import NETWORK
from sim.faults.servers import SERVERS
from sim.faults.verb import Verb
from sim.operators import steer
from sim.scenario import UNDO, Fault
from sim.selectors import as_tuple
from sim.traffic.trouble import SERVING
from sim.world import World

VERBS: dict[str, Verb] = {
    **NETWORK,
    **AGENTS,
    **DISKS,
    **HOSTS,
    **CATALOG,
    **SERVING,
    **SERVERS,
    "steer": steer,
}


def schedule_faults(world: World, faults: tuple[Fault, ...], told: Callable[[Fault], None]) -> None:
    """Do each at its time, and undo it after `for`; `told` hears of each as it happens."""

    def due(fault: Fault, _: None, __: None) -> None:
        told(fault)
        do(world, fault)

    for fault in faults:
        world.schedule.call(fault.time, due, fault)
        if fault.lasting is not None and fault.do in UNDO:
            world.schedule.call(fault.time + fault.lasting, due, undoing(fault))


def undoing(fault: Fault) -> Fault:
    """The fault that ends `fault`."""
    assert fault.lasting is not None
    return replace(fault, time=fault.time + fault.lasting, do=UNDO[fault.do], lasting=None, midway=False)


def do(world: World, fault: Fault) -> None:
    """Do `fault` now, whatever its time says."""
    world.last_fault = world.now
    VERBS[fault.do](world, fault)


def in_words(fault: Fault) -> str:
    """'cut fra -> *', 'kill fra/a1' ..."""
    words = [fault.do, *as_tuple(fault.target)]
    if fault.do in ("cut", "slow", "drop", "heal"):
        arrow = "->" if fault.oneway else "<->"
        words += [", ".join(as_tuple(fault.origin)), arrow, ", ".join(as_tuple(fault.dest))]
        if fault.channels != Fault(0, "").channels:
            words.append("(" + ", ".join(channel.value for channel in fault.channels) + ")")
    if fault.factor is not None:
        words.append(f"x{fault.factor:g}")
    if fault.loss is not None:
        words.append(f"{fault.loss:.1%} lost")
    if fault.service:
        words.append(fault.service)
    if fault.run:
        words += [fault.run, fault.verb]
    if fault.offset is not None:
        words.append(("-" if fault.behind else "+") + format_duration(fault.offset))
    return " ".join(words)
