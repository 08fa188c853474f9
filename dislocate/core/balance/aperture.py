"""The deterministic aperture: which of a data center's endpoints one caller uses; and the tables it draws from.

All endpoints lie on a ring, a unit each; a caller covers `width` units from its own place on it, the first and the last
endpoint perhaps in part (Finagle).  Where callers lie evenly, each endpoint is covered equally; no caller needs to
know another.  Invariant: a draw names an endpoint first, and second, as often as its weight is part of all weights.

A table holds pairs, so that power of two choices costs one draw of bits and no arithmetic.
"""

from collections.abc import Sequence
from math import ceil
from typing import TypeVar

from dislocate.core.streams import Stream

T = TypeVar("T")
HEADROOM = 1.5  # endpoints to what the load of one caller needs
ALL_PAIRS = 32  # members up to which every ordered pair stands in the table
LENGTH = 2048  # of a table at least; a power of two
SLOTS = 512  # that weights are rounded to, at least


def width(count: int, least: int, offered: float, capacity: float) -> int:
    """How many of `count` endpoints a caller should use that offers so much, of so much capacity each (0: unknown)."""
    needed = ceil(HEADROOM * offered / capacity) if capacity > 0.0 else 0
    return max(1, min(count, max(least, needed)))


def window(available: Sequence[bool], offset: float, units: int) -> tuple[tuple[int, float], ...]:
    """(position, covered part) of the members in the aperture that begins at `offset` (0..1) of the ring.

    Those not available are passed over, and the aperture reaches further."""
    count = len(available)
    if units >= sum(available):
        return tuple((at, 1.0) for at, is_available in enumerate(available) if is_available)
    place = offset * count
    first = int(place) % count
    left = float(units)
    covered: list[tuple[int, float]] = []
    part = 1.0 - (place - int(place))  # of the first one
    for step in range(count):
        at = (first + step) % count
        if available[at]:
            covered.append((at, min(part, left)))
            left -= part
            if left <= 1e-9:
                break
        part = 1.0
    return tuple(covered)


def pair_table(members: Sequence[T], weights: Sequence[float], stream: Stream) -> tuple[tuple[T, T], ...]:
    """Pairs of members, each as often first and second as its weight says; the length is a power of two."""
    if len(members) == 1:
        return ((members[0], members[0]),)
    if min(weights) >= 0.999 * max(weights):
        slots = list(members)
        shifts = list(range(1, len(slots)))
    else:
        slots = _slots(members, weights)
        shifts = []
    if len(slots) > ALL_PAIRS:
        stream.shuffle(slots)
        shifts = [1 + stream.below(len(slots) - 1) for _ in range(max(4, LENGTH // len(slots)))]
    pairs: list[tuple[T, T]] = []
    for shift in shifts:
        seconds = slots[shift:] + slots[:shift]
        _part(slots, seconds)
        pairs += zip(slots, seconds, strict=True)
    length = max(LENGTH, 1 << (len(pairs) - 1).bit_length())
    return tuple((pairs * (length // len(pairs) + 1))[:length])


def single_table(members: Sequence[T], weights: Sequence[float]) -> tuple[tuple[T, T], ...]:
    """Pairs of one member with itself: a choice by weight alone."""
    slots = _slots(members, weights)
    return tuple((member, member) for member in slots)


def _slots(members: Sequence[T], weights: Sequence[float]) -> list[T]:
    """Members as often as their weights say, by largest remainder; the length is a power of two."""
    length = max(SLOTS, 1 << (8 * len(members) - 1).bit_length())
    total = sum(weights)
    exact = [weight / total * length for weight in weights]
    counts = [max(1, int(part)) for part in exact]
    order = sorted(range(len(members)), key=lambda at: (counts[at] - exact[at], at))
    missing = length - sum(counts)
    for at in order[:missing] if missing > 0 else ():
        counts[at] += 1
    while missing < 0:  # many that weigh nearly nothing have a slot each: the heaviest give them
        heaviest = max(range(len(counts)), key=lambda at: counts[at])
        counts[heaviest] -= 1
        missing += 1
    return [member for member, count in zip(members, counts, strict=True) for _ in range(count)]


def _part(firsts: Sequence[T], seconds: list[T]) -> None:
    """Exchange seconds so that few pairs are of one member with itself; none becomes more or less frequent."""
    count = len(seconds)
    for at in range(count):
        if seconds[at] is not firsts[at]:
            continue
        for step in (7, 61, 131):
            other = (at + step) % count
            if seconds[other] is not firsts[at] and seconds[at] is not firsts[other]:
                seconds[at], seconds[other] = seconds[other], seconds[at]
                break
