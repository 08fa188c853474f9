"""What a caller and its agent tell each other, once a second: what it did, and where it should send its requests from now on.

    POST /api/callers/4711-9f3a
    {"usages": [{"service": "orders.api", "offered": 120.0, "outcomes": [...]}],
     "routes": {"orders.api": {"index": 17, "epoch": 5}}, "wait": "1s"}

The answer has the routes that differ from those that the caller says it has.  Where none differs it is held until one does
or `wait` is over: a death reaches a caller at once, and there is one exchange a second.  Nothing is kept of a caller
between two exchanges save what the core counts, so one that dies needs no farewell.
"""

from collections.abc import Iterable
from time import monotonic
from typing import Annotated, Any

from msgspec import Meta, field

from dislocate.core.boundary.balance import Outcomes, ReportUsage, Route, Usage
from dislocate.core.boundary.views import InstanceView
from dislocate.core.errors import LocalError
from dislocate.core.identity import check_service_name
from dislocate.core.nearest import nearest
from dislocate.core.units import SECOND
from dislocate.edge.answers import Answer, InstanceAnswer, LoadAnswer, age_of
from dislocate.edge.bodies import Body, Duration, Number, duration
from dislocate.edge.http.access import Role
from dislocate.edge.http.call import Call, Operation
from dislocate.strict import in_words

WAIT_LONGEST = 60.0  # seconds; a caller that wants to be counted comes back each second anyway
LOOK_EVERY = 5.0  # seconds between looks whether the caller is still there
ROUTES_LIMIT = 1_000  # services of one caller

Rate = Annotated[float, Meta(description="a number a second, at least 0")]


class OutcomesBody(Body, frozen=True, kw_only=True):
    """How calls to one instance went, as its caller saw them."""

    node: Annotated[str, Meta(description="'dc/name' of the agent that hosts it")]
    instance: Annotated[str, Meta(description="its id")]
    calls: Number  # that ended
    failed: Number = 0  # of them: an error, a timeout, a connection that was not made
    p99: Annotated[float, Meta(description="seconds, of calls that did not fail")] = 0.0


class UsageBody(Body, frozen=True, kw_only=True):
    """What a caller did with one service since it last said so."""

    service: Annotated[str, Meta(description="the name of a service, such as 'orders.api'")]
    offered: Rate  # first attempts
    retries: Rate = 0.0  # further ones
    outcomes: Annotated[tuple[OutcomesBody, ...], Meta(description="a list, the busiest instance first")] = ()


class HeldBody(Body, frozen=True, kw_only=True):
    """The route that a caller has; both 0: it knows that there is none."""

    index: Number
    epoch: Number


class CallerBody(Body, frozen=True, kw_only=True):
    """What a caller says, and asks."""

    usages: Annotated[
        tuple[UsageBody, ...] | None,
        Meta(description="a list of what it did; empty: nothing; null: say nothing of it, less than a second went by"),
    ] = None
    routes: Annotated[
        dict[str, HeldBody | None],
        Meta(description="by service the index and epoch of the route that it has, null for none: answered at once"),
    ] = field(default_factory=dict)
    wait: Duration = ""


class ShareAnswer(Answer, frozen=True):
    """The part of the requests made here that goes to one data center."""

    datacenter: str
    share: float


class RoutedInstance(InstanceAnswer, frozen=True):
    """One instance, as far as picking goes."""

    suspected: bool  # its agent is: picked last


class RouteAnswer(Answer, frozen=True):
    """All that a picker needs of one service; wait for a change by saying `index` and `epoch`."""

    service: str
    home: str  # the caller's data center
    index: int
    epoch: int
    policy: dict[str, Any]  # what differs from the defaults, durations in words: the shape of GET /api/policies/NAME
    shares: tuple[ShareAnswer, ...]
    instances: tuple[RoutedInstance, ...]


class CallerAnswer(Answer, frozen=True):
    """What differs from what the caller has; of services nobody knows, a hint: the nearest name, or what a name is."""

    routes: dict[str, RouteAnswer]
    unknown: dict[str, str]


def post_caller(call: Call) -> CallerAnswer:
    """Usages are counted first, even if the caller hangs up while it waits.  Who may only read gets routes, and counts for
    nothing."""
    body: CallerBody = call.body
    wait = _checked_wait(body)
    if body.usages is not None:
        call.require(Role.REGISTER, "usages")
        call.ask(ReportUsage(call.path["caller"], tuple(map(_usage, body.usages))))
    ends = monotonic() + wait
    answer = _answer(call, body.routes)
    while not (answer.routes or answer.unknown) and (left := ends - monotonic()) > 0 and not call.is_abandoned():
        if call.agent.changes.wait(body.routes, min(left, LOOK_EVERY)):
            answer = _answer(call, body.routes)
    return answer


def _checked_wait(body: CallerBody) -> float:
    """Seconds.  Raises `LocalError`."""
    wait = duration(body.wait, "wait") / SECOND
    if wait > WAIT_LONGEST:
        raise LocalError("wait", got=body.wait, expected=f"at most '{WAIT_LONGEST:.0f}s'")
    if len(body.routes) > ROUTES_LIMIT:
        raise LocalError("routes", got=len(body.routes), expected=f"at most {ROUTES_LIMIT} services")
    return wait


def _usage(body: UsageBody) -> Usage:
    told = tuple(Outcomes(one.node, one.instance, one.calls, one.failed, one.p99) for one in body.outcomes)
    return Usage(body.service, body.offered, body.retries, told)


def _answer(call: Call, held: dict[str, HeldBody | None]) -> CallerAnswer:
    routes: dict[str, RouteAnswer] = {}
    unknown: dict[str, str] = {}
    for name, has in held.items():
        route = call.node.flows.route(name)
        known = (0, 0) if route is None else (route.index, route.epoch)
        if has is not None and (has.index, has.epoch) == known:
            continue
        if route is None:
            unknown[name] = _hint(name, call)
        else:
            routes[name] = _route_answer(route, call.now)
    return CallerAnswer(routes=routes, unknown=unknown)


def _hint(name: str, call: Call) -> str:
    """What may help who asked for a service that nobody knows.  A name that can be none is nobody's too: whoever asks for
    others besides is answered about them."""
    try:
        check_service_name(name, "routes")
    except LocalError as mistake:
        return f"expected {mistake.expected}"
    return nearest(name, call.node.catalog.names()).removeprefix(", ")


def _route_answer(route: Route, now: int) -> RouteAnswer:
    return RouteAnswer(
        service=route.service,
        home=route.home,
        index=route.index,
        epoch=route.epoch,
        policy=in_words(route.policy),
        shares=tuple(ShareAnswer(one.datacenter, one.share) for one in route.shares),
        instances=tuple(_routed(route.instances, now)),
    )


def _routed(instances: Iterable[InstanceView], now: int) -> Iterable[RoutedInstance]:
    for view in instances:
        load = view.load
        yield RoutedInstance(
            id=view.id,
            node=view.node,
            datacenter=view.datacenter,
            address=view.address,
            port=view.port,
            status=view.status,
            tags=view.tags,
            meta=view.meta,
            weight=view.weight,
            load=None if load is None else LoadAnswer(load.utilization, load.in_flight, load.rate),
            age=age_of(view.as_of, now),
            reachable=view.reachable,
            suspected=view.suspected,
        )


OPERATIONS = (
    Operation(
        method="POST",
        path="/api/callers/{caller}",
        role=Role.READ,
        summary="A caller says what it did and has its routes: those that differ, or after at most `wait` the next change",
        respond=post_caller,
        answer=CallerAnswer,
        body=CallerBody,
    ),
)
