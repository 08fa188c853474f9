"""Invariants of what config runs leave behind: on hosts, in journals, in counts, and in the audit.

Held against the log's book of runs when a node reports, or when the story is over and nothing has been done to anybody for a
while.  What may be done when is `runs`' affair.
"""

import itertools
from typing import Any

from dislocate.core.boundary.events import NodeMoved, RunMoved, TaskBegun, TaskEnded
from dislocate.core.boundary.runs import OVER, NodeState, TaskVerb
from dislocate.core.boundary.spec import Command
from dislocate.core.identity import Path
from dislocate.core.runs.agent.drift import DRIFT_PERIOD
from dislocate.core.runs.agent.journal import Journal, Purpose, journal_key
from dislocate.core.runs.records import AUDIT, counts_key, decode
from dislocate.core.runs.resources import resource_id
from dislocate.core.units import SECOND
from sim.book import BookedRun, Moved
from sim.host import digest_of
from sim.invariants.datacenters import calm_since
from sim.invariants.monitor import Invariant
from sim.invariants.runs import Handlers, RunInvariant
from sim.process import Process
from sim.world import World

CALM_BOUND = 60 * SECOND  # without a fault: whoever was cut off has reported
ENFORCED = DRIFT_PERIOD + 10 * SECOND  # what drifted was looked at, and brought back
REPORTED = (NodeState.DONE, NodeState.FAILED, NodeState.REVERTED, NodeState.REVERT_FAILED)


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


RUN_OUTCOMES: tuple[type[Invariant], ...] = (
    HostsAreAsTheLogSays,
    OwedHandlersRun,
    ReportsAreDurable,
    NoReportIsLost,
    WhatHappenedIsAudited,
)
