"""Believing: how far one voice among several that measure the same program may stray before it counts as less.  Pure.

Invariant: while every voice is within the factor of the lower median, all count as they are, to the last bit.  One that is
above it counts as the bound: whoever tells rates a thousandfold, by mistake or because it answers errors at once, moves an
estimate by that factor at most.  One that is below it is believed: a slow instance is slow, and among `VOICES` equal ones it
cannot pull an average below a third.  Fewer than `VOICES` are believed as they are: nobody can say which of two is wrong.
"""

from collections.abc import Sequence

VOICES = 3  # that make a majority against one


def lower_median(values: Sequence[float]) -> float:
    """Of an even number the lower of the two in the middle: to carry less than one could is the smaller mistake."""
    return sorted(values)[(len(values) - 1) // 2]


def bound_of(voices: Sequence[float], factor: float) -> float:
    """What none of `voices` counts as more than; infinite where they are too few to tell."""
    return factor * lower_median(voices) if len(voices) >= VOICES else float("inf")
