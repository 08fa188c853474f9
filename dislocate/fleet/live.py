"""A scenario with real processes: the same story, the same claims, the wall clock.

Story time begins when every agent is up.  A fault acts when its time has come; the claims are judged by what the agents
answer, asked in rounds a quarter of a second apart.
"""

import json
import time
from collections.abc import Callable
from heapq import heapify, heappop

from dislocate.client.connection import AgentConnection
from dislocate.core.errors import ConfigError
from dislocate.core.units import SECOND, format_duration, seconds
from dislocate.fleet.fleet import Fleet
from dislocate.fleet.observed import LiveObserved
from dislocate.fleet.operators import Operators, check_runs
from sim.expectations import Judge, Verdict
from sim.scenario import UNDO, Fault, PlannedRun, PlannedScale, Scenario
from sim.selectors import as_tuple

ROUND = 0.25  # seconds between two rounds of questions

Happening = Fault | PlannedRun | PlannedScale
Say = Callable[[str], None]


class LiveFaults:
    """The verbs of a scenario, done to processes.  Those that need a simulated machine are refused before the start."""

    def __init__(self, fleet: Fleet, operators: Operators) -> None:
        self._fleet = fleet
        self._layout = fleet.scenario.layout()
        self._verbs: dict[str, Callable[[Fault], None]] = {
            "cut": self._cut,
            "heal": self._cut,
            "slow": self._slow,
            "drop": self._drop,
            "kill": lambda fault: self._each(fault, fleet.kill),
            "restart": lambda fault: self._each(fault, fleet.restart),
            "wipe": lambda fault: self._each(fault, fleet.wipe),
            "pause": lambda fault: self._each(fault, fleet.pause),
            "resume": lambda fault: self._each(fault, fleet.resume),
            "stop": lambda fault: self._each(fault, fleet.stop_gently),
            "leave": lambda fault: self._each(fault, self._leave),
            "drain": lambda fault: self._drain(fault, True),
            "undrain": lambda fault: self._drain(fault, False),
            "serve_slow": self._trouble,
            "serve_fail": self._trouble,
            "serve_mend": self._trouble,
            "server_add": lambda fault: self._each(fault, operators.add_server),
            "server_remove": lambda fault: self._each(fault, operators.remove_server),
            "lead": lambda fault: self._each(fault, operators.transfer),
            "steer": lambda fault: operators.steer(fault, self._layout.agents(as_tuple(fault.target))),
        }
        for at, fault in enumerate(fleet.scenario.at):
            self.check(fault, f"at[{at}].do")

    def check(self, fault: Fault, field: str) -> None:
        """Raises `ConfigError` naming `field` for a verb that only the simulator has."""
        if fault.do not in self._verbs:
            known = ", ".join(sorted(self._verbs))
            raise ConfigError(field, got=fault.do, expected=f"one of {known}; or `dislocate sim run`")
        if self._verbs[fault.do] == self._trouble:
            for instance in self._layout.chosen_instances(fault.target):
                self._fleet.check_called(str(instance), field)

    def do(self, fault: Fault) -> None:
        self._verbs[fault.do](fault)

    def not_running(self, fault: Fault) -> list[str]:
        """Whom of its targets `fault` cannot touch, since they have no process."""
        if fault.do not in ("kill", "stop", "pause", "resume"):
            return []
        return [name for name in self._targets(fault) if not self._fleet.is_running(name)]

    def _targets(self, fault: Fault) -> list[str]:
        return [*self._layout.agents(fault.target), *map(str, self._layout.chosen_instances(fault.target))]

    def _each(self, fault: Fault, act: Callable[[str], None]) -> None:
        for name in self._targets(fault):
            act(name)

    def _between(self, fault: Fault, **command: object) -> None:
        self._fleet.steer(**{"from": fault.origin, "to": fault.dest, "oneway": fault.oneway, **command})

    def _cut(self, fault: Fault) -> None:
        self._between(fault, do=fault.do, channels=[channel.value for channel in fault.channels])
        if fault.do == "heal":
            self._between(fault, do="slow", factor=1.0)
            self._between(fault, do="loss", loss=0.0)

    def _slow(self, fault: Fault) -> None:
        self._between(fault, do="slow", factor=fault.factor)

    def _drop(self, fault: Fault) -> None:
        self._between(fault, do="loss", loss=fault.loss)

    def _trouble(self, fault: Fault) -> None:
        for instance in self._layout.chosen_instances(fault.target):
            self._fleet.trouble(str(instance), fault.factor or 1.0, fault.loss or 0.0)

    def _agent(self, path: str) -> AgentConnection:
        return AgentConnection(f"unix:{self._fleet.home(path) / 'state' / 'http.sock'}")

    def _leave(self, path: str) -> None:
        self._agent(path).send("POST", "/api/leave", {})

    def _drain(self, fault: Fault, draining: bool) -> None:
        body: dict[str, object] = {"draining": draining, "reason": "scenario"}
        if fault.lasting is not None:
            body["expires"] = format_duration(fault.lasting)
        for instance in self._layout.chosen_instances(fault.target):
            owner = self._layout.owner(instance)
            self._agent(owner).send("POST", f"/api/instances/{instance.id}/drain", body)
        for path in self._layout.agents(fault.target):
            self._agent(path).send("PUT", f"/api/drains/{path}", body)


def play(fleet: Fleet, *, as_json: bool, say: Say) -> bool:
    """Play the fleet's scenario; whether every expectation held."""
    tell: Say = (lambda _: None) if as_json else say
    scenario = fleet.scenario
    check_runs(scenario)
    operators = Operators(fleet)
    faults = LiveFaults(fleet, operators)
    observed = LiveObserved(fleet)
    judge = Judge(scenario.expect, observed)
    tell(f"{scenario.title}\n  {scenario.why}\n")
    tell(_who_starts(fleet))
    fleet.start()
    due = _agenda(scenario)
    began = time.monotonic_ns()
    fleet.tell_story(began)
    operators.set_policies()
    while (now := time.monotonic_ns() - began) < scenario.duration:
        while due and due[0][0] <= now:
            _, _, happening = heappop(due)
            tell(f"{seconds(happening.time):7.1f} s  {in_words(happening)}")
            if isinstance(happening, PlannedRun):
                operators.start(happening)
            elif isinstance(happening, PlannedScale):
                operators.scale(happening)
            else:
                faults.do(happening)
        asked = time.monotonic_ns() - began  # after the faults, which take their time: no answer is older than this
        observed.ask_everybody(asked)
        judge.look(asked)
        pause = min(ROUND, (due[0][0] - (time.monotonic_ns() - began)) / SECOND if due else ROUND)
        time.sleep(max(0.0, pause))
    fleet.check_callers()
    verdicts = judge.conclude(scenario.duration)
    if as_json:
        say(json.dumps([{"expectation": v.expectation, "holds": v.holds, "why": v.why} for v in verdicts]))
    else:
        _report(verdicts, tell)
    return all(verdict.holds for verdict in verdicts)


def _who_starts(fleet: Fleet) -> str:
    callers = f", and {len(fleet.callers)} processes that call them" if fleet.callers else ""
    return f"starting {len(fleet.agents)} agents and {len(fleet.services)} services{callers} ..."


def _agenda(scenario: Scenario) -> list[tuple[int, int, Happening]]:
    """What happens, as a heap by time: runs, faults, and what ends these."""
    happenings: list[Happening] = [*scenario.runs, *scenario.scales]
    for fault in scenario.at:
        happenings.append(fault)
        if fault.lasting is not None and fault.do in UNDO:  # a drain ends by itself
            undo = Fault(
                time=fault.time + fault.lasting,
                do=UNDO[fault.do],
                target=fault.target,
                origin=fault.origin,
                dest=fault.dest,
                oneway=fault.oneway,
                channels=fault.channels,
            )
            happenings.append(undo)
    due = [(happening.time, number, happening) for number, happening in enumerate(happenings)]
    heapify(due)
    return due


def in_words(fault: Happening) -> str:
    """'kill fra/a1', 'cut fra <-> *', 'skip fra/a1 in run shop'."""
    if isinstance(fault, PlannedScale):
        return f"scale {fault.service}"
    if isinstance(fault, PlannedRun):
        return f"start run {fault.spec.name}"
    if fault.do == "steer":
        whom = f" {', '.join(as_tuple(fault.target))} in" if fault.target else ""
        return f"{fault.verb}{whom} run {fault.run}"
    if fault.target:
        return f"{fault.do} {', '.join(as_tuple(fault.target))}"
    arrow = "->" if fault.oneway else "<->"
    return f"{fault.do} {', '.join(as_tuple(fault.origin))} {arrow} {', '.join(as_tuple(fault.dest))}"


def _report(verdicts: list[Verdict], tell: Say) -> None:
    tell("")
    for verdict in verdicts:
        tell(f"{'ok    ' if verdict.holds else 'FAILED'}  {verdict.expectation}  {verdict.why}")
    failed = sum(not verdict.holds for verdict in verdicts)
    tell(f"\n{len(verdicts) - failed} of {len(verdicts)} expectations held")
