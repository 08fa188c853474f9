"""What agents say to each other on a visit: one asks another directly to do tasks, outside of any run.

All four travel on links only: who speaks is certain there, and order is kept.  The number of a visit is its asker's.
"""

from msgspec import Struct

from dislocate.core.boundary.runs import Task, TaskOutcome


class Part(Struct, frozen=True, array_like=True):
    """A message."""


class VisitAsked(Part, frozen=True, tag=80):
    """Do these, one after the other, until one fails."""

    visit: int
    tasks: tuple[Task, ...]


class VisitOutput(Part, frozen=True, tag=81):
    """A piece of what a task writes (its result is OUTPUT), or what became of it; in order."""

    visit: int
    outcome: TaskOutcome


class VisitAnswered(Part, frozen=True, tag=82):
    """That was all."""

    visit: int
    refused: str = ""  # why nothing, or not all, was done


class VisitEnded(Part, frozen=True, tag=83, gc=False):
    """Nobody waits for it any more: end what can be ended."""

    visit: int
