"""How long a node's part of a run takes: what nodes took before, else what its resources took in other runs, else a guess.

A process can be guessed: it starts and passes, and where an old one stands in the catalog, that one is drained.  What nobody
can know is taken for one second: what commands do.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from statistics import median
from typing import Any

import msgspec
from msgspec import Struct

from dislocate.cli.run_progress import OVER
from dislocate.cli.run_spec import LATEST
from dislocate.client.connection import STORE_TIMEOUT, AgentConnection, Problem, segment
from dislocate.core.boundary.runs import Frozen
from dislocate.core.boundary.spec import Command, Package, Process, Resource, RunSpec, Service
from dislocate.core.identity import Path
from dislocate.core.runs.records import spec_key
from dislocate.core.runs.resources import about, resource_id
from dislocate.core.units import MILLISECOND, SECOND

A_PART = 1 * SECOND  # what nobody knows of
STARTS = 500 * MILLISECOND  # a process, until its own check passes
LISTED = 1 * SECOND  # from then until the catalog has seen it pass
ENDS = 1 * SECOND  # the one that it replaces, once that is drained; all three as measured with `dislocate dev`
UNKNOWABLE = (Command, Package, Service)
SEARCHED = 20  # runs, the latest, in which other runs' resources are looked for


class Past(Struct, frozen=True):
    """What earlier runs tell of one specification."""

    run: str = ""  # the latest of its name in which nodes changed something
    times: tuple[int, ...] = ()  # of that: nanoseconds of each such node
    resources: Mapping[str, tuple[str, int]] = {}  # by kind and what it is about: another run, and nanoseconds


def past_of(agent: AgentConnection, spec: RunSpec) -> Past:
    """Ask the agent.  Raises `Problem` where nothing keeps runs."""
    runs = agent.get(f"/api/runs?limit={LATEST}", STORE_TIMEOUT)["runs"]
    over = [str(run["id"]) for run in runs if run["state"] in OVER]
    named = [str(run["id"]) for run in runs if run["state"] in OVER and run["name"] == spec.name]
    for run in named:
        if times := tuple(_changes(_whole(agent, run))):
            return Past(run, times)
    wanted = [about(resource) for resource in spec.resources]
    return Past(resources={} if spec.task_time else _resources(agent, over[:SEARCHED], wanted))


def part_times(spec: RunSpec, past: Past, services: Collection[str]) -> tuple[tuple[int, ...], str]:
    """What nodes' parts take, and how that is known.  `services`: those that have an instance on some target."""
    starting = sum(_guess(each, services) for each in spec.resources if isinstance(each, Process))
    if past.times and starting > max(past.times):  # what was started then may be replaced now
        known = f"a guess for replacing what runs: run {past.run} took less, and may have been its first start"
        return (starting,), known
    if past.times:
        return past.times, f"as measured in run {past.run}"
    unmeasured = "no run of this name was measured yet"
    if spec.task_time:
        return (spec.task_time,), f"as `task_time` says: {unmeasured}"
    took, runs, guessed = 0, dict[str, None](), False
    for each in spec.resources:
        run, measured = past.resources.get(about(each), ("", 0))
        least = _guess(each, services) if isinstance(each, Process) else 0
        took += max(measured, least)  # what was started then may be replaced now
        runs |= {run: None} if run else {}
        guessed |= not measured and isinstance(each, UNKNOWABLE)
    took += A_PART if guessed or not took else 0
    because = f"a guess from what its resources took in run {', '.join(runs)}" if runs else "a guess"
    return (took,), f"{because}: {unmeasured}, and there is no `task_time`"


def targets_services(services: Mapping[str, Sequence[Mapping[str, Any]]], targets: Collection[Path]) -> tuple[str, ...]:
    """Of `services`, instances by name, those with one on some target."""
    return tuple(name for name, found in services.items() if any(one["node"] in targets for one in found))


def _guess(process: Process, services: Collection[str]) -> int:
    if not process.service:
        return STARTS
    return STARTS + LISTED + (process.drain_for + ENDS if process.service in services else 0)


# ---- asking


def _whole(agent: AgentConnection, run: str) -> Any:
    return agent.get(f"/api/runs/{segment(run)}", STORE_TIMEOUT)


def _changes(answer: Any) -> Iterator[int]:
    for part in answer["nodes"].values():
        if part["state"] == "done" and any(step["result"] == "changed" for step in part["steps"]):
            yield max(1, round(part["took"] * SECOND))


def _resources(agent: AgentConnection, runs: Sequence[str], wanted: Sequence[str]) -> dict[str, tuple[str, int]]:
    """The latest of `runs` in which nodes changed it, and the median of what they took, of each of `wanted`."""
    found: dict[str, tuple[str, int]] = {}
    for run in runs:
        missing = [name for name in wanted if name not in found]
        own = {about(each): resource_id(each) for each in _resources_of(agent, run)} if missing else {}
        if not any(name in own for name in missing):
            continue
        answer = _whole(agent, run)
        for name in missing:
            if name in own and (times := list(_steps(answer, own[name]))):
                found[name] = (run, round(median(times)))
    return found


def _resources_of(agent: AgentConnection, run: str) -> tuple[Resource, ...]:
    """None, where the run was forgotten meanwhile."""
    try:
        value = agent.raw("GET", f"/api/kv/{spec_key(run)}?raw=true", timeout=STORE_TIMEOUT).body
    except Problem as problem:
        if problem.status != 404:
            raise
        return ()
    return msgspec.json.decode(value, type=Frozen).spec.resources


def _steps(answer: Any, resource: str) -> Iterator[int]:
    for part in answer["nodes"].values():
        for step in part["steps"] if part["state"] == "done" else ():
            if step["resource"] == resource and step["result"] == "changed":
                yield round(step["took"] * SECOND)
