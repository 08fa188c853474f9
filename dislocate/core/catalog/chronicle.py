"""The chronicle: which events become entries of history, of whom, and in what words.

Instances write their own entries (`owners`); here are those of members and data centers.  One pure function a fact.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

from dislocate.core.boundary.events import (
    BrakeChanged,
    CloneDetected,
    DatacenterChanged,
    Event,
    MemberDied,
    MemberForgotten,
    MemberJoined,
    MemberLeft,
    MemberRefuted,
    MemberRestarting,
    MemberSuspected,
)
from dislocate.core.identity import Path
from dislocate.core.units import format_duration

# The subject, what happened to it, why, and who saw it.
Entry: TypeAlias = tuple[str, str, str, tuple[Path, ...]]


def entry(event: Event) -> Entry | None:
    """What history is to remember of `event`; None for what concerns no member and no data center."""
    words = _WORDS.get(type(event))
    return None if words is None else words(event)


def _died(event: MemberDied) -> Entry:
    why = "its host answers that no agent is there" if event.refused else "silence"
    return event.member.path, "dead", why, event.observers


def _braked(event: BrakeChanged) -> Entry:
    return event.datacenter, "removals held" if event.engaged else "removals allowed", event.reason, ()


def _datacenter(event: DatacenterChanged) -> Entry:
    return event.datacenter, "reachable" if event.reachable else "unreachable", event.reason, ()


_WORDS: dict[type, Callable[[Any], Entry]] = {
    MemberJoined: lambda event: (event.member.path, "alive", f"joined at {event.address}", ()),
    MemberSuspected: lambda event: (event.member.path, "suspected", "does not answer", event.accusers),
    MemberRefuted: lambda event: (event.member.path, "alive", "it answered the suspicion", ()),
    MemberDied: _died,
    MemberLeft: lambda event: (event.member.path, "left", "it said goodbye", ()),
    MemberRestarting: lambda event: (event.member.path, "restarting", f"back in {format_duration(event.within)}", ()),
    MemberForgotten: lambda event: (event.member.path, "forgotten", event.reason, ()),
    CloneDetected: lambda event: (event.member.path, "clone", f"{event.kept} keeps the name, not {event.rejected}", ()),
    BrakeChanged: _braked,
    DatacenterChanged: _datacenter,
}
