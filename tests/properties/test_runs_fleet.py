"""Any run, over any fleet to which anything happens for a minute: no invariant breaks, and once all is well again the run
comes to its end, each node in exactly one state that is one."""

import os

import msgspec
from hypothesis import Phase, given, note, settings
from hypothesis import strategies as st

from dislocate.core.boundary.runs import OVER, Hold, NodeState, RunRecord, RunState, SteerRun, Verb
from dislocate.core.boundary.spec import Command, File, OnFailure, RunSpec, Strategy
from dislocate.core.runs.records import active_key, decode
from dislocate.core.units import MILLISECOND, SECOND, format_duration
from sim import faults
from sim.book import IN_FLIGHT
from sim.invariants import Monitor
from sim.invariants.consensus import CONSENSUS
from sim.invariants.run_outcomes import RUN_OUTCOMES
from sim.invariants.runs import RUNS
from sim.invariants.store import STORE
from sim.operators import place_runs
from sim.scenario import Datacenter, Fault, PlannedRun, Scenario, Service, checked
from sim.world import World

FULL = os.environ.get("DISLOCATE_PROFILE") == "full"
NODES = ("fra/a1", "fra/a2", "fra/a3", "wdc/a1", "wdc/a2")
INVARIANTS = (*CONSENSUS, *STORE, *RUNS, *RUN_OUTCOMES)  # those of membership: `test_fleet`
SERVERS = ("fra/a1", "fra/a2", "wdc/a1")
BEGINS = 6 * SECOND
HAPPENS = 60 * SECOND  # from the begin on
SETTLES = 180 * SECOND  # an agent that dials again, a report that is told again, and the run itself

ENDS = {
    RunState.DONE: (NodeState.DONE, NodeState.FAILED, NodeState.UNREACHABLE, NodeState.SKIPPED),
    RunState.REVERTED: (NodeState.PENDING, NodeState.REVERTED, NodeState.SKIPPED, NodeState.UNREACHABLE),
}

nodes = st.sampled_from(NODES)
lasting = st.sampled_from([1, 3, 8, 20]).map(lambda seconds: seconds * SECOND)
moments = st.integers(0, HAPPENS // (100 * MILLISECOND)).map(lambda tenths: BEGINS + tenths * 100 * MILLISECOND)


def happening(do, **fields):
    return st.builds(Fault, time=moments, do=st.just(do), **fields)


HAPPENINGS = st.one_of(
    happening("kill", target=nodes, lasting=lasting, midway=st.booleans()),
    happening("vanish", target=nodes, lasting=lasting),
    happening("pause", target=nodes, lasting=lasting),
    happening("stop", target=nodes, lasting=lasting),
    happening("disk_fill", target=nodes, lasting=lasting),
    happening("disk_slow", target=nodes, lasting=lasting, factor=st.just(50.0)),
    happening("cut", origin=nodes, lasting=lasting, oneway=st.booleans()),
    happening("cut", origin=st.just("fra"), dest=st.just("wdc"), lasting=lasting, oneway=st.booleans()),
    happening("task_fail", target=nodes, lasting=lasting),
    happening("task_slow", target=nodes, lasting=lasting, factor=st.sampled_from([5.0, 200.0])),
    happening("lead", target=st.sampled_from(SERVERS)),
    happening("steer", run=st.just("shop"), verb=st.sampled_from(["pause", "resume", "promote", "abort", "revert"])),
    happening("steer", run=st.just("shop"), verb=st.sampled_from(["skip", "retry"]), target=nodes),
)


@st.composite
def specs(draw):
    takes = draw(st.sampled_from(["0.1", "1", "4"]))
    config = File(path="/etc/shop.conf", content="color = blue", notify=("reload",))
    reload = Command(id="reload", run=("sleep", takes), only_notified=True)
    migrate = Command(id="migrate", run=("sleep", draw(st.sampled_from(["0.5", "3"]))), once=True, notify=("reload",))
    build = Command(id="build", run=("sleep", takes), creates="/opt/shop", revert=("true",), notify=("reload",))
    more = draw(st.sampled_from([(), (migrate,), (build,), (build, migrate)]))
    strategy = Strategy(
        canary=draw(st.integers(0, 2)),
        batch=draw(st.sampled_from([1, 2, "100%"])),
        soak=draw(st.sampled_from([0, 2 * SECOND])),
        settle=draw(st.sampled_from([0, SECOND])),
        parallel=draw(st.integers(1, 2)),
        max_failed=draw(st.integers(0, 2)),
        on_failure=draw(st.sampled_from(OnFailure)),
        floor=draw(st.sampled_from([{}, {"shop.web": 0.5}])),
        node_within=draw(st.sampled_from([12 * SECOND, 300 * SECOND])),
        deadline=draw(st.sampled_from([0, 0, 25 * SECOND])),
    )
    return RunSpec(name="shop", targets="*", resources=(config, *more, reload), strategy=strategy)


class Told:
    """One run over one fleet."""

    def __init__(self, spec, happenings, seed):
        self.scenario = checked(
            Scenario(
                title="Any run",
                why="Found by the properties of runs",
                duration=BEGINS + HAPPENS,
                datacenters={"fra": Datacenter(3), "wdc": Datacenter(2)},
                services=(Service("shop.web", 2, interval=SECOND, timeout=SECOND),),
                servers=SERVERS,
                runs=(PlannedRun(BEGINS, spec),),
                at=tuple(sorted(happenings, key=lambda fault: fault.time)),
            )
        )
        self.world = World(self.scenario, seed)
        self.monitor = Monitor(self.world, INVARIANTS)
        faults.schedule_faults(self.world, self.scenario.at, lambda fault: note(self.in_words(fault)))
        place_runs(self.world)
        self.world.truth.runs.listeners.append(lambda _run, event: note(f"{self.time()} {event}"))
        self.resumed = 0

    def time(self):
        return format_duration(self.world.now // MILLISECOND * MILLISECOND)

    def in_words(self, fault):
        return f"{self.time()} * {faults.in_words(fault)}{' midway' if fault.midway else ''}"

    def run_on(self, span):
        self.world.run(self.world.now + span)

    @property
    def run(self):
        """The run, as the log has it."""
        return next(iter(self.world.truth.runs.runs.values()), None)

    def mend(self):
        """Whatever was done is undone."""
        note(f"{self.time()} all is well again")
        for verb in ("resume", "return", "task_mend", "disk_mend"):
            for node in NODES:
                faults.do(self.world, Fault(self.world.now, verb, target=node))
        faults.do(self.world, Fault(self.world.now, "heal"))

    def is_over(self):
        run = self.run
        return run is not None and run.state in OVER and not any(state in IN_FLIGHT for state in run.nodes.values())

    def operate(self):
        """What a hold that does not end by itself tells an operator to do."""
        found = self.world.wiretap.reference.keys.get(active_key(self.run.id)) if self.run else None
        record = None if found is None else decode(found.value, RunRecord)
        if record is None or record.hold not in (Hold.OPERATOR, Hold.FAILURE, Hold.DEADLINE):
            return
        verb = Verb.REVERT if record.hold is Hold.FAILURE else Verb.RESUME
        asked = SteerRun(record.id, verb, "operator@test", self.world.machines["fra/a1"].unix_ns(self.world.now))
        self.world.request(self.world.machines["fra/a1"], asked, lambda result: note(f"{verb.value}: {result}"))

    def standing(self):
        found = self.world.wiretap.reference.keys.get(active_key(self.run.id)) if self.run else None
        words = "" if found is None else msgspec.json.decode(found.value)
        return f"{self.run and self.run.state}: {words}; {self.run and self.run.nodes}"


@given(specs(), st.lists(HAPPENINGS, min_size=2, max_size=12), st.integers(0, 50))
@settings(
    max_examples=200 if FULL else 8,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate, *((Phase.shrink,) if FULL else ())),
)
def test_whatever_happens_a_run_keeps_its_promises_and_comes_to_an_end(spec, happenings, seed):
    told = Told(spec, happenings, seed)
    told.run_on(BEGINS + HAPPENS + 21 * SECOND)
    told.mend()
    until = told.world.now + SETTLES
    while not told.is_over():
        assert told.world.now < until, told.standing()
        told.operate()
        told.run_on(5 * SECOND)
    told.run_on(2 * SECOND)
    told.monitor.conclude()
    run = told.run
    for node, state in run.nodes.items():
        assert state in ENDS.get(run.state, tuple(NodeState)), f"{node} is {state} in a run that is {run.state}"
        assert state not in IN_FLIGHT
