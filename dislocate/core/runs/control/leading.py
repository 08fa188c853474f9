"""Leading: the controller of config runs, on whichever server leads the store.

It looks at each run under way when keys of it changed, and each `RUN_TICK`, and proposes at most one step at a time: the next
one when the run's version moved, or after `RUN_RETRY`.  Invariant: all it knows of a run is in the store, save its clocks,
which begin anew when it begins to lead; so whoever leads next goes on, and two leaders at once do no harm (`steps`).

What a run needs is decided by `rollout`.  A server that does not lead ticks too while runs are under way: nobody tells it when
it begins to lead.
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from dislocate.core.boundary.runs import OVER, Frozen, NodeTask, RunPlan, RunRecord, RunState
from dislocate.core.boundary.spec import Join
from dislocate.core.boundary.store import KeyChange, KeyValue
from dislocate.core.identity import Path
from dislocate.core.outbox import Outbox, Timer
from dislocate.core.runs.amounts import amount
from dislocate.core.runs.control.clocks import Clocks
from dislocate.core.runs.control.gates import GAUGES, Gauge
from dislocate.core.runs.control.picture import Picture, Seen
from dislocate.core.runs.control.rollout import decide
from dislocate.core.runs.door import FleetDoor, StoreDoor
from dislocate.core.runs.records import ACTIVE, RUNS, decode, nodes_prefix, plan_key, spec_key
from dislocate.core.store.keys import Keys
from dislocate.core.tunables import RUN_NODES, RUN_RETRY, RUN_TICK

JOIN_TRIES = 3  # each after RUN_RETRY


class RunTick(Timer, frozen=True):
    """Look at all runs under way."""

    number: int


class Controlled:
    """One run under way, as it was last read, and what was proposed about it."""

    def __init__(self, run: str, gauges: Sequence[Gauge]) -> None:
        self.run = run
        self.clocks = Clocks(gauges)
        self.is_stale = True  # keys of it changed
        self.picture: Picture | None = None
        self._modified = 0  # of the record, when it was read
        self._tasks: dict[Path, tuple[int, NodeTask]] = {}  # with the revision of each
        self._plan: tuple[int, RunPlan] | None = None
        self._frozen: Frozen | None = None
        self._proposed: tuple[int, int] | None = None  # the version it was for, and when
        self.tries = 0  # proposals for that version

    def read(self, keys: Keys) -> Picture | None:
        """The run as the store has it; what did not change is not decoded again.  None: it is not under way any more, or not
        whole.  Nobody's agent may end for that: before these keys were reserved, anybody may have put anything there."""
        found = keys.get(f"{ACTIVE}{self.run}")
        if found is None:
            return None
        if self.picture is not None and not self.is_stale and found.modified == self._modified:
            return self.picture
        self._modified, self.is_stale = found.modified, False
        try:
            record = decode(found.value, RunRecord)
            self.picture = Picture(record, self._read_plan(keys), self._read_tasks(keys), self._read_spec(keys))
        except (msgspec.MsgspecError, UnicodeDecodeError, LookupError):
            self.picture = None
        return self.picture

    def may_propose(self, version: int, now: int) -> bool:
        return self._proposed is None or version > self._proposed[0] or now - self._proposed[1] >= RUN_RETRY

    def proposed(self, version: int, now: int) -> None:
        self.tries = self.tries + 1 if self._proposed is not None and self._proposed[0] == version else 1
        self._proposed = (version, now)

    def _read_plan(self, keys: Keys) -> RunPlan:
        found = _present(keys, plan_key(self.run))
        if self._plan is None or self._plan[0] != found.modified:
            self._plan = (found.modified, decode(found.value, RunPlan))
        return self._plan[1]

    def _read_spec(self, keys: Keys) -> Frozen:
        if self._frozen is None:
            self._frozen = decode(_present(keys, spec_key(self.run)).value, Frozen)
        return self._frozen

    def _read_tasks(self, keys: Keys) -> dict[Path, NodeTask]:
        tasks: dict[Path, tuple[int, NodeTask]] = {}
        prefix = nodes_prefix(self.run)
        for kv in keys.below(prefix):
            node = kv.key[len(prefix) :]
            known = self._tasks.get(node)
            is_known = known is not None and known[0] == kv.modified
            tasks[node] = known if known is not None and is_known else (kv.modified, decode(kv.value, NodeTask))
        self._tasks = tasks
        return {node: task for node, (_, task) in tasks.items()}


def _present(keys: Keys, key: str) -> KeyValue:
    """Raises `LookupError`."""
    found = keys.get(key)
    if found is None:
        raise LookupError(key)
    return found


class Leading:
    """All runs under way, while this agent leads."""

    def __init__(
        self,
        out: Outbox,
        store: StoreDoor,
        fleet: FleetDoor,
        gauges: Sequence[Gauge] = GAUGES,
    ) -> None:
        self._out = out
        self._store = store
        self._fleet = fleet
        self._gauges = gauges
        self._runs: dict[str, Controlled] = {}
        self._tick = 0  # number of the timer that counts
        self._tick_at = 0  # 0: none is armed

    def timers(self) -> dict[type, Callable[[Any], None]]:
        return {RunTick: self._ticked}

    def start(self) -> None:
        """Listen, and look at what is under way already."""
        self._store.listeners.append(self.changed)
        self._arm(self._out.now)

    def changed(self, changes: Sequence[KeyChange]) -> None:
        """The store has news: look once this turn's are all in."""
        if self._store.keys is None:
            return
        is_news = False
        for change in changes:
            if change.key.startswith(ACTIVE):
                is_news = True
                self._touch(change.key[len(ACTIVE) :])
            elif change.key.startswith(RUNS):
                is_news = True
                self._touch(change.key[len(RUNS) :].partition("/")[0])
        if is_news:
            self._arm(self._out.now)

    def _touch(self, run: str) -> None:
        if run in self._runs:
            self._runs[run].is_stale = True

    def _arm(self, at: int) -> None:
        """Tick at `at`, or when it was to be if that is sooner."""
        if self._tick_at and self._tick_at <= at:
            return
        self._tick += 1
        self._tick_at = max(at, 1)
        self._out.arm(at, RunTick(self._tick))

    def _ticked(self, timer: RunTick) -> None:
        if timer.number != self._tick:
            return
        self._tick_at = 0
        keys = self._store.keys
        if keys is None:
            self._runs.clear()
            return
        under_way = tuple(kv.key[len(ACTIVE) :] for kv in keys.below(ACTIVE))
        if not self._store.leads:
            self._runs.clear()
        elif self._out.unix():  # steps tell when they were decided
            self._look(keys, under_way)
        if under_way:
            self._arm(self._out.now + RUN_TICK)

    def _look(self, keys: Keys, under_way: Sequence[str]) -> None:
        self._runs = {run: self._runs.get(run) or Controlled(run, self._gauges) for run in under_way}
        for one in self._runs.values():
            picture = one.read(keys)
            if picture is not None and picture.record.state not in OVER:
                self._control(one, picture)

    def _control(self, one: Controlled, picture: Picture) -> None:
        now, version = self._out.now, picture.record.version
        seen = self._see(one, picture)
        one.clocks.observe(picture, seen, now)
        if not one.may_propose(version, now):
            return
        step = decide(picture, seen, one.clocks, now)
        if step is not None and self._store.propose(step):
            one.proposed(version, now)
            self._out.count("run_steps")

    def _see(self, one: Controlled, picture: Picture) -> Seen:
        services = dict.fromkeys((*picture.strategy.floor, *(gate.service for gate in picture.spec.gates)))
        return Seen(
            unix=self._out.unix(),
            away=frozenset(node for node in picture.concerned if not self._fleet.is_reachable(node)),
            instances={service: self._fleet.instances(service) for service in services},
            changed=frozenset(node for node, task in picture.tasks.items() if task.touched),
            joiners=self._joiners(one, picture),
        )

    def _joiners(self, one: Controlled, picture: Picture) -> tuple[Path, ...]:
        """Nodes that fit the targets only now: of one data center, as many as may go together, once all others are through.
        Where they are refused time after time, such as for a plan that would be too large, the run ends without them."""
        record, strategy = picture.record, picture.strategy
        is_time = record.state is RunState.RUNNING and picture.batch is None and not picture.in_flight
        if strategy.join is not Join.APPLY or not is_time or one.tries >= JOIN_TRIES:
            return ()
        late = [node for node in self._fleet.matching(picture.spec.targets) if self._may_join(picture, node)]
        if not late:
            return ()
        datacenter = f"{late[0].partition('/')[0]}/"
        beside = [node for node in late if node.startswith(datacenter)]
        size = amount(strategy.batch, len(beside) + sum(node.startswith(datacenter) for node in picture.nodes))
        return tuple(beside[: max(1, size)][: max(0, RUN_NODES - len(picture.nodes))])

    def _may_join(self, picture: Picture, node: Path) -> bool:
        """Whether it is within reach, and no target of this run or of another one under way."""
        others = (one.picture for one in self._runs.values() if one.picture is not None)
        taken = picture.has(node) or any(other.has(node) for other in others)
        return not taken and self._fleet.is_reachable(node)
