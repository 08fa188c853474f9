"""Reporting: a relay tells its data center what it reaches, when that changed.

Invariant: the queue holds at most one report a data center, each small enough for a datagram; without change there is one
report a minute and data center, for whoever missed the gossip (joiners are briefed at once).  They are repeated together,
since what is told together travels in the same packets.
"""

from msgspec.structs import replace

from dislocate.core.identity import NodeId
from dislocate.core.membership.messages import WanReport, WanRow
from dislocate.core.membership.reach import Reach
from dislocate.core.outbox import Outbox
from dislocate.core.units import MILLISECOND, MINUTE

REPEAT = 1 * MINUTE
RTT_CHANGE = 5  # a fifth, either way
RTT_NOISE = 1 * MILLISECOND


def is_material(row: WanRow, before: WanRow) -> bool:
    """Whether `row` is worth telling after `before`: a verdict, a reason, a clearly different distance."""
    if (row.reachable, row.hears, row.heard, row.brake) != (before.reachable, before.hears, before.heard, before.brake):
        return True
    if bool(row.coordinate) is not bool(before.coordinate):
        return True
    return abs(row.rtt - before.rtt) > max(before.rtt // RTT_CHANGE, RTT_NOISE)


class Reporting:
    """What this relay told last."""

    def __init__(self, node: NodeId, out: Outbox, reach: Reach) -> None:
        self.since = 0  # when this node became a relay
        self._node = node
        self._out = out
        self._reach = reach
        self._version = 0
        self._told: dict[str, tuple[WanReport, int]] = {}  # by data center, and when

    def current(self) -> list[WanReport]:
        """What a newcomer should know: the last reports, which have aged since."""
        return [self._aged(report) for report, _ in self._told.values()]

    def _aged(self, report: WanReport) -> WanReport:
        rows = (replace(row, age=self._out.now - self._reach.as_of(row.datacenter)) for row in report.rows)
        return replace(report, rows=tuple(rows))

    def says_reached(self, datacenter: str) -> bool:
        """Whether this relay has said that it reaches `datacenter`."""
        told = self._told.get(datacenter)
        return told is not None and told[0].rows[0].reachable

    def is_worth(self, row: WanRow) -> bool:
        """Whether `row` is to be told: it is new, clearly different, or was not told in this minute."""
        told = self._told.get(row.datacenter)
        if told is None or self._minute(told[1]) != self._minute(self._out.now):
            return True
        return is_material(row, told[0].rows[0])

    def tell(self, row: WanRow, phi: float) -> None:
        """Gossip `row`."""
        self._version += 1
        report = WanReport(self._node, self._version, (row,))
        self._told[row.datacenter] = (report, self._out.now)
        self._reach.reported(report, phi)
        self._out.rumors.put(f"w/{self._node.path}/{row.datacenter}", report)

    def _minute(self, instant: int) -> int:
        """Counted from when this node became a relay: all rows are repeated in its first second."""
        return (instant - self.since) // REPEAT

    def step_down(self) -> None:
        """This node is a relay no more: its word is void."""
        if not self._told:
            return
        for datacenter in self._told:
            self._out.rumors.drop(f"w/{self._node.path}/{datacenter}")
        self._told.clear()
        self._version += 1
        report = WanReport(self._node, self._version, ())
        self._reach.reported(report)
        self._out.rumors.put(f"w/{self._node.path}/", report)
