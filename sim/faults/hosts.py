"""Faults of hosts beneath a healthy agent: a wrong clock, tasks of config runs that fail or take long, and drift."""

from sim.faults.verb import Verb, machines_of
from sim.scenario import Fault
from sim.world import World


def _clock(world: World, fault: Fault) -> None:
    offset = fault.offset or 0
    for machine in machines_of(world, fault):
        machine.set_clock(world.now, -offset if fault.behind else offset, fault.drift)


def _task_fail(world: World, fault: Fault) -> None:
    for machine in machines_of(world, fault):
        machine.host.is_failing = True


def _task_slow(world: World, fault: Fault) -> None:
    assert fault.factor is not None  # the verb needs it
    for machine in machines_of(world, fault):
        machine.host.slowness = fault.factor


def _task_mend(world: World, fault: Fault) -> None:
    """Of what begins from now on."""
    for machine in machines_of(world, fault):
        machine.host.is_failing = False
        machine.host.slowness = 1.0


def _drift(world: World, fault: Fault) -> None:
    for machine in machines_of(world, fault):
        machine.host.drift()


HOSTS: dict[str, Verb] = {
    "clock": _clock,
    "task_fail": _task_fail,
    "task_slow": _task_slow,
    "task_mend": _task_mend,
    "drift": _drift,
}
