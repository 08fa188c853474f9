"""Changing servers: add, replace, remove, and hand leadership over, as an operator asks the leader to.

To add an agent its disk must be known, so it is asked first, again and again; a known name with a new disk takes the place of
the old one in the same joint change.  The answer comes when the change is committed, not when it has begun; one that was
called off is answered with why.  A change that could not begin for a moment (an election, another change) waits a little.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

from msgspec import Struct

from dislocate.core.boundary.requests import Done, Refused
from dislocate.core.boundary.store import AddServer, RemoveServer, TransferLeadership
from dislocate.core.consensus.messages import Configuration, ServerId
from dislocate.core.consensus.quorum import servers_of
from dislocate.core.consensus.troubles import KEEP_ONE
from dislocate.core.identity import Path
from dislocate.core.outbox import Outbox, Timer
from dislocate.core.store.messages import Answered, Asked, GroupTold
from dislocate.core.store.replica import Replica
from dislocate.core.units import MILLISECOND, SECOND

BEGIN_WITHIN = 5 * SECOND  # for an agent to say which disk it has, and for what is in the way of a change
TRANSFER_WITHIN = 3 * SECOND
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
    wanted: tuple[ServerId, ...] = ()  # the voters that it leads to; empty: it has not begun
    has_begun: bool = False  # the log has it, or the other server was told to lead


class Changing:
    """The changes that this server, while it leads, works on."""

    def __init__(self, out: Outbox, replica: Replica, ask_disk: Callable[[Path], bool]) -> None:
        self._disks: dict[Path, int] = {}  # of those that are to be added, as they said
        self._objections: dict[Path, str] = {}  # why one that was asked cannot be added
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
            self._disks.pop(request.path, None)
            self._objections.pop(request.path, None)
            if not self._ask_disk(request.path):
                words = f"no agent {request.path!r} is known here: see `dislocate members`"
                answer(Answered(asked.seq, Refused("unknown", "path", words), unlogged=True))
                return
        self._changes.append(Change(asked.seq, request, answer, self._out.now))
        self.look()

    def told(self, path: Path, told: GroupTold) -> None:
        """An agent says which disk it has, and more."""
        if not any(isinstance(one.request, AddServer) and one.request.path == path for one in self._changes):
            return
        server = ServerId(path, told.disk)
        configuration = self._replica.raft.configuration
        objection = ""
        if told.group is not None and told.group.uuid != self._replica.group.uuid:
            objection = f"{path} belongs to another store ({told.group.uuid.hex()}): wipe its state directory first"
        elif told.group is not None and told.group.splits_from(self._replica.group):
            objection = f"{path} belongs to another branch of this store, which was recovered by force too.  {KEEP_ONE}"
        elif told.level < self._replica.machine.feature_level:
            needed = self._replica.machine.feature_level
            objection = f"{path} speaks feature level {told.level}, the store {needed}: upgrade it first"
        elif told.group is not None and told.group != self._replica.group:
            return  # it is about to learn of a recovery, and to be another disk
        elif not told.disk or (server in told.members and server not in servers_of(configuration)):
            return  # it has no disk yet, or does not know yet that it was removed: its next answer names another
        if objection:
            self._objections[path] = objection
        else:
            self._disks[path] = told.disk
        self.look()

    def deposed(self) -> None:
        """This server leads no more.  A change that is in the log is the next leader's."""
        changes, self._changes = self._changes, []
        for change in changes:
            if isinstance(change.request, TransferLeadership):
                self._changes.append(change)  # that is what it waits for
            elif change.has_begun and self._is_committed(change.wanted):
                change.answer(Answered(change.seq, Done(self._replica.machine.index)))
            else:
                change.answer(Answered(change.seq, None, reason="the leader changed", doubt=change.has_begun))

    def end(self) -> None:
        """This server takes no part any more."""
        self.deposed()
        changes, self._changes = self._changes, []
        for change in changes:
            change.answer(Answered(change.seq, None, reason="the leader ended its part", doubt=True))

    def _is_committed(self, wanted: tuple[ServerId, ...]) -> bool:
        raft = self._replica.raft
        configuration = raft.configuration_at(raft.commit)
        return configuration.voters == wanted and not configuration.outgoing

    def look(self) -> None:
        """Something may have moved."""
        for change in list(self._changes):
            outcome = self._outcome(change)
            if outcome is not None:
                self._changes.remove(change)
                change.answer(Answered(change.seq, outcome, unlogged=isinstance(outcome, Refused)))
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
        raft = self._replica.raft
        if not change.has_begun:
            wanted = self._wanted(change, request)
            if not isinstance(wanted, tuple):
                return wanted
            if self._is_committed(wanted):
                return Done(self._replica.machine.index)
            why_not = self._replica.poke(lambda raft, now: raft.change(wanted, now))
            if why_not:
                return self._wait(change, Refused("conflict", "servers", why_not))
            change.wanted, change.has_begun = wanted, True
        if self._is_committed(change.wanted):
            return Done(self._replica.machine.index)
        if not raft.change_goal and not raft.configuration.outgoing:
            return Refused("unavailable", "path", raft.change_problem or "the change was called off: ask again")
        return None

    def _wait(self, change: Change, refused: Refused) -> Refused | None:
        """Not now: perhaps in a moment."""
        return refused if self._out.now - change.began >= BEGIN_WITHIN else None

    def _wanted(self, change: Change, request: AddServer | RemoveServer) -> tuple[ServerId, ...] | Refused | None:
        """The voters that the change leads to."""
        configuration: Configuration = self._replica.raft.configuration
        path = request.path
        others = tuple(server for server in configuration.voters if server.path != path)
        if isinstance(request, RemoveServer):
            if len(others) == len(configuration.voters) and not configuration.outgoing:
                return Refused("unknown", "path", f"{path!r} is no server: see `dislocate servers list`")
            if not others:
                return Refused("conflict", "path", "the last server cannot be removed: add another one first")
            return others
        if objection := self._objections.get(path):
            return Refused("conflict", "path", objection)
        me = self._replica.me
        disk = me.disk if path == me.path else self._disks.get(path, 0)
        if not disk:
            self._ask_disk(path)
            return self._wait(change, Refused("unavailable", "path", f"{path} does not answer: is its agent running?"))
        return tuple(sorted((*others, ServerId(path, disk))))

    def _transferred(self, change: Change, request: TransferLeadership) -> Done | Refused | None:
        raft, me = self._replica.raft, self._replica.me
        leader = raft.leader
        if leader is not None and (leader.path == request.path or (not request.path and leader != me)):
            return Done(self._replica.machine.index)
        if not change.has_begun:
            to = next((server for server in raft.configuration.voters if server.path == request.path), None)
            if request.path and to is None:
                return Refused("unknown", "path", f"{request.path!r} does not vote: see `dislocate servers list`")
            why_not = self._replica.poke(lambda raft, now: raft.transfer(to, now))
            if why_not:
                return Refused("conflict", "path", why_not)
            change.has_begun = True
        if self._out.now - change.began < TRANSFER_WITHIN:
            return None
        return Refused("unavailable", "path", f"leadership did not move; {leader.path if leader else 'nobody'} leads")
