"""Followers: how a server, leader or not, keeps other agents' prefixes current from what it has applied.

Invariant: what a follower of a prefix is sent are, in order, either everything as of one revision or all changes since the
revision it was sent last; nothing is left out and no revision is cut in two.  Who asks with a revision that this server has
not applied yet waits until it has.  Nobody costs more than a place in what the server has anyway: there is no queue of
changes (they come from its history, and who is further behind gets everything), a state is sent in parts at a pace, and whose
link ended or is full is forgotten until it asks again.

Does not know links: the owner carries messages and says who is lost.
"""

from collections import deque
from collections.abc import Iterable, Iterator

from dislocate.core.boundary.store import Compacted, KeyChange, KeyValue
from dislocate.core.identity import Path
from dislocate.core.store.changes import cost
from dislocate.core.store.following import PREFIXES_HELD
from dislocate.core.store.keys import size_of
from dislocate.core.store.machine import StoreMachine
from dislocate.core.store.messages import Follow, FollowedChanges, FollowedState, Unfollow
from dislocate.core.store.watching import Watchers

PART_BYTES = 48 * 1024  # of keys and values in one message; one that is larger goes alone
_KEY_ROOM = 64  # bytes of numbers and heads that a key costs besides
PARTS_AT_ONCE = 16  # parts of a state in one round and follower: the link's queue is for others too

Message = FollowedState | FollowedChanges


class _Stream:
    """One prefix, for one follower."""

    __slots__ = ("follower", "is_first", "parts", "parts_revision", "prefix", "sent", "taken_at")

    def __init__(self, follower: Path, prefix: str, sent: int) -> None:
        self.follower = follower
        self.prefix = prefix
        self.sent = sent  # the revision it has, once all that was sent arrived
        self.parts: deque[tuple[KeyValue, ...]] | None = None  # of a state that is being sent
        self.parts_revision = 0
        self.taken_at = 0  # the instant of that state
        self.is_first = sent == 0  # what comes next begins a state


class Followers:
    """Who follows what, of one server."""

    def __init__(self, store: StoreMachine) -> None:
        self.store = store  # the owner replaces it with the one that a snapshot made
        self._streams: dict[tuple[Path, str], _Stream] = {}
        self._of: dict[Path, dict[str, None]] = {}  # prefixes, by follower
        self._watchers: Watchers[tuple[Path, str]] = Watchers()
        self._due: dict[tuple[Path, str], None] = {}

    def __len__(self) -> int:
        return len(self._of)

    @property
    def has_more(self) -> bool:
        """Parts wait: call `take` again soon, when the links had a moment."""
        return bool(self._due)

    # ---- inputs

    def follow(self, follower: Path, body: Follow) -> bool:
        """`follower` belongs to this group (the owner checked) and asks.  False: it follows too much already."""
        prefixes = self._of.setdefault(follower, {})
        if body.prefix not in prefixes and len(prefixes) >= PREFIXES_HELD:
            return False
        prefixes[body.prefix] = None
        key = (follower, body.prefix)
        self._streams[key] = _Stream(follower, body.prefix, body.revision)
        self._watchers.add(key, body.prefix, True)
        self._due[key] = None
        return True

    def unfollow(self, follower: Path, body: Unfollow) -> None:
        self._forget(follower, body.prefix)

    def lost(self, follower: Path) -> None:
        """The link to it ended, or is too slow to take what is sent: it asks again, with what it has."""
        for prefix in tuple(self._of.get(follower, ())):
            self._forget(follower, prefix)

    def changed(self, changes: Iterable[KeyChange]) -> None:
        """The store applied these."""
        for key in self._watchers.concerned(changes):
            self._due[key] = None

    def store_replaced(self, store: StoreMachine) -> None:
        """A snapshot was installed, or changes were forgotten untold."""
        self.store = store
        self._due.update(dict.fromkeys(self._streams))

    # ---- outputs

    def take(self, now: int, age: int) -> tuple[tuple[Path, Message], ...]:
        """After each batch: what followers are to be told; `age` is how far behind the leader this server may be."""
        due, self._due = self._due, {}
        return self._tell(due, due, now, age)

    def tick(self, now: int, age: int) -> tuple[tuple[Path, Message], ...]:
        """Each second: everybody, also that nothing changed."""
        due, self._due = self._due, {}
        return self._tell(self._streams, due, now, age)

    def _tell(
        self, keys: Iterable[tuple[Path, str]], due: dict[tuple[Path, str], None], now: int, age: int
    ) -> tuple[tuple[Path, Message], ...]:
        """Whatever is not `due` has everything: nothing below its prefix changed since it was told last."""
        found: list[tuple[Path, Message]] = []
        told: dict[tuple[str, int], tuple[FollowedChanges, ...] | None] = {}  # many follow the same from the same place
        parts_sent: dict[Path, int] = {}
        for key in tuple(keys):
            stream = self._streams.get(key)
            if stream is None or stream.sent > self.store.revision:
                continue
            if stream.parts is None and not stream.is_first:
                since = (stream.prefix, stream.sent)
                if since not in told:
                    is_quiet = key not in due
                    told[since] = self._quiet(*since, age) if is_quiet else self._changes(*since, age)
                changes = told[since]
                if changes is not None:
                    found += [(stream.follower, one) for one in changes]
                    stream.sent = self.store.revision
                    continue
            if stream.parts is None:
                self._begin_state(stream, now)
            room = PARTS_AT_ONCE - parts_sent.get(stream.follower, 0)
            states = list(self._next_parts(stream, room, now, age))
            parts_sent[stream.follower] = parts_sent.get(stream.follower, 0) + len(states)
            found += [(stream.follower, one) for one in states]
            if stream.parts is not None or stream.sent < self.store.revision:
                self._due[key] = None
        return tuple(found)

    def _quiet(self, prefix: str, since: int, age: int) -> tuple[FollowedChanges, ...]:
        return (FollowedChanges(prefix, since, self.store.revision, (), age),)

    def _changes(self, prefix: str, since: int, age: int) -> tuple[FollowedChanges, ...] | None:
        """What happened after `since`, in messages of whole revisions; None when that is forgotten."""
        changes = self.store.changes_after(prefix, True, since)
        if isinstance(changes, Compacted):
            return None
        return tuple(cut_changes(prefix, since, self.store.revision, changes, age))

    def _begin_state(self, stream: _Stream, now: int) -> None:
        """Take what is below the prefix now: references, not copies."""
        stream.parts = deque(cut_keys(self.store.keys.below(stream.prefix)))
        stream.parts_revision = self.store.revision
        stream.taken_at = now
        stream.is_first = True

    def _next_parts(self, stream: _Stream, room: int, now: int, age: int) -> Iterator[FollowedState]:
        while room > 0 and stream.parts:
            keys = stream.parts.popleft()
            is_last = not stream.parts
            behind = age + now - stream.taken_at
            yield FollowedState(stream.prefix, stream.parts_revision, keys, stream.is_first, is_last, behind)
            stream.is_first = False
            room -= 1
        if not stream.parts:
            stream.parts = None
            stream.sent = stream.parts_revision

    def _forget(self, follower: Path, prefix: str) -> None:
        key = (follower, prefix)
        if self._streams.pop(key, None) is None:
            return
        self._watchers.remove(key)
        self._due.pop(key, None)
        del self._of[follower][prefix]
        if not self._of[follower]:
            del self._of[follower]


def cut_keys(keys: Iterable[KeyValue]) -> Iterator[tuple[KeyValue, ...]]:
    """Parts of at most `PART_BYTES`, at least one."""
    part: list[KeyValue] = []
    size = 0
    for kv in keys:
        length = size_of(kv) + _KEY_ROOM
        if part and size + length > PART_BYTES:
            yield tuple(part)
            part, size = [], 0
        part.append(kv)
        size += length
    yield tuple(part)


def cut_changes(
    prefix: str, since: int, revision: int, changes: tuple[KeyChange, ...], age: int
) -> Iterator[FollowedChanges]:
    """Messages of about `PART_BYTES` that each end with a revision; the last one reaches `revision`."""
    part: list[KeyChange] = []
    size = 0
    for change in changes:
        if size >= PART_BYTES and change.revision != part[-1].revision:
            yield FollowedChanges(prefix, since, part[-1].revision, tuple(part), age)
            since = part[-1].revision
            part, size = [], 0
        part.append(change)
        size += cost(change)
    yield FollowedChanges(prefix, since, revision, tuple(part), age)
