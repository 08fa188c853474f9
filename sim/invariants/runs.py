"""Invariants of config runs (design, section 6): nothing is changed that was not granted, nothing twice, and never more at
risk than the strategy allows.

What was granted is read from the log as the servers agreed on it (`book`); what was done, from the hosts themselves.
"""

import itertools
from collections.abc import Callable
from typing import Any

from dislocate.core.boundary.events import NodeMoved, RunMoved, TaskBegun, TaskEnded
from dislocate.core.boundary.runs import OVER, Direction, NodeState, RunState, TaskVerb
from dislocate.core.boundary.spec import Command
from dislocate.core.identity import Path
from dislocate.core.runs.drift import DRIFT_PERIOD
from dislocate.core.runs.journal import Journal, Purpose, journal_key
from dislocate.core.runs.records import AUDIT, counts_key, decode
from dislocate.core.runs.spec import resource_id
from dislocate.core.units import SECOND
from sim.book import BAD, IN_FLIGHT, BookedRun, Moved
from sim.host import Effect, digest_of
from sim.invariants.datacenters import calm_since
from sim.invariants.monitor import Invariant
from sim.process import Process
from sim.services import ServiceLife
from sim.world import World

CALM_BOUND = 60 * SECOND  # without a fault: whoever was cut off has reported
ENFORCED = DRIFT_PERIOD + 10 * SECOND  # what drifted was looked at, and brought back
REPORTED = (NodeState.DONE, NodeState.FAILED, NodeState.REVERTED, NodeState.REVERT_FAILED)

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
        if not isinstance(event, NodeMoved) or event.now != NodeState.GRANTED.value:
            return
        if run.direction is Direction.REVERT:
            return
        self.exercised += 1
        bad = [path for path, state in run.nodes.items() if state in BAD and path != event.node]
        if len(bad) > run.budget:
            words = f"was granted run {run.id}, whose budget of {run.budget} is spent by {', '.join(bad)}"
            raise self.violated(event.node, words)


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
        if not isinstance(event, NodeMoved) or event.now != NodeState.GRANTED.value:
            return
        if run.direction is Direction.REVERT:
            return
        datacenter = event.node.partition("/")[0]
        flying = [path for path, state in run.nodes.items() if state in IN_FLIGHT] + [event.node]
        for service, part in run.spec.strategy.floor.items():
            found = [
                (machine.path, one)
                for machine in self.world.machines.values()
                if machine.datacenter == datacenter
                for one in machine.services.values()
                if one.spec.service == service
            ]
            if not any(path == event.node for path, _ in found) or any(one.was_touched for _, one in found):
                continue  # what the leader can know of those is no simple question
            self.exercised += 1
            serving = sum(one.life is ServiceLife.UP and path not in flying for path, one in found)
            if serving < part * len(found):
                words = f"was granted run {run.id}: {serving} of {len(found)} {service} are left, below {part:g}"
                raise self.violated(event.node, words)


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


class HostsAreAsTheLogSays(RunInvariant):
    """In the end a node that is done has every resource as it should be, one that is reverted as it was, and one that was
    never granted is untouched; counts are the nodes' states; whoever was told that a run began finds it."""

    name = "hosts are as the log says"

    def conclude(self) -> None:
        if not self.is_needed:
            return
        book = self.world.truth.runs
        if book.lost:
            raise self.violated("an operator", f"was told that run {book.lost[0]} began, and the log has no such run")
        reference = self.world.wiretap.reference
        for run in book.runs.values():
            self._compare_counts(run, reference.keys)
        since = calm_since(self.world)
        if since is None or self.world.now - since < CALM_BOUND:
            return
        latest: dict[Path, BookedRun] = {}
        for run in book.runs.values():
            for path, state in run.nodes.items():
                if state is not NodeState.PENDING:
                    latest[path] = run
        for path, run in latest.items():
            if run.state in OVER:
                self.exercised += 1
                self._compare_host(path, run)

    def _compare_counts(self, run: BookedRun, keys: Any) -> None:
        found = keys.get(counts_key(run.id))
        if found is None:  # so old that it was dropped
            return
        told = {state: number for state, number in decode(found.value, dict[str, int]).items() if number}
        seen: dict[str, int] = {}
        for state in run.nodes.values():
            if state is not NodeState.PENDING:
                seen[state.value] = seen.get(state.value, 0) + 1
        if told != seen:
            raise self.violated("the log", f"counts {told} in run {run.id}, whose nodes are {seen}")

    def _compare_host(self, path: Path, run: BookedRun) -> None:
        host, state = self.world.machines[path].host, run.nodes[path]
        since = calm_since(self.world)
        is_enforced = run.spec.enforce and since is not None and self.world.now - since >= ENFORCED
        by_hand = {} if is_enforced else host.drifted
        for resource in run.spec.resources:
            name = resource_id(resource)
            before = host.before.get((run.id, name))
            if name in by_hand:
                continue
            if state is NodeState.DONE and not resource.only_notified and host.state(name) != digest_of(resource):
                raise self.violated(path, f"is done in run {run.id}, and {name} is not as it should be")
            is_left = resource.__struct_config__.tag == "command"
            if state is NodeState.REVERTED and before is not None and host.state(name) != before and not is_left:
                raise self.violated(path, f"is reverted in run {run.id}, and {name} is not as it was ({before})")
        if state is NodeState.PENDING and any(effect.run == run.id for effect in host.effects):
            raise self.violated(path, f"was never granted run {run.id}, and was changed by it")


class OwedHandlersRun(RunInvariant):
    """When a node is done, each command that a changed resource notifies has run there since that change, whoever died between
    the change and the journal."""

    name = "a handler that is owed runs"

    def moved(self, run: BookedRun, event: Moved) -> None:
        if not isinstance(event, NodeMoved) or event.now != NodeState.DONE.value:
            return
        effects = [one for one in self.world.machines[event.node].host.effects if one.run == run.id]
        latest = {one.resource: at for at, one in enumerate(effects) if one.verb is TaskVerb.APPLY}
        handlers = {resource_id(one) for one in run.spec.resources if isinstance(one, Command) and one.only_notified}
        for resource in run.spec.resources:
            changed = latest.get(resource_id(resource))
            if changed is None:
                continue
            for handler in resource.notify:
                if handler not in handlers:
                    continue  # whether it ran leaves no mark on the host
                self.exercised += 1
                if latest.get(handler, -1) < changed:
                    words = f"is done in run {run.id}, and {resource_id(resource)} changed without {handler} after it"
                    raise self.violated(event.node, words)


class ReportsAreDurable(RunInvariant):
    """What a node has told the log of its part stands in its own journal, whatever becomes of its agent next."""

    name = "reports are durable"

    def moved(self, run: BookedRun, event: Moved) -> None:
        if not isinstance(event, NodeMoved) or NodeState(event.now) not in REPORTED:
            return
        disk = self.world.machines[event.node].disk
        if disk.generation > 1:  # what was on another disk is gone
            return
        self.exercised += 1
        purpose = Purpose.APPLY if event.now in (NodeState.DONE.value, NodeState.FAILED.value) else Purpose.REVERT
        value = disk.durable(journal_key(run.id, purpose))
        found = None if value is None else decode(value, Journal).state
        if found is not NodeState(event.now):
            held = "nothing" if found is None else found.value
            raise self.violated(event.node, f"told that it is {event.now} in run {run.id}, and its journal says {held}")


class NoReportIsLost(RunInvariant):
    """In the end nobody waits for a node that runs and has nothing to do."""

    name = "no report is lost"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._busy: dict[Process, None] = {}

    def handlers(self) -> Handlers:
        return {TaskBegun: self._task_begun, TaskEnded: self._task_ended}

    def _task_begun(self, process: Process, _event: TaskBegun) -> None:
        self._busy[process] = None

    def _task_ended(self, process: Process, _event: TaskEnded) -> None:
        self._busy.pop(process, None)

    def conclude(self) -> None:
        since = calm_since(self.world)
        if not self.is_needed or since is None or self.world.now - since < CALM_BOUND:
            return
        for run in self.world.truth.runs.runs.values():
            for path, state in run.nodes.items():
                process = self.world.machines[path].process
                if process is None or process in self._busy:
                    continue
                self.exercised += state is not NodeState.PENDING
                if state in (NodeState.STARTED, NodeState.UNKNOWN):
                    raise self.violated(path, f"has nothing to do, and run {run.id} waits for it ({state.value})")


class WhatHappenedIsAudited(RunInvariant):
    """Every move of a run is in the audit, whose numbers have no gap and whose entries each name the one before."""

    name = "what happened is audited"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._moves: dict[str, int] = {}

    def moved(self, run: BookedRun, event: Moved) -> None:
        if isinstance(event, RunMoved) and event.before != event.now:
            self._moves[run.id] = self._moves.get(run.id, 0) + 1

    def conclude(self) -> None:
        if not self.is_needed:
            return
        keys = self.world.wiretap.reference.keys
        entries = [decode(kv.value, dict[str, Any]) for key, kv in sorted(keys.items()) if key.startswith(AUDIT)]
        self.exercised += len(entries)
        for run, moves in self._moves.items():
            told = [one for one in entries if one["run"] == run]
            told = [one for one in told if one["verb"] == "start" or " -> " in one.get("evidence", "")]
            if len(told) < moves:
                raise self.violated("the log", f"has {len(told)} entries of audit for {moves} moves of run {run}")
        for earlier, later in itertools.pairwise(entries):
            if later["number"] != earlier["number"] + 1 or later["before"] != earlier["hash"]:
                raise self.violated("the log", f"entry {later['number']} of the audit does not follow the one before")


RUNS: tuple[type[Invariant], ...] = (
    NothingWithoutAGrant,
    NoEffectTwice,
    NoGrantOverTheBudget,
    OneBatchAtATime,
    NothingBeginsWhileHeld,
    OneRunOnANode,
    FloorIsKept,
    RunsGoForward,
    HostsAreAsTheLogSays,
    OwedHandlersRun,
    ReportsAreDurable,
    NoReportIsLost,
    WhatHappenedIsAudited,
)
