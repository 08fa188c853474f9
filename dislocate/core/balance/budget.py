"""The retry budget: how often calls may be tried again, so that retries never multiply an outage.

Invariant: in ten seconds at most `ratio` times the calls of these ten seconds, and `per_second` a second, are retried
(Finagle's RetryBudget: tokens that nobody took live ten seconds).  A connection that was refused is no retry.
"""

from collections import deque

from dislocate.core.boundary.balance import Retries

WINDOW = 10  # seconds that a token lives


class RetryBudget:
    """Calls and retries of the last ten seconds, in buckets of one second."""

    __slots__ = ("_calls", "_calls_before", "_retries", "_retries_before", "retries")

    def __init__(self) -> None:
        self._calls: deque[int] = deque([0] * (WINDOW - 1), WINDOW - 1)  # of the seconds before this one
        self._retries: deque[int] = deque([0] * (WINDOW - 1), WINDOW - 1)
        self._calls_before = 0
        self._retries_before = 0
        self.retries = 0  # in this second

    def turn(self, seconds: int, calls: int) -> None:
        """This second, in which `calls` were begun, is over, and with it `seconds - 1` in which nothing was."""
        for at in range(min(seconds, WINDOW)):
            self._calls.append(calls if at == 0 else 0)
            self._retries.append(self.retries if at == 0 else 0)
        self._calls_before = sum(self._calls)
        self._retries_before = sum(self._retries)
        self.retries = 0

    def spent(self) -> int:
        """Retries of the last ten seconds."""
        return self._retries_before + self.retries

    def allowed(self, policy: Retries, calls: int) -> float:
        """How many retries ten seconds may have, `calls` having been begun in this one."""
        return policy.ratio * (self._calls_before + calls) + policy.per_second * WINDOW

    def take(self, policy: Retries, calls: int) -> bool:
        """Whether one may be tried again; then it is counted."""
        if self.spent() + 1 > self.allowed(policy, calls):
            return False
        self.retries += 1
        return True
