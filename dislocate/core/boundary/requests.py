"""What people and programs on this host may ask of the core, and what they get back.

Reading needs no request: the edge keeps the node's immutable snapshots.  Whoever registers has it durable when the reply
says so.
"""

from typing import TypeAlias

from msgspec import Struct

from dislocate.core.boundary.balance import ReportUsage
from dislocate.core.boundary.runs import Visit, Visited
from dislocate.core.boundary.store import StoreRequest, StoreResult
from dislocate.core.boundary.values import InstanceSpec, Load, Status
from dislocate.core.identity import Path


class Base(Struct, frozen=True, array_like=True):
    """A request or a result."""


class Register(Base, frozen=True, tag=1):
    """Add an instance, or replace the one with the same id.  -> Done, durable."""

    instance: InstanceSpec


class Deregister(Base, frozen=True, tag=2):
    """Remove an instance.  -> Done, durable; Refused when there is none."""

    instance_id: str


class Heartbeat(Base, frozen=True, tag=3):
    """The instance of a ttl check calls in, possibly saying that it is unwell.  -> Done or Refused."""

    instance_id: str
    status: Status = Status.PASSING
    output: str = ""


class ReportLoad(Base, frozen=True, tag=4):
    """An instance says how busy it is.  -> Done or Refused (also for absurd numbers)."""

    instance_id: str
    load: Load


class SetDraining(Base, frozen=True, tag=5):
    """Drain, or stop draining, `target`: an instance id of this agent, 'dc/name' for a node, or a data center.  -> Done."""

    target: str
    scope: str  # 'instance', 'node' or 'datacenter'
    draining: bool
    expires: int = 0  # nanoseconds from now after which the drain ends by itself; 0: never
    reason: str = ""


class SetMaintenance(Base, frozen=True, tag=6):
    """Take one instance of this agent (or, with an empty id, all) out of the answers, or back.  -> Done."""

    instance_id: str
    enabled: bool
    reason: str = ""


class ReplaceConfigured(Base, frozen=True, tag=7):
    """The configuration file was read again (SIGHUP): these are its instances and tags now.  -> Done."""

    instances: tuple[InstanceSpec, ...]
    tags: tuple[str, ...]


class Watch(Base, frozen=True, tag=8):
    """Wait until a service matching one of `patterns` has an index above `index`.  -> Changed.

    A pattern is a name, or a prefix ending in '.*' ('db.*'), or '*'.  Churn in other services never answers it."""

    patterns: tuple[str, ...]
    index: int


class Leave(Base, frozen=True, tag=9):
    """Say goodbye to everybody: `LEFT`, at once, no suspicion.  -> Done when the farewell has been sent."""


class Forget(Base, frozen=True, tag=10):
    """Drop a dead or left member and its services now, everywhere.  -> Done; Refused while it is alive."""

    path: Path


class Done(Base, frozen=True, tag=1):
    """It is so, and durable where that was promised."""

    version: int = 0


class Refused(Base, frozen=True, tag=2):
    """It was not done and nothing was changed."""

    kind: str  # 'unknown', 'conflict', 'invalid', 'storage', 'leaving', 'unavailable': picks the HTTP status
    field: str
    reason: str  # says the mend
    got: str | int | float | None = None  # what stood in `field`, shortened; None: nothing, or it does not matter
    expected: str = ""  # in its place; empty: `reason` says all


class Changed(Base, frozen=True, tag=3):
    """A watched service changed: names, and the highest of their indexes to wait from next."""

    services: tuple[str, ...]
    index: int


Request: TypeAlias = (
    Register
    | Deregister
    | Heartbeat
    | ReportLoad
    | SetDraining
    | SetMaintenance
    | ReplaceConfigured
    | Watch
    | Leave
    | Forget
    | ReportUsage
    | Visit
    | StoreRequest
)
Result: TypeAlias = Done | Refused | Changed | Visited | StoreResult
