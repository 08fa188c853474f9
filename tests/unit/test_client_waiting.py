"""Whoever waits for the first route of a service keeps no other greenlet waiting, monkey-patched or not."""

import json
import subprocess
import sys
import textwrap

import pytest

from tests.support.agent_thread import PATIENCE, AgentThread, at

SCRIPT = """
from gevent import monkey
if {patched}:
    monkey.patch_all({which})
import json
import gevent
from dislocate.client import Client
from dislocate.core.errors import DislocateError

client = Client({where!r}, first_within=1.0)
ticks = 0

def tick():
    global ticks
    while True:
        gevent.sleep(0.01)
        ticks += 1

def pick():
    before = ticks
    try:
        with client.pick("orders.api"):
            return "picked", ticks - before
    except DislocateError as error:
        return type(error).__name__, ticks - before

gevent.spawn(tick)
jobs = [gevent.spawn(pick) for _ in range(30)]  # more than the hub has threads
gevent.joinall(jobs)
print(json.dumps([job.value for job in jobs]))
"""


def waited(where, patched, which=""):
    script = textwrap.dedent(SCRIPT).format(patched=patched, which=which, where=where)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stderr.count("Traceback")) == (0, 0), done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def agent():
    made = AgentThread()
    yield made
    made.end()


@pytest.mark.parametrize(("patched", "which"), [(True, ""), (True, "thread=False"), (False, "")])
def test_nobody_else_waits_for_a_service_that_nobody_knows(agent, patched, which):
    found = waited(agent.where, patched, which)
    assert {outcome for outcome, _ in found} == {"NoEndpoint"}
    assert min(ticks for _, ticks in found) >= 5, "a second went by for everybody"


def test_nobody_else_waits_for_an_agent_that_is_not_there(tmp_path):
    found = waited(f"unix:{tmp_path}/http.sock", False)
    assert {outcome for outcome, _ in found} == {"NoAgent"}
    assert min(ticks for _, ticks in found) >= 5


def test_all_who_wait_pick_once_the_route_has_come(agent):
    agent.put(at(7001))
    assert {outcome for outcome, _ in waited(agent.where, False)} == {"picked"}
