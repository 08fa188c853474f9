"""What users of the HTTP API notice."""

import gevent
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dislocate.core.boundary.events import EntriesApplied, MemberDied
from dislocate.core.boundary.requests import (
    Deregister,
    Done,
    Forget,
    Heartbeat,
    Leave,
    Refused,
    Register,
    ReportLoad,
    SetDraining,
    SetMaintenance,
)
from dislocate.core.boundary.values import CheckSpec, InstanceSpec, Load, Status
from dislocate.core.boundary.views import HistoryEntry
from dislocate.core.catalog.validation import refused
from dislocate.core.errors import Bug, LocalError
from dislocate.core.units import MINUTE, SECOND
from dislocate.edge.http.watch import QUEUE_LIMIT
from tests.support.api_client import ApiClient
from tests.support.fake_backend import SELF, FakeBackend, datacenter, instance, store


@pytest.fixture
def backend():
    return FakeBackend()


@pytest.fixture
def api(backend):
    return ApiClient(backend)


WEB = {"service": "shop.web", "port": 8080}


# ---- reading


def test_a_service_is_answered_with_health_load_and_age(api, backend):
    backend.put(instance(), instance(id="web-2", status=Status.CRITICAL, load=None))
    assert api.get("/api/services/shop.web") == {
        "service": "shop.web",
        "index": 1,
        "instances": [
            {
                "id": "web-1",
                "node": "fra/a1",
                "datacenter": "fra",
                "address": "10.0.0.1",
                "port": 8080,
                "status": "passing",
                "tags": ["blue"],
                "meta": {"version": "7"},
                "weight": 1,
                "load": {"utilization": 0.25, "in_flight": 3, "rate": 12.5},
                "age": 2.0,
                "reachable": True,
            },
            {
                "id": "web-2",
                "node": "fra/a1",
                "datacenter": "fra",
                "address": "10.0.0.1",
                "port": 8080,
                "status": "critical",
                "tags": ["blue"],
                "meta": {"version": "7"},
                "weight": 1,
                "load": None,
                "age": 2.0,
                "reachable": True,
            },
        ],
    }


def test_knowledge_ages_between_two_answers_from_one_view(api, backend):
    backend.put(instance())
    backend.clock += 3 * SECOND // 2
    assert api.get("/api/services/shop.web")["instances"][0]["age"] == 3.5


def test_the_list_of_services_counts_instances_and_can_be_cut_to_a_prefix(api, backend):
    backend.put(instance(), instance(id="web-2", status=Status.WARNING, datacenter="wdc"))
    backend.put(service="db.orders")
    assert api.get("/api/services?prefix=shop.") == {
        "services": [{"name": "shop.web", "instances": 2, "passing": 1, "datacenters": ["fra", "wdc"]}]
    }
    assert [service["name"] for service in api.get("/api/services")["services"]] == ["db.orders", "shop.web"]


def test_an_unknown_service_is_404_with_the_nearest_name(api, backend):
    backend.put(instance())
    problem = api.problem("GET", "/api/services/shop.wbe")
    assert (problem.status, problem.field, problem.got) == (404, "name", "shop.wbe")
    assert problem.hint == "GET /api/services lists all, did you mean 'shop.web'?"


def test_members_and_data_centers_are_listed(api):
    members = api.get("/api/members")["members"]
    assert [(member["name"], member["datacenter"], member["state"], member["age"]) for member in members] == [
        ("a1", "fra", "alive", 0.5),
        ("b1", "wdc", "dead", 0.5),
    ]
    assert api.get("/api/datacenters")["datacenters"] == [
        {"name": "fra", "reachable": True, "rtt_ms": None, "measured": True, "members": 3, "age": 1.0},
        {"name": "wdc", "reachable": True, "rtt_ms": 95.0, "measured": True, "members": 3, "age": 1.0},
    ]


def test_health_is_ok_and_says_when_a_data_center_is_out_of_reach_or_the_brake_holds(api, backend):
    assert api.get("/api/health")["status"] == "ok"
    backend.node.datacenters["wdc"] = datacenter("wdc", reachable=False, brake="3 of 9 failed at once")
    health = api.get("/api/health")
    assert (health["status"], health["unreachable"]) == ("degraded", ["wdc"])
    assert health["brakes"] == [{"datacenter": "wdc", "reason": "3 of 9 failed at once"}]


@pytest.mark.parametrize("subject", ["shop.web", "fra/a1", "fra/a1/web-1"])
def test_history_is_told_of_services_nodes_and_instances(api, backend, subject):
    entry = HistoryEntry(subject=subject, at=1_700_000_000 * SECOND, what="died", why="refused", observers=("fra/a2",))
    backend.node.histories[subject] = (entry,)
    expected = {"at": 1_700_000_000.0, "what": "died", "why": "refused", "observers": ["fra/a2"]}
    assert api.get(f"/api/history/{subject}") == {"events": [expected]}


def test_a_known_node_without_history_has_an_empty_one_and_an_unknown_name_has_none(api):
    assert api.get("/api/history/fra/a1") == {"events": []}
    assert api.problem("GET", "/api/history/fra/zz").status == 404


def test_the_first_page_lists_all_urls(api):
    text = api.ask("GET", "/").text
    assert "/api/services/{name}" in text
    assert "/api/instances/{id}/heartbeat" in text


def test_metrics_carry_the_core_s_counters_and_the_edge_s_own(api, backend):
    backend.put(instance())
    api.get("/api/services")
    text = api.ask("GET", "/api/metrics").text
    assert 'dislocate_core_total{what="acks"} 7.0' in text
    assert 'dislocate_members{state="dead"} 1.0' in text
    assert 'dislocate_instances{service="shop.web",status="passing"} 1.0' in text
    assert 'dislocate_http_requests_total{method="GET",route="/api/services",status="200"} 1.0' in text


# ---- waiting


def test_a_long_poll_is_answered_by_the_next_change_of_that_service(api, backend):
    index = backend.put(instance())
    poll = gevent.spawn(api.get, f"/api/services/shop.web?index={index}&wait=30s")
    gevent.sleep(0)
    backend.put(service="db.orders")
    gevent.sleep(0)
    assert not poll.ready()
    backend.put(instance(status=Status.CRITICAL))
    assert poll.get(timeout=60)["index"] == 3


def test_a_long_poll_without_a_change_gives_the_same_answer_at_its_end(api, backend):
    index = backend.put(instance())
    assert api.get(f"/api/services/shop.web?index={index}&wait=1ms")["index"] == index


def test_a_long_poll_with_an_index_that_is_not_ours_is_answered_at_once(api, backend):
    backend.put(instance())
    assert api.get("/api/services/shop.web?index=999&wait=10m")["index"] == 1
    assert api.get("/api/services/shop.web?index=0&wait=10m")["index"] == 1


def test_a_long_poll_for_a_service_not_yet_known_waits_for_it(api, backend):
    poll = gevent.spawn(api.get, "/api/services/shop.web?wait=30s")
    gevent.sleep(0)
    backend.put(instance())
    assert poll.get(timeout=60)["index"] == 1


@pytest.mark.parametrize(
    ("query", "field"),
    [("wait=5", "wait"), ("wait=11m", "wait"), ("index=x", "index"), ("index=-1", "index"), ("wiat=5s", "?wiat")],
)
def test_a_wrong_query_parameter_is_named_with_its_mend(api, backend, query, field):
    backend.put(instance())
    problem = api.problem("GET", f"/api/services/shop.web?{query}")
    assert (problem.status, problem.field) == (422, field)
    assert problem.expected


# ---- registering


def test_registering_gives_the_core_the_whole_instance(backend):
    api = ApiClient(backend)
    api.environ = {"dislocate.peer_uid": 0}
    check = {
        "http": "http://127.0.0.1:8080/up",
        "interval": "10s",
        "timeout": "1500ms",
        "statuses": [204],
        "body": "ok",
    }
    body = {**WEB, "address": "10.0.0.7", "tags": ["a"], "meta": {"v": "1"}, "weight": 3, "check": check}
    assert api.ask("PUT", "/api/instances/web-1", body).json == {"version": 7}
    spec = CheckSpec(
        http="http://127.0.0.1:8080/up", interval=10 * SECOND, timeout=3 * SECOND // 2, statuses=(204,), body="ok"
    )
    expected = InstanceSpec(
        id="web-1",
        service="shop.web",
        port=8080,
        address="10.0.0.7",
        tags=("a",),
        meta={"v": "1"},
        weight=3,
        check=spec,
    )
    assert backend.asked == [Register(expected)]


@pytest.mark.parametrize(
    ("method", "path", "body", "request_"),
    [
        ("DELETE", "/api/instances/web-1", None, Deregister("web-1")),
        ("POST", "/api/instances/web-1/heartbeat", None, Heartbeat("web-1")),
        (
            "POST",
            "/api/instances/web-1/heartbeat",
            {"status": "warning", "output": "slow"},
            Heartbeat("web-1", Status.WARNING, "slow"),
        ),
        ("POST", "/api/instances/web-1/load", {"utilization": 0.5}, ReportLoad("web-1", Load(0.5, 0, 0.0))),
        (
            "POST",
            "/api/instances/web-1/drain",
            {"expires": "30m", "reason": "disk"},
            SetDraining("web-1", "instance", True, 30 * MINUTE, "disk"),
        ),
        ("POST", "/api/instances/web-1/drain", {"draining": False}, SetDraining("web-1", "instance", False)),
        ("POST", "/api/instances/web-1/maint", {"reason": "me"}, SetMaintenance("web-1", True, "me")),
        ("POST", "/api/maint", {"enabled": False}, SetMaintenance("", False)),
        ("PUT", "/api/drains/fra", {"expires": "1h"}, SetDraining("fra", "datacenter", True, 60 * MINUTE)),
        ("DELETE", "/api/drains/fra", None, SetDraining("fra", "datacenter", False)),
        ("PUT", "/api/drains/fra/a1", None, SetDraining("fra/a1", "node", True)),
        ("DELETE", "/api/drains/fra/a1", None, SetDraining("fra/a1", "node", False)),
        ("DELETE", "/api/members/wdc/b1", None, Forget("wdc/b1")),
        ("POST", "/api/leave", None, Leave()),
    ],
)
def test_each_change_asks_the_core_for_exactly_that(api, backend, method, path, body, request_):
    backend.node.store = store(group="", servers=())  # with one, drains of data centers are written down there too
    assert api.ask(method, path, body).json == {"version": 7}
    assert backend.asked == [request_]


def test_draining_what_is_not_there_is_404_and_asks_nobody(api, backend):
    assert api.problem("PUT", "/api/drains/lon").status == 404
    assert api.problem("PUT", "/api/drains/fra/zz").status == 404
    assert api.problem("PUT", "/api/drains/FRA").status == 422
    assert backend.asked == []


@pytest.mark.parametrize(
    ("kind", "status"), [("unknown", 404), ("conflict", 409), ("invalid", 422), ("storage", 503), ("leaving", 503)]
)
def test_what_the_core_refuses_has_the_status_of_its_kind(api, backend, kind, status):
    backend.result = Refused(kind, "port", "take another")
    problem = api.problem("PUT", "/api/instances/web-1", WEB)
    assert (problem.status, problem.field, problem.detail) == (status, "port", "take another")


def test_a_disk_that_does_not_answer_is_503_and_can_be_asked_again(api, backend):
    backend.result = TimeoutError()
    result = api.ask("PUT", "/api/instances/web-1", WEB)
    assert (result.status_code, result.headers["retry-after"]) == (503, "1")


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        ({"service": "a", "prt": 1}, "prt", "did you mean 'port'?"),
        ({"port": 1}, "service", "lower-case labels"),
        ({"service": "a", "port": "80"}, "port", "a whole number, 1..65535"),
        ({"service": "a", "port": 70_000}, "port", "a whole number, 1..65535"),
        ({**WEB, "tags": ["a", 3]}, "tags[1]", "text"),
        ({**WEB, "meta": {"a": 1}}, "meta.a", "text"),
        ({**WEB, "check": {"intervall": "5s"}}, "check.intervall", "did you mean 'interval'?"),
        ({**WEB, "check": {"tcp": "a:1", "interval": 5}}, "check.interval", "a duration such as '5s'"),
        ({**WEB, "check": {"tcp": "a:1", "interval": "5"}}, "check.interval", "a duration such as '5s'"),
        ({**WEB, "check": {"ttl": "9999d"}}, "check.ttl", "at most a year"),
        ({**WEB, "check": []}, "check", "object"),
        ([], "body", "object"),
        (None, "service", "lower-case labels"),
    ],
)
def test_a_wrong_body_names_the_field_and_the_mend(api, backend, body, field, words):
    problem = api.problem("PUT", "/api/instances/web-1", body)
    assert (problem.status, problem.field) == (422, field)
    assert words in problem.expected
    assert backend.asked == []


@pytest.mark.parametrize("body", [b"{", b"port=1", b'{"service": "\xff"}', b'{"meta": ' + b'{"a":' * 100_000])
def test_what_is_no_json_is_400(api, body):
    assert api.problem("PUT", "/api/instances/web-1", body).status in (400, 422)


def test_a_body_that_is_too_large_or_of_another_type_is_refused_before_it_is_read(api):
    assert api.problem("PUT", "/api/instances/web-1", b" " * (1 << 20) + b"{}").status == 413
    assert api.problem("PUT", "/api/instances/web-1", b"a: b", Content_Type="text/yaml").status == 415


def test_curl_d_may_call_json_a_form(api):
    assert api.ask("PUT", "/api/instances/a", WEB, Content_Type="application/x-www-form-urlencoded").status_code == 200


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
fields = ["service", "port", "address", "tags", "meta", "weight", "check", "interval", "expires", "status", "rate"]
bodies = st.binary(max_size=64) | (json_values | st.dictionaries(st.sampled_from(fields), json_values)).map(
    msgspec.json.encode
)
PATHS = ("", "/heartbeat", "/load", "/drain", "/maint")


@given(bodies, st.sampled_from(PATHS))
def test_no_body_whatever_makes_the_api_fail(body, action):
    api = ApiClient(FakeBackend())
    method = "POST" if action else "PUT"
    assert api.ask(method, f"/api/instances/web-1{action}", body).status_code in (200, 400, 422)


# ---- what is not there, and what breaks


def test_an_unknown_path_and_a_wrong_method_say_what_there_is(api):
    assert "GET /" in api.problem("GET", "/api/nope").hint
    result = api.ask("PATCH", "/api/instances/web-1")
    assert result.status_code == 405
    assert {"PUT", "DELETE"} <= set(result.headers["allow"].split(", "))


def test_a_bug_is_a_500_without_its_trace_logged_and_counted(api, backend, caplog):
    backend.result = Bug("index went backwards")
    problem = api.problem("PUT", "/api/instances/web-1", WEB)
    assert (problem.status, "backwards" in problem.detail) == (500, False)
    assert "index went backwards" in caplog.text
    assert api.counters.total("http_failures") == 1


# ---- streams


def frames(stream, count):
    """The next `count` events as (event, id, data), comments and retry left out."""
    found = []
    while len(found) < count:
        for chunk in next(stream).decode().split("\n\n"):
            if not chunk.startswith(("event:", "id:")):
                continue
            lines = dict(line.split(": ", 1) for line in chunk.split("\n"))
            found.append((lines["event"], int(lines.get("id", 0)), msgspec.json.decode(lines["data"])))
    return found


def open_stream(api, path, **headers):
    """The iterator that the WSGI server would get."""
    import falcon.testing

    sent = {"Host": "localhost", **{name.replace("_", "-"): value for name, value in headers.items()}}
    path, _, query = path.partition("?")
    environ = falcon.testing.create_environ(path=path, query_string=query, headers=sent)
    environ.update(api.environ)
    answered = falcon.testing.StartResponseMock()
    stream = api.app(environ, answered)
    assert answered.status.startswith("200"), list(stream)
    assert answered.headers_dict["content-type"] == "text/event-stream"
    return stream


def test_a_watch_starts_with_how_things_are_and_goes_on_with_what_changes(api, backend):
    backend.put(instance())
    backend.put(service="db.orders")
    backend.put(service="cache")
    stream = open_stream(api, "/api/watch?service=shop.web,db.*")
    assert [(event, id_, data["service"]) for event, id_, data in frames(stream, 2)] == [
        ("service", 1, "shop.web"),
        ("service", 2, "db.orders"),
    ]
    backend.put(service="cache")
    backend.put(instance(status=Status.CRITICAL))
    ((_, id_, data),) = frames(stream, 1)
    assert (id_, data["instances"][0]["status"]) == (5, "critical")
    stream.close()
    assert backend.listeners == 0


def test_a_watch_resumes_after_the_last_event_that_its_reader_saw(api, backend):
    backend.put(instance())
    last = backend.put(service="db.orders")
    backend.put(service="cache")
    stream = open_stream(api, "/api/watch", Last_Event_ID=str(last))
    (names, (event, id_, data)) = frames(stream, 2)
    assert (event, id_, data["service"]) == ("service", 3, "cache")
    assert names == ("names", 0, {"names": ["cache", "db.orders", "shop.web"]})
    stream.close()


def test_a_watch_that_resumes_learns_what_went_away_in_between(api, backend):
    last = backend.put(instance())
    del backend.node.catalog.services["shop.web"]
    stream = open_stream(api, "/api/watch?service=shop.*", Last_Event_ID=str(last))
    assert frames(stream, 1) == [("names", 0, {"names": []})]
    stream.close()


def test_a_watch_resumed_from_another_start_of_the_agent_tells_everything(api, backend):
    backend.put(instance())
    stream = open_stream(api, "/api/watch", Last_Event_ID="999")
    assert [event for event, _, _ in frames(stream, 2)] == ["names", "service"]
    stream.close()


def test_a_slow_watcher_gets_the_newest_state_once_not_every_step(api, backend):
    backend.put(instance())
    stream = open_stream(api, "/api/watch")
    frames(stream, 1)
    for weight in range(2_000):
        backend.put(instance(weight=weight))
    ((_, id_, data),) = frames(stream, 1)
    assert (id_, data["instances"][0]["weight"]) == (2_001, 1_999)
    stream.close()


def test_a_service_that_went_away_is_told_as_one_without_instances(api, backend):
    backend.put(instance())
    stream = open_stream(api, "/api/watch")
    frames(stream, 1)
    backend.put()
    del backend.node.catalog.services["shop.web"]
    assert frames(stream, 1) == [("service", 2, {"service": "shop.web", "index": 2, "instances": []})]
    stream.close()


def test_the_event_log_tells_what_happens_and_drops_a_reader_that_falls_behind(api, backend):
    stream = open_stream(api, "/api/events")
    next(stream)
    backend.tell(EntriesApplied(44, 3, 255, 41))  # too many to be told
    backend.tell(MemberDied(SELF, True, ("fra/a2",)))
    assert frames(stream, 1) == [("MemberDied", 0, {"member": "fra/a1", "refused": True, "observers": ["fra/a2"]})]
    for _ in range(QUEUE_LIMIT + 1):
        backend.tell(MemberDied(SELF, True, ()))
    with pytest.raises(StopIteration):
        next(stream)
    stream.close()
    assert api.counters.total("streams_dropped") == 1


def test_streams_are_bounded_and_a_closed_one_makes_room(backend):
    api = ApiClient(backend, stream_limit=1)
    stream = open_stream(api, "/api/watch")
    assert api.problem("GET", "/api/watch").status == 503
    stream.close()
    stream.close()
    open_stream(api, "/api/watch").close()
    assert backend.listeners == 0


@pytest.mark.parametrize("pattern", ["*.web", "db.*.x", "a b", "ü", ",".join(["a"] * 65)])
def test_a_pattern_that_matches_nothing_ever_is_refused(api, pattern):
    assert api.problem("GET", f"/api/watch?service={pattern}").status == 422


def test_done_without_a_version_counts_as_zero(api, backend):
    backend.result = Done()
    assert api.ask("POST", "/api/leave").json == {"version": 0}


def test_what_the_core_refuses_is_a_problem_with_what_it_got_and_expected(api, backend):
    backend.result = refused(LocalError("service", got="a..b" * 100, expected="labels and dots"))
    problem = api.problem("PUT", "/api/instances/web-1", {"service": "shop.web", "port": 80})
    assert (problem.status, problem.field, problem.expected) == (422, "service", "labels and dots")
    assert len(problem.got) == 80
