"""The brake: when too many fail at once, it is likelier that we cannot see than that they are gone.

Invariant: while it holds, nobody of this data center is removed; members stay suspect, weigh nothing and are picked last.
It takes hold when more than `BRAKE_SHARE` of the members (at least `BRAKE_MIN`) are suspected or were refused within one
window, and lets go when the surviving view has not changed for `BRAKE_RELEASE`.  It measures against who was there at the
window's start, not against history, so that a fleet that was scaled in does not stay braked (eureka#1267).

Precedent: Eureka's self-preservation, Nacos' protect threshold.  Does not know why members fail, and decides no death.
"""

from collections.abc import Callable

from dislocate.core.boundary.events import BrakeChanged
from dislocate.core.boundary.values import MemberState
from dislocate.core.identity import Path
from dislocate.core.membership import suspicion
from dislocate.core.membership.members import Member, Members
from dislocate.core.outbox import Outbox, Timer
from dislocate.core.tunables import BRAKE_MIN, BRAKE_RELEASE, BRAKE_SHARE, SUSPICION_MAX_FACTOR


class BrakeDue(Timer, frozen=True):
    """The view may have been stable for long enough."""


def takes_hold(failing: int, population: int) -> bool:
    """Whether so many failures among so many members are too many to believe."""
    return failing >= BRAKE_MIN and failing > BRAKE_SHARE * population


class Brake:
    """One node's brake on the removal of its data center's members."""

    def __init__(
        self, out: Outbox, members: Members, period: int, multiplier: int, released: Callable[[], None]
    ) -> None:
        self._out = out
        self._members = members
        self._period = period
        self._multiplier = multiplier
        self._released = released
        self._failed: dict[Path, int] = {}  # who failed when, oldest first
        self._changed = 0  # when the view last changed
        self.engaged = False

    def timers(self) -> dict[type, Callable[[BrakeDue], None]]:
        return {BrakeDue: self._due}

    def population(self) -> int:
        """Members alive and suspect before the present window of failures."""
        gone = 0
        for path in self._failed:
            member = self._members.get(path)
            gone += member is not None and not member.is_living
        return self._members.living(self._members.datacenter) + gone

    def failed(self, path: Path) -> None:
        """`path` is suspected or was refused: count it, and take hold if it is one too many."""
        now = self._out.now
        if path in self._failed:
            return
        self._expire(now)
        self._failed[path] = now
        self._changed = now
        failing, population = len(self._failed), self.population()
        if not self.engaged and takes_hold(failing, population):
            self.engaged = True
            self._out.count("brakes")
            self._tell(f"{failing} of {population} members suspected or refused at once")
            self._out.arm(now + BRAKE_RELEASE, BrakeDue())

    def member_changed(self, member: Member, before: MemberState | None) -> None:
        """Keep count of who is failing.  Called after each change of a member of this data center."""
        self._changed = self._out.now
        if member.state is MemberState.SUSPECT:
            self.failed(member.path)
        elif member.state is not MemberState.DEAD:
            self._failed.pop(member.path, None)

    def _expire(self, now: int) -> None:
        """Forget failures of earlier windows, unless they are still open."""
        population = self._members.living(self._members.datacenter)
        window = SUSPICION_MAX_FACTOR * suspicion.minimum(population, self._period, self._multiplier)
        for path in [path for path, at in self._failed.items() if now - at > window]:
            member = self._members.get(path)
            if member is None or member.state is not MemberState.SUSPECT:
                del self._failed[path]

    def _due(self, _timer: BrakeDue) -> None:
        stable_at = self._changed + BRAKE_RELEASE
        if self._out.now < stable_at:
            self._out.arm(stable_at, BrakeDue())
            return
        self.engaged = False
        self._failed.clear()
        self._tell("")
        self._released()

    def _tell(self, reason: str) -> None:
        self._members.brake = reason
        self._members.version += 1
        told = reason or "the surviving view is stable"
        self._out.notify(BrakeChanged(self._members.datacenter, self.engaged, told))
