"""One agent's worker, in a world small enough to end it after every effect.

A disk in a dictionary, a host whose resources are texts, and a store that grants and takes reports by the rules of the ledger,
for one node.  What the worker wants is done one thing at a time; `crash_after` counts them, and the agent that is started then
has what the disk had, and a host that may have done more.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from dislocate.core.boundary.effects import CancelTask, Notify, RunTask, Store
from dislocate.core.boundary.events import Event
from dislocate.core.boundary.requests import Done, Refused
from dislocate.core.boundary.runs import (
    AskGrant,
    Direction,
    Frozen,
    Granted,
    NodeState,
    NodeTask,
    ReportTask,
    RunRecord,
    RunState,
    Task,
    TaskOutcome,
    TaskResult,
    TaskVerb,
)
from dislocate.core.boundary.settings import Recovered
from dislocate.core.boundary.spec import Command, File, Resource, RunSpec
from dislocate.core.boundary.store import KeysRead, KeyValue, ReadKeys
from dislocate.core.boundary.values import StoredRecord
from dislocate.core.identity import NodeId
from dislocate.core.outbox import Outbox
from dislocate.core.rumors import Rumors
from dislocate.core.runs.agent.worker import Worker
from dislocate.core.runs.records import active_key, encode, node_key, over_key, spec_digest, spec_key
from dislocate.core.runs.resources import is_act, resource_id
from dislocate.core.streams import Streams
from dislocate.core.units import SECOND, parse_duration

NODE = NodeId("fra", "a1", 1)
IN_FLIGHT = (NodeState.GRANTED, NodeState.STARTED, NodeState.UNKNOWN)


def file(path: str, content: str, **more: Any) -> File:
    return File(path=path, content=content, **more)


class Ended(Exception):
    """The agent's process was killed."""


class TinyHost:
    """Resources by id; what is not there is absent."""

    def __init__(self) -> None:
        self.states: dict[str, str] = {}
        self.before: dict[tuple[str, str], str] = {}
        self.done: list[tuple[TaskVerb, str]] = []  # what changed something
        self.looked: list[str] = []
        self.made: dict[str, str] = {}  # what a REVERT was told that the run had made
        self.fails: dict[str, str] = {}  # resource: kind
        self.facts = ""  # end every file

    def wanted(self, resource: Resource) -> str:
        return resource.content + self.facts if isinstance(resource, File) else "done"

    def do(self, task: Task) -> TaskOutcome:
        resource, name = task.resource, resource_id(task.resource)
        now, wanted = self.states.get(name, "absent"), self.wanted(task.resource)
        if task.verb is TaskVerb.LOOK:
            self.looked.append(name)
            if self.fails.get(name) == "render":
                return TaskOutcome(TaskResult.FAILED, kind="render", words="no key 'color'")
            if is_act(resource) or (isinstance(resource, Command) and resource.once):
                return TaskOutcome(TaskResult.UNTOLD)
            return TaskOutcome(TaskResult.SAME if now == wanted else TaskResult.WOULD_CHANGE, now, wanted)
        if name in self.fails:
            return TaskOutcome(TaskResult.FAILED, kind=self.fails[name], words="exit code 1")
        if task.verb is TaskVerb.REVERT:
            wanted = self.before.get((task.run, name), now)
            self.made[name] = task.made
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
            "title": "",
            "state": RunState.RUNNING,
            "version": 2,
            "epoch": 1,
            "direction": Direction.APPLY,
            "batch": 0,
            "targets": 1,
            "batches": 1,
            "spec_digest": spec_digest(spec),
            "actor": "root",
            "started_at": 1,
            "changed_at": 1,
            "granted": (NODE.path,),
            **more,
        }
        self.store.put(RunRecord(**given))
        return spec

    def revert_run(self, run: str = "1") -> None:
        """Take it back: who is in flight is to report first, who was only granted does not begin."""
        record, task = self.store.records.pop(run, None) or self.store.over[run], self.store.tasks[run]
        if task.state is NodeState.GRANTED:
            self.store.tasks[run] = replace(task, state=NodeState.PENDING)
        self.store.put(
            replace(
                record,
                state=RunState.REVERTING,
                direction=Direction.REVERT,
                version=record.version + 1,
                epoch=record.epoch + 1,
                granted=(),
            )
        )
        self.store.grant_back(run)

    def end_run(self, run: str = "1", state: RunState = RunState.DONE) -> None:
        self.store.over[run] = replace(self.store.records.pop(run), state=state)
        self.store.tell()

    def run(self, duration: str = "20s") -> None:
        """Let the world go on; an agent that ends is started anew."""
        end = self.now + parse_duration(duration)
        while True:
            try:
                while self._step(end):
                    pass
                return
            except Ended:
                self.start()

    # ---- what tests ask

    @property
    def states(self) -> list[NodeState]:
        return [report.state for report in self.store.reports]

    def happened(self, kind: type) -> list[Any]:
        return [event for event in self.events if type(event) is kind]

    def asked(self, kind: type) -> list[Any]:
        return [request for request in self.store.asked if type(request) is kind]

    # ---- the world

    def later(self, act: Callable[[], None], after: int = 0) -> None:
        if after:
            self._delayed.append((self.now + after, act))
        else:
            self._inbox.append(act)

    def _step(self, end: int) -> bool:
        """One thing: an effect, an input, or the next moment at which something is due; False when `end` has come."""
        if self.out.effects:
            self._count()
            self._carry_out(self.out.effects.pop(0))
        elif self._inbox:
            self._count()
            self._inbox.popleft()()
        else:
            moments = [self.out.deadline(), *(at for at, _ in self._delayed)]
            self.out.now = self.now = min(end, max(self.now, min(moments)))
            while (timer := self.out.due()) is not None:
                self._timers[type(timer)](timer)
            for one in [one for one in self._delayed if one[0] <= self.now]:
                self._delayed.remove(one)
                self._inbox.append(one[1])
            return self.now < end or bool(self.out.effects or self._inbox)
        return True

    def _count(self) -> None:
        if self.crash_after is not None and self.steps == self.crash_after:
            self.crash_after = None
            raise Ended
        self.steps += 1

    def _carry_out(self, effect: Any) -> None:
        match effect:
            case Store(seq) if self.disk_says:
                self.later(lambda: self.out.store_failed(seq, self.disk_says))
            case Store(seq, records):
                for record in records:
                    if record.value is None:
                        self.disk.pop(record.key, None)
                    else:
                        self.disk[record.key] = record.value
                self.later(lambda: self.out.stored(seq))
            case RunTask(task_id, task):
                outcome = self.host.do(task)
                if self.answers_tasks:
                    self.later(lambda: self.worker.task_progressed(task_id, outcome))
            case Notify(event):
                self.events.append(event)
            case CancelTask():
                pass
            case _:
                raise AssertionError(effect)
