"""Config runs in two lines: pictures of a run, and a leader's looks at them."""

from collections.abc import Sequence
from typing import Any

from dislocate.core.boundary.runs import (
    Batch,
    Direction,
    Frozen,
    NodeState,
    NodeTask,
    RunPlan,
    RunRecord,
    RunState,
)
from dislocate.core.boundary.spec import Command, Freeze, Gate, RunSpec, Strategy
from dislocate.core.boundary.values import Load, Status
from dislocate.core.boundary.views import InstanceView
from dislocate.core.identity import Path
from dislocate.core.runs.clocks import Clocks
from dislocate.core.runs.picture import Picture, Seen
from dislocate.core.runs.rollout import decide
from dislocate.core.runs.steps import (
    CloseBatch,
    FinishRun,
    HoldRun,
    JoinNodes,
    MarkNodes,
    OpenBatch,
    ReleaseRun,
    RevertRun,
    RunStep,
)
from dislocate.core.units import SECOND, parse_duration

MONDAY = 1_700_438_400 * SECOND  # 2023-11-20 00:00 UTC
STATES = {state.value.replace(" ", "-"): state for state in NodeState}
BEGAN = (NodeState.STARTED, NodeState.DONE, NodeState.FAILED, NodeState.UNKNOWN, NodeState.REVERTED)


def plan(text: str) -> RunPlan:
    """'canary: fra/a1 | fra: fra/a2 fra/a3': one batch after the other."""
    batches = []
    for part in text.split("|"):
        wave, _, nodes = part.partition(":")
        batches.append(Batch(wave.strip(), tuple(nodes.split())))
    return RunPlan(targets=tuple(sorted(node for batch in batches for node in batch.nodes)), batches=tuple(batches))


def tasks(text: str, direction: Direction = Direction.APPLY) -> dict[Path, NodeTask]:
    """'fra/a1=done fra/a2=started'; 'fra/a2=failed!' began once all the same, 'fra/a2=done?' did not."""
    found = {}
    for part in text.split():
        node, _, word = part.partition("=")
        state = STATES[word.rstrip("!")]
        touched = state in BEGAN or word.endswith("!")
        found[node] = NodeTask(node=node, state=state, touched=touched, epoch=1, direction=direction)
    return found


<<<<<<<< HEAD:tests/support/tiny_runs.py
def picture(
    batches: str,
    nodes: str = "",
    *,
    gates: Sequence[Gate] = (),
    freezes: Sequence[Freeze] = (),
    strategy: dict[str, Any] | None = None,
    **fields: Any,
) -> Picture:
    """A run in the middle; `fields` of its record."""
    planned = plan(batches)
    spec = RunSpec(
        name="web",
        targets="dc:*",
        resources=(Command(run=("true",), once=True),),
        strategy=Strategy(**(strategy or {})),
        gates=tuple(gates),
        freezes=tuple(freezes),
    )
    record = RunRecord(
        **{
            "id": "7",
            "name": "web",
========
class TinyHost:
    """Resources by id; what is not there is absent."""

    def __init__(self) -> None:
        self.states: dict[str, str] = {}
        self.before: dict[tuple[str, str], str] = {}
        self.done: list[tuple[TaskVerb, str]] = []  # what changed something
        self.looked: list[str] = []
        self.fails: dict[str, str] = {}  # resource: kind

    def wanted(self, resource: Resource) -> str:
        return resource.content if isinstance(resource, File) else "done"

    def do(self, task: Task) -> TaskOutcome:
        resource, name = task.resource, resource_id(task.resource)
        now, wanted = self.states.get(name, "absent"), self.wanted(task.resource)
        if task.verb is TaskVerb.LOOK:
            self.looked.append(name)
            if self.fails.get(name) == "render":
                return TaskOutcome(TaskResult.FAILED, kind="render", words="no key 'color'")
            if isinstance(resource, Command) and resource.once:
                return TaskOutcome(TaskResult.UNTOLD)
            if isinstance(resource, Service) or (isinstance(resource, Command) and resource.only_notified):
                return TaskOutcome(TaskResult.SAME, now, now)
            return TaskOutcome(TaskResult.SAME if now == wanted else TaskResult.WOULD_CHANGE, now, wanted)
        if name in self.fails:
            return TaskOutcome(TaskResult.FAILED, kind=self.fails[name], words="exit code 1")
        if task.verb is TaskVerb.REVERT:
            wanted = self.before.get((task.run, name), now)
        else:
            self.before.setdefault((task.run, name), now)
        self.done.append((task.verb, name))
        self.states[name] = wanted
        return TaskOutcome(TaskResult.CHANGED, now, wanted, took=SECOND)

    def applied(self) -> list[str]:
        return [name for verb, name in self.done if verb is TaskVerb.APPLY]

    def reverted(self) -> list[str]:
        return [name for verb, name in self.done if verb is TaskVerb.REVERT]


class TinyStore:
    """The store as one node meets it: a `StoreDoor`."""

    def __init__(self, world: "TinyWorker") -> None:
        self.listeners: list[Callable[[Any], None]] = []
        self.leads, self.keys = False, None
        self.records: dict[str, RunRecord] = {}
        self.over: dict[str, RunRecord] = {}
        self.specs: dict[str, Frozen] = {}
        self.tasks: dict[str, NodeTask] = {}
        self.expected = ""
        self.reports: list[ReportTask] = []
        self.asked: list[Any] = []
        self.is_away = False  # asks end unanswered
        self.answers_after = 0
        self._world = world
        self._revision = 0

    def ask(self, request: Any, then: Callable[[Any], None]) -> None:
        self.asked.append(request)
        if self.is_away:
            result: Any = Refused("unavailable", "store", "nobody leads")
        else:
            result = self._answer(request)
        self._world.later(lambda: then(result), self.answers_after)

    def propose(self, _step: Any) -> bool:
        return False

    def held(self, prefix: str) -> tuple[KeyValue, ...]:
        return tuple(
            KeyValue(active_key(run), encode(one), 1, one.version, 1) for run, one in sorted(self.records.items())
        )

    def _answer(self, request: Any) -> Any:
        match request:
            case AskGrant():
                return self._grant(request)
            case ReportTask():
                return self._report(request)
            case ReadKeys(key=key):
                value = self._value(key)
                return KeysRead(() if value is None else (KeyValue(key, value, 1, 1, 1),), 1, 0)
        raise AssertionError(request)

    def _value(self, key: str) -> bytes | None:
        for run, frozen in self.specs.items():
            if key == spec_key(run):
                return encode(frozen)
            if key == over_key(run) and run in self.over:
                return encode(self.over[run])
            if key == node_key(run, NODE.path) and run in self.tasks:
                return encode(self.tasks[run])
        return None

    def _grant(self, request: AskGrant) -> Any:
        record, task = self.records.get(request.run), self.tasks[request.run]
        if record is None or record.state not in (RunState.RUNNING, RunState.REVERTING):
            return Refused("conflict", "run", "it is not running")
        is_its_turn = request.epoch == record.epoch and task.direction is record.direction
        if not is_its_turn or task.state not in IN_FLIGHT:
            return Refused("conflict", "epoch", "not for you")
        self.tasks[request.run] = replace(
            task,
            state=NodeState.STARTED,
            ask=request.ask,
            epoch=request.epoch,
            touched=True,
            direction=record.direction,
        )
        return Granted(request.run, request.epoch, request.ask, record.direction, self.expected)

    def _report(self, request: ReportTask) -> Any:
        task = self.tasks[request.run]
        if request.epoch != task.epoch or not task.ask:
            return Refused("conflict", "epoch", "an older epoch")
        self.reports.append(request)
        self.tasks[request.run] = replace(task, state=request.state, steps=request.steps, words=request.words)
        self.grant_back(request.run)
        return Done()

    def grant_back(self, run: str) -> None:
        """What the leader does while a run is taken back: who has reported is granted that."""
        record, task = self.records.get(run), self.tasks[run]
        if (
            record is not None
            and record.state is RunState.REVERTING
            and task.state in (NodeState.DONE, NodeState.FAILED)
        ):
            granted = replace(task, state=NodeState.GRANTED, direction=Direction.REVERT, epoch=record.epoch)
            self.tasks[run] = granted
            self.put(replace(record, version=record.version + 1, granted=(NODE.path,)))

    # ---- what tests do

    def put(self, record: RunRecord) -> None:
        self.records[record.id] = record
        self.tell()

    def change(self, run: str, **changes: Any) -> None:
        record = self.records[run]
        self.put(replace(record, version=record.version + 1, **changes))

    def tell(self) -> None:
        self._world.later(self._tell)

    def _tell(self) -> None:
        for listener in self.listeners:
            listener(())


class TinyWorker:
    """The world of one agent."""

    def __init__(self) -> None:
        self.now = 0
        self.boot = 0
        self.disk: dict[str, bytes] = {}
        self.disk_says = ""
        self.host = TinyHost()
        self.store = TinyStore(self)
        self.events: list[Event] = []
        self.steps = 0  # things done in the world so far
        self.crash_after: int | None = None
        self.answers_tasks = True
        self._inbox: deque[Callable[[], None]] = deque()
        self._delayed: list[tuple[int, Callable[[], None]]] = []
        self.start()

    # ---- what tests do

    def start(self) -> None:
        """Start the agent, again with what its disk has."""
        self.boot += 1
        self._inbox.clear()
        self._delayed.clear()
        self.store.listeners = []
        self.out = Outbox(NodeId("fra", "a1", self.boot), Rumors())
        self.out.now = self.now
        records = tuple(StoredRecord(key, self.disk[key]) for key in sorted(self.disk))
        self.worker = Worker(self.out, self.store, Streams(f"runs/{self.boot}"), Recovered(records=records))
        self._timers = self.worker.timers()
        self.worker.start()

    def begin_run(self, *resources: Resource, run: str = "1", **more: Any) -> RunSpec:
        """The store grants a run to this node."""
        spec = RunSpec(
            name=more.pop("name", "web"), targets="*", resources=resources, enforce=more.pop("enforce", False)
        )
        self.store.specs[run] = Frozen(spec=spec, values={"color": "red"})
        self.store.tasks[run] = NodeTask(node=NODE.path, state=NodeState.GRANTED, epoch=1)
        given: dict[str, Any] = {
            "id": run,
            "name": spec.name,
>>>>>>>> r_agent:tests/support/tiny_worker.py
            "title": "",
            "state": RunState.RUNNING,
            "version": 1,
            "epoch": 1,
            "direction": Direction.APPLY,
            "batch": 0,
            "targets": len(planned.targets),
            "batches": len(planned.batches),
            "spec_digest": "",
            "actor": "ann",
            "started_at": 0,
            "changed_at": 0,
            **fields,
        }
    )
    return Picture(record, planned, tasks(nodes, record.direction), Frozen(spec=spec))


def instances(text: str, service: str = "web") -> dict[str, tuple[InstanceView, ...]]:
    """'fra/a1 passing 0.5, fra/a2 critical': one instance on each, with its utilization."""
    found = []
    for number, part in enumerate(filter(None, map(str.strip, text.split(",")))):
        node, status, *load = part.split()
        found.append(
            InstanceView(
                id=f"web-{number}",
                service=service,
                node=node,
                datacenter=node.partition("/")[0],
                address="10.0.0.1",
                port=80,
                status=Status(status),
                tags=(),
                meta={},
                weight=1,
                load=Load(utilization=float(load[0])) if load else None,
                as_of=0,
                reachable=True,
            )
        )
    return {service: tuple(found)}


class Watch:
    """A leader that looks at pictures."""

    def __init__(self, unix: int = MONDAY) -> None:
        self.now = SECOND
        self.clocks = Clocks()
        self._unix = unix - self.now

    def after(self, time: str) -> "Watch":
        self.now += parse_duration(time)
        return self

    def look(self, picture: Picture, *, away: str = "", **seen: Any) -> RunStep | None:
        facts = Seen(unix=self._unix + self.now, away=frozenset(away.split()), **seen)
        self.clocks.observe(picture, facts, self.now)
        return decide(picture, facts, self.clocks, self.now)


def said(step: RunStep) -> str:
    """One line of a transcript."""
    match step:
        case OpenBatch(nodes=nodes):
            return f"open {' '.join(nodes)}"
        case CloseBatch():
            return "close"
        case HoldRun(hold=hold):
            return f"hold: {hold.value}"
        case ReleaseRun():
            return "release"
        case RevertRun():
            return "revert"
        case MarkNodes(marks=marks):
            return f"mark {' '.join(f'{mark.node}={mark.state.value}' for mark in marks)}"
        case JoinNodes(nodes=nodes):
            return f"join {' '.join(nodes)}"
        case FinishRun(state=state):
            return f"finish: {state.value}"
