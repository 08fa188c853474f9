"""What a program on this host notices that reads and sets keys over agent.sock."""

import socket

import gevent
import msgspec
import pytest

from dislocate.core.boundary.requests import Refused
from dislocate.core.boundary.store import (
    Compare,
    Consistency,
    Delete,
    Field,
    Get,
    KeysRead,
    KeyValue,
    Put,
    ReadKeys,
    Relation,
    Transact,
    Transacted,
    Uncertain,
)
from dislocate.core.tunables import VALUE_BYTES
from dislocate.core.units import SECOND
from dislocate.edge import unix
from dislocate.edge.http.access import Role
from tests.support.fake_backend import NEVER
from tests.unit.test_unix_socket import Served, answer_to

COLOR = KeyValue("app/color", b"blue", 5, 7, 2)
PUT = {"op": "put", "key": "app/color", "value": "blue"}
IS_SEVEN = Compare("k", Field.MODIFIED, Relation.EQUAL, 7)


@pytest.fixture
def served(tmp_path):
    served = Served(tmp_path)
    yield served
    served.client.close()
    served.socket.stop()


@pytest.mark.parametrize(
    ("datagram", "request_", "result", "answer"),
    [
        (
            {**PUT, "id": 1},
            Transact((), (Put("app/color", b"blue"),)),
            Transacted(True, 8, ((COLOR,),)),
            {"ok": True, "id": 1, "revision": 8},
        ),
        (
            {"op": "put", "id": "a", "key": "k", "value": "/w==", "encoding": "base64", "lease": 4},
            Transact((), (Put("k", b"\xff", 4),)),
            Transacted(True, 8, ((COLOR,),)),
            {"ok": True, "id": "a", "revision": 8},
        ),
        (
            {"op": "cas", "key": "k", "value": "x", "revision": 7},
            Transact((IS_SEVEN,), (Put("k", b"x"),), (Get("k"),)),
            Transacted(True, 8, ((COLOR,),)),
            {"ok": True, "id": None, "revision": 8},
        ),
        (
            {"op": "delete", "key": "k", "revision": 7},
            Transact((IS_SEVEN,), (Delete("k"),), (Get("k"),)),
            Transacted(True, 8, ((COLOR,),)),
            {"ok": True, "id": None, "revision": 8, "deleted": 1},
        ),
        (
            {"op": "get", "id": 2, "key": "app/color", "consistency": "bounded", "max_age": "5s"},
            ReadKeys("app/color", consistency=Consistency.BOUNDED, max_age=5 * SECOND),
            KeysRead((COLOR,), 9, SECOND // 2),
            {
                "ok": True,
                "id": 2,
                "key": "app/color",
                "value": "blue",
                "revision": 7,
                "created": 5,
                "modified": 7,
                "version": 2,
                "lease": 0,
                "age": 0.5,
            },
        ),
        (
            {"op": "get", "id": 2, "key": "k"},
            ReadKeys("k"),
            KeysRead((), 9),
            {"ok": True, "id": 2, "key": "k", "value": None, "revision": 0, "age": 0.0},
        ),
    ],
)
def test_each_operation_asks_the_store_for_exactly_that(datagram, request_, result, answer):
    assert answer_to(datagram, Role.WRITE, result) == (answer, [request_])


@pytest.mark.parametrize(
    ("datagram", "field", "words"),
    [
        ({**PUT, "key": "/k"}, "key", "not beginning with '/'"),
        ({**PUT, "key": ""}, "key", "a key of 1 to 512 bytes"),
        ({**PUT, "key": "k" * 513}, "key", "1 to 512 bytes"),
        ({**PUT, "key": "\udc80"}, "body", "UTF-8"),
        ({**PUT, "value": 3}, "value", "text"),
        ({**PUT, "value": "x" * (VALUE_BYTES + 1)}, "value", "at most 262144 bytes"),
        ({**PUT, "value": "=", "encoding": "base64"}, "value", "base64"),
        ({**PUT, "encoding": "hex"}, "encoding", "'base64'"),
        ({**PUT, "vlaue": ""}, "vlaue", "did you mean 'value'?"),
        ({"op": "cas", "key": "k", "value": ""}, "revision", "a whole number"),
        ({"op": "cas", "key": "k", "value": "", "revision": -1}, "revision", "at least 0"),
        ({"op": "delete", "key": "k", "prefix": True, "revision": 1}, "revision", "one key"),
        ({"op": "get", "key": "k", "consistency": "strong"}, "consistency", "'local'"),
        ({"op": "get", "key": "k", "consistency": "bounded"}, "max_age", "'5s'"),
        ({"op": "get", "key": "k", "consistency": "local", "max_age": "5s"}, "max_age", "with no other"),
        ({"op": "delete", "key": "", "prefix": True}, "key", "deleting everything is not offered"),
    ],
)
def test_bad_input_names_the_field_and_the_mend_and_asks_nobody(datagram, field, words):
    encoded = b'{"op": "put", "key": "\xff", "value": ""}' if datagram["key"] == "\udc80" else datagram
    answer, asked = answer_to(encoded)
    assert (answer["error"]["field"], asked) == (field, [])
    assert words in answer["error"]["expected"]


def test_a_lease_that_has_ended_is_named_as_it_was_written():
    refused = Refused("unknown", "then[0].lease", "lease 4 has ended: grant a new one and put the key again")
    answer, _ = answer_to({**PUT, "lease": 4}, result=refused)
    assert (answer["error"]["kind"], answer["error"]["field"]) == ("unknown", "lease")


def test_a_max_age_alone_means_bounded_as_over_http():
    _, asked = answer_to({"op": "get", "key": "k", "max_age": "5s"})
    assert asked == [ReadKeys("k", consistency=Consistency.BOUNDED, max_age=5 * SECOND)]


def test_a_mistake_in_a_question_about_a_key_carries_its_id_too():
    assert answer_to({**PUT, "id": 6, "key": "/k"})[0]["id"] == 6
    assert answer_to({**PUT, "id": 6, "vlaue": ""})[0]["id"] == 6


@pytest.mark.parametrize(
    ("result", "kind", "words"),
    [
        (Refused("unavailable", "", "missing: wdc/b1, wdc/b2"), "unavailable", "missing: wdc/b1"),
        (Refused("storage", "", "the disk of fra/a1 is full"), "storage", "is full"),
        (Uncertain("the leader was lost"), "uncertain", "it may have been done (the leader was lost)"),
        (Transacted(False, 9, ((COLOR,),)), "conflict", "7, after reading"),
        (Transacted(False, 9, ((),)), "conflict", "0, which stands for 'no such key'"),
    ],
)
def test_what_was_not_done_says_its_kind_and_the_mend_and_whose_answer_it_is(result, kind, words):
    answer, _ = answer_to({"op": "cas", "id": 3, "key": "k", "value": "x", "revision": 5}, Role.WRITE, result)
    assert (answer["id"], answer["error"]["kind"]) == (3, kind)
    assert words in answer["error"]["expected"]
    if kind == "conflict":
        assert answer["error"]["revision"] == (7 if result.results[0] else 0)


@pytest.mark.parametrize(
    ("datagram", "needed"),
    [
        (PUT, Role.WRITE),
        ({"op": "get", "key": "k"}, Role.READ),
        ({"op": "put", "key": "system/x", "value": ""}, Role.OPERATE),
        ({"op": "delete", "key": "s", "prefix": True}, Role.OPERATE),
    ],
)
def test_each_operation_needs_its_role(datagram, needed):
    for role in Role:
        _, asked = answer_to(datagram, role)
        assert bool(asked) == (role >= needed)


# ---- the socket


def test_many_requests_may_be_under_way_on_one_socket_and_answers_say_whose_they_are(served):
    served.backend.result = NEVER
    for number in range(3):
        served.client.send(msgspec.json.encode({**PUT, "id": number}))
    served.wait_for(lambda: len(served.backend.pending) == 3)
    for request_id, then in reversed(served.backend.pending.copy().items()):
        then(Transacted(True, request_id, ((COLOR,),)))
    answers = [msgspec.json.decode(served.client.recv(65536)) for _ in range(3)]
    assert [answer["id"] for answer in answers] == [2, 1, 0]


def test_what_waits_for_the_core_is_bounded_and_the_rest_waits_in_the_kernel(served, monkeypatch):
    monkeypatch.setattr(unix, "UNDER_WAY", 2)
    served.backend.result = NEVER
    for number in range(3):
        served.client.send(msgspec.json.encode({**PUT, "id": number}))
    served.wait_for(lambda: len(served.backend.pending) == 2)
    gevent.sleep(0)
    assert len(served.backend.pending) == 2
    served.backend.pending.pop(1)(Transacted(True, 8, ((COLOR,),)))
    served.wait_for(lambda: len(served.backend.asked) == 3)


def test_an_answer_too_long_for_a_datagram_says_where_to_get_it(served):
    served.backend.result = KeysRead((KeyValue("k", b"x" * unix.SIZE_LIMIT, 5, 7, 2),), 9)
    answer = served.ask({"op": "get", "id": 5, "key": "k"})
    error = answer["error"]
    assert (answer["id"], error["field"], "GET /api/kv/KEY" in error["expected"]) == (5, "key", True)


def test_who_does_not_take_its_answers_loses_them_and_keeps_nobody_waiting(served, tmp_path):
    served.backend.result = Transacted(True, 8, ((COLOR,),))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as idle:
        idle.bind(str(tmp_path / "idle.sock"))
        for _ in range(1_000):
            idle.setblocking(False)
            try:
                idle.sendto(msgspec.json.encode(PUT), served.path)
            except BlockingIOError:
                gevent.sleep(0)
        served.wait_for(lambda: served.counters.total("datagram_answers_dropped"))
        assert served.ask({**PUT, "id": 9}) == {"ok": True, "id": 9, "revision": 8}
