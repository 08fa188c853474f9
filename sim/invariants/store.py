"""Invariants of the store as its clients see it (design, section 6): what they were told is what the log says.

The wiretap's reference store, fed with the log that the servers agreed on, is the truth; what clients of `[[workloads]]`
were told is held against it.
"""

from bisect import bisect_right

from dislocate.core.boundary.store import KeyChange, KeyValue
from dislocate.core.store.commands import LeasesEnded, decode_command
from dislocate.core.tunables import ELECTION_CEILING
from dislocate.core.units import SECOND
from sim.history import Commit, Verdict, check_by_commits, check_linearizable
from sim.invariants.consensus import LogInvariant
from sim.invariants.datacenters import calm_since
from sim.reference import ReferenceStore
from sim.wiretap import Agreed
from sim.workload.plan import PREFIX
from sim.workload.testimony import FencedWrite, Grant, LocalRead, Reread, Testimony, Watched
from sim.world import World

SEARCH_STEPS = 200_000  # a fifth of a second or so: the order of commits has judged already
WATCH_BOUND = 75 * SECOND  # a watch that is answered with nothing is asked anew after 60 s
LEASE_BOUND = 15 * SECOND  # beyond its time: an election, a proposal, and the leader's rounds
CALM_BOUND = 45 * SECOND  # without a fault: links are back, a leader is there, followers have caught up


class ClientInvariant(LogInvariant):
    """One that needs clients besides."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.is_needed = self.is_needed and bool(world.scenario.workloads)

    @property
    def told(self) -> Testimony:
        return self.world.truth.clients

    @property
    def reference(self) -> ReferenceStore:
        return self.world.wiretap.reference

    @property
    def agreed(self) -> list[Agreed]:
        return self.world.wiretap.agreed

    def calm_for(self) -> int:
        """How long nothing has been done to anybody."""
        since = calm_since(self.world)
        return 0 if since is None else self.world.now - since


class Linearizable(ClientInvariant):
    """Every operation of every client took effect once, at one instant between its beginning and its end, and whoever asked
    saw the store as it was then; what was acknowledged is there, what was refused is not."""

    name = "the store is linearizable"

    def conclude(self) -> None:
        if not self.is_needed or not self.reference.is_exact:
            return
        history = self.told.history.operations()
        self.exercised += sum(operation.seen is not None for operation in history)
        keys = {key for operation in history for key in operation.action.keys}  # asked only whether it holds one
        commits = [_commit(change) for change in self.reference.changes if change.key in keys]
        finding = check_by_commits(history, commits)
        if finding is not None:
            raise self.violated("a client", finding)
        found = check_linearizable(history, SEARCH_STEPS)
        if found.verdict is Verdict.ILLEGAL:
            raise self.violated("a client", f"the order of commits explains it, and yet: {found}")


def _commit(change: KeyChange) -> Commit:
    return Commit(change.revision, change.key, None if change.now is None else change.now.value)


class ServersAgreeInTheEnd(ClientInvariant):
    """When nothing has been disturbed for a while, every server that runs has applied everything, and holds exactly what the
    log says."""

    name = "servers agree in the end"

    def conclude(self) -> None:
        if not self.is_needed or not self.agreed or self.calm_for() < CALM_BOUND:
            return
        last = self.agreed[-1]
        for path in self.world.observers_up():
            view = self.world.node(path).store
            if view.index == 0:  # no server
                continue
            self.exercised += 1
            behind = [one for one in self.agreed[view.index :] if self.world.now - one.at > LEASE_BOUND]
            if behind:
                words = f"has applied {view.index} of {last.entry.index} entries, long undisturbed"
                raise self.violated(path, words)
            if self.reference.is_exact and view.revision != self.agreed[view.index - 1].revision:
                raise self.violated(path, f"is at revision {view.revision}, not {self.agreed[view.index - 1].revision}")


class WatchersMissNothing(ClientInvariant):
    """Who watches hears of every change, in order, once; or is told `Compacted`, and reads what there is."""

    name = "watchers miss nothing"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._judged = 0

    def check(self) -> None:
        if not self.is_needed or not self.reference.is_exact:
            return
        told = self.told.watched
        while self._judged < len(told):
            one = told[self._judged]
            upto = one.upto if isinstance(one, Watched) else one.revision
            if upto > self.reference.revision:
                raise self.violated(one.client, f"was told of revision {upto}, which nobody has applied")
            self._judge(one)
            self._judged += 1

    def _judge(self, one: Watched | Reread) -> None:
        self.exercised += 1
        if isinstance(one, Reread):
            there = self.reference.at(one.revision)
            wanted = tuple(there[key] for key in sorted(there) if key.startswith(one.prefix))
            if len(one.keys) < 1000 and one.keys != wanted:
                raise self.violated(one.client, f"read {_odd(one.keys, wanted)} below {one.prefix} at {one.revision}")
            return
        if one.upto < one.after:
            raise self.violated(one.client, f"knows {one.prefix} at {one.after}, and was told to go back to {one.upto}")
        expected = self.reference.changes_below(one.prefix, one.after, one.upto)
        if one.changes != expected:
            words = f"was told {_odd(one.changes, expected)} after {one.after} up to {one.upto} below {one.prefix}"
            raise self.violated(one.client, words)

    def conclude(self) -> None:
        if not self.is_needed or self.calm_for() < WATCH_BOUND:
            return
        for client, (prefix, revision, _) in self.told.watching.items():
            late = [
                one
                for one in self.reference.changes_below(prefix, revision, self.reference.revision)
                if self._age(one.revision) > WATCH_BOUND
            ]
            if late:
                words = f"knows {prefix} at {revision}, and has not heard of {late[0].key} at {late[0].revision}"
                raise self.violated(client, words)

    def _age(self, revision: int) -> int:
        at = bisect_right(self.agreed, revision - 1, key=lambda one: one.revision)
        return self.world.now - self.agreed[at].at if at < len(self.agreed) else 0


def _odd(found: tuple[object, ...], wanted: tuple[object, ...]) -> str:
    """The first difference, for people."""
    for at in range(max(len(found), len(wanted))):
        one = found[at] if at < len(found) else None
        other = wanted[at] if at < len(wanted) else None
        if one != other:
            return f"{_brief(one)} instead of {_brief(other)}"
    return "the same"


def _brief(one: object) -> str:
    match one:
        case KeyChange():
            return f"{one.key}@{one.revision}" + ("" if one.now is not None else " deleted")
        case KeyValue():
            return f"{one.key}@{one.modified}"
        case _:
            return "nothing"


class LocalReadsAreHonest(ClientInvariant):
    """What is read locally was so at the revision that is told with it, and nothing that was applied earlier than its age
    ago is missing."""

    name = "local reads tell their age"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._judged = 0

    def check(self) -> None:
        if not self.is_needed or not self.reference.is_exact:
            return
        reads = self.told.local_reads
        while self._judged < len(reads):
            self._judge(reads[self._judged])
            self._judged += 1

    def _judge(self, read: LocalRead) -> None:
        self.exercised += 1
        if read.revision > self.reference.revision:
            raise self.violated(read.client, f"read {read.key} at revision {read.revision}, which nobody has applied")
        now = None
        for change in self.reference.changes_below(read.key, 0, read.revision):
            if change.key == read.key:
                now = change.now
        value = None if now is None else now.value
        if value != read.value:
            raise self.violated(
                read.client, f"read {read.value!r} in {read.key} at {read.revision}, where {value!r} was"
            )
        at = bisect_right(self.agreed, read.at - read.age - self._slack() - 1, key=lambda one: one.at)
        known = self.agreed[at - 1].revision if at else 0
        if read.revision < known:
            words = (
                f"read {read.key} at revision {read.revision}, {read.age / SECOND:.3f} s old, when {known} was older"
            )
            raise self.violated(read.client, words)

    def _slack(self) -> int:
        """An agent that is no server takes every word of its server to have been on its way for half a round trip; one that
        a lossy or slowed stream held up is taken to be newer than it is."""
        return 0 if self.calm_for() > CALM_BOUND else ELECTION_CEILING


class LeasesLastAndEnd(ClientInvariant):
    """A lease that is kept alive in time does not end; one that nobody keeps ends not much later than its time."""

    name = "leases last and end"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._judged = 0

    def check(self) -> None:
        if not self.is_needed:
            return
        while self._judged < len(self.agreed):
            one = self.agreed[self._judged]
            body = decode_command(one.entry.data).body if one.entry.data else None
            if isinstance(body, LeasesEnded):
                for lease in body.leases:
                    self._ended(lease, one.at)
            self._judged += 1
        self._overdue()

    def _ended(self, number: int, at: int) -> None:
        lease = self.told.leases.get(number)
        if lease is None:
            return
        self.exercised += 1
        if at < lease.kept + lease.ttl:
            left = (lease.kept + lease.ttl - at) / SECOND
            raise self.violated(lease.client, f"lease {number} ended {left:.3f} s before its time")

    def _overdue(self) -> None:
        if self.calm_for() < LEASE_BOUND:
            return
        now, since = self.world.now, self.world.now - self.calm_for()
        for number, lease in self.told.leases.items():
            # A new leader gives every lease its full time again, and the last fault may have made one.
            due = max(lease.tried, since) + lease.ttl + LEASE_BOUND
            if lease.is_given_up and now > due and number in self.reference.leases:
                raise self.violated(lease.client, f"lease {number} lives, {(now - due) / SECOND:.0f} s overdue")


class TokensFence(ClientInvariant):
    """Tokens of one lock only grow; who was told that it holds a lock did; and what the lock guards is never written with a
    token older than one that was given out before."""

    name = "tokens fence"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._granted = 0
        self._written = 0

    def check(self) -> None:
        if not self.is_needed or not self.reference.is_exact:
            return
        while self._granted < len(self.told.grants):
            self._judge_grant(self.told.grants[self._granted])
            self._granted += 1
        while self._written < len(self.told.fenced):
            self._judge_write(self.told.fenced[self._written])
            self._written += 1

    def _judge_grant(self, grant: Grant) -> None:
        self.exercised += 1
        made = [one for one in self.reference.changes_below(grant.key, 0, grant.revision) if one.now is not None]
        tokens = [one.now.created for one in made if one.now is not None]
        if not tokens or tokens[-1] != grant.token or grant.token <= max(tokens[:-1], default=0):
            raise self.violated(grant.client, f"was given token {grant.token} of {grant.key}; there were {tokens[-5:]}")

    def _judge_write(self, write: FencedWrite) -> None:
        self.exercised += 1
        holder: KeyValue | None = None
        for change in self.reference.changes_below(write.lock, 0, write.revision):
            if change.key == write.lock:
                holder = change.now
        if holder is None or holder.created != write.token:
            words = "nobody" if holder is None else f"{holder.value.decode()} with token {holder.created}"
            raise self.violated(write.client, f"wrote with token {write.token} of {write.lock}, held by {words}")

    def conclude(self) -> None:
        if not self.is_needed or not self.reference.is_exact:
            return
        highest: dict[str, int] = {}
        for change in self.reference.changes_below(PREFIX, 0, self.reference.revision):
            head, slash, name = change.key.rpartition("/")
            if change.now is None or not slash or not name.startswith("guarded"):
                continue
            token = int(change.now.value.partition(b"/")[0])
            if token < highest.get(change.key, 0):
                words = f"{change.key} was written with token {token} after {highest[change.key]}"
                raise self.violated(head, words)
            highest[change.key] = token


STORE: tuple[type[ClientInvariant], ...] = (
    Linearizable,
    ServersAgreeInTheEnd,
    WatchersMissNothing,
    LocalReadsAreHonest,
    LeasesLastAndEnd,
    TokensFence,
)
