"""What runs need of the store's part of a node, and of the rest of it: implemented by `store.part`, faked in tests."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from dislocate.core.boundary.store import KeyChange, KeyValue
from dislocate.core.boundary.views import InstanceView
from dislocate.core.identity import Path
from dislocate.core.runs.steps import RunStep
from dislocate.core.store.keys import Keys


class StoreDoor(Protocol):
    """The store as the node's other parts see it."""

    # Told what was applied here (a server) or came from the server that is followed, below `system/` and `policy/`
    # at least.
    listeners: list[Callable[[Sequence[KeyChange]], None]]

    @property
    def leads(self) -> bool:
        """Whether this agent is the server that leads."""
        ...

    @property
    def keys(self) -> Keys | None:
        """What this server has applied; None where this is none."""
        ...

    def propose(self, step: RunStep) -> bool:
        """Put it into the log, where this agent leads.  False: not now."""
        ...

    def ask(self, request: Any, then: Callable[[Any], None]) -> None:
        """Ask the store for this agent itself; `then` is called once with the result, `Refused` or `Uncertain`."""
        ...

    def held(self, prefix: str) -> tuple[KeyValue, ...]:
        """What is here below `prefix`, in 'system/' or 'policy/', without asking anybody."""
        ...


class FleetDoor(Protocol):
    """The fleet as this node sees it."""

    def is_reachable(self, path: Path) -> bool:
        """Whether the node is alive and its data center within reach."""
        ...

    def instances(self, service: str) -> tuple[InstanceView, ...]: ...

    def matching(self, expression: str) -> tuple[Path, ...]:
        """The nodes that an expression of targets selects now, by path."""
        ...
