"""What a node tells whoever watches: one struct a fact, past participles.  For people, history, logs and metrics."""

from typing import TypeAlias

from msgspec import Struct

from dislocate.core.boundary.runs import TaskOutcome
from dislocate.core.boundary.values import Refusal, Status
from dislocate.core.identity import NodeId, Path


class Base(Struct, frozen=True, array_like=True):
    """An event."""


class MemberJoined(Base, frozen=True, tag=1):
    """A member is alive that was unknown, dead, left, or an older start of itself."""

    member: NodeId
    address: str


class MemberSuspected(Base, frozen=True, tag=2):
    """Somebody stopped hearing from `member`; it has not been declared dead."""

    member: NodeId
    accusers: tuple[Path, ...]


class MemberRefuted(Base, frozen=True, tag=3):
    """A suspected member showed that it lives."""

    member: NodeId


class MemberDied(Base, frozen=True, tag=4):
    """`member` is declared dead; `refused`: its host answered that no agent is there (else: silence)."""

    member: NodeId
    refused: bool
    observers: tuple[Path, ...]


class MemberLeft(Base, frozen=True, tag=5):
    """`member` said goodbye."""

    member: NodeId


class MemberRestarting(Base, frozen=True, tag=6):
    """`member` announced a planned restart; until then nothing happens."""

    member: NodeId
    within: int  # nanoseconds


class MemberForgotten(Base, frozen=True, tag=7):
    """A dead or left member was dropped, with its services."""

    member: NodeId
    reason: str


class CloneDetected(Base, frozen=True, tag=8):
    """Two living agents claim one name.  The older keeps it; an operator must rename or stop one."""

    member: NodeId
    kept: str  # address
    rejected: str  # address


class BrakeChanged(Base, frozen=True, tag=9):
    """Too many members of `datacenter` failed at once: nothing is removed until the view is stable (or: again it is)."""

    datacenter: str
    engaged: bool
    reason: str


class DatacenterChanged(Base, frozen=True, tag=10):
    """This data center can, or can no longer, reach `datacenter`.  Its members are not dead of that."""

    datacenter: str
    reachable: bool
    phi: float
    reason: str


class ServiceChanged(Base, frozen=True, tag=11):
    """The answers for `service` changed; `index` grows with each change of this service and no other."""

    service: str
    index: int


class InstanceChanged(Base, frozen=True, tag=12):
    """An instance appeared, changed status or went away (`status` None)."""

    owner: Path
    instance_id: str
    service: str
    status: Status | None
    before: Status | None
    cause: str


class InputDropped(Base, frozen=True, tag=13):
    """Something that came from outside could not be used.  Counted; never fatal."""

    source: str
    reason: str


class RelayChanged(Base, frozen=True, tag=14):
    """This node became, or ceased to be, one of its data center's relays."""

    is_relay: bool


class SendRefused(Base, frozen=True, tag=15):
    """Something of ours could not be delivered, and the reason is worth a counter."""

    target: str
    reason: Refusal


class GroupJoined(Base, frozen=True, tag=16):
    """This agent learned which group keeps the store; from now on it refuses any other."""

    group: str
    epoch: int


class LeaderElected(Base, frozen=True, tag=17):
    """This server leads the store in `term`."""

    term: int


class LeaderDeposed(Base, frozen=True, tag=18):
    """This server leads the store no more."""

    term: int
    reason: str


class EntriesApplied(Base, frozen=True, tag=19):
    """The log was applied up to `index`.  `digest` is chained over all entries ever applied: equal digests at one index
    mean equal logs up to there."""

    index: int
    term: int
    digest: int
    revision: int


class ServersChanged(Base, frozen=True, tag=20):
    """The group's configuration at `index` of its log."""

    index: int
    voters: tuple[str, ...]  # 'dc/name@disk'; both halves of a joint configuration
    learners: tuple[str, ...]


class StoreTroubled(Base, frozen=True, tag=21):
    """This agent's part in the store cannot work, or (empty) can again.  Says the mend."""

    problem: str


class RunMoved(Base, frozen=True, tag=22):
    """A run went from one state to another, as this server applied it."""

    run: str
    version: int
    before: str  # of `RunState`; '' at its start
    now: str
    words: str


class NodeMoved(Base, frozen=True, tag=23):
    """A node's part in a run, as this server applied it."""

    run: str
    node: str
    before: str  # of `NodeState`
    now: str
    epoch: int
    words: str


class TaskBegun(Base, frozen=True, tag=24):
    """This agent begins what it was granted."""

    run: str
    epoch: int
    direction: str


class TaskEnded(Base, frozen=True, tag=25):
    """This agent has done what it was granted, and will report it."""

    run: str
    epoch: int
    direction: str
    state: str  # of `NodeState`
    words: str


class Drifted(Base, frozen=True, tag=26):
    """A resource of a run that is done is not as the run left it; `mended`: it is again."""

    run: str
    resource: str
    words: str
    mended: bool


class VisitTold(Base, frozen=True, tag=27):
    """A piece of what a visited node writes, or (`is_last`) one of its outcomes."""

    request_id: int
    node: str
    task: int  # position
    outcome: TaskOutcome
    is_last: bool


class ScaleDecided(Base, frozen=True, tag=30):
    """So many instances of a service are to be in a data center, as this server applied it."""

    service: str
    datacenter: str
    epoch: int
    before: int
    desired: int
    reason: str


class FlowsChanged(Base, frozen=True, tag=28):
    """Callers here should send their requests for `service` elsewhere than before, or under another policy."""

    service: str
    epoch: int  # of the `Route` from now on


Event: TypeAlias = (
    MemberJoined
    | MemberSuspected
    | MemberRefuted
    | MemberDied
    | MemberLeft
    | MemberRestarting
    | MemberForgotten
    | CloneDetected
    | BrakeChanged
    | DatacenterChanged
    | ServiceChanged
    | InstanceChanged
    | InputDropped
    | RelayChanged
    | SendRefused
    | GroupJoined
    | LeaderElected
    | LeaderDeposed
    | EntriesApplied
    | ServersChanged
    | StoreTroubled
    | RunMoved
    | NodeMoved
    | TaskBegun
    | TaskEnded
    | Drifted
    | VisitTold
    | ScaleDecided
    | FlowsChanged
)
