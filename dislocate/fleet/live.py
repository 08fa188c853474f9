"""A scenario with real processes: the same story, the same claims, the wall clock.

Story time begins when every agent is up.  A fault acts when its time has come; the claims are judged by what the agents
answer, asked in rounds a quarter of a second apart.
"""

import json
import threading
import time
from collections.abc import Callable
from heapq import heappop, heappush

from dislocate.client.connection import AgentConnection, NoAgent, Problem
from dislocate.core.errors import ConfigError
from dislocate.core.units import SECOND, format_duration, seconds
from dislocate.fleet.fleet import Fleet
from dislocate.fleet.observed import LiveObserved
from sim.expectations import Judge, Verdict
from sim.scenario import UNDO, Fault
from sim.selectors import as_tuple

ROUND = 0.25  # seconds between two rounds of questions
OPERATOR_ATTEMPTS = 40  # of one who changes the servers; the story ends before
OPERATOR_PATIENCE = 60.0  # seconds: a new server first takes over the whole store
OPERATOR_PAUSE = 5.0  # seconds

Say = Callable[[str], None]


class LiveFaults:
    """The verbs of a scenario, done to processes.  Those that need a simulated machine are refused before the start."""

    def __init__(self, fleet: Fleet) -> None:
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
            "server_add": lambda fault: self._each(fault, lambda path: self._operate("PUT", f"/api/servers/{path}")),
            "server_remove": lambda fault: self._each(
                fault, lambda path: self._operate("DELETE", f"/api/servers/{path}")
            ),
            "lead": lambda fault: self._each(
                fault, lambda path: self._operate("POST", "/api/servers/transfer", {"to": path})
            ),
        }
        for at, fault in enumerate(fleet.scenario.at):
            self.check(fault, f"at[{at}].do")

    def check(self, fault: Fault, field: str) -> None:
        """Raises `ConfigError` naming `field` for a verb that only the simulator has."""
        if fault.do not in self._verbs:
            known = ", ".join(sorted(self._verbs))
            raise ConfigError(field, got=fault.do, expected=f"one of {known}; or `dislocate sim run`")

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

    def _agent(self, path: str) -> AgentConnection:
        return AgentConnection(f"unix:{self._fleet.home(path) / 'state' / 'http.sock'}")

    def _leave(self, path: str) -> None:
        self._agent(path).send("POST", "/api/leave", {})

    def _operate(self, method: str, path: str, body: object = None) -> None:
        """Ask any agent, beside the story, until it is done: it may have to wait for a fault to end."""

        def insist() -> None:
            for attempt in range(OPERATOR_ATTEMPTS):
                up = self._fleet.living()
                if up:
                    try:
                        self._agent(up[attempt % len(up)].path).send(method, path, body, timeout=OPERATOR_PATIENCE)
                        return
                    except (NoAgent, Problem):
                        pass
                time.sleep(OPERATOR_PAUSE)

        threading.Thread(target=insist, daemon=True).start()

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
    faults = LiveFaults(fleet)
    observed = LiveObserved(fleet)
    judge = Judge(scenario.expect, observed)
    tell(f"{scenario.title}\n  {scenario.why}\n")
    tell(f"starting {len(fleet.agents)} agents and {len(fleet.services)} services ...")
    fleet.start()
    due: list[tuple[int, int, Fault]] = []
    for number, fault in enumerate(scenario.at):
        heappush(due, (fault.time, number, fault))
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
            heappush(due, (undo.time, number + len(scenario.at), undo))
    began = time.monotonic_ns()
    while (now := time.monotonic_ns() - began) < scenario.duration:
        while due and due[0][0] <= now:
            _, _, fault = heappop(due)
            tell(f"{seconds(fault.time):7.1f} s  {in_words(fault)}")
            faults.do(fault)
        asked = time.monotonic_ns() - began  # after the faults, which take their time: no answer is older than this
        observed.ask_everybody(asked)
        judge.look(asked)
        pause = min(ROUND, (due[0][0] - (time.monotonic_ns() - began)) / SECOND if due else ROUND)
        time.sleep(max(0.0, pause))
    verdicts = judge.conclude(scenario.duration)
    if as_json:
        say(json.dumps([{"expectation": v.expectation, "holds": v.holds, "why": v.why} for v in verdicts]))
    else:
        _report(verdicts, tell)
    return all(verdict.holds for verdict in verdicts)


def in_words(fault: Fault) -> str:
    """'kill fra/a1', 'cut fra <-> *'."""
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
