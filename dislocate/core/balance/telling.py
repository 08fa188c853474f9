"""Telling: how an agent's traffic becomes messages and facts, each of a datagram.

Invariant: who does not speak FLOWS_PROTOCOL is told nothing of flows: an agent that cannot read one fact drops all that came
with it.  While such a one is known anywhere, reports stay with their relay, since gossip reaches everybody.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from msgspec.structs import replace

from dislocate.core.balance.flows import is_other_cost
from dislocate.core.balance.gathering import Numbers, has_moved
from dislocate.core.balance.messages import CallsTold, FlowReport, PlaceTold, UsageTold
from dislocate.core.balance.picture import Picture
from dislocate.core.boundary.balance import Outcomes, Share
from dislocate.core.identity import NodeId, Path
from dislocate.core.membership.members import Member, Members
from dislocate.core.outbox import Outbox
from dislocate.core.tunables import DATAGRAM_BUDGET, FLOWS_PROTOCOL, RECORD_BUDGET, SHARE_STEP
from dislocate.core.wire import encoded_size

T = TypeVar("T")

BODY_ROOM = DATAGRAM_BUDGET - 192  # bytes of one message: what an envelope takes with the longest names is left out


def make_report(
    relay: NodeId, service: str, stamp: int, epoch: int, numbers: Numbers, seen: Picture, shares: tuple[Share, ...]
) -> FlowReport:
    """What a relay says, within RECORD_BUDGET: places that get nothing are left out first, then the smallest."""
    target = {share.datacenter: share.share for share in seen.row.shares}
    told = {share.datacenter: share.share for share in shares}
    places = [
        PlaceTold(
            place.datacenter,
            place.epoch,
            -1 if place.cost is None else round(place.cost),
            target.get(place.datacenter, 0.0),
            told.get(place.datacenter, 0.0),
        )
        for place in seen.inputs
    ]
    known = {place.datacenter for place in places}
    places += [
        PlaceTold(share.datacenter, 0, -1, 0.0, share.share) for share in shares if share.datacenter not in known
    ]
    report = FlowReport(
        relay=relay,
        service=service,
        stamp=stamp,
        epoch=epoch,
        demand=numbers.demand,
        endpoint_capacity=numbers.endpoint_capacity,
        concurrency=numbers.concurrency,
        live=numbers.live,
        weight=numbers.weight,
        backlog=numbers.backlog,
        places=tuple(places),
        rho=seen.row.rho,
        overload=seen.row.overload,
    )
    while encoded_size(report) > RECORD_BUDGET and len(report.places) > 1:
        least = min(range(len(report.places)), key=lambda at: (report.places[at].share, report.places[at].target, -at))
        report = replace(report, places=tuple(one for at, one in enumerate(report.places) if at != least))
    return report


def is_news(before: FlowReport | None, now: FlowReport) -> bool:
    """Whether `now` is worth telling at once after `before`."""
    if before is None or before.epoch != now.epoch or before.overload is not now.overload:
        return True
    old = {place.datacenter: place for place in before.places}
    if len(old) != len(now.places) or has_moved(before.rho, now.rho):
        return True
    return any(_has_moved(old.get(place.datacenter), place) for place in now.places)


def cost_told(place: PlaceTold) -> int | None:
    """Nanoseconds from the source; None: it cannot be reached from there."""
    return place.cost if place.cost >= 0 else None


def _has_moved(before: PlaceTold | None, now: PlaceTold) -> bool:
    if before is None:
        return True
    return (
        is_other_cost(cost_told(before), cost_told(now))
        or abs(now.share - before.share) >= SHARE_STEP
        or abs(now.target - before.target) >= SHARE_STEP
        or (now.share > 0.0) is not (before.share > 0.0)
    )


class Telling:
    """What one agent sends."""

    def __init__(self, node: NodeId, out: Outbox, members: Members) -> None:
        self._node = node
        self._out = out
        self._members = members
        self._looked = -1  # version of the members when `_all_speak` was found out
        self._all_speak = True

    def usage(self, usages: Sequence[tuple[str, float, float]], relays: Iterable[Path]) -> None:
        """To the other relays of this data center."""
        batches = list(_batches(usages))
        for path in relays:
            member = self._members.get(path)
            if member is not None and path != self._node.path and _understands(member):
                for batch in batches:
                    self._out.send(member.record.gossip, UsageTold(batch))

    def calls(self, outcomes: Iterable[Outcomes]) -> None:
        """To the agents of the instances, wherever they are; `outcomes` of this host's own are not for the network."""
        by_owner: dict[Path, list[tuple[str, int, int, float]]] = {}
        for one in outcomes:
            by_owner.setdefault(one.node, []).append((one.instance, one.calls, one.failed, one.p99))
        for path, calls in by_owner.items():
            member = self._members.get(path)
            if member is None or not member.is_living or not _understands(member):
                continue
            for batch in _batches(calls):
                if member.node.datacenter == self._node.datacenter:
                    self._out.send(member.record.gossip, CallsTold(batch))
                else:
                    self._out.send_facts(member.record.wan_gossip, CallsTold(batch), ())

    def spread(self, report: FlowReport) -> None:
        """To everybody, where everybody understands it."""
        if self.everybody_understands:
            self._out.spread(f"f/{report.relay.datacenter}/{report.service}", report)

    @property
    def everybody_understands(self) -> bool:
        if self._looked != self._members.version:
            self._looked = self._members.version
            self._all_speak = all(map(_understands, filter(lambda member: member.is_living, self._members)))
        return self._all_speak


def _understands(member: Member) -> bool:
    return member.record.protocol[1] >= FLOWS_PROTOCOL


def _batches(items: Sequence[T]) -> Iterator[tuple[T, ...]]:
    """Slices of `items` that fit one datagram each."""
    batch: list[T] = []
    size = 16
    for item in items:
        length = encoded_size(item)
        if batch and size + length > BODY_ROOM:
            yield tuple(batch)
            batch, size = [], 16
        batch.append(item)
        size += length
    if batch:
        yield tuple(batch)
