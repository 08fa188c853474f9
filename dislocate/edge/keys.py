"""From what people write about keys to requests of the store: what may be a key, a value, a time to live.

Shared by HTTP and `agent.sock`, so that both refuse the same with the same words.  `cas` is compare-and-set: the revision of
the key's last change, as every answer says it (`revision`), or 0 for "there is no such key".  Keys under 'system/',
'records/' and 'scale/' belong to operators.  Does not ask anybody: the store judges again, since not every request comes
from here.
"""

import re
from base64 import b64decode, b64encode
from binascii import Error as NotBase64

from msgspec.structs import replace

from dislocate.core.boundary.requests import Refused
from dislocate.core.boundary.store import (
    Compare,
    Consistency,
    Delete,
    Field,
    Get,
    KeyValue,
    Operation,
    Put,
    Relation,
    Transact,
)
from dislocate.core.errors import LocalError
from dislocate.core.runs.records import RECORDS
from dislocate.core.scale.records import POLICIES
from dislocate.core.store import validation
from dislocate.core.tunables import LEASE_TTL_MAX, LEASE_TTL_MIN, VALUE_BYTES
from dislocate.core.units import format_duration

NUMBER_LIMIT = (1 << 63) - 1
SYSTEM = "system/"
OPERATORS = (SYSTEM, RECORDS, POLICIES)  # what only operators change: a policy of scaling names programs that nodes run
NOT_ALL = "deleting everything is not offered"


def check_key(text: str, field: str = "key", *, is_prefix: bool = False) -> str:
    """`text` itself when it may be a key; a prefix may be empty too.  Raises `LocalError`."""
    if text or not is_prefix:
        validation.check_key(text, field)
    return text


def check_deleted(text: str, field: str = "key", *, is_prefix: bool = False) -> str:
    """`text` itself when it may be removed, or (`is_prefix`) all that begins with it.  Raises `LocalError`."""
    if is_prefix and not text:
        raise LocalError(field, got=text, expected=f"a prefix such as 'app/': {NOT_ALL}")
    return check_key(text, field)


def check_value(value: bytes, field: str = "value") -> bytes:
    """`value` itself when it is short enough.  Raises `LocalError`."""
    if len(value) > VALUE_BYTES:
        raise LocalError(
            field,
            got=len(value),
            expected=f"at most {VALUE_BYTES} bytes: keep what is larger elsewhere, and its address here",
        )
    return value


def check_ttl(ttl: int, field: str = "ttl") -> int:
    """`ttl` itself, in nanoseconds.  Raises `LocalError`."""
    if not LEASE_TTL_MIN <= ttl <= LEASE_TTL_MAX:
        bounds = f"a duration of {format_duration(LEASE_TTL_MIN)} to {format_duration(LEASE_TTL_MAX)}"
        raise LocalError(field, got=format_duration(ttl), expected=bounds)
    return ttl


def is_system(key: str, *, is_prefix: bool = False) -> bool:
    """Whether `key`, or some key that begins with it, belongs to operators."""
    return key.startswith(OPERATORS) or (is_prefix and any(theirs.startswith(key) for theirs in OPERATORS))


def touches_system(request: Transact) -> bool:
    """Whether `request` would change a key of operators."""
    return any(
        is_system(operation.key, is_prefix=type(operation) is Delete and operation.prefix)
        for operation in (*request.then, *request.otherwise)
        if type(operation) is not Get
    )


def consistency_of(given: Consistency | None, max_age: int) -> Consistency:
    """What a read with `max_age` nanoseconds is when `given` says it, or nothing does.  Raises `LocalError`."""
    if (given is Consistency.BOUNDED or given is None) and max_age:
        return Consistency.BOUNDED
    if given is Consistency.BOUNDED or max_age:
        got = format_duration(max_age) if max_age else None
        expected = "a duration such as '5s' with consistency 'bounded', and with no other"
        raise LocalError("max_age", got=got, expected=expected)
    return given or Consistency.LINEARIZABLE


# ---- requests


def put(key: str, value: bytes, *, cas: int | None = None, lease: int = 0) -> Transact:
    """Set a key; with `cas` only if that is its revision, else read it."""
    return _guarded(key, Put(key, value, lease), cas)


def delete(key: str, *, is_prefix: bool = False, cas: int | None = None) -> Transact:
    """Remove a key, or all that begin with it; with `cas` only if that is its revision, else read it."""
    return _guarded(key, Delete(key, is_prefix), cas)


def _guarded(key: str, operation: Operation, cas: int | None) -> Transact:
    if cas is None:
        return Transact((), (operation,))
    compare = Compare(key, Field.MODIFIED, Relation.EQUAL, cas)
    return Transact((compare,), (operation,), (Get(key),))


def named_as_asked(refusal: Refused, *, of_one_key: bool = False) -> Refused:
    """A refusal of the store, its field as the caller calls it: the store knows transactions only, with other names."""
    field = refusal.field
    if of_one_key:
        field = re.sub(r"^(then|otherwise)\[0\]\.", "", field)
    else:
        field = re.sub(r"^otherwise(?=$|\[)", "else", re.sub(r"^compares(?=$|\[)", "if", field))
    return replace(refusal, field=field)


def found_instead(results: tuple[tuple[KeyValue, ...], ...]) -> int:
    """The revision that a key had when its `cas` was another; 0: there is no such key."""
    return next((found.modified for result in results for found in result), 0)


def conflict_words(key: str, revision: int) -> tuple[str, str]:
    """What is the matter with a `cas`, and the mend."""
    if revision:
        return (
            f"{key!r} has changed: its revision is {revision} now",
            f"{revision}, after reading what it became",
        )
    return f"there is no key {key!r}", "0, which stands for 'no such key'"


# ---- values as text


def text_of(value: bytes) -> tuple[str, str]:
    """`value` as text and its encoding: '' for UTF-8, 'base64' for what is none."""
    try:
        return value.decode(), ""
    except UnicodeDecodeError:
        return b64encode(value).decode(), "base64"


def bytes_of(text: str, encoding: str, field: str = "value") -> bytes:
    """The reverse.  Raises `LocalError`."""
    if not encoding:
        return check_value(text.encode(), field)
    try:
        return check_value(b64decode(text, validate=True), field)
    except (NotBase64, ValueError):
        raise LocalError(field, got=text[:100], expected="base64, as 'encoding' says") from None
