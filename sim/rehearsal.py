"""A rehearsal: one config run of a scenario to its end, and what an operator asks about it.

How long it took from its start until the log had its end, how it ended, and how few instances of each service were surely
passing meanwhile: those on nodes that are in flight are not counted, as the controller does not count them either.  With
`troubled` the same run meets faults that follow from the seed, of the kinds of `swarm` that leave an operator something to
decide.  Does not judge: no invariants, no claims (`run` has them, for the same scenario and seed).
"""

from collections.abc import Callable
from typing import TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from dislocate.core.boundary.events import NodeMoved, RunMoved
from dislocate.core.boundary.runs import RunState
from dislocate.core.boundary.values import Status
from dislocate.core.identity import Path
from dislocate.core.streams import Stream, Streams
from dislocate.core.units import MILLISECOND, SECOND
from sim.book import IN_FLIGHT, BookedRun
from sim.faults import in_words, schedule_faults
from sim.mirror import CALM
from sim.operators import place_runs
from sim.scenario import Fault, Scenario, checked
from sim.swarm import KINDS, Paths
from sim.world import World

LOOK = 250 * MILLISECOND  # between two looks at services
STEP = 1 * SECOND
STAYS = 60 * SECOND  # what is held for so long after the last fault waits for an operator, or for somebody who is gone
FOR_GOOD = 0.25  # of faults of nodes: nobody brings it back
HELD, UNDER_WAY, NOT_STARTED = "held", "under way", "not started"

# How an operator would rank endings, the worst last.
RANKS = ("done", "reverted", "aborted", "failed", UNDER_WAY, HELD, NOT_STARTED, "revert failed")

Draw: TypeAlias = Callable[[Stream, int, Scenario], list[Fault]]


class Lowest(Struct, frozen=True):
    """The fewest instances of a service that passed, and where there was the least part of them."""

    passing: int
    instances: int
    datacenter: str
    part: float  # of those in that data center

    @property
    def of_all(self) -> float:
        return self.passing / self.instances

    def or_lower(self, other: "Lowest") -> "Lowest":
        """The least of both, each of its two figures for itself."""
        part, datacenter = min((self.part, self.datacenter), (other.part, other.datacenter))
        return Lowest(min(self.passing, other.passing), self.instances, datacenter, part)


class Rehearsed(Struct, frozen=True, kw_only=True):
    """What came of one."""

    seed: int
    is_troubled: bool
    ending: str
    words: str  # why, as the run's record says
    took: int  # nanoseconds from its start to its end, or to that of the rehearsal
    lowest: dict[str, Lowest]  # by service
    happened: tuple[tuple[int, str], ...]  # faults: nanoseconds after the start, and what

    @property
    def rank(self) -> tuple[int, float, int]:
        """The greater, the worse."""
        least = min((one.of_all for one in self.lowest.values()), default=1.0)
        return RANKS.index(self.ending), -least, self.took


def rehearse(scenario: Scenario, seed: int, *, is_troubled: bool = False) -> Rehearsed:
    """The first run of `scenario`, to its end or the scenario's."""
    began = scenario.runs[0].time
    world = World(scenario, seed)
    happened: list[tuple[int, str]] = []
    words = [""]

    def told(fault: Fault) -> None:
        if world.now >= began:
            happened.append((world.now - began, in_words(fault)))

    def moved(_: BookedRun, event: RunMoved | NodeMoved) -> None:
        if isinstance(event, RunMoved):
            words[0] = event.words

    world.truth.runs.listeners.append(moved)
    schedule_faults(world, scenario.at, told)
    place_runs(world)
    passing = Passing(world, began)
    run: BookedRun | None = None
    held_since = quiet_from = max((fault.time + (fault.lasting or 0) for fault in scenario.at), default=0)
    while world.now < scenario.duration and (run is None or run.over_since is None):
        world.run(min(scenario.duration, world.now + STEP))
        run = next(iter(world.truth.runs.runs.values()), None)
        if run is None or run.state is not RunState.PAUSED or run.spec.freezes:
            held_since = max(world.now, quiet_from)
        elif world.now - held_since >= STAYS:
            break
    ended = world.now if run is None or run.over_since is None else run.over_since
    return Rehearsed(
        seed=seed,
        is_troubled=is_troubled,
        ending=_ending(run),
        words=words[0],
        took=ended - began,
        lowest=passing.lowest,
        happened=tuple(happened),
    )


def _ending(run: BookedRun | None) -> str:
    if run is None:
        return NOT_STARTED
    if run.over_since is not None:
        return run.state.value
    return HELD if run.state is RunState.PAUSED else UNDER_WAY


class Passing:
    """Looks again and again at how many instances pass while the run is under way."""

    def __init__(self, world: World, began: int) -> None:
        self.lowest: dict[str, Lowest] = {}
        self._world = world
        if world.layout.services:
            world.schedule.call_last(began + LOOK, self._due, None)

    def _due(self, _: None, __: None, ___: None) -> None:
        world = self._world
        run = next(iter(world.truth.runs.runs.values()), None)
        if run is not None and run.over_since is not None:
            return
        for service in world.layout.services:
            now = self._now(service, run)
            self.lowest[service] = now.or_lower(self.lowest.get(service, now))
        world.schedule.call_last(world.now + LOOK, self._due, None)

    def _now(self, service: str, run: BookedRun | None) -> Lowest:
        world = self._world
        counts: dict[str, list[int]] = {}
        for instance in world.layout.instances(service):
            owner = world.layout.owner(instance)
            is_busy = run is not None and run.nodes.get(owner) in IN_FLIGHT
            passes = not is_busy and self._passes(owner, instance.id)
            count = counts.setdefault(instance.datacenter, [0, 0])
            count[0] += passes
            count[1] += 1
        parts = {name: passing / of for name, (passing, of) in counts.items()}
        worst = min(parts, key=lambda name: parts[name])
        return Lowest(
            sum(passing for passing, _ in counts.values()), sum(of for _, of in counts.values()), worst, parts[worst]
        )

    def _passes(self, owner: Path, ident: str) -> bool:
        """By its own agent, who checks it: where that is gone it may run or not, and callers are not sent there."""
        world = self._world
        if not world.is_up(owner):
            return False
        service = world.machines[owner].services[ident].spec.service
        return any(
            one.node == owner and one.id == ident and one.status is Status.PASSING
            for one in world.instances(owner, service)
        )


# ---- trouble


def troubled(scenario: Scenario, seed: int, span: int) -> Scenario:
    """The same with what else may go wrong in the first `span` nanoseconds of its run, which follows from the seed."""
    stream = Streams(f"rehearsal/{seed}")["trouble"]
    began = scenario.runs[0].time
    names = tuple(TROUBLES if len(scenario.datacenters) > 1 else [name for name in TROUBLES if name != CUTS])
    kinds = stream.sample(names, stream.between(1, 2))
    faults = [
        fault
        for _ in range(stream.between(1, 3))
        for fault in TROUBLES[stream.choice(kinds)](stream, began + _moment(stream, span), scenario)
    ]
    last = max(fault.time + (fault.lasting or 0) for fault in faults)
    return checked(
        replace(
            scenario,
            at=tuple(sorted((*scenario.at, *faults), key=lambda fault: fault.time)),
            duration=max(scenario.duration, last + CALM),
        )
    )


CUTS = "cuts of a data center"


def _moment(stream: Stream, span: int) -> int:
    """In whole milliseconds: people read it."""
    return stream.below(max(1, span // MILLISECOND)) * MILLISECOND


def _anybody(scenario: Scenario) -> Paths:
    """Whose death may matter: servers, and those who are to change."""
    return tuple(dict.fromkeys((*scenario.servers, *_targets(scenario))))


def _targets(scenario: Scenario) -> Paths:
    listed = scenario.runs[0].spec.targets.partition("{")[2].rstrip("}")
    return tuple(path.strip() for path in listed.split(","))


def _perhaps_for_good(stream: Stream, faults: list[Fault]) -> list[Fault]:
    return [replace(fault, lasting=None) if stream.chance(FOR_GOOD) else fault for fault in faults]


def _kill(stream: Stream, at: int, scenario: Scenario) -> list[Fault]:
    """One agent: more at once is a story of its own."""
    one = stream.choice(_anybody(scenario))
    return _perhaps_for_good(stream, KINDS["kills"](stream, at, (one,)))


def _cut(stream: Stream, at: int, scenario: Scenario) -> list[Fault]:
    one = stream.choice(tuple(scenario.datacenters))
    return [Fault(at, "cut", origin=one, dest="*", lasting=SECOND << stream.between(1, 5))]


def _slow(stream: Stream, at: int, scenario: Scenario) -> list[Fault]:
    return KINDS["slow links"](stream, at, _anybody(scenario))


def _fail(stream: Stream, at: int, scenario: Scenario) -> list[Fault]:
    return [Fault(at, "task_fail", stream.choice(_targets(scenario)), lasting=None)]


TROUBLES: dict[str, Draw] = {
    "kills": _kill,
    CUTS: _cut,
    "slow links": _slow,
    "failing nodes": _fail,
}
