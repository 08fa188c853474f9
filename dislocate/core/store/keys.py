"""Keys: what the store holds, by name and in order.

Invariants: `size`, `digest` and the order always fit the values; a range is read in the order of the names, which is the
order of their UTF-8 bytes.  The order is a list of short sorted lists, so that adding one name among a million moves some
hundred pointers and not all of them (the idea of Jenks' sortedcontainers).  Knows no revisions and no leases.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice

from dislocate.core.boundary.store import KeyValue
from dislocate.core.store.records import MASK, key_fingerprint

_BLOCK = 512  # names; a block is cut in two at twice that
_UNCOUNTED = 1_000  # keys whose change the digest has yet to learn: one changed often costs once


class OrderedNames:
    """Distinct names, sorted."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        ordered = sorted(names)
        self._blocks = [ordered[at : at + _BLOCK] for at in range(0, len(ordered), _BLOCK)] or [[]]
        self._firsts = ["", *(block[0] for block in self._blocks[1:])]  # nothing is below the first block

    def add(self, name: str) -> None:
        """`name` must not be here yet."""
        at = bisect_right(self._firsts, name) - 1
        block = self._blocks[at]
        insort(block, name)
        if len(block) > 2 * _BLOCK:
            upper = block[_BLOCK:]
            del block[_BLOCK:]
            self._blocks.insert(at + 1, upper)
            self._firsts.insert(at + 1, upper[0])

    def remove(self, name: str) -> None:
        """`name` must be here."""
        at = bisect_right(self._firsts, name) - 1
        block = self._blocks[at]
        del block[bisect_left(block, name)]
        if not block and len(self._blocks) > 1:
            del self._blocks[at]
            del self._firsts[at]
            self._firsts[0] = ""

    def at_least(self, start: str) -> Iterator[str]:
        """All names from `start` on."""
        at = bisect_right(self._firsts, start) - 1
        block = self._blocks[at]
        yield from islice(block, bisect_left(block, start), None)
        for later in islice(self._blocks, at + 1, None):
            yield from later

    def copied(self) -> list[str]:
        return list(chain.from_iterable(self._blocks))


class Keys:
    """All keys of a store."""

    def __init__(self, values: Iterable[KeyValue] = ()) -> None:
        self._values = {kv.key: kv for kv in values}
        self.get: Callable[[str], KeyValue | None] = self._values.get
        self._names = OrderedNames(self._values)
        self.size = sum(map(size_of, self._values.values()))  # bytes of names and values
        self._digest = sum(map(key_fingerprint, self._values.values())) & MASK
        self._uncounted: dict[str, KeyValue | None] = {}  # changed keys as `_digest` still has them
        self.dirty: dict[str, int | None] = {}  # names whose record on disk is another; its fingerprint if known

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, name: str) -> bool:
        return name in self._values

    @property
    def digest(self) -> int:
        """64 bits over all keys."""
        digest = self._digest
        for name, old in self._uncounted.items():
            digest -= key_fingerprint(old) if old is not None else 0
            now = self._values.get(name)
            if now is not None:
                found = key_fingerprint(now)
                digest += found
                if name in self.dirty:
                    self.dirty[name] = found  # the record has the same
        self._digest = digest & MASK
        self._uncounted.clear()
        return self._digest

    def put(self, kv: KeyValue) -> None:
        """Set a key."""
        name = kv.key
        old = self._values.get(name)
        self._changing(name, old)
        if old is None:
            self._names.add(name)
            self.size += name_size(name) + len(kv.value)
        else:
            self.size += len(kv.value) - len(old.value)
        self._values[name] = kv

    def remove(self, name: str) -> None:
        """Remove a key that is here."""
        old = self._values[name]
        self._names.remove(name)
        self.size -= size_of(old)
        self._changing(name, old)
        del self._values[name]

    def _changing(self, name: str, old: KeyValue | None) -> None:
        self.dirty[name] = None
        if name not in self._uncounted:
            if len(self._uncounted) >= _UNCOUNTED:
                _ = self.digest
            self._uncounted[name] = old

    def below(self, prefix: str, after: str = "") -> Iterator[KeyValue]:
        """The keys that begin with `prefix` and come after `after`, in order; the store must not change meanwhile."""
        values = self._values
        for name in self._names.at_least(max(prefix, f"{after}\0") if after else prefix):
            if not name.startswith(prefix):
                return
            yield values[name]

    def copied(self) -> tuple[list[str], dict[str, KeyValue]]:
        """All names in order, and what they stand for: a copy, which later changes leave alone."""
        return self._names.copied(), self._values.copy()


def size_of(kv: KeyValue) -> int:
    """Bytes that a key counts for."""
    return name_size(kv.key) + len(kv.value)


def name_size(name: str) -> int:
    return len(name) if name.isascii() else len(name.encode())
