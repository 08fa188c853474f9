"""Held: one prefix of the store as an agent that is no server has it, and its durable form.

Invariant: what is read is what the store had below the prefix at `revision`, the whole of it; it was current at `as_of`, an
instant of this host's clock.  Records say the same after a restart, older by the time that passed (wall clock: both readings
are this host's); they are a convenience, written unsynced and seldom, and what cannot be read is let go.

    follow/p/PREFIX          of which group and revision it is, and when it was current
    follow/k/LENGTH/KEY      a key; LENGTH (4 hex digits) of its characters are the prefix
"""

from collections.abc import Iterable, Iterator
from itertools import islice

import msgspec
from msgspec import Struct

from dislocate.core.boundary.store import Compacted, KeyChange, KeyValue
from dislocate.core.boundary.values import StoredRecord
from dislocate.core.consensus.messages import GroupId
from dislocate.core.store.changes import ChangeHistory
from dislocate.core.store.keys import Keys, size_of
from dislocate.core.tunables import READ_LIMIT, TRANSACTION_ANSWER
from dislocate.core.units import SECOND

HEADS = "follow/p/"
KEYS = "follow/k/"
HEARD_PERIOD = 60 * SECOND  # the disk is told that a prefix is still current: the error of its age after a restart
CHANGES_HELD = 1_000  # for local watchers; one that is further behind reads anew


class Head(Struct, frozen=True, array_like=True):
    """What the keys of a prefix belong to."""

    group: GroupId
    revision: int
    unix: int  # wall clock in nanoseconds at which it was current; 0: not known


class LocalRead(Struct, frozen=True):
    """What was read here."""

    keys: tuple[KeyValue, ...]
    more: bool
    revision: int
    as_of: int


class HeldPrefix:
    """One prefix."""

    def __init__(self, prefix: str, now: int) -> None:
        self.prefix = prefix
        self.group: GroupId | None = None  # None: nothing is held yet
        self.keys = Keys()
        self.revision = 0
        self.as_of = 0
        self.read_at = now
        self._history = ChangeHistory(floor=0, limit=CHANGES_HELD)
        self._is_saved = True
        self._saved_at = now

    @property
    def is_whole(self) -> bool:
        return self.group is not None

    @property
    def size(self) -> int:
        """Bytes of keys and values."""
        return self.keys.size

    def read(self, key: str, prefix: bool, limit: int = READ_LIMIT, after: str = "") -> LocalRead:
        """A key, or up to `limit` that begin with it and come after `after`: only below this prefix."""
        if not prefix:
            kv = self.keys.get(key)
            return LocalRead(() if kv is None else (kv,), False, self.revision, self.as_of)
        found: list[KeyValue] = []
        size = 0
        for kv in islice(self.keys.below(key, after), limit + 1):
            size += size_of(kv)
            if len(found) == limit or (found and size > TRANSACTION_ANSWER):
                return LocalRead(tuple(found), True, self.revision, self.as_of)
            found.append(kv)
        return LocalRead(tuple(found), False, self.revision, self.as_of)

    def changes_after(self, key: str, prefix: bool, revision: int) -> tuple[KeyChange, ...] | Compacted:
        return self._history.after(key, prefix, revision)

    # ---- what a server says

    def replace(self, group: GroupId, keys: Iterable[KeyValue], revision: int) -> None:
        """Everything below the prefix, as of `revision`."""
        before, after = self.keys, Keys(keys)
        gone = [name for name in before.copied()[0] if name not in after]
        new = [name for name in after.copied()[0] if after.get(name) != before.get(name)]
        after.dirty.update(dict.fromkeys([*before.dirty, *gone, *new]))
        self.keys = after
        self.group = group
        self.revision = revision
        self._history = ChangeHistory(floor=revision, limit=CHANGES_HELD)
        self._is_saved = False

    def apply(self, changes: tuple[KeyChange, ...], revision: int) -> None:
        """What changed up to `revision`."""
        for change in changes:
            if change.now is not None:
                self.keys.put(change.now)
            elif change.key in self.keys:
                self.keys.remove(change.key)
        if changes:
            self._history.add(changes)
            self._is_saved = False
        self.revision = revision

    # ---- the durable form

    def records(self, now: int, unix: int) -> Iterator[StoredRecord]:
        """What the disk does not have yet; `unix` is the wall clock at `now`."""
        if self.group is None or (self._is_saved and now - self._saved_at < HEARD_PERIOD):
            return
        for name in self.keys.dirty:
            kv = self.keys.get(name)
            yield StoredRecord(self._key(name), None if kv is None else msgspec.msgpack.encode(kv))
        current = max(1, unix - (now - self.as_of)) if unix else 0
        yield StoredRecord(HEADS + self.prefix, msgspec.msgpack.encode(Head(self.group, self.revision, current)))
        self.keys.dirty.clear()
        self._is_saved = True
        self._saved_at = now

    def farewell(self) -> Iterator[StoredRecord]:
        """What removes it from the disk."""
        yield StoredRecord(HEADS + self.prefix, None)
        for name in dict.fromkeys([*self.keys.copied()[0], *self.keys.dirty]):
            yield StoredRecord(self._key(name), None)

    def _key(self, name: str) -> str:
        return f"{KEYS}{len(self.prefix):04x}/{name}"

    def restore(self, head: Head, keys: list[KeyValue], now: int, unix: int) -> None:
        """As the disk has it, at the start: `unix` is the wall clock at `now`."""
        self.replace(head.group, keys, head.revision)
        self.keys.dirty.clear()
        self._is_saved = True
        self.as_of = now - max(0, unix - head.unix) if head.unix and unix else NEVER_CURRENT


NEVER_CURRENT = -(1 << 62)  # nobody knows how old it is


def recover(stored: Iterable[StoredRecord], now: int, unix: int) -> tuple[list[HeldPrefix], list[StoredRecord]]:
    """The prefixes on disk, and what removes from it whatever belongs to none."""
    heads: dict[str, Head] = {}
    keys: dict[str, list[tuple[str, KeyValue]]] = {}
    useless: list[StoredRecord] = []
    for record in stored:
        if record.value is None or not record.key.startswith((HEADS, KEYS)):
            continue
        try:
            if record.key.startswith(HEADS):
                heads[record.key[len(HEADS) :]] = msgspec.msgpack.decode(record.value, type=Head)
            else:
                length, _, name = record.key[len(KEYS) :].partition("/")
                kv = msgspec.msgpack.decode(record.value, type=KeyValue)
                keys.setdefault(name[: int(length, 16)], []).append((record.key, kv))
        except (msgspec.MsgspecError, UnicodeDecodeError, ValueError):
            useless.append(StoredRecord(record.key, None))
    held = []
    for prefix, head in heads.items():
        one = HeldPrefix(prefix, now)
        one.restore(head, [kv for _, kv in keys.pop(prefix, [])], now, unix)
        held.append(one)
    useless += [StoredRecord(key, None) for orphans in keys.values() for key, _ in orphans]
    return held, useless
