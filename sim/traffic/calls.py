"""Calls: begun, sent, answered or given up, and tried again as far as the policy pays for it.

Invariant: begun = ended + under way.  An attempt that was given up may still be answered: nobody listens.  A connection
that was refused is tried elsewhere and counts as no attempt.  Does not know how requests travel (`Wire`) nor who chooses
(`Chooser`); the engine and the simulated fleet are two of each.
"""

from collections import deque
from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from dislocate.core.units import MILLISECOND, SECOND
from sim.schedule import Schedule
from sim.traffic.balancer import Call, Caller, Ended, Place
from sim.traffic.measures import FAILED
from sim.traffic.station import Answer

SWEEP = 10 * MILLISECOND  # timeouts are found so often
TRIES = 10  # of a call, refused connections included

ENDED = {
    Answer.SERVED: Ended.OK,
    Answer.FAILED: Ended.FAILED,
    Answer.TURNED_AWAY: Ended.FAILED,
    Answer.LOST: Ended.FAILED,
}


class Chooser(Protocol):
    """The part of a `Balancer` that a call needs."""

    def choose(self, call: Call, now: int, *, retry: bool) -> Place | None: ...
    def done(self, call: Call, now: int, ended: Ended) -> None: ...


class Wire(Protocol):
    """The way to a place and back."""

    def send(self, call: Call, attempt: int, place: Place) -> bool:
        """Let a request travel; its end is told by `Calls.replied`.  False: nothing can come back."""
        ...


class Patience(Struct, frozen=True):
    """How long callers wait, and how often they try."""

    call: int = 10 * SECOND  # with all of its attempts
    attempt: int = 10 * SECOND
    connect: int = 1 * SECOND  # where nothing comes back
    attempts: int = 3


class Calls:
    """All calls of one run, or of one workload."""

    def __init__(
        self,
        schedule: Schedule,
        chooser: Chooser,
        wire: Wire,
        patience: Patience,
        ended: Callable[[Call, int], None],
    ) -> None:
        """`ended` is told of each call where it was served: the number of the data center, or FAILED."""
        self._schedule = schedule
        self._chooser = chooser
        self._wire = wire
        self.patience = patience  # may be replaced at any time
        self._ended = ended
        self._sent: deque[tuple[int, Call, int]] = deque()  # (until, call, attempt)
        self._connecting: deque[tuple[int, Call, int]] = deque()  # of those to whom nothing can come back
        self.begun = self.ended = self.attempts = 0
        schedule.call(schedule.now + SWEEP, self._sweep, None)

    def begin(self, caller: Caller, key: str) -> None:
        """A call, now."""
        self.begun += 1
        caller.begun += 1
        self._attempt(Call(caller, self._schedule.now, key), retry=False)

    def replied(self, call: Call, attempt: int, ended: Ended) -> None:
        """An attempt has ended, as its caller sees it."""
        if call.attempt != attempt:
            return  # it was given up, and perhaps tried again
        now, place, patience = self._schedule.now, call.place, self.patience
        assert place is not None  # it was sent to somebody
        self._chooser.done(call, now, ended)
        if ended is Ended.OK:
            self._over(call, place.home)
            return
        is_refused = ended is Ended.REFUSED
        call.counted += not is_refused
        call.tried += (place,)
        if call.counted >= patience.attempts or len(call.tried) >= TRIES or now - call.begun >= patience.call:
            self._over(call, FAILED)
        else:
            self._attempt(call, retry=not is_refused)

    def _attempt(self, call: Call, *, retry: bool) -> None:
        now = self._schedule.now
        place = self._chooser.choose(call, now, retry=retry)
        if place is None:
            self._over(call, FAILED)
            return
        self.attempts += 1
        call.caller.retried += retry
        call.attempt = attempt = call.attempt + 1
        call.place = place
        call.sent = now
        if self._wire.send(call, attempt, place):
            self._sent.append((now + self.patience.attempt, call, attempt))
        else:
            self._connecting.append((now + self.patience.connect, call, attempt))

    def _over(self, call: Call, where: int) -> None:
        call.attempt = -1
        self.ended += 1
        self._ended(call, where)

    def _sweep(self, _: None, __: None, ___: None) -> None:
        now = self._schedule.now
        for line, ended in ((self._sent, Ended.TIMED_OUT), (self._connecting, Ended.REFUSED)):
            while line and line[0][0] <= now:
                _until, call, attempt = line.popleft()
                self.replied(call, attempt, ended)
        self._schedule.call(now + SWEEP, self._sweep, None)
