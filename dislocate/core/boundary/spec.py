"""The specification of a config run: what is to be so on which nodes, and how carefully they get there.

The structs are the file format (TOML or YAML, strict) and the format in the store (JSON).  Durations are nanoseconds here and
words in a file.  What each field may hold is checked by `core.runs.spec`; how a resource is brought about is `host`'s affair.
"""

from enum import Enum
from typing import TypeAlias

from msgspec import Struct

from dislocate.core.units import MINUTE, SECOND, Duration

Amount: TypeAlias = int | str  # a number of nodes, or a part of them such as '25%'


# ---- resources


class ResourceBase(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, tag_field="kind"):
    """What all kinds of resources have in common."""

    id: str = ""  # empty: the kind and what it is about, such as 'file /etc/motd'
    require: tuple[str, ...] = ()  # ids of resources that must be as they should before this one is looked at
    notify: tuple[str, ...] = ()  # ids of resources that are owed once when this one changed
    only_notified: bool = False  # nothing is done unless another resource notifies this one
    timeout: Duration = 60 * SECOND  # for all that is done about it once


class File(ResourceBase, frozen=True, tag="file"):
    """A file with this content.  Replaced atomically; what was there before is kept for a revert."""

    path: str
    content: str = ""  # a Jinja2 template: `facts`, `key('config/color')`, `secret('db/password')`
    source: str = ""  # a file beside the specification that has the content instead; gone once it is submitted
    mode: str = "0644"
    owner: str = ""  # 'user' or 'user:group'; empty: the agent's own
    validate: tuple[str, ...] = ()  # a command that must exit 0 before the file is replaced; '{path}' is the new one


class Directory(ResourceBase, frozen=True, tag="directory"):
    """A directory that exists."""

    path: str
    mode: str = "0755"
    owner: str = ""


class Command(ResourceBase, frozen=True, tag="command"):
    """A command that is run where a guard says that it is needed.  Exactly one guard, or `once`, unless `only_notified`."""

    run: tuple[str, ...]
    unless: tuple[str, ...] = ()  # not needed when this command exits 0
    creates: str = ""  # not needed when this path exists
    check: tuple[str, ...] = ()  # exit 0: as it should be, 1: needed; anything else: it cannot be told
    once: bool = False  # once a run: the journal is the guard, and a crash in the middle ends UNKNOWN
    revert: tuple[str, ...] = ()  # what undoes it; without one a revert leaves it as it is, and says so
    directory: str = "/"
    environment: dict[str, str] = {}  # values are templates as `File.content` is, so that a secret is in no argument


class ServiceAction(Enum):
    RELOAD = "reload"
    RESTART = "restart"


class Service(ResourceBase, frozen=True, tag="service"):
    """A unit of systemd that is reloaded or restarted when it is notified."""

    unit: str
    action: ServiceAction = ServiceAction.RELOAD
    drain: str = ""  # a service of the catalog: its instances on this node are drained first, and taken back after
    drain_for: Duration = 5 * SECOND


class Process(ResourceBase, frozen=True, tag="process"):
    """A process that the agent runs and supervises: started beside the one before, which goes once it passes.

    `run` finds its port in the environment as PORT, and '{port}' in its arguments; where others reach this host as ADDRESS and
    '{address}'."""

    name: str
    run: tuple[str, ...]
    service: str = ""  # registered under this name in the catalog; empty: not at all
    count: int = 1
    ports: tuple[int, ...] = ()  # to choose from; none: any free one
    health: str = ""  # a path such as '/health' that answers 2xx; empty: the port accepts
    directory: str = "/"
    environment: dict[str, str] = {}  # values are templates as `File.content` is
    ready_within: Duration = 30 * SECOND
    drain_for: Duration = 5 * SECOND  # between the moment that it is drained and SIGTERM
    stop_within: Duration = 10 * SECOND  # between SIGTERM and SIGKILL


class Package(ResourceBase, frozen=True, tag="package"):
    """A package that is installed: of Debian, or of Python into a virtual environment."""

    name: str
    version: str = ""  # empty: any
    venv: str = ""  # a directory: pip installs there; empty: apt does, for the host


class Key(ResourceBase, frozen=True, tag="key"):
    """A key of the store with this value: set once for the fleet, by whichever node comes first."""

    key: str
    value: str


Resource: TypeAlias = File | Directory | Command | Service | Process | Package | Key


# ---- how


class OnFailure(Enum):
    """What a budget that was spent by FAILED nodes leads to."""

    REVERT = "revert"
    PAUSE = "pause"
    ABORT = "abort"


class Join(Enum):
    """What becomes of nodes that match the targets only after the start."""

    IGNORE = "ignore"
    APPLY = "apply"  # a last batch of them, as long as the run is under way


class Gate(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A claim about a service that must hold on the nodes that were changed; without data it neither holds nor fails."""

    service: str
    passing: float = 1.0  # part of its instances there that must be passing
    utilization: float = 0.0  # none of them above; 0: not judged
    errors: float = 0.0  # part of the calls to any of them that may fail, as callers report; 0: not judged
    p99: Duration = 0  # within which 99 of 100 calls to any of them are answered, as callers report; 0: not judged
    control: float = (
        0.0  # `errors` and `p99` may be that many times what unchanged ones beside them have; 0: not compared
    )
    window: Duration = 10 * SECOND  # it must hold for so long


class Freeze(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A window in which nothing is begun, by the wall clock in UTC."""

    days: tuple[str, ...] = ()  # 'mon' ... 'sun'; none: every day
    begin: str  # '22:00'
    end: str  # '06:00': before `begin`, it is the next day's


class Strategy(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """How carefully."""

    canary: Amount = 1  # nodes that go first, of the first data center; 0: none
    soak: Duration = 10 * SECOND  # how long canaries, and the last nodes of each data center, are watched
    batch: Amount = "25%"  # nodes at a time, of one data center
    waves: tuple[str, ...] = ()  # data centers in their order; those not named follow, by name
    parallel: int = 1  # data centers at a time
    max_failed: Amount = 0  # nodes, over the whole fleet, that may be FAILED, UNREACHABLE or UNKNOWN
    on_failure: OnFailure = OnFailure.REVERT
    floor: dict[str, float] = {}  # by service: part of its instances in a data center that keep passing throughout
    approvals: int = 0  # operators other than the one who starts it
    join: Join = Join.IGNORE
    node_within: Duration = 5 * MINUTE  # from its grant, a node reports; after that it is UNKNOWN
    settle: Duration = 2 * SECOND  # after a node reported, before its health counts
    deadline: Duration = 0  # for the run: paused when it has taken so long; 0: none


class RunSpec(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One config run, as its author wrote it."""

    name: str  # of what is configured, such as 'web': runs of one name follow each other
    targets: str  # 'dc:fra & service:shop.web & 25%@seed': see `core.runs.targeting`
    resources: tuple[Resource, ...]
    title: str = ""
    strategy: Strategy = Strategy()
    gates: tuple[Gate, ...] = ()
    freezes: tuple[Freeze, ...] = ()
    confirm: int = 0  # the most nodes it may have; 0: asked for above `core.runs.spec.CONFIRM_ABOVE`
    enforce: bool = False  # bring back what drifts, once the run is done
    task_time: Duration = 0  # what a node's part takes, for `simulate`; 0: as it was measured, or a second


class References(Struct, frozen=True):
    """What the templates of a specification name, sorted."""

    keys: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
