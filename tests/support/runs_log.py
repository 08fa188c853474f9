"""A log with runs in it, for tests of the ledger: short words for what an operator, the leader and a node say."""

from typing import Any

import msgspec

from dislocate.core.boundary.requests import Done, Refused
from dislocate.core.boundary.runs import (
    AskGrant,
    AuditEntry,
    Batch,
    NodeState,
    NodeTask,
    ReportTask,
    RunPlan,
    RunRecord,
    RunState,
    StartRun,
    SteerRun,
    Verb,
)
from dislocate.core.boundary.spec import File, Resource, RunSpec, Strategy
from dislocate.core.runs import records
from dislocate.core.runs.ledger.audit import first_that_does_not_fit
from dislocate.core.runs.ledger.draft import Last
from dislocate.core.runs.steps import CloseBatch, FinishRun, HoldRun, Mark, MarkNodes, OpenBatch, ReleaseRun, RevertRun
from dislocate.core.store.commands import SetFeatureLevel
from dislocate.core.store.machine import Applied
from dislocate.core.tunables import RUNS_LEVEL
from tests.support.store_log import StoreLog

A, B, C, D = "fra/a", "fra/b", "fra/c", "wdc/d"
BATCHES = ((A,), (B, C), (D,))


MOTD = File(path="/etc/motd", content="hello")


def spec(name: str = "web", resources: tuple[Resource, ...] = (MOTD,), **strategy: Any) -> RunSpec:
    return RunSpec(name=name, targets="*", resources=resources, strategy=Strategy(**strategy))


def plan(*batches: tuple[str, ...], expected: dict[str, str] | None = None) -> RunPlan:
    made = tuple(Batch(nodes[0].partition("/")[0], nodes) for nodes in batches)
    return RunPlan(tuple(sorted(node for nodes in batches for node in nodes)), made, 3, expected or {})


class RunsLog(StoreLog):
    """A store at the level of runs; `result` of what was said last."""

    def __init__(self, level: int = RUNS_LEVEL) -> None:
        super().__init__()
        self.now = 1_000
        if level > 1:
            self.do(SetFeatureLevel(level))

    # ---- saying

    def say(self, body: Any) -> Any:
        self.now += 1
        return self.do(body).result

    def tell(self, body: Any) -> Applied:
        self.now += 1
        return self.do(body)

    def start(self, *batches: tuple[str, ...], name: str = "web", **more: Any) -> Any:
        """The id, or the refusal."""
        found = self.say(StartRun(spec(name, **more), plan(*(batches or BATCHES)), {"config/a": "1"}, "ann", self.now))
        return found if isinstance(found, Refused) else found.run

    def steer(self, verb: Verb, node: str = "", run: str = "1", actor: str = "bob", **more: Any) -> Any:
        return self.say(SteerRun(run, verb, actor, self.now, node, **more))

    def open(self, *nodes: str, run: str = "1") -> Any:
        return self.say(OpenBatch(run, self.version(run), self.now, nodes))

    def close(self, run: str = "1") -> Any:
        return self.say(CloseBatch(run, self.version(run), self.now))

    def hold(self, hold: Any, run: str = "1") -> Any:
        return self.say(HoldRun(run, self.version(run), self.now, hold, f"held for {hold.value}"))

    def release(self, run: str = "1") -> Any:
        return self.say(ReleaseRun(run, self.version(run), self.now, "it is gone"))

    def revert(self, run: str = "1") -> Any:
        return self.say(RevertRun(run, self.version(run), self.now, "too many failed"))

    def finish(self, state: Any, run: str = "1") -> Any:
        return self.say(FinishRun(run, self.version(run), self.now, state, "over"))

    def mark(self, node: str, state: NodeState, run: str = "1") -> Any:
        return self.say(MarkNodes(run, self.version(run), self.now, (Mark(node, state, "seen"),)))

    def ask(self, node: str, ask: int = 7, epoch: int = 0, run: str = "1") -> Any:
        return self.say(AskGrant(run, node, epoch or self.run(run).epoch, ask))

    def report(self, node: str, state: NodeState = NodeState.DONE, epoch: int = 0, run: str = "1", **more: Any) -> Any:
        return self.say(ReportTask(run, node, epoch or self.task(node, run).epoch, state, **more))

    def carry(self, *nodes: str, state: NodeState = NodeState.DONE, run: str = "1") -> None:
        """From the grant to the report."""
        granted = self.open(*nodes, run=run)
        assert isinstance(granted, Done), granted
        for node in nodes:
            self.ask(node, run=run)
            assert isinstance(self.report(node, state, run=run), Done)

    def complete(self, *batches: tuple[str, ...], name: str = "web", **more: Any) -> str:
        """A run that ends as DONE."""
        run = self.start(*(batches or BATCHES), name=name, **more)
        for nodes in batches or BATCHES:
            self.carry(*nodes, run=run)
            self.close(run)
        assert isinstance(self.finish(RunState.DONE, run), Done)
        return str(run)

    # ---- looking

    def value(self, key: str, type_: Any) -> Any:
        kv = self.machine.keys.get(key)
        return None if kv is None else msgspec.json.decode(kv.value, type=type_)

    def run(self, run: str = "1") -> RunRecord:
        found = self.value(records.active_key(run), RunRecord) or self.value(records.over_key(run), RunRecord)
        assert found is not None, f"no run {run}"
        return found

    def version(self, run: str = "1") -> int:
        found = self.value(records.active_key(run), RunRecord) or self.value(records.over_key(run), RunRecord)
        return 0 if found is None else found.version

    def task(self, node: str, run: str = "1") -> NodeTask:
        found = self.value(records.node_key(run, node), NodeTask)
        return found or NodeTask(node=node, state=NodeState.PENDING)

    def states(self, run: str = "1") -> dict[str, str]:
        return {node: self.task(node, run).state.value for node in self.value(records.plan_key(run), RunPlan).targets}

    def counts(self, run: str = "1") -> dict[str, int]:
        return self.value(records.counts_key(run), dict[str, int])

    def last(self) -> Last:
        return self.value(records.LAST, Last) or Last()

    def audit(self) -> list[AuditEntry]:
        return [msgspec.json.decode(kv.value, type=AuditEntry) for kv in self.machine.keys.below(records.AUDIT)]

    def check(self) -> None:
        """What must always hold of the records."""
        assert first_that_does_not_fit(self.audit()) is None
        for kv in list(self.machine.keys.below(records.RECORDS)):
            if kv.key.endswith("/plan"):
                self._check_run(kv.key.split("/")[2])

    def _check_run(self, run: str) -> None:
        record, states = self.run(run), self.states(run)
        assert (records.active_key(run) in self.machine.keys) is not (records.over_key(run) in self.machine.keys)
        found = {state.value: list(states.values()).count(state.value) for state in NodeState}
        pending = found.pop("pending")
        assert self.counts(run) == {state: number for state, number in found.items() if number}
        assert sum(self.counts(run).values()) + pending == record.targets == len(states)
        granted = {node for node, state in states.items() if state == "granted"}
        assert granted <= set(record.granted)
