"""Scripts: how the clients of each kind of workload go about it, and what they testify.

Every value written is unique, so that what is read tells who wrote it.  A refusal means that nothing was done; without an
answer it may have been, and a client goes on as if it did not know.
"""

from collections.abc import Callable, Generator

from dislocate.core.boundary.requests import Refused
from dislocate.core.boundary.store import (
    Compacted,
    Compare,
    Consistency,
    Delete,
    Field,
    Get,
    GrantLease,
    KeepLeaseAlive,
    KeysChanged,
    KeysRead,
    KeyValue,
    LeaseStanding,
    Put,
    ReadKeys,
    Relation,
    RevokeLease,
    Transact,
    Transacted,
    Uncertain,
    WatchKeys,
)
from dislocate.core.streams import Stream
from dislocate.core.units import SECOND
from sim.history.operations import Action, Outcome, Seen, Value, cas, delete, get, put
from sim.workload.clients import Answer, Ask, Client, Pause, Script, Wish
from sim.workload.plan import KV, PREFIX, Workload
from sim.workload.testimony import FencedWrite, Grant, Lease, LocalRead, Reread, Watched
from sim.world import World

ROAMS = 0.2  # of all askings go to another agent than the one before
WATCH_PATIENCE = 60 * SECOND  # a watch that nothing happens to is asked anew
HOLD = (1 * SECOND, 8 * SECOND)  # for how long a lock is held, between
GONE = 0.3  # of all holders do not let go: their lease has to end by itself
AGAIN = 1 * SECOND  # until who did not get a lock, or was refused, tries again

Told = Generator[Wish, Answer, Answer]


def place_clients(world: World) -> None:
    """Make the clients of the world's scenario, and let them begin."""
    for workload in world.scenario.workloads:
        if workload.kind not in SCRIPTS:
            continue  # `traffic.fleet` has a way of its own
        agents = world.layout.agents(workload.at)
        for number in range(workload.clients):
            name = f"{workload.name}-{number + 1}"
            stream = world.streams[f"work/{name}"]
            script = SCRIPTS[workload.kind](world, workload, name, stream)
            client = Client(world, name, agents, number % len(agents), script)
            client.begin(workload.begin + stream.below(SECOND))


def _is_over(world: World, workload: Workload) -> bool:
    return workload.until is not None and world.now >= workload.until


def _interval(workload: Workload, stream: Stream) -> Pause:
    """Between two operations: `rate` a second on average, never in step with others."""
    if not workload.rate:
        return Pause(0)
    mean = int(SECOND / workload.rate)
    return Pause(stream.between(mean // 2, mean * 3 // 2))


class Scripted:
    """What every client has: its world, what it is to do, its name, and dice of its own."""

    def __init__(self, world: World, workload: Workload, name: str, stream: Stream) -> None:
        self._world = world
        self._workload = workload
        self._name = name
        self._stream = stream
        self._clients = world.truth.clients


# ---- kv


class KeyClient(Scripted):
    """Reads and writes a few keys that it shares with others."""

    def __init__(self, world: World, workload: Workload, name: str, stream: Stream) -> None:
        super().__init__(world, workload, name, stream)
        self._written = 0
        self._known: dict[str, KeyValue | None] = {}  # as last seen
        self._keys = [f"{workload.prefix}k{number}" for number in range(1, workload.keys + 1)]
        mix = workload.mix or KV
        self._dice = [what for what in KV for _ in range(mix.get(what, 0))]
        self._verbs: dict[str, Callable[[], Told]] = {
            "get": self._get,
            "put": self._put,
            "delete": self._delete,
            "cas": self._cas,
            "txn": self._txn,
            "scan": self._scan,
            "local": self._local,
        }

    def script(self) -> Script:
        while not _is_over(self._world, self._workload):
            answer = yield from self._verbs[self._stream.choice(self._dice)]()
            if isinstance(answer, Refused):
                yield Pause(self._stream.below(AGAIN))
            yield _interval(self._workload, self._stream)

    def _do(self, action: Action, request: Transact | ReadKeys) -> Told:
        """Ask, and put what came of it into the history."""
        history = self._clients.history
        invoked = history.invoke(self._name, action)
        answer = yield Ask(request, elsewhere=self._stream.chance(ROAMS))
        if isinstance(answer, Transacted):
            reads = answer.results[: len(action.reads)] if answer.succeeded else ()
            values = tuple(_only(one) for one in reads)
            history.complete(invoked, Outcome.OK, Seen(answer.succeeded, values, answer.revision))
        elif isinstance(answer, KeysRead):
            found = {one.key: one.value for one in answer.keys}
            values = tuple(found.get(key) for key in action.reads)
            history.complete(invoked, Outcome.OK, Seen(True, values, answer.revision))
        elif isinstance(answer, Refused) or answer is None:
            history.complete(invoked, Outcome.FAILED)
            kind = answer.kind if isinstance(answer, Refused) else "nobody was there"
            refusals = self._clients.refusals
            refusals[kind] = refusals.get(kind, 0) + 1
        else:
            history.complete(invoked, Outcome.UNCERTAIN)
        return answer

    def _key(self) -> str:
        return self._stream.choice(self._keys)

    def _value(self) -> bytes:
        self._written += 1
        return f"{self._name}.{self._written}".encode().ljust(self._workload.size, b".")

    def _get(self) -> Told:
        key = self._key()
        answer = yield from self._do(get(key), ReadKeys(key))
        if isinstance(answer, KeysRead):
            self._known[key] = answer.keys[0] if answer.keys else None
        return answer

    def _put(self) -> Told:
        key, value = self._key(), self._value()
        return (yield from self._do(put(key, value), Transact(then=(Put(key, value),))))

    def _delete(self) -> Told:
        key = self._key()
        return (yield from self._do(delete(key), Transact(then=(Delete(key),))))

    def _cas(self) -> Told:
        """If the key stands as this client knows it, which often it does not."""
        key, value = self._key(), self._value()
        known = self._known.get(key)
        expected, compare = self._expectation(key, known)
        answer = yield from self._do(cas(key, expected, value), Transact((compare,), (Put(key, value),)))
        if isinstance(answer, Transacted) and answer.succeeded:
            self._known[key] = answer.results[0][0]
        return answer

    def _txn(self) -> Told:
        """If one key stands as known, read it and another, and set both."""
        key, other = self._key(), self._key()
        if key == other:
            return (yield from self._cas())
        expected, compare = self._expectation(key, self._known.get(key))
        value, another = self._value(), self._value()
        action = Action(((key, expected),), (key, other), ((key, value), (other, another)))
        then = (Get(key), Get(other), Put(key, value), Put(other, another))
        return (yield from self._do(action, Transact((compare,), then)))

    def _scan(self) -> Told:
        action = Action(reads=tuple(self._keys))
        return (yield from self._do(action, ReadKeys(f"{self._workload.prefix}k", prefix=True)))

    def _local(self) -> Told:
        """A read that may be old is no part of the history: it is judged by the age it tells."""
        key = self._key()
        answer = yield Ask(ReadKeys(key, consistency=Consistency.LOCAL))
        if isinstance(answer, KeysRead):
            value = answer.keys[0].value if answer.keys else None
            clients = self._clients
            read = LocalRead(self._name, self._world.now, key, value, answer.revision, answer.age)
            clients.local_reads.append(read)
        return answer

    def _expectation(self, key: str, known: KeyValue | None) -> tuple[Value, Compare]:
        """What this client last saw there, as one of the comparisons that mean it."""
        if known is None:
            return None, Compare(key, Field.VERSION, Relation.EQUAL, 0)
        if self._stream.chance(0.5):
            return known.value, Compare(key, Field.MODIFIED, Relation.EQUAL, known.modified)
        return known.value, Compare(key, Field.VALUE, Relation.EQUAL, value=known.value)


def _only(found: tuple[KeyValue, ...]) -> Value:
    return found[0].value if found else None


# ---- locks


class LockClient(Scripted):
    """Takes a lock, writes what the lock guards as long as it holds it, and lets go or is gone."""

    def __init__(self, world: World, workload: Workload, name: str, stream: Stream) -> None:
        super().__init__(world, workload, name, stream)
        self._written = 0

    def script(self) -> Script:
        while not _is_over(self._world, self._workload):
            number = self._stream.below(self._workload.keys) + 1
            lease = yield from self._grant()
            if lease is not None:
                token = yield from self._acquire(f"{self._workload.prefix}lock{number}", lease)
                if token:
                    yield from self._hold(number, token, lease)
                else:
                    yield from self._revoke(lease)
            yield Pause(self._stream.between(AGAIN // 2, AGAIN * 2))

    def _grant(self) -> Generator[Wish, Answer, Lease | None]:
        asked = self._world.now
        answer = yield Ask(GrantLease(self._workload.ttl))
        if not isinstance(answer, LeaseStanding):
            return None
        lease = Lease(answer.lease, self._name, answer.ttl, kept=asked, tried=self._world.now)
        self._clients.leases[answer.lease] = lease
        return lease

    def _acquire(self, lock: str, lease: Lease) -> Generator[Wish, Answer, int]:
        """The fencing token; 0 when somebody else holds the lock, or nobody knows."""
        is_free = Compare(lock, Field.CREATED, Relation.EQUAL, 0)
        answer = yield Ask(Transact((is_free,), (Put(lock, self._name.encode(), lease.lease),)))
        if not isinstance(answer, Transacted) or not answer.succeeded:
            return 0
        token = answer.results[0][0].created
        self._clients.grants.append(Grant(self._name, lock, token, answer.revision))
        return token

    def _hold(self, number: int, token: int, lease: Lease) -> Told:
        lock, guarded = (f"{self._workload.prefix}{what}{number}" for what in ("lock", "guarded"))
        until = self._world.now + self._stream.between(*HOLD)
        while self._world.now < until:
            self._written += 1
            value = f"{token}/{self._name}.{self._written}".encode()
            is_mine = Compare(lock, Field.CREATED, Relation.EQUAL, token)
            answer = yield Ask(Transact((is_mine,), (Put(guarded, value),)))
            if isinstance(answer, Transacted):
                if not answer.succeeded:
                    break  # the lock is lost
                self._clients.fenced.append(FencedWrite(self._name, lock, token, answer.revision))
            if self._world.now - lease.kept > lease.ttl // 3 and not (yield from self._keep(lease)):
                break
            yield _interval(self._workload, self._stream)
        if self._stream.chance(GONE):
            lease.is_given_up = True
            return None
        return (yield from self._revoke(lease))

    def _keep(self, lease: Lease) -> Generator[Wish, Answer, bool]:
        """Whether it may still live."""
        asked = self._world.now
        answer = yield Ask(KeepLeaseAlive(lease.lease))
        lease.tried = self._world.now
        if isinstance(answer, LeaseStanding):
            lease.kept = asked
        return isinstance(answer, LeaseStanding | Uncertain)

    def _revoke(self, lease: Lease) -> Told:
        lease.is_given_up = lease.is_revoked = True
        return (yield Ask(RevokeLease(lease.lease)))


# ---- watch


class WatchClient(Scripted):
    """Reads what is there, and wants to hear of every change after it."""

    def __init__(self, world: World, workload: Workload, name: str, stream: Stream) -> None:
        super().__init__(world, workload, name, stream)
        self._prefix = f"{PREFIX}{workload.of}/" if workload.of else PREFIX

    def script(self) -> Script:
        known: int | None = None
        while not _is_over(self._world, self._workload):
            known = yield from (self._read() if known is None else self._watch(known))
            if known is not None:
                self._clients.watching[self._name] = (self._prefix, known, self._world.now)
            else:
                yield Pause(self._stream.between(AGAIN // 4, AGAIN))

    def _read(self) -> Generator[Wish, Answer, int | None]:
        answer = yield Ask(ReadKeys(self._prefix, prefix=True))
        if not isinstance(answer, KeysRead):
            return None
        self._clients.watched.append(Reread(self._name, self._prefix, answer.revision, answer.keys))
        return answer.revision

    def _watch(self, known: int) -> Generator[Wish, Answer, int | None]:
        answer = yield Ask(WatchKeys(self._prefix, True, known), WATCH_PATIENCE, self._stream.chance(ROAMS))
        if isinstance(answer, KeysChanged):
            told = Watched(self._name, self._prefix, known, answer.revision, answer.changes)
            self._clients.watched.append(told)
            return answer.revision
        if isinstance(answer, Compacted):
            return None
        yield Pause(self._stream.between(AGAIN // 4, AGAIN))
        return known


SCRIPTS: dict[str, Callable[[World, Workload, str, Stream], Script]] = {
    "kv": lambda *client: KeyClient(*client).script(),
    "locks": lambda *client: LockClient(*client).script(),
    "watch": lambda *client: WatchClient(*client).script(),
}
