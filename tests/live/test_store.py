"""The store on real processes: servers are killed under load, and nothing that was acknowledged is lost."""

import os
from random import Random

import pytest

from dislocate.client.connection import AgentConnection, Problem
from dislocate.fleet.dev import dev_scenario
from dislocate.fleet.fleet import Fleet
from sim.history import Verdict, check_linearizable
from tests.support.live import PATIENCE, until
from tests.support.store_clients import StoreClients

pytestmark = pytest.mark.live

ROUNDS = 100 if os.environ.get("DISLOCATE_PROFILE") == "full" else 20
KEYS = [f"rounds/{number}" for number in range(40)]
CLIENTS = 6


@pytest.fixture
def world(tmp_path):
    """Three data centers of three agents, five of them servers, as far apart as Frankfurt, Washington and Tokyo."""
    with Fleet(dev_scenario(3, 3), tmp_path) as fleet:
        fleet.start()
        until("the store is led", lambda: leader(fleet))
        yield fleet


def sockets(fleet):
    return [f"{fleet.home(path)}/state/http.sock" for path in fleet.plans]


def view(fleet, path):
    return agent(fleet, path).get("/api/store")


def leader(fleet):
    """Who leads as its own agent says; None while nobody does."""
    servers = [path for path in fleet.scenario.servers if fleet.agents[path].is_running]
    return next((path for path in servers if view(fleet, path)["role"] == "leader"), None)


def revisions(fleet):
    return {view(fleet, path)["revision"] for path in fleet.scenario.servers}


def test_no_acknowledged_write_is_lost_while_servers_are_killed(world):
    random = Random(4)
    with StoreClients(sockets(world), KEYS, CLIENTS, seed=1) as clients:
        for number in range(ROUNDS):
            go_through(world, clients, number, random.sample(world.scenario.servers, random.choice((1, 1, 2))))
    until("all servers have applied the same", lambda: len(revisions(world)) == 1)
    finding = check_linearizable(clients.history.operations())
    assert finding.verdict is Verdict.OK, str(finding)
    assert clients.acknowledged > 10 * ROUNDS


def go_through(fleet, clients, number, victims):
    """One round: kill `victims`, see that writes go on, and have them back."""
    before = clients.acknowledged
    for victim in victims:
        fleet.kill(victim)
    until(f"round {number}: writes go on without {victims}", lambda: clients.acknowledged > before + 10)
    for victim in victims:
        fleet.restart(victim)
    until(f"round {number}: {victims} are back", lambda: all(view(fleet, one)["leader"] for one in victims))


def test_a_minority_refuses_writes_and_serves_local_reads_with_their_age(world):
    inside, outside = agent(world, "fra/a1"), agent(world, "tok/a1")
    inside.raw("PUT", "/api/kv/minority", b"before")  # a majority has it now, which the cut might keep from this agent
    until("it is applied inside too", lambda: inside.get("/api/kv/minority?consistency=local"))
    world.steer(**CUT, do="cut")
    term = view(world, "fra/a1")["term"]
    until("the majority goes on", lambda: outside.raw("PUT", "/api/kv/majority", b"x"))
    until("the minority refuses", lambda: refused(inside))
    problem = refused(inside)  # at once: what was asked in vain until time was over names nobody
    assert problem.status == 503
    assert "tok/a1, wdc/a1, wdc/a2" in str(problem)
    until("what it reads grows old", lambda: inside.get("/api/kv/minority?consistency=local")["age"] > 1)
    assert inside.get("/api/kv/minority?consistency=local")["value"] == "before"
    assert view(world, "fra/a1")["term"] == term, "who cannot win stands for no election that others must answer"
    world.steer(**CUT, do="heal")
    until("it takes part again", lambda: inside.raw("PUT", "/api/kv/minority", b"after"))


CUT = {"from": "fra", "to": "*", "channels": ["udp", "links", "app"]}


def agent(fleet, path):
    return AgentConnection(f"unix:{fleet.home(path)}/state/http.sock", timeout=PATIENCE)


def refused(connection):
    """Why a write is refused; None where it is done or nobody knows."""
    try:
        connection.raw("PUT", "/api/kv/refused", b"x")
    except Problem as problem:
        return problem if problem.status == 503 else None
    return None
