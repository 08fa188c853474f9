"""The story of a run, for people: what was done to the world, and what its agents said about it.

What many agents say of one thing is one line: when the first said it, and when the last.
"""

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from dislocate.core.boundary.events import (
    BrakeChanged,
    CloneDetected,
    DatacenterChanged,
    Event,
    GroupJoined,
    InstanceChanged,
    LeaderDeposed,
    LeaderElected,
    MemberDied,
    MemberForgotten,
    MemberJoined,
    MemberLeft,
    MemberRefuted,
    MemberRestarting,
    MemberSuspected,
    RunMoved,
    ServersChanged,
    StoreTroubled,
)
from dislocate.core.units import SECOND, seconds
from sim.faults import in_words
from sim.process import Process
from sim.scenario import Fault
from sim.world import World

ASSEMBLED = 15 * SECOND  # after an agent's start: until then everything is new to it, and not told one by one
SAME_NEWS = 30 * SECOND  # the same thing said later is another line


class Line(Struct):
    """One thing that happened."""

    at: int  # when it was done, or the first agent said it
    words: str
    last: int = 0  # when the last agent said it
    observers: int = 0  # agents that said it; 0: it was done to the world

    def __str__(self) -> str:
        head = f"{seconds(self.at):9.3f}s  "
        if not self.observers:
            return f"{head}* {self.words}"
        tail = "1 agent" if self.observers == 1 else f"{self.observers} agents by {seconds(self.last):.3f}s"
        return f"{head}  {self.words} ({tail})"


def _instance_words(event: InstanceChanged) -> str:
    before = event.before.value if event.before else "absent"
    after = event.status.value if event.status else "gone"
    return f"{event.owner}/{event.instance_id}: {before} -> {after}"


def _servers_words(event: ServersChanged) -> str:
    voters = ", ".join(dict.fromkeys(one.partition("@")[0] for one in event.voters))
    learners = ", ".join(one.partition("@")[0] for one in event.learners)
    return f"voters are {voters}" + (f"; learners {learners}" if learners else "")


# What an event says, without who says it.
_WORDS: dict[type, Callable[[Any], str]] = {
    MemberJoined: lambda event: f"{event.member.path} joined",
    MemberSuspected: lambda event: f"{event.member.path} is suspected",
    MemberRefuted: lambda event: f"{event.member.path} refuted",
    MemberDied: lambda event: f"{event.member.path} is dead ({'refused' if event.refused else 'silent'})",
    MemberLeft: lambda event: f"{event.member.path} left",
    MemberRestarting: lambda event: f"{event.member.path} announces a restart",
    MemberForgotten: lambda event: f"{event.member.path} is forgotten: {event.reason}",
    CloneDetected: lambda event: f"{event.member.path} is claimed twice",
    BrakeChanged: lambda event: f"brake of {event.datacenter} {'engaged' if event.engaged else 'released'}",
    InstanceChanged: _instance_words,
    GroupJoined: lambda event: (
        f"the store's group is {event.group[:8]}" + (f", epoch {event.epoch}" if event.epoch else "")
    ),
    ServersChanged: lambda event: _servers_words(event),
    RunMoved: lambda event: f"run {event.run} is {event.now}" + (f": {event.words}" if event.words else ""),
    StoreTroubled: lambda event: f"the store: {event.problem or 'all is well again'}",
}


class Story:
    """The lines of one run."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._lines: list[Line] = []
        self._open: dict[str, Line] = {}
        world.observers.append(self._observe)

    def told(self, fault: Fault) -> None:
        self._lines.append(Line(self._world.now, in_words(fault)))

    def lines(self) -> list[Line]:
        """In order of time."""
        return sorted(self._lines, key=lambda line: line.at)

    def _observe(self, process: Process, event: Event) -> None:
        now = self._world.now
        if isinstance(event, DatacenterChanged):
            words = (
                f"{process.node_id.datacenter} {'reaches' if event.reachable else 'does not reach'} {event.datacenter}"
            )
        elif isinstance(event, LeaderElected):
            words = f"{process.node_id.path} leads the store in term {event.term}"
        elif isinstance(event, LeaderDeposed):
            words = f"{process.node_id.path} leads no more: {event.reason}"
        elif type(event) in _WORDS:
            words = _WORDS[type(event)](event)
        else:
            return
        if now - process.started < ASSEMBLED and isinstance(event, MemberJoined | InstanceChanged | DatacenterChanged):
            return
        line = self._open.get(words)
        if line is None or now - line.last > SAME_NEWS:
            line = self._open[words] = Line(now, words)
            self._lines.append(line)
        line.last = now
        line.observers += 1
