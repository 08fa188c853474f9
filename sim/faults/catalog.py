"""What operators and new instances do to the catalog: drain and undrain, register and deregister.

An instance counts as registered, or as deregistered, from when an agent acknowledged it: see `world.truth`.
"""

from collections.abc import Callable

from dislocate.core.boundary.requests import Deregister, Done, Register, Result, SetDraining
from dislocate.core.identity import Path
from sim.faults.verb import Verb, machines_of
from sim.scenario import Fault
from sim.selectors import Instance, as_tuple
from sim.world import World


def _set_draining(world: World, fault: Fault, draining: bool) -> None:
    expires = (fault.lasting or 0) if draining else 0
    for instance in world.layout.chosen_instances(fault.target):
        found = world.placement.find_service(instance)
        if found is not None:
            found[1].was_touched = True
            world.request(found[0], SetDraining(instance.id, "instance", draining, expires, "scenario"), _done)
    for selector in as_tuple(fault.target):
        agents = world.layout.agents(selector)
        for path in agents:
            for service in world.machines[path].services.values():
                service.was_touched = True
        asked = next((world.machines[path] for path in agents if world.is_up(path)), None)
        if asked is not None:
            scope = "node" if "/" in selector else "datacenter"
            world.request(asked, SetDraining(selector, scope, draining, expires, "scenario"), _done)


def _drain(world: World, fault: Fault) -> None:
    _set_draining(world, fault, True)


def _undrain(world: World, fault: Fault) -> None:
    _set_draining(world, fault, False)


def _register(world: World, fault: Fault) -> None:
    """A new instance starts on the target's host and registers there."""
    for machine in machines_of(world, fault):
        taken = [
            one.instance.number
            for host in world.machines.values()
            for one in host.services.values()
            if one.instance.service == fault.service and host.datacenter == machine.datacenter
        ]
        instance = Instance(machine.datacenter, fault.service, max(taken, default=0) + 1)
        service = world.placement.add_service(instance, machine.path)
        world.request(
            machine, Register(service.spec), _recorded(world.truth.registered, (machine.path, instance.id), world)
        )


def _deregister(world: World, fault: Fault) -> None:
    for instance in world.layout.chosen_instances(fault.target):
        found = world.placement.find_service(instance)
        if found is not None:
            machine, service = found
            service.was_touched = True
            world.truth.registered.pop((machine.path, instance.id), None)
            key = (machine.path, instance.id)
            world.request(machine, Deregister(instance.id), _recorded(world.truth.deregistered, key, world))


def _recorded(book: dict[tuple[Path, str], int], key: tuple[Path, str], world: World) -> Callable[[Result], None]:
    def replied(result: Result) -> None:
        if isinstance(result, Done):
            book[key] = world.now

    return replied


def _done(_result: Result) -> None:
    """Nobody waits for it."""


CATALOG: dict[str, Verb] = {
    "drain": _drain,
    "undrain": _undrain,
    "register": _register,
    "deregister": _deregister,
}
