"""Carrying out: what an agent does about the decisions of its own data center.

    command, webhook   the first relay asks the store whether somebody did, says that it will, does it, reports
    process            each node that is named runs its share of processes, and reports

Invariants: of one decision nothing is done twice at a time on one node, and by one relay alone while that one is thought to
live; what failed is tried again, ever more seldom, until something else is decided; a driver is told how many there are to be,
so doing it once more does no harm.  Effects go through the tasks of config runs: `host` knows nothing of scaling.
"""

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Protocol

import msgspec

from dislocate.core.boundary.requests import Done
from dislocate.core.boundary.runs import Task, TaskOutcome, TaskResult, TaskVerb
from dislocate.core.boundary.scaling import (
    BeginScale,
    Carried,
    CarryState,
    CommandDriver,
    ProcessDriver,
    ReportScale,
    ScaleDecision,
    Webhook,
    WebhookDriver,
)
from dislocate.core.boundary.spec import Command
from dislocate.core.boundary.store import KeyChange, KeysRead, ReadKeys, Uncertain
from dislocate.core.boundary.views import InstanceView
from dislocate.core.identity import Path
from dislocate.core.outbox import Outbox, Timer
from dislocate.core.runs.door import StoreDoor
from dislocate.core.scale import records
from dislocate.core.scale.checking import as_process
from dislocate.core.scale.facts import is_scaled
from dislocate.core.tunables import CARRY_LOOK, CARRY_RETRY_MAX, CARRY_RETRY_MIN, SCALE_WORDS

TASK = "scale/"  # begins the ids of its tasks


class FleetDoor(Protocol):
    """The fleet as this node sees it."""

    def is_reachable(self, path: Path) -> bool: ...

    def instances(self, service: str) -> tuple[InstanceView, ...]: ...

    def first_relay(self, datacenter: str) -> Path | None: ...


class CarryDue(Timer, frozen=True):
    """Is there anything to do?"""

    number: int  # outdated when another one was armed since


class Stage(Enum):
    WAITING = "waiting"  # for its time, or to be the first relay
    ASKING = "asking"  # the store
    DOING = "doing"
    REPORTING = "reporting"
    SETTLED = "settled"  # there is nothing left to do about this decision


class Job:
    """What this node has to do about one decision."""

    def __init__(self, decision: ScaleDecision) -> None:
        self.decision = decision
        self.stage = Stage.WAITING
        self.due = 0  # not before
        self.tries = 0
        self.task_id = ""
        self.report: ReportScale | None = None


class Carrying:
    """All of one agent's."""

    def __init__(self, out: Outbox, store: StoreDoor, fleet: FleetDoor) -> None:
        self._out = out
        self._store = store
        self._fleet = fleet
        self._jobs: dict[str, Job] = {}  # by service
        self._read: dict[str, tuple[int, ScaleDecision | None]] = {}  # by key: as of which revision
        self._tasks = 0
        self._timer = 0
        self._armed_at = 0  # 0: nothing is armed

    def timers(self) -> dict[type, Callable[[Any], None]]:
        return {CarryDue: self._due}

    def start(self) -> None:
        self._store.listeners.append(self._changed)
        self._look()

    # ---- what there is to do

    def _changed(self, changes: Sequence[KeyChange]) -> None:
        if not changes or any(change.key.startswith(records.DECISIONS) for change in changes):
            self._look()

    def _due(self, timer: CarryDue) -> None:
        if timer.number == self._timer:
            self._armed_at = 0
            self._look()

    def _arm(self, at: int) -> None:
        if self._armed_at and self._armed_at <= at:
            return
        self._timer += 1
        self._armed_at = at
        self._out.arm(at, CarryDue(self._timer))

    def _look(self) -> None:
        decisions = self._decisions()
        for service in [one for one in self._jobs if one not in decisions]:
            if self._jobs[service].stage is not Stage.DOING:
                del self._jobs[service]
        for service, decision in decisions.items():
            job = self._jobs.get(service)
            if job is None or (job.decision.epoch != decision.epoch and job.stage is not Stage.DOING):
                job = self._jobs[service] = Job(decision)
            if job.stage is Stage.WAITING:
                self._take_up(job)
            elif job.stage is Stage.REPORTING:
                self._report(job)
        if any(job.stage is not Stage.SETTLED for job in self._jobs.values()):
            self._arm(self._out.now + CARRY_LOOK)

    def _decisions(self) -> dict[str, ScaleDecision]:
        """Those of this data center, by service."""
        read: dict[str, tuple[int, ScaleDecision | None]] = {}
        found: dict[str, ScaleDecision] = {}
        for kv in self._store.held(records.DECISIONS):
            service, datacenter = records.split_decision(kv.key)
            if datacenter != self._out.node.datacenter:
                continue
            known = self._read.get(kv.key)
            if known is None or known[0] != kv.modified:
                known = (kv.modified, records.read(kv.value, ScaleDecision))
            read[kv.key] = known
            if known[1] is not None:
                found[service] = known[1]
        self._read = read
        return found

    def _take_up(self, job: Job) -> None:
        decision, node = job.decision, self._out.node.path
        if self._out.now < job.due:
            self._arm(job.due)
        elif isinstance(decision.driver, ProcessDriver):
            if node in decision.nodes:
                self._do(job)
            else:
                job.stage = Stage.SETTLED
        elif decision.driver is None:
            job.stage = Stage.SETTLED
        elif self._fleet.first_relay(decision.datacenter) == node:
            self._ask_whether_done(job)

    # ---- once a data center

    def _ask_whether_done(self, job: Job) -> None:
        job.stage = Stage.ASKING
        decision = job.decision
        key = records.done_key(decision.service, decision.datacenter)
        self._store.ask(ReadKeys(key), lambda result: self._told(job, result))

    def _told(self, job: Job, result: Any) -> None:
        if not self._is_present(job):
            return
        if not isinstance(result, KeysRead):
            self._wait(job)
            return
        carried = records.read(result.keys[0].value, Carried) if result.keys else None
        if carried is None or carried.epoch != job.decision.epoch:
            self._begin(job, "")
        elif carried.state is CarryState.DONE:
            job.stage = Stage.SETTLED
        elif carried.node == self._out.node.path or not self._fleet.is_reachable(carried.node):
            self._begin(job, carried.node)
        else:
            self._wait(job)  # it is somebody else's, who lives

    def _begin(self, job: Job, instead_of: Path) -> None:
        decision, node = job.decision, self._out.node.path
        request = BeginScale(decision.service, decision.datacenter, decision.epoch, node, self._out.unix(), instead_of)
        self._store.ask(request, lambda result: self._may_begin(job, result))

    def _may_begin(self, job: Job, result: Any) -> None:
        if not self._is_present(job):
            return
        if isinstance(result, Done):
            self._do(job)
        else:
            self._wait(job)

    def _wait(self, job: Job) -> None:
        job.stage = Stage.WAITING
        self._arm(self._out.now + CARRY_LOOK)

    # ---- doing

    def _do(self, job: Job) -> None:
        decision, node = job.decision, self._out.node.path
        if (
            isinstance(decision.driver, ProcessDriver)
            and not decision.nodes[node]
            and not self._has_any(decision.service)
        ):
            job.stage = Stage.SETTLED  # none are there and none are to be
            return
        self._tasks += 1
        job.stage = Stage.DOING
        job.tries += 1
        job.task_id = f"{TASK}{decision.service}/{decision.epoch}/{self._tasks}"
        self._out.run_task(job.task_id, task_of(decision, node))

    def _has_any(self, service: str) -> bool:
        own = self._out.node.path
        return any(one.node == own and is_scaled(one) for one in self._fleet.instances(service))

    def task_progressed(self, task_id: str, outcome: TaskOutcome) -> bool:
        """Whether it was a task of scaling."""
        if not task_id.startswith(TASK):
            return False
        if outcome.result is not TaskResult.OUTPUT:
            for job in self._jobs.values():
                if job.task_id == task_id and job.stage is Stage.DOING:
                    self._done(job, outcome)
                    break
        return True

    def _done(self, job: Job, outcome: TaskOutcome) -> None:
        decision, is_done = job.decision, outcome.result is not TaskResult.FAILED
        job.report = ReportScale(
            decision.service,
            decision.datacenter,
            decision.epoch,
            self._out.node.path,
            is_done,
            self._out.unix(),
            job.tries,
            outcome.code,
            outcome.words[:SCALE_WORDS],
        )
        self._out.count("scale_carried_out" if is_done else "scale_failed")
        self._report(job)
        self._look()  # something else may have been decided in the meantime

    def _report(self, job: Job) -> None:
        report = job.report
        assert report is not None
        job.stage = Stage.ASKING
        self._store.ask(report, lambda result: self._reported(job, report, result))

    def _reported(self, job: Job, report: ReportScale, result: Any) -> None:
        if not self._is_present(job):
            return
        if isinstance(result, Uncertain) or getattr(result, "kind", "") == "unavailable":
            job.stage = Stage.REPORTING
            self._arm(self._out.now + CARRY_LOOK)
        elif report.is_done:
            job.stage = Stage.SETTLED
        else:
            job.stage = Stage.WAITING
            job.due = self._out.now + min(CARRY_RETRY_MIN << min(job.tries - 1, 16), CARRY_RETRY_MAX)
            self._arm(job.due)

    def _is_present(self, job: Job) -> bool:
        """Whether nothing else was decided since."""
        return self._jobs.get(job.decision.service) is job


def task_of(decision: ScaleDecision, node: Path) -> Task:
    """What a host is to do."""
    driver = decision.driver
    if isinstance(driver, ProcessDriver):
        return Task(TaskVerb.APPLY, as_process(driver, decision.service, decision.nodes[node]), "")
    if isinstance(driver, CommandDriver):
        return Task(TaskVerb.APPLY, _command(driver, decision), "")
    assert isinstance(driver, WebhookDriver)
    return Task(TaskVerb.APPLY, _webhook(driver, decision), "")


def _words(decision: ScaleDecision) -> dict[str, str]:
    return {
        "service": decision.service,
        "datacenter": decision.datacenter,
        "desired": str(decision.desired),
        "before": str(decision.before),
        "epoch": str(decision.epoch),
    }


def _command(driver: CommandDriver, decision: ScaleDecision) -> Command:
    words = _words(decision)
    environment = {f"DISLOCATE_{name.upper()}": value for name, value in words.items()}
    return Command(
        run=tuple(_filled(argument, words) for argument in driver.run),
        once=True,
        directory=driver.directory,
        environment={**driver.environment, **environment},
        timeout=driver.timeout,
    )


def _filled(argument: str, words: dict[str, str]) -> str:
    for name, value in words.items():
        argument = argument.replace(f"{{{name}}}", value)
    return argument


def _webhook(driver: WebhookDriver, decision: ScaleDecision) -> Webhook:
    key = f"{decision.service}/{decision.datacenter}/{decision.epoch}"
    told = {
        "service": decision.service,
        "datacenter": decision.datacenter,
        "epoch": decision.epoch,
        "desired": decision.desired,
        "before": decision.before,
        "reason": decision.reason,
    }
    return Webhook(
        url=driver.url,
        headers={**driver.headers, "Content-Type": "application/json", "Idempotency-Key": key},
        body=msgspec.json.encode(told).decode(),
        timeout=driver.timeout,
    )
