"""Invariants of config runs (design, section 6): nothing is changed that was not granted, nothing twice, and never more at
risk than the strategy allows.

What was granted is read from the log as the servers agreed on it (`book`); what was done, from the hosts themselves.
"""

from collections.abc import Callable
from typing import Any

from dislocate.core.boundary.events import NodeMoved, RunMoved, TaskBegun, TaskEnded
from dislocate.core.boundary.runs import OVER, Direction, NodeState, RunState, TaskVerb
from dislocate.core.identity import Path
from dislocate.core.runs.resources import resource_id
from sim.book import BAD, IN_FLIGHT, BookedRun, Moved
from sim.host import Effect
from sim.invariants.monitor import Invariant
from sim.process import Process
from sim.services import ServiceLife
from sim.world import World

Handlers = dict[type, Callable[[Process, Any], None]]


class RunInvariant(Invariant):
    """One that is idle in a scenario without config runs."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.is_needed = bool(world.scenario.runs)
        if self.is_needed:
            assert world.wiretap is not None  # listens from now on
            world.truth.runs.listeners.append(self.moved)
            world.effect_observers.append(self.changed)

    def moved(self, run: BookedRun, event: Moved) -> None:
        """The log moves a run or a node; the book does not have it yet."""

    def changed(self, path: Path, effect: Effect) -> None:
        """A task changed something on a host."""

    def begins(self, run: BookedRun, event: Moved) -> Path:
        """Who is granted to begin; '' for whatever else happens, and on the way back."""
        if not isinstance(event, NodeMoved) or event.now != NodeState.GRANTED.value:
            return ""
        return event.node if run.direction is Direction.APPLY else ""

    def book_of(self, path: Path, effect: Effect) -> BookedRun:
        run = self.world.truth.runs.runs.get(effect.run)
        if run is None or path not in run.nodes:
            raise self.violated(path, f"changed {effect.resource} for run {effect.run}, of which the log knows nothing")
        return run


def is_handler(run: BookedRun, effect: Effect) -> bool:
    """Whether the resource is there for others to notify."""
    return any(one.only_notified and resource_id(one) == effect.resource for one in run.spec.resources)


class NothingWithoutAGrant(RunInvariant):
    """A host is changed only while the log says that its node was granted that and has not reported yet.

    What an operator skips, or has tried again, while it is in flight ends as it began."""

    name = "nothing without a grant"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._left: dict[tuple[str, Path], TaskVerb] = {}  # in flight, and not waited for

    def moved(self, run: BookedRun, event: Moved) -> None:
        if not isinstance(event, NodeMoved):
            return
        was_in_flight = event.before in (NodeState.STARTED.value, NodeState.UNKNOWN.value)
        if was_in_flight and event.now in (NodeState.PENDING.value, NodeState.SKIPPED.value):
            self._left[run.id, event.node] = self._verb_of(run, event.node)
        elif event.now == NodeState.STARTED.value:
            self._left.pop((run.id, event.node), None)

    def _verb_of(self, run: BookedRun, path: Path) -> TaskVerb:
        return TaskVerb.APPLY if run.granted_as.get(path) is Direction.APPLY else TaskVerb.REVERT

    def changed(self, path: Path, effect: Effect) -> None:
        run = self.book_of(path, effect)
        self.exercised += 1
        state = run.nodes[path]
        if run.spec.enforce and state is NodeState.DONE and effect.verb is TaskVerb.APPLY:
            return
        left = self._left.get((run.id, path))
        wanted = left or self._verb_of(run, path)
        is_right = effect.verb is wanted or is_handler(run, effect)  # a service reloads what was taken back, too
        is_in_flight = state in (NodeState.STARTED, NodeState.UNKNOWN) or left is not None
        if not is_in_flight or not is_right:
            words = f"was {state.value} in run {run.id} when it did {effect.verb.value} {effect.resource}"
            raise self.violated(path, words)


class NoEffectTwice(RunInvariant):
    """What a run does to a resource of a node it does once, and takes back at most once, whoever dies on the way.

    A handler is owed until it is known to have run, so it may run again."""

    name = "no effect twice"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._done: dict[tuple[str, Path, str], TaskVerb] = {}

    def changed(self, path: Path, effect: Effect) -> None:
        run = self.book_of(path, effect)
        if run.spec.enforce or is_handler(run, effect):
            return
        self.exercised += 1
        key = (effect.run, path, effect.resource)
        if self._done.get(key) is effect.verb:
            raise self.violated(path, f"did {effect.verb.value} {effect.resource} of run {effect.run} twice")
        self._done[key] = effect.verb


class NoGrantOverTheBudget(RunInvariant):
    """While more nodes are failed, unreachable or unknown than the strategy allows, nobody is granted to begin."""

    name = "no grant over the budget"

    def moved(self, run: BookedRun, event: Moved) -> None:
        node = self.begins(run, event)
        if not node:
            return
        self.exercised += 1
        bad = [path for path, state in run.nodes.items() if state in BAD and path != node]
        if len(bad) > run.budget:
            words = f"was granted run {run.id}, whose budget of {run.budget} is spent by {', '.join(bad)}"
            raise self.violated(node, words)


class OneBatchAtATime(RunInvariant):
    """Nodes in flight are of one batch of the plan, besides those that an operator asked for again."""

    name = "one batch at a time"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._again: dict[tuple[str, Path], None] = {}

    def moved(self, run: BookedRun, event: Moved) -> None:
        if not isinstance(event, NodeMoved):
            return
        if event.now == NodeState.PENDING.value and event.before != NodeState.GRANTED.value:
            self._again[run.id, event.node] = None
        if event.now != NodeState.GRANTED.value or run.direction is Direction.REVERT:
            return
        self.exercised += 1
        flying = [path for path, state in run.nodes.items() if state in IN_FLIGHT] + [event.node]
        flying = [path for path in flying if (run.id, path) not in self._again]
        planned = [batch.nodes for batch in run.plan.batches if any(path in batch.nodes for path in flying)]
        if len(planned) > 1:
            raise self.violated(event.node, f"was granted run {run.id} beside {', '.join(flying[:-1])}")


class NoBatchBeforeItsTurn(RunInvariant):
    """Nobody is granted to begin before all batches ahead of his are closed: canaries have soaked, and gates have passed,
    whatever an operator asked for meanwhile."""

    name = "no batch before its turn"

    def moved(self, run: BookedRun, event: Moved) -> None:
        node = self.begins(run, event)
        if not node:
            return
        self.exercised += 1
        later = (batch.nodes for batch in run.plan.batches[run.batch + 1 :])
        if any(node in nodes for nodes in later):
            raise self.violated(node, f"was granted run {run.id}, which is at batch {run.batch + 1}: his is later")


class NothingBeginsWhileHeld(RunInvariant):
    """A node is granted, and begins, only while the run goes on: not while it is paused, awaits approval or is over.

    One that had begun before its agent was restarted goes on: what is in flight ends."""

    name = "nothing begins while held"

    def moved(self, run: BookedRun, event: Moved) -> None:
        if not isinstance(event, NodeMoved) or event.now not in (NodeState.GRANTED.value, NodeState.STARTED.value):
            return
        self.exercised += 1
        goes_on = event.before in (NodeState.STARTED.value, NodeState.UNKNOWN.value)
        is_in_flight = goes_on and run.state is RunState.PAUSED
        if run.state not in (RunState.RUNNING, RunState.REVERTING) and not is_in_flight:
            raise self.violated(event.node, f"is {event.now} in run {run.id}, which is {run.state.value}")


class OneRunOnANode(RunInvariant):
    """An agent works on one grant at a time."""

    name = "one run on a node"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._begun: dict[Process, TaskBegun] = {}

    def handlers(self) -> Handlers:
        return {TaskBegun: self._task_begun, TaskEnded: self._task_ended}

    def _task_begun(self, process: Process, event: TaskBegun) -> None:
        self.exercised += 1
        other = self._begun.get(process)
        if other is not None:
            words = f"begins {event.direction} of run {event.run} in the middle of {other.direction} of run {other.run}"
            raise self.violated(process.node_id.path, words)
        self._begun[process] = event

    def _task_ended(self, process: Process, _event: TaskEnded) -> None:
        self._begun.pop(process, None)


class FloorIsKept(RunInvariant):
    """No grant takes a service below the part of its instances that the strategy keeps serving in a data center."""

    name = "the floor is kept"

    def moved(self, run: BookedRun, event: Moved) -> None:
        node = self.begins(run, event)
        if not node:
            return
        datacenter = node.partition("/")[0]
        flying = [path for path, state in run.nodes.items() if state in IN_FLIGHT] + [node]
        for service, part in run.spec.strategy.floor.items():
            found = [
                (machine.path, one)
                for machine in self.world.machines.values()
                if machine.datacenter == datacenter
                for one in machine.services.values()
                if one.spec.service == service
            ]
            if not any(path == node for path, _ in found) or any(one.was_touched for _, one in found):
                continue  # what the leader can know of those is no simple question
            self.exercised += 1
            serving = sum(one.life is ServiceLife.UP and path not in flying for path, one in found)
            if serving < part * len(found):
                words = f"was granted run {run.id}: {serving} of {len(found)} {service} are left, below {part:g}"
                raise self.violated(node, words)


class RunsGoForward(RunInvariant):
    """A run's version grows with each move, and what is over stays over unless it is reverted."""

    name = "runs go forward"

    def moved(self, run: BookedRun, event: Moved) -> None:
        if not isinstance(event, RunMoved) or not event.before:
            return
        self.exercised += 1
        if event.version <= run.version:
            raise self.violated("the log", f"run {run.id} went from version {run.version} to {event.version}")
        if run.state in OVER and event.now != RunState.REVERTING.value:
            raise self.violated("the log", f"run {run.id} was {run.state.value} and is {event.now}")


RUNS: tuple[type[Invariant], ...] = (
    NothingWithoutAGrant,
    NoEffectTwice,
    NoGrantOverTheBudget,
    OneBatchAtATime,
    NoBatchBeforeItsTurn,
    NothingBeginsWhileHeld,
    OneRunOnANode,
    FloorIsKept,
    RunsGoForward,
)
