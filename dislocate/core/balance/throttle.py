"""The client throttle: a service that refuses most of what it gets should not have to refuse the rest too.

A call is kept from it with probability (requests - K x accepts) / (requests + 1), over 120 s (SRE book, chapter 21).
Requests are counted when they are sent, also those that were kept from it (go-zero#5011: counted when they end, a
service that hangs is never throttled), but judged only when the second in which they were sent is over, and those that
have been under way for no longer than usual are excused: else a slow service would be throttled at its start.  A
refused connection burdens nobody and counts for nothing; fewer than ENOUGH requests prove nothing.

Two departures, since the formula by itself feeds on its own refusals for minutes after the service is well again: never
more than MOST is kept back; and when of the calls let through in the last RECENT seconds clearly more are accepted than
the throttle would settle at (1/K), what was before is forgotten.
"""

from collections import deque

WINDOW = 120  # seconds
RECENT = 5  # seconds
ENOUGH = 10  # calls
MOST = 0.9  # a tenth gets through, so that a recovery is noticed


class Throttle:
    """Requests, calls let through and calls accepted, in buckets of one second."""

    __slots__ = ("_accepts", "_recent", "_requests", "_seconds", "part")

    def __init__(self) -> None:
        self.part = 0.0  # of all calls that is kept back
        self._seconds: deque[tuple[int, int]] = deque()  # requests, accepts
        self._recent: deque[tuple[int, int]] = deque(maxlen=RECENT)  # let through, accepted
        self._requests = 0
        self._accepts = 0

    def turn(self, seconds: int, requests: int, sent: int, accepts: int, excused: float, k: float) -> None:
        """A second is over: so many were wanted, sent and accepted in it; then `seconds - 1` without any.

        `excused` are under way, and it is too early to wonder."""
        for at in range(min(seconds, WINDOW)):
            self._add(requests if at == 0 else 0, accepts if at == 0 else 0)
            self._recent.append((sent, accepts) if at == 0 else (0, 0))
        if k <= 0.0 or self._requests < ENOUGH:
            self.part = 0.0
            return
        self.part = min(MOST, max(0.0, (self._requests - excused - k * self._accepts) / (self._requests + 1.0)))
        if self.part and self._is_well(k):
            self.forget()

    def forget(self) -> None:
        """What was says nothing any more."""
        self._seconds.clear()
        self._requests = self._accepts = 0
        self.part = 0.0

    def _add(self, requests: int, accepts: int) -> None:
        if len(self._seconds) == WINDOW:
            old_requests, old_accepts = self._seconds.popleft()
            self._requests -= old_requests
            self._accepts -= old_accepts
        self._seconds.append((requests, accepts))
        self._requests += requests
        self._accepts += accepts

    def _is_well(self, k: float) -> bool:
        sent = sum(through for through, _ in self._recent)
        accepted = sum(accepts for _, accepts in self._recent)
        return sent >= ENOUGH and accepted >= (1.0 + 1.0 / max(1.0, k)) / 2.0 * sent
