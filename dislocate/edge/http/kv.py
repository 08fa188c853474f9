"""Keys of the replicated store: read, set, remove, compare-and-set, transactions, and long polls.

    PUT /api/kv/app/color          the body is the value, whatever its bytes   ->  {"revision": 7}
    GET /api/kv/app/color          {"key": "app/color", "value": "blue", "revision": 7, ...}
    PUT /api/kv/app/color?cas=7    only if nobody changed it since

    GET /api/kv/app/color?raw=true the value as it is; how old that is in X-Dislocate-Age, in seconds

The key is all that follows '/api/kv/', slashes included.  A change that is answered with 200 is durable on a majority of
servers; one that is refused was not done; a 504 may have been.  `X-Dislocate-Index` of an answer is the store's revision to
wait from with `index`.
"""

from http import HTTPStatus
from typing import Any

from msgspec.structs import replace

from dislocate.core.boundary.store import Compacted, Consistency, KeysChanged, KeysRead, ReadKeys, Transact, WatchKeys
from dislocate.core.errors import LocalError
from dislocate.core.tunables import READ_LIMIT
from dislocate.core.units import SECOND, seconds
from dislocate.edge.bodies import TransactionBody, duration, transaction_of
from dislocate.edge.http.access import Role
from dislocate.edge.http.call import BYTES, STORE_WITHIN, Call, Operation, Query
from dislocate.edge.http.keystream import OPERATIONS as STREAMS
from dislocate.edge.http.keystream import reached
from dislocate.edge.http.problems import Rejected, cas_missed, problem
from dislocate.edge.http.services import LOOK_EVERY, WAIT_DEFAULT, WAIT_LONGEST
from dislocate.edge.keys import (
    NUMBER_LIMIT,
    check_deleted,
    check_key,
    check_value,
    conflict_words,
    consistency_of,
    delete,
    found_instead,
    is_system,
    put,
    touches_system,
)
from dislocate.edge.store_answers import (
    DeletedAnswer,
    KeyReadAnswer,
    KeysAnswer,
    RevisionAnswer,
    TransactionAnswer,
    key_read_answer,
    keys_answer,
    transaction_answer,
)
from dislocate.strict import one_of

ROUTE = "/api/kv/"
BODY_LIMIT = 1 << 20  # bytes that are read at all: a value that is a little too long is told so by its own limit
LIST_DEFAULT = 1_000  # keys

REVISION = "X-Dislocate-Revision"
INDEX = "X-Dislocate-Index"
AGE = "X-Dislocate-Age"


def put_key(call: Call) -> RevisionAnswer:
    key = _key(call)
    _require_system(call, key)
    try:
        value = check_value(call.body)
    except LocalError as error:
        detail = f"value: expected {error.expected}"
        status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        raise Rejected(problem(status, detail, field="value", got=error.got, expected=error.expected)) from None
    cas = _cas(call)
    lease = call.query_number("lease", NUMBER_LIMIT, "the number of a lease, as POST /api/leases gave it") or 0
    return RevisionAnswer(revision=_change(call, key, put(key, value, cas=cas, lease=lease), cas).revision)


def delete_key(call: Call) -> DeletedAnswer:
    """A key that is not there is no mistake: the same DELETE twice does no harm."""
    is_prefix = call.query_flag("prefix")
    key, cas = check_deleted(call.rest_of_path(ROUTE), is_prefix=is_prefix), _cas(call)
    if is_prefix and cas is not None:
        raise LocalError("cas", got=cas, expected="no ?cas= with ?prefix=true: it compares one key")
    _require_system(call, key, is_prefix=is_prefix)
    done = _change(call, key, delete(key, is_prefix=is_prefix, cas=cas), cas)
    return DeletedAnswer(revision=done.revision, deleted=len(done.results[0]))


def get_key(call: Call) -> KeyReadAnswer | KeysAnswer | bytes:
    """One key, or with ?prefix=true all that begin with it; with `index` and `wait` after the next change."""
    is_prefix = call.query_flag("prefix")
    key = check_key(call.rest_of_path(ROUTE), is_prefix=is_prefix)
    return _list(call, key) if is_prefix else _get(call, key)


def list_keys(call: Call) -> KeysAnswer:
    """All keys: the empty prefix, whether that is said or not."""
    call.query_flag("prefix")
    return _list(call, "")


def post_transaction(call: Call) -> TransactionAnswer:
    request = transaction_of(call.body)
    if touches_system(request):
        call.require(Role.OPERATE, "changing keys of operators")
    return transaction_answer(request, call.ask_store(request))


def _key(call: Call) -> str:
    return check_key(call.rest_of_path(ROUTE))


def _cas(call: Call) -> int | None:
    return call.query_number("cas", NUMBER_LIMIT, "the 'revision' of an earlier answer, or 0 for 'no such key'")


def _require_system(call: Call, key: str, *, is_prefix: bool = False) -> None:
    if is_system(key, is_prefix=is_prefix):
        call.require(Role.OPERATE, "changing keys of operators")


def _change(call: Call, key: str, request: Transact, cas: int | None) -> Any:
    """What was done.  Raises `Rejected` when `cas` is not the key's revision."""
    done = call.ask_store(request, of_one_key=True)
    if not done.succeeded:
        revision = found_instead(done.results)
        raise cas_missed(cas or 0, revision, conflict_words(key, revision))
    return done


def _get(call: Call, key: str) -> KeyReadAnswer | bytes:
    for name in ("limit", "after"):
        if call.query(name):
            raise LocalError(name, got=call.query(name)[:100], expected="?prefix=true beside it: it is for lists")
    is_raw = call.query_flag("raw")
    read = _read(call, ReadKeys(key, **_consistency(call)))
    call.set_header(INDEX, str(read.revision))
    call.set_header(AGE, _seconds(read.age))
    if not read.keys:
        raise _no_key(key, read)
    found = read.keys[0]
    if not is_raw:
        return key_read_answer(found, read.age)
    call.set_header(REVISION, str(found.modified))
    call.set_media(BYTES)
    return found.value


def _list(call: Call, prefix: str) -> KeysAnswer:
    if call.query_flag("raw"):
        raise LocalError("raw", got=True, expected="one key: a list has no raw form")
    limit = call.query_number("limit", READ_LIMIT, f"a whole number, 1..{READ_LIMIT}", smallest=1) or LIST_DEFAULT
    request = ReadKeys(prefix, True, limit=limit, after=call.query("after"), **_consistency(call))
    read = _read(call, request)
    call.set_header(INDEX, str(read.revision))
    call.set_header(AGE, _seconds(read.age))
    return keys_answer(read)


def _consistency(call: Call) -> dict[str, Any]:
    """The fields of `ReadKeys` that `consistency` and `max_age` stand for.  Raises `LocalError`."""
    names = {each.value: each for each in Consistency}
    text = call.query("consistency")
    if text and text not in names:
        raise LocalError("consistency", got=text[:100], expected=one_of(text, names))
    max_age = duration(call.query("max_age"), "max_age")
    return {"consistency": consistency_of(names.get(text), max_age), "max_age": max_age}


# ---- waiting


def _read(call: Call, request: ReadKeys) -> KeysRead:
    """What is there now; with `index` or `wait` after a change since `index`, or when `wait` is over."""
    index = call.query_index()
    waits = index is not None or bool(call.query("wait"))
    wait = call.query_wait(WAIT_DEFAULT, WAIT_LONGEST) if waits else 0.0
    read: KeysRead = call.ask_store(request)
    if not waits or (index is None and read.keys):
        return read
    if index is None:
        return _wait_for(call, request, read, read.revision, wait)
    began = call.now
    if index > read.revision and _is_ahead(call, request, index, min(wait, STORE_WITHIN)):
        return read  # the index of another store, or of before a restore
    return _wait_for(call, request, read, index, wait - (call.now - began) / SECOND)


def _is_ahead(call: Call, request: ReadKeys, index: int, within: float) -> bool:
    """Whether the store itself has not reached `index`, which what was read has not; no, while nobody can say."""
    if request.consistency is Consistency.LINEARIZABLE:
        return True
    revision = reached(call, request.key, request.prefix, within)
    return revision is not None and index > revision


def _wait_for(call: Call, request: ReadKeys, read: KeysRead, after: int, wait: float) -> KeysRead:
    """In slices: who hangs up must not hold a connection until `wait` is over."""
    while wait > 0 and not call.is_abandoned():
        changed = call.watch_store(WatchKeys(request.key, request.prefix, after), min(wait, LOOK_EVERY))
        if changed is None:
            wait -= LOOK_EVERY
        elif isinstance(changed, KeysChanged) and not changed.changes:
            after = max(after, changed.revision)
        elif isinstance(changed, Compacted) and _is_unchanged(request, read, after):
            after = read.revision  # nothing happened to this very key up to there
        else:
            break
    latest: KeysRead = call.ask_store(request)
    return latest


def _is_unchanged(request: ReadKeys, read: KeysRead, after: int) -> bool:
    """A single key that is there and older than `after` cannot have changed in between, compacted or not."""
    return not request.prefix and bool(read.keys) and read.keys[0].modified <= after < read.revision


def _no_key(key: str, read: KeysRead) -> Rejected:
    near = key[: key.rfind("/") + 1]
    hint = f"GET {ROUTE}{near}?prefix=true lists what is near" if near else "GET /api/kv lists all"
    missing = problem(HTTPStatus.NOT_FOUND, f"There is no key {key!r}", field="key", got=key, hint=hint)
    return Rejected(replace(missing, age=seconds(read.age)), {INDEX: str(read.revision), AGE: _seconds(read.age)})


def _seconds(age: int) -> str:
    return f"{seconds(age):.3f}"


_READING = (
    Query(
        "consistency", "'linearizable' unless given; 'bounded' with max_age; 'local': what is known here, with its age"
    ),
    Query("max_age", "how far behind the leader the answer may be, such as '5s'"),
    Query("index", "a revision: wait for a change after it"),
    Query("wait", "how long at most, such as '30s'; up to '10m'"),
)
_LISTING = (
    Query("limit", f"at most so many keys, {LIST_DEFAULT} unless given"),
    Query("after", "only keys after this one: the last of the page before"),
)
_CAS = Query("cas", "do it only if this is the key's revision; 0: only if there is no such key")

OPERATIONS = (
    Operation(
        method="GET",
        path="/api/kv",
        role=Role.READ,
        summary="All keys, in order",
        respond=list_keys,
        answer=KeysAnswer,
        queries=(Query("prefix", "true, or nothing: these are all"), *_READING, *_LISTING),
    ),
    Operation(
        method="GET",
        path="/api/kv/{key:path}",
        role=Role.READ,
        summary="One key, or with prefix=true all that begin with it; with index and wait, its next change",
        respond=get_key,
        answer=(KeyReadAnswer, KeysAnswer),
        queries=(
            Query(
                "raw",
                "true: the value's bytes alone; its revision is in X-Dislocate-Revision, its age in X-Dislocate-Age",
            ),
            Query("prefix", "true: all keys that begin with it"),
            *_READING,
            *_LISTING,
        ),
    ),
    Operation(
        method="PUT",
        path="/api/kv/{key:path}",
        role=Role.WRITE,
        summary="Set a key to the body's bytes; durable on a majority of servers when answered",
        respond=put_key,
        answer=RevisionAnswer,
        raw_limit=BODY_LIMIT,
        queries=(_CAS, Query("lease", "the key goes away with this lease")),
    ),
    Operation(
        method="DELETE",
        path="/api/kv/{key:path}",
        role=Role.WRITE,
        summary="Remove a key, or with prefix=true all that begin with it",
        respond=delete_key,
        answer=DeletedAnswer,
        queries=(_CAS, Query("prefix", "true: all keys that begin with it")),
    ),
    Operation(
        method="POST",
        path="/api/txn",
        role=Role.WRITE,
        summary="If all conditions hold do 'then', else 'else'; all or nothing, in one revision",
        respond=post_transaction,
        answer=TransactionAnswer,
        body=TransactionBody,
    ),
    *STREAMS,
)
