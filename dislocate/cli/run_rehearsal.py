"""What `dislocate run simulate` finds: rehearsals of one specification on the live fleet.

Imported only for that command: it brings the simulator with it, for which no other has to wait.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import click
import msgspec
from msgspec import Struct

from dislocate.cli.run_durations import part_times, past_of, targets_services
from dislocate.cli.run_spec import spec_in
from dislocate.cli.run_topology import describe, fleet_of
from dislocate.client.connection import AgentConnection
from dislocate.core.boundary.spec import Process, RunSpec
from dislocate.core.errors import LocalError
from dislocate.core.runs.plan import make_plan
from dislocate.edge.run_targets import doubts, targets_among
from sim.mirror import Names, mirrored
from sim.rehearsal import Rehearsed, rehearse, troubled
from sim.scenario import Scenario
from sim.scenario_text import scenario_text

WORTH_IT = 4  # rehearsals; for fewer the processes are not started


class Rehearsals(Struct, frozen=True):
    """All of one specification on one fleet."""

    name: str
    batches: int
    targets: tuple[str, ...]
    agents: int
    datacenters: int
    servers: int
    longest_rtt: int
    task_times: tuple[int, ...]
    because: str  # where these come from
    calm: tuple[Rehearsed, ...]
    troubled: tuple[Rehearsed, ...]
    notes: tuple[str, ...]

    @property
    def worst(self) -> Rehearsed:
        return max((*self.calm, *self.troubled), key=lambda one: one.rank)

    def endings(self) -> dict[str, float]:
        """The part of the troubled ones that ended so, the most frequent first."""
        counts: dict[str, int] = {}
        for one in self.troubled:
            counts[one.ending] = counts.get(one.ending, 0) + 1
        return {
            ending: number / len(self.troubled) for ending, number in sorted(counts.items(), key=lambda each: -each[1])
        }


def rehearsed(agent: AgentConnection, file: Path, seeds: int, faults: bool, out: Path | None) -> Rehearsals:
    """All rehearsals of the run that `file` describes, the worst of them written to `out`.  Raises `LocalError` for a
    mistake in it, and for targets that nobody fits."""
    spec = spec_in(file)
    past = past_of(agent, spec)  # first: says so where nothing keeps runs
    described = describe(agent)
    targets = targets_among(described.candidates, spec.targets, len(described.members))
    fleet, note = fleet_of(described, targets, _services(spec), time.time_ns())
    times, because = part_times(spec, past, targets_services(described.services, targets))
    scenario = mirrored(fleet, spec, targets, times)
    calm, hard = _rehearse_all(scenario, seeds, faults)
    names = Names(fleet)
    found = Rehearsals(
        name=spec.name,
        batches=len(make_plan(spec, targets).batches),
        targets=targets,
        agents=sum(map(len, fleet.names.values())),
        datacenters=len(fleet.names),
        servers=len(fleet.servers),
        longest_rtt=max(fleet.rtts.values(), default=0),
        task_times=times,
        because=because,
        calm=tuple(_named(one, names) for one in calm),
        troubled=tuple(_named(one, names) for one in hard),
        notes=(
            *described.notes,
            *((note,) if note else ()),
            *left_out(spec, described.services),
            *doubts(described.candidates, spec),
        ),
    )
    if out is not None:
        _write(out, _scenario_of(found.worst, scenario, calm))
    return found


def left_out(spec: RunSpec, services: Collection[str]) -> Iterator[str]:
    """What of the specification nobody can rehearse.  `services`: those that have an instance."""
    if spec.strategy.approvals:
        yield "approvals are not waited for"
    if any(gate.utilization or gate.errors or gate.p99 for gate in spec.gates):
        yield "how busy instances are, and what callers say of them, is not rehearsed: gates judge only whether they pass"
    for name in {gate.service: None for gate in spec.gates if gate.service not in services}:
        if any(isinstance(each, Process) and each.service == name for each in spec.resources):
            yield f"{name} has no instance before this run: its gates are not rehearsed"


def _services(spec: RunSpec) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*spec.strategy.floor, *(gate.service for gate in spec.gates))))


# ---- rehearsing


def _rehearse_all(scenario: Scenario, seeds: int, faults: bool) -> tuple[list[Rehearsed], list[Rehearsed]]:
    """The first half of the seeds without faults, the others with faults in the time that those took."""
    first = -(-seeds // 2) if faults else seeds
    calm: list[Rehearsed] = []
    hard: list[Rehearsed] = []
    if seeds >= WORTH_IT:
        click.echo(f"rehearses it {seeds} times, some seconds each; --seeds {WORTH_IT} is sooner", err=True)
    with _progress(seeds) as told, _workers(seeds) as each:
        for one in each(partial(rehearse, scenario), range(1, first + 1)):
            calm.append(one)
            told(len(calm))
        for one in each(partial(_rehearse_troubled, scenario, span_of(calm)), range(first + 1, seeds + 1)):
            hard.append(one)
            told(first + len(hard))
    return calm, hard


def _rehearse_troubled(scenario: Scenario, span: int, seed: int) -> Rehearsed:
    return rehearse(troubled(scenario, seed, span), seed, is_troubled=True)


def span_of(calm: Sequence[Rehearsed]) -> int:
    """Nanoseconds in which faults may begin."""
    return round(median(one.took for one in calm))


@contextmanager
def _workers(seeds: int) -> Iterator[Callable[..., Iterable[Rehearsed]]]:
    """`map`, in a process for each core; which what else this host does comes before."""
    cores = min(seeds, os.cpu_count() or 1)
    if seeds < WORTH_IT or cores == 1:
        yield map
        return
    pool = ProcessPoolExecutor(cores, get_context("spawn"), _come_last)
    try:
        yield pool.map
    finally:
        pool.shutdown(cancel_futures=True)


def _come_last() -> None:
    os.nice(10)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever typed the command ends it


@contextmanager
def _progress(seeds: int) -> Iterator[Callable[[int], None]]:
    """A bar where there is a terminal, else a line for every quarter; on standard error, which no program reads."""
    if not sys.stderr.isatty():
        yield partial(_tell_quarter, seeds)
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("rehearsing", total=seeds)
        yield lambda seed: bar.update(task, completed=seed)


def _tell_quarter(seeds: int, seed: int) -> None:
    if seed * 4 // seeds > (seed - 1) * 4 // seeds:
        click.echo(f"rehearsed {seed} of {seeds}", err=True)


def _named(one: Rehearsed, names: Names) -> Rehearsed:
    """With the names that the live fleet has."""
    happened = tuple((at, names.live(words)) for at, words in one.happened)
    words = names.live(one.words.partition("; ")[0])  # without the mend, which names a run that nobody has
    return msgspec.structs.replace(one, words=words, happened=happened)


def _scenario_of(worst: Rehearsed, scenario: Scenario, calm: Sequence[Rehearsed]) -> Scenario:
    return troubled(scenario, worst.seed, span_of(calm)) if worst.is_troubled else scenario


def _write(path: Path, scenario: Scenario) -> None:
    try:
        path.write_text(scenario_text(scenario), encoding="utf-8")
    except OSError as error:
        raise LocalError("--out", got=str(path), expected=f"a file that can be written ({error.strerror})") from None
