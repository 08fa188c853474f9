"""Requests in a simulated fleet: the workloads of kind `requests`.

A caller sits on the host of an agent and does what the client library does: it asks that agent for the route of its
service, is told at once when callers should go elsewhere, picks with the real picker, says once a second what it did, and
goes on with what it knows while the agent is away.  Instances queue and serve, and report their load to their own agent.
Requests travel over the same links as everything else (channel `app`).
"""

from collections.abc import Callable, Iterator
from itertools import count

from dislocate.core.balance.errors import NoEndpoint
from dislocate.core.balance.picker import Picker
from dislocate.core.boundary.balance import ReportUsage, Share
from dislocate.core.boundary.events import Event, FlowsChanged
from dislocate.core.boundary.requests import ReportLoad, Result
from dislocate.core.boundary.values import Load, Status
from dislocate.core.errors import DislocateError
from dislocate.core.identity import Path
from dislocate.core.streams import Stream
from dislocate.core.units import MILLISECOND, SECOND
from dislocate.linkmodel import APP, RETRANSMISSION_TIMEOUT, Link
from sim.process import Machine, Process
from sim.services import ServiceLife, SimulatedService
from sim.traffic.balancer import Call, Caller, Ended, Place
from sim.traffic.book import Attempted, CallerBook
from sim.traffic.calls import ENDED, Calls, Patience
from sim.traffic.chances import Exponential, exponential
from sim.traffic.demand import Keys, Steady, next_arrival
from sim.traffic.measures import FAILED
from sim.traffic.pickers import Pickers
from sim.traffic.station import Answer, Station
from sim.workload.plan import Workload
from sim.world import World

PERIOD = 1 * SECOND  # of what callers tell, and instances
WAKES = 1 * MILLISECOND  # until a caller that waits at its agent has read the answer
NOBODY_YET = 100 * MILLISECOND  # until a caller asks again for a service that its agent does not know yet


class Hosted(Place):
    """An instance on a host of the fleet."""

    __slots__ = ("machine", "service")

    def __init__(self, at: int, machine: Machine, home: int, service: SimulatedService, station: Station) -> None:
        super().__init__(at, machine.path, home, service.spec.id, station)
        self.machine = machine
        self.service = service


class Resident(Caller):
    """A caller on a host of the fleet."""

    __slots__ = ("book", "machine", "name", "picker", "published", "stream")

    def __init__(self, at: int, name: str, machine: Machine, home: int, book: CallerBook, stream: Stream) -> None:
        super().__init__(at, machine.datacenter, home)
        self.name = name
        self.machine = machine
        self.book = book
        self.stream = stream
        self.picker = Picker(book.service, stream, name)
        self.published: tuple[Share, ...] = ()  # by its agent, where that answers


def place_requests(world: World) -> None:
    """Make the callers of the world's scenario, and the stations of whom they call."""
    workloads = [one for one in world.scenario.workloads if one.kind == "requests"]
    if workloads:
        hosting = Hosting(world, tuple(dict.fromkeys(one.service for one in workloads)))
        numbers = count()
        for workload in workloads:
            Requests(world, workload, hosting, numbers)


class Places(dict[str, "Hosted"]):
    """By 'dc/node/id'.  One that is asked for before the next look at what has come is looked for then."""

    def __init__(self, look: Callable[[], None]) -> None:
        super().__init__()
        self._look = look

    def __missing__(self, key: str) -> "Hosted":
        self._look()
        if key not in self:
            raise KeyError(key)
        return self[key]


class Hosting:
    """The instances that are called: their stations, and what they tell their agents."""

    def __init__(self, world: World, services: tuple[str, ...]) -> None:
        self._world = world
        self._services = services
        self._homes = {name: at for at, name in enumerate(world.layout.nodes)}
        self._declared = {service.name: service for service in world.scenario.services}
        self.places: dict[str, Hosted] = Places(self._look)
        self._look()
        world.schedule.call_last(PERIOD, self._tell, None)

    def _look(self) -> None:
        """Instances that have come."""
        for machine in self._world.machines.values():
            for service in machine.services.values():
                key = f"{machine.path}/{service.spec.id}"
                if service.spec.service in self._services and key not in self.places:
                    self.places[key] = self._hosted(machine, service, key)

    def _hosted(self, machine: Machine, service: SimulatedService, key: str) -> Hosted:
        declared = self._declared[service.spec.service]

        def answered(job: tuple["Requests", Call, int], answer: Answer) -> None:
            requests, call, attempt = job
            requests.send_back(call, attempt, ENDED[answer], place)

        station = service.station = Station(
            self._world.schedule,
            self._world.streams[f"station/{key}"],
            answered,
            workers=declared.workers,
            service_time=Exponential(declared.takes),
            limit=declared.queue,
        )
        place = Hosted(len(self.places), machine, self._homes[machine.datacenter], service, station)
        return place

    def _tell(self, _: None, __: None, ___: None) -> None:
        """Each instance says how busy it is, while it and its agent run."""
        world = self._world
        self._look()
        for place in self.places.values():
            station = place.station
            busy, served = station.take_busy(), station.served
            station.served = 0
            if place.service.life is ServiceLife.UP and place.machine.process is not None:
                load = Load(min(1.0, busy / (PERIOD * station.workers)), station.in_system, float(served))
                world.request(place.machine, ReportLoad(place.id, load), _no_matter)
        world.schedule.call_last(world.now + PERIOD, self._tell, None)


class FleetPickers(Pickers):
    """Keeps the book of what each caller has under way."""

    def __init__(self, world: World, callers: list[Resident], hosting: Hosting) -> None:
        super().__init__({one.at: one.picker for one in callers}, hosting.places)
        self._world = world
        self._callers = {one.at: one for one in callers}

    def choose(self, call: Call, now: int, *, retry: bool) -> Place | None:
        caller = self._callers[call.caller.at]
        book = caller.book
        place = super().choose(call, now, retry=retry)
        if place is None:
            return None
        endpoint = call.token.endpoint
        book.attempts += 1
        book.retried += retry
        attempted = book.attempted.get(place.key)
        if attempted is None or attempted.endpoint is not endpoint:
            attempted = book.attempted[place.key] = Attempted(endpoint)
        attempted.under_way += 1
        attempted.last = now
        if not call.tried:
            book.first_sent(place.datacenter, caller.published, now // SECOND)
        return place

    def done(self, call: Call, now: int, ended: Ended) -> None:
        super().done(call, now, ended)
        book = self._callers[call.caller.at].book
        book.attempts_ended += 1
        assert call.place is not None
        attempted = book.attempted[call.place.key]
        if attempted.endpoint is call.token.endpoint:
            attempted.under_way -= 1

    def refused(self, call: Call, error: DislocateError) -> None:
        super().refused(call, error)
        caller = self._callers[call.caller.at]
        if isinstance(error, NoEndpoint) and self._knows_somebody(caller):
            caller.book.empty.append(self._world.now)

    def _knows_somebody(self, caller: Resident) -> bool:
        process = caller.machine.process
        if process is None or process.is_paused:
            return False
        view = process.node.catalog.service(caller.book.service)
        return view is not None and any(one.status is not Status.MAINTENANCE for one in view.instances)


class Requests:
    """The callers of one workload."""

    def __init__(self, world: World, workload: Workload, hosting: Hosting, numbers: Iterator[int]) -> None:
        self._world = world
        self._workload = workload
        self._hosting = hosting
        self._stream = world.streams[f"requests/{workload.name}"]
        homes = {name: at for at, name in enumerate(world.layout.nodes)}
        agents = world.layout.agents(workload.at)
        self.callers = [
            self._resident(next(numbers), number, world.machines[agents[number % len(agents)]], homes)
            for number in range(workload.clients)
        ]
        self._keys = Keys(workload.keys) if workload.keyed else None
        self._of: dict[Path, list[Resident]] = {}
        for caller in self.callers:
            self._of.setdefault(caller.machine.path, []).append(caller)
        patience = Patience(attempt=workload.timeout)
        self._calls = Calls(world.schedule, FleetPickers(world, self.callers, hosting), self, patience, self._over)
        world.observers.append(self._heard)
        for caller in self.callers:
            world.schedule.call(workload.begin + caller.stream.below(SECOND), self._begins, caller)

    def _resident(self, at: int, number: int, machine: Machine, homes: dict[str, int]) -> Resident:
        name = f"{self._workload.name}-{number + 1}"
        book = CallerBook(name, machine.path, self._workload.service)
        self._world.truth.calls.callers.append(book)
        stream = self._world.streams[f"requests/{name}"]
        return Resident(at, name, machine, homes[machine.datacenter], book, stream)

    # ---- a caller and its agent

    def _begins(self, caller: Resident, _: None, __: None) -> None:
        """As a program does that is started: it waits until its agent knows somebody."""
        self._ask(caller)
        schedule, now = self._world.schedule, self._world.now
        route = caller.picker.route
        if route is None or not route.instances:
            schedule.call(now + NOBODY_YET, self._begins, caller)
            return
        self._tell(caller, None, None)
        if self._workload.rate:
            self._arrive_next(caller)
        else:
            for _user in range(self._workload.users):
                self._call(caller, None, None)

    def _ask(self, caller: Resident) -> None:
        """The route, as its agent has it; when that does not answer, the one that is known stays."""
        process = caller.machine.process
        if process is not None and not process.is_paused:
            route = process.node.flows.route(self._workload.service)
            if route is not None:
                caller.picker.update(route, self._world.now)
                policy = route.policy
                self._calls.patience = Patience(
                    call=policy.timeout, attempt=self._workload.timeout, attempts=policy.retries.attempts
                )

    def _tell(self, caller: Resident, _: None, __: None) -> None:
        """Once a second: what was done, and the route anew."""
        world, process = self._world, caller.machine.process
        now = world.now
        usage = caller.picker.usage(now)
        if process is not None:
            if usage is not None:
                world.request(caller.machine, ReportUsage(caller.name, (usage,)), _no_matter)
            self._ask(caller)
        self._look(caller)
        world.schedule.call(now - now % SECOND + PERIOD, self._tell, caller)

    def _heard(self, process: Process, event: Event) -> None:
        if isinstance(event, FlowsChanged) and event.service == self._workload.service:
            for caller in self._of.get(process.machine.path, ()):
                self._look(caller)
                self._world.schedule.call(self._world.now + WAKES, self._woken, caller)

    def _look(self, caller: Resident) -> None:
        """What its agent publishes."""
        process, caller.published = caller.machine.process, ()
        if process is not None and process.is_running and not process.is_paused:
            flows = process.node.flows.of(self._workload.service)
            caller.published = flows.home.shares if flows is not None else ()

    def _woken(self, caller: Resident, _: None, __: None) -> None:
        self._ask(caller)

    # ---- calls

    def _is_over(self) -> bool:
        workload, world = self._workload, self._world
        return workload.until is not None and world.now >= workload.until

    def _arrive_next(self, caller: Resident) -> None:
        at = next_arrival(Steady(self._workload.rate), 1.0, self._world.now, caller.stream)
        self._world.schedule.call(at, self._arrived, caller)

    def _arrived(self, caller: Resident, _: None, __: None) -> None:
        if not self._is_over():
            self._arrive_next(caller)
            self._begin(caller)

    def _call(self, caller: Resident, _: None, __: None) -> None:
        """Closed loop: a user asks, and asks again when that has ended."""
        if not self._is_over() and not self._begin(caller):
            self._world.schedule.call(self._world.now + PERIOD, self._call, caller)

    def _begin(self, caller: Resident) -> bool:
        if not caller.machine.is_powered:
            return False
        caller.book.begun += 1
        self._calls.begin(caller, self._keys.draw(caller.stream) if self._keys is not None else "")
        return True

    def _over(self, call: Call, where: int) -> None:
        caller, now = call.caller, self._world.now
        assert isinstance(caller, Resident)
        caller.book.ended += 1
        caller.book.ends.append((call.begun, now - call.begun, where == FAILED))
        if not self._workload.rate:
            pause = exponential(caller.stream, self._workload.think) if self._workload.think else 0
            self._world.schedule.call(now + max(MILLISECOND, pause), self._call, caller)

    # ---- the way there and back

    def send(self, call: Call, attempt: int, place: Place) -> bool:
        """The request travels.  False: nothing can come back, from a host without power or over a link that is cut."""
        caller = call.caller
        assert isinstance(place, Hosted)
        assert isinstance(caller, Resident)
        there, back = self._links(caller, place)
        if there.is_cut(APP) or back.is_cut(APP) or not place.machine.is_powered:
            return False
        self._world.schedule.call(self._world.now + self._delay(there), self._reached, call, attempt, place)
        return True

    def _reached(self, call: Call, attempt: int, place: Hosted) -> None:
        caller = call.caller
        assert isinstance(caller, Resident)
        if self._links(caller, place)[0].is_cut(APP) or not place.machine.is_powered:
            return
        if place.service.life is ServiceLife.DOWN:
            self.send_back(call, attempt, Ended.REFUSED, place)
        else:
            place.station.receive((self, call, attempt))

    def send_back(self, call: Call, attempt: int, ended: Ended, place: Hosted) -> None:
        """What became of a request travels back, unless nothing gets through."""
        caller = call.caller
        assert isinstance(caller, Resident)
        back = self._links(caller, place)[1]
        if not back.is_cut(APP) and place.machine.is_powered:
            at = self._world.now + self._delay(back)
            self._world.schedule.call(at, self._calls.replied, call, attempt, ended)

    def _links(self, caller: Resident, place: Hosted) -> tuple[Link, Link]:
        rows = self._world.network.rows
        here, there = caller.machine.index, place.machine.index
        return rows[here][there], rows[there][here]

    def _delay(self, link: Link) -> int:
        """As on any stream; drawn from a stream of its own, so that traffic shifts nothing of the agents' network."""
        delay = int(link.quality.delay * link.slow_factor)
        loss = link.quality.loss + link.extra_loss
        while loss and self._stream.chance(min(loss, 0.9)):
            delay += max(RETRANSMISSION_TIMEOUT, 2 * link.quality.delay)
        return delay


def _no_matter(_result: Result) -> None:
    """Nobody waits for it."""
