"""Requests of runs on their way to the log: from any agent, answered once, told on all servers, refused where they must be."""

import pytest

from dislocate.core.boundary.events import NodeMoved, RunMoved
from dislocate.core.boundary.requests import Done, Refused
from dislocate.core.boundary.runs import (
    AskGrant,
    Direction,
    Granted,
    NodeState,
    ReportTask,
    RunStarted,
    RunState,
    StartRun,
    SteerRun,
    Verb,
)
from dislocate.core.boundary.store import Put, Transact, TransferLeadership
from dislocate.core.runs.steps import OpenBatch
from dislocate.core.store.commands import Command, encode_command
from tests.support.runs_log import plan, spec
from tests.support.tiny_servers import TinyServers

START = StartRun(spec(), plan(("fra/a1",), ("fra/a2",)), {}, "ann", 5)
OUTSIDE = "fra/a4"  # no server


@pytest.fixture
def fleet():
    found = TinyServers(4)
    found.found()
    found.run("30s")
    return found


def step(fleet, body):
    """What the leader puts into the log by itself."""
    assert fleet.server(fleet.leader()).replica.propose(encode_command(Command(body))) is not None
    fleet.run("1s")


def test_a_run_goes_from_its_start_to_a_report_whoever_asks_where(fleet):
    assert fleet.ask(OUTSIDE, START) == RunStarted("1", RunState.RUNNING)
    step(fleet, OpenBatch("1", 1, 5, ("fra/a1",)))
    assert fleet.ask(OUTSIDE, AskGrant("1", "fra/a1", 1, 7)) == Granted("1", 1, 7, Direction.APPLY)
    follower = fleet.others(fleet.leader())[0]
    assert fleet.ask(follower, ReportTask("1", "fra/a1", 1, NodeState.DONE)) == Done(2)
    refused = fleet.ask(OUTSIDE, SteerRun("1", Verb.RESUME, "ann", 5))
    assert isinstance(refused, Refused)
    assert refused.kind == "conflict"


def test_every_server_tells_what_moved_and_nobody_else(fleet):
    fleet.ask(OUTSIDE, START)
    step(fleet, OpenBatch("1", 1, 5, ("fra/a1",)))
    told = {path: [event for _, who, event in moves(fleet) if who == path] for path in fleet.servers}
    assert {path for _, path, _ in moves(fleet)} == set(fleet.servers)
    first = told[fleet.servers[0]]
    assert first[0] == RunMoved("1", 1, "", "running", "started by ann")
    assert isinstance(first[1], NodeMoved)
    assert all(events == first for events in told.values())


def moves(fleet):
    return sorted([*fleet.events(RunMoved), *fleet.events(NodeMoved)], key=lambda told: told[0])


def test_all_servers_have_the_same_runs_also_under_a_new_leader(fleet):
    fleet.ask(OUTSIDE, START)
    to = fleet.others(fleet.leader())[0]
    assert isinstance(fleet.ask(OUTSIDE, TransferLeadership(to)), Done)
    assert isinstance(fleet.ask(OUTSIDE, SteerRun("1", Verb.PAUSE, "bob", 6)), Done)
    fleet.run("2s")
    assert len({fleet.server(path).replica.machine.digest for path in fleet.servers}) == 1


def test_a_start_whose_answer_is_lost_is_one_run(fleet):
    leader = fleet.leader()
    number = fleet.begin_asking(OUTSIDE, START)
    fleet.run_until(lambda: bool(fleet.events(RunMoved)), "2s")
    fleet.kill(leader)
    fleet.run_until(lambda: fleet.answer(OUTSIDE, number) is not None, "15s")
    assert fleet.answer(OUTSIDE, number) == RunStarted("1", RunState.RUNNING)


def test_before_all_servers_speak_of_runs_they_are_refused_with_the_mend_and_nothing_is_logged():
    fleet = TinyServers(4, feature_level=1)
    leader = fleet.found()
    index = fleet.server(leader).replica.machine.index
    refused = fleet.ask(OUTSIDE, START)
    assert isinstance(refused, Refused)
    assert refused.kind == "unavailable"
    assert "upgrade all servers" in refused.reason
    assert fleet.server(leader).replica.machine.index == index


def test_what_no_run_may_be_is_refused_where_it_is_asked(fleet):
    sent = len(fleet.said)
    refused = fleet.ask(OUTSIDE, StartRun(spec(), plan(("fra",)), {}, "ann", 5), "10ms")
    assert (refused.kind, refused.field) == ("invalid", "plan.targets[0]")
    refused = fleet.ask(OUTSIDE, Transact((), (Put("system/runs/1", b""),)), "10ms")
    assert (refused.kind, refused.field) == ("invalid", "then[0].key")
    assert len(fleet.said) - sent < 5
