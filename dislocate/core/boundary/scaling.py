"""The vocabulary of scaling at the door of a node: how an operator wants it, what the store's leader decided, what came of it.

A policy is the key `scale/NAME`.  What is decided of one data center is the record `system/scale/NAME/DC`: the number of
instances wanted there, with an epoch that grows by one each time; it has the driver with it, so that whoever carries it
out needs nothing else.  Source: the design's section 7.
"""

from enum import Enum
from typing import TypeAlias

import msgspec
from msgspec import Struct

from dislocate.core.boundary.spec import ResourceBase
from dislocate.core.identity import Path
from dislocate.core.units import MINUTE, SECOND, Duration

# ---- how an operator wants it: the key scale/NAME


class DriverBase(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, tag_field="kind"):
    """What all drivers have in common."""


class CommandDriver(DriverBase, frozen=True, tag="command"):
    """A command, run by one relay of the data center; exit code 0: it is done, or under way.

    `{service}`, `{datacenter}`, `{desired}`, `{before}` and `{epoch}` in its arguments stand for what was decided; it finds
    the same in its environment, as DISLOCATE_SERVICE and so on.  It is told how many there are to be, never how many more."""

    run: tuple[str, ...]
    directory: str = "/"
    environment: dict[str, str] = {}
    timeout: Duration = 60 * SECOND


class WebhookDriver(DriverBase, frozen=True, tag="webhook"):
    """An HTTP request, sent by one relay of the data center: POST, the decision as JSON; any 2xx: it is done, or under way.

    Its header `Idempotency-Key` is 'NAME/DC/EPOCH'."""

    url: str
    headers: dict[str, str] = {}
    timeout: Duration = 10 * SECOND


class ProcessDriver(DriverBase, frozen=True, tag="process"):
    """Processes that the agents run and supervise, registered in the catalog under the service's name.

    `run` finds its port in the environment as PORT, and '{port}' in its arguments."""

    run: tuple[str, ...]
    targets: str = "*"  # nodes that may have some, such as 'tag:web': as the targets of a config run
    per_node: int = 0  # at most so many on one node; 0: as many as it takes
    ports: tuple[int, ...] = ()  # to choose from; none: any free one
    health: str = ""  # a path such as '/health' that answers 2xx; empty: the port accepts
    directory: str = "/"
    environment: dict[str, str] = {}
    ready_within: Duration = 30 * SECOND
    drain_for: Duration = 5 * SECOND  # between the moment that it is drained and SIGTERM
    stop_within: Duration = 10 * SECOND  # between SIGTERM and SIGKILL


Driver: TypeAlias = CommandDriver | WebhookDriver | ProcessDriver


class Survive(Enum):
    """What may be lost without overload."""

    NOTHING = "nothing"
    ONE_DATACENTER = "1dc"  # whichever: the others carry its traffic, loaded to `scaling.FULL`


class ScalePolicy(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """How many instances of a service each of its data centers is to have."""

    min: int = 2  # in each data center
    max: int = 100  # in each data center; what is more spills into others
    target_load: float = 0.7  # part of what its instances can do that the offered load is to be
    capacity: float = 0.0  # requests a second of one instance; 0: measured
    up_window: Duration = 15 * SECOND  # it grows by the mean of so long; it at most doubles, or grows by 4, within it
    down_window: Duration = 5 * MINUTE  # it shrinks to the most that was wanted within it; longer where peaks come back
    pause: Duration = 1 * MINUTE  # between two steps down
    reversals: int = 4  # changes of direction an hour; growing is always allowed
    survive: Survive = Survive.NOTHING
    datacenters: tuple[str, ...] = ()  # where it is scaled; none: wherever it has instances, or its driver's nodes are
    paused: bool = False  # decide nothing: what was decided stays
    driver: Driver | None = None  # None: it is decided and told, and somebody else carries it out


# ---- what was decided


class Record(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A value in the store."""


class ScaleDecision(Record, frozen=True):
    """`system/scale/NAME/DC`, and without its driver and nodes in the history."""

    service: str
    datacenter: str
    epoch: int  # from 1, by one
    desired: int
    before: int  # what was wanted before; of the first one: what was there
    reason: str
    by: Path  # the leader
    at: int  # unix nanoseconds
    driver: Driver | None = None
    nodes: dict[Path, int] = {}  # how many each has, of driver `process`


class CarryState(Enum):
    BEGUN = "begun"
    DONE = "done"
    FAILED = "failed"  # it is tried again, by the same node


class Carried(Record, frozen=True):
    """What came of a decision: of driver `process` on each node, of others on the relay that took it upon itself."""

    epoch: int
    node: Path
    state: CarryState
    tries: int = 1
    code: int | None = None  # exit code of the command, status of the HTTP answer
    words: str = ""
    at: int = 0  # unix nanoseconds, of the node


class Webhook(ResourceBase, frozen=True, tag="webhook"):
    """What a host is asked to send, once; no resource of config runs."""

    url: str
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    body: str = ""  # JSON


# ---- what nodes ask of the store


class Part(Struct, frozen=True, array_like=True, gc=False):
    """A request."""


class BeginScale(Part, frozen=True, tag=46):
    """A node is about to carry out a decision.  -> Done; Refused: another one does or did, or it is no longer the decision.

    `instead_of` names one that took it upon itself and, as far as this node knows, lives no more."""

    service: str
    datacenter: str
    epoch: int
    node: Path
    at: int
    instead_of: Path = ""


class ReportScale(Part, frozen=True, tag=47):
    """What came of it.  -> Done, also when it was known; Refused when something else was decided since."""

    service: str
    datacenter: str
    epoch: int
    node: Path
    is_done: bool
    at: int
    tries: int = 1
    code: int | None = None
    words: str = ""


ScaleRequest: TypeAlias = BeginScale | ReportScale
