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
        self._entries: list[dict[str, int]] = [{} for _ in range(BUCKETS)]  # by bucket

    def __len__(self) -> int:
        return sum(map(len, self._entries))

    def get(self, key: str) -> int | None:
        return self._entries[bucket_of(key)].get(key)

    def put(self, key: str, value: int) -> None:
        """Enter `key` with the fingerprint of its present state."""
        bucket = bucket_of(key)
        self._add(bucket, value - self._entries[bucket].get(key, 0))
        self._entries[bucket][key] = value

    def remove(self, key: str) -> None:
        bucket = bucket_of(key)
        self._add(bucket, -self._entries[bucket].pop(key, 0))

    def entries(self, bucket: int) -> list[tuple[str, int]]:
        """The entries of one bucket, sorted by key."""
        return sorted(self._entries[bucket].items())

    def _add(self, bucket: int, value: int) -> None:
        self.total = (self.total + value) & _MASK
        self.buckets[bucket] = (self.buckets[bucket] + value) & _MASK


def bucket_of(key: str) -> int:
    return fingerprint(key) % BUCKETS
