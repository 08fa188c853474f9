"""Operators of a live scenario: they start its config runs, steer them and change its servers, and mean it.

Each asks an agent that is up; without an answer, or with one that says nobody can do it now, another one a little later, as
`sim.operators` has it.  What is refused for a reason stays refused.
"""

import threading
import time
from collections.abc import Callable
from typing import Any

from dislocate.client.connection import AgentConnection, NoAgent, Problem
from dislocate.core.boundary.spec import Command, Directory, File, Key, Package, Process, Resource
from dislocate.core.errors import ConfigError
from dislocate.core.identity import Path
from dislocate.fleet.fleet import Fleet
from dislocate.strict import in_words
from sim.scenario import Fault, PlannedRun, PlannedScale, Scenario

AGAIN = 3.0  # seconds
SERVERS_AGAIN = 5.0
SERVERS_PATIENCE = 60.0  # seconds for an answer: a new server first takes over the whole store
PATIENCE = 12.0  # seconds for an answer about a run
LATEST = 128  # runs among which a name is looked for
ATTEMPTS = 200  # the story ends before
OWN = "{{ facts.state_dir }}/"  # below it, each agent has a place of its own

# What one asking came to: done, or to be asked again.  Raises `NoAgent` or `Problem`.
Ask = Callable[[AgentConnection], bool]


class Operators:
    """Those of one fleet."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def add_server(self, path: Path) -> None:
        self._change_servers("PUT", f"/api/servers/{path}")

    def remove_server(self, path: Path) -> None:
        self._change_servers("DELETE", f"/api/servers/{path}")

    def transfer(self, to: Path) -> None:
        self._change_servers("POST", "/api/servers/transfer", {"to": to})

    def start(self, run: PlannedRun) -> None:
        body = in_words(run.spec)

        def ask(agent: AgentConnection) -> bool:
            agent.send("POST", "/api/runs", body, PATIENCE)
            return True

        self._insist(ask, _is_for_later, AGAIN, run.by)

    def scale(self, scale: PlannedScale) -> None:
        body = in_words(scale.policy)

        def ask(agent: AgentConnection) -> bool:
            agent.send("PUT", f"/api/scale/{scale.service}?force=true", body, PATIENCE)
            return True

        self._insist(ask, _is_for_later, AGAIN, "")

    def set_policies(self) -> None:
        """Those of the scenario, as soon as the store takes writes."""
        for service, table in self._fleet.scenario.policies.items():

            def ask(agent: AgentConnection, service: str = service, table: dict[str, Any] = table) -> bool:
                agent.send("PUT", f"/api/policies/{service}?force=true", table, PATIENCE)
                return True

            self._insist(ask, _is_for_later, AGAIN)

    def steer(self, fault: Fault, nodes: tuple[Path, ...]) -> None:
        """Do `fault.verb` to the run, of that name, that began last."""
        for node in nodes or ("",):

            def ask(agent: AgentConnection, node: Path = node) -> bool:
                run = latest_run(agent, fault.run)
                if run is None:
                    return False
                body = {"node": node} if node else {}
                agent.send("POST", f"/api/runs/{run}/{fault.verb}", body, PATIENCE)
                return True

            self._insist(ask, _is_for_later, AGAIN, token=self._fleet.token)

    def _change_servers(self, method: str, path: str, body: object = None) -> None:
        """Also when it was refused: it may have to wait for a fault to end."""

        def ask(agent: AgentConnection) -> bool:
            agent.send(method, path, body, SERVERS_PATIENCE)
            return True

        self._insist(ask, lambda _: True, SERVERS_AGAIN)

    def _insist(self, ask: Ask, again: Callable[[Problem], bool], pause: float, by: Path = "", token: str = "") -> None:
        def asking() -> None:
            for attempt in range(ATTEMPTS):
                up = [one.path for one in self._fleet.living() if by in ("", one.path)]
                if up and self._is_done(ask, again, up[attempt % len(up)], token):
                    return
                time.sleep(pause)

        threading.Thread(target=asking, daemon=True).start()

    def _is_done(self, ask: Ask, again: Callable[[Problem], bool], path: Path, token: str) -> bool:
        agent = AgentConnection(f"unix:{self._fleet.home(path) / 'state' / 'http.sock'}", token or None)
        try:
            return ask(agent)
        except NoAgent:
            return False
        except Problem as problem:
            return not again(problem)


def latest_run(agent: AgentConnection, name: str) -> str | None:
    """The id of the run of that name that began last, if this agent knows one.  Raises `NoAgent` or `Problem`."""
    runs = agent.get(f"/api/runs?limit={LATEST}", PATIENCE)["runs"]
    return next((str(run["id"]) for run in runs if run["name"] == name), None)


def _is_for_later(problem: Problem) -> bool:
    """Nobody can do it now, nobody knows whether it was done, or nobody matches yet as that agent sees it."""
    return problem.status >= 500 or problem.answer.get("field") == "targets"


def check_runs(scenario: Scenario) -> None:
    """Raises `ConfigError` for a run that would change what all agents of this machine share."""
    for at, run in enumerate(scenario.runs):
        for number, resource in enumerate(run.spec.resources):
            if (mistake := _shared(resource)) is not None:
                field, got = mistake
                expected = f"a path that begins with {OWN!r}: these agents share one machine; or `dislocate sim run`"
                raise ConfigError(f"runs[{at}].spec.resources[{number}].{field}", got=got, expected=expected)


def _shared(resource: Resource) -> tuple[str, Any] | None:
    """(field, value) of what is the whole machine's and not one agent's."""
    match resource:
        case File() | Directory():
            return None if _is_own(resource.path) else ("path", resource.path)
        case Package():
            return None if _is_own(resource.venv) else ("venv", resource.venv)
        case Command() | Process() | Key():
            return None  # what they do is their author's, as in a shell
    return ("unit", resource.unit)


def _is_own(path: str) -> bool:
    return path.replace("{{facts.state_dir}}", "{{ facts.state_dir }}").startswith(OWN)
