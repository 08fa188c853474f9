"""Faults of the network: ways between agents that lose, delay or carry nothing, until they are healed.

A fault between groups is one of each way from one to the other; `oneway` leaves the way back alone.
"""

from dislocate.core.identity import Path
from dislocate.directions import is_on_side
from sim.faults.verb import Verb
from sim.scenario import Fault
from sim.selectors import Layout, as_tuple
from sim.world import World


def pairs(layout: Layout, fault: Fault) -> list[tuple[tuple[Path, ...], tuple[Path, ...]]]:
    """The directed (from, to) groups that a network fault acts on."""
    origin, dest = as_tuple(fault.origin), as_tuple(fault.dest)
    origins = tuple(path for path in layout.paths if is_on_side(origin, dest, path))
    targets = tuple(path for path in layout.paths if is_on_side(dest, origin, path))
    return [(origins, targets)] if fault.oneway else [(origins, targets), (targets, origins)]


def _cut(world: World, fault: Fault) -> None:
    for origins, targets in pairs(world.layout, fault):
        world.network.cut(origins, targets, frozenset(fault.channels))
    world.network_changed()


def _heal(world: World, fault: Fault) -> None:
    for origins, targets in pairs(world.layout, fault):
        world.network.heal(origins, targets, frozenset(fault.channels))
    world.network_changed()


def _slow(world: World, fault: Fault) -> None:
    assert fault.factor is not None  # the verb needs it
    for origins, targets in pairs(world.layout, fault):
        world.network.slow(origins, targets, fault.factor)
    world.network_changed()


def _drop(world: World, fault: Fault) -> None:
    assert fault.loss is not None  # the verb needs it
    for origins, targets in pairs(world.layout, fault):
        world.network.drop(origins, targets, fault.loss)
    world.network_changed()


NETWORK: dict[str, Verb] = {
    "cut": _cut,
    "heal": _heal,
    "slow": _slow,
    "drop": _drop,
}
