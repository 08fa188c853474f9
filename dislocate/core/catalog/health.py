"""Health: when results of checks change the status of an instance.

Invariants: two successes bring it up, three failures take it down, and one that goes down too often stays down until it
has been quiet.  While it is starting, failures alone do not condemn it before the time that three ordinary checks take:
it is checked faster then.  A status known from before a restart is on probation: the first failure ends it.

The penalty of flap damping is 1 for each fall, halves each `FLAP_HALF_LIFE`, holds down from `FLAP_SUPPRESS` to `FLAP_REUSE`.
Source: route flap damping (RFC 2439), Consul's success_before_passing.  Pure: knows neither checks nor timers.
"""

from dislocate.core.boundary.values import Status
from dislocate.core.numeric import LN2, exp
from dislocate.core.tunables import FAILURES_DOWN, FLAP_HALF_LIFE, FLAP_REUSE, FLAP_SUPPRESS, SUCCESSES_UP

UP = (Status.PASSING, Status.WARNING)
VERDICTS = (Status.PASSING, Status.WARNING, Status.CRITICAL)  # what a check or a heartbeat may say


def decayed(penalty: float, elapsed: int) -> float:
    """What is left of `penalty` after `elapsed` nanoseconds."""
    return penalty * exp(-LN2 * elapsed / FLAP_HALF_LIFE)


class Damping:
    """The flap penalty of one instance."""

    __slots__ = ("_at", "_penalty", "is_holding")

    def __init__(self) -> None:
        self._penalty = 0.0
        self._at = 0
        self.is_holding = False

    def fell(self, now: int) -> None:
        """It went from up to critical."""
        self._penalty = self.penalty(now) + 1.0
        self._at = now
        self.is_holding = self.is_holding or self._penalty >= FLAP_SUPPRESS

    def may_rise(self, now: int) -> bool:
        """Whether it may come up again."""
        if self.is_holding and self.penalty(now) <= FLAP_REUSE:
            self.is_holding = False
        return not self.is_holding

    def penalty(self, now: int) -> float:
        return decayed(self._penalty, now - self._at) if self._penalty else 0.0


class Health:
    """What the checks of one instance add up to: `status` is STARTING, PASSING, WARNING or CRITICAL."""

    __slots__ = ("_critical", "_last", "_on_probation", "_patient_until", "_same", "_up", "damping", "status")

    def __init__(self, status: Status, *, patient_until: int = 0, on_probation: bool = False) -> None:
        self.status = status
        self.damping = Damping()
        self._patient_until = patient_until  # no verdict of critical from STARTING before this
        self._on_probation = on_probation
        self._last: Status | None = None
        self._same = 0  # equal results in a row
        self._up = 0  # results in a row that are not critical
        self._critical = 0  # critical results in a row

    def observe(self, found: Status, now: int) -> bool:
        """Count one result of a check; True when the status changed."""
        is_critical = found is Status.CRITICAL
        self._same = self._same + 1 if found is self._last else 1
        self._up = 0 if is_critical else self._up + 1
        self._critical = self._critical + 1 if is_critical else 0
        self._last = found
        is_settled = self._falls(now) if is_critical else self._rises()
        self._on_probation = False
        return is_settled and self._move(found, now)

    def declare(self, found: Status, now: int) -> bool:
        """The instance itself says so (a heartbeat, or its absence): no counting.  True when the status changed."""
        return self._move(found, now)

    def _falls(self, now: int) -> bool:
        if self._on_probation:
            return True
        if self.status is Status.STARTING and now < self._patient_until:
            return False
        return self._critical >= FAILURES_DOWN

    def _rises(self) -> bool:
        # Between passing and warning only equal results count; out of critical any success does, or an instance that
        # alternates between the two would never come up.
        return (self._same if self.status in UP else self._up) >= SUCCESSES_UP

    def _move(self, verdict: Status, now: int) -> bool:
        if verdict is self.status:
            return False
        if verdict is Status.CRITICAL:
            if self.status in UP:
                self.damping.fell(now)
        elif self.status is Status.CRITICAL and not self.damping.may_rise(now):
            return False
        self.status = verdict
        return True
