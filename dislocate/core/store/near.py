"""Near: what an agent that is no server answers from what it holds itself.

It follows `system/` and the prefixes that somebody here reads (`following`), one server at a time, and keeps them on disk, so
that configuration is there, with its age, when no server is, and right after a restart.  What it does not hold is asked for.
"""

from collections.abc import Callable, Sequence
from typing import Any

from dislocate.core.boundary.settings import Recovered
from dislocate.core.boundary.store import Consistency, KeyChange, KeysRead, KeyValue, ReadKeys
from dislocate.core.consensus.messages import GroupId
from dislocate.core.identity import NodeId, Path
from dislocate.core.outbox import Outbox, Timer
from dislocate.core.store.following import Followed
from dislocate.core.store.messages import FollowedChanges, FollowedState
from dislocate.core.store.serverlinks import ServerLinks
from dislocate.core.units import SECOND

TICK_PERIOD = 1 * SECOND


class FollowTick(Timer, frozen=True):
    """A follower's second."""


class Near:
    """The prefixes that one agent holds."""

    def __init__(self, out: Outbox, links: ServerLinks, recovered: Recovered, rtt: Callable[[Path], int]) -> None:
        self._out = out
        self._links = links
        self._recovered: Recovered | None = recovered
        self._rtt = rtt  # to a server, nanoseconds; 0: not known
        self._followed = Followed()
        self._runs = False
        self.told: Callable[[Sequence[KeyChange]], None] = lambda _changes: None  # empty: anything may have changed
        self.leader: Path | None = None  # of the store, as the server that is followed knows
        self._leaderless: tuple[Path, int] | None = None  # who says that nobody leads, and since when

    def timers(self) -> dict[type, Callable[[Any], None]]:
        return {FollowTick: self._tick}

    def start(self) -> None:
        recovered, self._recovered = self._recovered, None
        if recovered is not None:
            self._followed = Followed(recovered.records, self._out.now, recovered.unix_ns)

    @property
    def prefixes(self) -> tuple[str, ...]:
        """What is held, whole."""
        return self._followed.prefixes

    @property
    def newest(self) -> tuple[int, int]:
        """(revision, instant at which it was current) of what is known best."""
        return self._followed.newest

    def leaderless(self, at_least: int) -> Path | None:
        """The server that has said for `at_least` nanoseconds that nobody leads; None: nobody said so, or not for so long."""
        if self._leaderless is None:
            return None
        server, since = self._leaderless
        return server if self._out.now - since >= at_least else None

    def _heard_of(self, server: Path, leader: Path | None) -> None:
        self.leader = leader
        if leader is not None:
            self._leaderless = None
        else:
            since = self._out.now if self._leaderless is None else self._leaderless[1]
            self._leaderless = (server, since)

    # ---- reads

    def read(self, request: ReadKeys) -> KeysRead | None:
        """What is held, if it is fresh enough for `request`; None: ask a server."""
        now = self._out.now
        self._followed.want(request.key, now)
        found = self._followed.read(request.key, request.prefix, now, request.limit, request.after)
        if found is None or (request.consistency is Consistency.BOUNDED and now - found.as_of > request.max_age):
            return None
        return KeysRead(found.keys, found.revision, now - found.as_of, found.more)

    def held(self, prefix: str) -> tuple[KeyValue, ...]:
        """What is held below `prefix`, in order, however old it is."""
        found = self._followed.read(prefix, True, self._out.now)
        return () if found is None else found.keys

    # ---- with the servers

    def follow(self, group: GroupId, servers: Sequence[Path]) -> None:
        """This agent belongs to `group`; `servers` are linked, nearest first."""
        self._followed.joined(group, self._out.now)
        self._followed.servers_are(servers, self._out.now)
        self._carry_out()
        if not self._runs:
            self._runs = True
            self._out.arm(self._out.now + TICK_PERIOD, FollowTick())

    def stop(self) -> None:
        """This agent is a server now, and has it all."""
        self._runs = False
        self._leaderless = None

    def on_state(self, sender: NodeId, _source: object, body: FollowedState) -> None:
        self._followed.state(sender.path, body, self._out.now, self._rtt(sender.path) // 2)
        self._carry_out()

    def on_changes(self, sender: NodeId, _source: object, body: FollowedChanges) -> None:
        self._followed.changes(sender.path, body, self._out.now, self._rtt(sender.path) // 2)
        self._heard_of(sender.path, body.leader)
        self._carry_out(body.changes)

    def link_lost(self, server: Path) -> None:
        self._followed.lost(server, self._out.now)
        self.leader = None
        self._carry_out()

    def _tick(self, _timer: FollowTick) -> None:
        if not self._runs:
            return
        self._out.arm(self._out.now + TICK_PERIOD, FollowTick())
        self._followed.tick(self._out.now)
        self._carry_out()
        records = self._followed.records(self._out.now, self._out.unix())
        if records:
            self._out.store(records, sync=False)

    def _carry_out(self, changes: Sequence[KeyChange] = ()) -> None:
        messages, changed = self._followed.take()
        for server, message in messages:
            node = self._links.node(server)
            if node is not None:
                self._out.send_message(node, message)
        if changed:
            self.told(changes)
