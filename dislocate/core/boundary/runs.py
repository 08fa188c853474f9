"""The vocabulary of config runs at the door of a node: what operators ask, what nodes do and tell, what the edge shows.

A run is data in the replicated store; the store's leader controls it and a new leader goes on.  It grants each batch to named
nodes.  A node asks for its grant with an id of its own, does what was granted, and reports; both are entries of the log.
Source: the design's section 6; states as Nomad's deployments and Argo's rollouts have them.
"""

from enum import Enum
from typing import TypeAlias

from msgspec import Struct

from dislocate.core.boundary.scaling import Webhook
from dislocate.core.boundary.spec import Resource, RunSpec
from dislocate.core.identity import Path


class Part(Struct, frozen=True, array_like=True):
    """A value, a request or a result."""


class RunState(Enum):
    """Where a run stands."""

    AWAITING = "awaiting approval"
    RUNNING = "running"
    PAUSED = "paused"
    REVERTING = "reverting"
    DONE = "done"
    FAILED = "failed"  # its budget was spent, and it was not to revert
    ABORTED = "aborted"  # left as it was
    REVERTED = "reverted"
    REVERT_FAILED = "revert failed"


OVER = (RunState.DONE, RunState.FAILED, RunState.ABORTED, RunState.REVERTED, RunState.REVERT_FAILED)


class NodeState(Enum):
    """Where a node stands in a run.  A direction (`NodeTask`) goes with it."""

    PENDING = "pending"
    GRANTED = "granted"  # it may ask, and then begin
    STARTED = "started"  # it asked; in flight until it reports
    DONE = "done"
    FAILED = "failed"
    UNREACHABLE = "unreachable"  # it was granted, did not ask, and is out of reach
    UNKNOWN = "unknown"  # it started, and is out of reach or late
    SKIPPED = "skipped"
    REVERTED = "reverted"
    REVERT_FAILED = "revert failed"


class Direction(Enum):
    APPLY = "apply"
    REVERT = "revert"


class Hold(Enum):
    """Why a run is paused.  All but an operator's end by themselves when their cause does."""

    OPERATOR = "operator"
    BUDGET = "budget"  # spent by UNREACHABLE and UNKNOWN nodes
    FAILURE = "failure"  # spent by FAILED nodes, where the strategy says to pause
    GATE = "gate"  # there is no data
    FREEZE = "freeze"
    DEADLINE = "deadline"


# ---- what a host is asked to do, one resource at a time


class TaskVerb(Enum):
    LOOK = "look"  # how it is, and what would change; changes nothing
    APPLY = "apply"
    REVERT = "revert"  # make it as it was before APPLY of the same run


class TaskResult(Enum):
    SAME = "same"  # it is as it should be
    CHANGED = "changed"
    WOULD_CHANGE = "would change"  # LOOK only
    UNTOLD = "untold"  # LOOK only: a command without a check
    FAILED = "failed"
    OUTPUT = "output"  # not the end: a piece of what a command writes
    LEFT = "left"  # REVERT only: nothing says how to undo it, or it is somebody else's by now
    REPLACED = "replaced"  # REVERT only: put back over what somebody had made of it since, which is kept


class Task(Part, frozen=True):
    """One thing for a host to do."""

    verb: TaskVerb
    resource: Resource | Webhook
    run: str  # id; '' outside of any run
    values: dict[str, str] = {}  # of the keys that templates name, frozen at the start of the run
    secrets: dict[str, bytes] = {}  # sealed to this node's key, by name
    stream: bool = False  # tell what a command writes as OUTPUT, piece by piece
    diff: bool = False  # LOOK: tell the difference
    made: str = ""  # REVERT: digest of what the run had made of it; '' where that is not known


class TaskOutcome(Part, frozen=True):
    """What became of it."""

    result: TaskResult
    before: str = ""  # a digest of how it was; '' where there is none to tell
    after: str = ""  # of how it is now; LOOK: of how it would be, '' where that cannot be told
    kind: str = ""  # of a failure: 'render', 'validate', 'apply', 'timeout', 'verify', 'lost'
    words: str = ""  # for people, at most 4 KiB, without secrets; of a failure: what was wrong and the mend
    diff: str = ""  # unified, at most 32 KiB, without secrets
    output: bytes = b""  # OUTPUT
    code: int | None = None  # exit code of a command that was run
    took: int = 0  # nanoseconds


# ---- what is in the log


class Step(Part, frozen=True, gc=False):
    """What a node made of one resource."""

    resource: str  # id
    result: str  # of `TaskResult`, or 'not reached'
    words: str = ""
    took: int = 0


class Batch(Part, frozen=True):
    """Nodes of one data center that go together."""

    wave: str  # 'canary', or the data center
    nodes: tuple[Path, ...]


class RunPlan(Part, frozen=True):
    """Who, in which order: frozen at the start."""

    targets: tuple[Path, ...]
    batches: tuple[Batch, ...]
    revision: int = 0  # of the store, as of which templates' keys were read
    expected: dict[Path, str] = {}  # by node: digest of how its resources were when the plan was made; empty: not bound


class StartRun(Part, frozen=True, tag=40):
    """Begin a run.  -> RunStarted, durable on a majority; Refused."""

    spec: RunSpec  # sources inlined
    plan: RunPlan
    values: dict[str, str]
    actor: str
    at: int  # unix nanoseconds of the agent that was asked


class RunStarted(Part, frozen=True, tag=40):
    run: str
    state: RunState


class Verb(Enum):
    """What an operator may do to a run."""

    APPROVE = "approve"
    PAUSE = "pause"
    RESUME = "resume"
    PROMOTE = "promote"  # soak and gates of the present batch count as passed
    SKIP = "skip"  # a node
    RETRY = "retry"  # a node
    ABORT = "abort"
    REVERT = "revert"


class SteerRun(Part, frozen=True, tag=41):
    """-> Done(version of the run); Refused when the run is elsewhere: nothing was changed."""

    run: str
    verb: Verb
    actor: str
    at: int
    node: Path = ""  # SKIP, RETRY
    version: int = 0  # refused unless the run is at it; 0: whichever
    words: str = ""  # why
    force: bool = False  # REVERT: also where a later run changed the same; `words` say why


class AskGrant(Part, frozen=True, tag=42, gc=False):
    """A node wants to begin.  -> Granted; Refused: not (or not yet, or not any more) for this node."""

    run: str
    node: Path
    epoch: int
    ask: int  # tells two askings of one node apart


class Granted(Part, frozen=True, tag=42):
    """It may begin, within `tunables.GRANT_VALID` of its asking by its own clock."""

    run: str
    epoch: int
    ask: int
    direction: Direction
    expected: str = ""  # digest of its resources in the plan; another one is a stale plan


DRIFT = "drift"  # the kind of a report on what is not as the run left it


class ReportTask(Part, frozen=True, tag=43):
    """What a node made of its grant.  -> Done, also when it was known; Refused when an older epoch granted it.

    DONE once more, of the kind `DRIFT`: what is not so any more, '' where all is."""

    run: str
    node: Path
    epoch: int
    state: NodeState  # DONE, FAILED, REVERTED, REVERT_FAILED
    kind: str = ""
    words: str = ""
    steps: tuple[Step, ...] = ()
    took: int = 0


RunRequest: TypeAlias = StartRun | SteerRun | AskGrant | ReportTask
RunResult: TypeAlias = RunStarted | Granted


# ---- asking nodes directly, outside of any run


class Visit(Part, frozen=True, tag=44):
    """Ask `nodes` to do `tasks`, in order, until one fails; several at a time.  -> Visited, when all have answered or are
    out of reach; what comes before is told as `VisitTold` events of the request's id."""

    nodes: tuple[Path, ...]
    tasks: tuple[Task, ...]
    at_once: int = 20
    timeout: int = 60_000_000_000  # for one node


class VisitResult(Part, frozen=True):
    """One node's."""

    node: Path
    outcomes: tuple[TaskOutcome, ...]
    unreachable: str = ""  # why nothing, or not all, is known of it


class Visited(Part, frozen=True, tag=44):
    results: tuple[VisitResult, ...]  # of every node that was asked for, in order


# ---- records in the store, in JSON, and snapshots for the edge


class Record(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A value in the store."""


class RunRecord(Record, frozen=True):
    """`system/runs/ID` while it is under way, `records/runs/ID/run` when it is over."""

    id: str
    name: str
    title: str
    state: RunState
    version: int  # grows with every change of this record
    epoch: int  # fences grants: grows when what was granted before must not begin any more
    direction: Direction
    batch: int  # position in the plan of the batch that is under way, or comes next
    targets: int  # how many
    batches: int
    spec_digest: str
    actor: str
    started_at: int  # unix nanoseconds
    changed_at: int
    granted: tuple[Path, ...] = ()  # of the present batch; a prompt to ask
    retries: tuple[Path, ...] = ()  # to be granted again, before the next batch
    hold: Hold | None = None
    words: str = ""  # why it is as it is
    promoted: int = -1  # the batch whose soak and gates count as passed
    approved_by: tuple[str, ...] = ()
    budget: int = 0  # nodes that may be FAILED, UNREACHABLE or UNKNOWN: the strategy's `max_failed`, counted out


class Applied(Record, frozen=True):
    """What a node had made of its part before it was taken back: why that was done."""

    state: NodeState
    kind: str = ""
    words: str = ""
    steps: tuple[Step, ...] = ()
    took: int = 0


class NodeTask(Record, frozen=True):
    """`records/runs/ID/nodes/dc/name`: one node's part."""

    node: Path
    state: NodeState
    direction: Direction = Direction.APPLY
    epoch: int = 0
    ask: int = 0
    touched: bool = False  # it started once: a revert is about it
    kind: str = ""
    words: str = ""
    steps: tuple[Step, ...] = ()
    took: int = 0
    expected: str = ""  # of the plan, from its grant on
    applied: Applied | None = None  # from the grant to revert on; None: nothing was reported before it


class Frozen(Record, frozen=True):
    """`records/runs/ID/spec`: what nodes read."""

    spec: RunSpec
    values: dict[str, str] = {}
    revision: int = 0


class Secret(Record, frozen=True):
    """`records/secrets/NAME`: a value that each of these nodes can open for itself, and nobody else."""

    version: int  # grows each time that it is put
    sealed: dict[Path, bytes]
    digest: str = ""  # hex, over what is sealed: another one is another value, and no guess can be tried on it


class AuditEntry(Record, frozen=True):
    """`records/audit/NUMBER`: who did what; each has the hash of the one before."""

    number: int
    before: str  # hex digest of the entry before it
    at: int  # unix nanoseconds, as told by whoever did it
    actor: str
    verb: str
    run: str
    evidence: str = ""
    hash: str = ""  # over all the others
