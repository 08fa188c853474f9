"""The book of runs: what the log says of every config run, in the order of the log, whichever server applied it first.

Fed by the wiretap's reference store with each command of runs as it was agreed.  Invariants hold what hosts did, and what
was granted when, against it.
"""

from collections.abc import Callable
from typing import TypeAlias

from msgspec import Struct

from dislocate.core.boundary.events import NodeMoved, RunMoved
from dislocate.core.boundary.runs import OVER, Direction, NodeState, RunPlan, RunState, StartRun
from dislocate.core.boundary.spec import RunSpec
from dislocate.core.identity import Path
from dislocate.core.runs.amounts import amount
from dislocate.core.runs.steps import CloseBatch

IN_FLIGHT = (NodeState.GRANTED, NodeState.STARTED, NodeState.UNKNOWN)
BAD = (NodeState.FAILED, NodeState.UNREACHABLE, NodeState.UNKNOWN)

Moved: TypeAlias = RunMoved | NodeMoved


class BookedRun(Struct):
    """One run, as of what was applied."""

    id: str
    spec: RunSpec
    plan: RunPlan
    state: RunState
    version: int
    nodes: dict[Path, NodeState]
    direction: Direction = Direction.APPLY
    batch: int = 0  # of the plan: under way or next, as batches were closed; of an apply
    granted_as: dict[Path, Direction] = {}  # what each was granted last
    over_since: int | None = None

    @property
    def budget(self) -> int:
        return amount(self.spec.strategy.max_failed, len(self.plan.targets))

    def count(self, *states: NodeState) -> int:
        return sum(state in states for state in self.nodes.values())


class Book:
    """All runs of one world."""

    def __init__(self, now: Callable[[], int]) -> None:
        self.runs: dict[str, BookedRun] = {}
        self.listeners: list[Callable[[BookedRun, Moved], None]] = []  # told before the book has the move
        self._now = now
        self._answered: list[str] = []

    def latest(self, name: str) -> str | None:
        """The id of the run of that name that began last."""
        return next((run.id for run in reversed(self.runs.values()) if run.spec.name == name), None)

    def answered(self, run: str) -> None:
        """An operator was told that it began."""
        self._answered.append(run)

    @property
    def lost(self) -> list[str]:
        """Runs that an operator was told of, and that the log does not have."""
        return [run for run in self._answered if run not in self.runs]

    def applied(self, body: object, moved: tuple[Moved, ...]) -> None:
        """A command of runs, and what it moved."""
        for event in moved:
            if isinstance(event, RunMoved) and not event.before:
                assert isinstance(body, StartRun)
                nodes = dict.fromkeys(body.plan.targets, NodeState.PENDING)
                self.runs[event.run] = BookedRun(
                    event.run, body.spec, body.plan, RunState(event.now), event.version, nodes
                )
            run = self.runs[event.run]
            for listener in self.listeners:
                listener(run, event)
            self._enter(run, event)
        if isinstance(body, CloseBatch):
            self.runs[body.run].batch += 1

    def _enter(self, run: BookedRun, event: Moved) -> None:
        if isinstance(event, NodeMoved):
            run.nodes[event.node] = NodeState(event.now)
            if event.now == NodeState.GRANTED.value:
                run.granted_as[event.node] = run.direction
            return
        run.state, run.version = RunState(event.now), event.version
        if run.state is RunState.REVERTING:
            run.direction = Direction.REVERT
        run.over_since = self._now() if run.state in OVER else None
