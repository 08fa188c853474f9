"""Feature levels: how the servers come to apply what older versions cannot.

Every agent tells the highest level that it speaks with each `GroupTold`.  When all servers of the configuration speak a
higher one than the log has, the leader proposes it; from that entry on the log may hold what lower versions cannot apply.

Invariant: a level is logged only after every server was heard to speak it, and never falls.  Whoever speaks less than what is
logged ends its part (`replica`); an agent that does is not let in (`changing`).
"""

from collections.abc import Callable

from dislocate.core.consensus.messages import ServerId
from dislocate.core.consensus.quorum import servers_of
from dislocate.core.identity import Path
from dislocate.core.outbox import Outbox
from dislocate.core.store.commands import Command, SetFeatureLevel, encode_command
from dislocate.core.store.messages import GroupTold
from dislocate.core.store.replica import Replica
from dislocate.core.units import SECOND

ASK_PERIOD = 10 * SECOND  # an upgrade is a matter of minutes


class Levels:
    """What a leader knows of the levels that the servers speak."""

    def __init__(self, out: Outbox, replica: Replica, ask: Callable[[Path], bool]) -> None:
        self._out = out
        self._replica = replica
        self._ask = ask
        self._spoken: dict[ServerId, int] = {}
        self._asked_at = -ASK_PERIOD
        self._proposed = 0

    def tick(self) -> None:
        """About each second, while this server leads: is there anything to be switched on?"""
        replica = self._replica
        if replica.level <= replica.machine.feature_level or replica.has_ended:
            return
        if self._out.now - self._asked_at >= ASK_PERIOD:
            self._asked_at = self._out.now
            for server in servers_of(replica.raft.configuration):
                if server != replica.me:
                    self._ask(server.path)
        self._propose()

    def told(self, path: Path, told: GroupTold) -> None:
        if told.disk:
            servers = servers_of(self._replica.raft.configuration)
            server = ServerId(path, told.disk)
            self._spoken = {one: level for one, level in self._spoken.items() if one in servers}
            if server in servers:
                self._spoken[server] = told.level

    def _propose(self) -> None:
        replica = self._replica
        spoken = {**self._spoken, replica.me: replica.level}
        level = min(spoken.get(server, 0) for server in servers_of(replica.raft.configuration))
        if level <= max(replica.machine.feature_level, self._proposed):
            return
        if replica.propose(encode_command(Command(SetFeatureLevel(level)))) is not None:
            self._proposed = level

    def deposed(self) -> None:
        """What was proposed may be lost; what others said may be old when this server leads again."""
        self._proposed = 0
        self._spoken.clear()
        self._asked_at = -ASK_PERIOD
