"""Leases: which live, and which keys go with them.

Invariant: a key is listed by the one lease that it names and by no other; a key names only leases that live.  This is the
part that is replicated: that a lease ends is an entry of the log, and when it should is its leader's business alone, so no
instant stands here.  Keys are told in their order, never in the order of coming: a recovered store has lost that.
"""

from collections.abc import Iterable

from msgspec import Struct

from dislocate.core.boundary.store import KeyValue
from dislocate.core.store.records import MASK, lease_fingerprint


class Lease(Struct):
    """A lease that lives."""

    ttl: int  # nanoseconds, as granted
    keys: dict[str, None]  # read it through `sorted`

    def ordered_keys(self) -> tuple[str, ...]:
        return tuple(sorted(self.keys))


class Leases:
    """All leases of a store, by id."""

    def __init__(self, ttls: Iterable[tuple[int, int]] = ()) -> None:
        self.digest = 0
        self.living: dict[int, Lease] = {}
        self.dirty: dict[int, None] = {}
        for lease, ttl in ttls:
            self.grant(lease, ttl)
        self.dirty.clear()

    def grant(self, lease: int, ttl: int) -> None:
        """A new lease; or, for one that lives, another ttl."""
        old = self.living.get(lease)
        if old is not None:
            self.digest = (self.digest - lease_fingerprint(lease, old.ttl)) & MASK
        self.living[lease] = Lease(ttl, old.keys if old is not None else {})
        self.digest = (self.digest + lease_fingerprint(lease, ttl)) & MASK
        self.dirty[lease] = None

    def end(self, lease: int) -> None:
        """Forget a lease that lives; its keys are the caller's business."""
        ended = self.living.pop(lease)
        self.digest = (self.digest - lease_fingerprint(lease, ended.ttl)) & MASK
        self.dirty[lease] = None

    def move(self, before: KeyValue | None, now: KeyValue | None) -> None:
        """A key changed from `before` to `now`: it leaves one lease and joins another, which must live."""
        left = before.lease if before is not None else 0
        joined = now.lease if now is not None else 0
        if left == joined:
            return
        if left and before is not None and (old := self.living.get(left)) is not None:
            old.keys.pop(before.key, None)
        if joined and now is not None:
            self.living[joined].keys[now.key] = None
