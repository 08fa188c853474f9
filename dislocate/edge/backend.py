"""What the edge needs of the agent behind it: snapshots, requests, events.  The driver is one; tests bring their own."""

from collections.abc import Callable
from typing import Protocol

from dislocate.core.boundary.events import Event
from dislocate.core.boundary.requests import Request, Result
from dislocate.core.node import Node


class Backend(Protocol):
    """One running agent."""

    node: Node  # only its snapshots are the edge's business

    def request(self, request: Request, timeout: float | None = None) -> Result:
        """Ask the core and wait (this greenlet only) for its answer; after `timeout` seconds the request is cancelled.

        Raises TimeoutError then."""
        ...

    def ask(self, request: Request, then: Callable[[Result], object]) -> int:
        """Ask the core and return at once: `then` is called with its answer, on the hub, where it must not block.

        Returns the id to `cancel` with."""
        ...

    def cancel(self, request_id: int) -> None:
        """Nobody waits for this answer any more; one that was given already is no mistake."""
        ...

    def subscribe(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        """Call `listener` with every event, on the hub, where it must not block; returns how to end that."""
        ...

    def now(self) -> int:
        """The monotonic nanoseconds that the node is driven with."""
        ...
