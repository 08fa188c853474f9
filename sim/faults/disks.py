"""Faults of disks: they refuse, fill, slow down or stall, and what is on them is damaged, lost or old.

Damage shows at the next start only, and only under a dead agent is a disk replaced or an old copy put back.
"""

from sim.faults.verb import Verb, machines_of
from sim.scenario import Fault
from sim.world import World


def _disk_fail(world: World, fault: Fault) -> None:
    for machine in machines_of(world, fault):
        machine.disk.is_failing = True


def _disk_mend(world: World, fault: Fault) -> None:
    """Whatever was wrong with it, short of damage to what is on it."""
    for machine in machines_of(world, fault):
        disk = machine.disk
        disk.is_failing = disk.is_full = False
        disk.factor = 1.0
        disk.stalled_until = 0


def _disk_fill(world: World, fault: Fault) -> None:
    for machine in machines_of(world, fault):
        machine.disk.is_full = True


def _disk_slow(world: World, fault: Fault) -> None:
    assert fault.factor is not None  # the verb needs it
    for machine in machines_of(world, fault):
        machine.disk.factor = fault.factor


def _disk_stall(world: World, fault: Fault) -> None:
    """The device answers nothing for a while, then everything: a controller that resets, a volume that moves."""
    assert fault.lasting is not None  # the verb needs it
    for machine in machines_of(world, fault):
        machine.disk.stalled_until = world.now + fault.lasting


def _disk_damage(world: World, fault: Fault) -> None:
    """What is on it can not be read any more; the agent that runs does not know, the next start does, and fails."""
    for machine in machines_of(world, fault):
        machine.disk.is_damaged = True


def _disk_copy(world: World, fault: Fault) -> None:
    for machine in machines_of(world, fault):
        machine.disk.copy()


def _disk_back(world: World, fault: Fault) -> None:
    """An old copy is put back under a dead agent; one that runs is killed first, and neither starts by itself."""
    for machine in machines_of(world, fault):
        world.end(machine)
        machine.disk.go_back()


def _wipe(world: World, fault: Fault) -> None:
    """The disk is replaced under a dead agent; one that runs is killed first, and neither starts by itself."""
    for machine in machines_of(world, fault):
        world.end(machine)
        machine.disk.wipe()
        for key in [key for key in world.truth.registered if key[0] == machine.path]:
            del world.truth.registered[key]


DISKS: dict[str, Verb] = {
    "disk_fail": _disk_fail,
    "disk_fill": _disk_fill,
    "disk_slow": _disk_slow,
    "disk_stall": _disk_stall,
    "disk_damage": _disk_damage,
    "disk_mend": _disk_mend,
    "disk_copy": _disk_copy,
    "disk_back": _disk_back,
    "wipe": _wipe,
}
