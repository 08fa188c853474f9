"""Randomness as an argument: one named stream a concern, so that a draw more in one shifts no other.

`Streams(seed)["probe"]` is the same sequence on every machine and Python version: only `getrandbits` and `random` of the
Mersenne Twister are used (both are promised stable); shuffles and choices are our own.
"""

from collections.abc import Sequence
from hashlib import blake2b
from random import Random
from typing import TypeVar

T = TypeVar("T")


class Stream:
    """One sequence of draws."""

    __slots__ = ("_random", "bits")

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self.bits = self._random.getrandbits

    def below(self, bound: int) -> int:
        """A uniform integer in [0, bound); bound >= 1."""
        width = bound.bit_length()
        value = self.bits(width)
        while value >= bound:
            value = self.bits(width)
        return value

    def unit(self) -> float:
        """A uniform float in [0, 1)."""
        return self._random.random()

    def between(self, low: int, high: int) -> int:
        """A uniform integer in [low, high]."""
        return low + self.below(high - low + 1)

    def chance(self, probability: float) -> bool:
        """True with `probability`.  Always takes exactly one draw, so that tuning a rate shifts nothing after it."""
        return self._random.random() < probability

    def choice(self, items: Sequence[T]) -> T:
        """One of `items`, which must not be empty."""
        return items[self.below(len(items))]

    def sample(self, items: Sequence[T], count: int) -> list[T]:
        """Up to `count` distinct positions of `items`, in random order.  Costs O(count), not O(len(items))."""
        size = len(items)
        taken: dict[int, int] = {}
        chosen: list[T] = []
        for last in range(size - 1, max(-1, size - 1 - count), -1):
            at = self.below(last + 1)
            chosen.append(items[taken.get(at, at)])
            taken[at] = taken.get(last, last)
        return chosen

    def shuffle(self, items: list[T]) -> None:
        """Shuffle in place (Fisher-Yates)."""
        for last in range(len(items) - 1, 0, -1):
            at = self.below(last + 1)
            items[last], items[at] = items[at], items[last]


class Streams:
    """The streams of one node, world or link, made on first use from `seed` (any text) and the stream's name."""

    def __init__(self, seed: str) -> None:
        self.seed = seed
        self._streams: dict[str, Stream] = {}

    def __getitem__(self, name: str) -> Stream:
        stream = self._streams.get(name)
        if stream is None:
            digest = blake2b(f"{self.seed}/{name}".encode(), digest_size=8).digest()
            stream = self._streams[name] = Stream(int.from_bytes(digest, "big"))
        return stream
