"""What people and programs send to an agent, as typed values: bodies of HTTP requests, and datagrams of `agent.sock`.

Strict: an unknown field is an error that names the nearest known one, a number where text belongs is an error, durations
are text with a unit ('5s').  `decode` raises `LocalError` and nothing else, whatever the bytes are.  What a value means
(is this a service name? do these checks make sense?) is the catalog's to judge; here only the shape is.
"""

from typing import Annotated, TypeAlias

from msgspec import Meta, Struct

from dislocate.core.boundary.requests import Deregister, Heartbeat, Register, ReportLoad, Request
from dislocate.core.boundary.values import CheckSpec, InstanceSpec, Load, Status
from dislocate.core.errors import LocalError
from dislocate.core.units import HOUR, parse_duration

LONGEST = 366 * 24 * HOUR  # a duration beyond a year is a slip of the unit

Duration: TypeAlias = Annotated[str, Meta(description="a duration such as '5s' or '250ms'", max_length=32)]
Text: TypeAlias = Annotated[str, Meta(description="text of at most 4096 characters", max_length=4096)]
Id: TypeAlias = Annotated[str, Meta(description="the id of an instance", min_length=1, max_length=200)]
HttpStatus: TypeAlias = Annotated[int, Meta(description="an HTTP status, 100..599", ge=100, le=599)]


class Body(Struct, frozen=True, forbid_unknown_fields=True):
    """Base of what is sent."""


class CheckBody(Body, frozen=True, kw_only=True, omit_defaults=True):
    """How to find out whether the instance works: exactly one of ttl, tcp, http, command."""

    ttl: Duration = ""
    tcp: Annotated[str, Meta(description="'host:port' or 'unix:/path'")] = ""
    http: Annotated[str, Meta(description="an http or https URL")] = ""
    command: Annotated[tuple[str, ...], Meta(description="a program and its arguments; needs the role 'operate'")] = ()
    interval: Duration = "5s"
    timeout: Duration = "2s"
    statuses: Annotated[tuple[HttpStatus, ...], Meta(description="statuses that pass; none given: any 2xx")] = ()
    body: Annotated[str, Meta(description="text that the HTTP answer must contain")] = ""
    verify: Annotated[bool, Meta(description="true, or false to accept any certificate")] = True


class InstanceBody(Body, frozen=True, kw_only=True):
    """One instance of a service on this host."""

    service: Annotated[str, Meta(description="lower-case labels joined by dots, such as 'db.orders.replica'")]
    port: Annotated[int, Meta(description="a whole number, 1..65535", ge=1, le=65535)]
    address: Annotated[str, Meta(description="a host without a port; empty: what the agent advertises")] = ""
    tags: Annotated[tuple[str, ...], Meta(description="a list of texts")] = ()
    meta: Annotated[dict[str, str], Meta(description="an object of texts")] = {}
    weight: Annotated[int, Meta(description="a whole number, 0..65535", ge=0, le=65535)] = 1
    check: CheckBody | None = None


class HeartbeatBody(Body, frozen=True, kw_only=True):
    """The instance of a ttl check calls in."""

    status: Annotated[Status, Meta(description="'passing', 'warning' or 'critical'")] = Status.PASSING
    output: Text = ""


class LoadBody(Body, frozen=True, kw_only=True):
    """How busy the instance is."""

    utilization: Annotated[float, Meta(description="0..1 of what it can do")] = 0.0
    in_flight: Annotated[int, Meta(description="a whole number, at least 0", ge=0, le=1 << 31)] = 0
    rate: Annotated[float, Meta(description="requests a second, at least 0")] = 0.0


class DrainBody(Body, frozen=True, kw_only=True):
    """Start (or stop) to send callers elsewhere; with `expires` the drain ends by itself after that time."""

    draining: Annotated[bool, Meta(description="true, or false to end the drain")] = True
    expires: Annotated[str, Meta(description="a duration such as '30m'; empty: no end", max_length=32)] = ""
    reason: Text = ""


class MaintBody(Body, frozen=True, kw_only=True):
    """Take out of the answers, or back."""

    enabled: Annotated[bool, Meta(description="true, or false to end the maintenance")] = True
    reason: Text = ""


class RegisterDatagram(InstanceBody, frozen=True, kw_only=True, tag_field="op", tag="register"):
    """{"op": "register", "id": ..., "service": ..., "port": ...} and the other fields of PUT /api/instances/ID."""

    id: Id


class HeartbeatDatagram(HeartbeatBody, frozen=True, kw_only=True, tag_field="op", tag="heartbeat"):
    """{"op": "heartbeat", "id": ...}"""

    id: Id


class LoadDatagram(LoadBody, frozen=True, kw_only=True, tag_field="op", tag="load"):
    """{"op": "load", "id": ..., "utilization": 0.4, "in_flight": 3, "rate": 120}"""

    id: Id


class DeregisterDatagram(Body, frozen=True, kw_only=True, tag_field="op", tag="deregister"):
    """{"op": "deregister", "id": ...}"""

    id: Id


Datagram: TypeAlias = RegisterDatagram | HeartbeatDatagram | LoadDatagram | DeregisterDatagram


def duration(text: str, field: str) -> int:
    """Nanoseconds; empty text is 0.  Raises `LocalError`."""
    if not text:
        return 0
    nanoseconds = parse_duration(text, field)
    if nanoseconds > LONGEST:
        raise LocalError(field, got=text, expected="a duration of at most a year")
    return nanoseconds


def instance_spec(instance_id: str, body: InstanceBody) -> InstanceSpec:
    """What the core is asked to register.  Raises `LocalError`."""
    return InstanceSpec(
        id=instance_id,
        service=body.service,
        port=body.port,
        address=body.address,
        tags=body.tags,
        meta=body.meta,
        weight=body.weight,
        check=None if body.check is None else _check_spec(body.check),
    )


def request_of(datagram: Datagram) -> Request:
    """What the core is asked.  Raises `LocalError`."""
    match datagram:
        case RegisterDatagram():
            return Register(instance_spec(datagram.id, datagram))
        case HeartbeatDatagram():
            return Heartbeat(datagram.id, datagram.status, datagram.output)
        case LoadDatagram():
            return ReportLoad(datagram.id, load_of(datagram))
        case DeregisterDatagram():
            return Deregister(datagram.id)


def load_of(body: LoadBody) -> Load:
    return Load(utilization=body.utilization, in_flight=body.in_flight, rate=body.rate)


def _check_spec(body: CheckBody) -> CheckSpec:
    ttl = duration(body.ttl, "check.ttl")
    if body.ttl and not ttl:  # said here: in the core a ttl of 0 is none
        raise LocalError("check.ttl", got=body.ttl, expected="a duration above 0, such as '15s'")
    return CheckSpec(
        ttl=ttl,
        tcp=body.tcp,
        http=body.http,
        command=body.command,
        interval=duration(body.interval, "check.interval"),
        timeout=duration(body.timeout, "check.timeout"),
        statuses=body.statuses,
        body=body.body,
        verify=body.verify,
    )
