"""Clocks: since when the leader sees what it sees of one run.

Invariant: every clock is this leader's own, in its monotonic time, and begins when it first looks: a new leader waits anew, so
that it never acts on what only the one before has seen.  Nothing here decides; `rollout` does.
"""

from collections.abc import Sequence

from msgspec import Struct

from dislocate.core.boundary.runs import Direction, Hold, NodeState, NodeTask, RunState
from dislocate.core.boundary.spec import Gate
from dislocate.core.identity import Path
from dislocate.core.runs.control.gates import GAUGES, Gauge, Reading, Verdict, judge
from dislocate.core.runs.control.picture import REPORTED, Picture, Seen
from dislocate.core.tunables import GATE_PATIENCE

NO_NODES: tuple[Path, ...] = ()


class Judged(Struct, frozen=True):
    """One gate, its present reading, and for how long."""

    gate: Gate
    reading: Reading
    since: int  # with this verdict, on these nodes
    asked: int  # on these nodes, and not without data

    def has_passed(self, now: int) -> bool:
        return self.reading.verdict is Verdict.HOLDS and now - self.since >= self.gate.window

    def has_failed(self, now: int) -> bool:
        """Certain, or for a whole window, or once again after several: one that flaps does not keep a run for ever."""
        if self.reading.verdict is not Verdict.FAILS:
            return False
        is_long = now - self.since >= self.gate.window or now - self.asked >= GATE_PATIENCE * self.gate.window
        return self.reading.is_certain or is_long

    def is_blind(self, now: int) -> bool:
        return self.reading.verdict is Verdict.NO_DATA and now - self.since >= self.gate.window


class Clocks:
    """Of one run, while this agent leads."""

    def __init__(self, gauges: Sequence[Gauge] = GAUGES) -> None:
        self._gauges = gauges
        self._picture: Picture | None = None
        self._at = (Direction.APPLY, -1)  # the batch that the clocks below are about
        self.begun = 0  # for the deadline; 0: not yet
        self.out: dict[Path, int] = {}  # by node: out of reach
        self.states: dict[Path, tuple[tuple[NodeState, int], int]] = {}  # by node: its state and epoch, since
        self.late: dict[Path, None] = {}  # nodes of other batches that were done during this one
        self.steady: int | None = None  # all nodes of the batch have settled
        self.judged: tuple[Judged, ...] = ()
        self._judged_nodes = NO_NODES

    def observe(self, picture: Picture, seen: Seen, now: int) -> None:
        """Take in how it is now."""
        self._observe_run(picture, now)
        if picture is not self._picture:
            self._observe_tasks(picture, now)
        self.out = {node: self.out.get(node, now) for node in picture.concerned if node in seen.away}
        is_steady = self._is_steady(picture, now)
        self.steady = (now if self.steady is None else self.steady) if is_steady else None
        self._observe_gates(picture, seen, now)
        self._picture = picture

    # ---- answers

    def is_gone(self, node: Path, patience: int, now: int) -> bool:
        """Whether it is out of reach for that long."""
        return node in self.out and now - self.out[node] >= patience

    def is_in(self, node: Path, state: NodeState, patience: int, now: int) -> bool:
        """Whether it is in `state` for that long."""
        key, since = self.states.get(node, ((NodeState.PENDING, 0), now))
        return key[0] is state and now - since >= patience

    def is_settled(self, picture: Picture, node: Path, now: int) -> bool:
        """Whether it reported long enough ago for its health to count."""
        state = picture.state(node)
        return state in REPORTED and self.is_in(node, state, picture.strategy.settle, now)

    def busy(self, picture: Picture, now: int) -> dict[Path, None]:
        """Nodes whose instances do not count as passing yet, whatever the catalog says."""
        settle = picture.strategy.settle
        fresh = [
            node for node, ((state, _), since) in self.states.items() if state in REPORTED and now - since < settle
        ]
        return dict.fromkeys((*picture.in_flight, *fresh))

    # ---- within

    def _observe_run(self, picture: Picture, now: int) -> None:
        record, before = picture.record, self._picture
        was_late = before is not None and before.record.hold is Hold.DEADLINE and record.hold is not Hold.DEADLINE
        if record.state is RunState.AWAITING:
            self.begun = 0
        elif not self.begun or was_late:
            self.begun = now
        if self._at != (record.direction, record.batch):
            self._at = (record.direction, record.batch)
            self.late, self.steady, self.judged, self._judged_nodes = {}, None, (), NO_NODES

    def _observe_tasks(self, picture: Picture, now: int) -> None:
        before, batch = self._picture, dict.fromkeys(picture.batch_nodes)
        states: dict[Path, tuple[tuple[NodeState, int], int]] = {}
        for node, task in picture.tasks.items():
            key = (task.state, task.epoch)
            old = self.states.get(node)
            states[node] = old if old is not None and old[0] == key else (key, now)
            if before is not None and _became_done(task, before) and node not in batch:
                self.late[node] = None
        self.states = states

    def _is_steady(self, picture: Picture, now: int) -> bool:
        if picture.in_flight or picture.waiting or picture.record.direction is not Direction.APPLY:
            return False
        reported = (node for node in (*picture.batch_nodes, *self.late) if picture.state(node) in REPORTED)
        return all(self.is_settled(picture, node, now) for node in reported)

    def _observe_gates(self, picture: Picture, seen: Seen, now: int) -> None:
        """Only of nodes that are done and settled; once there are others among them, windows begin anew."""
        nodes = tuple(
            node
            for node in (*picture.batch_nodes, *self.late)
            if picture.state(node) is NodeState.DONE and self.is_settled(picture, node, now)
        )
        if not nodes or picture.record.direction is not Direction.APPLY:
            self.judged, self._judged_nodes = (), NO_NODES
            return
        before: Sequence[Judged | None] = self.judged or [None] * len(picture.spec.gates)
        if nodes != self._judged_nodes:
            before = [None] * len(picture.spec.gates)
        pairs = zip(picture.spec.gates, before, strict=True)
        self.judged = tuple(self._judge(gate, old, nodes, seen, now) for gate, old in pairs)
        self._judged_nodes = nodes

    def _judge(self, gate: Gate, old: Judged | None, nodes: tuple[Path, ...], seen: Seen, now: int) -> Judged:
        asked = now if old is None else old.asked
        reading = judge(gate, nodes, seen, asked, self._gauges)
        if reading.verdict is Verdict.NO_DATA:
            asked = now
        is_same = old is not None and old.reading.verdict is reading.verdict
        return Judged(gate, reading, old.since if old is not None and is_same else now, asked)


def _became_done(task: NodeTask, before: Picture) -> bool:
    return task.state is NodeState.DONE and before.state(task.node) is not NodeState.DONE
