"""Consistent hashing: the same key goes to the same member, for every caller, while it lives and is not overfull.

A ring of points, `POINTS` for a member of mean weight; a member that comes or goes moves only the keys of its own arcs.
With bounded loads (Mirrokni et al., arXiv 1608.01350): who has more in flight than `BOUND` times its fair part passes a
key on to the next member on the ring.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from math import ceil
from struct import unpack

POINTS = 64  # of a member of mean weight: parts differ by some 12 %
MOST_POINTS = 256
BOUND = 1.25
SPAN = 2.0**64


def digest(text: str) -> int:
    """64 bits that are the same on every machine."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


def points(member: str, count: int) -> list[int]:
    """The first `count` places of a member on the ring."""
    found: list[int] = []
    for block in range((count + 7) // 8):
        found += unpack(">8Q", blake2b(f"{member}#{block}".encode()).digest())
    return found[:count]


class Ring:
    """Members by name and weight > 0; they are told by their position."""

    __slots__ = ("_at", "_owners", "_shares", "size")

    def __init__(self, members: Sequence[tuple[str, float]]) -> None:
        self.size = len(members)
        total = sum(weight for _, weight in members)
        self._shares = tuple(weight / total for _, weight in members)
        placed = sorted(
            (point, owner)
            for owner, (name, _) in enumerate(members)
            for point in points(name, min(MOST_POINTS, max(1, round(POINTS * self._shares[owner] * self.size))))
        )
        self._at = [point for point, _ in placed]
        self._owners = [owner for _, owner in placed]

    def first(self, number: int) -> int:
        """The first to be asked."""
        at = bisect_left(self._at, number)
        return self._owners[at if at < len(self._owners) else 0]

    def walk(self, number: int) -> Iterator[int]:
        """Each member once, in the order in which it is asked to take the key of this digest."""
        owners = self._owners
        start = bisect_left(self._at, number)
        seen: dict[int, None] = {}
        for step in range(len(owners)):
            owner = owners[(start + step) % len(owners)]
            if owner not in seen:
                seen[owner] = None
                yield owner
                if len(seen) == self.size:
                    return

    def bound(self, member: int, in_flight: int) -> int:
        """Calls that `member` may have in flight, where all members together have `in_flight` with this one."""
        return ceil(BOUND * in_flight * self._shares[member])
