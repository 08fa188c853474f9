"""Faults of agents and their services: processes that end, stop or go on, and hosts that lose power.

An instance may be meant instead: a process beside the agent, which dies, stops and goes on by itself.
"""

from collections.abc import Callable

from dislocate.core.boundary.inputs import Stopped
from dislocate.core.boundary.requests import Leave, Result
from sim.faults.verb import Verb, machines_of
from sim.process import Machine
from sim.scenario import Fault
from sim.services import ServiceLife
from sim.world import World


def _kill(world: World, fault: Fault) -> None:
    _set_services(world, fault, ServiceLife.DOWN)
    for machine in machines_of(world, fault):
        if fault.midway and machine.process is not None:
            machine.process.is_doomed = True
        else:
            world.end(machine)


def _restart(world: World, fault: Fault) -> None:
    _set_services(world, fault, ServiceLife.UP)
    for machine in machines_of(world, fault):
        world.end(machine)
        world.start(machine)


def _pause(world: World, fault: Fault) -> None:
    _set_services(world, fault, ServiceLife.STOPPED)
    for machine in machines_of(world, fault):
        world.pause(machine)


def _resume(world: World, fault: Fault) -> None:
    _set_services(world, fault, ServiceLife.UP)
    for machine in machines_of(world, fault):
        world.resume(machine)


def _vanish(world: World, fault: Fault) -> None:
    """The host loses power, and with it the agent and its services."""
    for machine in machines_of(world, fault):
        world.end(machine, power=True)
        for service in machine.services.values():
            service.become(ServiceLife.DOWN)
            service.was_touched = True
    world.network_changed()


def _return(world: World, fault: Fault) -> None:
    """The host boots, and starts its agent and services."""
    for machine in machines_of(world, fault):
        world.host_returned(machine)
        for service in machine.services.values():
            service.become(ServiceLife.UP)
        world.start(machine)


def _stop(world: World, fault: Fault) -> None:
    """SIGTERM: a planned restart."""
    for machine in machines_of(world, fault):
        if machine.process is not None:
            world.truth.stopped[machine.process.node_id] = world.now
            world.deliver(machine.process, Stopped("asked to end"))
            world.end(machine)


def _leave(world: World, fault: Fault) -> None:
    """`dislocate leave`: the agent says goodbye and ends."""
    for machine in machines_of(world, fault):
        world.truth.left[machine.path] = world.now
        world.request(machine, Leave(), _ending(world, machine))


def _ending(world: World, machine: Machine) -> Callable[[Result], None]:
    process = machine.process

    def left(_result: Result) -> None:

        def end(_: None, __: None, ___: None) -> None:
            if machine.process is process:
                world.end(machine)

        world.schedule.call(world.now, end, None)  # after the effects that follow the reply

    return left


def _set_services(world: World, fault: Fault, life: ServiceLife) -> None:
    for instance in world.layout.chosen_instances(fault.target):
        found = world.placement.find_service(instance)
        if found is not None:
            found[1].become(life)
            found[1].was_touched = True


AGENTS: dict[str, Verb] = {
    "kill": _kill,
    "restart": _restart,
    "pause": _pause,
    "resume": _resume,
    "vanish": _vanish,
    "return": _return,
    "stop": _stop,
    "leave": _leave,
}
