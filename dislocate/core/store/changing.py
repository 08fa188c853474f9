"""Changing servers: add, replace, remove, and hand leadership over, as an operator asks the leader to.

To add an agent its disk must be known, so it is asked first; a known name with a new disk takes the place of the old one in
the same joint change.  The answer comes when the change is over, not when it has begun.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

from msgspec import Struct

from dislocate.core.boundary.requests import Done, Refused
from dislocate.core.boundary.store import AddServer, RemoveServer, TransferLeadership
from dislocate.core.consensus.messages import Configuration, ServerId
from dislocate.core.identity import Path
from dislocate.core.outbox import Outbox, Timer
from dislocate.core.store.messages import Answered, Asked
from dislocate.core.store.replica import Replica
from dislocate.core.units import MILLISECOND, SECOND

DISK_WITHIN = 3 * SECOND  # for an agent to say which disk it has
LOOK_PERIOD = 200 * MILLISECOND

Answer: TypeAlias = Callable[[Answered], None]


class ChangeDue(Timer, frozen=True):
    """See how far the changes are."""


class Change(Struct, eq=False):
    """One change under way."""

    seq: int
    request: AddServer | RemoveServer | TransferLeadership
    answer: Answer
    began: int
    has_begun: bool = False  # the log has it


class Changing:
    """The changes that this server, while it leads, works on."""

    def __init__(self, out: Outbox, replica: Replica, ask_disk: Callable[[Path], bool]) -> None:
        self.disks: dict[Path, int] = {}  # as agents said
        self._out = out
        self._replica = replica
        self._ask_disk = ask_disk  # asks an agent; False: it is not known
        self._changes: list[Change] = []
        self._armed = False

    def timers(self) -> dict[type, Callable[[Any], None]]:
        return {ChangeDue: self._look}

    def ask(self, asked: Asked, answer: Answer) -> None:
        request = asked.request
        assert isinstance(request, AddServer | RemoveServer | TransferLeadership)
        if isinstance(request, AddServer):
            self.disks.pop(request.path, None)
            if not self._ask_disk(request.path):
                words = f"no agent {request.path!r} is known here: see `dislocate members`"
                answer(Answered(asked.seq, Refused("unknown", "path", words)))
                return
        self._changes.append(Change(asked.seq, request, answer, self._out.now))
        self.look()

    def deposed(self) -> None:
        """This server leads no more.  A change that is in the log is the next leader's."""
        changes, self._changes = self._changes, []
        for change in changes:
            if isinstance(change.request, TransferLeadership):
                self._changes.append(change)  # that is what it waits for
            else:
                change.answer(Answered(change.seq, None, reason="the leader changed", doubt=change.has_begun))

    def look(self) -> None:
        """Something may have moved."""
        for change in list(self._changes):
            outcome = self._outcome(change)
            if outcome is not None:
                self._changes.remove(change)
                change.answer(Answered(change.seq, outcome))
        if self._changes and not self._armed:
            self._armed = True
            self._out.arm(self._out.now + LOOK_PERIOD, ChangeDue())

    def _look(self, _timer: ChangeDue) -> None:
        self._armed = False
        self.look()

    def _outcome(self, change: Change) -> Done | Refused | None:
        """What is to be answered now; None: not yet."""
        request = change.request
        if isinstance(request, TransferLeadership):
            return self._transferred(change, request)
        wanted = self._wanted(change, request)
        if isinstance(wanted, Refused) or wanted is None:
            return wanted
        configuration = self._replica.raft.configuration
        if configuration.voters == wanted and not configuration.outgoing:
            return Done(self._replica.machine.index)
        if not change.has_begun:
            why_not = self._replica.poke(lambda raft, now: raft.change(wanted, now))
            if why_not:
                return Refused("conflict", "servers", why_not)
            change.has_begun = True
        return None

    def _wanted(self, change: Change, request: AddServer | RemoveServer) -> tuple[ServerId, ...] | Refused | None:
        """The voters that the change leads to."""
        configuration: Configuration = self._replica.raft.configuration
        others = tuple(server for server in configuration.voters if server.path != request.path)
        if isinstance(request, RemoveServer):
            if not change.has_begun and len(others) == len(configuration.voters):
                return Refused("unknown", "path", f"{request.path!r} is no server: see `dislocate servers list`")
            if not others:
                return Refused("conflict", "path", "the last server cannot be removed: add another one first")
            return others
        disk = self.disks.get(request.path, 0)
        if not disk:
            if self._out.now - change.began < DISK_WITHIN:
                return None
            return Refused("unavailable", "path", f"{request.path} does not answer: is its agent running?")
        return tuple(sorted((*others, ServerId(request.path, disk))))

    def _transferred(self, change: Change, request: TransferLeadership) -> Done | Refused | None:
        raft = self._replica.raft
        if not change.has_begun:
            to = next((server for server in raft.configuration.voters if server.path == request.path), None)
            if request.path and to is None:
                return Refused("unknown", "path", f"{request.path!r} does not vote: see `dislocate servers list`")
            why_not = self._replica.poke(lambda raft, now: raft.transfer(to, now))
            if why_not:
                return Refused("conflict", "path", why_not)
            change.has_begun = True
        leader = raft.leader
        if leader is not None and (leader.path == request.path or (not request.path and leader != self._replica.me)):
            return Done(self._replica.machine.index)
        if self._out.now - change.began >= DISK_WITHIN:
            return Refused(
                "unavailable", "path", f"leadership did not move; {leader.path if leader else 'nobody'} leads"
            )
        return None
