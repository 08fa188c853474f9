"""Invariants of the catalog (design, section 4)."""

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from dislocate.core.boundary.events import (
    BrakeChanged,
    DatacenterChanged,
    InstanceChanged,
    MemberDied,
    MemberForgotten,
    MemberJoined,
    ServiceChanged,
)
from dislocate.core.boundary.values import Status
from dislocate.core.boundary.views import InstanceView
from dislocate.core.identity import Path
from dislocate.core.tunables import UNATTENDED_CRITICAL, UNATTENDED_DROP
from dislocate.core.units import SECOND
from sim.invariants.calm import calm_for
from sim.invariants.monitor import Invariant
from sim.process import Machine, Process
from sim.services import SimulatedService
from sim.world import World

DEREGISTER_BOUND = 30 * SECOND  # gossip takes seconds, repair between data centers one more round
START_BOUND = 10 * SECOND  # after which an agent has read its disk and configuration
TIMELINE_SLACK = 3 * SECOND  # a timer and a view that is reused
WATCHED_FLEETS = 64  # agents: in larger fleets comparing all answers would cost more than the fleet
PASSING_BOUND = 40 * SECOND  # two successes of a check every 5 s, and its jitter, with room


class OneAnswerAnInstance(Invariant):
    """An instance, (owner, id), is answered once: from one start of its owner."""

    name = "one answer an instance"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._checked: dict[Path, tuple[int, int]] = {}

    def check(self) -> None:
        for path in self.world.observers_up():
            version = self.world.version(path)
            if self._checked.get(path) == version:
                continue
            self._checked[path] = version
            catalog = self.world.node(path).catalog
            for name in catalog.names():
                view = catalog.service(name)
                instances = () if view is None else view.instances
                self.exercised += bool(instances)
                if len({(one.node, one.id) for one in instances}) != len(instances):
                    raise self.violated(path, f"answers for {name} with an instance twice")


class DeregisteredStaysGone(Invariant):
    """What was deregistered, acknowledged, is answered by nobody who could hear of it for `DEREGISTER_BOUND`."""

    name = "deregistered stays gone"

    def check(self) -> None:
        world = self.world
        for (owner, instance_id), since in world.truth.deregistered.items():
            if world.now - since < DEREGISTER_BOUND:
                continue
            for path in world.observers_up():
                if calm_for(world, world.machines[owner], world.machines[path]) < DEREGISTER_BOUND:
                    continue
                self.exercised += 1
                if (owner, instance_id) in _answers(world, path):
                    raise self.violated(path, f"still answers with {owner}/{instance_id}, deregistered")


class AcknowledgedRegistrationSurvives(Invariant):
    """What an agent acknowledged it still answers with itself, whatever killed it, until it is deregistered or its disk
    is replaced."""

    name = "an acknowledged registration survives"

    def check(self) -> None:
        world = self.world
        for owner, instance_id in world.truth.registered:
            process = world.machines[owner].process
            if process is None or process.is_paused or world.now - process.started < START_BOUND:
                continue
            self.exercised += 1
            if (owner, instance_id) not in _answers(world, owner):
                raise self.violated(owner, f"lost {instance_id}, whose registration it acknowledged")


class LastKnownGoodIsKept(Invariant):
    """While a data center cannot be reached, what was known to run there is still answered."""

    name = "last known good is kept"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._before: dict[Process, dict[tuple[Path, str], Status]] = {}  # answers at the last look
        self._kept: dict[tuple[Process, str], frozenset[tuple[Path, str]]] = {}

    def handlers(self) -> dict[type, Callable[[Process, Any], None]]:
        return {DatacenterChanged: self._changed}

    def _changed(self, process: Process, event: DatacenterChanged) -> None:
        if event.reachable:
            self._kept.pop((process, event.datacenter), None)
            return
        # The event is told after its turn, in which everything may already have been dropped.
        answers = self._before.get(process) or _answers(self.world, process.node_id.path)
        prefix = f"{event.datacenter}/"
        self._kept[process, event.datacenter] = frozenset(
            key for key, status in answers.items() if key[0].startswith(prefix) and status is not Status.CRITICAL
        )

    def check(self) -> None:
        for (process, datacenter), kept in list(self._kept.items()):
            path = process.node_id.path
            if not process.is_running or process.is_paused:
                continue
            self.exercised += bool(kept)
            lost = sorted(kept - frozenset(_answers(self.world, path)))
            for owner, instance_id in lost:
                if self._is_still_registered(owner, instance_id):
                    raise self.violated(path, f"dropped {owner}/{instance_id} while {datacenter} is unreachable")
        if len(self.world.machines) <= WATCHED_FLEETS:
            self._before = {self._process(path): _answers(self.world, path) for path in self.world.observers_up()}

    def _process(self, path: Path) -> Process:
        process = self.world.machines[path].process
        assert process is not None
        return process

    def _is_still_registered(self, owner: Path, instance_id: str) -> bool:
        """Its agent did not leave, nor was it deregistered, nor its disk replaced."""
        world = self.world
        is_configured = any(spec.id == instance_id for spec in world.machines[owner].configured)
        return owner not in world.truth.left and (is_configured or (owner, instance_id) in world.truth.registered)


class UnattendedHasATimeline(Invariant):
    """Instances whose agent was refused are unattended, after a minute critical, after ten dropped, unless a brake holds."""

    name = "unattended has a timeline"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._since: dict[tuple[Process, Path], int] = {}
        self._braked: dict[str, None] = {}  # data centers whose brake held at any time

    def handlers(self) -> dict[type, Callable[[Process, Any], None]]:
        return {
            MemberDied: self._died,
            MemberJoined: self._over,
            MemberForgotten: self._over,
            BrakeChanged: self._brake_changed,
        }

    def _died(self, process: Process, event: MemberDied) -> None:
        if event.refused:
            self._since[process, event.member.path] = self.world.now

    def _over(self, process: Process, event: MemberJoined | MemberForgotten) -> None:
        self._since.pop((process, event.member.path), None)

    def _brake_changed(self, _process: Process, event: BrakeChanged) -> None:
        self._braked[event.datacenter] = None

    def check(self) -> None:
        for (process, owner), since in list(self._since.items()):
            if not process.is_running:
                del self._since[process, owner]
            elif not process.is_paused:
                self._check(process, owner, self.world.now - since)

    def _check(self, process: Process, owner: Path, elapsed: int) -> None:
        path = process.node_id.path
        for (of, instance_id), status in _answers(self.world, path).items():
            if of != owner:
                continue
            self.exercised += 1
            words = f"answers {owner}/{instance_id} as {status.value} {elapsed // SECOND} s after its agent was refused"
            if status in (Status.PASSING, Status.WARNING, Status.STARTING):
                raise self.violated(path, words)
            if status is Status.UNATTENDED and elapsed > UNATTENDED_CRITICAL + TIMELINE_SLACK:
                raise self.violated(path, words)
            is_braked = owner.partition("/")[0] in self._braked
            if elapsed > UNATTENDED_DROP + TIMELINE_SLACK and not is_braked:
                raise self.violated(path, words)


class OnlyItsChangesMoveAService(Invariant):
    """The index of a service moves with its answer and not otherwise: churn in B never wakes a watcher of A."""

    name = "only its changes move a service"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._answers: dict[tuple[Process, str], tuple[int, tuple[InstanceView, ...]]] = {}
        self._there_and_back: dict[
            tuple[Process, str], int
        ] = {}  # when a status last changed, perhaps back in one turn

    def handlers(self) -> dict[type, Callable[[Process, Any], None]]:
        small = len(self.world.machines) <= WATCHED_FLEETS
        return {InstanceChanged: self._told, ServiceChanged: self._changed} if small else {}

    def _told(self, process: Process, event: InstanceChanged) -> None:
        self._there_and_back[process, event.service] = self.world.now

    def _changed(self, process: Process, event: ServiceChanged) -> None:
        view = process.node.catalog.service(event.service)
        key, now = (process, event.service), self.world.now
        answer = () if view is None else tuple(replace(one, as_of=0, load=None) for one in view.instances)
        at, before = self._answers.get(key, (-1, ()))
        self._answers[key] = (now, answer)
        self.exercised += 1
        if self._there_and_back.get(key) == now:
            return
        if at not in (-1, now) and answer == before:  # several changes of one turn are told after all of them
            raise self.violated(process.node_id.path, f"woke the watchers of {event.service}, whose answer is the same")


class HomeIsUnaffected(Invariant):
    """While links between data centers are disturbed, an undisturbed agent answers with every undisturbed instance of
    its own data center as passing."""

    name = "home is unaffected by the WAN"

    def check(self) -> None:
        world = self.world
        if not world.network.is_wan_disturbed:
            return
        for path in world.observers_up():
            observer = world.machines[path]
            for owner, service in self._undisturbed(observer):
                self.exercised += 1
                found = _answers(world, path).get((owner.path, service.spec.id))
                if found is not Status.PASSING:
                    words = "absent" if found is None else found.value
                    raise self.violated(path, f"{owner.path}/{service.spec.id} of its own data center is {words}")

    def _undisturbed(self, observer: Machine) -> list[tuple[Machine, SimulatedService]]:
        world = self.world
        return [
            (owner, service)
            for owner in (world.machines[path] for path in world.layout.nodes[observer.datacenter])
            if owner.process is not None and calm_for(world, observer, owner) >= PASSING_BOUND
            for service in owner.services.values()
            if not service.was_touched and service.spec in owner.configured
        ]


def _answers(world: World, path: Path) -> dict[tuple[Path, str], Status]:
    """Everything that one agent answers with, by (owner, id)."""
    catalog = world.node(path).catalog
    views = [catalog.service(name) for name in catalog.names()]
    return {(one.node, one.id): one.status for view in views if view is not None for one in view.instances}


CATALOG: tuple[type[Invariant], ...] = (
    OneAnswerAnInstance,
    DeregisteredStaysGone,
    AcknowledgedRegistrationSurvives,
    LastKnownGoodIsKept,
    UnattendedHasATimeline,
    OnlyItsChangesMoveAService,
    HomeIsUnaffected,
)
