"""Steps: what the controller of a run, the store's leader, puts into the log.

Each names the version of the run that it was decided at; at another one it is refused and changes nothing, so two leaders, or
one that repeats itself, do no harm.  What may follow what is in `transitions`.
"""

from typing import TypeAlias

from msgspec import Struct

from dislocate.core.boundary.runs import Hold, NodeState, RunState
from dislocate.core.identity import Path


class Step(Struct, frozen=True, array_like=True):
    """A command of the leader."""

    run: str
    version: int
    at: int  # unix nanoseconds of the leader


class OpenBatch(Step, frozen=True, tag=110):
    """Grant to these nodes, of the present batch or of those to be retried."""

    nodes: tuple[Path, ...]


class CloseBatch(Step, frozen=True, tag=111):
    """All nodes of the present batch are settled; go on to the next one."""


class HoldRun(Step, frozen=True, tag=112):
    """Pause: nothing is begun until it is released."""

    hold: Hold
    words: str


class ReleaseRun(Step, frozen=True, tag=113):
    """The cause of the hold ended."""

    words: str


class RevertRun(Step, frozen=True, tag=114):
    """Take back what was done, in reverse order."""

    words: str


class FinishRun(Step, frozen=True, tag=115):
    """The run is over."""

    state: RunState
    words: str


class Mark(Struct, frozen=True, array_like=True):
    """What the leader sees of one node: UNREACHABLE (from GRANTED), UNKNOWN (from STARTED), or back."""

    node: Path
    state: NodeState
    words: str


class MarkNodes(Step, frozen=True, tag=116):
    marks: tuple[Mark, ...]


class JoinNodes(Step, frozen=True, tag=117):
    """Nodes that match the targets now: a last batch of their own."""

    nodes: tuple[Path, ...]


RunStep: TypeAlias = OpenBatch | CloseBatch | HoldRun | ReleaseRun | RevertRun | FinishRun | MarkNodes | JoinNodes
