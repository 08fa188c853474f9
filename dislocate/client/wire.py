"""What a caller and its agent say to each other, as bytes and as the picker's own types.  Pure.

An agent may be newer than the library in an application: what is unknown here is passed over, and a policy's field that cannot
be understood has its default.  An answer without what it must have is none: `LocalError`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct, inspect

from dislocate.core.boundary.balance import Policy, Route, Share, Usage
from dislocate.core.boundary.values import Load, Status
from dislocate.core.boundary.views import InstanceView
from dislocate.core.errors import LocalError
from dislocate.core.units import SECOND
from dislocate.strict import typed


class Held(Struct, frozen=True):
    """The route that is held; both 0: it is known that there is none."""

    index: int
    epoch: int


NONE_KNOWN = Held(0, 0)


class _Load(Struct):
    utilization: float = 0.0
    in_flight: int = 0
    rate: float = 0.0


class _Instance(Struct):
    id: str
    node: str
    datacenter: str
    address: str
    port: int
    status: str
    tags: tuple[str, ...] = ()
    meta: dict[str, str] = {}
    weight: int = 1
    load: _Load | None = None
    age: float = 0.0
    reachable: bool = True
    suspected: bool = False


class _Share(Struct):
    datacenter: str
    share: float


class _Route(Struct):
    home: str
    index: int
    epoch: int
    policy: dict[str, Any]
    shares: tuple[_Share, ...]
    instances: tuple[_Instance, ...]


class _Answer(Struct):
    routes: dict[str, _Route] = {}
    unknown: dict[str, str] = {}


class Told(Struct, frozen=True):
    """What the agent answered."""

    routes: dict[str, Route]
    unknown: dict[str, str]  # services that nobody knows, and a hint


_STATUSES = {status.value: status for status in Status}
_DECODER = msgspec.json.Decoder(_Answer)


def request(usages: Sequence[Usage] | None, held: Mapping[str, Held | None], wait: float) -> bytes:
    """The body of an exchange; `wait` in seconds.  `usages` None: nothing is said of what was done."""
    body: dict[str, object] = {"routes": held, "wait": f"{max(0, round(wait * 1000))}ms"}
    if usages is not None:
        body["usages"] = [_usage(usage) for usage in usages]
    return msgspec.json.encode(body)


def _usage(usage: Usage) -> dict[str, object]:
    outcomes = [
        {"node": one.node, "instance": one.instance, "calls": one.calls, "failed": one.failed, "p99": one.p99}
        for one in usage.outcomes
    ]
    return {"service": usage.service, "offered": usage.offered, "retries": usage.retries, "outcomes": outcomes}


def read(data: bytes, now: int) -> Told:
    """The answer to it, which came `now`, by this process's own clock.  Raises `LocalError`."""
    try:
        answer = _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise LocalError("answer", got=data[:60].decode(errors="replace"), expected=f"an agent's ({error})") from None
    routes = {name: _route(name, route, now) for name, route in answer.routes.items()}
    return Told(routes=routes, unknown=answer.unknown)


def _route(name: str, route: _Route, now: int) -> Route:
    return Route(
        service=name,
        home=route.home,
        index=route.index,
        epoch=route.epoch,
        policy=_policy(route.policy),
        shares=tuple(Share(one.datacenter, one.share) for one in route.shares),
        instances=tuple(_view(name, one, now) for one in route.instances),
        as_of=now,
    )


def _view(service: str, one: _Instance, now: int) -> InstanceView:
    load = one.load
    return InstanceView(
        id=one.id,
        service=service,
        node=one.node,
        datacenter=one.datacenter,
        address=one.address,
        port=one.port,
        status=_STATUSES.get(one.status, Status.STARTING),  # one that is unknown here: used last
        tags=one.tags,
        meta=one.meta,
        weight=one.weight,
        load=None if load is None else Load(load.utilization, load.in_flight, load.rate),
        as_of=now - round(one.age * SECOND),
        reachable=one.reachable,
        suspected=one.suspected,
    )


def _policy(told: dict[str, Any]) -> Policy:
    """As far as it is understood here."""
    known = dict(_known(inspect.type_info(Policy), told))
    while known:
        try:
            return typed(known, Policy)
        except LocalError as error:
            if known.pop(error.field.partition(".")[0].partition("[")[0], None) is None:
                break  # the mistake is in no field
    return Policy()


def _known(info: inspect.Type, value: Any) -> Any:
    """`value` without the fields that this library does not know."""
    if not (isinstance(info, inspect.StructType) and isinstance(value, dict)):
        return value
    types = {one.encode_name: one.type for one in info.fields}
    return {key: _known(types[key], item) for key, item in value.items() if key in types}
