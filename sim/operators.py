"""Operators: people who start config runs and steer them, and who mean it: asked again until it is so.

An operator asks an agent that is up; without an answer, or with one that says nobody can do it now, another one some seconds
later.  What is refused for a reason stays refused.
"""

from collections.abc import Callable

from dislocate.core.boundary.requests import Refused, Result
from dislocate.core.boundary.runs import RunStarted, StartRun, SteerRun, Verb
from dislocate.core.boundary.spec import RunSpec
from dislocate.core.errors import LocalError
from dislocate.core.identity import Path
from dislocate.core.node import Node
from dislocate.core.runs.plan import make_plan
from dislocate.core.runs.targeting import Candidate, parse_target
from dislocate.core.units import SECOND
from sim.scenario import Fault, PlannedRun
from sim.selectors import as_tuple
from sim.world import World

AGAIN = 3 * SECOND
PATIENCE = 12 * SECOND  # without an answer


def place_runs(world: World) -> None:
    """Start every run of the scenario at its time."""

    def due(run: PlannedRun, _: None, __: None) -> None:
        _Asking(world, lambda path: _start(world, path, run.spec), run.by)

    for run in world.scenario.runs:
        world.schedule.call(run.time, due, run)


def steer(world: World, fault: Fault) -> None:
    """Do `fault.verb` to the run, of that name, that began last."""
    nodes = world.layout.agents(as_tuple(fault.target)) or ("",)
    for node in nodes:

        def request(path: Path, node: Path = node) -> SteerRun | None:
            run = world.truth.runs.latest(fault.run)
            return (
                None if run is None else SteerRun(run, Verb(fault.verb), f"operator@{path}", _unix(world, path), node)
            )

        _Asking(world, request, "")


class _Asking:
    """One thing that is wanted."""

    def __init__(self, world: World, request: Callable[[Path], StartRun | SteerRun | None], by: Path) -> None:
        self._world = world
        self._request = request
        self._by = by
        self._attempt = 0
        self._is_over = False
        self._ask(None, None, None)

    def _ask(self, _: None, __: None, ___: None) -> None:
        if self._is_over:
            return
        world, up = self._world, self._world.observers_up()
        candidates = [self._by] if self._by in up else [] if self._by else list(up)
        wait = AGAIN
        if candidates:
            path = candidates[self._attempt % len(candidates)]
            request = self._request(path)
            if request is not None:
                wait = PATIENCE
                world.request(world.machines[path], request, self._answered)
        self._attempt += 1
        if not self._is_over:
            world.schedule.call(world.now + wait, self._ask, None)

    def _answered(self, result: Result) -> None:
        if isinstance(result, Refused) and result.kind == "unavailable":
            return
        if isinstance(result, RunStarted):
            self._world.truth.runs.answered(result.run)
        self._is_over = True


def _start(world: World, path: Path, spec: RunSpec) -> StartRun | None:
    """None: nobody matches yet, as that agent sees it."""
    targets = parse_target(spec.targets).select(candidates(world.node(path)))
    try:
        plan = make_plan(spec, targets)
    except LocalError:
        return None
    return StartRun(spec, plan, {}, f"operator@{path}", _unix(world, path))


def candidates(node: Node) -> list[Candidate]:
    """Everybody whom an agent knows, as targets are chosen from."""
    return list(node.candidates)


def _unix(world: World, path: Path) -> int:
    return world.machines[path].unix_ns(world.now)
