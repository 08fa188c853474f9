"""The balancing part of an agent: what its callers do, what relays make of it, and where callers here are sent.

    callers         this host's programs say what they did; each second that is told to the relays here (`UsageTold`), and
                    how calls went to the agents of the instances (`CallsTold`)
    relays          each gathers and solves for all sources; the first one of a data center tells its row (`FlowReport`)
    everybody       follows the row of the first living relay here; where none is fresh, the own picture, unsmoothed
    at once         a death, a drain, reachability, a policy: no second is waited for, and nothing smoothed

Invariants: a service that nobody calls costs nothing, no timer and no byte; the epochs of routes grow; a share never points
where nobody can be reached who lives, as long as somebody can anywhere that the policy allows.
"""

from collections.abc import Callable, Sequence
from typing import Any

from dislocate.core.balance.called import Called, differ, membership
from dislocate.core.balance.callers import Callers
from dislocate.core.balance.knowledge import FlowViews, Knowledge, shares_of
from dislocate.core.balance.messages import CallsTold, FlowReport, UsageTold
from dislocate.core.balance.picture import Picture
from dislocate.core.balance.quality import Qualities, is_sound
from dislocate.core.balance.reports import is_sound as is_sound_report
from dislocate.core.balance.smoothing import with_probe
from dislocate.core.balance.telling import Telling, is_news, make_report
from dislocate.core.boundary.balance import ReportUsage, Share
from dislocate.core.boundary.events import (
    DatacenterChanged,
    Event,
    FlowsChanged,
    InstanceChanged,
    RelayChanged,
    ServiceChanged,
)
from dislocate.core.boundary.requests import Done
from dislocate.core.boundary.store import KeyChange
from dislocate.core.catalog.catalog import Catalog
from dislocate.core.identity import NodeId, Path
from dislocate.core.membership.members import Members
from dislocate.core.membership.wan import Wan
from dislocate.core.outbox import Outbox, Timer
from dislocate.core.runs.door import StoreDoor
from dislocate.core.tunables import (
    FLOW_IDLE_PERIOD,
    FLOW_PAUSE,
    FLOW_PERIOD,
    FLOW_REACTION,
    FLOW_REPEAT,
    FLOW_SERVICES,
    RATE_LIMIT,
)


class FlowTick(Timer, frozen=True):
    """A second of whoever is called, calls, or is a relay of those."""

    number: int  # outdated when another one was armed since


class FlowReaction(Timer, frozen=True):
    """Something happened to services that are called."""


class BalancePart:
    """One agent's part."""

    def __init__(
        self, node: NodeId, out: Outbox, members: Members, wan: Wan, catalog: Catalog, store: StoreDoor
    ) -> None:
        self._path = node.path
        self._home = node.datacenter
        self._out = out
        self._members = members
        self._wan = wan
        self._catalog = catalog
        self._store = store
        self._known = known = Knowledge(node, out, members, wan, catalog, store)
        self.views = FlowViews(known)
        self._policies = known.policies
        self._reports = known.reports
        self._called = known.called
        self._warming = known.warming
        self._callers = Callers()
        self._qualities = Qualities()
        self._telling = Telling(node, out, members)
        self._epoch = 0  # the highest of any route
        self._stamp = 0
        self._number = 0
        self._tick_at: int | None = None
        self._touched: dict[str, bool] = {}  # services to look at in the next reaction, and whether nothing is smoothed
        self._reacts_at: int | None = None
        self._reacted_at = -FLOW_PAUSE

    def timers(self) -> dict[type, Callable[[Any], None]]:
        return {FlowTick: self._tick, FlowReaction: self._react}

    def start(self) -> None:
        self._warming.start(self._out.now)
        self._store.listeners.append(self._store_changed)
        self._policies.changed(())

    # ---- what callers and agents say

    def report_usage(self, request_id: int, request: ReportUsage) -> None:
        """A caller of this host says what it did."""
        refusal = self._callers.report(request, self._out.now)
        if refusal is None:
            for usage in request.usages:
                if usage.offered > 0.0:
                    self._enter(usage.service)
            self._wake()
        self._out.reply(request_id, refusal or Done())

    def on_usage_told(self, sender: NodeId, _source: object, told: UsageTold) -> None:
        """A host of this data center tells its relays what its callers offer."""
        sound = all(0.0 <= rate <= RATE_LIMIT and 0.0 <= again <= RATE_LIMIT for _, rate, again in told.usages)
        if sender.datacenter != self._home or not sound:
            self._out.drop(sender.path, "usage that nobody can have measured here")
        elif self._wan.is_relay:
            self._gather(sender.path, told.usages)

    def _gather(self, host: Path, usages: Sequence[tuple[str, float, float]]) -> None:
        for service, rate, _ in usages:
            called = self._enter(service) if rate > 0.0 else self._called.get(service)
            if called is not None:
                called.gathering.offered(host, rate, self._out.now)

    def on_calls_told(self, sender: NodeId, _source: object, told: CallsTold) -> None:
        """How calls to instances of this host went."""
        for instance, calls, failed, p99 in told.calls:
            if not is_sound(calls, failed, p99):
                self._out.drop(sender.path, "calls that nobody can have counted")
            elif self._catalog.is_own(instance):
                self._qualities.told(instance, calls, failed, p99, self._out.now)
                self._wake()

    def on_report(self, sender: NodeId, fact: FlowReport, _repaired: bool) -> bool:
        """A relay tells of one service in its data center.  Was it news?"""
        datacenter = fact.relay.datacenter
        if fact.relay.path == self._path or not self._members.of(datacenter):
            return False
        if not is_sound_report(fact):
            self._out.drop(sender.path, "flows that nobody can have computed")
            return False
        called = self._enter(fact.service)
        if called is None or not self._reports.hear(fact, self._out.now):
            return False
        self._telling.spread(fact)
        if datacenter == self._home:
            self._refresh(fact.service, called)
        return True

    # ---- what happens around

    def noticed(self, event: Event) -> None:
        """Something was told at the end of a turn."""
        match event:
            case InstanceChanged():
                self._warming.changed(event, self._out.now)
            case ServiceChanged(service):
                if service in self._called:
                    self._touch(service)
            case DatacenterChanged() | RelayChanged():
                self.distances_changed()
                for service in self._called:
                    self._touch(service)

    def distances_changed(self) -> None:
        """Relays here said something about other data centers."""
        if self._known.measure():
            self._known.geography = self._next_epoch()

    def _store_changed(self, changes: Sequence[KeyChange]) -> None:
        for service in self._policies.changed(changes):
            if service in self._called:
                self._touch(service, at_once=True)
            elif self._catalog.service(service) is not None:
                self._known.geography = self._next_epoch()
                self._out.notify(FlowsChanged(service, self._known.geography))

    def _next_epoch(self) -> int:
        self._epoch += 1
        return self._epoch

    def _touch(self, service: str, *, at_once: bool = False) -> None:
        self._touched[service] = at_once or self._touched.get(service, False)
        if self._reacts_at is None:
            self._reacts_at = max(self._out.now + FLOW_REACTION, self._reacted_at + FLOW_PAUSE)
            self._out.arm(self._reacts_at, FlowReaction())

    def _react(self, _timer: FlowReaction) -> None:
        self._reacts_at = None
        self._reacted_at = self._out.now
        touched, self._touched = self._touched, {}
        for service, at_once in touched.items():
            called = self._called.get(service)
            if called is not None:
                self._look(service, called, at_once=at_once)

    # ---- seconds

    def _enter(self, service: str) -> Called | None:
        """Somebody calls `service`; None where it is not known, or too many are called."""
        called = self._called.get(service)
        if called is None and len(self._called) < FLOW_SERVICES and self._catalog.service(service) is not None:
            policy = self._policies.of(service)
            called = self._called[service] = Called(
                self._home, self._known.geography, policy, self._known.nearest(service)
            )
            called.membership = membership(self._known.instances(service))
            self._wake()
        return called

    def _wake(self) -> None:
        """There is something to do each second.  The first one comes soon."""
        now = self._out.now
        is_idle = self._tick_at is None or self._tick_at > now + FLOW_PERIOD
        if is_idle:
            self._arm(now + FLOW_REACTION)

    def _arm(self, at: int) -> None:
        self._number += 1
        self._tick_at = at
        self._out.arm(at, FlowTick(self._number))

    def _tick(self, timer: FlowTick) -> None:
        if timer.number != self._number:
            return
        self._tick_at = None
        self.distances_changed()
        self._callers.forget_the_gone(self._out.now)
        self._tell_usage()
        self._tell_calls()
        for service in list(self._called):
            self._second(service, self._called[service])
        is_busy = self._wan.is_relay or bool(len(self._callers) or len(self._qualities) or self._known.offered)
        if self._called or len(self._callers) or len(self._qualities):
            self._arm(self._out.now + (FLOW_PERIOD if is_busy else FLOW_IDLE_PERIOD))

    def _tell_usage(self) -> None:
        """What callers here offer, to the relays; once also that they stopped."""
        before, self._known.offered = self._known.offered, self._callers.offered()
        ended = {service: (0.0, 0.0) for service in before if service not in self._known.offered}
        usages = [(service, *rates) for service, rates in {**self._known.offered, **ended}.items()]
        usages = [one for one in usages if one[1] or one[2] or before.get(one[0], (0.0, 0.0)) != (0.0, 0.0)]
        if not usages:
            return
        relays = self._wan.relays(self._home)
        if self._path in relays:
            self._gather(self._path, usages)
        self._telling.usage(usages, relays)

    def _tell_calls(self) -> None:
        outcomes = self._callers.take_outcomes()
        self._telling.calls(one for one in outcomes if one.node != self._path)
        for one in outcomes:
            if one.node == self._path and self._catalog.is_own(one.instance):
                self._qualities.told(one.instance, one.calls, one.failed, one.p99, self._out.now)
        for instance, quality in self._qualities.second(self._out.now).items():
            self._catalog.calls_told(instance, quality.errors, quality.p99)

    def _second(self, service: str, called: Called) -> None:
        now = self._out.now
        if self._wan.is_relay:
            called.gathering.second(self._known.living_here(service), now)
        is_offered = self._known.offered.get(service, (0.0, 0.0))[0] > 0.0
        if not (is_offered or called.gathering.is_called or self._reports.is_called(service, now)):
            del self._called[service]
            self._reports.forget(service)
            self._known.geography = self._next_epoch()
            return
        self._look(service, called, second=True)

    def _look(self, service: str, called: Called, *, second: bool = False, at_once: bool = False) -> None:
        """Compute what is to be computed here, and see whether callers here are to go elsewhere.  `second`: one went by;
        `at_once`: something happened after which nothing is smoothed."""
        living = membership(self._known.instances(service))
        at_once = at_once or living != called.membership
        called.membership = living
        if self._wan.is_relay:
            self._compute(service, called, second, at_once)
        else:
            called.picture = None
        self._refresh(service, called)

    # ---- a relay's row

    def _compute(self, service: str, called: Called, second: bool, at_once: bool) -> None:
        now = self._out.now
        living = self._known.living_here(service)
        policy = self._policies.of(service)
        called.gathering.tell(living, self._warming.weight(living, now, policy))
        called.picture = seen = self._known.picture(service)
        is_first = self._wan.relays(self._home)[:1] == (self._path,)
        heard = None if is_first else self._reports.first(service, self._home, now)
        if heard is not None:
            called.smoothing.follow(shares_of(heard.report))
            return
        if second or at_once:
            called.smoothing.step(seen.row.shares, now, at_once)
        if is_first and self._is_of_interest(service, called):
            order = [place.datacenter for place in seen.inputs if place.cost is not None and place.live > 0.0]
            self._tell(service, called, seen, with_probe(called.smoothing.shares, policy.probe, order))

    def _is_of_interest(self, service: str, called: Called) -> bool:
        """Whether callers here need the row, or others the numbers."""
        here = any(instance.datacenter == self._home for instance in self._known.instances(service))
        says_more = called.report is not None and called.report.demand > 0.0  # until it said that nobody calls any more
        return called.gathering.is_called or says_more or (here and self._reports.is_called(service, self._out.now))

    def _tell(self, service: str, called: Called, seen: Picture, shares: tuple[Share, ...]) -> None:
        gathering = called.gathering
        report = make_report(self._out.node, service, self._stamp + 1, gathering.epoch, gathering.told, seen, shares)
        if is_news(called.report, report) or self._out.now - called.told_at >= FLOW_REPEAT:
            self._stamp += 1
            called.report, called.told_at = report, self._out.now
            self._reports.hear(report, self._out.now)
            self._telling.spread(report)

    # ---- what callers here are told

    def _refresh(self, service: str, called: Called) -> None:
        """Follow the newest row; callers are told when it sends them elsewhere."""
        shares = self._known.row(service)[0].shares
        policy = self._policies.of(service)
        if policy != called.policy or differ(called.shares, shares):
            called.shares, called.policy = shares, policy
            called.epoch = self._next_epoch()
            self._out.notify(FlowsChanged(service, called.epoch))
