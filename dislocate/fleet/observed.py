"""What the running agents answer, as `sim.observed.Observed` wants it: scenarios are judged by the same claims in both worlds.

One round asks every agent that can answer; between rounds the answers stand still, as a spectator's knowledge does.
"""

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from msgspec import Struct

from dislocate.client.connection import NoAgent, Problem
from dislocate.core.boundary.values import MemberState, Status
from dislocate.core.identity import Path
from dislocate.core.units import SECOND
from dislocate.fleet.calling.reports import Reports
from dislocate.fleet.fleet import Fleet
from dislocate.fleet.observer import Observer
from sim.claims.store import ERRANDS
from sim.scenario import Expect
from sim.traffic.book import Seen


class Member(Struct, frozen=True):
    state: MemberState


class Datacenter(Struct, frozen=True):
    reachable: bool


class Instance(Struct, frozen=True):
    id: str
    node: Path
    status: Status
    reachable: bool


class Server(Struct, frozen=True):
    path: Path
    role: str


class Store(Struct, frozen=True):
    role: str
    leader: Path | None
    term: int
    revision: int
    problem: str
    servers: tuple[Server, ...]


class Run(Struct, frozen=True):
    state: str
    nodes: dict[Path, str]


NO_STORE = Store("agent", None, 0, 0, "", ())


class Errand(Struct, frozen=True):
    """What came of asking an agent for something."""

    outcome: str
    words: str
    took: int


class Answers(Struct):
    """Of one agent, in one round."""

    members: dict[Path, Member]
    datacenters: dict[str, Datacenter]
    services: dict[str, tuple[Instance, ...]]
    counters: dict[str, float]
    store: Store
    errands: dict[str, Errand]
    runs: dict[str, Run]  # by name


class LiveObserved:
    """The answers of the last round."""

    def __init__(self, fleet: Fleet) -> None:
        self.layout = fleet.scenario.layout()
        self._fleet = fleet
        self._reports = Reports(fleet.callers_plans.values())
        self._rounds = 0
        self._now = 0
        self._answers: dict[Path, Answers] = {}
        self._counted: dict[Path, dict[str, float]] = {}  # the last counters of each agent, dead ones too
        self._marks: dict[int, dict[str, float]] = {}  # sums of all agents at each round, by story time
        self._terms: dict[int, int] = {}  # the highest term of the store that any agent told, by story time
        self._errands: dict[Path, tuple[str, ...]] = {
            path: tuple(dict.fromkeys(ERRANDS[one.claim] for one in expects if path in self._asked(one)))
            for expects in [[one for one in fleet.scenario.expect if one.claim in ERRANDS]]
            for path in self.layout.paths
        }
        self._written = 0
        self._runs = {
            path: tuple(dict.fromkeys(one.run for one in fleet.scenario.expect if one.run and path in self._by(one)))
            for path in self.layout.paths
        }
        self._latest: dict[str, str] = {}  # by name the run that began last, as any agent told

    def ask_everybody(self, now: int) -> None:
        """One round, `now` nanoseconds into the story.  An agent that does not answer is missing from it."""
        self._rounds += 1
        self._now = now
        self._answers.clear()
        for observer in self._fleet.living():
            try:
                answers = self._answers[observer.path] = self._ask(observer)
            except NoAgent:
                continue  # it was killed between two questions; the next round knows
            self._counted[observer.path] = answers.counters
        self._marks[now] = self._sums()
        terms = [answers.store.term for answers in self._answers.values()]
        self._terms[now] = max([*terms, *self._terms.values()], default=0)

    def _ask(self, observer: Observer) -> Answers:
        services = {}
        for service in self._fleet.scenario.services:
            try:
                instances = observer.instances(service.name)
            except Problem:
                continue  # the name is not known there yet: its absence is the answer
            services[service.name] = tuple(
                Instance(one["id"], one["node"], Status(one["status"]), one["reachable"]) for one in instances
            )
        return Answers(
            members={path: Member(MemberState(one["state"])) for path, one in observer.members().items()},
            datacenters={name: Datacenter(one["reachable"]) for name, one in observer.datacenters().items()},
            services=services,
            counters=observer.counters(),
            store=_store(observer.store()) if self._fleet.scenario.servers else NO_STORE,
            errands={what: self._errand(observer, what) for what in self._errands[observer.path]},
            runs=self._runs_of(observer) if self._runs[observer.path] else {},
        )

    def _by(self, expect: Expect) -> tuple[Path, ...]:
        return self.layout.agents(expect.by)

    def _runs_of(self, observer: Observer) -> dict[str, Run]:
        """What it has of the runs that it is asked for: nothing of those that it has not heard of yet."""
        try:
            for name, run in observer.runs_under_way().items():
                self._latest[name] = max(run, self._latest.get(name, run), key=int)
        except Problem:
            return {}  # it knows nothing of the store yet
        found = {}
        for name in self._runs[observer.path]:
            if name in self._latest:
                with suppress(Problem):
                    answer = observer.run(self._latest[name])
                    found[name] = Run(answer["state"], {path: one["state"] for path, one in answer["nodes"].items()})
        return found

    def _asked(self, expect: Expect) -> tuple[Path, ...]:
        return self.layout.agents(expect.of or expect.by)

    def _errand(self, observer: Observer, what: str) -> Errand:
        began = time.monotonic_ns()
        key = f"errand/{observer.path}"
        try:
            if what == "write":
                self._written += 1
                observer.put_key(key, b"%d" % self._written)
            else:
                observer.read_key(key)
            outcome, words = "done", ""
        except Problem as problem:
            outcome, words = _ANSWERED.get(problem.status, "refused"), str(problem)
        except NoAgent as error:
            outcome, words = "waiting", str(error.reason)
        return Errand(outcome, words, time.monotonic_ns() - began)

    def _sums(self) -> dict[str, float]:
        sums: dict[str, float] = {}
        for counters in self._counted.values():
            for name, value in counters.items():
                sums[name] = sums.get(name, 0.0) + value
        return sums

    # ---- `sim.observed.Observed`

    def observers_up(self) -> tuple[Path, ...]:
        return tuple(self._answers)

    def is_up(self, path: Path) -> bool:
        return path in self._answers

    def version(self, path: Path) -> tuple[int, int]:
        return (0, self._rounds)

    def members(self, path: Path) -> dict[Path, Member]:
        return self._answers[path].members

    def datacenters(self, path: Path) -> dict[str, Datacenter]:
        return self._answers[path].datacenters

    def instances(self, path: Path, service: str) -> tuple[Instance, ...]:
        return self._answers[path].services.get(service, ())

    def store(self, path: Path) -> Store:
        return self._answers[path].store

    def errand(self, path: Path, what: str) -> Errand | None:
        return self._answers[path].errands.get(what)

    def run_of(self, path: Path, name: str) -> Run | None:
        return self._answers[path].runs.get(name)

    def happened(self, what: str) -> int:
        """How often an event has been told, by the agents' own counters."""
        return int(self._sums().get(f'dislocate_events_total{{kind="{what}"}}', 0))

    def requests(self, services: Sequence[str], agents: Sequence[Path], since: int, until: int) -> Seen:
        """What callers wrote down until now."""
        return self._reports.seen(services, agents, since, until)

    def measured(self, what: str, since: int) -> float:
        """'messages' or 'bytes' sent by an agent in a second, from `since` to the last round; by how much 'terms' grew."""
        name = f"dislocate_{what}_sent_total"
        start = min((at for at in self._marks if at >= since), default=self._now)
        if what == "terms":
            return self._terms.get(self._now, 0) - self._terms.get(start, 0)
        span = (self._now - start) / SECOND
        grown = self._marks[self._now].get(name, 0.0) - self._marks.get(start, {}).get(name, 0.0)
        return grown / span / max(1, len(self._answers)) if span else 0.0


_ANSWERED = {404: "done", 504: "uncertain"}  # statuses that are no refusal: there is no such key; nobody knows


def _store(answer: dict[str, Any]) -> Store:
    servers = tuple(Server(one["path"], one["role"]) for one in answer["servers"])
    return Store(
        role=answer["role"],
        leader=answer["leader"],
        term=answer["term"],
        revision=answer["revision"],
        problem=answer["problem"],
        servers=servers,
    )
