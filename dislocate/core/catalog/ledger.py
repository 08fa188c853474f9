"""The ledger: a fingerprint of everything that living members said of themselves, so that two views compare in 64 bits.

Entries are `m/dc/name` (a living member: boot and incarnation) and `c/dc/name` (the catalog of a living owner: boot and
manifest version).  Sums of fingerprints modulo 2^64 do not depend on order, and adding or removing one entry is O(1).
The dead have no entry: whoever still lists one of them is told when the buckets are compared.
"""

from hashlib import blake2b

from dislocate.core.identity import Path

BUCKETS = 64
_MASK = (1 << 64) - 1


def fingerprint(text: str) -> int:
    """64 bits of `text`, equal on every machine."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


class Ledger:
    """Keys with fingerprints, their sum, and the sums of 64 buckets.  A key is a kind ('m', 'c', 'd') and a path."""

    def __init__(self) -> None:
        self.total = 0
        self.buckets = [0] * BUCKETS
        # By bucket and kind; keys are put together when they are told, not kept: a fleet of N keeps N * N of them.
        self._entries: list[dict[str, dict[Path, int]]] = [{} for _ in range(BUCKETS)]

    def __len__(self) -> int:
        return sum(len(paths) for kinds in self._entries for paths in kinds.values())

    def get(self, key: str) -> int | None:
        kind, _, path = key.partition("/")
        return self._entries[bucket_of(key)].get(kind, {}).get(path)

    def put(self, kind: str, path: Path, value: int) -> None:
        """Enter a key with the fingerprint of its present state."""
        bucket = bucket_of(f"{kind}/{path}")
        paths = self._entries[bucket].setdefault(kind, {})
        self._add(bucket, value - paths.get(path, 0))
        paths[path] = value

    def remove(self, kind: str, path: Path) -> None:
        bucket = bucket_of(f"{kind}/{path}")
        self._add(bucket, -self._entries[bucket].get(kind, {}).pop(path, 0))

    def entries(self, bucket: int) -> list[tuple[str, int]]:
        """The entries of one bucket, sorted by key."""
        kinds = self._entries[bucket].items()
        return sorted((f"{kind}/{path}", value) for kind, paths in kinds for path, value in paths.items())

    def _add(self, bucket: int, value: int) -> None:
        self.total = (self.total + value) & _MASK
        self.buckets[bucket] = (self.buckets[bucket] + value) & _MASK


def bucket_of(key: str) -> int:
    return fingerprint(key) % BUCKETS
