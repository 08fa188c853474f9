"""Operators mean it, and the book holds what the log made of that."""

import pytest

from dislocate.core.boundary.events import NodeMoved, RunMoved
from dislocate.core.boundary.runs import Direction, NodeState, RunState, StartRun
from dislocate.core.boundary.spec import File, RunSpec, Strategy
from dislocate.core.errors import ConfigError
from dislocate.core.runs.plan import make_plan
from dislocate.core.units import SECOND
from sim.book import Book
from sim.faults import do
from sim.operators import place_runs
from sim.scenario import Datacenter, Fault, PlannedRun, Scenario, checked
from sim.world import World

SERVERS = ("fra/a1", "fra/a2", "fra/a3")


def spec(name="shop", content="color = blue", **strategy):
    return RunSpec(
        name=name,
        targets="*",
        resources=(File(path="/etc/shop.conf", content=content),),
        strategy=Strategy(canary=0, batch="100%", soak=0, settle=0, **strategy),
    )


def story(*runs):
    return checked(
        Scenario(
            title="Operators",
            why="They mean it",
            duration=60 * SECOND,
            datacenters={"fra": Datacenter(3)},
            servers=SERVERS,
            runs=runs,
        )
    )


@pytest.fixture
def make_fleet():
    def make(*runs):
        world = World(story(*runs), seed=1)
        assert world.wiretap is not None
        place_runs(world)
        return world

    return make


def states(world):
    return [(run.spec.name, run.state) for run in world.truth.runs.runs.values()]


def steer(world, verb, target=(), run="shop"):
    do(world, Fault(world.now, "steer", run=run, verb=verb, target=target))


# ---- operators


def test_a_run_is_started_though_nobody_leads_at_first(make_fleet):
    world = make_fleet(PlannedRun(0, spec()))
    world.run(20 * SECOND)
    assert states(world) == [("shop", RunState.DONE)]


def test_an_operator_whose_agent_dies_asks_another(make_fleet):
    world = make_fleet(PlannedRun(6 * SECOND, spec()))
    world.run(6 * SECOND - 1)
    do(world, Fault(world.now, "kill", target="fra/a1"))
    world.run(12 * SECOND)
    assert [run.spec.name for run in world.truth.runs.runs.values()] == ["shop"]
    assert world.truth.runs.lost == []


def test_an_operator_who_hears_that_nobody_knows_asks_again(make_fleet):
    world = make_fleet(PlannedRun(6 * SECOND, spec()))
    world.run(6 * SECOND - 1)
    for agent in SERVERS[1:]:
        do(world, Fault(world.now, "pause", target=agent))
    world.run(30 * SECOND)
    assert states(world) == []
    for agent in SERVERS[1:]:
        do(world, Fault(world.now, "resume", target=agent))
    world.run(50 * SECOND)
    assert states(world)[0] == ("shop", RunState.DONE)


def test_an_operator_of_one_agent_waits_until_it_is_up(make_fleet):
    world = make_fleet(PlannedRun(6 * SECOND, spec(), by="fra/a3"))
    world.run(5 * SECOND)
    do(world, Fault(world.now, "kill", target="fra/a3"))
    world.run(15 * SECOND)
    assert states(world) == []
    do(world, Fault(world.now, "restart", target="fra/a3"))
    world.run(25 * SECOND)
    assert states(world) == [("shop", RunState.DONE)]


def test_what_is_refused_for_a_reason_is_not_asked_for_again(make_fleet):
    held = spec("shop", approvals=1)
    world = make_fleet(PlannedRun(6 * SECOND, held), PlannedRun(8 * SECOND, spec("other")))
    world.run(20 * SECOND)
    steer(world, "abort")
    world.run(40 * SECOND)
    assert states(world) == [("shop", RunState.ABORTED)]


def test_steering_is_about_the_newest_run_of_that_name(make_fleet):
    world = make_fleet(
        PlannedRun(6 * SECOND, spec()), PlannedRun(12 * SECOND, spec(content="color = red", approvals=1))
    )
    world.run(15 * SECOND)
    steer(world, "abort")
    world.run(18 * SECOND)
    assert states(world) == [("shop", RunState.DONE), ("shop", RunState.ABORTED)]


def test_a_plan_is_bound_to_how_the_hosts_were_when_it_was_made(make_fleet):
    world = make_fleet(
        PlannedRun(6 * SECOND, spec()), PlannedRun(14 * SECOND, spec("red", "color = red"), planned=12 * SECOND)
    )
    world.run(13 * SECOND)
    do(world, Fault(world.now, "drift", target="fra/a2"))
    world.run(25 * SECOND)
    assert states(world) == [("shop", RunState.DONE), ("red", RunState.REVERTED)]
    assert world.machines["fra/a2"].host.drifted


def test_a_plan_is_not_made_after_the_start():
    with pytest.raises(ConfigError, match=r"runs\[0\].planned"):
        story(PlannedRun(6 * SECOND, spec(), planned=7 * SECOND))


# ---- the book


@pytest.fixture
def book():
    clock = {"now": 5}
    book = Book(lambda: clock["now"])
    started = StartRun(spec(), make_plan(spec(), ("fra/a1", "fra/a2")), {}, "root", 0)
    book.applied(started, (RunMoved("1", 1, "", "running", ""),))
    return book


def test_a_run_is_in_the_book_as_it_was_started(book):
    run = book.runs["1"]
    assert (run.state, run.version, run.direction) == (RunState.RUNNING, 1, Direction.APPLY)
    assert run.nodes == {"fra/a1": NodeState.PENDING, "fra/a2": NodeState.PENDING}
    assert book.latest("shop") == "1"
    assert book.latest("other") is None


def test_listeners_hear_of_a_move_before_the_book_has_it(book):
    heard = []
    book.listeners.append(lambda run, event: heard.append((run.nodes["fra/a1"], event.now)))
    book.applied(None, (NodeMoved("1", "fra/a1", "pending", "granted", 1, ""),))
    assert heard == [(NodeState.PENDING, "granted")]
    assert book.runs["1"].count(NodeState.GRANTED) == 1


def test_the_book_remembers_what_a_node_was_granted_last(book):
    granted = NodeMoved("1", "fra/a1", "pending", "granted", 1, "")
    book.applied(None, (granted,))
    assert book.runs["1"].granted_as == {"fra/a1": Direction.APPLY}
    book.applied(None, (RunMoved("1", 2, "running", "reverting", ""),))
    book.applied(None, (granted,))
    assert book.runs["1"].granted_as == {"fra/a1": Direction.REVERT}


def test_a_run_is_over_from_when_it_ended_until_it_is_taken_back(book):
    book.applied(None, (RunMoved("1", 2, "running", "done", ""),))
    assert book.runs["1"].over_since == 5
    book.applied(None, (RunMoved("1", 3, "done", "reverting", ""),))
    assert book.runs["1"].over_since is None


def test_a_run_that_an_operator_was_told_of_and_the_log_has_not_is_lost(book):
    book.answered("1")
    book.answered("2")
    assert book.lost == ["2"]
