"""The book: what callers of a simulated fleet did and saw, for claims and invariants.

Times are of the moment when a call began.  Where a call was first sent is compared with what the caller's agent published
then: retries go where they must.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import TypeVar

from msgspec import Struct

from dislocate.core.balance.picker import Endpoint
from dislocate.core.boundary.balance import Share
from dislocate.core.identity import Path
from dislocate.core.units import MILLISECOND, SECOND
from sim.traffic.measures import percentile

Number = TypeVar("Number", int, float)


class Seen(Struct, frozen=True):
    """What callers saw in some time: `claims.SeenRequests`."""

    ended: int = 0
    failed: int = 0
    p99: float = 0.0  # seconds, of those that succeeded
    astray: float = 0.0  # the most that a data center's part of a source's calls differs from the published flows
    where: str = ""  # of that difference, in words
    crossing: float = 0.0  # part of them that was first sent to another data center, 0..1


class Attempted(Struct):
    """What one caller has under way at one endpoint."""

    endpoint: Endpoint
    under_way: int = 0
    last: int = 0  # when the last was sent there


class CallerBook(Struct):
    """One caller."""

    name: str
    path: Path  # of the agent it asks
    service: str
    begun: int = 0
    ended: int = 0
    attempts: int = 0
    attempts_ended: int = 0
    retried: int = 0  # paid from the budget
    attempted: dict[str, Attempted] = {}  # by key of the endpoint
    ends: list[tuple[int, int, bool]] = []  # (begun, took, failed)
    sent: dict[int, dict[str, int]] = {}  # by second: first attempts, by data center
    wanted: dict[
        int, dict[str, float]
    ] = {}  # by second: the same by the flows that its agent published as each was sent
    empty: list[int] = []  # when it got nobody, though its agent knew somebody

    def first_sent(self, datacenter: str, published: Sequence[Share], second: int) -> None:
        """A call was first sent there, while its agent published these shares; none: it did not answer."""
        there = self.sent.setdefault(second, {})
        there[datacenter] = there.get(datacenter, 0) + 1
        add(self.wanted.setdefault(second, {}), {share.datacenter: share.share for share in published})


class CallBook:
    """All callers of one world."""

    def __init__(self) -> None:
        self.callers: list[CallerBook] = []

    def seen(self, services: Collection[str], agents: Collection[Path], since: int, until: int) -> Seen:
        """Of calls that began in [since, until) by callers of `agents`; no `services`: any."""
        chosen = [one for one in self.callers if one.path in agents and (not services or one.service in services)]
        ends = [end for one in chosen for end in one.ends if since <= end[0] < until]
        took = sorted(end[1] for end in ends if not end[2])
        astray, where = _astray(chosen, since, until)
        return Seen(
            ended=len(ends),
            failed=sum(end[2] for end in ends),
            p99=percentile(took, 0.99) * MILLISECOND / SECOND,
            astray=astray,
            where=where,
            crossing=_crossing(chosen, since, until),
        )


def _crossing(chosen: list[CallerBook], since: int, until: int) -> float:
    crossed = total = 0
    for one in chosen:
        home = one.path.partition("/")[0]
        for second, there in one.sent.items():
            if since <= second * SECOND < until:
                total += sum(there.values())
                crossed += sum(there.values()) - there.get(home, 0)
    return crossed / max(1, total)


def _astray(chosen: list[CallerBook], since: int, until: int) -> tuple[float, str]:
    sources: dict[tuple[str, str], list[CallerBook]] = {}
    for one in chosen:
        sources.setdefault((one.service, one.path.partition("/")[0]), []).append(one)
    most, where = 0.0, ""
    for (service, source), callers in sources.items():
        sent: dict[str, float] = {}
        wanted: dict[str, float] = {}
        total = begun = 0
        for one in callers:
            for second, there in one.sent.items():
                flows, count = one.wanted.get(second, {}), sum(there.values())
                is_meant = since <= second * SECOND < until
                is_known = abs(sum(flows.values()) - count) < 0.5  # else the agent was away for some of them
                begun += count if is_meant else 0
                if is_meant and is_known:
                    total += count
                    add(sent, there)
                    add(wanted, flows)
        if begun and not total:
            return 1.0, f"{service} from {source}: nothing was published while {begun} calls were sent"
        for name in sorted({*sent, *wanted}):
            difference = abs(sent.get(name, 0.0) - wanted.get(name, 0.0)) / max(1, total)
            if difference > most:
                parts = [100 * each.get(name, 0.0) / max(1, total) for each in (sent, wanted)]
                most = difference
                where = f"{service} from {source} to {name}: {parts[0]:.1f} % sent, {parts[1]:.1f} % published"
    return most, where


def add(sums: dict[str, Number], more: Mapping[str, Number]) -> None:
    """Add `more` to `sums`, name by name."""
    for name, value in more.items():
        sums[name] = sums.get(name, 0) + value
