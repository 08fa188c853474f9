"""What a program on this host notices that speaks to agent.sock."""

import os
import socket

import gevent
import msgspec
import pytest
from gevent import socket as gsocket
from hypothesis import given
from hypothesis import strategies as st

from dislocate.core.boundary.requests import Deregister, Done, Heartbeat, Refused, Register, ReportLoad
from dislocate.core.boundary.values import CheckSpec, InstanceSpec, Load, Status
from dislocate.core.catalog.validation import refused
from dislocate.core.errors import Bug, ConfigError, LocalError
from dislocate.core.units import SECOND
from dislocate.edge.datagrams import say_mistake, understand
from dislocate.edge.http.access import Access, Role
from dislocate.edge.metrics import EdgeCounters
from dislocate.edge.unix import SIZE_LIMIT, DatagramSocket
from tests.support.fake_backend import NEVER, FakeBackend


def answer_to(data, role=Role.WRITE, result=None):
    """The answer, and what the core was asked."""
    encoded = data if isinstance(data, bytes) else msgspec.json.encode(data)
    try:
        request, answer = understand(encoded, role)
    except LocalError as error:
        return msgspec.json.decode(say_mistake(encoded, error)), []
    return msgspec.json.decode(answer(result or Done(7))), [request]


@pytest.mark.parametrize(
    ("datagram", "request_"),
    [
        (
            {"op": "register", "id": "w", "service": "shop.web", "port": 80, "check": {"ttl": "9s"}},
            Register(InstanceSpec(id="w", service="shop.web", port=80, check=CheckSpec(ttl=9 * SECOND))),
        ),
        ({"op": "heartbeat", "id": "w"}, Heartbeat("w")),
        ({"op": "heartbeat", "id": "w", "status": "critical"}, Heartbeat("w", Status.CRITICAL)),
        ({"op": "load", "id": "w", "utilization": 0.5, "rate": 3}, ReportLoad("w", Load(0.5, 0, 3.0))),
        ({"op": "deregister", "id": "w"}, Deregister("w")),
    ],
)
def test_each_operation_asks_the_core_for_exactly_that(datagram, request_):
    assert answer_to(datagram) == ({"ok": True, "version": 7}, [request_])


@pytest.mark.parametrize(
    ("datagram", "field", "words"),
    [
        ({"op": "heartbaet", "id": "w"}, "op", "'heartbeat'"),
        ({"id": "w"}, "op", "'register'"),
        ({"op": "heartbeat"}, "id", "the id of an instance"),
        ({"op": "heartbeat", "id": "w", "stauts": "passing"}, "stauts", "did you mean 'status'?"),
        ({"op": "heartbeat", "id": "w", "status": "fine"}, "status", "'passing', 'warning' or 'critical'"),
        ({"op": "load", "id": "w", "in_flight": -1}, "in_flight", "at least 0"),
        ({"op": "register", "id": "w", "service": "a", "port": 1, "check": {"ttl": 5}}, "check.ttl", "'5s'"),
        ([], "body", "object"),
        (b"", "body", "JSON"),
        (b'{"op": "register", "id": "w", "meta": ' + b"[" * 50_000, "meta", "an object of texts"),
    ],
)
def test_a_wrong_datagram_is_answered_with_the_field_and_the_mend(datagram, field, words):
    answer, asked = answer_to(datagram)
    assert set(answer) == {"error"}
    assert set(answer["error"]) == {"field", "got", "expected"}
    assert answer["error"]["field"] == field
    assert words in answer["error"]["expected"]
    assert asked == []


def test_commands_as_checks_need_the_agent_s_own_user():
    datagram = {"op": "register", "id": "w", "service": "a", "port": 1, "check": {"command": ["/bin/true"]}}
    refused, asked = answer_to(datagram, Role.WRITE)
    assert "'operate'" in refused["error"]["expected"]
    assert asked == []
    assert answer_to(datagram, Role.OPERATE)[0] == {"ok": True, "version": 7}
    assert "error" in answer_to({"op": "heartbeat", "id": "w"}, Role.READ)[0]


def test_what_the_core_refuses_names_what_it_got_and_what_it_expected():
    error = LocalError("service", got="a..b" * 100, expected="labels and dots")
    answer, _ = answer_to({"op": "register", "id": "w", "service": "x", "port": 1}, result=refused(error))
    assert (answer["error"]["field"], answer["error"]["expected"]) == ("service", "labels and dots")
    assert answer["error"]["got"].startswith("a..b")
    assert len(answer["error"]["got"]) == 80


def test_what_the_core_refuses_is_an_error_with_its_reason():
    answer, _ = answer_to({"op": "heartbeat", "id": "w"}, result=Refused("unknown", "id", "register it first"))
    assert answer == {"error": {"field": "id", "got": None, "expected": "register it first"}}


keys = st.sampled_from(["op", "id", "service", "port", "check", "meta", "utilization", "status", "tags"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["register", "load", "5s"]) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys | st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


@given(st.binary(max_size=200) | st.dictionaries(keys, values, max_size=6).map(msgspec.json.encode))
def test_whatever_the_bytes_are_the_answer_is_ok_or_an_error(data):
    answer, asked = answer_to(data)
    assert set(answer) in ({"ok", "version"}, {"error"})
    assert len(asked) == ("ok" in answer)


# ---- the socket


class Served:
    def __init__(self, directory, **options):
        self.backend = FakeBackend()
        self.counters = EdgeCounters()
        self.path = str(directory / "agent.sock")
        self.socket = DatagramSocket(self.backend, self.path, Access(), self.counters, **options)
        self.socket.start()
        self.client = gsocket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.client.bind(str(directory / "client.sock"))
        self.client.settimeout(60)
        self.client.connect(self.path)

    def ask(self, data):
        self.client.send(data if isinstance(data, bytes) else msgspec.json.encode(data))
        return msgspec.json.decode(self.client.recv(65536))

    def wait_for(self, claim):
        with gevent.Timeout(60):
            while not claim():
                gevent.sleep(0.005)


@pytest.fixture
def served(tmp_path):
    served = Served(tmp_path)
    yield served
    served.client.close()
    served.socket.stop()


def test_a_bound_sender_is_answered_and_the_agent_s_own_user_may_operate(served):
    register = {"op": "register", "id": "w", "service": "a", "port": 1, "check": {"command": ["/bin/true"]}}
    assert served.ask(register) == {"ok": True, "version": 7}
    assert "error" in served.ask(b"\xff\x00garbage")
    assert served.ask({"op": "heartbeat", "id": "w"}) == {"ok": True, "version": 7}


def test_an_unbound_sender_is_heard_and_not_answered(served):
    with gsocket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as nameless:
        nameless.sendto(b'{"op": "heartbeat", "id": "w"}', served.path)
    served.wait_for(lambda: served.backend.asked == [Heartbeat("w")])


def test_a_datagram_that_is_too_long_is_an_error_and_the_next_is_answered(served):
    assert served.ask(b" " * (SIZE_LIMIT + 1))["error"]["field"] == "datagram"
    assert served.ask({"op": "heartbeat", "id": "w"})["ok"]


def test_a_sender_that_is_gone_loses_its_answer_and_nobody_else_does(served, tmp_path):
    path = tmp_path / "gone.sock"
    with gsocket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as gone:
        gone.bind(str(path))
        gone.sendto(b'{"op": "heartbeat", "id": "w"}', served.path)
    os.unlink(path)
    served.wait_for(lambda: served.counters.total("datagram_answers_dropped") == 1)
    assert served.ask({"op": "heartbeat", "id": "w"})["ok"]


def test_a_request_that_the_core_does_not_answer_is_cancelled_and_its_sender_told(tmp_path):
    served = Served(tmp_path, answer_within=0.01)
    served.backend.result = NEVER
    assert "twice does no harm" in served.ask({"op": "heartbeat", "id": "w"})["error"]["expected"]
    answer = served.ask({"op": "put", "id": 4, "key": "a", "value": "1"})
    assert (answer["id"], answer["error"]["kind"]) == (4, "uncertain")
    assert served.backend.cancelled == [1, 2]
    served.client.close()
    served.socket.stop()


def test_a_bug_behind_the_socket_is_logged_and_does_not_end_it(served, caplog):
    served.backend.result = Bug("index went backwards")
    assert served.ask({"op": "heartbeat", "id": "w"})["error"]["field"] == "agent"
    assert "index went backwards" in caplog.text
    served.backend.result = Done(1)
    assert served.ask({"op": "heartbeat", "id": "w"})["ok"]


def test_the_socket_of_a_living_agent_is_not_taken_and_a_stale_one_is(served, tmp_path):
    with pytest.raises(ConfigError, match="another agent answers"):
        DatagramSocket(served.backend, served.path, Access(), served.counters)
    stale = tmp_path / "stale.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as dead:
        dead.bind(str(stale))
    DatagramSocket(served.backend, str(stale), Access(), served.counters).stop()
    assert not stale.exists()
