"""The world: virtual time, hosts, and real `core` nodes driven exactly as production drives them.

One input at a time, its effects in order, one timer a node, the wall clock once a second, waiting input before a late
timer.  Everything that a run does follows from the scenario, the seed and the code: time is a heap of integers, every
draw has a named stream, and nothing here reads a clock.

    world = World(scenario, seed=7)
    world.run(30 * SECOND)
    world.members("fra/a1")["fra/a2"].state

Faults act through `faults.do`; what must always hold is watched by `invariants`, what the story claims by `expectations`.
"""

import gc
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from dislocate.core.boundary.effects import Effect, Notify, RunTask
from dislocate.core.boundary.events import Event
from dislocate.core.boundary.inputs import (
    ClockRead,
    DatagramReceived,
    Input,
    RequestCancelled,
    Requested,
    TimeReached,
)
from dislocate.core.boundary.requests import Request, Result
from dislocate.core.boundary.settings import Recovered, Settings
from dislocate.core.boundary.store import StoreView
from dislocate.core.boundary.views import DatacenterView, InstanceView, MemberView
from dislocate.core.errors import Bug, require
from dislocate.core.identity import NodeId, Path
from dislocate.core.node import Node
from dislocate.core.outbox import NEVER
from dislocate.core.streams import Streams
from dislocate.core.units import MILLISECOND, SECOND, format_duration
from dislocate.core.wire import FactMemo
from sim.digest import Digest
from sim.host import Effect as HostEffect
from sim.meter import Meter
from sim.network import Network
from sim.observed import SeenErrand, SeenRun
from sim.outlets import Outlets
from sim.pace import Paces
from sim.placement import Placement
from sim.process import Asker, Machine, Process
from sim.scenario import Scenario
from sim.schedule import Schedule
from sim.sizes import Sizes
from sim.traffic.book import Seen
from sim.truth import Truth
from sim.wiretap import Wiretap

CLOCK_PERIOD = 1 * SECOND
START_SPREAD = 500 * MILLISECOND  # agents of a fleet start within half a second of each other
GARBAGE = 50_000  # objects made and not yet freed before Python looks for cycles; some tens of MB at most
RECEIVE_QUEUE = 256  # datagrams that a kernel keeps for a stopped process: Linux's default rmem holds 277 small ones

Observer = Callable[[Process, Event], None]
Tracer = Callable[[int, Machine, Input, list[Effect]], None]
NewNode = Callable[[Settings, Streams, Recovered, FactMemo], Node]


@contextmanager
def collecting_rarely() -> Iterator[None]:
    """A turn leaves no cycles behind, and to look for them among all that a large fleet knows takes long."""
    usual = gc.get_threshold()
    gc.set_threshold(GARBAGE, *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)


class World:
    """One fleet in virtual time."""

    def __init__(
        self,
        scenario: Scenario,
        seed: int,
        *,
        settings: Mapping[str, Any] | None = None,
        tracer: Tracer | None = None,
        new_node: NewNode = Node,
    ) -> None:
        """`settings`: fields of `Settings` that every node has (`{"refusal_path": False}`).  Nodes start at time 0.

        `new_node` makes what is driven; a test of the world itself passes something that only listens."""
        if getattr(sys.modules.get("gevent.monkey"), "saved", None):
            raise Bug("gevent has patched this process: a simulation would not be deterministic")
        self.scenario = scenario
        self.seed = seed
        self.layout = scenario.layout()
        self.streams = Streams(f"{seed}/world")
        self.schedule = Schedule()
        self.network = Network(scenario, self.layout, Streams(f"{seed}/net"), self.schedule)
        self.digest = Digest()
        self.observers: list[Observer] = []  # told every `Notify`
        self.effect_observers: list[Callable[[Path, HostEffect], None]] = []  # told what tasks change on hosts
        self.truth = Truth(lambda: self.schedule.now)
        self.handling: Machine | None = None  # whose turn it is, for reports of bugs
        self.last_event = 0
        self.last_fault = 0
        self.errand: Callable[[Path, str], SeenErrand | None] = lambda _path, _what: (
            None
        )  # `errands` are run by nobody yet
        self.seen_runs: dict[tuple[Path, str], SeenRun] = {}  # `errands` keep them
        self._happened: dict[str, int] = {}
        self._tracer = tracer
        self._new_node = new_node
        self._memo = FactMemo()
        self._request_number = 0
        self.placement = Placement(
            scenario,
            self.layout,
            self.streams,
            paces=Paces(scenario.runs, self.truth.runs, self.streams),
            told=self._effect,
            overrides=settings or {},
        )
        self.machines = self.placement.machines
        self._outlets = Outlets(
            self.machines.values(),
            schedule=self.schedule,
            network=self.network,
            streams=self.streams,
            deliver=self.deliver,
        )
        self.links = self._outlets.links
        self.sizes = Sizes(self)
        self.verbs = self._outlets.verbs | {Notify: self._notify, RunTask: self._run_task}
        self._meter = Meter(self.schedule, self.machines.values(), has_store=bool(scenario.servers))
        for machine in self.machines.values():
            self.schedule.call(self.streams["start"].below(START_SPREAD), self._start_due, machine)

    @property
    def now(self) -> int:
        return self.schedule.now

    @cached_property
    def wiretap(self) -> Wiretap:
        """On what servers of the store send and write; listens from the first time that somebody asks for it."""
        wiretap = Wiretap(self.verbs, lambda: self.schedule.now)
        wiretap.reference.on_run = self.truth.runs.applied
        self.observers.insert(0, wiretap.hear)
        return wiretap

    def run(self, until: int) -> None:
        """Go on to virtual time `until`, nanoseconds."""
        with collecting_rarely():
            self.schedule.run(until)

    # ---- what can be asked: `observed.Observed`

    def observers_up(self) -> tuple[Path, ...]:
        """Agents that would answer now."""
        return tuple(path for path, machine in self.machines.items() if _answers(machine))

    def is_up(self, path: Path) -> bool:
        return _answers(self.machines[path])

    def version(self, path: Path) -> tuple[int, int]:
        """Grows whenever what the agent answers may have changed."""
        machine = self.machines[path]
        return machine.starts, machine.process.version if machine.process is not None else 0

    def members(self, path: Path) -> Mapping[Path, MemberView]:
        return self.node(path).members

    def datacenters(self, path: Path) -> Mapping[str, DatacenterView]:
        return self.node(path).datacenters

    def instances(self, path: Path, service: str) -> tuple[InstanceView, ...]:
        view = self.node(path).catalog.service(service)
        return () if view is None else view.instances

    def store(self, path: Path) -> StoreView:
        return self.node(path).store

    def run_of(self, path: Path, name: str) -> SeenRun | None:
        return self.seen_runs.get((path, name))

    def happened(self, what: str) -> int:
        return self._happened.get(what, 0)

    def measured(self, what: str, since: int) -> float:
        return self._meter.measured(what, since)

    def requests(self, services: Sequence[str], agents: Sequence[Path], since: int, until: int) -> Seen:
        return self.truth.calls.seen(services, agents, since, until)

    def node(self, path: Path) -> Node:
        """The node that runs at `path`, which must be there."""
        process = self.machines[path].process
        require(process is not None, f"no agent runs at {path}")
        assert process is not None
        return process.node

    # ---- life: used by `faults`

    def start(self, machine: Machine) -> None:
        """Start an agent on `machine`, unless one runs, the host is off, or its disk cannot be read: then it says so and
        ends, as `io.disk` does."""
        if machine.process is not None or not machine.is_powered:
            return
        if machine.disk.is_damaged:
            self.truth.refused_to_start[machine.path] = self.now
            return
        now = self.now
        machine.starts += 1
        machine.calm_since = now
        disk = machine.disk
        unix = machine.unix_ns(now)
        disk.boot = max(disk.boot + 1, unix // MILLISECOND)
        node_id = NodeId(machine.datacenter, machine.path.partition("/")[2], disk.boot)
        start = f"{self.seed}/{machine.path}" + (f"#{machine.starts}" if machine.starts > 1 else "")
        node = self._new_node(
            self.placement.settings_of(machine, node_id),
            Streams(start),
            Recovered(records=disk.records(), unix_ns=unix),
            self._memo,
        )
        process = machine.process = Process(machine, node, now)
        self.carry_out(process, node.start(now))
        self._arm(process)
        self._clock_due(process, None, None)

    def end(self, machine: Machine, *, power: bool = False) -> None:
        """The agent is no more; with `power`, nor is the host."""
        machine.calm_since = self.now
        if power:
            machine.is_powered = False
        process = machine.process
        if power:
            machine.disk.power_lost()
        elif process is not None:
            machine.disk.process_died()
        if process is not None:
            process.is_running = False
            machine.process = None
            self.links.process_died(process)
            askers, process.requests = process.requests, {}
            for asker in askers.values():
                if asker.lost is not None:
                    asker.lost()

    def pause(self, machine: Machine) -> None:
        if machine.process is not None and not machine.process.is_paused:
            machine.calm_since = self.now
            machine.process.is_paused = True
            self.links.refresh(machine.process.links.values())

    def resume(self, machine: Machine) -> None:
        """What the kernel kept is read first, then the timer fires."""
        process = machine.process
        if process is None or not process.is_paused:
            return
        machine.calm_since = self.now
        process.is_paused = False
        waiting, process.waiting, process.waiting_datagrams = process.waiting, [], 0
        for input_ in waiting:
            self.deliver(process, input_)
        if process.is_running:
            self.links.process_resumed(process)
            process.armed = NEVER
            self._arm(process)

    def request(
        self,
        machine: Machine,
        request: Request,
        then: Callable[[Result], None],
        lost: Callable[[], None] | None = None,
    ) -> int:
        """Ask the agent as its edge would; returns the number of the asking, 0 when none runs.

        `then` is given the reply; `lost` is called instead when the agent dies before it."""
        process = machine.process
        if process is None:
            return 0
        self._request_number = number = self._request_number + 1
        process.requests[number] = Asker(then, lost)
        self.deliver(process, Requested(number, request))
        return number

    def cancel(self, process: Process, number: int) -> None:
        """Nobody waits for that reply any more."""
        if process.requests.pop(number, None) is not None:
            self.deliver(process, RequestCancelled(number))

    def network_changed(self) -> None:
        """Links find out what a cut or a mend means for them."""
        for machine in self.machines.values():
            if machine.process is not None:
                self.links.refresh(list(machine.process.links.values()))

    def host_returned(self, machine: Machine) -> None:
        """The host has power again: its kernel answers, and refuses for what does not run."""
        machine.is_powered = True
        machine.calm_since = self.now
        self.network_changed()

    # ---- driving

    def deliver(self, process: Process, input_: Input) -> None:
        """One input and its effects; what is for a dead process is lost, what is for a stopped one waits."""
        if not process.is_running:
            return
        if process.is_paused:
            self._hold(process, input_)
            return
        machine, node, now = process.machine, process.node, self.schedule.now
        self.handling = machine
        self.digest.add(now, machine.index, input_)
        effects = node.handle(input_, now)
        if node.identity is not process.node_id:
            self.links.become(process, node.identity)
        if self._tracer is not None:
            self._tracer(now, machine, input_, effects)
        if process.is_doomed:
            self.carry_out(process, effects[: self.streams["crash"].below(len(effects) + 1)])
            self.end(machine)
            return
        if effects:
            self.carry_out(process, effects)
        self._arm(process)

    def carry_out(self, process: Process, effects: list[Effect]) -> None:
        """What the world does for `process`; production calls this an outlet."""
        verbs = self.verbs
        for effect in effects:
            verbs[type(effect)](process, effect)

    def _arm(self, process: Process) -> None:
        """One timer a node: set anew when it wants to be told the time earlier than that."""
        at = process.node.deadline()
        if at < process.armed:
            process.armed = at
            now = self.schedule.now
            self.schedule.call_last(at if at > now else now, self._timer_due, process, at)

    def _timer_due(self, process: Process, at: int, _: None) -> None:
        if process.armed != at or process.is_paused:
            return
        process.armed = NEVER
        if process.node.deadline() > at:  # what it waited for was outdated meanwhile
            self._arm(process)
            return
        self.deliver(process, TimeReached())

    def _clock_due(self, process: Process, _: None, __: None) -> None:
        if not process.is_running:
            return
        if not process.is_paused:
            self.deliver(process, ClockRead(process.machine.unix_ns(self.schedule.now)))
        self.schedule.call(self.schedule.now + CLOCK_PERIOD, self._clock_due, process)

    def _start_due(self, machine: Machine, _: None, __: None) -> None:
        self.start(machine)

    def _hold(self, process: Process, input_: Input) -> None:
        if type(input_) is DatagramReceived:
            if process.waiting_datagrams >= RECEIVE_QUEUE:
                return
            process.waiting_datagrams += 1
        process.waiting.append(input_)

    def _run_task(self, process: Process, effect: RunTask) -> None:
        if self.sizes.is_ours(effect):
            self.sizes.run_task(process, effect)
        else:
            self._outlets.verbs[RunTask](process, effect)

    def _notify(self, process: Process, effect: Notify) -> None:
        process.version += 1
        self.last_event = self.schedule.now
        name = type(effect.event).__name__
        self._happened[name] = self._happened.get(name, 0) + 1
        for observer in self.observers:
            observer(process, effect.event)

    def _effect(self, path: Path, effect: HostEffect) -> None:
        for observer in self.effect_observers:
            observer(path, effect)

    def __repr__(self) -> str:
        return f"<World {self.scenario.title!r} seed {self.seed} at {format_duration(self.now)}>"


def _answers(machine: Machine) -> bool:
    return machine.process is not None and not machine.process.is_paused
