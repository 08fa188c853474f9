"""Server-sent events: every change of a key, or of all keys that begin with a prefix, from a revision on.

Invariant: a reader sees each change after `after`, in order, or is told `compacted`; nothing is left out in silence.  The
last event of a revision carries it as `id:`, so whoever comes back with `Last-Event-ID` misses nothing and gets a
transaction of several keys again if it saw only a part.  After `compacted` the stream goes on from the oldest change that is
still known: read the keys, and take from then on what is newer than that read.

While this agent's store does not answer, no change can be seen, which a reader cannot tell from quiet: it is told by a
`problem`, and by `answering` when the store does again, after which it has missed nothing.

Without a revision the stream begins now, and says first which revision that is, as an `id:` without an event.  One that the
store has not reached is of another store, or of one that was restored: that is `compacted` too, and the stream begins now.
"""

from collections.abc import Iterator
from http import HTTPStatus

import msgspec

from dislocate.core.boundary.requests import Refused, Result
from dislocate.core.boundary.store import Compacted, KeyChange, KeysChanged, ReadKeys, Uncertain, WatchKeys
from dislocate.core.errors import LocalError
from dislocate.core.units import SECOND, format_duration
from dislocate.edge.http.access import Role
from dislocate.edge.http.call import EVENT_STREAM, STORE_WITHIN, Agent, Call, Operation, Query
from dislocate.edge.http.problems import Rejected, encode, problem, store_refused, uncertain
from dislocate.edge.http.watch import KEEP_ALIVE, RETRY, frame
from dislocate.edge.keys import NUMBER_LIMIT, check_key
from dislocate.edge.store_answers import key_answer

LOOK_EVERY = 3.0  # seconds between two looks at whether the store answers at all
QUIET = b": still here\n\n"


class KeyStream:
    """One reader, as WSGI wants it: an iterator of bytes that holds a slot until `close`."""

    def __init__(self, agent: Agent, key: str, is_prefix: bool, after: int, opening: bytes) -> None:
        agent.streams.take()
        self._agent = agent
        self._key = key
        self._is_prefix = is_prefix
        self._after = after
        self._opening = RETRY + opening
        self._has_slot = True
        self._has_ended = False
        self._is_cut_off = False  # as the reader was told

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        opening, self._opening = self._opening, b""
        if opening:  # at once, so that the reader sees the headers
            return opening
        if self._has_ended:
            raise StopIteration
        request = WatchKeys(self._key, self._is_prefix, self._after)
        for _ in range(round(KEEP_ALIVE / LOOK_EVERY)):
            try:
                return self._frames(self._agent.backend.request(request, timeout=LOOK_EVERY)) or QUIET
            except TimeoutError:
                if news := self._standing():
                    return news
        return QUIET

    def close(self) -> None:
        if self._has_slot:
            self._has_slot = False
            self._agent.streams.give_back()

    def _standing(self) -> bytes:
        """What changed in whether the store answers here; of a server whose own part has ended, others answer."""
        backend = self._agent.backend
        view = backend.node.store
        why = "" if view.role == "failed" else view.problem
        if bool(why) is self._is_cut_off:
            return b""
        self._is_cut_off = bool(why)
        if not why:
            return frame("answering", msgspec.json.encode({"revision": self._after}))
        how_old = (
            "" if view.as_of == 0 else f" for {format_duration(max(0, backend.now() - view.as_of) // SECOND * SECOND)}"
        )
        words = f"No change can be seen here{how_old}, and none is missed when the store answers again: {why}"
        return frame("problem", encode(problem(HTTPStatus.SERVICE_UNAVAILABLE, words)))

    def _frames(self, result: Result) -> bytes:
        match result:
            case KeysChanged():
                last = self._after = max(self._after, result.revision)
                return _changes(result.changes, last)
            case Compacted():
                self._after = result.oldest
                return frame("compacted", msgspec.json.encode({"oldest": result.oldest}), result.oldest)
            case Refused():
                self._has_ended = True  # the reader comes back by itself, with its Last-Event-ID
                is_founded = bool(self._agent.backend.node.store.group)
                return frame("problem", encode(store_refused(result, is_founded=is_founded).problem))
            case Uncertain():
                return frame("problem", encode(uncertain(result.reason).problem))
        return b""


def _changes(changes: tuple[KeyChange, ...], revision: int) -> bytes:
    frames = []
    for at, change in enumerate(changes):
        is_last = at + 1 == len(changes) or changes[at + 1].revision != change.revision
        frames.append(_change(change, change.revision if is_last else None))
    if revision > (changes[-1].revision if changes else 0):
        frames.append(f"id: {revision}\n\n".encode())  # an event of no kind: only where to resume
    return b"".join(frames)


def _change(change: KeyChange, index: int | None) -> bytes:
    if change.now is None:
        return frame("delete", msgspec.json.encode({"key": change.key, "revision": change.revision}), index)
    return frame("put", msgspec.json.encode(key_answer(change.now)), index)


def watch_keys(call: Call) -> KeyStream:
    """The changes of ?key= or ?prefix=, after ?after= or Last-Event-ID."""
    key, prefix = call.query("key"), call.query("prefix")
    if bool(key) == bool(prefix):
        raise LocalError("key", got=key[:100], expected="either ?key= or ?prefix=")
    is_prefix = bool(prefix)
    watched = check_key(prefix or key, "prefix" if is_prefix else "key")
    after = call.last_event_id()
    if after is None:
        after = call.query_number("after", NUMBER_LIMIT, "the revision of an earlier answer")
    opening = b""
    if after is None:
        after = call.ask_store(ReadKeys(watched, is_prefix, limit=1)).revision
        opening = f"id: {after}\n\n".encode()
    elif after > call.node.store.revision:  # as known here, which may be behind
        revision = reached(call, watched, is_prefix)
        if revision is not None and after > revision:
            after, opening = revision, frame("compacted", msgspec.json.encode({"oldest": revision}), revision)
    call.set_header("Cache-Control", "no-store")
    return KeyStream(call.agent, watched, is_prefix, after, opening)


def reached(call: Call, watched: str, is_prefix: bool, within: float = STORE_WITHIN) -> int | None:
    """The revision that the store itself has reached, whatever this agent's copy has; None while nobody can say."""
    try:
        revision: int = call.ask_store(ReadKeys(watched, is_prefix, limit=1), within).revision
    except Rejected:
        return None
    return revision


OPERATIONS = (
    Operation(
        method="GET",
        path="/api/watch/kv",
        role=Role.READ,
        summary="Server-sent events 'put', 'delete', 'compacted' of a key or prefix; 'problem' and 'answering' when the "
        "store does not answer, and does again; Last-Event-ID resumes",
        respond=watch_keys,
        queries=(
            Query("key", "this key"),
            Query("prefix", "or all keys that begin with it"),
            Query("after", "changes after this revision; none given: from now on"),
        ),
        media=EVENT_STREAM,
    ),
)
