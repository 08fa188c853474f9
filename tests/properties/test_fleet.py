"""A fleet under anything: faults in any order, every invariant watched, and in the end it must agree about everything.

Safety first: the invariants of `sim.invariants` are attached to the world and raise the moment one is broken.  Then
liveness: all is mended, everybody is started, and within `SETTLE` the fleet must agree, with every acknowledged
registration answered exactly once.  What was found before is in `scenarios/regressions/`.

A failure prints the whole story as a scenario file.
"""

import os

from hypothesis import Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from dislocate.core.units import MILLISECOND, SECOND, format_duration
from sim import faults
from sim.convergence import answers_of, disagreement
from sim.invariants import INVARIANTS, Monitor
from sim.scenario import Datacenter, Fault, Scenario, Service, checked
from sim.world import World

FULL = os.environ.get("DISLOCATE_PROFILE") == "full"

SETTLE = 240 * SECOND  # the brake holds for 60 s after the last change, the dead are tried each 10 s, one at a time
ASSEMBLE = 12 * SECOND  # the first checks have passed and everybody knows everybody
SERVICES = ("shop.web", "db.orders")

REGIONS = ("fra", "wdc", "tok")
SHAPES = ((3,), (2, 2), (4, 3), (3, 2, 2), (4, 4, 3))

picks = st.integers(0, 11)  # of whoever exists: an index modulo their number
pauses = st.sampled_from([100 * MILLISECOND, SECOND, 4 * SECOND, 9 * SECOND, 25 * SECOND, 70 * SECOND])


class Fleet(RuleBasedStateMachine):
    """Rules are the verbs of a scenario; time passes only in `advance`."""

    @initialize(shape=st.sampled_from(SHAPES), seed=st.integers(0, 5))
    def begin(self, shape, seed):
        self.scenario = checked(
            Scenario(
                title="Anything",
                why="Found by the properties of a fleet",
                duration=1,
                datacenters={name: Datacenter(nodes) for name, nodes in zip(REGIONS, shape, strict=False)},
                services=(Service(SERVICES[0], 1),),
            )
        )
        self.seed = seed
        self.done: list[Fault] = []
        self.world = World(self.scenario, seed)
        self.monitor = Monitor(self.world, INVARIANTS)
        self.names = list(self.scenario.datacenters)
        self.paths = list(self.world.machines)
        self.run_on(ASSEMBLE)

    # ---- rules

    @rule(pause=pauses)
    def advance(self, pause):
        self.run_on(pause)

    @rule(who=picks, midway=st.booleans())
    def kill(self, who, midway):
        self.do("kill", target=self.path(who), midway=midway)

    @rule(who=picks)
    def restart(self, who):
        self.do("restart", target=self.path(who))

    @rule(who=picks)
    def upgrade(self, who):
        self.do("stop", target=self.path(who))

    @rule(who=picks)
    def wipe(self, who):
        self.do("wipe", target=self.path(who))

    @rule(who=picks)
    def pause(self, who):
        self.do("pause", target=self.path(who))

    @rule(who=picks)
    def resume(self, who):
        self.do("resume", target=self.path(who))

    @rule(who=picks, whom=picks, oneway=st.booleans())
    def cut_agents(self, who, whom, oneway):
        if self.path(who) != self.path(whom):
            self.do("cut", origin=self.path(who), dest=self.path(whom), oneway=oneway)

    @rule(who=picks, whom=picks, oneway=st.booleans())
    def cut_datacenters(self, who, whom, oneway):
        origin, dest = self.names[who % len(self.names)], self.names[whom % len(self.names)]
        if origin != dest:
            self.do("cut", origin=origin, dest=dest, oneway=oneway)

    @rule(who=picks)
    def isolate(self, who):
        self.do("cut", origin=self.path(who), dest="*")

    @rule()
    def heal(self):
        self.do("heal")

    @rule(who=picks, service=st.sampled_from(SERVICES))
    def register(self, who, service):
        self.do("register", target=self.path(who), service=service)

    @rule(who=picks)
    def deregister(self, who):
        registered = list(self.world.truth.registered)
        if registered:
            owner, instance_id = registered[who % len(registered)]
            service, _, number = instance_id.rpartition("-")
            self.do("deregister", target=f"{owner.partition('/')[0]}/{service}#{number}")

    @rule(who=picks)
    def drain(self, who):
        self.do("drain", target=self.path(who), lasting=20 * SECOND)

    @rule(who=picks)
    def undrain(self, who):
        self.do("undrain", target=self.path(who))

    # ---- liveness

    def teardown(self):
        if not hasattr(self, "world"):
            return
        self.do("heal")
        for path in self.paths:
            self.do("resume", target=path)
            process = self.world.machines[path].process
            if process is None or process.is_doomed:
                self.do("restart", target=path)
        self.settle()
        self.expect_every_registration_once()

    def settle(self):
        """Run until everybody agrees, and a while longer; `SETTLE` at most."""
        until = self.world.now + SETTLE
        while (words := self.disagreement()) is not None:
            if self.world.now >= until:
                raise self.told(AssertionError(f"after {format_duration(SETTLE)}: {words}"))
            self.run_on(5 * SECOND)
        self.run_on(10 * SECOND)

    def disagreement(self):
        return disagreement(self.world)

    def expect_every_registration_once(self):
        for path in self.paths:
            answers = list(answers_of(self.world, path))
            for key in self.world.truth.registered:
                if answers.count(key) != 1:
                    raise self.told(AssertionError(f"{path} answers {answers.count(key)} times with {key}"))

    # ---- within

    def path(self, pick):
        return self.paths[pick % len(self.paths)]

    def do(self, verb, **fields):
        fault = Fault(time=self.world.now, do=verb, **fields)
        self.done.append(fault)
        try:
            faults.do(self.world, fault)
        except Exception as error:
            raise self.told(error) from error

    def run_on(self, span):
        try:
            self.world.run(self.world.now + span)
        except Exception as error:
            raise self.told(error) from error

    def told(self, error):
        """`error`, after the story that led to it, as a scenario file."""
        note(as_toml(self.scenario, self.done, self.seed, self.world.now))
        return error


def as_toml(scenario, done, seed, until):
    """The story as a file for `scenarios/regressions/`."""
    lines = [f"# seed {seed}", 'title = ""', 'why = ""', f'duration = "{until // SECOND + 1}s"', ""]
    for name, datacenter in scenario.datacenters.items():
        lines += [f"[datacenters.{name}]", f"nodes = {datacenter.nodes}", ""]
    for service in scenario.services:
        lines += ["[[services]]", f'name = "{service.name}"', ""]
    for fault in done:
        lines += ["[[at]]", f'time = "{fault.time // MILLISECOND}ms"', f'do = "{fault.do}"']
        for word, value in (("target", fault.target), ("service", fault.service)):
            lines += [f'{word} = "{value}"'] if value else []
        if fault.do == "cut":
            lines += [f'from = "{fault.origin}"', f'to = "{fault.dest}"'] + (["oneway = true"] if fault.oneway else [])
        lines += ["midway = true"] if fault.midway else []
        lines += [f'for = "{fault.lasting // SECOND}s"'] if fault.lasting else []
        lines.append("")
    return "\n".join(lines)


TestFleet = Fleet.TestCase
TestFleet.settings = settings(
    max_examples=400 if FULL else 25,
    stateful_step_count=30 if FULL else 14,
    # A story takes a second: shrinking one takes minutes, which only `make prove` has.
    phases=(Phase.explicit, Phase.reuse, Phase.generate, *((Phase.shrink,) if FULL else ())),
)
