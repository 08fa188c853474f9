"""Invariants of balancing (design, section 5): flows, and what callers of a simulated fleet do with them."""

from typing import TypeAlias

from dislocate.core.balance.endpoints import panics
from dislocate.core.boundary.balance import PlaceInput, Policy, ServiceFlows
from dislocate.core.boundary.values import Status
from dislocate.core.boundary.views import InstanceView
from dislocate.core.units import MILLISECOND, SECOND, seconds
from sim.invariants.monitor import Invariant
from sim.process import Process
from sim.traffic.book import CallerBook
from sim.world import World

Epochs: TypeAlias = tuple[tuple[str, int], ...]

LOOK = 500 * MILLISECOND  # rows are computed each second
KEPT = 50  # sets of inputs
ROUNDING = 0.01  # requests a second, and of a part: numbers are told rounded
LEFT_ALONE = 3 * SECOND  # after which nobody calls an instance that its agent says is not to be called
BUDGET_WINDOW = 10 * SECOND
SLACK = 2 * SECOND  # windows of a budget are whole seconds, and a look is every other second


class FlowsWithinCapacity(Invariant):
    """What all data centers send to one is no more than the part `rho` of what it can do: on rows that were computed from
    the same reports, before they are smoothed, while all together can carry it."""

    name = "flows are within capacity"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._services = dict.fromkeys(one.service for one in world.scenario.workloads if one.service)
        self._rows: dict[tuple[str, Epochs], dict[str, ServiceFlows]] = {}  # by service and inputs: by source
        if self._services:
            world.schedule.call_last(LOOK, self._look_due, None)

    def _look_due(self, _: None, __: None, ___: None) -> None:
        for service in self._services:
            self._look(service)
        self.world.schedule.call_last(self.world.now + LOOK, self._look_due, None)

    def _look(self, service: str) -> None:
        """Keep the rows that agents have just computed, by what they were computed from."""
        sources = {}
        for path in self.world.observers_up():
            flows = self.world.node(path).flows.of(service)
            if flows is not None and flows.home.computed_by == path and flows.home.epoch:
                sources[flows.home.source] = flows
        for source, flows in sources.items():
            self._rows.setdefault((service, _epochs(flows)), {})[source] = flows
        for key in list(self._rows)[:-KEPT]:
            del self._rows[key]

    def check(self) -> None:
        for key, alike in self._rows.items():
            if len(alike) > 1 and not any(flows.home.overload for flows in alike.values()):
                self._judge(key[0], alike)

    def _judge(self, service: str, alike: dict[str, ServiceFlows]) -> None:
        for place in next(iter(alike.values())).inputs:
            if place.endpoint_capacity <= 0.0:
                continue
            into = sum(_demand(flows) * _target(flows, place.datacenter) for flows in alike.values())
            # Who lives is no report: each takes it from its own catalog.
            allowed = max(flows.home.rho * _capacity(flows, place) for flows in alike.values())
            self.exercised += into > 0.0
            if into > allowed * (1.0 + ROUNDING) + ROUNDING:
                words = f"{into:.1f} req/s of {service} into {place.datacenter}, which is to be given {allowed:.1f}"
                raise self.violated(next(iter(alike.values())).home.computed_by, words)


def _epochs(flows: ServiceFlows) -> Epochs:
    return tuple(sorted((place.datacenter, place.epoch) for place in flows.inputs))


def _demand(flows: ServiceFlows) -> float:
    return next((place.demand for place in flows.inputs if place.datacenter == flows.home.source), 0.0)


def _target(flows: ServiceFlows, datacenter: str) -> float:
    return next((share.share for share in flows.home.target if share.datacenter == datacenter), 0.0)


def _capacity(flows: ServiceFlows, place: PlaceInput) -> float:
    return next(one.capacity for one in flows.inputs if one.datacenter == place.datacenter)


class CallsAreConserved(Invariant):
    """Calls begun are ended or under way, and a picker counts as pending exactly what its caller has under way."""

    name = "calls are conserved"

    def check(self) -> None:
        for book in self.world.truth.calls.callers:
            self.exercised += book.ended > 0
            under_way = sum(one.under_way for one in book.attempted.values())
            if book.ended > book.begun or under_way > book.attempts - book.attempts_ended:
                raise self.violated(book.path, f"{book.name} ended {book.ended} calls of {book.begun}")
            for key, one in book.attempted.items():
                if one.endpoint.pending != one.under_way:
                    words = f"{book.name} has {one.under_way} calls under way at {key}, its picker says {one.endpoint.pending}"
                    raise self.violated(book.path, words)


class TheUnusableAreLeftAlone(Invariant):
    """Nobody calls an instance that drains, or whose checks fail, once its agent has said so for `LEFT_ALONE`, while better
    ones are known."""

    name = "the unusable are left alone"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._since: dict[
            tuple[Process, str], int
        ] = {}  # (agent, key of the instance): when it was first seen unusable

    def check(self) -> None:
        for book in self.world.truth.calls.callers:
            process = self.world.machines[book.path].process
            if process is None or process.is_paused:
                continue
            view = process.node.catalog.service(book.service)
            instances = () if view is None else view.instances
            for instance in instances:
                self._look(book, process, instance, instances)

    def _look(
        self, book: CallerBook, process: Process, instance: InstanceView, all_of_it: tuple[InstanceView, ...]
    ) -> None:
        key = f"{instance.node}/{instance.id}"
        is_unusable = instance.status in (Status.DRAINING, Status.MAINTENANCE, Status.CRITICAL)
        if not is_unusable or panics(all_of_it) or not any(_is_better(one) for one in all_of_it):
            self._since.pop((process, key), None)
            return
        since = self._since.setdefault((process, key), self.world.now)
        if self.world.now - since < LEFT_ALONE:
            return
        self.exercised += 1
        attempted = book.attempted.get(key)
        if attempted is not None and attempted.last > since + LEFT_ALONE:
            words = (
                f"{book.name} called {key} {seconds(attempted.last - since):.1f} s after it was {instance.status.value}"
            )
            raise self.violated(book.path, words)


def _is_better(instance: InstanceView) -> bool:
    return instance.status in (Status.PASSING, Status.WARNING) and instance.reachable and not instance.suspected


class RetriesAreBudgeted(Invariant):
    """In ten seconds a caller tries again no more often than its policy's part of its calls and number a second allow."""

    name = "retries are budgeted"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._marks: dict[str, list[tuple[int, int, int]]] = {}  # by caller: (when, begun, retried), a look each

    def check(self) -> None:
        now = self.world.now
        for book in self.world.truth.calls.callers:
            marks = self._marks.setdefault(book.name, [])
            marks.append((now, book.begun, book.retried))
            while marks[0][0] < now - BUDGET_WINDOW - SLACK:
                marks.pop(0)
            retries = self._policy(book).retries
            # The youngest mark that is a whole window old: what was retried since, against what may have been begun.
            whole = [mark for mark in marks if mark[0] <= now - BUDGET_WINDOW + SLACK]
            if not whole:
                continue
            begun, retried = book.begun - marks[0][1], book.retried - whole[-1][2]
            allowed = retries.ratio * begun + retries.per_second * (BUDGET_WINDOW / SECOND)
            self.exercised += retried > 0
            if retried > allowed + 1:
                words = f"{book.name} tried again {retried} times in {begun} calls, {allowed:.0f} are allowed"
                raise self.violated(book.path, words)

    def _policy(self, book: CallerBook) -> Policy:
        process = self.world.machines[book.path].process
        flows = None if process is None else process.node.flows.of(book.service)
        return Policy() if flows is None else flows.policy


class SomebodyIsNamed(Invariant):
    """A caller whose agent knows any instance that is not in maintenance is never told that there is nobody."""

    name = "somebody is named"

    def check(self) -> None:
        for book in self.world.truth.calls.callers:
            self.exercised += book.begun > 0
            if book.empty:
                words = f"{book.name} was told at {seconds(book.empty[0]):.1f} s that {book.service} has nobody"
                raise self.violated(book.path, words)


BALANCE: tuple[type[Invariant], ...] = (
    FlowsWithinCapacity,
    CallsAreConserved,
    TheUnusableAreLeftAlone,
    RetriesAreBudgeted,
    SomebodyIsNamed,
)
