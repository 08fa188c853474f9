"""The monitor: gives every event to the invariants that want it, and lets all of them look round now and then.

Events are the cheap way: an invariant is checked where and when something changed.  What shows only with time (somebody
is *still* dead) is looked for every `CHECK_PERIOD`.
"""

from collections.abc import Callable, Sequence

from dislocate.core.boundary.events import Event
from dislocate.core.errors import DislocateError
from dislocate.core.identity import Path
from dislocate.core.units import SECOND, seconds
from sim.process import Process
from sim.world import World

CHECK_PERIOD = 2 * SECOND


class InvariantViolated(DislocateError):
    """Something that must always hold does not.  The run ends here."""

    def __init__(self, name: str, node: Path, words: str, time: int) -> None:
        super().__init__(name, node, words, time)
        self.name = name
        self.node = node
        self.words = words
        self.time = time

    def __str__(self) -> str:
        return f"{self.name}: at {seconds(self.time):.3f}s, {self.node}: {self.words}"


class Invariant:
    """One claim about every run; the docstring states it."""

    name = ""

    def __init__(self, world: World) -> None:
        self.world = world
        self.exercised = 0  # how often there was something to judge

    def handlers(self) -> dict[type, Callable[[Process, Event], None]]:
        """Which events it judges, and how."""
        return {}

    def check(self) -> None:
        """Look round."""

    def conclude(self) -> None:
        """The story is over: judge what can only be judged then."""

    def violated(self, node: Path, words: str) -> InvariantViolated:
        return InvariantViolated(self.name, node, words, self.world.now)


class Monitor:
    """All invariants of one run."""

    def __init__(self, world: World, kinds: Sequence[type[Invariant]]) -> None:
        self.invariants = [kind(world) for kind in kinds]
        self._world = world
        self._handlers: dict[type, list[Callable[[Process, Event], None]]] = {}
        for invariant in self.invariants:
            for event, handler in invariant.handlers().items():
                self._handlers.setdefault(event, []).append(handler)
        world.observers.append(self._observe)
        world.schedule.call_last(CHECK_PERIOD, self._check_due, None)

    def conclude(self) -> None:
        """The story is over."""
        for invariant in self.invariants:
            invariant.check()
            invariant.conclude()

    def _observe(self, process: Process, event: Event) -> None:
        for handler in self._handlers.get(type(event), ()):
            handler(process, event)

    def _check_due(self, _: None, __: None, ___: None) -> None:
        for invariant in self.invariants:
            invariant.check()
        self._world.schedule.call_last(self._world.now + CHECK_PERIOD, self._check_due, None)
