"""Directions: which links a cut, a slowdown or a loss 'from' somebody 'to' somebody is about.

One rule for simulated and real agents.  '*' means everybody, but opposite a side that is named it means everybody else:
'fra' to '*' leaves the links within 'fra' alone, '*' to '*' leaves none alone.
"""

from typing import TypeAlias

# 'dc', 'dc/name' or '*'.
Selector: TypeAlias = str
# 'dc/name', or 'dc' for whatever stands for a whole data center.
Place: TypeAlias = str


def selects(selector: Selector, place: Place) -> bool:
    """Whether `selector` names `place`."""
    return selector in ("*", place, place.partition("/")[0])


def is_on_side(side: tuple[Selector, ...], opposite: tuple[Selector, ...], place: Place) -> bool:
    """Whether `place` is at the end of a direction that `side` tells, when `opposite` tells the other end."""
    if "*" in side and "*" not in opposite:
        return not any(selects(selector, place) for selector in opposite)
    return any(selects(selector, place) for selector in side)


def covers(origins: tuple[Selector, ...], targets: tuple[Selector, ...], sender: Place, receiver: Place) -> bool:
    """Whether the direction from `sender` to `receiver` is meant."""
    return is_on_side(origins, targets, sender) and is_on_side(targets, origins, receiver)
