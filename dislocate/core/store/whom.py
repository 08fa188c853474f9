"""Whom to ask: the server that can answer a request now, or why nobody will for a while.

A request waits only while somebody may answer it in a moment: an election, a link that is being dialled.  After `LEADERLESS`
the answer is at once who is missing.  Holds no links and sends nothing.
"""

from collections.abc import Callable, Sequence

from dislocate.core.boundary.settings import Settings
from dislocate.core.consensus.bootstrap import Founding
from dislocate.core.identity import NodeId, Path
from dislocate.core.outbox import Outbox
from dislocate.core.store.asks import is_for_any
from dislocate.core.store.distances import Distances
from dislocate.core.store.messages import StoreAsk
from dislocate.core.store.near import Near
from dislocate.core.store.server import Server
from dislocate.core.store.serverlinks import ServerLinks
from dislocate.core.tunables import LEADERLESS

NO_STORE = "this fleet has no store: name its servers, as [store] servers = [...], in every agent's configuration"


class Whom:
    """Where one agent's requests go."""

    def __init__(
        self,
        settings: Settings,
        out: Outbox,
        links: ServerLinks,
        founding: Founding,
        distances: Distances,
        near: Near,
        server: Callable[[], Server | None],
    ) -> None:
        self.out_of_reach_since: int | None = None  # no server is linked here; None: one is
        self._settings = settings
        self._path = settings.node.path
        self._out = out
        self._links = links
        self._founding = founding
        self._distances = distances
        self._near = near
        self._server = server

    def target(self, request: StoreAsk) -> NodeId | None:
        """Who can answer `request` now."""
        server = self._server()
        if server is None or server.problem:
            return self.another()
        if is_for_any(request) or server.leads:
            return self._out.node
        if server.leader is None:
            return self.another(server.missing()) if server.why_not_now() else None
        return self._links.node(server.leader.path)

    def another(self, missing: Sequence[Path] = ()) -> NodeId | None:
        """Another server that is linked here and not `missing`, the nearest: where this one has lost the leader, that one
        may have it."""
        linked = (self._links.node(path) for path in self._distances.servers() if path not in missing)
        return next((node for node in linked if node is not None), None)

    def problem(self, request: StoreAsk) -> str:
        """Why nobody will answer for a while; empty: somebody may in a moment."""
        if self._founding.group is None:
            return self._unfounded() or ("" if self._settings.servers else NO_STORE)
        server = self._server()
        if server is not None and not server.problem:
            return server.why_not_now()
        return self._out_of_reach()

    def unled(self) -> str:
        """Why nobody writes for this agent, which is no server; empty: somebody does, or may in a moment, or it knows of no
        store."""
        if self._server() is not None:
            return ""
        if self._founding.group is None:
            return self._unfounded()
        server = self._near.leaderless(LEADERLESS)
        if (problem := self._out_of_reach()) or server is None:
            return problem
        gone = ", ".join(self._distances.missing_servers())
        missing = f"; missing: {gone}" if gone else "; `dislocate store status` there says who is missing"
        return f"{server} knows no server that leads{missing} (as seen from {self._path}); writes go on when one does"

    def _out_of_reach(self) -> str:
        """Why no server can be asked for a while; empty: one can, or may in a moment."""
        since = self.out_of_reach_since
        if since is None or self._out.now - since < LEADERLESS:
            return ""
        servers = ", ".join(dict.fromkeys(member.path for member in self._founding.members))
        return f"no server of the store can be reached from {self._path}: {servers} do not answer"

    def _unfounded(self) -> str:
        """Why there is no group yet, where there is to be one; empty: there may be in a moment."""
        if self._founding.problem or not self._settings.servers:
            return self._founding.problem
        since = self.out_of_reach_since
        if since is not None and self._out.now - since < LEADERLESS:
            return ""
        return (
            f"the store is not founded yet: all of {', '.join(self._settings.servers)} must have been up together once"
        )
