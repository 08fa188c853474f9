"""The books of one caller and one service: what it did, second by second.

The retry budget and the throttle follow from them, and agents are told what they say.  Calls are counted by what is in
flight and what ended at each endpoint, whenever somebody asks, so that a pick need not count.
"""

from collections import deque
from collections.abc import Mapping
from itertools import islice

from dislocate.core.balance.budget import RetryBudget
from dislocate.core.balance.endpoint import Endpoint
from dislocate.core.balance.errors import RetriesSpent
from dislocate.core.balance.throttle import WINDOW, Throttle
from dislocate.core.boundary.balance import Retries, Usage
from dislocate.core.tunables import OUTCOMES_TOLD
from dislocate.core.units import MILLISECOND, SECOND

LONG_AGO = -(1 << 62)
LEAST_TOLD = 10 * MILLISECOND  # rates over less say nothing
RECOUNTED_EACH = SECOND // 10  # calls of this second, where the budget depends on them


class Books:
    """Invariant: first attempts are those in flight, those that ended and those that got nobody, less the retries."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._endpoints: Mapping[str, Endpoint] = {}
        self.kept = self._kept_before = 0  # first attempts that got nobody
        self.reached = 0  # calls under way whose connection was made
        self.moot = self._moot_before = 0  # calls that burdened nobody: refused connections, cancelled ones
        self._picks_departed = self._accepted_departed = 0  # of endpoints that are no more
        self._begun_before = self._begun_told = 0  # first attempts until this second, and until they were told
        self._retried = self._retried_before = self._retried_told = 0
        self._accepted_before = 0
        self._told_at: int | None = None
        self._budget = RetryBudget()
        self._calls = self._calls_before = 0  # first attempts that got somebody: in this second, and before
        self._counted_at = LONG_AGO
        self._throttle = Throttle()
        self._sent: deque[int] = deque(maxlen=WINDOW)  # calls of each second, the latest first

    @property
    def throttled(self) -> float:
        """The part of calls that is kept back, 0..1."""
        return self._throttle.part

    def begin(self, now: int) -> None:
        """The first route came."""
        if self._told_at is None:
            self._told_at = now

    def settle(self, endpoints: Mapping[str, Endpoint]) -> None:
        """These there are from now on; what was done at others stays done."""
        for key, endpoint in self._endpoints.items():
            if endpoints.get(key) is not endpoint:
                self._picks_departed += endpoint.pending + endpoint.ended
                self._accepted_departed += endpoint.succeeded
        self._endpoints = endpoints

    def take_token(self, now: int, policy: Retries) -> None:
        """A call is tried again.  Raises `RetriesSpent`."""
        if not self._budget.take(policy, self._calls):
            if not 0 <= now - self._counted_at < RECOUNTED_EACH:
                self._calls, self._counted_at = self._begun() - self.kept - self._calls_before, now
            if not self._budget.take(policy, self._calls):
                allowed = self._budget.allowed(policy, self._calls)
                raise RetriesSpent(self._service, self._budget.spent(), allowed)
        self._retried += 1

    def usage(self, now: int) -> Usage | None:
        """What was done since this was last asked; None: nothing."""
        elapsed = now - self._told_at if self._told_at is not None else 0
        if elapsed < LEAST_TOLD:
            self._told_at = now if elapsed < 0 else self._told_at
            return None
        total = self._begun()
        begun, retried = total - self._begun_told, self._retried - self._retried_told
        outcomes = [told for endpoint in self._endpoints.values() if (told := endpoint.outcomes()) is not None]
        self._told_at = now
        if not begun and not retried and not outcomes:
            return None
        self._begun_told, self._retried_told = total, self._retried
        outcomes.sort(key=lambda told: (-told.calls, told.node, told.instance))
        scale = SECOND / elapsed
        return Usage(self._service, begun * scale, retried * scale, tuple(outcomes[:OUTCOMES_TOLD]))

    def turn(self, whole: int, throttle: float, timeout: float) -> int:
        """`whole` seconds are over; returns the calls that were sent in them.  `throttle` is the policy's K, `timeout` the
        seconds that a call takes while none ended."""
        begun = self._begun()
        succeeded = sum(endpoint.succeeded for endpoint in self._endpoints.values())
        accepted = self._accepted_departed + succeeded + self.reached
        kept = self.kept - self._kept_before
        calls = max(0, begun - self._begun_before - kept)
        self._calls, self._calls_before = 0, begun - self.kept
        sent = max(0, calls + self._retried - self._retried_before - (self.moot - self._moot_before))
        self._budget.turn(whole, calls)
        in_flight = sum(endpoint.pending for endpoint in self._endpoints.values())
        self._sent.extendleft([sent, *[0] * (min(whole, WINDOW) - 1)])
        excused = min(in_flight, self._sent_within(self._usual(timeout)))
        accepts = max(0, accepted - self._accepted_before)
        self._throttle.turn(whole, sent + kept, sent, accepts, excused, throttle)
        self._begun_before, self._accepted_before = begun, accepted
        self._retried_before, self._kept_before, self._moot_before = self._retried, self.kept, self.moot
        return sent

    def _begun(self) -> int:
        """First attempts so far, those that got nobody among them."""
        picks = sum(endpoint.pending + endpoint.ended for endpoint in self._endpoints.values())
        return self._picks_departed + picks + self.kept - self._retried

    def _sent_within(self, seconds: float) -> float:
        """Calls of so many last seconds."""
        whole, rest = divmod(min(seconds, float(WINDOW)), 1.0)
        last = [*islice(self._sent, int(whole) + 1), 0]
        return sum(last[: int(whole)]) + rest * last[min(int(whole), len(last) - 1)]

    def _usual(self, timeout: float) -> float:
        """Seconds that a call usually takes."""
        known = [one.sound if one.hurt else one.cost for one in self._endpoints.values() if one.stamp]
        return sum(known) / len(known) if known else timeout
