"""Invariants of membership (design, section 3)."""

from collections.abc import Callable
from typing import Any

from dislocate.core.boundary.events import (
    BrakeChanged,
    MemberDied,
    MemberForgotten,
    MemberJoined,
    MemberLeft,
    MemberRefuted,
    MemberRestarting,
    MemberSuspected,
)
from dislocate.core.boundary.values import MemberState
from dislocate.core.boundary.views import MemberView
from dislocate.core.identity import NodeId, Path
from dislocate.core.membership.members import LIVING
from dislocate.core.numeric import log10
from dislocate.core.tunables import REFUSAL_QUORUM, RESTART_GRACE
from dislocate.core.units import SECOND
from sim.invariants.calm import calm_for
from sim.invariants.monitor import Invariant
from sim.process import Process
from sim.world import World

Handlers = dict[type, Callable[[Process, Any], None]]

WATCHED_FLEETS = 64  # agents: in larger fleets looking at every member of everybody would cost more than the fleet
RESURRECTION_BOUND = 45 * SECOND  # dead peers are tried every 10 s; four tries under loss, and the gossip after it
DRAIN_BOUND = 60 * SECOND  # of quiet, in which every rumour queue must have been empty once


class NobodyDeclaresItselfDead(Invariant):
    """A node refutes what is said of itself; it never believes its own death."""

    name = "nobody declares itself dead"

    def handlers(self) -> Handlers:
        return {MemberDied: self._died}

    def _died(self, process: Process, event: MemberDied) -> None:
        self.exercised += 1
        if event.member.path == process.node_id.path:
            raise self.violated(process.node_id.path, "declared itself dead")


class RefusedMeansGone(Invariant):
    """Who is declared dead by refusal does not run: a host refuses only for an agent that is gone."""

    name = "refused means gone"

    def handlers(self) -> Handlers:
        return {MemberDied: self._died}

    def _died(self, process: Process, event: MemberDied) -> None:
        if not event.refused:
            return
        self.exercised += 1
        machine = self.world.machines[event.member.path]
        if machine.process is not None and machine.process.node_id.boot == event.member.boot:
            raise self.violated(process.node_id.path, f"declared {event.member} dead by refusal, and it runs")


class LivingAreNotDeadForLong(Invariant):
    """Two agents that run undisturbed, with an undisturbed network between them, do not hold each other dead for
    longer than `RESURRECTION_BOUND`."""

    name = "the living are not dead for long"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._dead: dict[tuple[Process, Path], int] = {}

    def handlers(self) -> Handlers:
        return {MemberDied: self._died, MemberJoined: self._lives, MemberForgotten: self._lives}

    def _died(self, process: Process, event: MemberDied) -> None:
        self._dead[process, event.member.path] = self.world.now

    def _lives(self, process: Process, event: MemberJoined | MemberForgotten) -> None:
        self._dead.pop((process, event.member.path), None)

    def check(self) -> None:
        for (process, path), since in list(self._dead.items()):
            other = self.world.machines[path]
            if not process.is_running:
                del self._dead[process, path]
                continue
            if other.process is None or self.world.now - since < RESURRECTION_BOUND:
                continue
            self.exercised += 1
            if calm_for(self.world, process.machine, other) < RESURRECTION_BOUND:
                continue
            view = process.node.member(path)
            if view is not None and view.state is MemberState.DEAD:
                raise self.violated(process.node_id.path, f"still holds {path} dead, which runs and can be reached")


class SilenceIsSuspectedFirst(Invariant):
    """Nobody is declared dead by silence whom no node suspected before."""

    name = "silence is suspected first"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._suspected: dict[NodeId, int] = {}

    def handlers(self) -> Handlers:
        return {MemberDied: self._died, MemberSuspected: self._suspects}

    def _suspects(self, process: Process, event: MemberSuspected) -> None:
        self._suspected.setdefault(event.member, self.world.now)

    def _died(self, process: Process, event: MemberDied) -> None:
        if event.refused:
            return
        self.exercised += 1
        if event.member not in self._suspected:
            raise self.violated(process.node_id.path, f"declared {event.member} dead by silence; nobody suspected it")


class DeathIsCorroborated(Invariant):
    """In a data center of four or more, death rests on two observers, or on a suspicion of this node's own that ran
    for its whole minimum: one half-deaf node cannot kill the healthy.  Where nobody else runs, nobody else can be asked."""

    name = "death is corroborated"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._suspected: dict[tuple[Process, NodeId], int] = {}

    def handlers(self) -> Handlers:
        return {MemberDied: self._died, MemberSuspected: self._suspects, MemberRefuted: self._refuted}

    def _suspects(self, process: Process, event: MemberSuspected) -> None:
        self._suspected.setdefault((process, event.member), self.world.now)

    def _refuted(self, process: Process, event: MemberRefuted) -> None:
        self._suspected.pop((process, event.member), None)

    def _died(self, process: Process, event: MemberDied) -> None:
        since = self._suspected.pop((process, event.member), None)
        datacenter = event.member.datacenter
        if datacenter != process.node_id.datacenter:
            return
        members = process.node.members.values()
        size = sum(one.node.datacenter == datacenter and one.state is not MemberState.LEFT for one in members)
        if size < 5:  # with room: the node counts the living before its own window
            return
        self.exercised += 1
        if event.refused and not self._witnesses(process, event.member):
            return
        needed = REFUSAL_QUORUM if event.refused else 2
        if len(event.observers) >= needed:
            return
        settings = process.node.settings
        minimum = int(settings.suspicion_multiplier * max(1.0, log10(size - 1)) * settings.probe_period * 0.9)
        if event.refused or since is None or self.world.now - since < minimum:
            raise self.violated(
                process.node_id.path,
                f"declared {event.member} dead on the word of {', '.join(event.observers) or 'nobody'}",
            )

    def _witnesses(self, process: Process, target: NodeId) -> list[Path]:
        """Who else runs in this data center."""
        own = process.node_id
        others = (one for one in self.world.machines.values() if one.datacenter == own.datacenter and one.process)
        return [one.path for one in others if one.path not in (own.path, target.path)]


class IncarnationsGrow(Invariant):
    """What a node knows of a member, (boot, incarnation), never goes back, except after the member was forgotten."""

    name = "incarnations grow"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._known: dict[tuple[Process, Path], tuple[int, int]] = {}

    def handlers(self) -> Handlers:
        return {
            MemberJoined: self._joined,
            MemberSuspected: self._changed,
            MemberRefuted: self._changed,
            MemberDied: self._changed,
            MemberLeft: self._changed,
            MemberForgotten: self._forgotten,
        }

    def _joined(self, process: Process, event: MemberJoined) -> None:
        if (process, event.member.path) in self._known:  # joins of a whole fleet are too many to keep
            self._changed(process, event)

    def _changed(
        self, process: Process, event: MemberJoined | MemberSuspected | MemberRefuted | MemberDied | MemberLeft
    ) -> None:
        path = event.member.path
        view = process.node.member(path)
        if view is not None:
            self._look_at(process, path, view)

    def _look_at(self, process: Process, path: Path, view: MemberView) -> None:
        now = (view.node.boot, view.incarnation)
        before = self._known.get((process, path), (0, 0))
        self._known[process, path] = now
        self.exercised += 1
        if now < before:
            raise self.violated(process.node_id.path, f"knew {path} as (boot, incarnation) {before}, now as {now}")

    def check(self) -> None:
        """What no event tells of; in a large fleet events have to do."""
        if len(self.world.machines) > WATCHED_FLEETS:
            return
        for machine in self.world.machines.values():
            if machine.process is not None and not machine.process.is_paused:
                for path, view in machine.process.node.members.items():
                    self._look_at(machine.process, path, view)

    def _forgotten(self, process: Process, event: MemberForgotten) -> None:
        self._known.pop((process, event.member.path), None)


class OnlyLeaversLeft(Invariant):
    """Who is said to have left was asked to leave."""

    name = "only who leaves has left"

    def handlers(self) -> Handlers:
        return {MemberLeft: self._left}

    def _left(self, process: Process, event: MemberLeft) -> None:
        self.exercised += 1
        if event.member.path not in self.world.truth.left:
            raise self.violated(process.node_id.path, f"says that {event.member} left, which nobody asked for")


class PlannedRestartIsNoDeath(Invariant):
    """Whoever heard that a member restarts does not declare that start dead before the announced time is over."""

    name = "a planned restart is no death"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._heard: dict[tuple[Process, NodeId], int] = {}

    def handlers(self) -> Handlers:
        return {MemberRestarting: self._restarting, MemberDied: self._died}

    def _restarting(self, process: Process, event: MemberRestarting) -> None:
        self.exercised += 1
        self._heard[process, event.member] = self.world.now + min(event.within, RESTART_GRACE)

    def _died(self, process: Process, event: MemberDied) -> None:
        if self._heard.get((process, event.member), 0) > self.world.now:
            raise self.violated(process.node_id.path, f"declared {event.member} dead, which had announced its restart")


class BrakeHoldsRemovals(Invariant):
    """While a node's brake holds, it declares nobody of its data center dead: likelier it cannot see."""

    name = "the brake holds removals"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._braked: dict[Process, None] = {}

    def handlers(self) -> Handlers:
        return {BrakeChanged: self._changed, MemberDied: self._died}

    def _changed(self, process: Process, event: BrakeChanged) -> None:
        if event.datacenter != process.node_id.datacenter:
            return
        if event.engaged:
            self.exercised += 1
            self._braked[process] = None
        else:
            self._braked.pop(process, None)

    def _died(self, process: Process, event: MemberDied) -> None:
        if process in self._braked and event.member.datacenter == process.node_id.datacenter:
            raise self.violated(process.node_id.path, f"declared {event.member} dead while its brake holds")


class RumourQueuesDrain(Invariant):
    """Without anything new for `DRAIN_BOUND`, the rumour queue of every node that has somebody to tell was empty once."""

    name = "rumour queues drain"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._empty: dict[Path, int] = {}

    def check(self) -> None:
        now = self.world.now
        for path, machine in self.world.machines.items():
            process = machine.process
            if process is None or process.is_paused or process.node.queued_rumors == 0 or self._is_alone(process):
                self._empty[path] = now
                continue
            quiet_since = max(self._empty.get(path, 0), self.world.last_event, self.world.last_fault)
            if now - quiet_since > DRAIN_BOUND // 2:
                self.exercised += 1
            if now - quiet_since > DRAIN_BOUND:
                raise self.violated(path, f"{process.node.queued_rumors} rumours never drained")

    def _is_alone(self, process: Process) -> bool:
        """It knows nobody alive in its data center: rumours wait for the first who comes."""
        home = self.world.layout.nodes[process.node_id.datacenter]
        views = [process.node.member(path) for path in home if path != process.node_id.path]
        return not any(view is not None and view.state in LIVING for view in views)


MEMBERSHIP: tuple[type[Invariant], ...] = (
    NobodyDeclaresItselfDead,
    RefusedMeansGone,
    LivingAreNotDeadForLong,
    SilenceIsSuspectedFirst,
    DeathIsCorroborated,
    IncarnationsGrow,
    OnlyLeaversLeft,
    PlannedRestartIsNoDeath,
    BrakeHoldsRemovals,
    RumourQueuesDrain,
)
