"""Observed: a fleet as its agents describe it, which is all that claims may look at.

Each protocol is the part of an answer of the HTTP API that some claim reads.  Whoever implements `Observed` can have
scenarios judged: `sim.world.World` does, and the live fleet from HTTP answers.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from dislocate.core.boundary.values import MemberState, Status
from dislocate.core.identity import Path
from sim.selectors import Layout
from sim.traffic.claims import SeenRequests


class SeenMember(Protocol):
    """One entry of `GET /api/members`."""

    @property
    def state(self) -> MemberState: ...


class SeenDatacenter(Protocol):
    """One entry of `GET /api/datacenters`."""

    @property
    def reachable(self) -> bool: ...


class SeenInstance(Protocol):
    """One instance of `GET /api/services/NAME`."""

    @property
    def id(self) -> str: ...
    @property
    def node(self) -> Path: ...
    @property
    def status(self) -> Status: ...
    @property
    def reachable(self) -> bool: ...


class SeenServer(Protocol):
    """One server in `GET /api/store`."""

    @property
    def path(self) -> Path: ...
    @property
    def role(self) -> str: ...


class SeenStore(Protocol):
    """`GET /api/store`."""

    @property
    def role(self) -> str: ...
    @property
    def leader(self) -> Path | None: ...
    @property
    def term(self) -> int: ...
    @property
    def revision(self) -> int: ...
    @property
    def problem(self) -> str: ...
    @property
    def servers(self) -> Sequence[SeenServer]: ...


class SeenErrand(Protocol):
    """What came of asking an agent for something."""

    @property
    def outcome(self) -> str: ...  # 'done', 'refused', 'uncertain', 'waiting'
    @property
    def words(self) -> str: ...
    @property
    def took(self) -> int: ...  # nanoseconds


class SeenRun(Protocol):
    """`GET /api/runs/ID` of the run, of a name, that began last."""

    @property
    def state(self) -> str: ...
    @property
    def nodes(self) -> Mapping[Path, str]: ...  # state of each node that is not pending


class Observed(Protocol):
    """A fleet as its agents describe it, and who of them is up.  Read-only."""

    layout: Layout

    def observers_up(self) -> Sequence[Path]:
        """Agents that answer now."""
        ...

    def is_up(self, path: Path) -> bool:
        """Whether the agent runs and answers: the judge's own knowledge, not an observer's."""
        ...

    def version(self, path: Path) -> tuple[int, int]:
        """Another value whenever the observer's answers may have changed."""
        ...

    def members(self, path: Path) -> Mapping[Path, SeenMember]: ...
    def datacenters(self, path: Path) -> Mapping[str, SeenDatacenter]: ...

    def instances(self, path: Path, service: str) -> Sequence[SeenInstance]:
        """What the observer answers for `service`; nothing when it does not know the name."""
        ...

    def store(self, path: Path) -> SeenStore: ...

    def errand(self, path: Path, what: str) -> SeenErrand | None:
        """What last came of asking `path` to 'write' a key or to 'read' one as it has it; None: not asked yet."""
        ...

    def run_of(self, path: Path, name: str) -> SeenRun | None:
        """What `path` last answered of the config run of that name; None: it knows of none."""
        ...

    def happened(self, what: str) -> int:
        """How often an event (`boundary.events`, by class name) has been told by any agent."""
        ...

    def measured(self, what: str, since: int) -> float:
        """A rate per agent and second over the time since `since`: 'messages' (datagrams and messages) or 'bytes'.

        'terms' is no rate: by how much the highest term of the store grew since then."""
        ...

    def requests(self, services: Sequence[str], agents: Sequence[Path], since: int, until: int) -> SeenRequests:
        """What callers of `services` (none named: of any) that ask one of `agents` saw, of calls begun in [since, until)."""
        ...
