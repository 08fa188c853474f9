"""Errands: small questions that claims about the store need asked, of each agent in turn, as an operator's probe does.

A claim such as `store_writable` is about an answer and no view, so somebody has to ask.  Asked are the agents that an
expectation is about, about twice a second; what came of the last asking is what the claim is judged by.
"""

from collections.abc import Callable, Sequence

from msgspec import Struct

from dislocate.core.boundary.requests import Refused, Request, Result
from dislocate.core.boundary.runs import NodeTask, RunRecord
from dislocate.core.boundary.store import Consistency, KeysRead, KeyValue, Put, ReadKeys, Transact, Transacted
from dislocate.core.identity import Path
from dislocate.core.runs.records import active_key, decode, nodes_prefix, over_key
from dislocate.core.units import MILLISECOND, SECOND
from sim.claims.store import ERRANDS
from sim.process import Process
from sim.scenario import Expect
from sim.world import World

PERIOD = 500 * MILLISECOND
LONG = 2 * SECOND  # for an answer; what came before is then no news any more
PATIENCE = 15 * SECOND  # then it is given up, and asked anew
KEY = "errand/"  # of what is written: a key for each agent


class Errand(Struct):
    """The last asking of one agent: what came of it, or that nothing has."""

    asked: int
    outcome: str = "waiting"  # 'done', 'refused', 'uncertain'
    words: str = "no answer yet"
    took: int = 0


class Errands:
    """Those of one world, for these expectations."""

    def __init__(self, world: World, expects: Sequence[Expect]) -> None:
        self._world = world
        self._last: dict[tuple[Path, str], Errand] = {}
        self._pending: dict[tuple[Path, str], Errand] = {}
        self._written = 0
        asked = {
            (path, ERRANDS[one.claim]): None
            for one in expects
            if one.claim in ERRANDS
            for path in _subjects(world, one)
        }
        for path, what in asked:
            world.schedule.call(world.streams["errands"].below(PERIOD), self._due, path, what)
        world.errand = self.last
        for path, name in dict.fromkeys(
            (path, one.run) for one in expects if one.run for path in world.layout.agents(one.by)
        ):
            _RunErrand(world, path, name)

    def last(self, path: Path, what: str) -> Errand | None:
        """What last came of asking `path`; of one that has been waiting for `LONG`, that."""
        return self._last.get((path, what))

    def _due(self, path: Path, what: str, _: None) -> None:
        world, now = self._world, self._world.now
        world.schedule.call(now + PERIOD, self._due, path, what)
        process = world.machines[path].process
        if process is None:
            self._pending.pop((path, what), None)
            return
        pending = self._pending.get((path, what))
        if pending is not None and now - pending.asked < PATIENCE:
            if now - pending.asked >= LONG:
                pending.took = now - pending.asked
                self._tell(process, path, what, pending)
            return
        errand = self._pending[path, what] = Errand(now)

        def answered(result: Result) -> None:
            _conclude(errand, result, world.now)
            if self._pending.get((path, what)) is errand:
                del self._pending[path, what]
                self._tell(process, path, what, errand)

        world.request(process.machine, self._request(path, what), answered)

    def _tell(self, process: Process, path: Path, what: str, errand: Errand) -> None:
        self._last[path, what] = errand
        process.version += 1

    def _request(self, path: Path, what: str) -> Request:
        key = KEY + path
        if what == "read":
            return ReadKeys(key, consistency=Consistency.LOCAL)
        self._written += 1
        return Transact(then=(Put(key, b"%d" % self._written),))


class RunAnswer(Struct, frozen=True):
    """What one agent answered of a run."""

    state: str
    nodes: dict[Path, str]


class _RunErrand:
    """One agent is asked again and again for the run of a name."""

    def __init__(self, world: World, path: Path, name: str) -> None:
        self._world = world
        self._path = path
        self._name = name
        world.schedule.call(world.streams["errands"].below(PERIOD), self._due, None)

    def _due(self, _: None, __: None, ___: None) -> None:
        world = self._world
        world.schedule.call(world.now + PERIOD, self._due, None)
        run = world.truth.runs.latest(self._name)
        if run is None or world.machines[self._path].process is None:
            return
        self._read(active_key(run), lambda found: self._has_record(run, found))

    def _read(self, key: str, then: Callable[[tuple[KeyValue, ...]], None], prefix: bool = False) -> None:
        def answered(result: Result) -> None:
            if isinstance(result, KeysRead):
                then(result.keys)

        request = ReadKeys(key, prefix, Consistency.LOCAL)
        self._world.request(self._world.machines[self._path], request, answered)

    def _has_record(self, run: str, found: tuple[KeyValue, ...]) -> None:
        if found:
            record = decode(found[0].value, RunRecord)
            self._read(nodes_prefix(run), lambda nodes: self._has_nodes(record, nodes), prefix=True)
        else:
            self._read(over_key(run), lambda over: self._has_record(run, over) if over else None)

    def _has_nodes(self, record: RunRecord, nodes: tuple[KeyValue, ...]) -> None:
        tasks = [decode(kv.value, NodeTask) for kv in nodes]
        answer = RunAnswer(record.state.value, {task.node: task.state.value for task in tasks})
        self._world.seen_runs[self._path, self._name] = answer
        process = self._world.machines[self._path].process
        if process is not None:
            process.version += 1


def _subjects(world: World, expect: Expect) -> tuple[Path, ...]:
    return world.layout.agents(expect.of or expect.by)


def _conclude(errand: Errand, result: Result, now: int) -> None:
    errand.took = now - errand.asked
    errand.outcome, errand.words = "uncertain", type(result).__name__
    match result:
        case Transacted():
            errand.outcome, errand.words = "done", f"revision {result.revision}"
        case KeysRead():
            errand.outcome, errand.words = "done", f"revision {result.revision}"
        case Refused():
            errand.outcome, errand.words = "refused", result.reason
