"""Routing: how what this agent is asked gets to a server that can answer, and the answer back.

A request is sent to whoever can answer it: this agent where it leads, the leader, or the nearest server, which passes it on
once.  It is sent again, with the same number, when the link ends, the leader changes, or nothing is heard; the store does a
number of one start once, however often it is sent.  An agent that takes a higher boot is another asker, so what may have been
done is not asked again under the new one.

Invariant: every request is answered exactly once unless it is cancelled: with its result, with `Refused` when it certainly
was not done, with `Uncertain` when it may have been.  Nobody waits for an election that does not come: after `LEADERLESS`
the answer is at once who is missing.  An answer of another kind than was asked for is a peer's mistake, and dropped.
"""

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from dislocate.core.boundary.requests import Done, Refused, Result
from dislocate.core.boundary.runs import AskGrant, Granted, ReportTask, RunStarted, StartRun, SteerRun
from dislocate.core.boundary.scaling import BeginScale, ReportScale
from dislocate.core.boundary.store import (
    AddServer,
    Compacted,
    GrantLease,
    KeepLeaseAlive,
    KeysChanged,
    KeysRead,
    LeaseStanding,
    ReadKeys,
    ReadLease,
    RemoveServer,
    RevokeLease,
    StoreRequest,
    Transact,
    Transacted,
    TransferLeadership,
    Uncertain,
    WatchKeys,
)
from dislocate.core.catalog.validation import refused
from dislocate.core.errors import LocalError
from dislocate.core.identity import NodeId
from dislocate.core.outbox import Outbox, Timer
from dislocate.core.store.commands import RestoreChunk
from dislocate.core.store.messages import Answered, Asked, AskingEnded, BackupPart, BackupSlice, StoreAsk
from dislocate.core.store.validation import check_request
from dislocate.core.tunables import (
    ASK_RETRY_MAX,
    ASK_RETRY_MIN,
    ASK_SILENCE,
    ASK_WITHIN,
    ASKS_AT_ONCE,
    CHANGE_WITHIN,
)
from dislocate.core.units import MILLISECOND

SWEEP_PERIOD = 250 * MILLISECOND
CHANGES = (
    Transact,
    GrantLease,
    RevokeLease,
    RestoreChunk,
    AddServer,
    RemoveServer,
    TransferLeadership,
    StartRun,
    SteerRun,
    AskGrant,
    ReportTask,
    BeginScale,
    ReportScale,
)
WAITS = (WatchKeys,)  # as long as the asker does
SLOW = (AddServer, RemoveServer, TransferLeadership, BackupPart)  # take their time: silence is no reason to ask again
RESULTS: dict[type, tuple[type, ...]] = {
    Transact: (Transacted,),
    ReadKeys: (KeysRead,),
    WatchKeys: (KeysChanged, Compacted),
    GrantLease: (LeaseStanding,),
    KeepLeaseAlive: (LeaseStanding,),
    ReadLease: (LeaseStanding,),
    RevokeLease: (Done,),
    AddServer: (Done,),
    RemoveServer: (Done,),
    TransferLeadership: (Done,),
    BackupPart: (BackupSlice,),
    RestoreChunk: (Done, Transacted),
    StartRun: (RunStarted,),
    SteerRun: (Done,),
    AskGrant: (Granted,),
    ReportTask: (Done,),
    BeginScale: (Done,),
    ReportScale: (Done,),
}


class RetryDue(Timer, frozen=True):
    """Send again what could not be sent or answered."""


class SweepDue(Timer, frozen=True):
    """See who has waited for too long."""


class Asking(Struct, eq=False):
    """One request under way."""

    seq: int
    request: StoreAsk
    then: Callable[[Result | BackupSlice], None]
    ends: int
    by: NodeId  # who this agent was when it was sent first
    sent_to: NodeId | None = None  # None: to nobody yet, or it came back
    sent_at: int = 0
    attempts: int = 0
    doubt: bool = False  # an earlier sending may still take effect
    reason: str = ""


class Router:
    """What one agent is asking."""

    def __init__(self, out: Outbox) -> None:
        # Set by `part`: who answers this now (None: nobody, for the moment), and why nobody will (empty: somebody might).
        self.target: Callable[[StoreAsk], NodeId | None] = lambda _request: None
        self.problem: Callable[[StoreAsk], str] = lambda _request: ""
        self.serve: Callable[[Asked], None] = lambda _asked: None  # this agent is the server that answers
        self.ended: Callable[[NodeId, int], None] = lambda _asker, _seq: None  # a wait that it serves itself is over
        self.turned_away: Callable[[NodeId], None] = lambda _server: None  # it will not help for a while
        self.send: Callable[[NodeId, Asked], None] = out.send_message  # may wait for others that go to the same server
        self._out = out
        self._seq = 0
        self._asking: dict[int, Asking] = {}
        self._changes: dict[int, None] = {}  # numbers of those that change something, in order
        self._by_request: dict[int, int] = {}  # request id -> seq
        self._retries: dict[int, None] = {}
        self._retry_armed = False
        self._sweep_armed = False

    def timers(self) -> dict[type, Callable[[Any], None]]:
        return {RetryDue: self._retry, SweepDue: self._sweep}

    # ---- requests of this host

    def request(self, request_id: int, request: StoreRequest) -> None:
        """Answered by one `Reply`."""

        def then(result: Result | BackupSlice) -> None:
            assert not isinstance(result, BackupSlice)
            self._by_request.pop(request_id, None)
            self._out.reply(request_id, result)

        try:
            check_request(request)
        except LocalError as error:
            self._out.reply(request_id, refused(error))
            return
        asking = self.ask(request, then)
        if asking is not None:
            self._by_request[request_id] = asking

    def cancel(self, request_id: int) -> None:
        """Nobody waits for this reply any more; what was sent may be done all the same."""
        seq = self._by_request.pop(request_id, None)
        asking = None if seq is None else self._asking.get(seq)
        if asking is None:
            return
        if isinstance(asking.request, WAITS) and asking.sent_to is not None:
            if asking.sent_to.path == self._out.node.path:
                self.ended(asking.sent_to, asking.seq)
            else:
                self._out.send_message(asking.sent_to, AskingEnded(asking.seq))
        self._forget(asking)

    def ask(self, request: StoreAsk, then: Callable[[Result | BackupSlice], None]) -> int | None:
        """Ask for this agent itself.  The number of the asking; None when it has been answered."""
        if len(self._asking) >= ASKS_AT_ONCE:
            then(Refused("unavailable", "store", f"this agent waits for {ASKS_AT_ONCE} answers: ask again later"))
            return None
        self._seq += 1
        within = CHANGE_WITHIN if isinstance(request, SLOW) else ASK_WITHIN
        asking = Asking(self._seq, request, then, self._out.now + within, self._out.node)
        self._asking[asking.seq] = asking
        if isinstance(request, CHANGES):
            self._changes[asking.seq] = None
        self._send(asking)
        if not self._sweep_armed:
            self._sweep_armed = True
            self._out.arm(self._out.now + SWEEP_PERIOD, SweepDue())
        return asking.seq if asking.seq in self._asking else None

    # ---- sending

    def _send(self, asking: Asking) -> None:
        asking.attempts += 1
        if asking.by != self._out.node:
            if asking.doubt and isinstance(asking.request, CHANGES):
                self._give_up(asking, "this agent took a higher boot: nobody would know the asking again")
                return
            asking.by = self._out.node
        if asking.doubt and isinstance(asking.request, TransferLeadership) and not asking.request.path:
            self._give_up(
                asking, "leadership moved, or will: see `dislocate servers list`"
            )  # asked again it would move on
            return
        node = self.target(asking.request)
        if node is None:
            problem = self.problem(asking.request)
            if problem:
                self._give_up(asking, problem)
            else:
                self._retry_later(asking)
            return
        asking.sent_to, asking.sent_at = node, self._out.now
        floor = next(iter(self._changes), self._seq + 1)
        asked = Asked(asking.seq, floor, asking.request)
        if node == self._out.node:
            self.serve(asked)
        elif isinstance(asking.request, WAITS):
            self._out.send_message(node, asked)  # at once: `AskingEnded` must not overtake it
        else:
            self.send(node, asked)

    def _retry_later(self, asking: Asking) -> None:
        asking.sent_to = None
        self._retries[asking.seq] = None
        if not self._retry_armed:
            self._retry_armed = True
            wait = min(ASK_RETRY_MAX, ASK_RETRY_MIN << min(max(0, asking.attempts - 1), 10))
            self._out.arm(self._out.now + wait, RetryDue())

    def _retry(self, _timer: RetryDue) -> None:
        self._retry_armed = False
        self.retry_now()

    def retry_now(self) -> None:
        """There is a link or a leader that there was not."""
        retries, self._retries = self._retries, {}
        for seq in sorted(retries):  # in the order in which they were asked
            asking = self._asking.get(seq)
            if asking is not None and asking.sent_to is None:
                self._send(asking)

    def link_lost(self, node: NodeId) -> None:
        """What was sent there may have arrived, or not."""
        for asking in [one for one in self._asking.values() if one.sent_to == node]:
            asking.doubt = True
            self._retry_later(asking)

    def sent_to(self, node: NodeId) -> bool:
        """Whether anything asked there waits for its answer."""
        return any(one.sent_to == node for one in self._asking.values())

    # ---- answers

    def answered(self, sender: NodeId, answered: Answered) -> None:
        """What `sender` says to one of the askings, whichever sending of it that answers."""
        asking = self._asking.get(answered.seq)
        if asking is None:
            return
        result = answered.result
        if result is not None and not isinstance(result, (Refused, Uncertain, *RESULTS[type(asking.request)])):
            self._out.drop(sender.path, f"{type(result).__name__} is no answer to {type(asking.request).__name__}")
            return
        asking.doubt |= answered.doubt
        if result is None:
            asking.reason = answered.reason
            if answered.elsewhere:
                self.turned_away(sender)
            if asking.sent_to in (sender, None) or sender.path == self._out.node.path:
                self._retry_later(asking)
        elif isinstance(result, Refused) and (result.kind == "unavailable" or answered.unlogged):
            if asking.doubt and result.kind == "unknown" and isinstance(asking.request, RemoveServer):
                result = Done()  # it went at the first asking
                self._forget(asking)
                asking.then(result)
            else:
                self._refuse(asking, result)
        else:
            self._forget(asking)
            asking.then(result)

    def _give_up(self, asking: Asking, reason: str) -> None:
        self._refuse(asking, Refused("unavailable", "store", reason))

    def _refuse(self, asking: Asking, refused: Refused) -> None:
        """It was not done now; an earlier sending of it may have been, or may still be."""
        self._forget(asking)
        if asking.doubt and isinstance(asking.request, CHANGES):
            asking.then(Uncertain(refused.reason))
        else:
            asking.then(refused)

    def _forget(self, asking: Asking) -> None:
        del self._asking[asking.seq]
        self._changes.pop(asking.seq, None)
        self._retries.pop(asking.seq, None)

    def _sweep(self, _timer: SweepDue) -> None:
        now = self._out.now
        for asking in list(self._asking.values()):
            if isinstance(asking.request, WAITS):
                continue
            silent = asking.sent_to is not None and now - asking.sent_at >= ASK_SILENCE
            if now >= asking.ends:
                asking.doubt |= asking.sent_to is not None
                self._give_up(asking, asking.reason or "no server answered in time")
            elif silent and not isinstance(asking.request, SLOW):
                asking.doubt = True
                if asking.sent_to is not None:
                    self.turned_away(asking.sent_to)
                self._retry_later(asking)
        self._sweep_armed = bool(self._asking)
        if self._sweep_armed:
            self._out.arm(now + SWEEP_PERIOD, SweepDue())
