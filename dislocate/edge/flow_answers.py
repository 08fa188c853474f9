"""What the edge answers about balancing: rows of flows, what they rest on, the part of each instance, policies.

As `answers`: built from the core's views here, and only here; durations are float seconds, save in a policy, which goes out
as it comes in, in words, so that it can be taken, changed and given back.
"""

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import inspect

from dislocate.core.balance.fits import Fit
from dislocate.core.balance.parts import InstancePart
from dislocate.core.boundary.balance import FlowRow, PlaceInput, Policy, Route, ServiceFlows, Share
from dislocate.core.boundary.views import InstanceView
from dislocate.core.identity import Path
from dislocate.core.units import MILLISECOND, format_duration
from dislocate.edge.answers import Answer, InstanceAnswer, age_of, instance_answer


class ShareAnswer(Answer, frozen=True):
    """The part of a source's traffic that goes to one data center, 0..1."""

    datacenter: str
    share: float


class RowAnswer(Answer, frozen=True, kw_only=True):
    """Where callers of `source` send their requests."""

    source: str
    shares: tuple[ShareAnswer, ...]  # nearest first; now
    target: tuple[ShareAnswer, ...]  # what they move to
    rho: float  # the part of its capacity that each data center is given
    overload: bool  # all together cannot carry it
    computed_by: Path
    epoch: int  # of the relay's report; 0: computed by the agent that answers
    age: float


class PlaceAnswer(Answer, frozen=True, kw_only=True):
    """What the row of this data center was computed from, of one data center."""

    datacenter: str
    epoch: int  # 0: nobody there has told
    demand: float  # requests a second offered there, by callers that tell
    served: float  # requests a second that instances there say they get, from whomever
    endpoint_capacity: float  # requests a second of one endpoint of weight 1; 0: not known
    live: float  # weighted endpoints
    backlog: float  # requests that wait
    capacity: float  # requests a second
    cost_ms: float | None  # RTT and price from here; null: it cannot be reached
    tier: int
    age: float


class PartAnswer(InstanceAnswer, frozen=True):
    """One instance, and the part of this data center's traffic that it should get: 0: spare; null: none, it is out."""

    part: float | None


class FlowsAnswer(Answer, frozen=True, kw_only=True):
    """Where traffic for a service goes, and why; wait for a change by asking again with this `index`."""

    service: str
    index: int  # grows with each change of instances, shares or policy
    home: str
    policy: dict[str, Any]
    explanation: tuple[str, ...]
    rows: tuple[RowAnswer, ...]  # by source
    inputs: tuple[PlaceAnswer, ...]  # nearest first
    instances: tuple[PartAnswer, ...]  # best first


class PickAnswer(InstanceAnswer, frozen=True):
    """The instance to use now, and why this one."""

    service: str
    why: str


class FitAnswer(Answer, frozen=True, kw_only=True):
    """Whether one service fits without a data center."""

    service: str
    fits: bool
    demand: float  # requests a second, offered everywhere
    capacity: float  # requests a second, of the other data centers
    words: str


class FitsAnswer(Answer, frozen=True, kw_only=True):
    """Whether all that lives in a data center fits without it; who fits least first."""

    datacenter: str
    fits: bool
    services: tuple[FitAnswer, ...]


class PolicyAnswer(Answer, frozen=True, kw_only=True):
    """How a service is balanced; what was not `set` is the default."""

    name: str
    policy: dict[str, Any]
    set: tuple[str, ...]
    revision: int
    problem: str = ""  # why the newest cannot be read; `policy` is then the one that is followed here instead


class PoliciesAnswer(Answer, frozen=True):
    policies: tuple[PolicyAnswer, ...]


def index_of(route: Route) -> int:
    """One number that grows with each change of instances, shares or policy: both of its parts only grow."""
    return route.index + route.epoch


def flows_answer(flows: ServiceFlows, route: Route, given: Iterable[InstancePart], now: int) -> FlowsAnswer:
    return FlowsAnswer(
        service=flows.service,
        index=index_of(route),
        home=route.home,
        policy=policy_in_words(flows.policy),
        explanation=flows.explanation,
        rows=tuple(_row_answer(row, now) for row in flows.rows),
        inputs=tuple(_place_answer(place, now) for place in flows.inputs),
        instances=tuple(part_answer(each, now) for each in given),
    )


def part_answer(given: InstancePart, now: int) -> PartAnswer:
    part = None if given.part is None else round(given.part, 6)
    return PartAnswer(**_fields(instance_answer(given.instance, now)), part=part)


def pick_answer(service: str, view: InstanceView, why: str, now: int) -> PickAnswer:
    return PickAnswer(**_fields(instance_answer(view, now)), service=service, why=why)


def fits_answer(datacenter: str, fits: Iterable[Fit]) -> FitsAnswer:
    ordered = sorted(fits, key=lambda fit: (fit.fits, fit.capacity - fit.demand, fit.service))
    services = tuple(
        FitAnswer(
            service=fit.service,
            fits=fit.fits,
            demand=round(fit.demand, 3),
            capacity=round(fit.capacity, 3),
            words=fit.words,
        )
        for fit in ordered
    )
    return FitsAnswer(datacenter=datacenter, fits=all(fit.fits for fit in ordered), services=services)


def policy_answer(name: str, policy: Policy, revision: int, problem: str = "") -> PolicyAnswer:
    given = tuple(msgspec.to_builtins(policy))
    return PolicyAnswer(name=name, policy=policy_in_words(policy), set=given, revision=revision, problem=problem)


def policy_in_words(policy: msgspec.Struct) -> dict[str, Any]:
    """All of it as PUT takes it; `in_words` would leave out what is the default."""
    types = {field.name: field.type for field in inspect.type_info(type(policy)).fields}  # type: ignore[attr-defined]
    words: dict[str, Any] = {}
    for name, value in msgspec.structs.asdict(policy).items():
        match types[name]:
            case inspect.Metadata(extra={"unit": "duration"}):
                words[name] = format_duration(value)
            case inspect.StructType():
                words[name] = policy_in_words(value)
            case _:
                words[name] = msgspec.to_builtins(value)
    return words


def _row_answer(row: FlowRow, now: int) -> RowAnswer:
    return RowAnswer(
        source=row.source,
        shares=_share_answers(row.shares),
        target=_share_answers(row.target),
        rho=round(row.rho, 4),
        overload=row.overload,
        computed_by=row.computed_by,
        epoch=row.epoch,
        age=age_of(row.as_of, now),
    )


def _share_answers(shares: Iterable[Share]) -> tuple[ShareAnswer, ...]:
    return tuple(ShareAnswer(share.datacenter, round(share.share, 4)) for share in shares)


def _place_answer(place: PlaceInput, now: int) -> PlaceAnswer:
    return PlaceAnswer(
        datacenter=place.datacenter,
        epoch=place.epoch,
        demand=round(place.demand, 3),
        served=round(place.served, 3),
        endpoint_capacity=round(place.endpoint_capacity, 3),
        live=round(place.live, 3),
        backlog=round(place.backlog, 3),
        capacity=round(place.capacity, 3),
        cost_ms=None if place.cost is None else round(place.cost / MILLISECOND, 3),
        tier=place.tier,
        age=age_of(place.as_of, now),
    )


def _fields(answer: InstanceAnswer) -> dict[str, Any]:
    return msgspec.structs.asdict(answer)
