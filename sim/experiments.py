"""Experiments: one small fleet, one fault, and what its agents made of it; for notebooks and whoever tunes.

    outcome = trial(Fault(time=FAULT_AT, do="vanish", target=VICTIM), seed=1, settings={"suspicion_multiplier": 2})
    outcome.known_after  # seconds until everybody had declared it dead

Measures what agents said, by their own events; does not judge whether that was right: see `invariants`.
"""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from dislocate.core.boundary.events import Event, MemberDied, MemberSuspected
from dislocate.core.identity import Path
from dislocate.core.units import SECOND, seconds
from sim.faults import schedule_faults
from sim.process import Process
from sim.scenario import Datacenter, Fault, Scenario
from sim.world import World

NODES = 12  # above four nobody dies of one voice, above ten the suspicion grows: a small rack
FAULT_AT = 10 * SECOND  # everybody knows everybody for some seconds
VICTIM = "fra/a5"


class Outcome(Struct, frozen=True, kw_only=True):
    """What the agents of one trial said.  Times in seconds after `FAULT_AT`."""

    suspected_after: float | None  # the first suspicion of the victim; None: nobody had one
    dead_after: float | None  # the first agent to declare the victim dead
    known_after: float | None  # the last of all others; None: not all did
    healthy_suspected: int  # suspicions of others, each counted once, whoever repeats it
    healthy_dead: tuple[Path, ...]  # others whom anybody but the victim declared dead; what that believes harms nobody
    messages: float  # an agent and second, over the whole trial

    @property
    def is_victim_dead(self) -> bool:
        return self.dead_after is not None


class Listener:
    """Notes when who said what of whom."""

    def __init__(self, world: World) -> None:
        self.suspected: dict[Path, list[int]] = {}
        self.dead: dict[Path, dict[Path, int]] = {}  # member: when each agent first declared it dead
        self.suspicions: dict[tuple[Path, int], None] = {}  # (member, second): one suspicion reaches all within it
        self._world = world
        world.observers.append(self._hear)

    def _hear(self, process: Process, event: Event) -> None:
        now = self._world.now
        if isinstance(event, MemberSuspected):
            self.suspected.setdefault(event.member.path, []).append(now)
            self.suspicions[event.member.path, now // SECOND] = None
        elif isinstance(event, MemberDied):
            self.dead.setdefault(event.member.path, {}).setdefault(process.node_id.path, now)


def trial(
    fault: Fault, *, seed: int, settings: Mapping[str, Any] | None = None, watch: int = 40 * SECOND, nodes: int = NODES
) -> Outcome:
    """Run one data center of `nodes` agents, do `fault` to the victim, and watch for `watch` nanoseconds after it."""
    scenario = Scenario(
        title="trial", why="measure", duration=FAULT_AT + watch, datacenters={"fra": Datacenter(nodes=nodes)}
    )
    world = World(scenario, seed, settings=settings)
    listener = Listener(world)
    schedule_faults(world, (fault,), lambda _: None)
    world.run(scenario.duration)
    said_by = listener.dead.get(VICTIM, {})
    others = [path for path in world.layout.paths if path != VICTIM]
    sent = sum(machine.datagrams_sent + machine.messages_sent for machine in world.machines.values())
    return Outcome(
        suspected_after=_after(min(listener.suspected[VICTIM])) if VICTIM in listener.suspected else None,
        dead_after=_after(min(said_by.values())) if said_by else None,
        known_after=_after(max(said_by.values())) if all(path in said_by for path in others) else None,
        healthy_suspected=sum(path != VICTIM for path, _ in listener.suspicions),
        healthy_dead=tuple(path for path in others if listener.dead.get(path, {}).keys() - {VICTIM}),
        messages=sent / seconds(scenario.duration) / nodes,
    )


def _after(instant: int) -> float:
    return seconds(instant - FAULT_AT)
