"""What the edge answers, as typed values: built from the core's views here, and only here.

HTTP, the event streams, `services.json` and the command line share these shapes (design, section 9), and the API's schema
is generated from them.  Durations are float seconds.  An age is computed when the answer is built, from this node's own
monotonic clock: two answers from one view differ in nothing else.
"""

from collections.abc import Iterable, Mapping

from msgspec import Struct

from dislocate.core.boundary.values import Load, MemberState, Status
from dislocate.core.boundary.views import DatacenterView, HistoryEntry, InstanceView, MemberView, ServiceView
from dislocate.core.identity import Path
from dislocate.core.units import MILLISECOND, SECOND, seconds


class Answer(Struct, frozen=True):
    """Base of what is answered."""


class LoadAnswer(Answer, frozen=True):
    """How busy an instance says it is."""

    utilization: float  # 0..1
    in_flight: int
    rate: float  # requests a second


class InstanceAnswer(Answer, frozen=True):
    """One instance; `age` says how old this knowledge is, `reachable` whether its data center is, from here."""

    id: str
    node: Path
    datacenter: str
    address: str
    port: int
    status: Status
    tags: tuple[str, ...]
    meta: dict[str, str]
    weight: int
    load: LoadAnswer | None
    age: float
    reachable: bool


class ServiceAnswer(Answer, frozen=True):
    """All instances of a service, best first; wait for a change by asking again with this `index`."""

    service: str
    index: int
    instances: tuple[InstanceAnswer, ...]


class ServiceSummary(Answer, frozen=True):
    """One line of the list of services."""

    name: str
    instances: int
    passing: int
    datacenters: tuple[str, ...]


class ServicesAnswer(Answer, frozen=True):
    services: tuple[ServiceSummary, ...]


class MemberAnswer(Answer, frozen=True):
    """One agent."""

    name: str
    datacenter: str
    state: MemberState
    address: str
    boot: int
    incarnation: int
    tags: tuple[str, ...]
    age: float


class MembersAnswer(Answer, frozen=True):
    members: tuple[MemberAnswer, ...]


class DatacenterAnswer(Answer, frozen=True):
    """One data center as this one sees it; `rtt_ms` is null while nothing good enough is known."""

    name: str
    reachable: bool
    rtt_ms: float | None
    measured: bool  # by a link; else `rtt_ms` is estimated from coordinates
    members: int
    age: float


class DatacentersAnswer(Answer, frozen=True):
    datacenters: tuple[DatacenterAnswer, ...]


class HistoryEvent(Answer, frozen=True):
    """One thing that happened; `at` is unix seconds by this node's clock, null before it was read."""

    at: float | None
    what: str
    why: str
    observers: tuple[Path, ...]


class HistoryAnswer(Answer, frozen=True):
    events: tuple[HistoryEvent, ...]


class BrakeAnswer(Answer, frozen=True):
    """Removals in `datacenter` are held, because `reason`."""

    datacenter: str
    reason: str


class HealthAnswer(Answer, frozen=True):
    """The agent itself answers, and what it sees in numbers."""

    status: str  # 'ok', or 'degraded' while a data center is out of reach or a brake holds
    node: Path
    boot: int
    version: str
    is_relay: bool
    members: dict[str, int]  # by state
    services: int
    unreachable: tuple[str, ...]  # data centers
    brakes: tuple[BrakeAnswer, ...]


class DoneAnswer(Answer, frozen=True):
    """It is so, and durable where that was promised.  `version` grows with every change by this agent; 0: none was made."""

    version: int


def age_of(as_of: int, now: int) -> float:
    """Seconds since the monotonic instant `as_of`; never negative."""
    return seconds(max(0, now - as_of))


def service_answer(view: ServiceView, now: int) -> ServiceAnswer:
    instances = tuple(instance_answer(instance, now) for instance in view.instances)
    return ServiceAnswer(service=view.name, index=view.index, instances=instances)


def service_summary(view: ServiceView) -> ServiceSummary:
    return ServiceSummary(
        name=view.name,
        instances=len(view.instances),
        passing=sum(instance.status is Status.PASSING for instance in view.instances),
        datacenters=tuple(sorted({instance.datacenter for instance in view.instances})),
    )


def members_answer(views: Iterable[MemberView], now: int) -> MembersAnswer:
    return MembersAnswer(members=tuple(_member_answer(view, now) for view in views))


def datacenters_answer(views: Iterable[DatacenterView], now: int) -> DatacentersAnswer:
    return DatacentersAnswer(datacenters=tuple(_datacenter_answer(view, now) for view in views))


def history_answer(entries: Iterable[HistoryEntry]) -> HistoryAnswer:
    return HistoryAnswer(events=tuple(_history_event(entry) for entry in entries))


def count_states(members: Iterable[MemberView]) -> dict[str, int]:
    """How many members are in each state; every state is there."""
    counts = {state.value: 0 for state in MemberState}
    for member in members:
        counts[member.state.value] += 1
    return counts


def brakes_of(datacenters: Mapping[str, DatacenterView]) -> tuple[BrakeAnswer, ...]:
    return tuple(BrakeAnswer(datacenter=view.name, reason=view.brake) for view in datacenters.values() if view.brake)


def instance_answer(view: InstanceView, now: int) -> InstanceAnswer:
    return InstanceAnswer(
        id=view.id,
        node=view.node,
        datacenter=view.datacenter,
        address=view.address,
        port=view.port,
        status=view.status,
        tags=view.tags,
        meta=view.meta,
        weight=view.weight,
        load=_load_answer(view.load),
        age=age_of(view.as_of, now),
        reachable=view.reachable,
    )


def _load_answer(load: Load | None) -> LoadAnswer | None:
    if load is None:
        return None
    return LoadAnswer(utilization=load.utilization, in_flight=load.in_flight, rate=load.rate)


def _member_answer(view: MemberView, now: int) -> MemberAnswer:
    return MemberAnswer(
        name=view.node.name,
        datacenter=view.node.datacenter,
        state=view.state,
        address=view.address,
        boot=view.node.boot,
        incarnation=view.incarnation,
        tags=view.tags,
        age=age_of(view.as_of, now),
    )


def _datacenter_answer(view: DatacenterView, now: int) -> DatacenterAnswer:
    return DatacenterAnswer(
        name=view.name,
        reachable=view.reachable,
        rtt_ms=None if view.rtt is None else round(view.rtt / MILLISECOND, 3),
        measured=view.measured,
        members=view.members,
        age=age_of(view.as_of, now),
    )


def _history_event(entry: HistoryEntry) -> HistoryEvent:
    return HistoryEvent(
        at=round(entry.at / SECOND, 3) if entry.at else None,
        what=entry.what,
        why=entry.why,
        observers=entry.observers,
    )
