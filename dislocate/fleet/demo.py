"""The story that `make demo` tells: discover, lose a service, an agent and a data center, heal; with real processes, then
in virtual time from the same core.

Every time printed is when the last observer answered so, asked over HTTP or DNS like any client; never when the script
acted and hoped.  A step that misses its bound fails the demo; `patience` multiplies all bounds, for a machine that is slow
or has other things to do, and changes nothing in virtual time.
"""

import tempfile
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path as FilePath

from msgspec import Struct, structs

from dislocate.client.connection import NoAgent, Problem
from dislocate.core.errors import DislocateError
from dislocate.core.identity import Path
from dislocate.core.units import SECOND
from dislocate.fleet.fleet import Fleet
from dislocate.fleet.observer import Observer
from sim.report import Report
from sim.run import simulate
from sim.scenario import Scenario, parse_scenario

POLL = 0.02  # seconds between rounds of asking everybody
SERVICE_VICTIM = "fra/shop.web#1"
AGENT_VICTIM = "wdc/a2"
CUT = "tok"
SEED = 7
MIB = 1024 * 1024
MEMORY = 1536 * MIB

DISCOVERED = "every agent knows every agent and service"
CRITICAL = "the dead instance is critical in every agent's HTTP answer"
DEAD = "every other agent says that it is dead"
UNATTENDED = "its services are kept, as unattended"
UNREACHABLE = f"everybody outside says that {CUT} is unreachable"
REACHABLE = "everybody reaches everybody again"

# The expectation in demo.toml that is the same claim, by number.
IN_VIRTUAL_TIME = {DISCOVERED: 0, CRITICAL: 1, DEAD: 2, UNATTENDED: 3, UNREACHABLE: 4, REACHABLE: 5}

Say = Callable[[str], None]


class StepFailed(DislocateError):
    """A step of the demo missed its bound."""


class Step(Struct, frozen=True):
    """What was shown, how long it took until the last observer answered so, and how long it may.  Seconds."""

    claim: str
    took: float
    bound: float
    simulated: float | None = None  # the same in virtual time, to a tenth; None where only real processes can show it


def run_demo(say: Say, directory: FilePath | None = None, patience: float = 1.0) -> list[Step]:
    """Tell the story; the steps, all within their bounds.  Raises `StepFailed` or `ProcessFailed`."""
    scenario = parse_scenario((files("dislocate.fleet") / "demo.toml").read_text(encoding="utf-8"))
    with (
        tempfile.TemporaryDirectory(prefix="dislocate-demo-") as scratch,
        Fleet(scenario, directory or FilePath(scratch)) as fleet,
    ):
        steps = _Story(fleet, say, patience).tell()
    say("\nThe same story in virtual time, from the same core ...")
    report = simulate(scenario, seed=SEED)
    if not report.holds:
        raise StepFailed(report.as_text("the demo's story in virtual time"))
    speed = report.virtual_seconds / report.wall_seconds
    say(f"  {report.virtual_seconds:.0f} s of {report.agents} agents took {report.wall_seconds:.2f} s ({speed:.0f}x)")
    return [structs.replace(step, simulated=_virtual(scenario, report, step.claim)) for step in steps]


def _virtual(scenario: Scenario, report: Report, claim: str) -> float | None:
    """Seconds that the step with this claim took in virtual time."""
    number = IN_VIRTUAL_TIME.get(claim)
    if number is None:
        return None
    at = report.verdicts[number].at
    return None if at is None else (at - scenario.expect[number].after) / SECOND


class _Story:
    """The steps, in order."""

    def __init__(self, fleet: Fleet, say: Say, patience: float) -> None:
        self._fleet = fleet
        self._say = say
        self._patience = patience
        self._steps: list[Step] = []
        self._deaths: dict[Path, None] = {}  # of whom any observer ever said `dead`, but for the agent that we kill

    def tell(self) -> list[Step]:
        self._discover()
        self._lose_a_service()
        self._lose_an_agent()
        self._lose_a_datacenter()
        self._heal()
        self._weigh()
        return self._steps

    # ---- the story

    def _discover(self) -> None:
        fleet = self._fleet
        self._say("Three data centers, fra, wdc and tok, as far apart as Frankfurt, Washington and Tokyo are.")
        self._say(f"Starting {len(fleet.agents)} agents and {len(fleet.services)} small HTTP services ...")
        began = time.monotonic()
        fleet.start()
        self._say(f"  all processes are up after {time.monotonic() - began:.1f} s")
        everybody = len(fleet.agents)
        self._until(
            DISCOVERED,
            15.0,
            lambda seen: (
                sum(member["state"] == "alive" for member in seen.members().values()) == everybody
                and all(_passing(seen, service) == 6 for service in ("shop.web", "shop.api"))
            ),
        )

    def _lose_a_service(self) -> None:
        self._say(f"\nA service process of {SERVICE_VICTIM} is killed (SIGKILL); its agent checks it every second.")
        self._fleet.kill(SERVICE_VICTIM)
        began = time.monotonic()
        victim = self._fleet.plans["fra/a1"].services[0]
        self._until(
            CRITICAL,
            8.0,
            lambda seen: _status(seen, "shop.web", "fra/a1", victim.instance.id) == "critical",
            began,
        )
        name = "shop.web.service.fra.dislocate"
        self._until(
            f"and gone from every agent's DNS answer for {name}",
            8.0,
            lambda seen: seen.dns(name) == ("NOERROR", [self._fleet.plans["fra/a2"].host]),
            began,
        )

    def _lose_an_agent(self) -> None:
        self._say(f"\nThe agent {AGENT_VICTIM} is killed (SIGKILL).  Its two services go on running.")
        self._fleet.kill(AGENT_VICTIM)
        began = time.monotonic()
        self._until(
            DEAD,
            3.0,
            lambda seen: seen.members()[AGENT_VICTIM]["state"] == "dead",
            began,
        )
        self._until(
            UNATTENDED,
            4.0,
            lambda seen: (
                {i["status"] for i in seen.instances("shop.web") if i["node"] == AGENT_VICTIM} == {"unattended"}
            ),
            began,
        )

    def _lose_a_datacenter(self) -> None:
        self._say(f"\nThe data center {CUT} is cut off from the others, both ways, on every channel.")
        self._fleet.steer(**{"do": "cut", "from": CUT, "to": "*"})
        began = time.monotonic()
        outside = self._agents_outside(CUT)
        self._until(
            UNREACHABLE,
            20.0,
            lambda seen: not seen.datacenters()[CUT]["reachable"],
            began,
            outside,
        )
        self._until(
            "its services are still answered there, marked, with their age",
            2.0,
            lambda seen: (
                all(
                    not i["reachable"] and i["age"] > 5.0 and i["status"] == "passing"
                    for i in _of(seen.instances("shop.api"), CUT)
                )
                and len(_of(seen.instances("shop.api"), CUT)) == 2
            ),
            None,
            outside,
        )
        hosts = {plan.host for path, plan in self._fleet.plans.items() if path.startswith(f"{CUT}/")}
        inside = [seen for seen in self._fleet.living() if seen.path.startswith(f"{CUT}/")]
        self._until(
            f"inside {CUT}, DNS goes on answering from its own side",
            2.0,
            lambda seen: (
                seen.dns("shop.api.service.dislocate")[0] == "NOERROR"
                and all(host in hosts for host in seen.dns("shop.api.service.dislocate")[1])
            ),
            None,
            inside,
        )

    def _heal(self) -> None:
        self._say("\nThe cut is healed.")
        self._fleet.steer(**{"do": "heal", "from": CUT, "to": "*"})
        began = time.monotonic()
        self._until(
            REACHABLE,
            15.0,
            lambda seen: (
                all(one["reachable"] for one in seen.datacenters().values())
                and all(i["reachable"] for i in seen.instances("shop.api"))
            ),
            began,
        )
        if self._deaths:
            raise StepFailed(f"nobody may die of a cut, but {', '.join(self._deaths)} was declared dead")
        self._say(f"  deaths by the cut, in all answers since: 0 (only {AGENT_VICTIM}, which was killed, is dead)")

    def _weigh(self) -> None:
        """Raises `StepFailed` when the fleet takes more memory than a laptop can spare."""
        processes = [*self._fleet.agents.values(), *self._fleet.services.values()]
        total = sum(process.proportional_memory() for process in processes if process.is_running)
        self._say(f"\nAll processes together take {total / MIB:.0f} MiB (PSS).")
        if total > MEMORY:
            raise StepFailed(f"memory: {total / MIB:.0f} MiB, at most {MEMORY / MIB:.0f}")

    # ---- asking

    def _until(
        self,
        claim: str,
        bound: float,
        holds: Callable[[Observer], bool],
        began: float | None = None,
        observers: list[Observer] | None = None,
    ) -> None:
        """Ask until every observer answered once so that `holds`; that moment is the step's time."""
        began = time.monotonic() if began is None else began
        bound *= self._patience
        waiting = list(self._fleet.living() if observers is None else observers)
        count = len(waiting)
        while True:
            waiting = [seen for seen in waiting if not self._answers(seen, holds)]
            took = time.monotonic() - began
            if not waiting:
                break
            if took > bound:
                names = ", ".join(seen.path for seen in waiting)
                raise StepFailed(
                    f"{claim}: not within {bound:.0f} s; {names} still answer otherwise\n"
                    f"on a slow or busy machine: dislocate demo --patience {3 * self._patience:g}"
                )
            self._watch_for_deaths()
            time.sleep(POLL)
        self._steps.append(Step(claim, took, bound))
        self._say(f"  {took:5.2f} s  {claim} ({count} asked)")

    def _answers(self, seen: Observer, holds: Callable[[Observer], bool]) -> bool:
        try:
            return holds(seen)
        except (NoAgent, Problem, OSError, KeyError):
            return False  # not yet: no answer, or one that does not know the name

    def _watch_for_deaths(self) -> None:
        for seen in self._fleet.living():
            try:
                members = seen.members()
            except NoAgent:
                continue
            for path, member in members.items():
                if member["state"] == "dead" and path != AGENT_VICTIM:
                    self._deaths[path] = None

    def _agents_outside(self, datacenter: str) -> list[Observer]:
        return [seen for seen in self._fleet.living() if not seen.path.startswith(f"{datacenter}/")]


def _of(instances: list[dict], datacenter: str) -> list[dict]:
    return [instance for instance in instances if instance["datacenter"] == datacenter]


def _passing(seen: Observer, service: str) -> int:
    return sum(instance["status"] == "passing" for instance in seen.instances(service))


def _status(seen: Observer, service: str, node: Path, instance: str) -> str:
    return next(i["status"] for i in seen.instances(service) if (i["node"], i["id"]) == (node, instance))
