"""Following: how an agent that is no server keeps the prefixes that it uses, from one server near it.

    want      somebody here reads below a prefix: from now on it is followed, until nobody has read it for ten minutes
    ask       `Follow` with the revision that is held (0: nothing); the server answers what changed since, or all of it
    apply     changes whose `since` is not after the revision held; else there is a gap: ask anew
    move on   when the server is lost or silent, to the next one, with the revision held; back when a nearer one has been
              there for a while

Invariant: a prefix never goes back in its revision, shows all of one revision and nothing between two, and its age is never
told smaller than it is: the sender's age and the way here are added, and clocks of two hosts never compared.  `system/` and
`policy/` are always followed.  What does not fit (64 prefixes, 16 MiB) is not followed, and such reads go to a server.

Does not know links, members or the disk: the owner passes the servers in, nearest first, and carries messages and records.
"""

from collections.abc import Iterable, Sequence

from dislocate.core.boundary.store import Compacted, KeyChange, KeyValue
from dislocate.core.boundary.values import StoredRecord
from dislocate.core.consensus.messages import GroupId
from dislocate.core.identity import Path
from dislocate.core.store.held import HeldPrefix, LocalRead, recover
from dislocate.core.store.keys import size_of
from dislocate.core.store.messages import Follow, FollowedChanges, FollowedState, Unfollow
from dislocate.core.tunables import READ_LIMIT
from dislocate.core.units import MINUTE, SECOND

SYSTEM = "system/"
ALWAYS = (SYSTEM, "policy/")  # whoever calls a service needs its policy at once
PREFIXES_HELD = 64  # each costs its server a look-up a change and a message a second
BYTES_HELD = 16 * 1024 * 1024  # of keys and values: an agent is to stay small; a quarter of the largest store
UNUSED = 10 * MINUTE  # nobody read it: let it go
TOO_LARGE = 10 * MINUTE  # a prefix that did not fit is not tried again for so long
SILENCE = 5 * SECOND  # a server says something about each prefix every second
ASK_AGAIN = 1 * SECOND  # messages from before a gap was noticed may still be on the way
NEARER_FOR = 60 * SECOND  # a nearer server has been there for so long: go (back) to it


class _Subscription:
    """A prefix, and where this agent stands with its server about it."""

    __slots__ = ("asked_at", "heard_at", "held", "parts", "parts_revision", "parts_size")

    def __init__(self, held: HeldPrefix, now: int) -> None:
        self.held = held
        self.heard_at = now
        self.asked_at: int | None = None  # None: changes come in order
        self.parts: list[KeyValue] | None = None  # of a state that is not whole yet
        self.parts_revision = 0
        self.parts_size = 0


class Followed:
    """What one agent holds.  `unix` is the wall clock at `now`."""

    def __init__(self, recovered: Iterable[StoredRecord] = (), now: int = 0, unix: int = 0) -> None:
        held, self._useless = recover(recovered, now, unix)
        self._by_prefix = {one.prefix: _Subscription(one, now) for one in held[:PREFIXES_HELD]}
        for prefix in ALWAYS:
            self._by_prefix.setdefault(prefix, _Subscription(HeldPrefix(prefix, now), now))
        self._group: GroupId | None = None
        self._servers: tuple[Path, ...] = ()
        self._server: Path | None = None
        self._silent: dict[Path, int] = {}  # servers that did not answer, and when
        self._nearer_since: int | None = None
        self._too_large: dict[str, int] = {}
        self._messages: list[tuple[Path, Follow | Unfollow]] = []
        self._changed: dict[str, None] = {}

    # ---- looking

    @property
    def prefixes(self) -> tuple[str, ...]:
        """What is held here, whole."""
        return tuple(prefix for prefix, one in self._by_prefix.items() if one.held.is_whole)

    @property
    def server(self) -> Path | None:
        """Whom this agent follows."""
        return self._server

    @property
    def size(self) -> int:
        """Bytes of keys and values."""
        return sum(one.held.size for one in self._by_prefix.values())

    @property
    def newest(self) -> tuple[int, int]:
        """(revision, as_of) of what is known best."""
        whole = [one.held for one in self._by_prefix.values() if one.held.is_whole]
        return max(((held.revision, held.as_of) for held in whole), default=(0, 0))

    def read(self, key: str, prefix: bool, now: int, limit: int = READ_LIMIT, after: str = "") -> LocalRead | None:
        """What is held of `key`, or of all that begins with it; None where that is not (all) held here."""
        one = self._covering(key)
        if one is None:
            return None
        one.held.read_at = now
        return one.held.read(key, prefix, limit, after) if one.held.is_whole else None

    def changes_after(
        self, key: str, prefix: bool, revision: int, now: int
    ) -> tuple[KeyChange, ...] | Compacted | None:
        """All changes after `revision` up to that of a `read` of the same; None where it is not held here."""
        one = self._covering(key)
        if one is None:
            return None
        one.held.read_at = now
        return one.held.changes_after(key, prefix, revision) if one.held.is_whole else None

    def _covering(self, key: str) -> _Subscription | None:
        """The prefix that has everything that begins with `key`."""
        for prefix, one in self._by_prefix.items():
            if key.startswith(prefix):
                return one
        return None

    # ---- inputs

    def want(self, key: str, now: int) -> bool:
        """Somebody reads `key`, or what begins with it: follow the directory that it is in.  False: there is no room."""
        one = self._covering(key)
        if one is not None:
            one.held.read_at = now
            return True
        prefix = followed_prefix(key)
        refused_at = self._too_large.get(prefix)
        if not prefix or (refused_at is not None and now - refused_at < TOO_LARGE):
            return False
        if len(self._by_prefix) >= PREFIXES_HELD or self.size >= BYTES_HELD:
            return False
        self._too_large.pop(prefix, None)
        one = self._by_prefix[prefix] = _Subscription(HeldPrefix(prefix, now), now)
        self._ask(one, now)
        return True

    def joined(self, group: GroupId, now: int) -> None:
        """This agent knows its group, or a higher epoch of it: what is held of another is read, and asked for anew."""
        if group != self._group:
            self._group = group
            self._follow_all(now)

    def servers_are(self, servers: Sequence[Path], now: int) -> None:
        """The group's servers that can be reached, nearest first."""
        self._servers = tuple(servers)
        if self._server not in self._servers:
            self._move(now)

    def lost(self, server: Path, now: int) -> None:
        """The link to `server` ended."""
        if server == self._server:
            self._silent[server] = now
            self._server = None
            self._move(now)

    def tick(self, now: int) -> None:
        """About each second."""
        for prefix, one in list(self._by_prefix.items()):
            if prefix not in ALWAYS and now - one.held.read_at >= UNUSED:
                self._let_go(prefix)
        self._too_large = {prefix: at for prefix, at in self._too_large.items() if now - at < TOO_LARGE}
        self._silent = {path: at for path, at in self._silent.items() if now - at < NEARER_FOR}
        if self._server is None or self._group is None:
            self._move(now)
        elif any(now - one.heard_at >= SILENCE for one in self._by_prefix.values()):
            self._silent[self._server] = now
            self._move(now)
        else:
            self._go_nearer(now)
            for one in self._by_prefix.values():
                if one.asked_at is not None and one.parts is None and now - one.asked_at >= SILENCE // 2:
                    self._ask(one, now)

    def state(self, sender: Path, body: FollowedState, now: int, transit: int = 0) -> None:
        """Part of everything below a prefix; `transit` is how long it may have been on its way."""
        one = self._from_server(sender, body.prefix)
        if one is None:
            return
        one.heard_at = now
        if body.first:
            one.parts, one.parts_revision, one.parts_size = [], body.revision, 0
        if one.parts is None or one.parts_revision != body.revision:
            self._gap(one, now)
            return
        one.parts += [kv for kv in body.keys if kv.key.startswith(body.prefix)]
        one.parts_size += sum(map(size_of, body.keys))
        if self._overflows(one):
            self._make_room(one, now)
        elif body.last:
            self._whole(one, now - body.age - transit)

    def _whole(self, one: _Subscription, as_of: int) -> None:
        held, parts, group = one.held, one.parts or [], self._group
        one.parts, one.asked_at = None, None
        if group is None or (held.group == group and one.parts_revision < held.revision):
            return
        held.as_of = as_of if held.group != group else max(held.as_of, as_of)
        held.replace(group, parts, one.parts_revision)
        self._changed[held.prefix] = None

    def changes(self, sender: Path, body: FollowedChanges, now: int, transit: int = 0) -> None:
        """What happened below a prefix, or that nothing did."""
        one = self._from_server(sender, body.prefix)
        if one is None:
            return
        held = one.held
        if held.group != self._group or body.since > held.revision:
            self._gap(one, now)
            return
        one.heard_at = now
        if body.revision < held.revision:
            return  # from before what is held; what comes next reaches further
        one.asked_at = None
        one.parts = None
        new = tuple(change for change in body.changes if change.revision > held.revision)
        held.apply(new, body.revision)
        held.as_of = max(held.as_of, now - body.age - transit)
        if new:
            self._changed[held.prefix] = None
            if self._overflows(one):
                self._make_room(one, now)

    # ---- outputs

    def take(self) -> tuple[tuple[tuple[Path, Follow | Unfollow], ...], tuple[str, ...]]:
        """(messages to send, prefixes that changed or were let go: those who watch here ask `changes_after`)."""
        messages, changed = tuple(self._messages), tuple(self._changed)
        self._messages, self._changed = [], {}
        return messages, changed

    def records(self, now: int, unix: int) -> tuple[StoredRecord, ...]:
        """What the disk is to have, unsynced, in one transaction; to be asked for about each second."""
        useless, self._useless = self._useless, []
        new = [record for one in self._by_prefix.values() for record in one.held.records(now, unix)]
        return (*useless, *new)

    # ---- with the server

    def _from_server(self, sender: Path, prefix: str) -> _Subscription | None:
        return self._by_prefix.get(prefix) if sender == self._server else None

    def _ask(self, one: _Subscription, now: int) -> None:
        one.parts = None
        one.asked_at = now
        if self._server is not None and self._group is not None:
            held = one.held
            revision = held.revision if held.group == self._group else 0
            self._messages.append((self._server, Follow(self._group, held.prefix, revision)))

    def _gap(self, one: _Subscription, now: int) -> None:
        if one.asked_at is None or now - one.asked_at >= ASK_AGAIN:
            self._ask(one, now)

    def _move(self, now: int) -> None:
        """Follow the nearest server that was not silent of late; if all were, the one whose silence is longest ago."""
        before = self._server
        willing = [path for path in self._servers if path not in self._silent]
        silent = sorted((at, path) for path, at in self._silent.items() if path in self._servers)
        self._server = willing[0] if willing else (silent[0][1] if silent else None)
        self._nearer_since = None
        if before is not None and before != self._server and before in self._servers:
            self._messages += [(before, Unfollow(prefix)) for prefix in self._by_prefix]
        self._follow_all(now)

    def _go_nearer(self, now: int) -> None:
        nearest = next((path for path in self._servers if path not in self._silent), self._server)
        if nearest == self._server:
            self._nearer_since = None
        elif self._nearer_since is None:
            self._nearer_since = now
        elif now - self._nearer_since >= NEARER_FOR:
            self._move(now)

    def _follow_all(self, now: int) -> None:
        for one in self._by_prefix.values():
            one.heard_at = now
            self._ask(one, now)

    # ---- room

    def _overflows(self, one: _Subscription) -> bool:
        grown = 0 if one.parts is None else one.parts_size - one.held.size
        return self.size + grown > BYTES_HELD

    def _make_room(self, one: _Subscription, now: int) -> None:
        """Let the prefix go that grew; where it is one that is always followed, the others, least recently read first."""
        if one.held.prefix not in ALWAYS:
            self._too_large[one.held.prefix] = now
            self._let_go(one.held.prefix)
            return
        others = sorted(
            (other.held.read_at, prefix) for prefix, other in self._by_prefix.items() if prefix not in ALWAYS
        )
        for _, prefix in others:
            self._let_go(prefix)
            if not self._overflows(one):
                return

    def _let_go(self, prefix: str) -> None:
        one = self._by_prefix.pop(prefix)
        self._useless += one.held.farewell()
        self._changed[prefix] = None
        if self._server is not None:
            self._messages.append((self._server, Unfollow(prefix)))


def followed_prefix(key: str) -> str:
    """What is followed for the sake of `key`: all up to its last '/', or, without any, what begins with it."""
    return key[: key.rfind("/") + 1] or key
