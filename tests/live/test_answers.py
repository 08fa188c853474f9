"""One fleet, asked in every way there is: all ways give the same instances."""

import http.client
import json
import shutil
import subprocess
import threading
import time

import pytest

from dislocate.client.connection import AgentConnection
from tests.support.live import PATIENCE, curl, tell, until

pytestmark = pytest.mark.live

PLACES = {("fra/a1", 18000), ("fra/a2", 18000), ("wdc/a1", 18000), ("wdc/a2", 18000)}


@pytest.fixture
def first(settled):
    return settled.plans["fra/a1"]


@pytest.fixture
def state(settled):
    return settled.home("fra/a1") / "state"


def places(answer):
    return {(one["node"], one["port"]) for one in answer["instances"]}


def in_file(state, service):
    """The service as services.json has it."""
    return json.loads((state / "services.json").read_text())[service]


def dig(host, *question):
    if shutil.which("dig") is None:
        pytest.skip("dig is not installed")
    done = subprocess.run(
        ["dig", f"@{host}", "-p", "49703", "+short", "+tries=2", "+time=30", *question],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def test_http_the_unix_socket_and_the_file_give_the_same_instances(first, state):
    status, answer = curl(first.host, "GET", "/api/services/shop.web")
    assert (status, places(answer)) == (200, PLACES)
    assert places(AgentConnection(f"unix:{state}/http.sock", timeout=PATIENCE).get("/api/services/shop.web")) == PLACES
    until("the file, written a moment later, has them", lambda: places(in_file(state, "shop.web")) == PLACES)


@pytest.mark.parametrize("tcp", [(), ("+tcp",)])
def test_dig_gives_the_same_instances(settled, first, tcp):
    hosts = {datacenter: {settled.plans[f"{datacenter}/a{j}"].host for j in (1, 2)} for datacenter in ("fra", "wdc")}
    for datacenter, expected in hosts.items():
        name = f"shop.web.service.{datacenter}.dislocate"
        assert set(dig(first.host, name, "A", *tcp)) == expected
        assert {line.split()[2] for line in dig(first.host, name, "SRV", *tcp)} == {"18000"}
        texts = dig(first.host, name, "TXT", *tcp)
        assert len(texts) == 2
        assert all(f"datacenter={datacenter}" in text and "reachable=true" in text for text in texts)
    assert set(dig(first.host, "shop.web.service.dislocate", *tcp)) == hosts["fra"]
    assert dig(first.host, "a2.node.wdc.dislocate", *tcp) == [settled.plans["wdc/a2"].host]


def test_what_a_datagram_registers_is_in_every_answer_everywhere(settled, first, state, tmp_path):
    own = tmp_path / "me"
    request = {"op": "register", "id": "cache-1", "service": "cache", "port": 11211, "check": {"ttl": "1h"}}
    assert tell(state / "agent.sock", own, json.dumps(request).encode())["ok"]
    assert tell(state / "agent.sock", own, b'{"op": "heartbeat", "id": "cache-1"}')["ok"]
    expected = {("fra/a1", 11211)}

    def everybody_knows():
        answers = [seen.instances("cache") for seen in settled.living()]
        return all(
            [(i["node"], i["port"], i["status"]) for i in one] == [("fra/a1", 11211, "passing")] for one in answers
        )

    until("every agent answers the new instance", everybody_knows)
    until("services.json has it", lambda: places(in_file(state, "cache")) == expected)
    assert dig(first.host, "cache.service.dislocate") == [first.host]
    assert tell(state / "agent.sock", own, b'{"op": "deregister", "id": "cache-1"}')["ok"]
    until("nobody answers it any more", lambda: not any("cache" in seen.services() for seen in settled.living()))


def test_a_watch_and_a_long_poll_wake_at_a_change_made_in_another_data_center(settled, first):
    """The change is made at wdc/a3; both wait at fra/a1."""
    connection = http.client.HTTPConnection(first.host, 49700, timeout=PATIENCE)
    connection.request("GET", "/api/watch?service=woken")
    stream = connection.getresponse()
    assert stream.getheader("Content-Type") == "text/event-stream"
    polled = []

    def poll():
        polled.append(curl(first.host, "GET", "/api/services/woken?index=0&wait=60s"))

    waiting = threading.Thread(target=poll)
    waiting.start()
    status, _ = curl(settled.plans["wdc/a3"].host, "PUT", "/api/instances/w1", b'{"service": "woken", "port": 1}')
    assert status == 200
    try:
        for line in stream:
            if line.startswith(b"data: "):
                assert places(json.loads(line[6:])) == {("wdc/a3", 1)}
                break
        waiting.join(PATIENCE)
        assert polled[0][0] == 200
        assert places(polled[0][1]) == {("wdc/a3", 1)}
    finally:
        connection.close()
        curl(settled.plans["wdc/a3"].host, "DELETE", "/api/instances/w1")
    until("it is gone again", lambda: not any("woken" in seen.services() for seen in settled.living()))


def test_a_long_poll_that_nothing_wakes_answers_what_it_knew(first):
    """A service without checks, which fail where a machine is busy enough."""
    assert curl(first.host, "PUT", "/api/instances/s1", b'{"service": "still", "port": 1}')[0] == 200
    try:
        index = curl(first.host, "GET", "/api/services/still")[1]["index"]
        began = time.monotonic()
        status, answer = curl(first.host, "GET", f"/api/services/still?index={index}&wait=300ms")
        assert (status, answer["index"]) == (200, index)
        assert time.monotonic() - began >= 0.3
    finally:
        curl(first.host, "DELETE", "/api/instances/s1")
