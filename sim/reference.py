"""The reference: what a log of commands means, written a second time and as simply as can be.

The store that servers run is fast, saved in parts, and shrunk to what is needed; this one keeps every change for ever and
looks nothing up cleverly.  Where the two disagree, one of them is wrong.  Knows no limits, no quotas and no restore: a
scenario that uses those is judged without it (`is_exact`).
"""

from bisect import bisect_right
from collections.abc import Callable
from operator import attrgetter
from typing import Any, get_args

from dislocate.core.boundary.requests import Refused
from dislocate.core.boundary.runs import RunRequest
from dislocate.core.boundary.store import (
    Compare,
    Delete,
    Field,
    Get,
    GrantLease,
    KeyChange,
    KeyValue,
    Operation,
    Put,
    Relation,
    RevokeLease,
    Transact,
)
from dislocate.core.runs.ledger.ledger import Ledgered, RunsLedger
from dislocate.core.runs.steps import RunStep
from dislocate.core.scale.ledger import BODIES as SCALE_BODIES
from dislocate.core.scale.ledger import ScaleLedger
from dislocate.core.store.commands import Command, LeasesEnded, Origin, SetFeatureLevel, decode_command
from dislocate.core.store.keys import Keys
from dislocate.core.tunables import RUNS_LEVEL, SCALE_LEVEL

_RELATIONS: dict[Relation, Callable[[Any, Any], bool]] = {
    Relation.EQUAL: lambda left, right: left == right,
    Relation.NOT_EQUAL: lambda left, right: left != right,
    Relation.GREATER: lambda left, right: left > right,
    Relation.LESS: lambda left, right: left < right,
}
_NUMBERS: dict[Field, Callable[[KeyValue], int]] = {
    Field.CREATED: lambda found: found.created,
    Field.MODIFIED: lambda found: found.modified,
    Field.VERSION: lambda found: found.version,
    Field.LEASE: lambda found: found.lease,
}
_revision_of = attrgetter("revision")
RUN_COMMANDS = (*get_args(RunRequest), *get_args(RunStep))
SCALE_COMMANDS = tuple(SCALE_BODIES)


class ReferenceStore:
    """All keys as of `index`, and how they came to be."""

    def __init__(self) -> None:
        self.index = 0
        self.revision = 0
        self.keys: dict[str, KeyValue] = {}
        self.changes: list[KeyChange] = []  # all there ever were, in order
        self.leases: dict[int, dict[str, None]] = {}
        self.ended: dict[int, int] = {}  # lease: index of the entry that ended it
        self.is_exact = True
        self.on_run: Callable[[Any, tuple[Any, ...]], None] = lambda _body, _moved: (
            None
        )  # a command of config runs that was not refused
        self.on_scale: Callable[[Any, Any], None] = lambda _body, _result: None  # one of scaling, and what it came to
        self._level = 1  # of the commands that all servers understand
        self._run_keys = Keys()
        self._ledger = RunsLedger(self._run_keys)  # no second time: what invariants judge is what it lets happen
        self._scale = ScaleLedger(self._run_keys)
        self._done: dict[tuple[str, int], None] = {}  # (session, seq) of every command
        self._boots: dict[str, int] = {}  # the highest start of each agent
        self._floors: dict[str, int] = {}  # by session: it waits for no asking below

    def apply(self, data: bytes) -> None:
        """The data of the next entry."""
        self.index += 1
        if not data:
            return
        command = decode_command(data)
        if command.origin is not None and not self._is_new(command.origin):
            return
        self._do(command)

    def changes_below(self, prefix: str, after: int, upto: int) -> tuple[KeyChange, ...]:
        """Every change of a key that begins with `prefix`, after one revision up to another."""
        first, end = (bisect_right(self.changes, revision, key=_revision_of) for revision in (after, upto))
        return tuple(one for one in self.changes[first:end] if one.key.startswith(prefix))

    def at(self, revision: int) -> dict[str, KeyValue]:
        """All keys as they were at `revision`."""
        keys: dict[str, KeyValue] = {}
        for change in self.changes:
            if change.revision > revision:
                break
            if change.now is None:
                keys.pop(change.key, None)
            else:
                keys[change.key] = change.now
        return keys

    def _is_new(self, origin: Origin) -> bool:
        """Whether this asking has not been done, nor been given up, nor its start been followed by another."""
        path, _, boot = origin.session.rpartition("#")
        if int(boot) < self._boots.get(path, 0):
            return False
        self._boots[path] = int(boot)
        floor = self._floors[origin.session] = max(self._floors.get(origin.session, 0), origin.floor)
        if origin.seq < floor:
            return False
        asking = (origin.session, origin.seq)
        is_new = asking not in self._done
        self._done[asking] = None
        return is_new

    def _do(self, command: Command) -> None:
        body = command.body
        match body:
            case Transact():
                self._transact(body)
            case GrantLease():
                self.leases[self.index] = {}
            case RevokeLease():
                self._end(body.lease)
            case LeasesEnded():
                for lease in body.leases:
                    self._end(lease)
            case SetFeatureLevel():
                self._level = max(self._level, body.level)
            case _ if isinstance(body, RUN_COMMANDS):
                if self._level >= RUNS_LEVEL:
                    done = self._change_records(self._ledger.apply(body))
                    if not isinstance(done.result, Refused):
                        self.on_run(body, done.events)
            case _ if isinstance(body, SCALE_COMMANDS):
                if self._level >= SCALE_LEVEL:
                    self.on_scale(body, self._change_records(self._scale.apply(body)).result)
            case _:
                self.is_exact = False

    def _change_records(self, done: Ledgered) -> Ledgered:
        touched: dict[str, KeyValue | None] = {}
        for key, value in done.puts.items():
            old, at = self.keys.get(key), self.revision + 1
            if value is not None:
                created, version = (at, 1) if old is None else (old.created, old.version + 1)
                touched[key] = KeyValue(key, value, created, at, version)
            elif old is not None:
                touched[key] = None
        self._commit(touched)
        for key, now in touched.items():
            if now is not None:
                self._run_keys.put(now)
            else:
                self._run_keys.remove(key)
        return done

    def _transact(self, body: Transact) -> None:
        succeeded = all(self._holds(compare) for compare in body.compares)
        after = dict(self.keys)
        touched: dict[str, None] = {}
        for operation in body.then if succeeded else body.otherwise:
            if self._run(operation, after, touched) is not None:
                return
        self._commit({key: after.get(key) for key in touched})

    def _holds(self, compare: Compare) -> bool:
        found = self.keys.get(compare.key)
        if compare.field is Field.VALUE:
            return _RELATIONS[compare.relation](b"" if found is None else found.value, compare.value)
        return _RELATIONS[compare.relation](0 if found is None else _NUMBERS[compare.field](found), compare.number)

    def _run(self, operation: Operation, after: dict[str, KeyValue], touched: dict[str, None]) -> Refused | None:
        if isinstance(operation, Get):
            return None
        if isinstance(operation, Delete):
            chosen = [key for key in after if key.startswith(operation.key)] if operation.prefix else [operation.key]
            for key in sorted(chosen):
                if after.pop(key, None) is not None:
                    touched[key] = None
            return None
        assert isinstance(operation, Put)
        if operation.lease and operation.lease not in self.leases:
            return Refused("unknown", "lease", "")
        old = after.get(operation.key)
        created, version = (self.revision + 1, 1) if old is None else (old.created, old.version + 1)
        after[operation.key] = KeyValue(
            operation.key, operation.value, created, self.revision + 1, version, operation.lease
        )
        touched[operation.key] = None
        return None

    def _commit(self, touched: dict[str, KeyValue | None]) -> None:
        if not touched:
            return
        self.revision += 1
        for key, now in touched.items():
            old = self.keys.pop(key, None)
            if old is not None and old.lease in self.leases:
                self.leases[old.lease].pop(key, None)
            if now is not None:
                self.keys[key] = now
                if now.lease:
                    self.leases[now.lease][key] = None
            self.changes.append(KeyChange(key, self.revision, now))

    def _end(self, lease: int) -> None:
        keys = self.leases.get(lease)
        if keys is None:
            return
        self._commit(dict.fromkeys(sorted(keys)))
        del self.leases[lease]
        self.ended[lease] = self.index
