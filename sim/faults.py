"""Faults: what each verb of a scenario does to the world.  Fields and undoing: `scenario.VERBS`, `scenario.UNDO`.

A fault on an agent that is already so (killing the dead, resuming the running) does nothing; it still is in the story.
"""

from collections.abc import Callable
from typing import TypeAlias

from msgspec.structs import replace

from dislocate.core.boundary.inputs import Stopped
from dislocate.core.boundary.requests import Deregister, Done, Leave, Register, Request, Result, SetDraining
from dislocate.core.boundary.store import AddServer, RemoveServer, TransferLeadership
from dislocate.core.identity import Path
from dislocate.core.units import SECOND, format_duration
from dislocate.directions import is_on_side
from sim.operators import steer
from sim.process import Machine
from sim.scenario import UNDO, Fault
from sim.selectors import Instance, Layout, as_tuple
from sim.services import ServiceLife
from sim.traffic.trouble import SERVING
from sim.world import World

Verb: TypeAlias = Callable[[World, Fault], None]


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


def pairs(layout: Layout, fault: Fault) -> list[tuple[tuple[Path, ...], tuple[Path, ...]]]:
    """The directed (from, to) groups that a network fault acts on."""
    origin, dest = as_tuple(fault.origin), as_tuple(fault.dest)
    origins = tuple(path for path in layout.paths if is_on_side(origin, dest, path))
    targets = tuple(path for path in layout.paths if is_on_side(dest, origin, path))
    return [(origins, targets)] if fault.oneway else [(origins, targets), (targets, origins)]


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


# ---- the network


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


# ---- agents and their services


def _machines(world: World, fault: Fault) -> list[Machine]:
    return [world.machines[path] for path in world.layout.agents(fault.target)]


def _kill(world: World, fault: Fault) -> None:
    _set_services(world, fault, ServiceLife.DOWN)
    for machine in _machines(world, fault):
        if fault.midway and machine.process is not None:
            machine.process.is_doomed = True
        else:
            world.end(machine)


def _restart(world: World, fault: Fault) -> None:
    _set_services(world, fault, ServiceLife.UP)
    for machine in _machines(world, fault):
        world.end(machine)
        world.start(machine)


def _wipe(world: World, fault: Fault) -> None:
    """The disk is replaced under a dead agent; one that runs is killed first, and neither starts by itself."""
    for machine in _machines(world, fault):
        world.end(machine)
        machine.disk.wipe()
        for key in [key for key in world.truth.registered if key[0] == machine.path]:
            del world.truth.registered[key]


def _pause(world: World, fault: Fault) -> None:
    _set_services(world, fault, ServiceLife.STOPPED)
    for machine in _machines(world, fault):
        world.pause(machine)


def _resume(world: World, fault: Fault) -> None:
    _set_services(world, fault, ServiceLife.UP)
    for machine in _machines(world, fault):
        world.resume(machine)


def _vanish(world: World, fault: Fault) -> None:
    """The host loses power, and with it the agent and its services."""
    for machine in _machines(world, fault):
        world.end(machine, power=True)
        for service in machine.services.values():
            service.become(ServiceLife.DOWN)
            service.was_touched = True
    world.network_changed()


def _return(world: World, fault: Fault) -> None:
    """The host boots, and starts its agent and services."""
    for machine in _machines(world, fault):
        world.host_returned(machine)
        for service in machine.services.values():
            service.become(ServiceLife.UP)
        world.start(machine)


def _stop(world: World, fault: Fault) -> None:
    """SIGTERM: a planned restart."""
    for machine in _machines(world, fault):
        if machine.process is not None:
            world.truth.stopped[machine.process.node_id] = world.now
            world.deliver(machine.process, Stopped("asked to end"))
            world.end(machine)


def _leave(world: World, fault: Fault) -> None:
    """`dislocate leave`: the agent says goodbye and ends."""
    for machine in _machines(world, fault):
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


def _disk_fail(world: World, fault: Fault) -> None:
    for machine in _machines(world, fault):
        machine.disk.is_failing = True


def _disk_mend(world: World, fault: Fault) -> None:
    """Whatever was wrong with it, short of damage to what is on it."""
    for machine in _machines(world, fault):
        disk = machine.disk
        disk.is_failing = disk.is_full = False
        disk.factor = 1.0
        disk.stalled_until = 0


def _disk_fill(world: World, fault: Fault) -> None:
    for machine in _machines(world, fault):
        machine.disk.is_full = True


def _disk_slow(world: World, fault: Fault) -> None:
    assert fault.factor is not None  # the verb needs it
    for machine in _machines(world, fault):
        machine.disk.factor = fault.factor


def _disk_stall(world: World, fault: Fault) -> None:
    """The device answers nothing for a while, then everything: a controller that resets, a volume that moves."""
    assert fault.lasting is not None  # the verb needs it
    for machine in _machines(world, fault):
        machine.disk.stalled_until = world.now + fault.lasting


def _disk_damage(world: World, fault: Fault) -> None:
    """What is on it can not be read any more; the agent that runs does not know, the next start does, and fails."""
    for machine in _machines(world, fault):
        machine.disk.is_damaged = True


def _disk_copy(world: World, fault: Fault) -> None:
    for machine in _machines(world, fault):
        machine.disk.copy()


def _disk_back(world: World, fault: Fault) -> None:
    """An old copy is put back under a dead agent; one that runs is killed first, and neither starts by itself."""
    for machine in _machines(world, fault):
        world.end(machine)
        machine.disk.go_back()


def _clock(world: World, fault: Fault) -> None:
    offset = fault.offset or 0
    for machine in _machines(world, fault):
        machine.set_clock(world.now, -offset if fault.behind else offset, fault.drift)


# ---- the servers of the store

AGAIN = 5 * SECOND  # until an operator who was refused tries again
PATIENCE = 60 * SECOND  # of one who hears nothing: a new server first takes over the whole store


def _asking(request: Callable[[Path], Request]) -> Verb:
    """As an operator does who means it: any agent is asked, another when that does not help, until it is done."""

    def verb(world: World, fault: Fault) -> None:
        for machine in _machines(world, fault):
            _ask_until_done(world, request(machine.path), 0)

    return verb


def _ask_until_done(world: World, request: Request, attempt: int) -> None:
    up = world.observers_up()
    answers: list[Result] = []
    asked = world.now

    def due(_: None, __: None, ___: None) -> None:
        if answers and isinstance(answers[-1], Done):
            return
        if answers or world.now - asked >= PATIENCE:
            _ask_until_done(world, request, attempt + 1)
        else:
            world.schedule.call(world.now + AGAIN, due, None)

    if up:
        world.request(world.machines[up[attempt % len(up)]], request, answers.append)
    world.schedule.call(world.now + AGAIN, due, None)


# ---- what config runs do to hosts


def _task_fail(world: World, fault: Fault) -> None:
    for machine in _machines(world, fault):
        machine.host.is_failing = True


def _task_slow(world: World, fault: Fault) -> None:
    assert fault.factor is not None  # the verb needs it
    for machine in _machines(world, fault):
        machine.host.slowness = fault.factor


def _task_mend(world: World, fault: Fault) -> None:
    """Of what begins from now on."""
    for machine in _machines(world, fault):
        machine.host.is_failing = False
        machine.host.slowness = 1.0


def _drift(world: World, fault: Fault) -> None:
    for machine in _machines(world, fault):
        machine.host.drift()


# ---- the catalog


def _set_services(world: World, fault: Fault, life: ServiceLife) -> None:
    for instance in world.layout.chosen_instances(fault.target):
        found = world.find_service(instance)
        if found is not None:
            found[1].become(life)
            found[1].was_touched = True


def _set_draining(world: World, fault: Fault, draining: bool) -> None:
    expires = (fault.lasting or 0) if draining else 0
    for instance in world.layout.chosen_instances(fault.target):
        found = world.find_service(instance)
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
    for machine in _machines(world, fault):
        taken = [
            one.instance.number
            for host in world.machines.values()
            for one in host.services.values()
            if one.instance.service == fault.service and host.datacenter == machine.datacenter
        ]
        instance = Instance(machine.datacenter, fault.service, max(taken, default=0) + 1)
        service = world.add_service(instance, machine.path)
        world.request(
            machine, Register(service.spec), _recorded(world.truth.registered, (machine.path, instance.id), world)
        )


def _deregister(world: World, fault: Fault) -> None:
    for instance in world.layout.chosen_instances(fault.target):
        found = world.find_service(instance)
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


VERBS: dict[str, Verb] = {
    "cut": _cut,
    "heal": _heal,
    "slow": _slow,
    "drop": _drop,
    "kill": _kill,
    "restart": _restart,
    "wipe": _wipe,
    "pause": _pause,
    "resume": _resume,
    "vanish": _vanish,
    "return": _return,
    "stop": _stop,
    "leave": _leave,
    "drain": _drain,
    "undrain": _undrain,
    **SERVING,
    "register": _register,
    "deregister": _deregister,
    "disk_fail": _disk_fail,
    "disk_fill": _disk_fill,
    "disk_slow": _disk_slow,
    "disk_stall": _disk_stall,
    "disk_damage": _disk_damage,
    "disk_mend": _disk_mend,
    "disk_copy": _disk_copy,
    "disk_back": _disk_back,
    "clock": _clock,
    "server_add": _asking(AddServer),
    "server_remove": _asking(RemoveServer),
    "lead": _asking(TransferLeadership),
    "steer": steer,
    "task_fail": _task_fail,
    "task_slow": _task_slow,
    "task_mend": _task_mend,
    "drift": _drift,
}
