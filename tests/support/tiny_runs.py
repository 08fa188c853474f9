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
from dislocate.core.runs.control.clocks import Clocks
from dislocate.core.runs.control.picture import Picture, Seen
from dislocate.core.runs.control.rollout import decide
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
