"""Darkness: when a caller takes a data center for out of reach, sooner than the flows say so.  Pure.

Relays need ten seconds to say that nothing gets through, and each attempt meanwhile costs a connect timeout.  A caller sees it
in one such timeout: connections in a row were not made, to five endpoints or as many as there are, and nobody there answered
anything in between.  An error is an answer too; a timeout is neither, since those who are slow make it as well.
What is dark gets one call after 1, 2, 4, 8, 10, 10 ... seconds, each at the turn of a second, until somebody there answers.
"""

from typing import TYPE_CHECKING

from dislocate.core.units import SECOND

if TYPE_CHECKING:
    from dislocate.core.balance.picked import Picked

IN_A_ROW = 5  # as many failures as eject an endpoint; who failed is asked last, so those are soon five endpoints
FIRST_TRIAL = 1 * SECOND
REFUSED_WITHIN = 10 * SECOND  # a call that is open for so long has its connection
TRIALS_WITHIN = 10 * SECOND  # as long as relays need to know; then the flows decide


class Darkness:
    """What connections to one data center say of the way there, as one caller made them."""

    __slots__ = ("_answers", "_in_a_row", "_refusers", "_trial", "_trial_at", "_wait", "is_dark")

    def __init__(self) -> None:
        self.is_dark = False
        self._answers = 0  # that had come when the row began
        self._in_a_row = 0
        self._refusers: set[str] = set()
        self._trial_at = self._wait = 0
        self._trial: Picked | None = None  # the oldest open call that was to try the way

    def refused(self, key: str, answers: int, members: int, now: int) -> None:
        """No connection to the endpoint `key` was made; `answers` came from its data center so far, which has so many
        `members`."""
        if self.is_dark:
            return
        if answers != self._answers:
            self.end(answers)
        self._in_a_row += 1
        self._refusers.add(key)
        if self._in_a_row >= IN_A_ROW and len(self._refusers) >= min(IN_A_ROW, members):
            self.is_dark = True
            self._trial_at, self._wait = now + FIRST_TRIAL, FIRST_TRIAL

    def ends(self, answers: int, now: int) -> bool:
        """Whether it is over: one more answer than before, and it is; or a trial that nobody refused in time."""
        trial = self._trial
        is_open = trial is not None and not trial.is_done and now - trial.began > REFUSED_WITHIN
        if answers != self._answers or is_open:
            self.end(answers)
        return not self.is_dark

    def end(self, answers: int) -> None:
        """It is light, and a row begins anew."""
        self.is_dark = False
        self._answers, self._in_a_row = answers, 0
        self._refusers.clear()
        self._trial = None

    def takes_trial(self, now: int) -> bool:
        """Whether a call that begins `now` is to try the way; the next one waits twice as long."""
        if not self.is_dark or self._trial_at - TRIALS_WITHIN <= now < self._trial_at:  # earlier: the clock went back
            return False
        self._wait = min(2 * self._wait, TRIALS_WITHIN)
        self._trial_at = now + self._wait
        return True

    def tries(self, trial: "Picked") -> None:
        """This is the call."""
        if self._trial is None or self._trial.is_done:
            self._trial = trial
