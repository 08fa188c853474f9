"""Fate: what the state of an agent does to the instances that it owned.

Agent death and service death are different facts.  Refused: the host is there, so its services probably are, though nobody
checks them: unattended for a minute, then critical, after ten gone.  Silence: host or network is gone, critical at once,
and remembered for three days.  Who said goodbye took his services along.  Pure: a function of the state and its age.
"""

from enum import Enum

from dislocate.core.boundary.values import MemberState, Status
from dislocate.core.outbox import NEVER
from dislocate.core.tunables import DEAD_RETENTION, UNATTENDED_CRITICAL, UNATTENDED_DROP


class Fate(Enum):
    """How an owner's records are to be read."""

    ATTENDED = "attended"  # as recorded
    SUSPECTED = "suspected"  # as recorded, picked last
    UNATTENDED = "unattended"
    LOST = "lost"  # critical, last known good
    GONE = "gone"  # dropped


_BY_STATE = {
    MemberState.ALIVE: (Fate.ATTENDED, NEVER),
    MemberState.SUSPECT: (Fate.SUSPECTED, NEVER),
    MemberState.LEFT: (Fate.GONE, NEVER),
}


def fate_after(state: MemberState, refused: bool, elapsed: int) -> tuple[Fate, int]:
    """The fate after `elapsed` nanoseconds in `state`, and the elapsed time at which it changes next (or `NEVER`)."""
    settled = _BY_STATE.get(state)
    if settled is not None:
        return settled
    if refused and elapsed < UNATTENDED_CRITICAL:
        return Fate.UNATTENDED, UNATTENDED_CRITICAL
    end = UNATTENDED_DROP if refused else DEAD_RETENTION
    return (Fate.LOST, end) if elapsed < end else (Fate.GONE, NEVER)


def seen_as(status: Status, fate: Fate) -> Status:
    """How an instance recorded as `status` is answered."""
    if fate is Fate.LOST:
        return Status.CRITICAL
    if fate is Fate.UNATTENDED and status in (Status.PASSING, Status.WARNING, Status.STARTING):
        return Status.UNATTENDED
    return status
