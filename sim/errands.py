"""Errands: small questions that claims about the store need asked, of each agent in turn, as an operator's probe does.

A claim such as `store_writable` is about an answer and no view, so somebody has to ask.  Asked are the agents that an
expectation is about, about twice a second; what came of the last asking is what the claim is judged by.
"""

from collections.abc import Callable, Sequence

from msgspec import Struct

from dislocate.core.boundary.requests import Refused, Request, Result
from dislocate.core.boundary.store import Consistency, KeysRead, Put, ReadKeys, Transact, Transacted
from dislocate.core.identity import Path
from dislocate.core.units import MILLISECOND, SECOND
from sim.claims import ERRANDS
from sim.scenario import Expect
from sim.world import World

PERIOD = 500 * MILLISECOND
PATIENCE = 5 * SECOND  # then it is given up, and asked anew
KEY = "errand/"  # of what is written: a key for each agent


class Errand(Struct):
    """The last asking of one agent: what came of it, or that nothing has."""

    asked: int
    outcome: str = "waiting"  # 'done', 'refused', 'uncertain'
    words: str = "no answer yet"
    took: int = 0
    age: int = 0  # of what was read


class Errands:
    """Those of one world, for these expectations."""

    def __init__(self, world: World, expects: Sequence[Expect]) -> None:
        self._world = world
        self._last: dict[tuple[Path, str], Errand] = {}
        self._written = 0
        for expect in expects:
            what = ERRANDS.get(expect.claim)
            if what is not None:
                for path in world.layout.agents(expect.of or expect.by):
                    if (path, what) not in self._last:
                        self._last[path, what] = Errand(0)
                        world.schedule.call(world.streams["errands"].below(PERIOD), self._due, path, what)
        world.errand = self.last

    def last(self, path: Path, what: str) -> Errand | None:
        """What last came of asking `path`."""
        return self._last.get((path, what))

    def _due(self, path: Path, what: str, _: None) -> None:
        world, now = self._world, self._world.now
        world.schedule.call(now + PERIOD, self._due, path, what)
        machine = world.machines[path]
        process = machine.process
        if process is None:
            return
        process.version += 1  # also that nothing has come yet is news
        before = self._last[path, what]
        if before.outcome == "waiting" and before.asked and now - before.asked < PATIENCE:
            before.took = now - before.asked
            return
        errand = self._last[path, what] = Errand(now)
        world.request(machine, self._request(path, what), self._answered(errand))

    def _request(self, path: Path, what: str) -> Request:
        key = KEY + path
        if what == "read":
            return ReadKeys(key, consistency=Consistency.LOCAL)
        self._written += 1
        return Transact(then=(Put(key, b"%d" % self._written),))

    def _answered(self, errand: Errand) -> Callable[[Result], None]:
        def answered(result: Result) -> None:
            errand.took = self._world.now - errand.asked
            errand.outcome, errand.words = "uncertain", type(result).__name__
            match result:
                case Transacted():
                    errand.outcome, errand.words = "done", f"revision {result.revision}"
                case KeysRead():
                    errand.outcome, errand.words, errand.age = "done", f"revision {result.revision}", result.age
                case Refused():
                    errand.outcome, errand.words = "refused", result.reason

        return answered
