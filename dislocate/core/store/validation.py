"""What may be asked of the store: one pure check, before anything is proposed.

Invariant: what passes can be applied by every server; what is refused is refused with its field and the mend, and nothing
was changed.  What depends on the state of the store (leases, quotas, sessions) is refused by the machine itself.
"""

import re
from collections.abc import Callable
from typing import Any

from dislocate.core.boundary.store import (
    AddServer,
    BackUp,
    Compare,
    Delete,
    Field,
    Get,
    GrantLease,
    KeepLeaseAlive,
    Operation,
    Put,
    ReadKeys,
    ReadLease,
    RemoveServer,
    Restore,
    RevokeLease,
    StoreRequest,
    Transact,
    TransferLeadership,
    WatchKeys,
)
from dislocate.core.errors import LocalError
from dislocate.core.identity import split_path
from dislocate.core.store.backup import read_header
from dislocate.core.store.keys import name_size
from dislocate.core.store.transactions import put_twice
from dislocate.core.tunables import (
    KEY_BYTES,
    LEASE_TTL_MAX,
    LEASE_TTL_MIN,
    READ_LIMIT,
    TRANSACTION_BYTES,
    TRANSACTION_OPERATIONS,
    VALUE_BYTES,
)
from dislocate.core.units import HOUR, format_duration

_NUMBER_LIMIT = 1 << 63
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # control characters, and halves of a character
_KEY_WORDS = f"a key of 1 to {KEY_BYTES} bytes of text without control characters, not beginning with '/'"


def check_request(request: StoreRequest) -> None:
    """Raises `LocalError` naming the field and the mend unless `request` may be carried out."""
    _CHECKS[type(request)](request)


def check_key(key: str, field: str = "key") -> None:
    """Raises `LocalError` unless `key` may be one."""
    is_key = key and not key.startswith("/") and not _FORBIDDEN.search(key) and name_size(key) <= KEY_BYTES
    _claim(bool(is_key), field, key[:100], _KEY_WORDS)


def _check_range(key: str, prefix: bool, field: str) -> None:
    """A key; or a prefix, which may be empty."""
    if key or not prefix:
        check_key(key, field)


def _check_transact(request: Transact) -> None:
    count = len(request.compares)
    _claim(count <= TRANSACTION_OPERATIONS, "compares", count, f"at most {TRANSACTION_OPERATIONS} compares")
    size = 0
    for at, compare in enumerate(request.compares):
        size += _check_compare(compare, f"compares[{at}].")
    for name, operations in (("then", request.then), ("otherwise", request.otherwise)):
        count = len(operations)
        _claim(count <= TRANSACTION_OPERATIONS, name, count, f"at most {TRANSACTION_OPERATIONS} operations")
        for at, operation in enumerate(operations):
            size += _check_operation(operation, f"{name}[{at}].")
        twice = put_twice(operations)
        _claim(twice < 0, f"{name}[{twice}].key", "a key that is put twice", "one Put of each key in a transaction")
    words = f"a transaction of at most {TRANSACTION_BYTES} bytes of keys and values: make several of it"
    _claim(size <= TRANSACTION_BYTES, "transaction", f"{size} bytes", words)


def _check_compare(compare: Compare, at: str) -> int:
    """Bytes of its key and value."""
    check_key(compare.key, at + "key")
    _claim(0 <= compare.number < _NUMBER_LIMIT, at + "number", compare.number, "a number from 0")
    if compare.field is Field.VALUE:
        _claim(compare.number == 0, at + "number", compare.number, "no number: a value is compared with `value`")
    else:
        _claim(not compare.value, at + "value", compare.value[:20], "no value: a number is compared with `number`")
    return name_size(compare.key) + len(compare.value)


def _check_operation(operation: Operation, at: str) -> int:
    """Bytes of its key and value."""
    match operation:
        case Put(key=key, value=value, lease=lease):
            check_key(key, at + "key")
            words = f"a value of at most {VALUE_BYTES} bytes: keep larger ones elsewhere, and their hash here"
            _claim(len(value) <= VALUE_BYTES, at + "value", f"{len(value)} bytes", words)
            _claim(0 <= lease < _NUMBER_LIMIT, at + "lease", lease, "the id of a lease; 0 for none")
            return name_size(key) + len(value)
        case Delete(key=key):
            check_key(key, at + "key")  # an empty prefix would be everything, `system/` too
            return name_size(key)
        case Get(key=key, prefix=prefix):
            _check_range(key, prefix, at + "key")
            return name_size(key)


def _check_read(request: ReadKeys) -> None:
    _check_range(request.key, request.prefix, "key")
    _claim(1 <= request.limit <= READ_LIMIT, "limit", request.limit, f"1 to {READ_LIMIT}: read on with `after`")
    if request.after:
        check_key(request.after, "after")
    longest = format_duration(HOUR)
    _claim(0 <= request.max_age <= HOUR, "max_age", format_duration(request.max_age), f"an age of at most {longest}")


def _check_watch(request: WatchKeys) -> None:
    _check_range(request.key, request.prefix, "key")
    words = "the revision of an earlier answer, a whole number; 0 for all changes"
    _claim(0 <= request.after < _NUMBER_LIMIT, "after", request.after, words)


def _check_grant(request: GrantLease) -> None:
    words = f"a duration of {format_duration(LEASE_TTL_MIN)} to {format_duration(LEASE_TTL_MAX)}"
    _claim(LEASE_TTL_MIN <= request.ttl <= LEASE_TTL_MAX, "ttl", format_duration(request.ttl), words)


def _check_lease(request: KeepLeaseAlive | RevokeLease | ReadLease) -> None:
    _claim(0 < request.lease < _NUMBER_LIMIT, "lease", request.lease, "the id of a lease, as granting it answered")


def _check_server(request: AddServer | RemoveServer) -> None:
    split_path(request.path, "path")


def _check_transfer(request: TransferLeadership) -> None:
    if request.path:
        split_path(request.path, "path")


def _check_restore(request: Restore) -> None:
    read_header(request.data)


def _check_nothing(_request: BackUp) -> None:
    """There is nothing in it."""


def _claim(holds: bool, field: str, got: object, expected: str) -> None:
    if not holds:
        raise LocalError(field, got=got, expected=expected)


_CHECKS: dict[type, Callable[[Any], None]] = {
    Transact: _check_transact,
    ReadKeys: _check_read,
    WatchKeys: _check_watch,
    GrantLease: _check_grant,
    KeepLeaseAlive: _check_lease,
    RevokeLease: _check_lease,
    ReadLease: _check_lease,
    AddServer: _check_server,
    RemoveServer: _check_server,
    TransferLeadership: _check_transfer,
    BackUp: _check_nothing,
    Restore: _check_restore,
}
