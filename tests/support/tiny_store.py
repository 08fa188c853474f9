"""A store in a dictionary that answers the boundary's requests, and the real API in front of it, served by a thread.

For tests of what is in front of the store: no log, no servers, no time."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from socketserver import ThreadingMixIn
from threading import Lock, Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import msgspec

from dislocate.core.boundary.requests import Done, Refused
from dislocate.core.boundary.store import (
    BackedUp,
    BackUp,
    Compacted,
    Compare,
    Consistency,
    Delete,
    Field,
    Get,
    GrantLease,
    KeyChange,
    KeysChanged,
    KeysRead,
    KeyValue,
    LeaseStanding,
    Put,
    ReadKeys,
    Relation,
    Restore,
    Transact,
    Transacted,
    WatchKeys,
)
from dislocate.core.units import SECOND
from dislocate.edge.http.access import Access, Role, Token
from dislocate.edge.http.app import make_app
from dislocate.edge.metrics import EdgeCounters
from dislocate.host.templates import references
from tests.support.fake_backend import SELF, FakeBackend

TOKEN = "the token of ann"
QUIET = 0.02  # seconds that a watch waits before it says that nothing happened


class TinyStore:
    """Call it with a request; `missing` makes it one that has lost its majority."""

    def __init__(self) -> None:
        self.revision = 0
        self.keys: dict[str, KeyValue] = {}
        self.changes: list[KeyChange] = []
        self.oldest = 0
        self.missing = ""
        self._lock = Lock()

    def __call__(self, request: Any) -> Any:
        if (refused := self.cut_off(request)) is not None:
            return refused
        with self._lock:
            result = self._answer(request)
        if result is None:
            time.sleep(QUIET)
            raise TimeoutError
        return result

    def cut_off(self, request: Any) -> Refused | None:
        if not self.missing or (isinstance(request, ReadKeys) and request.consistency is Consistency.LOCAL):
            return None
        return Refused("unavailable", "", f"2 of 5 servers answer; missing: {self.missing}")

    def _answer(self, request: Any) -> Any:
        match request:
            case Transact():
                return self._transact(request)
            case ReadKeys():
                found = [each for each in self._find(request.key, request.prefix) if each.key > request.after]
                age = 3 * SECOND // 2 if self.missing else 0
                return KeysRead(tuple(found[: request.limit]), self.revision, age, len(found) > request.limit)
            case WatchKeys():
                return self._watch(request)
            case GrantLease():
                return LeaseStanding(4, request.ttl, request.ttl)
            case BackUp():
                return BackedUp(msgspec.msgpack.encode(list(self.keys.values())), self.revision)
            case Restore():
                return self._restore(request)
        return Done()

    def _transact(self, request: Transact) -> Transacted:
        succeeded = all(self._holds(compare) for compare in request.compares)
        operations = request.then if succeeded else request.otherwise
        if any(not isinstance(operation, Get) for operation in operations):
            self.revision += 1
        results = tuple(self._operate(operation) for operation in operations)
        return Transacted(succeeded, self.revision, results)

    def _operate(self, operation: Any) -> tuple[KeyValue, ...]:
        found = self._find(operation.key, getattr(operation, "prefix", False))
        match operation:
            case Put():
                old = self.keys.get(operation.key)
                created, version = (old.created, old.version + 1) if old else (self.revision, 1)
                new = KeyValue(operation.key, operation.value, created, self.revision, version, operation.lease)
                self.keys[operation.key] = new
                self.changes.append(KeyChange(operation.key, self.revision, new))
                return (new,)
            case Delete():
                for each in found:
                    del self.keys[each.key]
                    self.changes.append(KeyChange(each.key, self.revision, None))
        return found

    def _watch(self, request: WatchKeys) -> Compacted | KeysChanged | None:
        if request.after < self.oldest:
            return Compacted(self.oldest)
        changes = tuple(
            change
            for change in self.changes
            if change.revision > request.after
            and (change.key.startswith(request.key) if request.prefix else change.key == request.key)
        )
        return KeysChanged(changes, self.revision) if changes else None

    def _restore(self, request: Restore) -> Any:
        try:
            keys = msgspec.msgpack.decode(request.data, type=list[KeyValue])
        except msgspec.DecodeError:
            return Refused("invalid", "body", "this is no backup: take one with `dislocate store backup`")
        self.revision += 1
        self.keys = {each.key: each for each in keys}
        return Transacted(True, self.revision, ())

    def _find(self, key: str, is_prefix: bool) -> tuple[KeyValue, ...]:
        if is_prefix:
            return tuple(self.keys[name] for name in sorted(self.keys) if name.startswith(key))
        return (self.keys[key],) if key in self.keys else ()

    def _holds(self, compare: Compare) -> bool:
        found = self.keys.get(compare.key, KeyValue(compare.key, b"", 0, 0, 0))
        have: Any = getattr(found, compare.field.value)
        wanted: Any = compare.value if compare.field is Field.VALUE else compare.number
        return {
            Relation.EQUAL: have == wanted,
            Relation.NOT_EQUAL: have != wanted,
            Relation.GREATER: have > wanted,
            Relation.LESS: have < wanted,
        }[compare.relation]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that hung up is no news."""


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nothing: the test judges."""


@contextmanager
def served_store(role: Role = Role.OPERATE) -> Iterator[tuple[str, TinyStore, FakeBackend]]:
    """The URL of the API, the store and the backend behind it."""
    backend, store = FakeBackend(), TinyStore()
    backend.result = store
    with served(backend, role) as url:
        yield url, store, backend


@contextmanager
def served(backend: FakeBackend, role: Role = Role.OPERATE, **options: Any) -> Iterator[str]:
    """The URL of the API in front of `backend`."""
    access = Access(loopback=role, tokens={sha256(TOKEN.encode()).hexdigest(): Token("ann", role)})
    app = make_app(backend, SELF, access, EdgeCounters(), references=references, **options)
    with make_server("127.0.0.1", 0, app, _Server, _Quiet) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
