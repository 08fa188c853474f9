"""An application in two files against real agents: what its callers notice when instances and agents come and go."""

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dislocate.client import Client
from dislocate.fleet.processes import die_with_parent
from tests.support.live import PATIENCE, until

pytestmark = pytest.mark.live

ORDERS = Path(__file__).parents[2] / "examples" / "orders"


class Program:
    """One of the example's, speaking to `agent`."""

    def __init__(self, name: str, agent: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(ORDERS / name), *arguments],
            env={**os.environ, "DISLOCATE_AGENT": agent},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            preexec_fn=die_with_parent,
        )

    @property
    def pid(self) -> int:
        return self.process.pid


@pytest.fixture
def start():
    made: list[Program] = []

    def begin(name: str, agent: str, *arguments: str) -> Program:
        made.append(Program(name, agent, *arguments))
        return made[-1]

    yield begin
    for each in made:
        each.process.kill()
        each.process.communicate()


class Load:
    """Callers in a few threads, closed loop: who answered, and whatever went wrong."""

    def __init__(self, client: Client, method: str = "GET", **options: Any) -> None:
        self.answers: list[int] = []  # process ids
        self.errors: list[str] = []
        self._method = method
        self._orders = client.http("orders.api", **options)
        self._is_over = threading.Event()

    def _call(self) -> None:
        while not self._is_over.wait(0.005):
            try:
                response = self._orders.request(self._method, "/orders/7")
                if response.status != 200:
                    raise RuntimeError(response.status)
                self.answers.append(response.json()["served_by"])
            except Exception as error:  # noqa: BLE001 - each is what the test looks for
                self.errors.append(repr(error))

    def answered_by(self) -> set[int]:
        """Whoever answers from now on, in a hundred calls."""
        before = len(self.answers)
        until("a hundred calls are answered", lambda: len(self.answers) > before + 100)
        return set(self.answers[before:])

    @contextmanager
    def running(self):
        threads = [threading.Thread(target=self._call) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._is_over.set()
            for thread in threads:
                thread.join(PATIENCE)


def unix(agent) -> str:
    return f"unix:{agent.state}/http.sock"


def passing(agent) -> int:
    return sum(one["status"] == "passing" for one in agent.instances("orders.api"))


@pytest.fixture
def two(by_hand):
    """Two agents of one data center."""
    agents = [by_hand(path).start() for path in ("fra/a1", "fra/a2")]
    until("they know each other", lambda: all(len(agent.states()) == 2 for agent in agents))
    return agents


@pytest.fixture
def three_servers(two, start):
    """Two at the first agent, by its unix socket, and one at the second, by TCP."""
    first, second = two
    servers = [start("server.py", where) for where in (unix(first), unix(first), f"http://{second.host}:49700")]
    until("all are passing everywhere", lambda: all(passing(agent) == 3 for agent in two))
    return servers


def test_the_example_runs_as_the_readme_says(two, three_servers, start):
    client = start("client.py", unix(two[0]), "4")
    said, _ = client.process.communicate(timeout=PATIENCE)
    lines = [json.loads(line.replace("'", '"')) for line in said.splitlines()]
    assert [line["order"] for line in lines] == ["0", "1", "2", "3"]
    assert {line["served_by"] for line in lines} <= {server.pid for server in three_servers}
    assert client.process.returncode == 0


def test_no_idempotent_call_fails_when_an_instance_is_killed_one_is_stopped_and_one_started(two, three_servers, start):
    killed, stopped, stays = three_servers
    with Client(unix(two[0])) as client, Load(client).running() as load:
        until("all three answer", lambda: load.answered_by() == {server.pid for server in three_servers})
        until("callers' use is known", lambda: client.status.is_current)

        killed.process.kill()
        until("the others answer alone", lambda: load.answered_by() == {stopped.pid, stays.pid})
        until("the catalog knows it too", lambda: passing(two[1]) == 2)

        stopped.process.terminate()
        assert stopped.process.wait(PATIENCE) == 0
        until("it was deregistered", lambda: len(two[1].instances("orders.api")) == 2)
        assert load.answered_by() == {stays.pid}

        fresh = start("server.py", unix(two[1]))
        until("the new one answers too", lambda: load.answered_by() == {stays.pid, fresh.pid})
    assert load.errors == []


def test_no_call_at_all_fails_when_an_instance_is_stopped_as_a_supervisor_stops_it(two, three_servers):
    stopped, *stay = three_servers
    with Client(unix(two[1])) as client, Load(client, "POST").running() as load:
        until("all three answer", lambda: load.answered_by() == {server.pid for server in three_servers})
        stopped.process.terminate()
        assert stopped.process.wait(PATIENCE) == 0
        assert load.answered_by() == {server.pid for server in stay}
    assert load.errors == []


def test_no_idempotent_call_fails_while_an_instance_has_stopped_without_a_word(two, three_servers):
    paused, *stay = three_servers
    with Client(unix(two[0])) as client, Load(client, timeout=6.0).running() as load:
        until("all three answer", lambda: load.answered_by() == {server.pid for server in three_servers})
        paused.process.send_signal(signal.SIGSTOP)
        until("its silence is known", lambda: passing(two[1]) == 2)
        until("the others answer alone", lambda: load.answered_by() == {server.pid for server in stay})
        paused.process.send_signal(signal.SIGCONT)
        until("it answers again", lambda: load.answered_by() == {server.pid for server in three_servers})
    assert load.errors == []


def test_no_call_fails_when_the_agent_is_killed_and_what_changes_meanwhile_is_known_after_it(two, three_servers, start):
    first, second = two
    at_second = three_servers[2]
    with Client(unix(first)) as client, Load(client).running() as load:
        until("all three answer", lambda: load.answered_by() == {server.pid for server in three_servers})
        first.process.kill()
        until("the client says so", lambda: not client.status.is_current)
        assert load.answered_by() <= {server.pid for server in three_servers}
        until("what the second agent says of them", lambda: passing(second) == 1)

        first.start()
        until("the client is current again", lambda: client.status.is_current)
        until("the servers have come back to their agent", lambda: passing(second) == 3)
        until("all three answer", lambda: load.answered_by() == {server.pid for server in three_servers})
        at_second.process.kill()
        until("the others answer alone", lambda: load.answered_by() == {three_servers[0].pid, three_servers[1].pid})
    assert load.errors == []
