"""The ledger: a fingerprint of everything that living members said of themselves, so that two views compare in 64 bits.

Entries are `m/dc/name` (a living member: boot and incarnation) and `c/dc/name` (the catalog of a living owner: boot and
manifest version).  Sums of fingerprints modulo 2^64 do not depend on order, and adding or removing one entry is O(1).
The dead have no entry: whoever still lists one of them is told when the buckets are compared.
"""

from hashlib import blake2b

BUCKETS = 64
_MASK = (1 << 64) - 1


def fingerprint(text: str) -> int:
    """64 bits of `text`, equal on every machine."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


class Ledger:
    """Keys with fingerprints, their sum, and the sums of 64 buckets."""

    def __init__(self) -> None:
        self.total = 0
        self.buckets = [0] * BUCKETS
        self._entries: dict[str, int] = {}
        self._keys: list[dict[str, None]] = [{} for _ in range(BUCKETS)]

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str) -> int | None:
        return self._entries.get(key)

    def put(self, key: str, value: int) -> None:
        """Enter `key` with the fingerprint of its present state."""
        before = self._entries.get(key)
        if before == value:
            return
        bucket = bucket_of(key)
        self._add(bucket, value - (before or 0))
        self._entries[key] = value
        self._keys[bucket][key] = None

    def remove(self, key: str) -> None:
        value = self._entries.pop(key, None)
        if value is not None:
            bucket = bucket_of(key)
            self._add(bucket, -value)
            del self._keys[bucket][key]

    def entries(self, bucket: int) -> list[tuple[str, int]]:
        """The entries of one bucket, sorted by key."""
        return [(key, self._entries[key]) for key in sorted(self._keys[bucket])]

    def _add(self, bucket: int, value: int) -> None:
        self.total = (self.total + value) & _MASK
        self.buckets[bucket] = (self.buckets[bucket] + value) & _MASK


def bucket_of(key: str) -> int:
    return fingerprint(key) % BUCKETS
