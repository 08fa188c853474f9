"""One small fleet for all tests that leave it as they found it, and a part of loopback for agents made by hand."""

import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest
from msgspec.structs import replace

from dislocate.core.units import SECOND
from dislocate.fleet.blueprint import claim_network
from dislocate.fleet.dev import dev_scenario
from dislocate.fleet.fleet import Fleet
from dislocate.fleet.processes import stop_all
from tests.support.live import HandAgent, new_secret, until
from tests.support.running import Running

EVERYBODY = 6


@pytest.fixture(scope="session")
def fleet(tmp_path_factory):
    """Two data centers of three agents, with `shop.web` and `shop.api`; everybody knows everybody."""
    scenario = dev_scenario(2, 3)
    # No test of this fleet is about a service that answers late, which on a busy machine all do.
    patient = tuple(replace(service, timeout=60 * SECOND) for service in scenario.services)
    with Fleet(replace(scenario, services=patient), tmp_path_factory.mktemp("fleet")) as fleet:
        fleet.start()
        until("everybody knows everything", lambda: all(is_settled(seen) for seen in fleet.living()))
        yield fleet


@pytest.fixture
def settled(fleet):
    """The fleet, whole, whatever the test before did to it."""
    for path, agent in fleet.agents.items():
        if not agent.is_running:  # that one failed halfway
            fleet.restart(path)
    until("everybody knows everything", lambda: all(is_settled(seen) for seen in fleet.living()))
    return fleet


def is_settled(seen):
    members = seen.members().values()
    return (
        sum(member["state"] == "alive" for member in members) == EVERYBODY
        and all(one["reachable"] for one in seen.datacenters().values())
        and all(
            [instance["status"] for instance in seen.instances(service)] == ["passing"] * 4
            for service in ("shop.web", "shop.api")
        )
    )


@pytest.fixture(scope="session")
def network():
    """'127.N', of this test run alone."""
    name, claim = claim_network()
    with claim:
        yield name


@pytest.fixture
def by_hand(tmp_path, network):
    """Makes agents that name the first as their only seed: by_hand('fra/a1'), by_hand('wdc/a1') ...; ends them all."""
    made = []
    secret = new_secret(tmp_path)

    def make(path: str, more: str = "", *, secret=secret, directory: str = "") -> HandAgent:
        host = f"{network}.9.{len(made) + 1}"
        seeds = [made[0].host] if made else []
        agent = HandAgent(tmp_path / (directory or path.replace("/", "-")), host, path, seeds, secret, more)
        made.append(agent)
        return agent

    yield make
    stop_all([agent.process for agent in made])


@pytest.fixture
def running():
    """Starts commands that stay; none is left, however the test ends: what they started dies with them."""
    started = []

    def start(*arguments: str) -> Running:
        started.append(Running(*arguments))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.communicate()


@pytest.fixture
def opened():
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def short(opened):
    """A directory with a path that a unix socket can have."""
    return Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="dislocate-")))
