"""A controller in two lines: a small store whose ledger is the real one, and nodes that do what they are granted.

What the ledger refuses is remembered: a controller that is wise proposes nothing of it.
"""

from collections.abc import Callable, Sequence
from typing import Any

from dislocate.core.boundary.requests import Refused
from dislocate.core.boundary.runs import (
    AskGrant,
    Direction,
    Frozen,
    NodeState,
    NodeTask,
    ReportTask,
    RunPlan,
    RunRecord,
    RunRequest,
    RunState,
    SteerRun,
    Verb,
)
from dislocate.core.boundary.store import KeyChange, KeyValue
from dislocate.core.boundary.views import InstanceView
from dislocate.core.identity import NodeId, Path
from dislocate.core.outbox import Outbox
from dislocate.core.rumors import Rumors
from dislocate.core.runs.control.leading import Leading
from dislocate.core.runs.control.picture import Picture
from dislocate.core.runs.ledger.ledger import RunsLedger
from dislocate.core.runs.ledger.transitions import IN_FLIGHT
from dislocate.core.runs.records import (
    active_key,
    counts_key,
    decode,
    encode,
    node_key,
    nodes_prefix,
    over_key,
    plan_key,
    spec_key,
)
from dislocate.core.runs.steps import RunStep
from dislocate.core.store.keys import Keys
from dislocate.core.units import SECOND, parse_duration
from tests.support.tiny_runs import MONDAY, said


class TinyStore:
    """A `StoreDoor` whose log takes what is proposed when `commit` is called."""

    def __init__(self) -> None:
        self.listeners: list[Callable[[Sequence[KeyChange]], None]] = []
        self.keys: Keys | None = Keys()
        self.leads = True
        self.waiting: list[RunStep] = []
        self.applied: list[RunStep] = []
        self.refused: list[tuple[RunStep, str]] = []
        self.refuses: tuple[type, ...] = ()  # steps of these kinds, whatever the ledger would say
        self.revision = 0
        self._asks = 0

    # ---- the door

    def propose(self, step: RunStep) -> bool:
        if not self.leads:
            return False
        self.waiting.append(step)
        return True

    def ask(self, request: Any, then: Callable[[Any], None]) -> None:
        raise AssertionError("a controller asks nobody")

    def held(self, prefix: str) -> tuple[KeyValue, ...]:
        return tuple(self.keys.below(prefix))

    # ---- the log

    def begin(self, begun: Picture) -> None:
        run = begun.record.id
        counts = {state.value: len(nodes) for state, nodes in begun.by_state.items() if state is not NodeState.PENDING}
        tasks = {node_key(run, task.node): task for task in begun.tasks.values()}
        records = {active_key(run): begun.record, plan_key(run): begun.plan, spec_key(run): begun.frozen}
        for key, record in {**records, counts_key(run): counts, **tasks}.items():
            self._put(key, encode(record))

    def picture(self, run: str = "7") -> Picture:
        found = self.keys.get(active_key(run)) or self.keys.get(over_key(run))
        prefix = nodes_prefix(run)
        return Picture(
            decode(found.value, RunRecord),
            decode(self.keys.get(plan_key(run)).value, RunPlan),
            {kv.key[len(prefix) :]: decode(kv.value, NodeTask) for kv in self.keys.below(prefix)},
            decode(self.keys.get(spec_key(run)).value, Frozen),
        )

    def commit(self) -> None:
        """Apply what is in the log."""
        waiting, self.waiting = self.waiting, []
        for step in waiting:
            why = "it is not to be" if isinstance(step, self.refuses) else self._apply(step)
            if why:
                self.refused.append((step, why))
            else:
                self.applied.append(step)

    def begin_at(self, node: Path, run: str = "7") -> bool:
        """The node asks for what it was granted; False: it is not to begin."""
        self._asks += 1
        return not self._apply(AskGrant(run, node, self.picture(run).record.epoch, self._asks))

    def report(self, node: Path, state: NodeState, *, kind: str = "", words: str = "", run: str = "7") -> None:
        """A node tells what became of it."""
        epoch = self.picture(run).tasks[node].epoch
        assert not self._apply(ReportTask(run, node, epoch, state, kind, words))

    def steer(self, verb: Verb, node: Path = "") -> bool:
        """An operator's verb, where it is legal; False: it is not."""
        return not self._apply(SteerRun("7", verb, "bob", 0, node))

    def _apply(self, body: RunRequest | RunStep) -> str:
        """Why it was refused; empty: it was not."""
        done = RunsLedger(self.keys).apply(body)
        if isinstance(done.result, Refused):
            return done.result.reason
        changes = [self._put(key, value) for key, value in done.puts.items()]
        for listener in self.listeners:
            listener(changes)
        return ""

    def _put(self, key: str, value: bytes | None) -> KeyChange:
        self.revision += 1
        if value is None:
            if self.keys.get(key) is not None:
                self.keys.remove(key)
            return KeyChange(key, self.revision, None)
        kv = KeyValue(key, value, self.revision, self.revision, 1)
        self.keys.put(kv)
        return KeyChange(key, self.revision, kv)


def ahead(before: Picture) -> tuple[Path, ...]:
    """Nodes whose batch has yet to come, in the direction of the run."""
    batches, at = before.plan.batches, before.record.batch
    later = batches[at + 1 :] if before.record.direction is Direction.APPLY else batches[: max(0, at)]
    return tuple(node for batch in later for node in batch.nodes)


# ---- a leader in a fleet


class TinyFleet:
    """A `FleetDoor`: who is away, and how instances do."""

    def __init__(self) -> None:
        self.away: list[Path] = []
        self.found: dict[str, tuple[InstanceView, ...]] = {}
        self.fitting: tuple[Path, ...] = ()  # whom every expression of targets selects

    def is_reachable(self, path: Path) -> bool:
        return path not in self.away and f"{path.partition('/')[0]}/*" not in self.away

    def instances(self, service: str) -> tuple[InstanceView, ...]:
        return self.found.get(service, ())

    def matching(self, expression: str) -> tuple[Path, ...]:
        return self.fitting


class TinyRun:
    """A run, its leader, and nodes that do what they are granted when `work` says so."""

    def __init__(self, begun: Picture, store: TinyStore | None = None) -> None:
        self.store = store or TinyStore()
        self.fleet = TinyFleet()
        self.bad: dict[Path, str] = {}  # nodes that will fail, with the words
        self.now = SECOND
        if store is None:
            self.store.begin(begun)
        self._told = 0
        self.new_leader()

    def new_leader(self) -> None:
        """Somebody else, who knows only what is in the store."""
        node = NodeId("fra", "a1", 1)
        self.out = Outbox(node, Rumors())
        self.out.now = self.now
        self.out.read_clock(MONDAY + self.now)
        self.store.listeners.clear()
        self.leading = Leading(self.out, self.store, self.fleet)
        self.leading.start()

    def run(self, time: str, *, work: bool = True, at: Callable[[int], None] = lambda _now: None) -> list[str]:
        """Let so much time pass, and tell it `at` each moment; what happened in it, line by line."""
        end = self.now + parse_duration(time)
        while True:
            self.now = self.out.now = max(self.now, min(self.out.deadline(), end))
            at(self.now)
            self._fire()
            self.store.commit()
            if work:
                self.work()
            if self.out.deadline() > end:
                self.now = self.out.now = end
                return self.told()

    def work(self, *only: Path) -> None:
        """Nodes within reach begin what they were granted, and report what they began."""
        before = self.store.picture()
        is_on = before.record.state in (RunState.RUNNING, RunState.REVERTING)
        for node in only or before.in_flight:
            state = before.state(node)
            if not self.fleet.is_reachable(node) or state not in IN_FLIGHT:
                continue
            if state is NodeState.GRANTED:
                if is_on:
                    self.store.begin_at(node)
            else:
                self._report(node, before.tasks[node].direction)

    def _report(self, node: Path, direction: Direction) -> None:
        is_apply = direction is Direction.APPLY
        good, bad = (NodeState.DONE, NodeState.FAILED) if is_apply else (NodeState.REVERTED, NodeState.REVERT_FAILED)
        words = self.bad.get(node)
        if words is None:
            self.store.report(node, good)
        else:
            self.store.report(node, bad, kind="apply", words=words)

    def told(self) -> list[str]:
        """What was applied since it was asked last."""
        steps = self.store.applied[self._told :]
        self._told += len(steps)
        return [said(step) for step in steps]

    def _fire(self) -> None:
        timers = self.leading.timers()
        while (timer := self.out.due()) is not None:
            timers[type(timer)](timer)
