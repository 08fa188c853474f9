"""Transactions: if these compares hold do this, else that; all of it or nothing.

Invariant: nothing of a draft shows in the store; what it would change is in `touched`, and whoever drafted it commits it or
throws it away.  Later operations see earlier ones.  A key that is put twice is refused, as etcd does: which of the two was
meant cannot be known.  Source: etcd's v3 transactions; what is compared is told in `boundary.store.Field`.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from operator import eq, gt, lt, ne
from typing import Any

from msgspec.structs import replace

from dislocate.core.boundary.requests import Refused
from dislocate.core.boundary.store import Compare, Delete, Field, KeyValue, Operation, Put, Relation
from dislocate.core.store.keys import Keys, size_of
from dislocate.core.store.leases import Leases
from dislocate.core.tunables import LEASE_KEYS, TRANSACTION_ANSWER, TRANSACTION_KEYS

_RELATIONS: dict[Relation, Callable[[Any, Any], bool]] = {
    Relation.EQUAL: eq,
    Relation.NOT_EQUAL: ne,
    Relation.GREATER: gt,
    Relation.LESS: lt,
}
_NUMBERS: dict[Field, Callable[[KeyValue], int]] = {
    Field.CREATED: lambda kv: kv.created,
    Field.MODIFIED: lambda kv: kv.modified,
    Field.VERSION: lambda kv: kv.version,
    Field.LEASE: lambda kv: kv.lease,
}


def holds(compare: Compare, found: KeyValue | None) -> bool:
    """Whether a key as it stands (None: it is not there) is as `compare` says."""
    relation = _RELATIONS[compare.relation]
    if compare.field is Field.VALUE:
        return relation(found.value if found is not None else b"", compare.value)
    return relation(_NUMBERS[compare.field](found) if found is not None else 0, compare.number)


class Draft:
    """What a list of operations finds and would change, in revision `revision`."""

    __slots__ = ("_answer", "_found", "_keys", "_leases", "_revision", "touched")

    def __init__(self, keys: Keys, leases: Leases, revision: int) -> None:
        self._keys = keys
        self._leases = leases
        self._revision = revision
        self._found = 0  # keys found by prefixes
        self._answer = 0  # bytes of what operations found
        self.touched: dict[str, KeyValue | None] = {}  # None: it goes away

    def run(self, operations: tuple[Operation, ...]) -> tuple[tuple[KeyValue, ...], ...] | Refused:
        """What each operation found or made; Refused when one of them cannot be done."""
        if len(operations) > 1 and (twice := put_twice(operations)) >= 0:
            reason = "the transaction puts this key twice: put it once"
            return Refused("conflict", f"operations[{twice}].key", reason)
        results: list[tuple[KeyValue, ...]] = []
        for at, operation in enumerate(operations):
            result = self._do(operation)
            if isinstance(result, Refused):
                return replace(result, field=f"operations[{at}].{result.field}")
            results.append(result)
        return tuple(results)

    def _do(self, operation: Operation) -> tuple[KeyValue, ...] | Refused:
        if isinstance(operation, Put):
            return self._put(operation)
        found = self._collect(operation.key, operation.prefix)
        if isinstance(found, tuple) and isinstance(operation, Delete):
            for kv in found:
                self.touched[kv.key] = None
            found = tuple(replace(kv, value=b"") for kv in found)
        return found if isinstance(found, Refused) else self._counted(found)

    def _put(self, put: Put) -> tuple[KeyValue, ...] | Refused:
        if put.lease:
            lease = self._leases.living.get(put.lease)
            if lease is None:
                return Refused(
                    "unknown", "lease", f"lease {put.lease} has ended: grant a new one and put the key again"
                )
            if len(lease.keys) >= LEASE_KEYS and put.key not in lease.keys:
                return Refused("storage", "lease", f"a lease has at most {LEASE_KEYS} keys: grant another for this one")
        old = self._get(put.key)
        if old is None:
            kv = KeyValue(put.key, put.value, self._revision, self._revision, 1, put.lease)
        else:
            kv = KeyValue(old.key, put.value, old.created, self._revision, old.version + 1, put.lease)
        self.touched[kv.key] = kv
        return (kv,)

    def _get(self, name: str) -> KeyValue | None:
        touched = self.touched
        return touched[name] if name in touched else self._keys.get(name)

    def _collect(self, key: str, prefix: bool) -> tuple[KeyValue, ...] | Refused:
        """The keys that an operation is about; more than a transaction may cover are refused."""
        if not prefix:
            kv = self._get(key)
            found: tuple[KeyValue, ...] = () if kv is None else (kv,)
        else:
            found = tuple(islice(self._below(key), TRANSACTION_KEYS + 1))
            self._found += len(found)
            if self._found > TRANSACTION_KEYS:
                reason = f"a transaction covers at most {TRANSACTION_KEYS} keys by prefixes: use longer ones in turn"
                return Refused("invalid", "key", reason)
        return found

    def _counted(self, found: tuple[KeyValue, ...]) -> tuple[KeyValue, ...] | Refused:
        """What an operation answers; more than fits an answer is refused."""
        self._answer += sum(map(size_of, found))
        if self._answer > TRANSACTION_ANSWER:
            reason = f"the answer would be above {TRANSACTION_ANSWER >> 20} MiB: use longer prefixes in turn"
            return Refused("invalid", "key", reason)
        return found

    def _below(self, prefix: str) -> Iterator[KeyValue]:
        touched = [name for name in self.touched if name.startswith(prefix)]
        if not touched:
            return self._keys.below(prefix)
        seen = {kv.key: kv for kv in islice(self._keys.below(prefix), TRANSACTION_KEYS + len(touched) + 1)}
        for name in touched:
            now = self.touched[name]
            if now is None:
                seen.pop(name, None)
            else:
                seen[name] = now
        return iter([seen[name] for name in sorted(seen)])


def as_keys(keys: Keys, puts: Mapping[str, bytes | None], revision: int) -> dict[str, KeyValue | None]:
    """Values of keys without a lease, as `revision` is to make them; what is to go and is not there is left out."""
    touched: dict[str, KeyValue | None] = {}
    for name, value in puts.items():
        old = keys.get(name)
        if value is None:
            if old is not None:
                touched[name] = None
        elif old is None:
            touched[name] = KeyValue(name, value, revision, revision, 1)
        else:
            touched[name] = KeyValue(old.key, value, old.created, revision, old.version + 1)
    return touched


def put_twice(operations: tuple[Operation, ...]) -> int:
    """The position of the first Put of a key that was put before; -1 when there is none."""
    if len(operations) < 2:
        return -1
    seen: dict[str, None] = {}
    for at, operation in enumerate(operations):
        if type(operation) is Put:
            if operation.key in seen:
                return at
            seen[operation.key] = None
    return -1
