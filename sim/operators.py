"""Operators: people who start config runs and steer them, or say what is to be scaled, and mean it: they ask until it is so.

An operator asks an agent that is up; without an answer, or with one that says nobody can do it now or nobody knows whether it
was done, another one some seconds later.  What is refused for a reason stays refused.
"""

from collections.abc import Callable

from dislocate.core.boundary.requests import Refused, Result
from dislocate.core.boundary.runs import RunStarted, StartRun, SteerRun, Task, TaskVerb, Verb
from dislocate.core.boundary.spec import RunSpec
from dislocate.core.boundary.store import Put, Transact, Uncertain
from dislocate.core.errors import LocalError, require
from dislocate.core.identity import Path
from dislocate.core.runs.agent.actions import work_to_apply
from dislocate.core.runs.plan import make_plan, plan_digest
from dislocate.core.runs.resources import is_shared
from dislocate.core.runs.spec import ordered
from dislocate.core.runs.targeting import parse_target
from dislocate.core.scale.records import encode, policy_key
from dislocate.core.units import SECOND
from sim.process import Machine
from sim.scenario import Fault
from sim.selectors import as_tuple
from sim.world import World

STEERER = "steerer"  # another than who starts runs: somebody else is to approve them
AGAIN = 3 * SECOND
PATIENCE = 12 * SECOND  # without an answer


def place_runs(world: World) -> None:
    """Start every run of the scenario at its time."""

    runs = world.scenario.runs
    expected: dict[int, dict[Path, str]] = {}  # by number: how the hosts were when the plan was made

    def planned(number: int, _: None, __: None) -> None:
        machines = world.machines.items()
        expected[number] = {path: _digest_of(machine, runs[number].spec) for path, machine in machines}

    def due(number: int, _: None, __: None) -> None:
        run, found = runs[number], expected.get(number, {})
        _Asking(world, lambda path: _start(world, path, run.spec, found), run.by)

    for number, run in enumerate(runs):
        if run.task_times:
            require(world.wiretap is not None, "hosts read in the book of runs how long their tasks take")
        if run.planned is not None:
            world.schedule.call(run.planned, planned, number)
        world.schedule.call(run.time, due, number)


def place_scales(world: World) -> None:
    """Set every policy of scaling of the scenario at its time."""

    def due(number: int, _: None, __: None) -> None:
        scale = world.scenario.scales[number]
        put = Put(policy_key(scale.service), encode(scale.policy))
        _Asking(world, lambda _path: Transact((), (put,)), "")

    for number, scale in enumerate(world.scenario.scales):
        world.sizes.boots[scale.service] = scale.boot
        world.schedule.call(scale.time, due, number)


def steer(world: World, fault: Fault) -> None:
    """Do `fault.verb` to the run, of that name, that began last."""
    nodes = world.layout.agents(as_tuple(fault.target)) or ("",)
    for node in nodes:

        def request(path: Path, node: Path = node) -> SteerRun | None:
            run = world.truth.runs.latest(fault.run)
            if run is None:
                return None
            return SteerRun(run, Verb(fault.verb), f"{STEERER}@{path}", _unix(world, path), node)

        _Asking(world, request, "")


class _Asking:
    """One thing that is wanted."""

    def __init__(
        self, world: World, request: Callable[[Path], StartRun | SteerRun | Transact | None], by: Path
    ) -> None:
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
        if isinstance(result, Uncertain) or (isinstance(result, Refused) and result.kind == "unavailable"):
            return
        if isinstance(result, RunStarted):
            self._world.truth.runs.answered(result.run)
        self._is_over = True


def _digest_of(machine: Machine, spec: RunSpec) -> str:
    """How the resources of `spec` are on that host, as its agent would tell it for a plan."""
    works = [work for work in work_to_apply(ordered(spec)) if not is_shared(work.resource)]
    looks = [(work.name, machine.host.look(Task(TaskVerb.LOOK, work.resource, ""))) for work in works]
    return plan_digest((name, look.before) for name, look in looks)


def _start(world: World, path: Path, spec: RunSpec, expected: dict[Path, str]) -> StartRun | None:
    """None: nobody matches yet, as that agent sees it."""
    targets = parse_target(spec.targets).select(world.node(path).candidates)
    try:
        plan = make_plan(spec, targets, expected={path: expected[path] for path in targets if path in expected})
    except LocalError:
        return None
    return StartRun(spec, plan, {}, f"operator@{path}", _unix(world, path))


def _unix(world: World, path: Path) -> int:
    return world.machines[path].unix_ns(world.now)
