"""Picture: a run as its records tell it, and what the leader sees of the fleet, in the words that decisions are made in.

Both are facts of one moment and never change; what took how long is in `clocks`.  A node is *in flight* from its grant until
it reports: also while nobody knows what it does (UNKNOWN).
"""

from functools import cached_property

from msgspec import Struct

from dislocate.core.boundary.runs import Batch, Direction, NodeState, NodeTask, RunPlan, RunRecord
from dislocate.core.boundary.runs import Frozen as FrozenSpec
from dislocate.core.boundary.spec import RunSpec, Strategy
from dislocate.core.boundary.views import InstanceView
from dislocate.core.identity import Path
from dislocate.core.runs.ledger.transitions import COUNTS_AS_BAD, IN_FLIGHT, LOST

REPORTED = (NodeState.DONE, NodeState.FAILED, NodeState.REVERTED, NodeState.REVERT_FAILED)
CANARY = "canary"  # the wave of the first batch, where there are canaries


class Picture(Struct, frozen=True, dict=True):
    """One run, decoded."""

    record: RunRecord
    plan: RunPlan
    tasks: dict[Path, NodeTask]  # of nodes that are no longer pending
    frozen: FrozenSpec

    @property
    def spec(self) -> RunSpec:
        return self.frozen.spec

    @property
    def strategy(self) -> Strategy:
        return self.frozen.spec.strategy

    @cached_property
    def nodes(self) -> tuple[Path, ...]:
        """Everybody in the plan, in its order."""
        return tuple(node for batch in self.plan.batches for node in batch.nodes)

    @cached_property
    def _known(self) -> dict[Path, None]:
        return dict.fromkeys(self.nodes)

    def has(self, node: Path) -> bool:
        """Whether it is a target."""
        return node in self._known

    @cached_property
    def batch(self) -> Batch | None:
        """The batch that is under way or comes next; None: there is none any more."""
        at = self.record.batch
        return self.plan.batches[at] if 0 <= at < len(self.plan.batches) else None

    @property
    def batch_nodes(self) -> tuple[Path, ...]:
        return () if self.batch is None else self.batch.nodes

    @cached_property
    def soaks(self) -> bool:
        """Whether the present batch is the canaries', or the last of its wave."""
        batch, after = self.batch, self.record.batch + 1
        if batch is None:
            return False
        is_last = after >= len(self.plan.batches) or self.plan.batches[after].wave != batch.wave
        return is_last or batch.wave == CANARY

    @property
    def is_promoted(self) -> bool:
        return self.record.promoted == self.record.batch

    def state(self, node: Path) -> NodeState:
        task = self.tasks.get(node)
        return NodeState.PENDING if task is None else task.state

    @cached_property
    def by_state(self) -> dict[NodeState, tuple[Path, ...]]:
        """Nodes in each state, in the order of the plan."""
        found: dict[NodeState, list[Path]] = {}
        for node in self.nodes:
            found.setdefault(self.state(node), []).append(node)
        return {state: tuple(nodes) for state, nodes in found.items()}

    def those(self, *states: NodeState) -> tuple[Path, ...]:
        """Nodes in any of these states."""
        return tuple(node for state in states for node in self.by_state.get(state, ()))

    @cached_property
    def in_flight(self) -> tuple[Path, ...]:
        return self.those(*IN_FLIGHT)

    @cached_property
    def failed(self) -> tuple[Path, ...]:
        return self.those(NodeState.FAILED)

    @cached_property
    def lost(self) -> tuple[Path, ...]:
        return self.those(*LOST)

    @property
    def is_spent(self) -> bool:
        """Whether the budget is, as the log counts."""
        return len(self.those(*COUNTS_AS_BAD)) > self.record.budget

    @cached_property
    def waiting(self) -> tuple[Path, ...]:
        """Nodes that are to be granted: those to be tried again first, then those of the present batch."""
        return tuple(dict.fromkeys((*self.again, *filter(self.is_due, self.batch_nodes))))

    @cached_property
    def again(self) -> tuple[Path, ...]:
        """Nodes to be tried again, or that came too late for their batch, and that are not granted yet.  A revert leaves
        nobody behind: one that was cut off with its grant is not in the record any more."""
        is_revert = self.record.direction is Direction.REVERT
        gone_through = self.plan.batches[self.record.batch + 1 :] if is_revert else ()
        behind = (node for batch in gone_through for node in batch.nodes)
        return tuple(filter(self.is_due, dict.fromkeys((*self.record.retries, *behind))))

    def is_due(self, node: Path) -> bool:
        """Whether it may be granted once its turn comes."""
        if self.record.direction is Direction.REVERT:
            return self.is_to_be_reverted(node)
        return self.state(node) is NodeState.PENDING

    def is_to_be_reverted(self, node: Path) -> bool:
        """Whether a revert has yet to grant it: it began once, is not in flight, and was not taken back or left."""
        task = self.tasks.get(node)
        if task is None or not task.touched or task.state in IN_FLIGHT:
            return False
        is_left = task.state is NodeState.SKIPPED and task.direction is Direction.REVERT
        return not is_left and task.state not in (NodeState.REVERTED, NodeState.REVERT_FAILED)

    @cached_property
    def concerned(self) -> tuple[Path, ...]:
        """Nodes whose being within reach matters now."""
        return tuple(dict.fromkeys(self.batch_nodes + self.record.retries + self.again + self.in_flight + self.lost))


class Seen(Struct, frozen=True, kw_only=True):
    """What the leader sees of the fleet at one moment."""

    unix: int  # nanoseconds
    away: frozenset[Path] = frozenset()  # of the nodes concerned, those out of reach
    instances: dict[str, tuple[InstanceView, ...]] = {}  # of the services that gates and the floor name
    changed: frozenset[Path] = frozenset()  # nodes that began: no control for those that are judged
    joiners: tuple[Path, ...] = ()  # nodes within reach that fit the targets and are not in the plan
