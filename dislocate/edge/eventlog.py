"""Events as lines for an operator: one fact, one line, beginning with what it is about.

    member fra/a2 suspect, accused by fra/a1
    member fra/a2 dead, its host refused fra/a1 and fra/a3
    datacenter wdc unreachable, phi 8.3: silent for 10 s

Programs read the second and third word, or the JSON form (`event_fields`).  What happens too often to be read (answers that
changed, input dropped) is counted elsewhere and is a line only at level DEBUG.
"""

import logging
import re
from collections.abc import Callable
from typing import Any

import msgspec

from dislocate.core.boundary.events import (
    BrakeChanged,
    CloneDetected,
    DatacenterChanged,
    Drifted,
    EntriesApplied,
    Event,
    FlowsChanged,
    GroupJoined,
    InputDropped,
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
    NodeMoved,
    RelayChanged,
    RunMoved,
    ScaleDecided,
    SendRefused,
    ServersChanged,
    ServiceChanged,
    StoreTroubled,
    TaskBegun,
    TaskEnded,
    VisitTold,
)
from dislocate.core.units import format_duration
from dislocate.edge.backend import Backend

log = logging.getLogger("dislocate.events")

_QUIET = (ServiceChanged, InputDropped, SendRefused, EntriesApplied, NodeMoved, VisitTold, FlowsChanged)
_WORD_START = re.compile(r"(?<!^)(?=[A-Z])")


def log_events(backend: Backend) -> Callable[[], None]:
    """Log every event of `backend`; returns how to end that."""
    settings = backend.node.settings

    def hear(event: Event) -> None:
        if type(event) is CloneDetected and (event.member.path, event.rejected) == (
            settings.node.path,
            settings.gossip,
        ):
            line = f"node.name: {event.member.path} is taken by {event.kept}: rename this agent or stop the other"
            log.error("%s", line, extra={"event": event})
        else:
            _log(event)

    return backend.subscribe(hear)


def _log(event: Event) -> None:
    level = _level(event)
    if log.isEnabledFor(level):
        log.log(level, "%s", describe(event), extra={"event": event})


def _level(event: Event) -> int:
    if isinstance(event, _QUIET):
        return logging.DEBUG
    is_trouble = (type(event) is StoreTroubled and event.problem) or (type(event) is Drifted and not event.mended)
    return logging.WARNING if is_trouble else logging.INFO


def describe(event: Event) -> str:
    """`event` as one line."""
    return _LINES[type(event)](event)


def event_fields(event: Event) -> dict[str, Any]:
    """`event` for JSON: {"event": "member_died", "member": {...}, ...}."""
    name = _WORD_START.sub("_", type(event).__name__).lower()
    return {"event": name, **{key: _plain(value) for key, value in msgspec.structs.asdict(event).items()}}


def _plain(value: Any) -> Any:
    path = getattr(value, "path", None)  # a NodeId, which people and programs know by its path
    return msgspec.to_builtins(value) if path is None else path


def _names(paths: tuple[str, ...]) -> str:
    return " and ".join(paths) if len(paths) < 3 else f"{', '.join(paths[:-1])} and {paths[-1]}"


def _died(event: MemberDied) -> str:
    cause = "its host refused" if event.refused else "it was silent to"
    return f"member {event.member.path} dead, {cause} {_names(event.observers)}"


def _instance(event: InstanceChanged) -> str:
    status = "gone" if event.status is None else event.status.value
    was = f", was {event.before.value}" if event.before is not None else ""
    cause = f": {event.cause}" if event.cause else ""
    return f"instance {event.owner}/{event.instance_id} {status}, of {event.service}{was}{cause}"


def _brake(event: BrakeChanged) -> str:
    return f"brake {event.datacenter} {'engaged' if event.engaged else 'released'}: {event.reason}"


def _datacenter(event: DatacenterChanged) -> str:
    state = "reachable" if event.reachable else "unreachable"
    return f"datacenter {event.datacenter} {state}, phi {event.phi:.1f}: {event.reason}"


def _servers(event: ServersChanged) -> str:
    learners = f", learning {_names(event.learners)}" if event.learners else ""
    return f"servers {_names(event.voters)}{learners}, from log index {event.index}"


def _moved(event: RunMoved | NodeMoved, about: str) -> str:
    was = f", was {event.before}" if event.before else ""
    cause = f": {event.words}" if event.words else ""
    return f"{about} {event.now}{was}{cause}"


def _ended(event: TaskEnded) -> str:
    cause = f": {event.words}" if event.words else ""
    return f"run {event.run} {event.direction} ended here, {event.state}{cause}"


def _visit(event: VisitTold) -> str:
    told = f"wrote {len(event.outcome.output)} bytes" if not event.is_last else event.outcome.result.value
    return f"visit {event.node} {told}, task {event.task + 1} of request {event.request_id}"


_LINES: dict[type, Callable[[Any], str]] = {
    MemberJoined: lambda e: f"member {e.member.path} alive, at {e.address}, boot {e.member.boot}",
    MemberSuspected: lambda e: f"member {e.member.path} suspect, accused by {_names(e.accusers)}",
    MemberRefuted: lambda e: f"member {e.member.path} alive, it answered a suspicion",
    MemberDied: _died,
    MemberLeft: lambda e: f"member {e.member.path} left",
    MemberRestarting: lambda e: f"member {e.member.path} restarting, back within {format_duration(e.within)}",
    MemberForgotten: lambda e: f"member {e.member.path} forgotten: {e.reason}",
    CloneDetected: lambda e: f"member {e.member.path} cloned: {e.kept} keeps the name, rename or stop {e.rejected}",
    BrakeChanged: _brake,
    DatacenterChanged: _datacenter,
    ServiceChanged: lambda e: f"service {e.service} changed, index {e.index}",
    InstanceChanged: _instance,
    InputDropped: lambda e: f"input from {e.source} dropped: {e.reason}",
    RelayChanged: lambda e: f"relay {'yes' if e.is_relay else 'no'}",
    SendRefused: lambda e: f"send to {e.target} failed: {e.reason.value}",
    GroupJoined: lambda e: f"store group {e.group}, epoch {e.epoch}",
    LeaderElected: lambda e: f"store leader this agent, in term {e.term}",
    LeaderDeposed: lambda e: f"store leader no more this agent, since term {e.term}: {e.reason}",
    EntriesApplied: lambda e: f"store applied {e.index}, revision {e.revision}, digest {e.digest:016x}",
    ServersChanged: _servers,
    StoreTroubled: lambda e: f"store troubled: {e.problem}" if e.problem else "store well again",
    RunMoved: lambda e: _moved(e, f"run {e.run}"),
    NodeMoved: lambda e: _moved(e, f"run {e.run} {e.node}"),
    TaskBegun: lambda e: f"run {e.run} {e.direction} begins here, epoch {e.epoch}",
    TaskEnded: _ended,
    Drifted: lambda e: f"run {e.run} {'mended' if e.mended else 'drifted'}, {e.resource}: {e.words}",
    VisitTold: _visit,
    ScaleDecided: lambda e: f"scale {e.service} in {e.datacenter} to {e.desired}, was {e.before}: {e.reason}",
    FlowsChanged: lambda e: f"flows {e.service} changed, epoch {e.epoch}",
}
