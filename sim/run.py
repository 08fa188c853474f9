"""One run: a scenario and a seed in, a report out."""

from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any

from dislocate.core.units import MILLISECOND, seconds
from sim.errands import Errands
from sim.expectations import Judge
from sim.faults import schedule_faults
from sim.invariants import INVARIANTS, Invariant, InvariantViolated, Monitor
from sim.operators import place_runs, place_scales
from sim.report import Failure, Report, Watched
from sim.scenario import Scenario
from sim.story import Story
from sim.traffic.fleet import place_requests
from sim.traffic.policies import place_policies
from sim.workload.scripts import place_clients
from sim.world import START_SPREAD, Tracer, World

LOOK_PERIOD = 100 * MILLISECOND  # a tenth of the shortest thing that scenarios claim: detection within about a second
LOOKS_SCALE = 1 * MILLISECOND  # and that times the agents, so that looking stays a small part of a large run


class Run:
    """A world with everything that watches it."""

    def __init__(
        self,
        scenario: Scenario,
        seed: int,
        *,
        invariants: Sequence[type[Invariant]] = INVARIANTS,
        settings: Mapping[str, Any] | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        """Raises `ConfigError` for a claim that nobody can judge."""
        self.scenario = scenario
        self.world = World(scenario, seed, settings=settings, tracer=tracer)
        self.story = Story(self.world)
        self.monitor = Monitor(self.world, invariants)
        self.judge = Judge(scenario.expect, self.world)
        self._period = max(LOOK_PERIOD, LOOKS_SCALE * len(self.world.machines))
        schedule_faults(self.world, scenario.at, self.story.told)
        place_clients(self.world)
        place_policies(self.world)
        place_requests(self.world)
        place_runs(self.world)
        place_scales(self.world)
        Errands(self.world, scenario.expect)
        self.world.schedule.call_last(START_SPREAD, self._look_due, None)  # before, who is up is no question

    def _look_due(self, _: None, __: None, ___: None) -> None:
        now = self.world.now
        self.judge.look(now)
        self.world.schedule.call_last(now + self._period, self._look_due, None)

    def to_the_end(self) -> Report:
        """Run the whole scenario, or up to the first thing that must never happen."""
        began = perf_counter()
        failure = None
        try:
            self.world.run(self.scenario.duration)
            self.monitor.conclude()
        except InvariantViolated as violation:
            failure = Failure("invariant", str(violation))
        except Exception as error:  # noqa: BLE001  whatever leaves the core is a finding, and the report must name the seed
            failure = Failure("bug", self._in_words(error))
        return self._report(failure, perf_counter() - began)

    def _report(self, failure: Failure | None, wall: float) -> Report:
        world = self.world
        return Report(
            title=self.scenario.title,
            why=self.scenario.why,
            seed=world.seed,
            agents=len(world.machines),
            datacenters=len(world.layout.nodes),
            instances=sum(len(machine.services) for machine in world.machines.values()),
            virtual_seconds=seconds(world.now),
            story=tuple(str(line) for line in self.story.lines()),
            verdicts=tuple(self.judge.conclude(world.now) if failure is None else self.judge.verdicts()),
            invariants=tuple(Watched(one.name, one.exercised) for one in self.monitor.invariants),
            failure=failure,
            inputs=world.digest.count,
            messages_per_agent_second=world.measured("messages", 0),
            bytes_per_agent_second=world.measured("bytes", 0),
            wall_seconds=wall,
            digest=world.digest.hex(),
        )

    def _in_words(self, error: Exception) -> str:
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        where = f" ({trace.tb_frame.f_code.co_filename}:{trace.tb_lineno})" if trace is not None else ""
        host = self.world.handling.path if self.world.handling is not None else "the world"
        return f"at {self.world.now / 1e9:.3f}s, {host}: {type(error).__name__}: {error}{where}"


def simulate(scenario: Scenario, seed: int, **options: Any) -> Report:
    """Run `scenario` with `seed`; `options` as of `Run`.  Raises `ConfigError`."""
    return Run(scenario, seed, **options).to_the_end()
