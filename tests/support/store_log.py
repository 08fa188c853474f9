"""A log and the store that it is applied to, for tests that need no group."""

from dislocate.core.boundary.store import Compare, Delete, Field, Get, GrantLease, KeyValue, Operation, Put, Transact
from dislocate.core.consensus.messages import GroupId
from dislocate.core.store.backup import backup_parts
from dislocate.core.store.commands import Command, CommandBody, Origin, encode_command
from dislocate.core.store.machine import Applied, StoreMachine
from dislocate.core.units import SECOND

GROUP = bytes(range(16))


def write_backup(machine: StoreMachine, group: GroupId) -> bytes:
    """All keys and leases of a store, as of its revision, in one piece."""
    return b"".join(backup_parts(machine, group))


class StoreLog:
    """Everything that was applied, and what it came to."""

    def __init__(self, machine: StoreMachine | None = None) -> None:
        self.machine = machine or StoreMachine()
        self.entries: list[bytes] = []

    def apply(self, data: bytes) -> Applied:
        self.entries.append(data)
        return self.machine.apply(self.machine.index + 1, data)

    def do(self, body: CommandBody, origin: Origin | None = None) -> Applied:
        return self.apply(encode_command(Command(body, origin)))

    def transact(self, *then: Operation, compares: tuple[Compare, ...] = (), otherwise: tuple[Operation, ...] = ()):
        return self.do(Transact(compares, then, otherwise)).result

    def put(self, key: str, value: bytes = b"", lease: int = 0) -> KeyValue:
        """The key as it stands then."""
        result = self.transact(Put(key, value, lease))
        return result.results[0][0]

    def delete(self, key: str, prefix: bool = False) -> tuple[KeyValue, ...]:
        return self.transact(Delete(key, prefix)).results[0]

    def get(self, key: str, prefix: bool = False) -> tuple[KeyValue, ...]:
        return self.transact(Get(key, prefix)).results[0]

    def grant(self, ttl: int = 10 * SECOND) -> int:
        """The id of a new lease."""
        return self.do(GrantLease(ttl)).result.lease

    def lock(self, key: str, holder: bytes, lease: int = 0):
        """Take a lock if nobody has it: its fencing token, or None."""
        free = (Compare(key, Field.CREATED),)
        result = self.transact(Put(key, holder, lease), compares=free)
        return result.results[0][0].created if result.succeeded else None

    def names(self, prefix: str = "") -> list[str]:
        return [kv.key for kv in self.machine.read(prefix, prefix=True)[0]]


def asked(seq: int, floor: int = 1, agent: str = "fra/a1", boot: int = 7) -> Origin:
    """The how-manyeth asking of an agent."""
    return Origin(f"{agent}#{boot}", seq, floor)


def replayed(entries: list[bytes], machine: StoreMachine | None = None) -> StoreMachine:
    """A store to which the entries after its own were applied."""
    machine = machine or StoreMachine()
    for data in entries[machine.index :]:
        machine.apply(machine.index + 1, data)
    return machine


def contents(machine: StoreMachine) -> dict[str, bytes | None]:
    """Everything that is replicated, comparable."""
    return {record.key: record.value for record in machine.all_records()}
