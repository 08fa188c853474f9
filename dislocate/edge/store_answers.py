"""What the edge answers about the store, as typed values: built from the boundary's results here, and only here.

A key's `revision` is that of its last change, the same number as `modified`: what a compare-and-set wants.  A list and a
watch carry the store's own revision: where to watch on from.  Durations are float seconds.
"""

from collections.abc import Iterable

from msgspec import UNSET, UnsetType, structs

from dislocate.core.boundary.store import (
    Delete,
    KeysRead,
    KeyValue,
    LeaseStanding,
    ServerView,
    StoreView,
    Transact,
    Transacted,
)
from dislocate.core.identity import Path
from dislocate.core.store.replica import UNKNOWN_AGE
from dislocate.core.units import MILLISECOND, seconds
from dislocate.edge.answers import Answer, age_of
from dislocate.edge.keys import text_of


class RevisionAnswer(Answer, frozen=True):
    """Done, durable on a majority of servers; `revision` is that of the change."""

    revision: int


class DeletedAnswer(Answer, frozen=True):
    """How many keys were removed; 0: there was none."""

    revision: int
    deleted: int


class KeyAnswer(Answer, frozen=True, kw_only=True, omit_defaults=True):
    """One key.  `value` is text; where the bytes are no UTF-8, `encoding` says 'base64'."""

    key: str
    value: str
    encoding: str = ""
    revision: int
    created: int  # revision at which it was made: a lock's fencing token
    modified: int
    version: int  # changes since then, from 1
    lease: int  # goes away with it; 0: stays


class KeyReadAnswer(KeyAnswer, frozen=True, kw_only=True, omit_defaults=True):
    """One key, and by how many seconds this may be behind the leader; 0.0 when the read was linearizable."""

    age: float


class KeysAnswer(Answer, frozen=True):
    """Keys in order, as of `revision`; `more`: ask again with `after` = the last of these."""

    keys: tuple[KeyAnswer, ...]
    revision: int
    age: float
    more: bool


class TransactedKeyAnswer(Answer, frozen=True, kw_only=True, omit_defaults=True):
    """One key as a transaction found or made it; of one that it deleted the last that was so, without its value."""

    key: str
    value: str | UnsetType = UNSET
    encoding: str = ""
    revision: int
    created: int
    modified: int
    version: int
    lease: int


class TransactionAnswer(Answer, frozen=True):
    """`succeeded`: the conditions held and `then` was done, else `else`.  Keys by operation, deleted ones without values."""

    succeeded: bool
    revision: int
    results: tuple[tuple[TransactedKeyAnswer, ...], ...]


class LeaseAnswer(Answer, frozen=True):
    """A lease that lives, with its seconds; `keys` go away with it."""

    lease: int
    ttl: float
    remaining: float
    keys: tuple[str, ...]


class ServerAnswer(Answer, frozen=True):
    """One server.  What only the leader knows is null elsewhere."""

    path: Path
    disk: str
    role: str  # 'voter', 'learner', 'joining' or 'leaving'
    is_leader: bool
    matched: int | None  # log index
    rtt_ms: float | None
    disk_latency_ms: float | None
    linked: bool  # there is a link to it from the agent that answers, or it is that agent
    trouble: str  # what is wrong with it, as far as that agent knows: the leader knows most


class StoreAnswer(Answer, frozen=True):
    """Where this agent stands towards the store; `problem`: why nothing can be written; `warning`: what else is wrong."""

    group: str
    epoch: int
    branch: str
    role: str
    leader: Path | None
    term: int
    revision: int
    index: int
    age: float | None  # of `revision`; null: nothing is known of the store, or nobody knows how old it is
    problem: str
    warning: str
    servers: tuple[ServerAnswer, ...]
    followed: tuple[str, ...]


class ServersAnswer(Answer, frozen=True):
    """The servers as this agent last heard of them."""

    servers: tuple[ServerAnswer, ...]
    leader: Path | None
    age: float | None  # null: nothing was heard of them


def key_answer(found: KeyValue) -> KeyAnswer:
    text, encoding = text_of(found.value)
    return KeyAnswer(
        key=found.key,
        value=text,
        encoding=encoding,
        revision=found.modified,
        created=found.created,
        modified=found.modified,
        version=found.version,
        lease=found.lease,
    )


def key_read_answer(found: KeyValue, age: int) -> KeyReadAnswer:
    return KeyReadAnswer(**structs.asdict(key_answer(found)), age=seconds(age))


def keys_answer(read: KeysRead) -> KeysAnswer:
    keys = tuple(key_answer(found) for found in read.keys)
    return KeysAnswer(keys=keys, revision=read.revision, age=seconds(read.age), more=read.more)


def transaction_answer(request: Transact, done: Transacted) -> TransactionAnswer:
    operations = request.then if done.succeeded else request.otherwise
    deletes = [at for at, operation in enumerate(operations) if isinstance(operation, Delete)]
    results = tuple(
        tuple(_transacted(found, is_deleted=at in deletes) for found in result)
        for at, result in enumerate(done.results)
    )
    return TransactionAnswer(succeeded=done.succeeded, revision=done.revision, results=results)


def _transacted(found: KeyValue, *, is_deleted: bool) -> TransactedKeyAnswer:
    answer = TransactedKeyAnswer(**structs.asdict(key_answer(found)))
    return structs.replace(answer, value=UNSET, encoding="") if is_deleted else answer


def lease_answer(standing: LeaseStanding) -> LeaseAnswer:
    return LeaseAnswer(
        lease=standing.lease, ttl=seconds(standing.ttl), remaining=seconds(standing.remaining), keys=standing.keys
    )


def store_answer(view: StoreView, now: int) -> StoreAnswer:
    return StoreAnswer(
        group=view.group,
        epoch=view.epoch,
        branch=view.branch,
        role=view.role,
        leader=view.leader,
        term=view.term,
        revision=view.revision,
        index=view.index,
        age=_age(view, now),
        problem=view.problem,
        warning=view.warning,
        servers=_server_answers(view.servers),
        followed=view.followed,
    )


def servers_answer(view: StoreView, now: int) -> ServersAnswer:
    return ServersAnswer(servers=_server_answers(view.servers), leader=view.leader, age=_age(view, now))


def _age(view: StoreView, now: int) -> float | None:
    """None: nothing was heard of it yet (its age would be that of the host), or nobody knows how old it is."""
    return None if view.as_of == 0 or now - view.as_of >= UNKNOWN_AGE else age_of(view.as_of, now)


def _server_answers(views: Iterable[ServerView]) -> tuple[ServerAnswer, ...]:
    return tuple(
        ServerAnswer(
            path=view.path,
            disk=view.disk,
            role=view.role,
            is_leader=view.is_leader,
            matched=view.matched,
            rtt_ms=_milliseconds(view.rtt),
            disk_latency_ms=_milliseconds(view.disk_latency),
            linked=view.linked,
            trouble=view.trouble,
        )
        for view in views
    )


def _milliseconds(nanoseconds: int | None) -> float | None:
    return None if nanoseconds is None else round(nanoseconds / MILLISECOND, 3)
