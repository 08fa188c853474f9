"""Runs carried out: whole agents, a real store between them, hosts that are changed, and a leader whose steps the test says.

What the worker's own tests show in a world of one agent is shown here where grants and reports are entries of the log.
"""

import pytest

from dislocate.core.boundary.effects import Effect, RunTask
from dislocate.core.boundary.inputs import TaskProgressed
from dislocate.core.boundary.runs import (
    Batch,
    NodeState,
    NodeTask,
    RunPlan,
    RunRecord,
    RunStarted,
    StartRun,
)
from dislocate.core.boundary.spec import File, RunSpec, Service
from dislocate.core.identity import Path
from dislocate.core.runs.records import active_key, decode, node_key
from dislocate.core.runs.steps import CloseBatch, OpenBatch, RevertRun, RunStep
from dislocate.core.units import MILLISECOND
from tests.support.tiny_fleet import Host
from tests.support.tiny_servers import TinyServers
from tests.support.tiny_worker import TinyHost

TARGETS = ("fra/a1", "fra/a3", "fra/a4", "fra/a5")
SPEC = RunSpec(
    name="web",
    targets="*",
    resources=(
        File(path="/etc/x", content="new", notify=("service n",)),
        File(path="/etc/y", content="new"),
        Service(unit="n"),
    ),
)
FILES = ["file /etc/x", "file /etc/y"]


class Changing(TinyServers):
    """Five agents, three of them servers, on hosts that outlive their agents."""

    def __init__(self) -> None:
        self.machines: dict[Path, TinyHost] = {}
        super().__init__(5, 3)
        self.found()
        self.run("15s")

    def begin_run(self) -> None:
        plan = RunPlan(TARGETS, (Batch("fra", TARGETS),))
        started = self.ask("fra/a5", StartRun(SPEC, plan, {}, "root", 1))
        assert isinstance(started, RunStarted)
        self.run("200ms")

    def step(self, kind: type[RunStep], *more: object) -> bool:
        """The leader decides this."""
        return self.part(self.leader()).face.propose(kind("1", self.record().version, 2, *more))

    def record(self) -> RunRecord:
        found = self.part(self.leader()).face.keys.get(active_key("1"))
        return decode(found.value, RunRecord)

    def states(self) -> list[NodeState]:
        found = [self.part(self.leader()).face.keys.get(node_key("1", path)) for path in TARGETS]
        return [NodeState.PENDING if one is None else decode(one.value, NodeTask).state for one in found]

    def changed(self, path: Path) -> list[str]:
        return [name for name in self.machines[path].applied() if name != "service n"]

    def _perform(self, path: Path, host: Host, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, RunTask):
                outcome = self.machines.setdefault(path, TinyHost()).do(effect.task)
                progressed = TaskProgressed(effect.task_id, outcome)
                self._later(5 * MILLISECOND, lambda progressed=progressed: self._tell(path, host, progressed))
        super()._perform(path, host, effects)

    def _tell(self, path: Path, host: Host, progressed: TaskProgressed) -> None:
        if self.hosts[path] is host:
            self.give(path, progressed)


@pytest.fixture
def fleet():
    fleet = Changing()
    fleet.begin_run()
    return fleet


def test_servers_and_other_agents_do_what_is_granted_and_report_it(fleet):
    assert fleet.step(OpenBatch, TARGETS)
    fleet.run("1s")
    assert fleet.states() == [NodeState.DONE] * 4
    assert [fleet.changed(path) for path in TARGETS] == [FILES] * 4
    assert "fra/a2" not in fleet.machines


def test_who_is_not_granted_does_nothing(fleet):
    assert fleet.step(OpenBatch, TARGETS[:1])
    fleet.run("5s")
    assert list(fleet.machines) == ["fra/a1"]


@pytest.mark.parametrize("who", ["leader", "server", "agent"])
@pytest.mark.parametrize("after", range(0, 36, 4))
def test_an_agent_that_is_killed_at_any_time_and_comes_back_does_the_rest_once(fleet, who, after):
    assert fleet.step(OpenBatch, TARGETS)
    fleet.run(f"{after}ms")
    leader = fleet.leader()
    follower = next(path for path in ("fra/a1", "fra/a3") if path != leader)
    fleet.restart({"leader": leader, "server": follower, "agent": "fra/a4"}[who])
    fleet.run("12s")
    if fleet.states()[-1] is NodeState.PENDING:  # the step went with the leader that proposed it
        assert fleet.step(OpenBatch, TARGETS)
        fleet.run("12s")
    assert fleet.states() == [NodeState.DONE] * 4
    assert [fleet.changed(path) for path in TARGETS] == [FILES] * 4
    assert all(1 <= fleet.machines[path].applied().count("service n") <= 2 for path in TARGETS)


def test_a_run_is_taken_back_where_it_was_begun(fleet):
    fleet.step(OpenBatch, TARGETS[:2])
    fleet.run("1s")
    assert fleet.step(RevertRun, "it was bad")
    fleet.run("1s")
    assert fleet.step(OpenBatch, TARGETS[:2])
    fleet.run("1s")
    assert fleet.states() == [NodeState.REVERTED] * 2 + [NodeState.PENDING] * 2
    assert fleet.machines["fra/a1"].states["file /etc/x"] == "absent"


def test_agents_that_are_no_servers_follow_nothing_more_for_a_run(fleet):
    """What is read of a run is read once: all changes of all nodes would come to all nodes."""
    fleet.step(OpenBatch, TARGETS)
    fleet.run("1s")
    assert fleet.step(CloseBatch)
    fleet.run("1s")
    assert fleet.hosts["fra/a4"].node.store.followed == ("system/", "policy/")
