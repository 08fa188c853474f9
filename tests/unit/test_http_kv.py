"""What users of keys, leases and servers over HTTP notice."""

from base64 import b64decode
from urllib.parse import quote

import gevent
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dislocate.core.boundary.requests import Done, Refused
from dislocate.core.boundary.store import (
    AddServer,
    BackedUp,
    BackUp,
    Compacted,
    Compare,
    Consistency,
    Delete,
    Field,
    Get,
    GrantLease,
    KeepLeaseAlive,
    KeyChange,
    KeysChanged,
    KeysRead,
    KeyValue,
    LeaseStanding,
    Put,
    ReadKeys,
    ReadLease,
    Relation,
    RemoveServer,
    Restore,
    RevokeLease,
    Transact,
    Transacted,
    TransferLeadership,
    Uncertain,
    WatchKeys,
)
from dislocate.core.store.held import NEVER_CURRENT
from dislocate.core.store.replica import UNKNOWN_AGE
from dislocate.core.tunables import KEY_BYTES, TRANSACTION_OPERATIONS, VALUE_BYTES
from dislocate.core.units import SECOND
from dislocate.edge.http import keystream
from tests.support.api_client import ApiClient
from tests.support.fake_backend import NEVER, NOW, FakeBackend, store
from tests.support.tiny_store import TinyStore
from tests.unit.test_http_api import open_stream

COLOR = KeyValue("app/color", b"blue", 5, 7, 2, 0)
OPERATOR = {"dislocate.peer_uid": 0}


@pytest.fixture
def backend():
    return FakeBackend()


@pytest.fixture
def api(backend):
    return ApiClient(backend)


@pytest.fixture
def operator(backend):
    api = ApiClient(backend)
    api.environ = OPERATOR
    return api


def read(*keys, revision=9, **more):
    return KeysRead(keys, revision, **more)


# ---- keys


def test_a_key_is_answered_as_text_with_its_revisions(api, backend):
    backend.result = read(COLOR)
    result = api.ask("GET", "/api/kv/app/color")
    assert result.json == {
        "key": "app/color",
        "value": "blue",
        "revision": 7,
        "created": 5,
        "modified": 7,
        "version": 2,
        "lease": 0,
        "age": 0.0,
    }
    assert result.headers["x-dislocate-index"] == "9"
    assert backend.asked == [ReadKeys("app/color")]


def test_a_value_that_is_no_text_comes_as_base64_and_raw_as_it_is(api, backend):
    backend.result = read(KeyValue("k", b"\xff\x00", 5, 7, 2))
    answer = api.get("/api/kv/k")
    assert (answer["value"], answer["encoding"]) == ("/wA=", "base64")
    raw = api.ask("GET", "/api/kv/k?raw=true")
    assert (raw.content, raw.headers["content-type"]) == (b"\xff\x00", "application/octet-stream")
    assert (raw.headers["x-dislocate-revision"], raw.headers["x-dislocate-index"]) == ("7", "9")


def test_a_head_is_answered_as_a_get_without_the_body(api, backend):
    backend.result = read(KeyValue("k", b"value", 5, 7, 2))
    result = api.ask("HEAD", "/api/kv/k?raw=true")
    assert (result.status_code, result.content, result.headers["x-dislocate-revision"]) == (200, b"", "7")
    backend.result = read()
    result = api.ask("HEAD", "/api/kv/k")
    assert (result.status_code, result.content) == (404, b"")


def test_a_missing_key_is_404_and_says_from_where_to_wait(api, backend):
    backend.result = read()
    result = api.ask("GET", "/api/kv/app/color")
    assert (result.status_code, result.json["field"], result.headers["x-dislocate-index"]) == (404, "key", "9")
    assert "/api/kv/app/?prefix=true" in result.json["hint"]


@pytest.mark.parametrize("query", ["", "&raw=true"])
def test_how_old_an_answer_may_be_is_said_of_a_value_as_it_is_and_of_no_key_too(api, backend, query):
    for found in ((KeyValue("k", b"v", 5, 7, 2),), ()):
        backend.result = read(*found, age=3 * SECOND // 2)
        result = api.ask("GET", f"/api/kv/k?consistency=local{query}")
        assert result.headers["x-dislocate-age"] == "1.500"
    assert (result.status_code, result.json["age"]) == (404, 1.5)


@pytest.mark.parametrize(
    ("query", "request_"),
    [
        ("", ReadKeys("a/", True)),
        ("&limit=2&after=a/b", ReadKeys("a/", True, limit=2, after="a/b")),
        ("&consistency=local", ReadKeys("a/", True, Consistency.LOCAL)),
        ("&max_age=5s", ReadKeys("a/", True, Consistency.BOUNDED, 5 * SECOND)),
        ("&consistency=bounded&max_age=5s", ReadKeys("a/", True, Consistency.BOUNDED, 5 * SECOND)),
    ],
)
def test_a_list_asks_for_exactly_that_with_the_slash_at_its_end(api, backend, query, request_):
    backend.result = read(KeyValue("a/b", b"1", 1, 2, 1), age=3 * SECOND // 2, more=True)
    answer = api.get(f"/api/kv/a/?prefix=true{query}")
    assert (answer["keys"][0]["key"], answer["revision"], answer["age"], answer["more"]) == ("a/b", 9, 1.5, True)
    assert backend.asked == [request_]


def test_all_keys_can_be_listed(api, backend):
    backend.result = read()
    assert api.get("/api/kv") == {"keys": [], "revision": 9, "age": 0.0, "more": False}
    api.get("/api/kv/?prefix=true&limit=5")
    api.get("/api/kv?prefix=true")
    assert backend.asked == [ReadKeys("", True), ReadKeys("", True, limit=5), ReadKeys("", True)]
    assert api.problem("GET", "/api/kv?prefix=a").field == "prefix"


def test_everything_is_not_deleted_at_once(api, backend):
    problem = api.problem("DELETE", "/api/kv/?prefix=true")
    assert "deleting everything is not offered" in problem.hint
    everything = {"then": [{"delete": {"key": "", "prefix": True}}]}
    problem = api.problem("POST", "/api/txn", everything)
    assert (problem.field, backend.asked) == ("then[0].delete.key", [])
    assert "deleting everything is not offered" in problem.expected


@pytest.mark.parametrize(
    ("method", "path", "body", "core", "field"),
    [
        ("PUT", "/api/kv/k?lease=4", b"", "then[0].lease", "lease"),
        ("PUT", "/api/kv/k?lease=4", b"", "store", "store"),
        (
            "POST",
            "/api/txn",
            {"then": [{"put": {"key": "k", "value": "", "lease": 4}}]},
            "then[0].lease",
            "then[0].lease",
        ),
        ("POST", "/api/txn", {"else": [{"put": {"key": "k", "value": ""}}]}, "otherwise[1].key", "else[1].key"),
        ("POST", "/api/txn", {"else": [{"put": {"key": "k", "value": ""}}]}, "compares[0].key", "if[0].key"),
    ],
)
def test_a_refusal_names_the_field_as_the_caller_wrote_it(api, backend, method, path, body, core, field):
    backend.result = Refused("unknown", core, "lease 4 has ended: grant a new one and put the key again")
    assert api.problem(method, path, body).field == field


def test_any_bytes_are_put_with_any_type_under_a_key_with_slashes_and_escapes(api, backend):
    backend.result = Transacted(True, 8, ((COLOR,),))
    assert api.ask("PUT", "/api/kv/app/c%20%C3%BC", b"\xff{", Content_Type="text/yaml").json == {"revision": 8}
    assert api.ask("PUT", "/api/kv/k?cas=7&lease=4", b"").json == {"revision": 8}
    assert backend.asked == [
        Transact((), (Put("app/c ü", b"\xff{"),)),
        Transact((Compare("k", Field.MODIFIED, Relation.EQUAL, 7),), (Put("k", b"", 4),), (Get("k"),)),
    ]


@pytest.mark.parametrize(
    ("found", "revision", "words"), [(((COLOR,),), 7, "is 7 now"), (((),), 0, "there is no key 'k'")]
)
def test_a_cas_that_met_another_revision_is_a_conflict_that_shows_it(api, backend, found, revision, words):
    backend.result = Transacted(False, 9, found)
    problem = api.problem("PUT", "/api/kv/k?cas=3", b"x")
    assert (problem.status, problem.field, problem.got, problem.revision) == (409, "cas", 3, revision)
    assert words in problem.detail
    assert problem.expected.startswith(str(revision))
    assert api.problem("DELETE", "/api/kv/k?cas=3").revision == revision


def test_deleting_says_how_many_and_nothing_to_delete_is_no_mistake(api, backend):
    backend.result = Transacted(True, 9, ((COLOR, COLOR),))
    assert api.ask("DELETE", "/api/kv/app/?prefix=true").json == {"revision": 9, "deleted": 2}
    backend.result = Transacted(True, 9, ((),))
    assert api.ask("DELETE", "/api/kv/app/color").json == {"revision": 9, "deleted": 0}
    assert backend.asked == [Transact((), (Delete("app/", True),)), Transact((), (Delete("app/color"),))]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "field", "words"),
    [
        ("PUT", "/api/kv/" + "k" * (KEY_BYTES + 1), b"", 422, "key", f"1 to {KEY_BYTES} bytes"),
        ("PUT", "/api/kv/" + "%C3%BC" * (KEY_BYTES // 2 + 1), b"", 422, "key", f"1 to {KEY_BYTES} bytes"),
        ("PUT", "/api/kv//k", b"", 422, "key", "not beginning with '/'"),
        ("PUT", "/api/kv/a%00b", b"", 422, "key", "without control characters"),
        ("PUT", "/api/kv/k", b"x" * (VALUE_BYTES + 1), 413, "value", f"at most {VALUE_BYTES} bytes"),
        ("PUT", "/api/kv/k", b"x" * ((1 << 20) + 1), 413, "body", "at most 1048576 bytes"),
        ("PUT", "/api/kv/k?cas=-1", b"", 422, "cas", "an earlier answer"),
        ("PUT", "/api/kv/k?cas=x", b"", 422, "cas", "an earlier answer"),
        ("PUT", f"/api/kv/k?cas={1 << 63}", b"", 422, "cas", "an earlier answer"),
        ("PUT", "/api/kv/k?cas=", b"", 422, "cas", "an earlier answer"),
        ("PUT", "/api/kv/k?cas=0&cas=5", b"", 422, "cas", "?cas= once"),
        ("DELETE", "/api/kv/k?cas=", None, 422, "cas", "an earlier answer"),
        ("PUT", "/api/kv/k?lease=x", b"", 422, "lease", "POST /api/leases"),
        ("PUT", "/api/kv/k?lease=", b"", 422, "lease", "POST /api/leases"),
        ("PUT", "/api/kv/k?csa=1", b"", 422, "?csa", "did you mean 'cas'?"),
        ("DELETE", "/api/kv/a/?prefix=true&cas=1", None, 422, "cas", "one key"),
        ("DELETE", "/api/kv/a/?prefix=yes", None, 422, "prefix", "true or false"),
        ("GET", "/api/kv/k?consistency=eventual", None, 422, "consistency", "bounded"),
        ("GET", "/api/kv/k?consistency=bounded", None, 422, "max_age", "'5s'"),
        ("GET", "/api/kv/k?consistency=local&max_age=5s", None, 422, "max_age", "with no other"),
        ("GET", "/api/kv/k?max_age=5", None, 422, "max_age", "'5s'"),
        ("GET", "/api/kv/k?limit=5", None, 422, "limit", "?prefix=true"),
        ("GET", "/api/kv/k?prefix=true&raw=true", None, 422, "raw", "one key"),
        ("GET", "/api/kv/k?prefix=true&limit=100000", None, 422, "limit", "1..10000"),
        ("GET", "/api/kv/k?prefix=true&limit=0", None, 422, "limit", "1..10000"),
        ("GET", "/api/kv/k?prefix=true&prefix=false", None, 422, "prefix", "?prefix= once"),
        ("GET", "/api/kv/k?index=x", None, 422, "index", "earlier answer"),
        ("GET", "/api/kv/k?wait=11m", None, 422, "wait", "at most"),
        ("POST", "/api/leases", {}, 422, "ttl", "'15s'"),
        ("POST", "/api/leases", {"ttl": "10ms"}, 422, "ttl", "1s to 168h"),
        ("POST", "/api/leases/x/keepalive", None, 422, "lease", "POST /api/leases"),
        ("GET", "/api/watch/kv", None, 422, "key", "either ?key= or ?prefix="),
        ("GET", "/api/watch/kv?key=a&after=x", None, 422, "after", "earlier answer"),
    ],
)
def test_bad_input_names_the_field_and_the_mend_and_asks_nobody(api, backend, method, path, body, status, field, words):
    problem = api.problem(method, path, body)
    assert (problem.status, problem.field) == (status, field)
    assert words in problem.expected
    assert backend.asked == []


def test_a_key_that_is_no_utf8_is_refused_and_not_mended_in_silence(api, backend):
    api.environ = {"REMOTE_ADDR": "127.0.0.1", "PATH_INFO": "/api/kv/a\xffb"}  # bytes, as WSGI hands them over
    problem = api.problem("PUT", "/api/kv/ab", b"")
    assert (problem.status, problem.field, backend.asked) == (422, "key", [])


@pytest.mark.parametrize(
    ("kind", "status"),
    [("unavailable", 503), ("leaving", 503), ("conflict", 409), ("unknown", 404), ("storage", 507), ("invalid", 400)],
)
def test_what_the_store_refuses_has_the_status_of_its_kind(api, backend, kind, status):
    backend.result = Refused(kind, "key", "2 of 5 servers answer; missing: wdc/b1, wdc/b2, lon/c1")
    result = api.ask("PUT", "/api/kv/k", b"x")
    assert (result.status_code, result.json["field"]) == (status, "key")
    assert "missing: wdc/b1" in result.json["detail"]
    if status == 503:
        assert "consistency=local" in result.json["hint"]
        assert result.headers["retry-after"] == "1"


def test_where_no_store_was_founded_nobody_is_told_to_ask_again_or_to_read_what_is_known(api, backend):
    backend.node.store = store(group="", leader=None, servers=())
    backend.result = Refused("unavailable", "store", "no group yet: waiting to hear from wdc/b1")
    for asked in (("PUT", "/api/kv/k", b"x"), ("GET", "/api/kv/k", None), ("POST", "/api/leases/4/keepalive", None)):
        result = api.ask(*asked)
        assert (result.status_code, "retry-after" in result.headers) == (503, False)
        assert result.json["detail"] == "no group yet: waiting to hear from wdc/b1"
        assert result.json["hint"] == "GET /api/store says how far the founding is; until then nothing is kept or known"


@pytest.mark.parametrize("result", [Uncertain("the leader wdc/b1 was lost"), TimeoutError()])
def test_what_nobody_knows_is_504_and_says_that_it_may_have_been_done(api, backend, result):
    backend.result = result
    problem = api.problem("PUT", "/api/kv/k", b"x")
    assert (problem.status, "may have been done" in problem.detail) == (504, True)
    assert "Read before" in problem.hint


def test_what_may_be_done_twice_is_said_so(api, backend, operator):
    backend.result = Uncertain("no majority")
    for method, path, body in (
        ("POST", "/api/store/restore", b"a backup"),
        ("POST", "/api/leases/4/keepalive", None),
        ("DELETE", "/api/leases/4", None),
    ):
        assert operator.problem(method, path, body).hint == "Try again: a second try does no harm"
    assert "may do it twice" in api.problem("POST", "/api/leases", {"ttl": "5s"}).hint


keys = st.text(min_size=1, max_size=20).filter(lambda key: key.strip("/. ") != "")


@given(keys, st.binary(max_size=100))
def test_whatever_is_put_is_got_under_the_same_key_or_refused_for_its_key(key, value):
    backend = FakeBackend()
    backend.result = TinyStore()
    api = ApiClient(backend)
    path = "/api/kv/" + quote(key, safe="/")
    result = api.ask("PUT", path, value)
    if result.status_code != 200:
        assert (result.status_code, result.json["field"]) == (422, "key")
        return
    assert list(backend.result.keys) == [key]
    assert api.ask("GET", path + "?raw=true").content == value
    answer = api.get(path)
    assert (answer["key"], answer["revision"]) == (key, result.json["revision"])
    text = answer["value"]
    assert (b64decode(text) if "encoding" in answer else text.encode()) == value


pieces = st.sampled_from(
    ["if", "then", "else", "key", "put", "get", "delete", "value", "number", "is", "field", "prefix"]
)
shapes = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 3) | st.sampled_from(["a", "=", "value", "/"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(pieces, inner, max_size=4),
    max_leaves=12,
)


@given(shapes)
def test_no_transaction_whatever_makes_the_api_fail(body):
    backend = FakeBackend()
    backend.result = TinyStore()
    assert ApiClient(backend).ask("POST", "/api/txn", body).status_code in (200, 400, 422)


# ---- who may


def test_keys_of_the_system_are_for_operators(api, operator, backend):
    backend.result = Transacted(True, 9, ((),))
    for method, path in [("PUT", "system/x"), ("DELETE", "system/x"), ("DELETE", "sys?prefix=true")]:
        assert api.problem(method, f"/api/kv/{path}", b"").status == 403
        assert operator.ask(method, f"/api/kv/{path}", b"").status_code == 200
    body = {"else": [{"delete": {"key": "s", "prefix": True}}]}
    assert api.problem("POST", "/api/txn", body).status == 403
    assert operator.ask("POST", "/api/txn", body).status_code == 200
    backend.result = read(KeyValue("system/x", b"", 1, 1, 1))
    assert api.get("/api/kv/system/x")["value"] == ""


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/api/servers/fra/a1"),
        ("DELETE", "/api/servers/fra/a1"),
        ("POST", "/api/servers/transfer"),
        ("POST", "/api/store/restore"),
    ],
)
def test_servers_and_restores_are_for_operators(api, backend, method, path):
    assert api.problem(method, path).status == 403
    assert backend.asked == []


# ---- waiting


def test_a_long_poll_watches_from_its_index_and_reads_after_the_change(api, backend):
    answers = iter([read(COLOR), KeysChanged((), 10), KeysChanged((KeyChange("app/color", 11, None),), 11), read()])
    backend.result = lambda _: next(answers)
    assert api.problem("GET", "/api/kv/app/color?index=9&wait=30s").status == 404
    assert backend.asked == [
        ReadKeys("app/color"),
        WatchKeys("app/color", False, 9),
        WatchKeys("app/color", False, 10),
        ReadKeys("app/color"),
    ]


def test_a_long_poll_whose_index_is_compacted_goes_on_while_its_key_is_as_it_was(api, backend):
    answers = iter([read(COLOR), Compacted(8), KeysChanged((KeyChange("app/color", 11, None),), 11), read(COLOR)])
    backend.result = lambda _: next(answers)
    api.get("/api/kv/app/color?index=7&wait=30s")
    assert [each.after for each in backend.asked if isinstance(each, WatchKeys)] == [7, 9]


def test_a_long_poll_of_a_prefix_whose_index_is_compacted_is_answered_at_once(api, backend):
    answers = iter([read(COLOR), Compacted(8), read(COLOR)])
    backend.result = lambda _: next(answers)
    assert api.get("/api/kv/app/?prefix=true&index=7&wait=30s")["revision"] == 9


def test_a_long_poll_ends_with_what_is_there_when_nothing_changed(api, backend):
    def answer(request):
        if isinstance(request, WatchKeys):
            raise TimeoutError
        return read(COLOR)

    backend.result = answer
    assert api.get("/api/kv/app/color?index=9&wait=1ms")["value"] == "blue"


def test_an_index_ahead_of_the_store_and_a_key_that_is_there_are_answered_at_once(api, backend):
    backend.result = read(COLOR)
    assert api.get("/api/kv/app/color?index=99&wait=30s")["revision"] == 7
    assert api.get("/api/kv/app/color?wait=30s")["revision"] == 7
    assert backend.asked == [ReadKeys("app/color")] * 2


@pytest.mark.parametrize("reading", ["consistency=local", "max_age=5s"])
def test_an_index_ahead_of_the_store_is_answered_at_once_from_what_is_known_here_too(api, backend, reading):
    answers = iter([read(COLOR, age=2 * SECOND), read(COLOR, revision=12)])
    backend.result = lambda _: next(answers)
    answer = api.ask("GET", f"/api/kv/app/color?{reading}&index=99&wait=30s")
    assert (answer.json["age"], answer.headers["X-Dislocate-Index"]) == (2.0, "9")
    assert backend.asked[1:] == [ReadKeys("app/color", limit=1)]


def test_an_index_that_only_this_agent_has_not_reached_is_waited_for(api, backend):
    change = KeysChanged((KeyChange("app/color", 13, None),), 13)
    answers = iter([read(COLOR), read(COLOR, revision=12), change, read(COLOR, revision=13)])
    backend.result = lambda _: next(answers)
    api.get("/api/kv/app/color?consistency=local&index=12&wait=30s")
    assert backend.asked[2] == WatchKeys("app/color", False, 12)


def test_while_nobody_can_say_whether_an_index_is_ahead_it_is_waited_for_as_long_as_was_asked(api, backend):
    def answer(request):
        if isinstance(request, WatchKeys):
            raise TimeoutError
        return read(COLOR) if request.consistency is Consistency.LOCAL else Refused("unavailable", "store", "cut off")

    backend.result = answer
    found = api.ask("GET", "/api/kv/app/color?consistency=local&index=99&wait=1ms")
    assert (found.status_code, found.headers["X-Dislocate-Index"]) == (200, "9")
    assert WatchKeys("app/color", False, 99) in backend.asked


def test_a_key_that_is_not_there_yet_can_be_waited_for(api, backend):
    answers = iter([read(), KeysChanged((KeyChange("k", 11, COLOR),), 11), read(COLOR)])
    backend.result = lambda _: next(answers)
    assert api.get("/api/kv/app/color?wait=30s")["value"] == "blue"
    assert backend.asked[1] == WatchKeys("app/color", False, 9)


# ---- transactions


def test_a_transaction_is_asked_as_it_is_written(api, backend):
    backend.result = Transacted(True, 12, ((COLOR,), ()))
    body = {
        "if": [
            {"key": "a", "field": "version", "is": ">", "number": 3},
            {"key": "b", "field": "value", "value": "on"},
            {"key": "c", "number": 0},
        ],
        "then": [{"put": {"key": "a", "value": "/w==", "encoding": "base64", "lease": 4}}, {"delete": {"key": "b"}}],
        "else": [{"get": {"key": "", "prefix": True}}],
    }
    answer = api.ask("POST", "/api/txn", body).json
    assert (answer["succeeded"], answer["revision"]) == (True, 12)
    assert [len(result) for result in answer["results"]] == [1, 0]
    assert backend.asked == [
        Transact(
            (
                Compare("a", Field.VERSION, Relation.GREATER, 3),
                Compare("b", Field.VALUE, Relation.EQUAL, value=b"on"),
                Compare("c", Field.MODIFIED, Relation.EQUAL, 0),
            ),
            (Put("a", b"\xff", 4), Delete("b")),
            (Get("", True),),
        )
    ]


def test_what_a_transaction_deleted_has_no_value_and_an_empty_value_is_one(api, backend):
    backend.result = TinyStore()
    api.ask("PUT", "/api/kv/full", b"\xff")
    api.ask("PUT", "/api/kv/empty", b"")
    body = {"then": [{"get": {"key": "", "prefix": True}}, {"delete": {"key": "full"}}, {"delete": {"key": "empty"}}]}
    answer = api.ask("POST", "/api/txn", body).json
    empty = {"key": "empty", "revision": 2, "created": 2, "modified": 2, "version": 1, "lease": 0}
    full = {"key": "full", "revision": 1, "created": 1, "modified": 1, "version": 1, "lease": 0}
    found = [{**empty, "value": ""}, {**full, "value": "/w==", "encoding": "base64"}]
    assert answer["results"] == [found, [full], [empty]]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "then"),
        ({"then": [{}]}, "then[0]"),
        ({"then": [{"get": {"key": "a"}, "delete": {"key": "a"}}]}, "then[0]"),
        ({"then": [{"put": {"key": "/a", "value": ""}}]}, "then[0].put.key"),
        ({"then": [{"put": {"key": "a", "value": "=", "encoding": "base64"}}]}, "then[0].put.value"),
        ({"then": [{"put": {"key": "a", "value": "x" * (VALUE_BYTES + 1)}}]}, "then[0].put.value"),
        ({"then": [{"put": {"key": "a", "value": "1"}}, {"put": {"key": "a", "value": "2"}}]}, "then[1].put.key"),
        ({"then": [{"putt": {}}]}, "then[0].putt"),
        ({"then": [{"get": {"key": "a"}}], "if": [{"key": "a"}]}, "if[0].number"),
        ({"then": [{"get": {"key": "a"}}], "if": [{"key": "a", "field": "value", "number": 1}]}, "if[0].value"),
        ({"then": [{"get": {"key": "a"}}], "if": [{"key": "a", "is": "~"}]}, "if[0].is"),
        ({"then": [{"get": {"key": "a"}}] * (TRANSACTION_OPERATIONS + 1)}, "then"),
    ],
)
def test_a_wrong_transaction_names_the_field(api, backend, body, field):
    problem = api.problem("POST", "/api/txn", body)
    assert (problem.status, problem.field) == (422, field)
    assert backend.asked == []


# ---- streams


def events(stream, count):
    """The next `count` events as (event, id, data); what has no event is ('', id, None)."""
    found = []
    while len(found) < count:
        for chunk in next(stream).decode().split("\n\n"):
            lines = dict(line.split(": ", 1) for line in chunk.split("\n") if line and not line.startswith(":"))
            if lines.keys() & {"event", "id"}:
                data = msgspec.json.decode(lines["data"]) if "data" in lines else None
                found.append((lines.get("event", ""), int(lines.get("id", 0)), data))
    return found


def test_a_stream_sends_each_change_and_the_id_with_the_last_of_a_revision(api, backend):
    changes = (KeyChange("a", 11, None), KeyChange("app/color", 11, COLOR), KeyChange("b", 12, None))
    answers = iter([KeysChanged(changes, 14)])
    backend.result = lambda _: next(answers)
    stream = open_stream(api, "/api/watch/kv?prefix=a&after=10")
    found = events(stream, 4)
    assert [(event, id_) for event, id_, _ in found] == [("delete", 0), ("put", 11), ("delete", 12), ("", 14)]
    assert found[0][2] == {"key": "a", "revision": 11}
    assert (found[1][2]["value"], found[1][2]["revision"]) == ("blue", 7)
    assert backend.asked == [WatchKeys("a", True, 10)]
    stream.close()


def test_a_stream_resumes_after_the_last_event_seen_and_says_what_is_compacted(api, backend):
    answers = iter([Compacted(20), KeysChanged((KeyChange("k", 21, None),), 21)])
    backend.result = lambda _: next(answers)
    stream = open_stream(api, "/api/watch/kv?key=k&after=3", Last_Event_ID="10")
    assert events(stream, 2) == [("compacted", 20, {"oldest": 20}), ("delete", 21, {"key": "k", "revision": 21})]
    assert [each.after for each in backend.asked] == [10, 20]
    stream.close()


def test_a_stream_from_a_revision_that_the_store_has_not_reached_is_told_so_and_begins_now(api, backend):
    answers = iter([KeysRead((), 20, 20), KeysChanged((KeyChange("k", 21, None),), 21)])
    backend.result = lambda _: next(answers)
    stream = open_stream(api, "/api/watch/kv?key=k&after=99999")
    assert events(stream, 2) == [("compacted", 20, {"oldest": 20}), ("delete", 21, {"key": "k", "revision": 21})]
    assert [type(each) for each in backend.asked] == [ReadKeys, WatchKeys]
    assert backend.asked[1].after == 20
    stream.close()


def test_a_stream_says_once_that_the_store_does_not_answer_and_once_that_it_does_again(api, backend, monkeypatch):
    monkeypatch.setattr(keystream, "LOOK_EVERY", 0.001)
    monkeypatch.setattr(keystream, "KEEP_ALIVE", 0.005)
    backend.result = NEVER
    backend.node.store = store(problem="1 of 3 servers can be heard", as_of=NOW - 12 * SECOND)
    stream = open_stream(api, "/api/watch/kv?key=k&after=3")
    ((event, _, data),) = events(stream, 1)
    assert (event, data["status"]) == ("problem", 503)
    assert data["detail"] == (
        "No change can be seen here for 12s, and none is missed when the store answers again: 1 of 3 servers can be heard"
    )
    assert next(stream) == b": still here\n\n", "it is said once"
    backend.node.store = store()
    assert events(stream, 1) == [("answering", 0, {"revision": 3})]
    assert next(stream) == b": still here\n\n"
    backend.node.store = store(role="failed", problem="this server's part has ended")
    assert next(stream) == b": still here\n\n", "its agent asks the others"
    stream.close()


def test_a_stream_without_a_revision_begins_now_and_says_where_that_is(api, backend):
    answers = iter([read(), KeysChanged((KeyChange("k", 11, None),), 11)])
    backend.result = lambda _: next(answers)
    stream = open_stream(api, "/api/watch/kv?key=k")
    assert events(stream, 2) == [("", 9, None), ("delete", 11, {"key": "k", "revision": 11})]
    stream.close()


def test_a_stream_that_cannot_go_on_says_why_and_ends_and_gives_its_place_back(backend):
    api = ApiClient(backend, stream_limit=1)
    backend.result = Refused("unavailable", "", "no server answers")
    assert api.problem("GET", "/api/watch/kv?key=k").status == 503
    stream = open_stream(api, "/api/watch/kv?key=k&after=3")
    ((event, _, data),) = events(stream, 1)
    assert (event, data["status"], data["detail"]) == ("problem", 503, "no server answers")
    with pytest.raises(StopIteration):
        next(stream)
    assert api.problem("GET", "/api/watch/kv?key=k&after=3").status == 503
    stream.close()
    stream.close()
    open_stream(api, "/api/watch/kv?key=k&after=3").close()


# ---- leases


@pytest.mark.parametrize(
    ("method", "path", "body", "request_"),
    [
        ("POST", "/api/leases", {"ttl": "15s"}, GrantLease(15 * SECOND)),
        ("POST", "/api/leases/4/keepalive", None, KeepLeaseAlive(4)),
        ("GET", "/api/leases/4", None, ReadLease(4)),
    ],
)
def test_a_lease_is_answered_with_its_seconds_and_keys(api, backend, method, path, body, request_):
    backend.result = LeaseStanding(4, 15 * SECOND, 5 * SECOND, ("k",))
    assert api.ask(method, path, body).json == {"lease": 4, "ttl": 15.0, "remaining": 5.0, "keys": ["k"]}
    assert backend.asked == [request_]


def test_a_lease_is_ended_and_one_that_has_ended_is_404(api, backend):
    assert api.ask("DELETE", "/api/leases/4").json == {"version": 7}
    assert backend.asked == [RevokeLease(4)]
    backend.result = Refused("unknown", "lease", "lease 4 has ended: take a new one")
    assert api.problem("POST", "/api/leases/4/keepalive").status == 404
    assert api.problem("PUT", "/api/kv/k?lease=4", b"").detail == "lease 4 has ended: take a new one"


# ---- servers


def test_the_store_and_its_servers_are_told_with_ages_and_units(api, backend):
    answer = api.get("/api/store")
    assert (answer["role"], answer["leader"], answer["revision"], answer["age"]) == ("follower", "wdc/b1", 41, 0.25)
    servers = api.get("/api/servers")
    assert (servers["leader"], servers["age"]) == ("wdc/b1", 0.25)
    assert servers["servers"] == answer["servers"]
    assert servers["servers"][1] == {
        "path": "wdc/b1",
        "disk": "d15c",
        "role": "voter",
        "is_leader": True,
        "matched": 44,
        "rtt_ms": 0.0,
        "disk_latency_ms": 0.3,
        "linked": False,
        "trouble": "",
    }
    for as_of in (
        0,
        NEVER_CURRENT,
        NOW - UNKNOWN_AGE,
    ):  # of neither is anything known, and the host's own age is no answer
        backend.node.store = store(as_of=as_of)
        assert (api.get("/api/store")["age"], api.get("/api/servers")["age"]) == (None, None)


@pytest.mark.parametrize(
    ("method", "path", "body", "request_"),
    [
        ("PUT", "/api/servers/fra/a1", None, AddServer("fra/a1")),
        ("DELETE", "/api/servers/fra/a1", None, RemoveServer("fra/a1")),
        ("POST", "/api/servers/transfer", {"to": "fra/a1"}, TransferLeadership("fra/a1")),
        ("POST", "/api/servers/transfer", None, TransferLeadership("")),
    ],
)
def test_servers_are_changed_by_operators(operator, backend, method, path, body, request_):
    assert operator.ask(method, path, body).json == {"version": 7}
    assert backend.asked == [request_]


def test_an_unknown_server_is_404_with_the_nearest_name(operator, backend):
    assert "did you mean 'fra/a1'?" in operator.problem("PUT", "/api/servers/fra/a2").hint
    assert "did you mean 'wdc/b1'?" in operator.problem("DELETE", "/api/servers/wdc/b2").hint
    assert operator.problem("POST", "/api/servers/transfer", {"to": "wdc/b2"}).status == 404
    assert operator.problem("POST", "/api/servers/transfer", {"to": "b1"}).status == 422
    assert backend.asked == []
    backend.node.store = store(servers=())
    backend.result = Done()
    assert operator.ask("DELETE", "/api/servers/wdc/b2").status_code == 200


def test_a_backup_is_given_as_bytes_and_taken_back(operator, backend):
    backend.result = BackedUp(b"\x00all", 41)
    backup = operator.ask("GET", "/api/store/backup")
    assert (backup.content, backup.headers["x-dislocate-revision"]) == (b"\x00all", "41")
    backend.result = Transacted(True, 42, ())
    big = backup.content + bytes(2 << 20)
    assert operator.ask("POST", "/api/store/restore?force=true", big).json == {"revision": 42}
    assert backend.asked == [BackUp(), Restore(big, True)]
    assert operator.problem("POST", "/api/store/restore").field == "body"


def test_two_greenlets_may_wait_at_once(api, backend):
    backend.result = read(COLOR)
    both = [gevent.spawn(api.get, "/api/kv/app/color") for _ in range(2)]
    assert [each.get(timeout=60)["value"] for each in both] == ["blue", "blue"]


def test_metrics_say_who_leads_and_what_is_wrong(api, backend):
    assert "dislocate_store_revision 41.0" in api.ask("GET", "/api/metrics").text
    backend.node.store = store(role="leader", problem="no majority")
    text = api.ask("GET", "/api/metrics").text
    assert "dislocate_store_leads 1.0" in text
    assert "dislocate_store_troubled 1.0" in text


def test_metrics_without_a_store_have_no_age_of_it(api, backend):
    assert "dislocate_store_age_seconds" in api.ask("GET", "/api/metrics").text
    backend.node.store = store(group="", as_of=0)
    assert "dislocate_store_age_seconds" not in api.ask("GET", "/api/metrics").text
