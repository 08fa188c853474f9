"""Scaling on real processes: gevent services grow and shrink under load, and their callers see no error."""

import json
import sys
import threading
from pathlib import Path

import pytest

from dislocate.client import Client
from dislocate.client.connection import AgentConnection
from dislocate.fleet.dev import dev_scenario
from dislocate.fleet.fleet import Fleet
from tests.support.live import PATIENCE, command, until

pytestmark = pytest.mark.live

NAME = "orders.api"
ROOT = Path(__file__).parents[2]
POLICY = {
    "min": 1,
    "max": 4,
    "capacity": 20.0,
    "up_window": "2s",
    "down_window": "10s",
    "pause": "0s",
    "driver": {
        "kind": "process",
        "run": [sys.executable, "-m", "tests.support.scaled_service", NAME],
        "health": "/health",
        "directory": str(ROOT),
        "environment": {"DISLOCATE_AGENT": "unix:{{ facts.state_dir }}/http.sock", "PYTHONPATH": str(ROOT)},
        "drain_for": "2s",
    },
}


class Callers:
    """Threads that call without a pause between them but their pace; what went wrong is kept."""

    def __init__(self, agent: str) -> None:
        self._client = Client(agent)
        self._session = self._client.http(NAME, timeout=5.0)
        self._is_over = threading.Event()
        self.busy = threading.Event()  # all of them, not the first alone
        self.errors: list[str] = []
        self.calls = 0
        self._threads = [threading.Thread(target=self._call, args=(number,)) for number in range(8)]
        for thread in self._threads:
            thread.start()

    def _call(self, number: int) -> None:
        while not self._is_over.is_set():
            if number and not self.busy.wait(0.05):
                continue
            try:
                response = self._session.get("/")
                if response.status != 200:
                    self.errors.append(f"HTTP {response.status}")
            except Exception as error:  # noqa: BLE001 - whatever a caller would see
                self.errors.append(f"{type(error).__name__}: {error}")
            self.calls += 1
            self._is_over.wait(0.15)

    def close(self) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()
        self._client.close()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    with Fleet(dev_scenario(1, 3), tmp_path_factory.mktemp("scale")) as fleet:
        fleet.start()
        yield fleet


def api(fleet):
    path = next(iter(fleet.agents))
    return AgentConnection(f"unix:{fleet.home(path)}/state/http.sock", timeout=PATIENCE)


def size(fleet):
    return api(fleet).get(f"/api/scale/{NAME}")["datacenters"][0]


def is_sized(fleet, desired):
    """Decided, and running."""
    found = size(fleet)
    return found if found["desired"] == desired == found["passing"] else None


@pytest.mark.full
def test_processes_grow_and_shrink_under_load_and_no_caller_sees_an_error(fleet):
    socket = f"unix:{fleet.home(next(iter(fleet.agents)))}/state/http.sock"
    until("the store takes a policy", lambda: api(fleet).send("PUT", f"/api/scale/{NAME}", POLICY))
    until("the least is there", lambda: is_sized(fleet, 1))
    callers = Callers(socket)
    try:
        until("calls are answered", lambda: callers.calls > 5)
        assert callers.errors == []
        callers.busy.set()
        until("it grows", lambda: size(fleet)["desired"] >= 3 and is_sized(fleet, size(fleet)["desired"]))
        grown = size(fleet)
        assert "req/s offered" in grown["reason"]
        callers.busy.clear()
        until("it shrinks", lambda: is_sized(fleet, 1))
        before = callers.calls
        until("calls go on", lambda: callers.calls > before + 3)
    finally:
        callers.close()
    assert callers.errors == []
    history = command("scale", "history", NAME, "--json", "--agent", socket)
    sizes = [one["desired"] for one in json.loads(history.stdout)["decisions"]]
    assert sizes[0] == sizes[-1] == 1
    assert max(sizes) == grown["desired"]


def test_a_command_is_run_by_one_relay_and_its_exit_code_is_known(fleet, tmp_path):
    told = tmp_path / "told"
    policy = {
        "min": 3,
        "max": 9,
        "driver": {"kind": "command", "run": ["sh", "-c", f'echo "$DISLOCATE_EPOCH {{desired}}" >> {told}; exit 7']},
        "datacenters": [next(iter(fleet.agents)).partition("/")[0]],
    }
    until("the store takes a policy", lambda: api(fleet).send("PUT", "/api/scale/other.api", policy))

    def failed():
        found = api(fleet).get("/api/scale/other.api")["datacenters"][0]
        return [one for one in found["carried"] if one["state"] == "failed"]

    until("its failure is known", failed)
    assert failed()[0]["code"] == 7
    assert told.read_text().splitlines()[0] == "1 3"
    policy["driver"]["run"][2] = f'echo "$DISLOCATE_EPOCH {{desired}}" >> {told}'
    api(fleet).send("PUT", "/api/scale/other.api", policy)
    until("the mended driver is run", lambda: "2 3" in told.read_text().splitlines())
    api(fleet).send("DELETE", "/api/scale/other.api")
