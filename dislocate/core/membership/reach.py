"""Reach: what a data center knows of the others, put together from the reports of its relays.

Invariants:
- A data center is reached when any living relay of ours says so.  A relay's death voids its report; what one says that is
  held dead waits until it is known to live, as after a partition, when words overtake rebuttals.  When no report is left,
  the last verdict stands until UNREACHABLE_FLOOR after the data center was last heard of: losing all relays is a matter of
  this data center, not of the other.
- `as_of` only grows, and only by hearing: age is added up per hop, never a difference of two clocks.
- One `DatacenterChanged` a transition.

Each row of a report stands alone (a report of many rows would outgrow a datagram): for one relay and data center the
highest version wins, and a report without rows voids all rows of that relay before it.
"""

from dislocate.core.boundary.events import DatacenterChanged
from dislocate.core.coordinates import Coordinate, estimate
from dislocate.core.identity import NodeId, Path
from dislocate.core.membership.members import Members
from dislocate.core.membership.messages import Freshness, WanReport, WanRow
from dislocate.core.outbox import Outbox
from dislocate.core.tunables import UNREACHABLE_FLOOR
from dislocate.core.units import seconds

FRESHNESS_ROWS = 8  # a datagram: about 100 bytes


def in_words(row: WanRow) -> str:
    """Why a relay says what it says."""
    if row.reachable:
        return "heartbeats both ways"
    return "it does not hear us" if row.heard else f"nothing heard for {seconds(row.age):.1f} s"


class RelayRows:
    """What one relay of this data center said last."""

    __slots__ = ("boot", "floor", "rows", "versions")

    def __init__(self, boot: int) -> None:
        self.boot = boot
        self.floor = 0  # rows up to this version are void
        self.rows: dict[str, WanRow] = {}
        self.versions: dict[str, int] = {}


class Reach:
    """The other data centers as seen from this one."""

    def __init__(self, out: Outbox, members: Members, datacenter: str) -> None:
        self._out = out
        self._members = members
        self._own = datacenter
        self._as_of: dict[str, int] = {}
        self._reports: dict[Path, RelayRows] = {}
        self._reached: dict[str, bool] = {}  # the verdict last told
        self._turn = 0
        self.started = 0

    # ---- age

    def as_of(self, datacenter: str) -> int:
        """When (local monotonic) the knowledge of `datacenter` was current; our own start when it never was."""
        return self._out.now if datacenter == self._own else self._as_of.get(datacenter, self.started)

    def heard_of(self, datacenter: str, instant: int) -> None:
        """At `instant` the knowledge of `datacenter` was current."""
        before = self._as_of.get(datacenter)
        if before is None:
            if datacenter != self._own and self._members.of(datacenter):  # nobody may fill memory with names
                self._as_of[datacenter] = instant
        elif instant > before:
            self._as_of[datacenter] = instant

    def learn(self, ages: tuple[Freshness, ...], said_at: int) -> None:
        """Somebody knew at `said_at` how old other data centers' news was."""
        as_of = self._as_of
        for row in ages:
            datacenter, instant = row.datacenter, said_at - row.age
            before = as_of.get(datacenter)
            if before is None:
                self.heard_of(datacenter, instant)
            elif instant > before:
                as_of[datacenter] = instant

    def ages(self) -> tuple[Freshness, ...]:
        """Of every other data center heard of."""
        now = self._out.now
        return tuple([Freshness(datacenter, now - instant) for datacenter, instant in self._as_of.items()])

    def some_ages(self) -> tuple[Freshness, ...]:
        """Of FRESHNESS_ROWS other data centers, other ones each time."""
        if len(self._as_of) <= FRESHNESS_ROWS:
            return self.ages()
        now = self._out.now
        names = tuple(self._as_of)
        start, self._turn = self._turn, (self._turn + FRESHNESS_ROWS) % len(names)
        chosen = (names[(start + i) % len(names)] for i in range(FRESHNESS_ROWS))
        return tuple(Freshness(name, now - self._as_of[name]) for name in chosen)

    # ---- reports

    def reported(self, report: WanReport, phi: float = 0.0) -> bool:
        """Take a relay's report in; True when it said something new.  `phi` of the surest link, when it is our own."""
        path = report.relay.path
        known = self._reports.get(path)
        if known is None or report.relay.boot > known.boot:
            known = self._reports[path] = RelayRows(report.relay.boot)
        elif report.relay.boot < known.boot:
            return False
        if not report.rows:
            return self._voided(known, report.version)
        news = False
        for row in report.rows:
            name = row.datacenter
            if report.version <= max(known.floor, known.versions.get(name, 0)):
                continue
            before = known.rows.get(name)
            known.rows[name], known.versions[name] = row, report.version
            self.heard_of(name, self._out.arrived - row.age)
            news = True
            if before is None or before.reachable is not row.reachable:  # else the verdict rests on the same words
                self.judge(name, phi, f"{path}: {in_words(row)}")
        return news

    def said(self, relay: NodeId, datacenter: str) -> WanRow | None:
        """What this start of `relay` last said of `datacenter`."""
        known = self._reports.get(relay.path)
        return None if known is None or known.boot != relay.boot else known.rows.get(datacenter)

    def _voided(self, known: RelayRows, version: int) -> bool:
        if version <= known.floor:
            return False
        known.floor = version
        for name in [name for name, of_row in known.versions.items() if of_row < version]:
            del known.rows[name], known.versions[name]
            self.judge(name, 0.0, "a relay stepped down")
        return True

    def relay_lost(self, relay: Path) -> tuple[str, ...]:
        """A relay died: its word is void.  Returns the data centers it spoke of."""
        known = self._reports.pop(relay, None)
        return () if known is None else tuple(known.rows)

    def relay_back(self, relay: Path, boot: int) -> tuple[str, ...]:
        """A relay that was held dead lives: what it said meanwhile counts, unless an older start of it did."""
        known = self._reports.get(relay)
        if known is not None and known.boot < boot:
            return self.relay_lost(relay)
        return () if known is None else tuple(known.rows)

    def rows(self, datacenter: str) -> list[WanRow]:
        """What relays of ours say of `datacenter`; of those held dead nothing, though they may have spoken."""
        reports = self._reports.items()
        return [known.rows[datacenter] for path, known in reports if datacenter in known.rows and self._counts(path)]

    def _counts(self, relay: Path) -> bool:
        member = self._members.get(relay)
        return member is None or member.is_living

    # ---- verdicts

    def is_reached(self, datacenter: str) -> bool:
        if datacenter == self._own:
            return True
        rows = self.rows(datacenter)
        if rows:
            return any(row.reachable for row in rows)
        held_until = self.as_of(datacenter) + UNREACHABLE_FLOOR
        return self._reached.get(datacenter, False) and self._out.now < held_until

    def reached(self) -> tuple[str, ...]:
        """The other data centers that are reached, in the order in which they first were."""
        return tuple(name for name in self._reached if self.is_reached(name))

    def judge(self, datacenter: str, phi: float, reason: str) -> bool:
        """Whether `datacenter` is reached now; tells of a change once."""
        reached = self.is_reached(datacenter)
        if datacenter != self._own and reached is not self._reached.get(datacenter, False):
            self._reached[datacenter] = reached
            self._out.notify(DatacenterChanged(datacenter, reached, phi, reason))
        return reached

    def hold_ends(self, datacenter: str) -> int | None:
        """Until when a verdict without any report stands; None when it rests on a report, or is negative anyway."""
        if self.rows(datacenter) or not self._reached.get(datacenter, False):
            return None
        return self.as_of(datacenter) + UNREACHABLE_FLOOR

    # ---- distance

    def measured_rtt(self, datacenter: str) -> int | None:
        """The shortest round trip that a relay of ours measured, nanoseconds."""
        measured = [row.rtt for row in self.rows(datacenter) if row.rtt]
        return min(measured) if measured else None

    def estimated_rtt(self, datacenter: str) -> int | None:
        """Read off the surest coordinates of both data centers; None while either is unsure."""
        here, there = self.coordinate(self._own), self.coordinate(datacenter)
        guess = estimate(here, there) if here and there else None
        return None if guess is None else guess.rtt

    def coordinate(self, datacenter: str) -> Coordinate:
        """The surest one reported for `datacenter`; empty when there is none."""
        known = [row.coordinate for row in self.rows(datacenter) if row.coordinate]
        return min(known, key=lambda coordinate: coordinate[-1]) if known else ()
