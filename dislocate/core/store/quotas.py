"""Quotas: how much may be in the store, altogether and below a prefix.

A key `system/quota/PREFIX` whose value is a number of bytes bounds all keys that begin with PREFIX (names and values).  What
makes nothing larger is always allowed, so a full store can be emptied, and a quota may be set below what is there.  The
quotas of before a transaction bind it, not those that it sets.

Invariant: `used` fits the keys.  All of it follows from the keys, so it is in no record of its own.
"""

from collections.abc import Mapping

from dislocate.core.boundary.requests import Refused
from dislocate.core.boundary.store import KeyValue
from dislocate.core.store.keys import Keys, name_size, size_of
from dislocate.core.tunables import QUOTAS, STORE_BYTES, STORE_KEYS

QUOTA_KEYS = "system/quota/"

Touched = Mapping[str, KeyValue | None]


def quota_bytes(value: bytes) -> int | None:
    """The number in a quota's value; None when it is none."""
    return int(value) if value.isdigit() and len(value) <= 15 else None


class Quotas:
    """The limits, and what is used of them."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._limits: dict[str, int] = {}
        self._used: dict[str, int] = {}
        self._lengths: tuple[int, ...] = ()  # of the prefixes
        for kv in keys.below(QUOTA_KEYS):
            self._set(kv.key, kv)

    def refusal(self, touched: Touched) -> Refused | None:
        """Why the store cannot take these changes."""
        keys = self._keys
        growth = more = 0
        below: dict[str, int] = {}
        for name, now in touched.items():
            if name.startswith(QUOTA_KEYS) and (wrong := self._wrong_quota(name, now)) is not None:
                return wrong
            old = keys.get(name)
            larger = _growth(name, old, now)
            growth += larger
            more += (now is not None) - (old is not None)
            if self._lengths:
                for prefix in self._covering(name):
                    below[prefix] = below.get(prefix, 0) + larger
        if growth > 0 and keys.size + growth > STORE_BYTES:
            reason = f"the store is full ({STORE_BYTES >> 20} MiB): delete keys that are not needed any more"
            return Refused("storage", "store", reason)
        if more > 0 and len(keys) + more > STORE_KEYS:
            return Refused(
                "storage", "store", f"the store has {STORE_KEYS} keys: delete some that are not needed any more"
            )
        for prefix, larger in below.items():
            if larger > 0 and self._used[prefix] + larger > self._limits[prefix]:
                whole = f"{prefix!r}" if prefix else "the whole store, by a quota without a prefix,"
                reason = f"{whole} may have {self._limits[prefix]} bytes: delete keys, or raise {QUOTA_KEYS}{prefix}"
                return Refused("storage", prefix, reason)
        return None

    def count(self, name: str, old: KeyValue | None, now: KeyValue | None) -> None:
        """A key changed, and the store has it already as it is now."""
        if self._lengths:
            larger = _growth(name, old, now)
            for prefix in self._covering(name):
                self._used[prefix] += larger
        if name.startswith(QUOTA_KEYS):
            self._set(name, now)

    def _covering(self, name: str) -> list[str]:
        """The prefixes with a quota that `name` begins with."""
        limits = self._limits
        return [name[:length] for length in self._lengths if length <= len(name) and name[:length] in limits]

    def _set(self, name: str, now: KeyValue | None) -> None:
        prefix = name[len(QUOTA_KEYS) :]
        limit = quota_bytes(now.value) if now is not None else None
        if limit is None:
            self._limits.pop(prefix, None)
            self._used.pop(prefix, None)
        else:
            if prefix not in self._limits:
                self._used[prefix] = sum(map(size_of, self._keys.below(prefix)))
            self._limits[prefix] = limit
        self._lengths = tuple(sorted({len(known) for known in self._limits}))

    def _wrong_quota(self, name: str, now: KeyValue | None) -> Refused | None:
        if now is None:
            return None
        if quota_bytes(now.value) is None:
            return Refused(
                "invalid", name, "the value of a quota is a number of bytes in decimal digits, such as 1000000"
            )
        if name not in self._keys and len(self._limits) >= QUOTAS:
            return Refused("storage", name, f"there are {QUOTAS} quotas: delete one that is not needed any more")
        return None


def _growth(name: str, old: KeyValue | None, now: KeyValue | None) -> int:
    """Bytes that a key counts for now, less those that it counted for."""
    if old is None:
        return 0 if now is None else name_size(name) + len(now.value)
    return len(now.value) - len(old.value) if now is not None else -size_of(old)
