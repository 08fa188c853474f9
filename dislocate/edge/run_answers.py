"""What the edge answers about runs, plans, the audit and secrets, as typed values.

Instants are unix seconds and spans are seconds, both as floats.  Made from the records in `run_told`, and from what nodes say
when they look in `run_looked`.
"""

from dislocate.core.boundary.runs import AuditEntry, Direction, NodeState, RunState
from dislocate.core.identity import Path
from dislocate.edge.answers import Answer


class StartedAnswer(Answer, frozen=True):
    """The run is in the log: it goes on whatever becomes of this agent."""

    id: str
    state: RunState
    targets: int
    doubts: tuple[str, ...]  # what it names and nobody has, and what could not be tried


class SteeredAnswer(Answer, frozen=True):
    """It was done; `version` is that of the run now."""

    id: str
    version: int


class RunSummary(Answer, frozen=True, kw_only=True):
    """One run."""

    id: str
    name: str
    title: str
    state: RunState
    hold: str  # why it is paused; empty: it is not
    version: int
    direction: Direction
    batch: int  # position of the batch that is under way, or comes next
    batches: int
    targets: int
    actor: str
    started_at: float
    changed_at: float
    words: str  # why it is as it is


class RunsAnswer(Answer, frozen=True):
    """Runs, the latest first."""

    runs: tuple[RunSummary, ...]
    age: float = 0.0  # so old may it be, where it is what is known here


class StepAnswer(Answer, frozen=True):
    """What a node made of one resource."""

    resource: str
    result: str
    words: str
    took: float


class AppliedAnswer(Answer, frozen=True, kw_only=True):
    """What a node had made of its part before it was taken back."""

    state: NodeState
    kind: str  # of a failure
    words: str
    took: float
    steps: tuple[StepAnswer, ...]


class NodeAnswer(Answer, frozen=True, kw_only=True):
    """One node's part."""

    state: NodeState
    direction: Direction
    wave: str
    reachable: bool  # from the agent that answers
    kind: str  # of a failure; 'drift': `words` say what is not as the run left it any more
    words: str
    took: float
    steps: tuple[StepAnswer, ...]
    applied: AppliedAnswer | None  # of a revert: what is taken back, and why; null where nothing was reported


class BatchAnswer(Answer, frozen=True):
    """Nodes that go together."""

    wave: str  # 'canary', or data centers
    nodes: tuple[Path, ...]


class RunAnswer(RunSummary, frozen=True, kw_only=True):
    """One run in full."""

    waits: str  # for what, in a sentence; empty where it is over
    approved_by: tuple[str, ...]
    counts: dict[str, int]  # nodes in each state
    plan: tuple[BatchAnswer, ...]
    nodes: dict[Path, NodeAnswer]
    age: float = 0.0  # so old may it be, where it is what is known here


class ResourceAnswer(Answer, frozen=True):
    """How a resource is: 'same', 'would change', 'untold' (a command without a check), 'failed', 'not reached'."""

    id: str
    result: str
    kind: str  # of a failure
    words: str
    diff: str  # unified


class GroupAnswer(Answer, frozen=True):
    """Nodes that look the same, to the last line."""

    nodes: tuple[Path, ...]
    resources: tuple[ResourceAnswer, ...]


class CheckAnswer(Answer, frozen=True, kw_only=True):
    """How nodes are; nothing was changed."""

    name: str
    targets: tuple[Path, ...]
    groups: tuple[GroupAnswer, ...]
    unreachable: dict[Path, str]  # why nothing is known of it


class PlanAnswer(CheckAnswer, frozen=True, kw_only=True):
    """What a run would do, and of what the plan holds."""

    plan: tuple[BatchAnswer, ...]
    spec_digest: str
    values_digest: str
    digests: dict[Path, str]
    revision: int
    doubts: tuple[str, ...]  # what else it names and nobody has


class AuditAnswer(Answer, frozen=True):
    """Who did what, in order; `more`: ask again with `after` = the last number."""

    entries: tuple[AuditEntry, ...]
    more: bool


class VerifiedAnswer(Answer, frozen=True):
    """Whether the chain of the audit holds; `hash` of the last entry is worth keeping elsewhere."""

    entries: int
    first: int
    last: int
    hash: str
    broken: int | None  # the first entry that does not fit
    words: str


class SecretAnswer(Answer, frozen=True):
    """A secret, without its value."""

    name: str
    version: int
    digest: str
    nodes: tuple[Path, ...]  # that can read it


class SecretsAnswer(Answer, frozen=True):
    secrets: tuple[SecretAnswer, ...]
