"""A store in which runs can be started and seen, and nodes that can be visited, without a log, a leader or a fleet."""

from typing import Any

import gevent
from msgspec.structs import replace

from dislocate.core.boundary.events import VisitTold
from dislocate.core.boundary.requests import Done, Refused
from dislocate.core.boundary.runs import (
    OVER,
    Direction,
    Frozen,
    NodeState,
    NodeTask,
    RunRecord,
    RunStarted,
    RunState,
    StartRun,
    SteerRun,
    TaskOutcome,
    TaskResult,
    Visit,
    Visited,
    VisitResult,
)
from dislocate.core.boundary.store import Put, Transact
from dislocate.core.boundary.values import MemberState
from dislocate.core.runs import records
from dislocate.core.runs.ledger.audit import next_entry
from dislocate.core.runs.ledger.draft import Last
from tests.support.fake_backend import FakeBackend, datacenter, instance, member
from tests.support.tiny_store import QUIET, TinyStore

FLEET = ("fra/a1", "fra/a2", "fra/a3", "wdc/b1", "wdc/b2")
SAME = TaskOutcome(TaskResult.SAME, before="d1", after="d1")


def seal(value: bytes, public_key: bytes) -> bytes:
    """Recognizable, and readable by nobody who looks for the value."""
    if public_key == b"":
        raise ValueError("no key")
    return b"sealed:" + value[::-1]


class FakeRuns(TinyStore):
    """Answers the requests of runs too; `refusal` is the answer to every start and verb when there is one."""

    def __init__(self, backend: FakeBackend) -> None:
        super().__init__()
        self.backend = backend
        self.started: list[StartRun] = []
        self.steered: list[SteerRun] = []
        self.visits: list[Visit] = []
        self.looks: dict[str, tuple[TaskOutcome, ...]] = {}  # by node; else all the same
        self.unreachable: dict[str, str] = {}
        self.output: dict[str, tuple[bytes, ...]] = {}
        self.refusal: Refused | None = None
        self._audit: Any = None
        backend.result = self
        backend.node.members = {path: member(path) for path in FLEET}
        backend.node.datacenters = {name: datacenter(name) for name in ("fra", "wdc")}
        backend.put(instance(node="fra/a1"), instance(id="web-2", node="wdc/b1", datacenter="wdc"))

    def __call__(self, request: Any) -> Any:
        """As a core does: whoever waits lets others go on meanwhile."""
        result = self.cut_off(request) or self._answer(request)
        if result is None:
            gevent.sleep(QUIET)
            raise TimeoutError
        return result

    def _answer(self, request: Any) -> Any:
        match request:
            case StartRun():
                self.started.append(request)
                return self.refusal or self._start(request)
            case SteerRun():
                self.steered.append(request)
                return self.refusal or Done(5)
            case Visit():
                self.visits.append(request)
                return self.refusal or self._visit(request)
        return super()._answer(request)

    # ---- for tests

    def kill(self, path: str) -> None:
        self.backend.node.members[path] = member(path, MemberState.DEAD)

    def write(self, key: str, record: object) -> None:
        self._transact(Transact((), (Put(key, records.encode(record)),)))

    def put(self, key: str, value: str) -> None:
        self._transact(Transact((), (Put(key, value.encode()),)))

    def record(self, run: str) -> RunRecord:
        key = records.active_key(run) if records.active_key(run) in self.keys else records.over_key(run)
        return records.decode(self.keys[key].value, RunRecord)

    def move(self, run: str, state: RunState, **changes: Any) -> None:
        record = self.record(run)
        record = replace(record, state=state, version=record.version + 1, **changes)
        if state in OVER:
            self.keys.pop(records.active_key(run), None)
        self.write(records.over_key(run) if state in OVER else records.active_key(run), record)
        self.tell_last(len(self.started))

    def tell_last(self, run: int) -> None:
        """`run`: the highest number given out."""
        self.write(records.LAST, Last(run=run, over=sum(key.endswith("/run") for key in self.keys)))

    def move_node(self, run: str, node: str, state: NodeState, **changes: Any) -> None:
        self.write(records.node_key(run, node), NodeTask(node=node, state=state, **changes))

    def audit(self, verb: str, run: str = "1", actor: str = "ann") -> None:
        self._audit = next_entry(self._audit, at=1, actor=actor, verb=verb, run=run, evidence="")
        self.write(records.audit_key(self._audit.number), self._audit)

    # ---- what it answers

    def _start(self, request: StartRun) -> RunStarted:
        run, plan, spec = str(len(self.started)), request.plan, request.spec
        state = RunState.AWAITING if spec.strategy.approvals else RunState.RUNNING
        record = RunRecord(
            id=run,
            name=spec.name,
            title=spec.title,
            state=state,
            version=1,
            epoch=1,
            direction=Direction.APPLY,
            batch=0,
            targets=len(plan.targets),
            batches=len(plan.batches),
            spec_digest=records.spec_digest(spec),
            actor=request.actor,
            started_at=request.at,
            changed_at=request.at,
        )
        self.write(records.active_key(run), record)
        self.write(records.plan_key(run), plan)
        self.write(records.spec_key(run), Frozen(spec=spec, values=request.values))
        self.tell_last(len(self.started))
        return RunStarted(run, state)

    def _visit(self, request: Visit) -> Visited:
        results = []
        for node in request.nodes:
            if node in self.unreachable:
                results.append(VisitResult(node, (), self.unreachable[node]))
                continue
            outcomes = self.looks.get(node, (SAME,) * len(request.tasks))
            for piece in self.output.get(node, ()):
                self._tell(node, TaskOutcome(TaskResult.OUTPUT, output=piece), False)
            self._tell(node, outcomes[-1], True)
            results.append(VisitResult(node, outcomes))
        return Visited(tuple(results))

    def _tell(self, node: str, outcome: TaskOutcome, is_last: bool) -> None:
        """As of the request that is asked next: a stopping agent too answers before the id is known."""
        self.backend.tell(VisitTold(self.backend._asks, node, 0, outcome, is_last))
