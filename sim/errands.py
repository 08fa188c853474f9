"""Errands: small questions that claims about the store need asked, of each agent in turn, as an operator's probe does.

A claim such as `store_writable` is about an answer and no view, so somebody has to ask.  Asked are the agents that an
expectation is about, about twice a second; what came of the last asking is what the claim is judged by.
"""

from collections.abc import Sequence

from msgspec import Struct

from dislocate.core.boundary.requests import Refused, Request, Result
from dislocate.core.boundary.store import Consistency, KeysRead, Put, ReadKeys, Transact, Transacted
from dislocate.core.identity import Path
from dislocate.core.units import MILLISECOND, SECOND
from sim.claims import ERRANDS
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
