"""What a datagram on `agent.sock` asks, and how the core's answer is said: bytes to a request, a result to bytes.

    {"op": "put", "id": 1, "key": "app/color", "value": "blue"}   ->  {"ok": true, "id": 1, "revision": 7}
    {"op": "get", "id": 2, "key": "app/color"}                    ->  {"ok": true, "id": 2, "key": ..., "value": "blue", ...}
    {"op": "cas", "id": 3, "key": "app/color", "value": "green", "revision": 5}
                            ->  {"error": {"kind": "conflict", "field": "revision", "got": 5, ..., "revision": 7}, "id": 3}

`understand` raises `LocalError` and nothing else, whatever the bytes are.  The `id` of a store's request is the sender's own,
so that one socket may have many requests under way; a key that is not there has the value null.  Pure; `unix` does.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import msgspec

from dislocate.core.boundary.requests import Done, Refused, Register, Request, Result
from dislocate.core.boundary.store import KeysRead, ReadKeys, Transact, Transacted, Uncertain
from dislocate.core.errors import LocalError, brief
from dislocate.core.units import seconds
from dislocate.edge.bodies import (
    CasDatagram,
    Datagram,
    DeleteDatagram,
    GetDatagram,
    PutDatagram,
    bytes_of,
    duration,
    request_of,
)
from dislocate.edge.http.access import Role
from dislocate.edge.keys import (
    check_deleted,
    check_key,
    conflict_words,
    consistency_of,
    delete,
    found_instead,
    named_as_asked,
    put,
    text_of,
    touches_system,
)
from dislocate.strict import decode

Tag: TypeAlias = int | str | None

# The answer to a result; to None when there was none in time.
Answerer: TypeAlias = Callable[[Result | None], bytes]

ANSWER_LIMIT = 64 * 1024  # bytes: what fits a datagram with usual buffers


class _Tagged(msgspec.Struct):
    """As much of a datagram as tells whose it is."""

    op: str
    id: Tag = None


_KEY_OPS = ("put", "get", "cas", "delete")
_TAGGED = msgspec.json.Decoder(_Tagged)
_encode = msgspec.json.Encoder().encode


def understand(data: bytes, role: Role) -> tuple[Request, Answerer]:
    """What is to be asked for a sender with `role`, and how to say the answer.  Raises `LocalError`."""
    datagram = decode(data, Datagram)
    if type(datagram) in _STORE:
        request, answer = _STORE[type(datagram)](datagram)
    else:
        request, answer = request_of(datagram), _say_done
    needed = _needed(request)
    if role < needed:
        raise LocalError("op", got=role.label, expected=f"a sender with the role {needed.label!r}")
    return request, answer


def say_mistake(data: bytes, error: LocalError) -> bytes:
    """The answer to a datagram that cannot be meant; with its `id`, where it asks for a key and has one."""
    mistake = {"field": error.field, "got": brief(error.got), "expected": error.expected}
    answer: dict[str, object] = {"error": mistake}
    try:
        tagged = _TAGGED.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _encode(answer)
    return _encode({**answer, "id": tagged.id} if tagged.op in _KEY_OPS else answer)


def say_error(field: str, got: object, expected: str) -> bytes:
    return _encode({"error": {"field": field, "got": got, "expected": expected}})


# ---- services


def _say_done(result: Result | None) -> bytes:
    match result:
        case None:
            return say_error("op", None, "an answer of the core in time: ask again, twice does no harm")
        case Refused():
            return say_error(result.field, result.got, result.expected or result.reason)
        case Done():
            return _encode({"ok": True, "version": result.version})
    return _encode({"ok": True, "version": 0})


# ---- keys


def _put(datagram: PutDatagram) -> tuple[Request, Answerer]:
    value = bytes_of(datagram.value, datagram.encoding)
    request = put(check_key(datagram.key), value, lease=datagram.lease)
    return request, partial(_say_changed, datagram.id, datagram.key, None)


def _cas(datagram: CasDatagram) -> tuple[Request, Answerer]:
    value = bytes_of(datagram.value, datagram.encoding)
    request = put(check_key(datagram.key), value, cas=datagram.revision, lease=datagram.lease)
    return request, partial(_say_changed, datagram.id, datagram.key, datagram.revision)


def _delete(datagram: DeleteDatagram) -> tuple[Request, Answerer]:
    if datagram.prefix and datagram.revision is not None:
        raise LocalError("revision", got=datagram.revision, expected="none with a prefix: it compares one key")
    request = delete(
        check_deleted(datagram.key, is_prefix=datagram.prefix), is_prefix=datagram.prefix, cas=datagram.revision
    )
    return request, partial(_say_deleted, datagram.id, datagram.key, datagram.revision)


def _get(datagram: GetDatagram) -> tuple[Request, Answerer]:
    max_age = duration(datagram.max_age, "max_age")
    consistency = consistency_of(datagram.consistency, max_age)
    request = ReadKeys(check_key(datagram.key), consistency=consistency, max_age=max_age)
    return request, partial(_say_key, datagram.id, datagram.key)


_STORE: dict[type, Callable[[Any], tuple[Request, Answerer]]] = {
    PutDatagram: _put,
    CasDatagram: _cas,
    DeleteDatagram: _delete,
    GetDatagram: _get,
}


def _say_changed(tag: Tag, key: str, given: int | None, result: Result | None) -> bytes:
    if type(result) is not Transacted:
        return _say_trouble(tag, result)
    if not result.succeeded:
        return _say_conflict(tag, key, given, result)
    return _encode({"ok": True, "id": tag, "revision": result.revision})


def _say_deleted(tag: Tag, key: str, given: int | None, result: Result | None) -> bytes:
    if type(result) is not Transacted:
        return _say_trouble(tag, result)
    if not result.succeeded:
        return _say_conflict(tag, key, given, result)
    return _encode({"ok": True, "id": tag, "revision": result.revision, "deleted": len(result.results[0])})


def _say_key(tag: Tag, key: str, result: Result | None) -> bytes:
    if type(result) is not KeysRead:
        return _say_trouble(tag, result)
    if not result.keys:
        return _encode({"ok": True, "id": tag, "key": key, "value": None, "revision": 0, "age": seconds(result.age)})
    found = result.keys[0]
    value, encoding = text_of(found.value)
    answer = {
        "ok": True,
        "id": tag,
        "key": key,
        "value": value,
        "revision": found.modified,
        "created": found.created,
        "modified": found.modified,
        "version": found.version,
        "lease": found.lease,
        "age": seconds(result.age),
    }
    if encoding:
        answer["encoding"] = encoding
    encoded = _encode(answer)
    if len(encoded) <= ANSWER_LIMIT:
        return encoded
    expected = f"an answer of at most {ANSWER_LIMIT} bytes: read it with GET /api/kv/KEY"
    return _encode({"error": {"kind": "invalid", "field": "key", "got": None, "expected": expected}, "id": tag})


def _say_conflict(tag: Tag, key: str, given: int | None, result: Transacted) -> bytes:
    revision = found_instead(result.results)
    detail, expected = conflict_words(key, revision)
    error = {"kind": "conflict", "field": "revision", "got": given, "expected": expected, "detail": detail}
    return _encode({"error": {**error, "revision": revision}, "id": tag})


def _say_trouble(tag: Tag, result: Result | None) -> bytes:
    """Not done, or nobody knows."""
    match result:
        case Refused():
            expected = result.expected or result.reason
            field = named_as_asked(result, of_one_key=True).field
            error = {"kind": result.kind, "field": field, "got": result.got, "expected": expected}
        case Uncertain():
            error = _uncertain(result.reason)
        case _:
            error = _uncertain("no answer in time")
    return _encode({"error": error, "id": tag})


def _uncertain(reason: str) -> dict[str, object]:
    expected = f"a look before another try: it may have been done ({reason})"
    return {"kind": "uncertain", "field": "op", "got": None, "expected": expected}


def _needed(request: Request) -> Role:
    if type(request) is Transact:
        return Role.OPERATE if touches_system(request) else Role.WRITE
    if type(request) is ReadKeys:
        return Role.READ
    if type(request) is Register and request.instance.check is not None and request.instance.check.command:
        return Role.OPERATE
    return Role.REGISTER
