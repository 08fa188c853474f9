"""Clients in a world: each asks one agent at a time, waits for the answer or gives up, and goes on.

A client is a script: a generator that yields what it wants (`Ask`, `Pause`) and is given what came of it.  It asks its own
agent as a program on that host would, and the next one while that does not run.  Who waits for an agent that dies hears of
it (its connection is reset) and cannot know what became of the question; who waits for longer than `PATIENCE` gives up.
"""

from collections.abc import Callable, Generator
from typing import TypeAlias

from msgspec import Struct

from dislocate.core.boundary.requests import Request, Result
from dislocate.core.boundary.store import Uncertain
from dislocate.core.identity import Path
from dislocate.core.units import MILLISECOND, SECOND
from sim.process import Machine, Process
from sim.world import World

PATIENCE = 10 * SECOND  # then the asking is uncertain
RESET = 1 * MILLISECOND  # until a client hears that its agent died
NOBODY = 500 * MILLISECOND  # until it tries again when none of its agents runs
LEAST_PAUSE = 1 * MILLISECOND  # of a client that never rests


class Ask(Struct, frozen=True):
    """-> the result; `Uncertain` when none came; None when nobody was there to be asked."""

    request: Request
    patience: int = PATIENCE
    elsewhere: bool = False  # from here on another agent is asked, as behind a load balancer


class Pause(Struct, frozen=True):
    """-> None, after so many nanoseconds."""

    lasting: int


Wish: TypeAlias = Ask | Pause
Answer: TypeAlias = Result | None
Script: TypeAlias = Generator[Wish, Answer, None]


class Client:
    """One client, whose script runs from `begin`."""

    def __init__(self, world: World, name: str, agents: tuple[Path, ...], home: int, script: Script) -> None:
        self.name = name
        self._world = world
        self._agents = agents
        self._home = home
        self._script = script
        self._asking = 0  # grows with each: who answers late is not listened to
        self._asked: tuple[Process, int] | None = None

    def begin(self, at: int) -> None:
        self._world.schedule.call(at, self._paused, None)

    def _go_on(self, answer: Answer) -> None:
        try:
            wish = self._script.send(answer)
        except StopIteration:
            return
        if isinstance(wish, Pause):
            self._world.schedule.call(self._world.now + max(LEAST_PAUSE, wish.lasting), self._paused, None)
        else:
            self._ask(wish)

    def _paused(self, _: None, __: None, ___: None) -> None:
        self._go_on(None)

    def _ask(self, ask: Ask) -> None:
        world = self._world
        self._home += ask.elsewhere
        machine = self._machine()
        if machine is None:
            world.schedule.call(world.now + NOBODY, self._paused, None)
            return
        self._asking += 1
        process = machine.process
        assert process is not None  # it is up
        world.schedule.call(world.now + ask.patience, self._gave_up, self._asking)
        asking = self._asking
        number = world.request(machine, ask.request, self._answered(asking), self._lost(asking))
        self._asked = (process, number)

    def _machine(self) -> Machine | None:
        count = len(self._agents)
        for step in range(count):
            path = self._agents[(self._home + step) % count]
            machine = self._world.machines[path]
            if machine.process is not None:  # one that is stopped accepts, and does not answer
                return machine
        return None

    def _answered(self, asking: int) -> Callable[[Result], None]:
        def answered(result: Result) -> None:
            if asking == self._asking:
                self._asking += 1
                # Not within the agent's turn: what it does after this reply is done before the client goes on.
                self._world.schedule.call(self._world.now, self._resume, result)

        return answered

    def _resume(self, result: Answer, _: None, __: None) -> None:
        self._go_on(result)

    def _lost(self, asking: int) -> Callable[[], None]:
        def lost() -> None:
            if asking == self._asking:
                self._asking += 1
                gone = Uncertain("the agent died")
                self._world.schedule.call(self._world.now + RESET, self._resume, gone)

        return lost

    def _gave_up(self, asking: int, _: None, __: None) -> None:
        if asking != self._asking:
            return
        self._asking += 1
        if self._asked is not None:
            self._world.cancel(*self._asked)
        self._go_on(Uncertain("no answer came in time"))
