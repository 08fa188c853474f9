"""What operators do to the servers of the store: no faults, but moments at which faults hurt most.

An operator asks until it is done, whatever the faults around make of the first attempts.
"""

from collections.abc import Callable

from dislocate.core.boundary.requests import Done, Request, Result
from dislocate.core.boundary.store import AddServer, RemoveServer, TransferLeadership
from dislocate.core.identity import Path
from dislocate.core.units import SECOND
from sim.faults.verb import Verb, machines_of
from sim.scenario import Fault
from sim.world import World

AGAIN = 5 * SECOND  # until an operator who was refused tries again
PATIENCE = 60 * SECOND  # of one who hears nothing: a new server first takes over the whole store


def _asking(request: Callable[[Path], Request]) -> Verb:
    """As an operator does who means it: any agent is asked, another when that does not help, until it is done."""

    def verb(world: World, fault: Fault) -> None:
        for machine in machines_of(world, fault):
            _ask_until_done(world, request(machine.path), 0)

    return verb


def _ask_until_done(world: World, request: Request, attempt: int) -> None:
    up = world.observers_up()
    answers: list[Result] = []
    asked = world.now

    def due(_: None, __: None, ___: None) -> None:
        if answers and isinstance(answers[-1], Done):
            return
        if answers or world.now - asked >= PATIENCE:
            _ask_until_done(world, request, attempt + 1)
        else:
            world.schedule.call(world.now + AGAIN, due, None)

    if up:
        world.request(world.machines[up[attempt % len(up)]], request, answers.append)
    world.schedule.call(world.now + AGAIN, due, None)


SERVERS: dict[str, Verb] = {
    "server_add": _asking(AddServer),
    "server_remove": _asking(RemoveServer),
    "lead": _asking(TransferLeadership),
}
