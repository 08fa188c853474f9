"""Sessions: who asked what, so that an asking sent twice is done once and answered the same both times.

Invariants: of each agent one session is known, that of its highest start; an asking that was answered here is never done
again as long as its session is known; all of it is part of the replicated state and of every snapshot (a dedup table that
a snapshot leaves out does things twice).  Source: Raft thesis, 6.3.

What a repetition gets is the first answer, with two exceptions, to bound what is kept.  The values of keys that a Put made
are not kept: they are in the repeated command itself.  An answer that is still larger than `SESSION_RESULT_BYTES` (of a Get
or Delete), or the oldest of more than `SESSION_RESULTS`, is not kept: its repetition gets `Uncertain`, which says so.  To
read the keys again instead would make one transaction of two moments.

The bound of the promise: beyond `SESSIONS` agents or `SESSION_BYTES` of answers the session that was not used for longest
(by index of the log, so equal everywhere) is forgotten, and with it that it ever asked.
"""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import TypeAlias

import msgspec
from msgspec import Struct

from dislocate.core.boundary.requests import Done, Refused
from dislocate.core.boundary.runs import Granted, RunStarted
from dislocate.core.boundary.store import KeyValue, LeaseStanding, Operation, Put, Transact, Transacted, Uncertain
from dislocate.core.identity import Path
from dislocate.core.store.commands import CommandBody, Origin
from dislocate.core.store.keys import size_of
from dislocate.core.tunables import SESSION_BYTES, SESSION_RESULT_BYTES, SESSION_RESULTS, SESSIONS

Answer: TypeAlias = Transacted | LeaseStanding | RunStarted | Granted | Done | Refused | Uncertain
_ANSWER_COST = 200  # bytes that a kept answer takes besides names and values


class Session(Struct):
    """One start of one agent."""

    boot: int
    floor: int = 0  # askings below this have been answered
    forgotten: int = 0  # askings up to this may have been done: their answers were too many
    used: int = 0  # index of the last entry of this session
    size: int = 0  # bytes of the answers, roughly
    answers: dict[int, tuple[Answer, int]] = {}  # by seq, in the order of the log; with what it costs


class StoredSession(Struct, frozen=True, array_like=True):
    """A session as a record."""

    boot: int
    floor: int
    forgotten: int
    used: int
    answers: tuple[tuple[int, Answer], ...]


class Sessions:
    """The sessions, least recently used first."""

    def __init__(self, limit: int = SESSIONS, limit_bytes: int = SESSION_BYTES) -> None:
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._sessions: dict[Path, Session] = {}
        self._size = 0
        self._admitted = Session(0)
        self.dirty: dict[Path, None] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def admit(self, origin: Origin, index: int, body: CommandBody) -> Answer | None:
        """None: do it, and `keep` the answer.  Else it is not to be done, and this is the answer."""
        path, boot = _start(origin.session)
        session = self._sessions.get(path)
        if session is not None and boot < session.boot:
            return Refused("conflict", "session", f"a newer start of {path} has taken its place: ask from there")
        if session is None or boot > session.boot:
            self._forget(path)
            session = Session(boot, answers={})
        else:
            del self._sessions[path]
        self._sessions[path] = session  # the most recently used stands last
        session.used = index
        self.dirty[path] = None
        if origin.floor > session.floor:
            self._raise_floor(session, origin.floor)
        if origin.seq < session.floor:
            reason = "the asker said that this asking has been answered: ask with a new number"
            return Refused("conflict", "seq", reason)
        if (answered := session.answers.get(origin.seq)) is not None:
            return _completed(answered[0], body)
        if origin.seq <= session.forgotten:
            return Uncertain(
                "too many askings of this agent were under way to keep the answer: read before trying again"
            )
        self._admitted = session
        return None

    def keep(self, origin: Origin, body: CommandBody, answer: Answer) -> None:
        """What the asking that was just admitted came to."""
        session = self._admitted
        kept = _shortened(answer, body)
        cost = _cost(kept)
        session.answers[origin.seq] = (kept, cost)
        session.size += cost
        self._size += cost
        while len(session.answers) > SESSION_RESULTS:
            session.forgotten = max(session.forgotten, self._drop_first(session))
        while len(self._sessions) > self._limit or (self._size > self._limit_bytes and len(self._sessions) > 1):
            self._forget(next(iter(self._sessions)))

    def records(self, paths: Iterable[Path]) -> Iterator[tuple[Path, bytes | None]]:
        """What to keep on disk of these paths; None: there is no session any more."""
        for path in paths:
            session = self._sessions.get(path)
            yield path, (None if session is None else _encoded(session))

    def paths(self) -> list[Path]:
        return sorted(self._sessions)

    def recover(self, stored: Iterable[tuple[Path, bytes]]) -> None:
        """Take up what `records` gave.  Raises `msgspec.MsgspecError`."""
        read = [(path, msgspec.msgpack.decode(payload, type=StoredSession)) for path, payload in stored]
        for path, one in sorted(read, key=lambda pair: pair[1].used):
            answers = {seq: (answer, _cost(answer)) for seq, answer in one.answers}
            size = sum(cost for _, cost in answers.values())
            self._sessions[path] = Session(one.boot, one.floor, one.forgotten, one.used, size, answers)
            self._size += size

    def _raise_floor(self, session: Session, floor: int) -> None:
        session.floor = floor
        while session.answers and next(iter(session.answers)) < floor:
            self._drop_first(session)

    def _drop_first(self, session: Session) -> int:
        seq = next(iter(session.answers))
        _, cost = session.answers.pop(seq)
        session.size -= cost
        self._size -= cost
        return seq

    def _forget(self, path: Path) -> None:
        if (session := self._sessions.pop(path, None)) is not None:
            self._size -= session.size
            self.dirty[path] = None


@lru_cache(maxsize=1_024)
def _start(session: str) -> tuple[Path, int]:
    """Which agent, and which boot of it, 'dc/name#boot' names."""
    path, _, boot = session.rpartition("#")
    return path, int(boot) if boot.isdecimal() else 0


def _encoded(session: Session) -> bytes:
    answers = tuple((seq, answer) for seq, (answer, _) in session.answers.items())
    stored = StoredSession(session.boot, session.floor, session.forgotten, session.used, answers)
    return msgspec.msgpack.encode(stored)


def _cost(answer: Answer) -> int:
    if type(answer) is not Transacted:
        return _ANSWER_COST
    cost = _ANSWER_COST
    for result in answer.results:
        for kv in result:
            cost += _ANSWER_COST + len(kv.key) + len(kv.value)
    return cost


def _operations(body: CommandBody, succeeded: bool) -> tuple[Operation, ...]:
    if not isinstance(body, Transact):
        return ()
    return body.then if succeeded else body.otherwise


def _shortened(answer: Answer, body: CommandBody) -> Answer:
    """What is kept of an answer."""
    if type(answer) is not Transacted or not answer.results:
        return answer
    operations = _operations(body, answer.succeeded)
    size = 0
    results: list[tuple[KeyValue, ...]] = []
    for operation, found in zip(operations, answer.results, strict=True):
        if type(operation) is Put:
            found = (_with_value(found[0], b""),)
        else:
            size += sum(map(size_of, found))
        results.append(found)
    if size > SESSION_RESULT_BYTES:
        return Uncertain(
            f"it was done by revision {answer.revision}, and its answer of {size} bytes was too large to be kept for a "
            "repetition: read the keys"
        )
    return Transacted(answer.succeeded, answer.revision, tuple(results))


def _completed(answer: Answer, body: CommandBody) -> Answer:
    """What was kept, with the values that the repeated command itself says."""
    if type(answer) is not Transacted or not answer.results:
        return answer
    operations = _operations(body, answer.succeeded)
    if len(operations) != len(answer.results):
        return answer
    results = [
        tuple(_with_value(kv, operation.value) for kv in found) if type(operation) is Put else found
        for operation, found in zip(operations, answer.results, strict=True)
    ]
    return Transacted(answer.succeeded, answer.revision, tuple(results))


def _with_value(kv: KeyValue, value: bytes) -> KeyValue:
    return KeyValue(kv.key, value, kv.created, kv.modified, kv.version, kv.lease)
