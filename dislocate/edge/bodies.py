"""What people and programs send to an agent, as typed values: bodies of HTTP requests, and datagrams of `agent.sock`.

Strict: an unknown field is an error that names the nearest known one, a number where text belongs is an error, durations
are text with a unit ('5s').  `decode` raises `LocalError` and nothing else, whatever the bytes are.  What a value means
(is this a service name? do these checks make sense?) is the catalog's to judge; here only the shape is.
"""

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct

from dislocate.core.boundary.requests import Deregister, Heartbeat, Register, ReportLoad, Request
from dislocate.core.boundary.store import (
    Compare,
    Consistency,
    Delete,
    Field,
    Get,
    Operation,
    Put,
    Relation,
    Transact,
)
from dislocate.core.boundary.values import CheckSpec, InstanceSpec, Load, Status
from dislocate.core.errors import LocalError
from dislocate.core.tunables import TRANSACTION_OPERATIONS
from dislocate.core.units import HOUR, parse_duration
from dislocate.edge.keys import NUMBER_LIMIT, bytes_of, check_deleted, check_key

LONGEST = 366 * 24 * HOUR  # a duration beyond a year is a slip of the unit

Duration: TypeAlias = Annotated[str, Meta(description="a duration such as '5s' or '250ms'", max_length=32)]
Text: TypeAlias = Annotated[str, Meta(description="text of at most 4096 characters", max_length=4096)]
Id: TypeAlias = Annotated[str, Meta(description="the id of an instance", min_length=1, max_length=200)]
HttpStatus: TypeAlias = Annotated[int, Meta(description="an HTTP status, 100..599", ge=100, le=599)]

Key: TypeAlias = Annotated[str, Meta(description="a key such as 'app/color': 1 to 512 bytes of UTF-8 text")]
Value: TypeAlias = Annotated[str, Meta(description='text, or base64 with "encoding": "base64"; at most 256 KiB')]
Encoding: TypeAlias = Annotated[Literal["", "base64"], Meta(description="'' (text) or 'base64'")]
Number: TypeAlias = Annotated[
    int, Meta(description="a whole number, at least 0, as an earlier answer gave it", ge=0, le=NUMBER_LIMIT)
]
Flag: TypeAlias = Annotated[bool, Meta(description="true or false")]
Tag: TypeAlias = Annotated[int | str | None, Meta(description="text or a number that comes back with the answer")]


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


class DatacenterDrainBody(Body, frozen=True, kw_only=True):
    """The same of a whole data center, which always ends by itself."""

    draining: Annotated[bool, Meta(description="true, or false to end the drain")] = True
    expires: Annotated[str, Meta(description="a duration of at most '72h'; empty: '1h'", max_length=32)] = ""
    reason: Text = ""
    force: Annotated[bool, Meta(description="true: also where the other data centers cannot carry its traffic")] = False


class MaintBody(Body, frozen=True, kw_only=True):
    """Take out of the answers, or back."""

    enabled: Annotated[bool, Meta(description="true, or false to end the maintenance")] = True
    reason: Text = ""


class CompareBody(Body, frozen=True, kw_only=True):
    """One condition on one key; a key that is not there has revision 0 and an empty value."""

    key: Key
    field: Annotated[Field, Meta(description="'modified', 'created', 'version', 'lease' or 'value'")] = Field.MODIFIED
    relation: Annotated[Relation, Meta(description="'=', '!=', '>' or '<'")] = msgspec.field(
        default=Relation.EQUAL, name="is"
    )
    number: Number | None = None
    value: Annotated[str, Meta(description="text, with field 'value'")] | None = None
    encoding: Encoding = ""


class PutBody(Body, frozen=True, kw_only=True):
    """Set a key."""

    key: Key
    value: Value
    encoding: Encoding = ""
    lease: Number = 0


class DeleteBody(Body, frozen=True, kw_only=True):
    """Remove a key, or all keys that begin with it."""

    key: Key
    prefix: Flag = False


class GetBody(Body, frozen=True, kw_only=True):
    """Read a key, or all keys that begin with it."""

    key: Key
    prefix: Flag = False


class OperationBody(Body, frozen=True, kw_only=True):
    """Exactly one of put, delete, get."""

    put: PutBody | None = None
    delete: DeleteBody | None = None
    get: GetBody | None = None


class TransactionBody(Body, frozen=True, kw_only=True):
    """If all conditions hold do `then`, else `else`: all or nothing, in one revision."""

    compares: Annotated[tuple[CompareBody, ...], Meta(description="a list of conditions")] = msgspec.field(
        default=(), name="if"
    )
    then: Annotated[tuple[OperationBody, ...], Meta(description="a list of operations")] = ()
    otherwise: Annotated[tuple[OperationBody, ...], Meta(description="a list of operations")] = msgspec.field(
        default=(), name="else"
    )


class LeaseBody(Body, frozen=True, kw_only=True):
    """A lease that ends when nobody has kept it alive for `ttl`."""

    ttl: Annotated[str, Meta(description="a duration of 1s to 168h, such as '15s'", max_length=32)]


class TransferBody(Body, frozen=True, kw_only=True):
    """Who shall lead; nobody named: whoever is placed best."""

    to: Annotated[str, Meta(description="a server as 'datacenter/name', or '' for whoever is placed best")] = ""


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


class PutDatagram(Body, frozen=True, kw_only=True, tag_field="op", tag="put"):
    """{"op": "put", "id": 1, "key": "app/color", "value": "blue"}; `id` comes back with the answer"""

    key: Key
    value: Value
    encoding: Encoding = ""
    lease: Number = 0
    id: Tag = None


class CasDatagram(Body, frozen=True, kw_only=True, tag_field="op", tag="cas"):
    """{"op": "cas", "id": 1, "key": "app/color", "value": "green", "revision": 7}; 0: there must be none yet"""

    key: Key
    value: Value
    revision: Number
    encoding: Encoding = ""
    lease: Number = 0
    id: Tag = None


class GetDatagram(Body, frozen=True, kw_only=True, tag_field="op", tag="get"):
    """{"op": "get", "id": 1, "key": "app/color"}"""

    key: Key
    consistency: Annotated[Consistency | None, Meta(description="'linearizable', 'bounded' or 'local'")] = None
    max_age: Duration = ""
    id: Tag = None


class DeleteDatagram(Body, frozen=True, kw_only=True, tag_field="op", tag="delete"):
    """{"op": "delete", "id": 1, "key": "app/color"}; with `revision` only if that is its revision"""

    key: Key
    prefix: Flag = False
    revision: Number | None = None
    id: Tag = None


ServiceDatagram: TypeAlias = RegisterDatagram | HeartbeatDatagram | LoadDatagram | DeregisterDatagram
KeyDatagram: TypeAlias = PutDatagram | CasDatagram | GetDatagram | DeleteDatagram
Datagram: TypeAlias = ServiceDatagram | KeyDatagram


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


def request_of(datagram: ServiceDatagram) -> Request:
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


def transaction_of(body: TransactionBody) -> Transact:
    """What the store is asked.  Raises `LocalError`."""
    for name, parts in (("if", body.compares), ("then", body.then), ("else", body.otherwise)):
        if len(parts) > TRANSACTION_OPERATIONS:
            raise LocalError(
                name, got=len(parts), expected=f"at most {TRANSACTION_OPERATIONS}: cut it in several transactions"
            )
    if not body.then and not body.otherwise:
        raise LocalError("then", got=None, expected="at least one operation in 'then' or 'else'")
    return Transact(
        tuple(_compare(compare, f"if[{at}]") for at, compare in enumerate(body.compares)),
        _operations(body.then, "then"),
        _operations(body.otherwise, "else"),
    )


def _operations(bodies: tuple[OperationBody, ...], field: str) -> tuple[Operation, ...]:
    operations = tuple(_operation(body, f"{field}[{at}]") for at, body in enumerate(bodies))
    put: dict[str, None] = {}
    for at, operation in enumerate(operations):
        if isinstance(operation, Put):
            if operation.key in put:
                words = f"each key put once in {field!r}: which of the two is meant cannot be known"
                raise LocalError(f"{field}[{at}].put.key", got=operation.key, expected=words)
            put[operation.key] = None
    return operations


def _compare(body: CompareBody, field: str) -> Compare:
    key = check_key(body.key, f"{field}.key")
    by_value = body.field is Field.VALUE
    wanted, other = ("value", body.number) if by_value else ("number", body.value)
    if other is not None or (body.value if by_value else body.number) is None:
        raise LocalError(f"{field}.{wanted}", got=other, expected=f"{wanted!r} and nothing else to compare with")
    if by_value:
        value = bytes_of(body.value or "", body.encoding, f"{field}.value")
        return Compare(key, body.field, body.relation, value=value)
    return Compare(key, body.field, body.relation, number=body.number or 0)


def _operation(body: OperationBody, field: str) -> Operation:
    given = [name for name in ("put", "delete", "get") if getattr(body, name) is not None]
    if len(given) != 1:
        raise LocalError(field, got=given, expected="exactly one of put, delete, get")
    if body.put is not None:
        value = bytes_of(body.put.value, body.put.encoding, f"{field}.put.value")
        return Put(check_key(body.put.key, f"{field}.put.key"), value, body.put.lease)
    if body.delete is not None:
        is_prefix = body.delete.prefix
        return Delete(check_deleted(body.delete.key, f"{field}.delete.key", is_prefix=is_prefix), is_prefix)
    assert body.get is not None
    return Get(check_key(body.get.key, f"{field}.get.key", is_prefix=body.get.prefix), body.get.prefix)


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
