"""One call and its attempts: whether another one follows, where it goes, and how much time it is given.

A connection that was not made costs no retry budget and may be tried again whatever the call does.  After anything else a
further attempt needs an idempotent call, an attempt of `policy.retries.attempts` left, a token of the budget and time.
Attempts prefer endpoints that were not tried.  While a further attempt may follow, one is given an even part of the time that
is left: an instance that has stopped without a word must not take all of it.

Retries are made here and nowhere below: urllib3 is told not to.
"""

import time
from collections.abc import Callable
from typing import Generic, TypeVar

from msgspec import Struct

from dislocate.client.caller import Client, Pick
from dislocate.client.checking import check_attempts, check_key, check_seconds
from dislocate.client.errors import CallFailed, DeadlineExceeded
from dislocate.client.outcomes import outcome_of
from dislocate.core.balance.errors import NoEndpoint, RetriesSpent, Throttled
from dislocate.core.balance.picker import Outcome
from dislocate.core.errors import DislocateError
from dislocate.core.units import SECOND

REFUSALS = 8  # of one call, which cost no budget: where so many refuse, nobody is there
SHORTEST = 0.001  # seconds: what is given less is not worth sending

T = TypeVar("T")


class Ended(Struct, Generic[T]):
    """An attempt that gave a result, good or bad."""

    result: T
    outcome: Outcome = Outcome.OK
    was_sent: bool = True  # the endpoint may have done something
    is_reported: bool = False  # the picker was told its end, or will be by who made it


class Broken(Exception):
    """An attempt that gave none; its `__cause__` says why."""

    def __init__(self, outcome: Outcome, words: str, *, was_sent: bool) -> None:
        super().__init__(words)
        self.outcome = outcome
        self.words = words
        self.was_sent = was_sent


class Call(Generic[T]):
    """One call: `run` makes its attempts.  `attempt(picked, seconds)` gives `Ended`, or raises `Broken`."""

    def __init__(
        self,
        client: Client,
        service: str,
        *,
        key: str = "",
        timeout: float | None = None,
        attempts: int | None = None,
        is_idempotent: bool = False,
    ) -> None:
        check_seconds(timeout, "timeout")
        check_attempts(attempts)
        policy = client.route(service).policy
        self.service = service
        self.is_idempotent = is_idempotent
        self.timeout = policy.timeout / SECOND if timeout is None else timeout
        self._client = client
        self._key = check_key(key)
        self._ends = time.monotonic() + self.timeout
        self._left = max(1, policy.retries.attempts if attempts is None else attempts)  # attempts that may be made
        self._refusals = 0
        self._said: list[str] = []
        self._tried: list[str] = []  # names

    def run(self, attempt: Callable[[Pick, float], Ended[T]], *, is_kept: bool = False) -> T:
        """The result of the first attempt that is good, else of the last.  Raises `CallFailed`, `DeadlineExceeded`, and
        what a first pick raises.  `is_kept`: the good one goes on, and who made it reports its end."""
        last: Ended[T] | None = None
        error: Broken | None = None
        is_retry = False
        while True:
            try:
                ended = self._try(attempt, is_retry, is_kept)
            except Broken as broken:
                error, last = broken, None
                outcome, was_sent = broken.outcome, broken.was_sent
            except (NoEndpoint, RetriesSpent, Throttled) as none:
                if last is not None:
                    return last.result
                if error is None:
                    raise
                raise self._failed(str(none)) from (error.__cause__ or error)
            else:
                if ended.outcome is Outcome.OK:
                    return ended.result
                last, error = ended, None
                outcome, was_sent = ended.outcome, ended.was_sent
            why = self._why_not_again(outcome, was_sent)
            if why:
                if last is not None:
                    return last.result
                assert error is not None
                raise self._failed(why) from (error.__cause__ or error)
            is_retry = outcome is not Outcome.REFUSED

    @property
    def seconds_left(self) -> float:
        return self._ends - time.monotonic()

    @property
    def tried(self) -> tuple[str, ...]:
        return tuple(self._tried)

    def pick(self, *, retry: bool) -> Pick:
        """Where the next attempt goes."""
        return self._client.pick(self.service, key=self._key, exclude=self._tried, retry=retry)

    def _try(self, attempt: Callable[[Pick, float], Ended[T]], is_retry: bool, is_kept: bool) -> Ended[T]:
        picked = self.pick(retry=is_retry).__enter__()
        try:
            self._tried.append(picked.name)
            ended = attempt(picked, self._share())
        except Broken as broken:
            self._said.append(f"{picked.name}: {broken.words}")
            picked.report(broken.outcome)
            raise
        except BaseException as error:
            picked.report(outcome_of(error))
            raise
        if ended.outcome is not Outcome.OK:
            self._said.append(f"{picked.name}: {ended.outcome.value}")
        if not (ended.is_reported or (is_kept and ended.outcome is Outcome.OK)):
            picked.report(ended.outcome)
        return ended

    def _share(self) -> float:
        """Seconds for the attempt that begins."""
        parts = self._left if self.is_idempotent else 1
        return max(SHORTEST, self.seconds_left / parts)

    def _why_not_again(self, outcome: Outcome, was_sent: bool) -> str:
        """Why no further attempt follows one that ended so; empty: one does."""
        if outcome is Outcome.REFUSED:
            self._refusals += 1
            if self._refusals >= REFUSALS:
                return f"{REFUSALS} connections were not made"
        else:
            self._left -= 1
        if self.seconds_left <= SHORTEST:
            return f"its {self.timeout:g} s are over"
        if was_sent and not self.is_idempotent:
            return "it is not idempotent, and may have been done"
        if self._left <= 0:
            return "no attempt is left"
        return ""

    def _failed(self, why: str) -> DislocateError:
        is_late = self.seconds_left <= SHORTEST
        return (DeadlineExceeded if is_late else CallFailed)(self.service, self._said, why)


def broken_by(error: Exception, *, was_sent: bool) -> Broken:
    """An attempt that `error` ended."""
    outcome = outcome_of(error)
    return Broken(outcome, str(error) or type(error).__name__, was_sent=was_sent and outcome is not Outcome.REFUSED)
