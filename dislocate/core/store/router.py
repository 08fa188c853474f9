"""Routing: how what this agent is asked gets to a server that can answer, and the answer back.

A request is sent to whoever can answer it: this agent where it leads, the leader, or the nearest server, which passes it on
once.  It is sent again, with the same number, when the link ends, the leader changes, or nothing is heard; the store does a
number once, however often it is sent.

Invariant: every request is answered exactly once unless it is cancelled: with its result, with `Refused` when it certainly
was not done, with `Uncertain` when it may have been.  Nobody waits for an election that does not come: after `LEADERLESS`
the answer is at once who is missing.
"""

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from dislocate.core.boundary.requests import Refused, Result
from dislocate.core.boundary.store import (
    AddServer,
    GrantLease,
    RemoveServer,
    RevokeLease,
    StoreRequest,
    Transact,
    TransferLeadership,
    Uncertain,
    WatchKeys,
)
from dislocate.core.catalog.validation import refused
from dislocate.core.errors import LocalError
from dislocate.core.identity import NodeId
from dislocate.core.outbox import Outbox, Timer
from dislocate.core.store.commands import RestoreChunk
from dislocate.core.store.messages import Answered, Asked, AskingEnded
from dislocate.core.store.validation import check_request
from dislocate.core.tunables import ASK_RETRY_MAX, ASK_RETRY_MIN, ASK_SILENCE, ASK_WITHIN, ASKS_AT_ONCE
from dislocate.core.units import MILLISECOND

SWEEP_PERIOD = 250 * MILLISECOND
CHANGES = (Transact, GrantLease, RevokeLease, RestoreChunk, AddServer, RemoveServer)
WAITS = (WatchKeys,)  # as long as the asker does
SLOW = (AddServer, RemoveServer, TransferLeadership)  # silence is no reason to ask again


class RetryDue(Timer, frozen=True):
    """Send again what could not be sent or answered."""


class SweepDue(Timer, frozen=True):
    """See who has waited for too long."""


class Asking(Struct, eq=False):
    """One request under way."""

    seq: int
    request: StoreRequest | RestoreChunk
    then: Callable[[Result], None]
    ends: int
    sent_to: NodeId | None = None  # None: to nobody yet, or it came back
    sent_at: int = 0
    attempts: int = 0
    doubt: bool = False  # an earlier sending may still take effect
    reason: str = ""


class Router:
    """What one agent is asking."""

    def __init__(self, out: Outbox) -> None:
        # Set by `part`: who answers this now (None: nobody, for the moment), and why nobody will (empty: somebody might).
        self.target: Callable[[StoreRequest | RestoreChunk], NodeId | None] = lambda _request: None
        self.problem: Callable[[StoreRequest | RestoreChunk], str] = lambda _request: ""
        self.serve: Callable[[Asked], None] = lambda _asked: None  # this agent is the server that answers
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

        def then(result: Result) -> None:
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
            if asking.sent_to == self._out.node:
                self.ended(self._out.node, asking.seq)
            else:
                self._out.send_message(asking.sent_to, AskingEnded(asking.seq))
        self._forget(asking)

    ended: Callable[[NodeId, int], None] = lambda _asker, _seq: None  # a wait that this agent serves itself is over

    def ask(self, request: StoreRequest | RestoreChunk, then: Callable[[Result], None]) -> int | None:
        """Ask for this agent itself.  The number of the asking; None when it has been answered."""
        if len(self._asking) >= ASKS_AT_ONCE:
            then(Refused("unavailable", "store", f"this agent waits for {ASKS_AT_ONCE} answers: ask again later"))
            return None
        self._seq += 1
        asking = Asking(self._seq, request, then, self._out.now + ASK_WITHIN)
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
        else:
            self._out.send_message(node, asked)

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
        for seq in retries:
            asking = self._asking.get(seq)
            if asking is not None and asking.sent_to is None:
                self._send(asking)

    def link_lost(self, node: NodeId) -> None:
        """What was sent there may have arrived, or not."""
        for asking in [one for one in self._asking.values() if one.sent_to == node]:
            asking.doubt = True
            self._retry_later(asking)

    # ---- answers

    def answered(self, answered: Answered) -> None:
        asking = self._asking.get(answered.seq)
        if asking is None:
            return
        asking.doubt |= answered.doubt
        result = answered.result
        if result is None:
            asking.reason = answered.reason
            self._retry_later(asking)
        elif isinstance(result, Refused) and result.kind == "unavailable":
            self._give_up(asking, result.reason)
        else:
            self._forget(asking)
            asking.then(result)

    def _give_up(self, asking: Asking, reason: str) -> None:
        self._forget(asking)
        if asking.doubt and isinstance(asking.request, CHANGES):
            asking.then(Uncertain(reason))
        else:
            asking.then(Refused("unavailable", "store", reason))

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
                self._retry_later(asking)
        self._sweep_armed = bool(self._asking)
        if self._sweep_armed:
            self._out.arm(now + SWEEP_PERIOD, SweepDue())
