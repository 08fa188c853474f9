"""Distances: which servers are near, for whom to ask, whom to link to and who should lead.

Within the data center it is no way at all, else the round trip that was measured or estimated; where neither is known, a
server is further than any that is.  Servers that could not help of late come last.
"""

from collections.abc import Callable

from dislocate.core.catalog.ledger import fingerprint
from dislocate.core.consensus.bootstrap import Founding
from dislocate.core.consensus.messages import ServerId
from dislocate.core.identity import Path
from dislocate.core.membership.members import Members
from dislocate.core.outbox import Outbox
from dislocate.core.tunables import SHUNNED_FOR
from dislocate.core.units import SECOND

UNKNOWN_RTT = 3_600 * SECOND


class Distances:
    """How far the servers of the group are from one agent."""

    def __init__(
        self,
        path: Path,
        out: Outbox,
        members: Members,
        founding: Founding,
        rtt: Callable[[str], int | None],
        is_reachable: Callable[[str], bool],
    ) -> None:
        self._path = path
        self._own = path.partition("/")[0]
        self._out = out
        self._members = members
        self._founding = founding
        self._is_reachable = is_reachable  # whether a data center that is not this one is
        self._rtt = rtt  # to a data center, nanoseconds, if it is known
        self._shunned: dict[Path, int] = {}  # servers that cannot help, until when

    def shun(self, server: Path) -> bool:
        """It cannot help for a while: ask others first.  Whether that is news."""
        is_news = self._shunned.get(server, 0) <= self._out.now
        self._shunned[server] = self._out.now + SHUNNED_FOR
        return is_news

    def servers(self) -> list[Path]:
        """The other servers, the nearest first; who is as near as another is chosen by rendezvous hash, so that load
        spreads."""
        self._shunned = {path: until for path, until in self._shunned.items() if until > self._out.now}
        paths = dict.fromkeys(server.path for server in self._founding.members if server.path != self._path)
        return sorted(
            paths, key=lambda path: (path in self._shunned, self._to(path), fingerprint(f"{self._path}>{path}"))
        )

    def living_servers(self) -> list[Path]:
        """Those of them whose agents live, as far as is known."""
        return [path for path in self.servers() if (member := self._members.get(path)) and member.is_living]

    def missing_servers(self) -> list[Path]:
        """Those of them that something keeps others from, as far as is known."""
        return sorted(path for path in self.servers() if self.trouble(path))

    def trouble(self, path: Path) -> str:
        """What keeps others from `path`, as far as an agent knows that is no server; empty: nothing."""
        datacenter, member = path.partition("/")[0], self._members.get(path)
        if datacenter != self._own and not self._is_reachable(datacenter):
            return "cut off"
        if member is None:
            return "unknown"
        return "" if member.is_living else member.state.value

    def living_agents(self) -> list[Path]:
        """All agents, the nearest first."""
        near = sorted(self._members, key=lambda member: (self._to(member.path), member.path))
        return [member.path for member in near if member.is_living]

    def rtt(self, path: Path) -> int:
        """To an agent and back, nanoseconds; 0: next door, or not known."""
        distance = self._to(path)
        return 0 if distance == UNKNOWN_RTT else distance

    def to_majority(self, voters: tuple[ServerId, ...]) -> int:
        """What a server here would wait for a majority of `voters`, nanoseconds."""
        rtts = sorted(self._to(server.path) for server in voters)
        return rtts[len(rtts) // 2] if rtts else 0

    def _to(self, path: Path) -> int:
        datacenter = path.partition("/")[0]
        if datacenter == self._own:
            return 0
        rtt = self._rtt(datacenter)
        return UNKNOWN_RTT if rtt is None else rtt
