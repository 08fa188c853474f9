"""For live tests of config runs: specifications, what agents answer of a run, journals on disks, clients that never stop."""

import http.client
import sqlite3
import threading
import time
from collections import Counter
from contextlib import closing
from pathlib import Path as FilePath
from typing import Any

from dislocate.cli.run_progress import OVER
from dislocate.client.connection import AgentConnection, NoAgent, Problem
from dislocate.core.boundary.values import StoredRecord
from dislocate.core.runs.agent.journal import HEAD, Journal, Journals
from dislocate.fleet.fleet import Fleet
from dislocate.fleet.operators import latest_run
from tests.support.live import PATIENCE, until

QUICK = {"soak": "0s", "settle": "0s", "batch": "100%"}
USABLE = ("passing", "warning")


def template(path: str, content: str, **more: Any) -> dict[str, Any]:
    """A file below each agent's own state directory."""
    return {"kind": "file", "path": "{{ facts.state_dir }}/" + path, "content": content, **more}


def shell(name: str, script: str, **more: Any) -> dict[str, Any]:
    """A command in sh, with PLACE, the state directory of its agent."""
    return {
        "kind": "command",
        "id": name,
        "run": ["sh", "-c", script],
        "environment": {"PLACE": "{{ facts.state_dir }}"},
        **more,
    }


class Runs:
    """The runs of one fleet, as anybody who is up may ask for them."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet

    def agent(self, path: str) -> AgentConnection:
        return AgentConnection(f"unix:{self.fleet.home(path)}/state/http.sock", timeout=PATIENCE)

    def start(self, name: str, targets: str, *resources: dict[str, Any], by: str = "", **strategy: Any) -> str:
        """Its id.  Asked again while nobody leads; a run that began without an answer is found by its name."""
        body = {
            "name": name,
            "targets": targets,
            "resources": list(resources),
            "strategy": {**QUICK, **strategy},
        }
        started: list[str] = []

        def is_started() -> bool:
            agent = self.agent(by or self.fleet.living()[0].path)
            try:
                started.append(str(agent.send("POST", "/api/runs", body)["id"]))
            except Problem as problem:
                if problem.status < 500:
                    raise AssertionError(f"run {name} is refused: {problem}") from problem
                if problem.status == 504 and (run := latest_run(agent, name)):
                    started.append(run)
            return bool(started)

        until(f"run {name} begins", is_started)
        return started[0]

    def get(self, run: str, by: str = "") -> dict[str, Any]:
        return dict(self.agent(by or self.fleet.living()[0].path).get(f"/api/runs/{run}?consistency=local"))

    def until(self, claim: str, run: str, holds: Any, by: str = "") -> dict[str, Any]:
        """The run when `holds` of it."""
        seen: list[dict[str, Any]] = [{}]

        def asked() -> bool:
            seen[0] = self.get(run, by)
            return bool(holds(seen[0]))

        try:
            until(claim, asked)
        except AssertionError as error:
            raise AssertionError(f"{error}; run {run}: {seen[0]}") from error
        return seen[0]

    def over(self, run: str, by: str = "") -> dict[str, Any]:
        return self.until("it is over", run, lambda seen: seen["state"] in OVER, by)

    def leader(self) -> str | None:
        for path in self.fleet.scenario.servers:
            try:
                if self.fleet.agents[path].is_running and self.agent(path).get("/api/store")["role"] == "leader":
                    return path
            except NoAgent:
                continue
        return None

    def file(self, path: str, name: str) -> FilePath:
        return self.fleet.home(path) / "state" / name

    def lines(self, path: str, name: str) -> list[str]:
        file = self.file(path, name)
        return file.read_text().splitlines() if file.exists() else []

    def journals(self, path: str, run: str) -> list[Journal]:
        """What the disk of an agent has of a run."""
        database = self.file(path, "state.db")
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=PATIENCE)) as disk:
            found = disk.execute("SELECT key, value FROM records WHERE key LIKE ?", (f"{HEAD}%",)).fetchall()
        journals = Journals(StoredRecord(key, value) for key, value in found)
        return [journal for journal in journals.all() if journal.run == run]


def states(seen: dict[str, Any]) -> dict[str, str]:
    return {path: node["state"] for path, node in seen["nodes"].items()}


class Callers:
    """Clients of a service: each asks an agent which instances there are and calls every usable one, again and again.

    What they call they asked for just before: an answer that grew old while this machine was busy with others is not used."""

    FRESH = 1.0  # seconds

    def __init__(self, agents: list[AgentConnection], service: str) -> None:
        self.failures: list[str] = []
        self.answers: Counter[str] = Counter()
        self._service = service
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(agent,), daemon=True) for agent in agents]

    def __enter__(self) -> "Callers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(PATIENCE)

    def _run(self, agent: AgentConnection) -> None:
        while not self._stopping.is_set():
            asked = time.monotonic()
            try:
                instances = agent.get(f"/api/services/{self._service}")["instances"]
            except (NoAgent, Problem) as error:
                self.failures.append(f"asking for instances: {error}")
                continue
            usable = [one for one in instances if one["status"] in USABLE]
            if not usable:
                self.failures.append(f"nobody to call: {instances}")
            for one in usable:
                if time.monotonic() - asked < self.FRESH:
                    self._call(one)
            self._stopping.wait(0.01)

    def _call(self, one: dict[str, Any]) -> None:
        connection = http.client.HTTPConnection(one["address"], one["port"], timeout=PATIENCE)
        try:
            connection.request("GET", "/")
            response = connection.getresponse()
            body = response.read().decode()
            if response.status == 200:
                self.answers[body.strip()] += 1
            else:
                self.failures.append(f"{one['id']} on {one['node']}: {response.status} {body}")
        except (OSError, http.client.HTTPException) as error:
            self.failures.append(f"{one['id']} on {one['node']}: {error!r}")
        finally:
            connection.close()
