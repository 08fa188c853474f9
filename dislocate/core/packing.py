"""Packing: facts into batches that fit their carrier, in order."""

from collections.abc import Iterable, Iterator

from msgspec import Raw

# Bytes of an envelope besides its facts: a sender with the longest names (135), heads, a small body.
ENVELOPE_ROOM = 192


def packed(facts: Iterable[Raw], room: int) -> Iterator[tuple[Raw, ...]]:
    """Batches of at most `room` bytes each; a fact that is larger stands alone, for the caller to judge."""
    batch: list[Raw] = []
    size = 0
    for fact in facts:
        length = len(memoryview(fact))
        if batch and size + length > room:
            yield tuple(batch)
            batch, size = [], 0
        batch.append(fact)
        size += length
    if batch:
        yield tuple(batch)
