"""The store as one would write it without a thought of speed: what the machine is compared with.

It remembers every change and every answer for ever; nothing of it is shared with the machine but the vocabulary.
"""

from msgspec.structs import replace

from dislocate.core.boundary.requests import Done, Refused
from dislocate.core.boundary.store import (
    Compare,
    Delete,
    Field,
    Get,
    GrantLease,
    KeyChange,
    KeyValue,
    LeaseStanding,
    Put,
    Relation,
    RevokeLease,
    Transact,
    Transacted,
)
from dislocate.core.store.commands import Command, LeasesEnded


class StoreModel:
    def __init__(self) -> None:
        self.keys: dict[str, KeyValue] = {}
        self.leases: dict[int, int] = {}
        self.revision = 0
        self.index = 0
        self.history: list[KeyChange] = []
        self.boots: dict[str, int] = {}
        self.answers: dict[tuple[str, int], object] = {}  # by session and seq
        self.floors: dict[str, int] = {}

    def apply(self, command: Command):
        """The answer; of a refusal only the kind."""
        self.index += 1
        origin = command.origin
        if origin is None:
            return self._do(command.body)
        path, boot = origin.session.split("#")
        if int(boot) < self.boots.get(path, 0):
            return "conflict"
        self.boots[path] = int(boot)
        floor = self.floors[origin.session] = max(self.floors.get(origin.session, 0), origin.floor)
        if origin.seq < floor:
            return "conflict"
        key = (origin.session, origin.seq)
        if key not in self.answers:
            self.answers[key] = self._do(command.body)
        return self.answers[key]

    def _do(self, body):
        match body:
            case Transact():
                return self._transact(body)
            case GrantLease(ttl=ttl):
                self.leases[self.index] = ttl
                return LeaseStanding(self.index, ttl, ttl)
            case RevokeLease(lease=lease):
                if lease not in self.leases:
                    return "unknown"
                self._end(lease)
                return Done(self.revision)
            case LeasesEnded(leases=leases):
                for lease in leases:
                    if lease in self.leases:
                        self._end(lease)
                return Done(self.revision)

    def _end(self, lease: int) -> None:
        del self.leases[lease]
        names = sorted(name for name, kv in self.keys.items() if kv.lease == lease)
        if names:
            self.revision += 1
        for name in names:
            del self.keys[name]
            self.history.append(KeyChange(name, self.revision, None))

    def _transact(self, body: Transact):
        succeeded = all(self._holds(compare) for compare in body.compares)
        operations = body.then if succeeded else body.otherwise
        puts = [operation.key for operation in operations if isinstance(operation, Put)]
        if len(puts) != len(set(puts)):
            return "conflict"
        keys, touched, results = dict(self.keys), {}, []
        for operation in operations:
            match operation:
                case Put(key=key, value=value, lease=lease):
                    if lease and lease not in self.leases:
                        return "unknown"
                    old = keys.get(key)
                    created, version = (old.created, old.version) if old else (self.revision + 1, 0)
                    keys[key] = KeyValue(key, value, created, self.revision + 1, version + 1, lease)
                    touched[key] = None
                    results.append((keys[key],))
                case Get(key=key, prefix=prefix):
                    results.append(self._matching(keys, key, prefix))
                case Delete(key=key, prefix=prefix):
                    found = self._matching(keys, key, prefix)
                    for kv in found:
                        del keys[kv.key]
                        touched[kv.key] = None
                    results.append(tuple(replace(kv, value=b"") for kv in found))
        if touched:
            self.revision += 1
            self.keys = keys
            self.history += [KeyChange(name, self.revision, keys.get(name)) for name in touched]
        return Transacted(succeeded, self.revision, tuple(results))

    def _matching(self, keys, key, prefix):
        names = [name for name in sorted(keys) if (name.startswith(key) if prefix else name == key)]
        return tuple(keys[name] for name in names)

    def _holds(self, compare: Compare) -> bool:
        kv = self.keys.get(compare.key, KeyValue(compare.key, b"", 0, 0, 0))
        left, right = {
            Field.VALUE: (kv.value, compare.value),
            Field.CREATED: (kv.created, compare.number),
            Field.MODIFIED: (kv.modified, compare.number),
            Field.VERSION: (kv.version, compare.number),
            Field.LEASE: (kv.lease, compare.number),
        }[compare.field]
        match compare.relation:
            case Relation.EQUAL:
                return left == right
            case Relation.NOT_EQUAL:
                return left != right
            case Relation.GREATER:
                return left > right
            case Relation.LESS:
                return left < right


def told(result):
    """An answer as the model gives it."""
    return result.kind if isinstance(result, Refused) else result
