"""Reporting: a relay tells its data center what it reaches, when that changed.

Invariant: the queue holds at most one report a data center, each small enough for a datagram.  Gossip carries what is
material; what merely drifts (age, distance, coordinate) is renewed once a minute, and each member is told all of it by the
relay itself once a minute, in its turn: whoever missed the gossip hears it too (joiners are briefed at once), and a quiet
data center of N pays N packets a minute and relay, where gossip would repeat each report 4 log N times from everybody.
"""

from msgspec.structs import replace

from dislocate.core.identity import NodeId
from dislocate.core.membership.members import Member
from dislocate.core.membership.messages import WanReport, WanRow
from dislocate.core.membership.reach import Reach
from dislocate.core.outbox import Outbox
from dislocate.core.tunables import HEARTBEAT_PERIOD
from dislocate.core.units import MILLISECOND, MINUTE

REPEAT = 1 * MINUTE
RTT_CHANGE = 5  # a fifth, either way
RTT_NOISE = 1 * MILLISECOND


def is_material(row: WanRow, before: WanRow | None) -> bool:
    """Whether `row` is worth telling after `before`: the first word, a verdict, a reason, a clearly different distance."""
    if before is None:
        return True
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
        self._turn = 0  # of the members who were told by this relay itself
        self._owed = 0  # HEARTBEAT_PERIOD for each member and second since

    def listeners(self, peers: list[Member]) -> list[Member]:
        """Asked once a second: those of `peers` whose turn it is to be told everything by this relay itself."""
        self._owed += len(peers) * HEARTBEAT_PERIOD
        count, self._owed = divmod(self._owed, REPEAT)
        first, self._turn = self._turn, self._turn + count
        return [peers[at % len(peers)] for at in range(first, first + count)]

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
        """Whether `row` is to be told: it is new, clearly different, or the last is a minute old."""
        told = self._told.get(row.datacenter)
        return told is None or self._out.now - told[1] >= REPEAT or is_material(row, told[0].rows[0])

    def tell(self, row: WanRow, phi: float) -> None:
        """Say `row` from now on, and gossip it when it is material."""
        told = self._told.get(row.datacenter)
        self._version += 1
        report = WanReport(self._node, self._version, (row,))
        self._told[row.datacenter] = (report, self._out.now)
        self._reach.reported(report, phi)
        if told is None or is_material(row, told[0].rows[0]):
            self._out.rumors.put(f"w/{self._node.path}/{row.datacenter}", report)

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
