"""What an operator and a caller notice of a server made by `serve`: registration, load, limits, no stall, a graceful end."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time

import gevent
import pytest
from gevent.event import Event as Flag

from dislocate.client import Server
from dislocate.client.connection import Problem
from dislocate.client.meter import Meter
from dislocate.core.boundary.requests import Deregister, Done, Heartbeat, Refused, Register, ReportLoad, SetDraining
from dislocate.core.boundary.values import Status
from dislocate.core.errors import LocalError
from dislocate.core.units import SECOND
from tests.support.agent_thread import PATIENCE, AgentThread, at
from tests.support.api_client import Connection as Kept


def until(claim):
    ends = time.monotonic() + PATIENCE
    while not claim():
        assert time.monotonic() < ends
        gevent.sleep(0.01)


@pytest.fixture(params=["unix", "http"])
def agent(request, tmp_path):
    made = AgentThread(str(tmp_path) if request.param == "unix" else "")
    yield made
    made.end()


@pytest.fixture
def quiet(tmp_path):
    """An agent's place where nobody is: for what does not need one."""
    return f"unix:{tmp_path}/http.sock"


def hello(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [environ["PATH_INFO"].encode()]


@contextlib.contextmanager
def serving(app, agent, **options):
    server = Server(app, "orders.api", host="127.0.0.1", agent=agent, **options)
    server.start()
    try:
        yield server
    finally:
        server.stop(0.0, 0.0)


def asked(agent, kind):
    return [request for request in agent.asked if type(request) is kind]


class Caller(Kept):
    """A kept connection to a server."""

    def __init__(self, server):
        super().__init__(("127.0.0.1", server.port))

    def get(self, path="/"):
        self.request("GET", path)
        response = self.getresponse()
        return response.status, response.read().decode(), response.headers


# ---- being known


def test_it_is_registered_and_says_that_it_lives_and_how_busy_it_is(agent):
    with serving(hello, agent.where, tags=["v2"], meta={"rack": "b7"}, weight=3) as server:
        until(lambda: asked(agent, Heartbeat) and asked(agent, ReportLoad))
        (spec,) = [register.instance for register in asked(agent, Register)]
        assert (spec.id, spec.service, spec.port) == (f"orders.api-{server.port}", "orders.api", server.port)
        assert (spec.address, spec.tags, spec.weight) == ("127.0.0.1", ("v2",), 3)
        assert (spec.meta["rack"], spec.check.ttl) == ("b7", 5 * SECOND)
        assert asked(agent, Heartbeat)[0] == Heartbeat(spec.id)
        for _ in range(20):
            assert Caller(server).get()[0] == 200
        until(lambda: any(told.load.rate > 0 for told in asked(agent, ReportLoad)))
        assert all(0.0 <= told.load.utilization <= 1.0 for told in asked(agent, ReportLoad))
    assert asked(agent, Deregister) == [Deregister(spec.id)]


def test_it_may_be_checked_over_http_instead(agent):
    how = {"check": "http", "check_interval": "3s", "check_timeout": "2s"}
    with serving(hello, agent.where, **how, instance_id="web-1") as server:
        until(lambda: asked(agent, ReportLoad))
        (spec,) = [register.instance for register in asked(agent, Register)]
        assert (spec.id, spec.check.http) == ("web-1", f"http://127.0.0.1:{server.port}/health")
        assert (spec.check.interval, spec.check.timeout) == (3 * SECOND, 2 * SECOND)
        assert Caller(server).get("/health")[:2] == (200, "ok\n")
        assert asked(agent, Heartbeat) == []


def test_everywhere_means_the_address_that_the_agent_advertises(quiet):
    server = Server(hello, "orders.api", agent=quiet)
    assert server.registration.instance.address == ""
    server = Server(hello, "orders.api", host="127.0.0.1", address="10.0.0.7", agent=quiet)
    assert server.registration.instance.address == "10.0.0.7"


def test_it_serves_without_an_agent_and_is_known_when_one_comes(agent):
    agent.stop()
    with serving(hello, agent.where) as server:
        assert Caller(server).get("/a")[:2] == (200, "/a")
        until(lambda: "no agent at" in server.registration.problem)
        agent.start()
        until(lambda: asked(agent, ReportLoad))
        assert len(asked(agent, Register)) == 1


def test_an_agent_that_forgot_it_is_told_again(agent):
    with serving(hello, agent.where):
        until(lambda: asked(agent, Heartbeat))
        unknown = Refused("unknown", "id", "no such instance: register it first")
        registered = []

        def answer(request):
            registered.append(type(request) is Register)
            return Done(1) if any(registered) else unknown

        agent.do(lambda: setattr(agent.backend, "result", answer))
        until(lambda: len(asked(agent, Register)) == 2)
        agent.do(lambda: setattr(agent.backend, "result", Done(1)))


def test_an_agent_that_restarts_is_spoken_to_again(agent):
    with serving(hello, agent.where) as server:
        until(lambda: asked(agent, Heartbeat))
        agent.stop()
        until(lambda: server.registration.problem)
        before = len(asked(agent, Heartbeat))
        agent.start()
        until(lambda: len(asked(agent, Heartbeat)) > before)
        until(lambda: not server.registration.problem)


def test_what_a_killed_process_left_is_removed_and_nothing_else(agent):
    dead = {"status": Status.CRITICAL, "meta": {"served": "ttl"}}
    agent.do(
        lambda: agent.backend.put(
            at(1, "dead", **dead),
            at(2, "alive", meta={"served": "ttl"}),
            at(3, "other", status=Status.CRITICAL, meta={}),
            at(4, "far", **{**dead, "node": "wdc/b1"}),
            service="orders.api",
        )
    )
    with serving(hello, agent.where):
        until(lambda: asked(agent, Deregister))
        assert asked(agent, Deregister) == [Deregister("dead")]


# ---- answering


def test_a_kept_connection_never_waits_for_an_acknowledgement(quiet):
    """Head and body are one segment, so there is nothing that Nagle could hold back until a delayed acknowledgement."""
    with serving(hello, quiet) as server, socket.create_connection(("127.0.0.1", server.port)) as raw:
        connection = gevent.socket.socket(fileno=os.dup(raw.fileno()))
        segments = []
        for _ in range(5):
            before = segments_received(connection)
            connection.sendall(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = b""
            while not answer.endswith(b"\r\n\r\n/x"):
                answer += connection.recv(1 << 16)
            segments.append(segments_received(connection) - before)
        connection.close()
        assert segments == [1] * 5


def segments_received(connection):
    """Data segments that came in on a connection so far: tcpi_data_segs_in of struct tcp_info (linux/tcp.h)."""
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    return int.from_bytes(info[152:156], sys.byteorder)


def test_accepted_sockets_send_at_once(quiet):
    """For bodies in several pieces: Nagle is off, by what accepted sockets inherit of the listening one."""
    with serving(hello, quiet) as server:
        caller = Caller(server)
        caller.get()
        until(lambda: server._wsgi.idle)
        (kept,) = server._wsgi.idle.values()
        assert kept.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize("size", [0, 1, 1 << 16, 1 << 20])
def test_bodies_of_any_size_arrive_whole(quiet, size):
    def app(_environ, start_response):
        start_response("200 OK", [])
        return [b"x" * size]

    def in_pieces(_environ, start_response):
        start_response("200 OK", [])
        yield from (b"x" * (size // 2), b"", b"x" * (size - size // 2))

    for each in (app, in_pieces):
        with serving(each, quiet) as server:
            caller = Caller(server)
            assert [len(caller.get()[1]) for _ in range(2)] == [size] * 2


def test_beyond_its_workers_requests_wait_and_beyond_its_queue_they_are_refused(quiet):
    go, began = Flag(), []

    def app(environ, start_response):
        began.append(environ["PATH_INFO"])
        go.wait()
        return hello(environ, start_response)

    with serving(app, quiet, workers=2, queue=3) as server:
        callers = [gevent.spawn(Caller(server).get, f"/{number}") for number in range(5)]
        until(lambda: server.in_flight == 5)
        assert len(began) == 2
        status, words, headers = Caller(server).get("/late")
        assert (status, headers["Retry-After"], "5 requests are waiting" in words) == (503, "1", True)
        assert headers["Dislocate-Not-Begun"] == "1"
        assert Caller(server).get("/health")[0] == 200, "it lives"
        go.set()
        assert [caller.get(timeout=PATIENCE)[0] for caller in callers] == [200] * 5
        assert server.in_flight == 0


def test_an_application_that_fails_is_500_and_takes_no_worker_with_it(quiet, capsys):
    def app(_environ, _start_response):
        raise ValueError("a bug")

    with serving(app, quiet, workers=1) as server:
        assert [Caller(server).get()[0] for _ in range(3)] == [500] * 3
        assert server.in_flight == 0


def test_health_is_the_applications_own_if_that_is_wanted(quiet):
    with serving(hello, quiet, health="") as server:
        assert Caller(server).get("/health")[:2] == (200, "/health")


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"check": "tcp"}, "check"),
        ({"check": "http", "health": ""}, "check"),
        ({"check": "http", "check_interval": "1"}, "check_interval"),
        ({"check": "http", "check_timeout": "1h"}, "check_timeout"),
        ({"workers": 0}, "workers"),
        ({"name": "Bad Name"}, "name"),
        ({"name": "nosuch.service"}, "name"),
        ({"name": 7}, "name"),
        ({"weight": -4}, "weight"),
        ({"weight": 0.5}, "weight"),
        ({"port": -1}, "port"),
        ({"port": 65536}, "port"),
        ({"port": 700_000}, "port"),
        ({"port": "80"}, "port"),
        ({"tags": "blue"}, "tags"),
        ({"tags": ["blue\n"]}, "tags"),
        ({"tags": [""]}, "tags"),
        ({"tags": [7]}, "tags[0]"),
        ({"meta": {"a b": "c"}}, "meta"),
        ({"meta": {"rack": 7}}, "meta.rack"),
        ({"meta": {str(at): "x" for at in range(32)}}, "meta"),
        ({"instance_id": "a b"}, "instance_id"),
        ({"address": "10.0.0.1:80"}, "address"),
    ],
)
def test_a_mistake_is_named_at_once(quiet, options, field):
    with pytest.raises(LocalError) as raised:
        Server(hello, **{"name": "orders.api", "agent": quiet, **options})
    assert raised.value.field == field


def test_what_the_agent_refuses_ends_the_start_loudly_and_nobody_listens_on(agent):
    refused = Refused("invalid", "meta", "got '9000 bytes', expected 1000", "9000 bytes", "names of 1000 bytes at most")
    agent.do(lambda: setattr(agent.backend, "result", refused))
    server = Server(hello, "orders.api", host="127.0.0.1", agent=agent.where)
    with pytest.raises(Problem, match="meta"):
        server.start()
    with pytest.raises(ConnectionRefusedError):
        Caller(server).get()


def test_an_agent_that_cannot_take_it_now_is_asked_again(agent):
    agent.do(lambda: setattr(agent.backend, "result", Refused("storage", "", "disk full")))
    with serving(hello, agent.where) as server:
        assert "disk full" in server.registration.problem
        agent.do(lambda: setattr(agent.backend, "result", Done(1)))
        until(lambda: not server.registration.problem)


def test_a_refusal_that_comes_later_is_logged_as_an_error_with_its_mend_and_it_serves_on(agent, caplog):
    with serving(hello, agent.where) as server:
        until(lambda: asked(agent, Heartbeat))

        def answer(request):
            if type(request) is Register:
                return Refused("invalid", "weight", "too heavy", 3, "a weight below 3")
            return Refused("unknown", "id", "no such instance: register it first")

        agent.do(lambda: setattr(agent.backend, "result", answer))
        until(lambda: any(record.levelname == "ERROR" for record in caplog.records))
        said = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
        assert ("too heavy" in said[0], "a weight below 3" in said[0]) == (True, True)
        assert Caller(server).get()[0] == 200


def test_a_taken_port_is_named(quiet):
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(LocalError, match="port") as raised:
        Server(hello, "orders.api", host="127.0.0.1", port=taken.getsockname()[1], agent=quiet)
    assert raised.value.field == "port"


# ---- how busy it is


class Clock:
    def __init__(self):
        self.now = self.cpu = 100.0

    def meter(self, workers):
        return Meter(workers, lambda: self.now, lambda: self.cpu)


def test_utilization_is_the_part_of_workers_that_were_busy():
    clock = Clock()
    meter = clock.meter(4)
    meter.begin()
    meter.begin()
    clock.now += 1.0
    meter.end()
    clock.now += 1.0
    reading = meter.read()
    assert (reading.utilization, reading.in_flight, reading.rate) == (3 / 8, 1, 0.5)


def test_what_waits_is_in_flight_and_makes_nobody_busier_than_all():
    clock = Clock()
    meter = clock.meter(2)
    for _ in range(10):
        meter.begin()
    clock.now += 1.0
    assert (meter.read().utilization, meter.in_flight) == (1.0, 10)


def test_a_core_that_computes_is_busy_however_many_workers_there_are():
    clock = Clock()
    meter = clock.meter(1_000)
    clock.now += 2.0
    clock.cpu += 1.5
    assert meter.read().utilization == 0.75
    clock.now += 1.0
    assert meter.read().utilization == 0.0


def test_a_reading_at_once_is_no_division_by_nothing():
    assert Clock().meter(1).read().rate == 0.0


# ---- its end


def test_it_leaves_step_by_step_and_nobody_is_cut_off(agent):
    go, began = Flag(), Flag()

    def app(environ, start_response):
        if environ["PATH_INFO"] == "/slow":
            began.set()
            go.wait()
        return hello(environ, start_response)

    server = Server(app, "orders.api", host="127.0.0.1", agent=agent.where)
    server.start()
    until(lambda: asked(agent, ReportLoad))
    idle, kept, slow = Caller(server), Caller(server), Caller(server)
    assert idle.get()[0] == kept.get()[0] == 200
    under_way = gevent.spawn(slow.get, "/slow")
    began.wait()
    leaving = gevent.spawn(server.stop, 0.5, PATIENCE, "the test says so")
    until(lambda: asked(agent, SetDraining))
    (drain,) = asked(agent, SetDraining)
    assert (drain.target, drain.scope, drain.draining, drain.reason) == (
        f"orders.api-{server.port}",
        "instance",
        True,
        "the test says so",
    )
    assert drain.expires > 0, "should the process die now, the drain ends by itself"
    status, _, headers = kept.get("/still")
    assert (status, headers["Connection"]) == (200, "close"), "served, and asked to go"
    until(lambda: server._wsgi.closed)
    with pytest.raises(ConnectionRefusedError):
        Caller(server).get()
    until(lambda: not server._wsgi.idle)
    assert not leaving.ready(), "one is under way"
    assert asked(agent, Deregister) == []
    go.set()
    assert under_way.get(timeout=PATIENCE)[:2] == (200, "/slow")
    leaving.get(timeout=PATIENCE)
    assert asked(agent, Deregister) == [Deregister(f"orders.api-{server.port}")]


def test_in_a_process_that_an_agent_runs_it_tells_its_load_and_leaves_the_rest_to_the_agent(agent, monkeypatch):
    """A second word for the same instance would take its check and what tells scaling whose it is."""
    port, another = free_port(), free_port()
    monkeypatch.setenv("DISLOCATE_REGISTERED", f"orders.api api-{port} {port}")
    with serving(hello, agent.where) as server:
        assert server.port == port
        until(lambda: asked(agent, ReportLoad))
    assert asked(agent, Register) == asked(agent, Heartbeat) == asked(agent, Deregister) == []
    assert asked(agent, ReportLoad)[0].instance_id == f"api-{port}"
    with serving(hello, agent.where, port=another):  # another port is not that one
        until(lambda: asked(agent, Register))
        assert asked(agent, Register)[0].instance.id == f"orders.api-{another}"


def test_one_that_its_agent_took_out_before_it_ended_it_does_not_wait_for_callers_again(agent, monkeypatch):
    slept, sleep = [], gevent.sleep

    def count(seconds):
        if seconds == 0.123:
            slept.append(seconds)
        sleep(0 if seconds == 0.123 else seconds)

    monkeypatch.setattr("dislocate.client.serving.gevent.sleep", count)
    server = Server(hello, "orders.api", host="127.0.0.1", agent=agent.where)
    server.registration._is_agents = True
    server.start()

    def gone(method, path, body=None):
        raise Problem(404, {"detail": "unknown"})

    server.stop(0.123, 0.0)
    assert slept == [0.123], "somebody else ended it: its agent took nothing out"
    again = Server(hello, "orders.api", host="127.0.0.1", agent=agent.where)
    again.registration._is_agents = True
    again.start()
    monkeypatch.setattr(again.registration._agent, "send", gone)
    again.stop(0.123, 0.0)
    assert slept == [0.123]


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


SCRIPT = """
import sys
from dislocate.client import serve

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]

print("begun", flush=True)
serve(app, "orders.api", host="127.0.0.1", instance_id="o1", agent={where!r}, grace={grace})
print("left", flush=True)
"""


@pytest.mark.parametrize(("grace", "signals"), [(0.1, 1), (600, 2)])
def test_sigterm_ends_a_served_process_gracefully_and_a_second_at_once(agent, grace, signals):
    script = textwrap.dedent(SCRIPT).format(where=agent.where, grace=grace)
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        until(lambda: asked(agent, ReportLoad))
        port = asked(agent, Register)[0].instance.port
        with socket.create_connection(("127.0.0.1", port)) as caller:
            caller.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert caller.makefile("rb").read().endswith(b"hello")
        process.send_signal(signal.SIGTERM)
        if signals > 1:
            until(lambda: asked(agent, SetDraining))
            process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=PATIENCE)
        assert (process.returncode, said) == (0, "begun\nleft\n")
    finally:
        process.kill()
    assert asked(agent, SetDraining)[0].reason == "SIGTERM"
    assert asked(agent, Deregister) == [Deregister("o1")]
