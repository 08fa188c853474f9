"""What may be asked of the store: one pure check, before anything is proposed.

Invariant: what passes can be applied by every server; what is refused is refused with its field and the mend, and nothing
was changed.  What depends on the state of the store (leases, quotas, sessions) is refused by the machine itself.
"""

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
from dislocate.core.runs.agent.checking import CHECKS
from dislocate.core.runs.records import ACTIVE, RECORDS, SECRETS
from dislocate.core.scale.checking import CHECKS as SCALE_CHECKS
from dislocate.core.scale.records import DECISIONS
from dislocate.core.store.backup import read_header
from dislocate.core.store.keys import name_size
from dislocate.core.store.names import check_key
from dislocate.core.store.transactions import put_twice
from dislocate.core.tunables import (
    LEASE_TTL_MAX,
    LEASE_TTL_MIN,
    READ_LIMIT,
    TRANSACTION_BYTES,
    TRANSACTION_OPERATIONS,
    VALUE_BYTES,
)
from dislocate.core.units import HOUR, format_duration

_NUMBER_LIMIT = 1 << 63
_RESERVED = (ACTIVE, DECISIONS, RECORDS)


def check_request(request: StoreRequest) -> None:
    """Raises `LocalError` naming the field and the mend unless `request` may be carried out."""
    _CHECKS[type(request)](request)


def _check_range(key: str, prefix: bool, field: str) -> None:
    """A key; or a prefix, which may be empty."""
    if key or not prefix:
        check_key(key, field)


def _check_free(key: str, prefix: bool) -> None:
    """Raises `LocalError` when a key, or one below a prefix, is written by runs alone: who did what must stay true."""
    if key.startswith(SECRETS):
        return
    if key.startswith(_RESERVED) or (prefix and any(reserved.startswith(key) for reserved in _RESERVED)):
        words = (
            f"no key below {ACTIVE!r} and {RECORDS!r}, save {SECRETS!r}: `dislocate run` writes there, and nobody else"
        )
        if key.startswith(DECISIONS):
            words = f"no key below {DECISIONS!r}: the leader writes there; `dislocate scale set` says what you want"
        raise LocalError("key", got=key[:100], expected=words)


def _check_transact(request: Transact) -> None:
    """Sentences are made for what is refused: a store checks thousands of requests a second that are right."""
    size = 0
    if request.compares:
        count = len(request.compares)
        _claim(count <= TRANSACTION_OPERATIONS, "compares", count, f"at most {TRANSACTION_OPERATIONS} compares")
        for at, compare in enumerate(request.compares):
            size += _check_compare(compare, f"compares[{at}].")
    if request.then:
        size += _check_operations(request.then, "then")
    if request.otherwise:
        size += _check_operations(request.otherwise, "otherwise")
    if size > TRANSACTION_BYTES:
        words = f"a transaction of at most {TRANSACTION_BYTES} bytes of keys and values: make several of it"
        raise LocalError("transaction", got=f"{size} bytes", expected=words)


def _check_operations(operations: tuple[Operation, ...], name: str) -> int:
    """Bytes of their keys and values."""
    count = len(operations)
    if count > TRANSACTION_OPERATIONS:
        raise LocalError(name, got=count, expected=f"at most {TRANSACTION_OPERATIONS} operations")
    size = 0
    for at, operation in enumerate(operations):
        try:
            size += _check_operation(operation)
        except LocalError as error:
            raise LocalError(f"{name}[{at}].{error.field}", got=error.got, expected=error.expected) from None
    if (twice := put_twice(operations)) >= 0:
        words = "one Put of each key in a transaction"
        raise LocalError(f"{name}[{twice}].key", got=operations[twice].key, expected=words)
    return size


def _check_compare(compare: Compare, at: str) -> int:
    """Bytes of its key and value."""
    check_key(compare.key, at + "key")
    _claim(0 <= compare.number < _NUMBER_LIMIT, at + "number", compare.number, "a number from 0")
    if compare.field is Field.VALUE:
        _claim(compare.number == 0, at + "number", compare.number, "no number: a value is compared with `value`")
    else:
        _claim(not compare.value, at + "value", compare.value[:20], "no value: a number is compared with `number`")
    return name_size(compare.key) + len(compare.value)


def _check_operation(operation: Operation) -> int:
    """Bytes of its key and value."""
    key = operation.key
    if type(operation) is Put:
        check_key(key)
        if key.startswith(_RESERVED):
            _check_free(key, False)
        length, lease = len(operation.value), operation.lease
        if length > VALUE_BYTES:
            words = f"a value of at most {VALUE_BYTES} bytes: keep larger ones elsewhere, and their hash here"
            raise LocalError("value", got=f"{length} bytes", expected=words)
        _claim(0 <= lease < _NUMBER_LIMIT, "lease", lease, "the id of a lease; 0 for none")
        return name_size(key) + length
    # An empty prefix of a Delete would be everything, `system/` too.
    _check_range(key, type(operation) is Get and operation.prefix, "key")
    if type(operation) is Delete:
        _check_free(key, operation.prefix)
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
    **CHECKS,
    **SCALE_CHECKS,
}
