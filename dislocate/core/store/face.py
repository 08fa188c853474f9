"""The store's face: what the other parts of a node see of it (`runs.door.StoreDoor`).

Listeners hear of what a server applied, or of what the server that is followed told an agent that is none; an empty list
says that anything may be another than before.  Whoever asks here asks a server, also for what could be read here: a read that
is held would be followed from then on, and what runs read is read once.
"""

from collections.abc import Callable, Sequence
from typing import Any

from dislocate.core.boundary.store import KeyChange, KeyValue
from dislocate.core.catalog.validation import refused
from dislocate.core.errors import LocalError
from dislocate.core.runs.steps import RunStep
from dislocate.core.store.commands import Command, encode_command
from dislocate.core.store.keys import Keys
from dislocate.core.store.near import Near
from dislocate.core.store.router import Router
from dislocate.core.store.server import Server
from dislocate.core.store.validation import check_request
from dislocate.core.tunables import RUNS_LEVEL


class StoreFace:
    """One agent's store."""

    def __init__(self, router: Router, near: Near, server: Callable[[], Server | None]) -> None:
        self.listeners: list[Callable[[Sequence[KeyChange]], None]] = []
        self._router = router
        self._near = near
        self._server = server
        near.told = self.tell

    def tell(self, changes: Sequence[KeyChange]) -> None:
        """This changed; nothing: anything may have."""
        for listener in self.listeners:
            listener(changes)

    @property
    def leads(self) -> bool:
        """Whether this agent is the server that leads."""
        server = self._server()
        return server is not None and server.leads

    @property
    def keys(self) -> Keys | None:
        """What this server has applied; None where this is none."""
        server = self._server()
        return None if server is None or server.problem else server.replica.machine.keys

    def propose(self, step: RunStep) -> bool:
        """Put it into the log, where this agent leads and all servers understand it.  False: not now."""
        server = self._server()
        if server is None or not server.leads or server.replica.is_full:
            return False
        if server.replica.machine.feature_level < RUNS_LEVEL:
            return False
        return server.replica.propose(encode_command(Command(step))) is not None

    def ask(self, request: Any, then: Callable[[Any], None]) -> None:
        """Ask the store for this agent itself; `then` is called once with the result, `Refused` or `Uncertain`."""
        try:
            check_request(request)
        except LocalError as error:
            then(refused(error))
            return
        self._router.ask(request, then)

    def held(self, prefix: str) -> tuple[KeyValue, ...]:
        """What is here below `prefix`, in one of `following.ALWAYS`, without asking anybody."""
        keys = self.keys
        return tuple(keys.below(prefix)) if keys is not None else self._near.held(prefix)
