"""Sizes: instances that simulated agents run for scaling, and the drivers that only tell somebody.

As on a real host (`host.supervise`): those that are too few are started, and registered when they are up; those that are too
many are drained, and end `drain_for` later; all of that goes on when the agent dies.  A new one takes `boots`.
Commands and webhooks reach a list that invariants and tests read; on a host that fails everything they fail.
"""

from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from dislocate.core.boundary.effects import RunTask
from dislocate.core.boundary.inputs import Input, TaskProgressed
from dislocate.core.boundary.requests import Deregister, Register, Request, Result, SetDraining
from dislocate.core.boundary.runs import TaskOutcome, TaskResult
from dislocate.core.boundary.scaling import Webhook
from dislocate.core.boundary.spec import Command
from dislocate.core.boundary.spec import Process as ProcessSpec
from dislocate.core.boundary.values import CheckSpec, InstanceSpec
from dislocate.core.identity import Path
from dislocate.core.scale.carrying import TASK
from dislocate.core.units import MILLISECOND, SECOND
from sim.process import Machine, Process
from sim.schedule import Schedule
from sim.selectors import Instance as Named
from sim.services import ServiceLife, SimulatedService

PORTS_FROM = 20_000  # of instances of scaling: no scenario's own are there
TELLS = 20 * MILLISECOND  # what a command or a request takes
CHECKED_EACH = 2 * SECOND
BOOT = 1 * SECOND


class Told(Struct, frozen=True):
    """A driver was told."""

    at: int
    node: Path
    service: str
    epoch: int
    desired: int
    failed: bool


class World(Protocol):
    """`world.World`, as far as it is needed here."""

    schedule: Schedule

    def request(self, machine: Machine, request: Request, then: Callable[[Result], None]) -> int: ...

    def deliver(self, process: Process, input_: Input) -> None: ...


class Sizes:
    """Those of all hosts."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._port = PORTS_FROM
        self.boots: dict[str, int] = {}  # by service: what an instance takes until it answers; others take BOOT
        self.told: list[Told] = []

    def is_ours(self, effect: RunTask) -> bool:
        return effect.task_id.startswith(TASK)

    def run_task(self, process: Process, effect: RunTask) -> None:
        resource = effect.task.resource
        if isinstance(resource, ProcessSpec):
            self._become(process, effect, resource)
        else:
            assert isinstance(resource, Command | Webhook)
            at = self._world.schedule.now + TELLS
            self._world.schedule.call(at, self._tell, process, effect)

    # ---- command, webhook

    def _tell(self, process: Process, effect: RunTask, _: None) -> None:
        if not process.is_running:
            return
        service, epoch = effect.task_id.split("/")[1:3]
        has_failed, resource = process.machine.host.is_failing, effect.task.resource
        desired = int(resource.environment["DISLOCATE_DESIRED"]) if isinstance(resource, Command) else -1
        told = Told(self._world.schedule.now, process.machine.path, service, int(epoch), desired, has_failed)
        self.told.append(told)
        if has_failed:
            outcome = TaskOutcome(TaskResult.FAILED, kind="apply", words="this host fails everything", code=1)
        else:
            outcome = TaskOutcome(TaskResult.CHANGED, code=0)
        self._world.deliver(process, TaskProgressed(effect.task_id, outcome))

    # ---- process

    def _become(self, process: Process, effect: RunTask, resource: ProcessSpec) -> None:
        machine, schedule = process.machine, self._world.schedule
        if machine.host.is_failing:
            schedule.call(schedule.now + TELLS, self._failed, process, effect)
            return
        present = self.present(machine, resource.name)
        lacking = resource.count - len(present)
        takes = TELLS
        if lacking > 0:
            takes = round(self.boots.get(resource.name, BOOT) * machine.host.slowness)
            for _number in range(lacking):
                schedule.call(schedule.now + takes, self._started, machine, resource)
            takes += CHECKED_EACH
        elif lacking < 0:
            takes = resource.drain_for + TELLS
            for service in present[lacking:]:
                self._ask(machine, SetDraining(service.spec.id, "instance", True))
                schedule.call(schedule.now + resource.drain_for, self._ended, machine, service.spec.id)
        schedule.call(schedule.now + takes, self._became, process, effect)

    def present(self, machine: Machine, name: str) -> list[SimulatedService]:
        """Those of scaling that are there and are to stay, oldest first."""
        return [
            one
            for one in machine.services.values()
            if one.spec.service == name and one.spec.port >= PORTS_FROM and not one.is_leaving
        ]

    def _started(self, machine: Machine, resource: ProcessSpec, _: None) -> None:
        if not machine.is_powered:
            return
        self._port += 1
        host = machine.gossip.rpartition(":")[0]
        instance = Named(machine.datacenter, resource.name, self._port)
        check = CheckSpec(http=f"http://{host}:{self._port}/health", interval=CHECKED_EACH)
        spec = InstanceSpec(
            id=instance.id, service=resource.name, port=self._port, meta={"process": resource.name}, check=check
        )
        machine.services[spec.id] = SimulatedService(spec, instance)
        self._ask(machine, Register(spec))

    def _ended(self, machine: Machine, instance: str, _: None) -> None:
        service = machine.services.pop(instance, None)
        if service is not None:
            service.life = ServiceLife.DOWN
        self._ask(machine, Deregister(instance))

    def _ask(self, machine: Machine, request: Request) -> None:
        if isinstance(request, SetDraining) and request.target in machine.services:
            machine.services[request.target].is_leaving = True
        self._world.request(machine, request, lambda _result: None)

    def _became(self, process: Process, effect: RunTask, _: None) -> None:
        if process.is_running:
            self._world.deliver(process, TaskProgressed(effect.task_id, TaskOutcome(TaskResult.CHANGED)))

    def _failed(self, process: Process, effect: RunTask, _: None) -> None:
        outcome = TaskOutcome(TaskResult.FAILED, kind="apply", words="this host fails everything for now")
        if process.is_running:
            self._world.deliver(process, TaskProgressed(effect.task_id, outcome))
