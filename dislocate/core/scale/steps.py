"""Steps: what the store's leader puts into the log about scaling.

Each names the epoch that it makes, one above the last; at any other it is refused and changes nothing, so two leaders, or one
that repeats itself, do no harm.
"""

from typing import TypeAlias

from msgspec import Struct

from dislocate.core.boundary.scaling import Driver
from dislocate.core.identity import Path


class Step(Struct, frozen=True, array_like=True):
    """A command of the leader."""

    service: str
    datacenter: str
    epoch: int
    by: Path
    at: int  # unix nanoseconds of the leader


class DecideScale(Step, frozen=True, tag=120):
    """So many instances are to be there."""

    desired: int
    before: int
    reason: str
    driver: Driver | None = None
    nodes: dict[Path, int] = {}


class EndScale(Step, frozen=True, tag=121):
    """Nobody wants it scaled any more: the decision goes, what runs stays, and the history."""

    reason: str


ScaleStep: TypeAlias = DecideScale | EndScale
