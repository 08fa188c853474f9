"""Pick, flows and policies as HTTP gives them: which instance, why, where traffic goes, and what a bad policy is told."""

from collections import Counter

import gevent
import pytest
from gevent.event import Event as Flag

from dislocate.core.boundary.balance import PlaceInput, Policy, ReportUsage, Spill
from dislocate.core.boundary.requests import SetDraining
from dislocate.core.boundary.values import Status
from dislocate.core.units import HOUR, MILLISECOND, SECOND
from dislocate.edge.picks import HELD, SETTLED
from tests.support.api_client import ApiClient
from tests.support.fake_backend import NOW, FakeBackend, datacenter, instance
from tests.support.fake_backend import store as store_view
from tests.support.tiny_store import TinyStore
from tests.unit.test_http_api import frames, open_stream


@pytest.fixture
def backend():
    return FakeBackend()


@pytest.fixture
def api(backend):
    return ApiClient(backend)


def three(backend, **changes):
    """One instance in each of three data centers."""
    backend.node.datacenters["lon"] = datacenter("lon", rtt=12 * MILLISECOND)
    backend.put(
        *(
            instance(
                id=f"web-{at}", node=f"{name}/a1", datacenter=name, address=f"10.{at}.0.1", **changes.get(name, {})
            )
            for at, name in enumerate(("fra", "lon", "wdc"), 1)
        )
    )


def moves(backend, **shares):
    """Traffic goes there from now on; `SETTLED` later every pick knows."""
    backend.tell(backend.node.flows.share("shop.web", **shares))
    backend.clock += SETTLED


def picks(api, count, query=""):
    return Counter(api.get(f"/api/services/shop.web/pick{query}")["datacenter"] for _ in range(count))


# ---- pick


def test_a_pick_is_one_instance_with_its_reasons(api, backend):
    three(backend)
    picked = api.get("/api/services/shop.web/pick")
    assert (picked["service"], picked["node"], picked["address"], picked["port"]) == (
        "shop.web",
        "fra/a1",
        "10.1.0.1",
        8080,
    )
    assert "100% of the traffic from fra goes to fra" in picked["why"]


def test_an_excluded_name_that_nobody_has_is_said_and_that_of_a_place_refused(api, backend):
    three(backend)
    gone = api.get("/api/services/shop.web/pick?exclude=mars,web-1")
    assert gone["datacenter"] != "fra"
    assert gone["why"].endswith("excluded, and nobody here: mars")
    for place_ in ("lon", "fra", "fra/a1"):
        problem = api.problem("GET", f"/api/services/shop.web/pick?exclude={place_}")
        assert (problem.status, problem.field, problem.got) == (422, "exclude", place_)
        assert "'dc/node/id'" in problem.expected


def test_picks_follow_the_flows(api, backend):
    three(backend)
    moves(backend, fra=0.7, lon=0.3)
    found = picks(api, 200)
    assert (abs(found["fra"] - 140) <= 10, found["wdc"]) == (True, 0), found


def test_a_pick_knows_at_once_that_an_instance_died_and_soon_that_traffic_moved(api, backend):
    three(backend)
    assert picks(api, 5) == {"fra": 5}
    three(backend, fra={"status": Status.CRITICAL})
    assert picks(api, 5) == {"lon": 5}
    moves(backend, wdc=1.0)
    assert picks(api, 5) == {"wdc": 5}


def test_a_burst_of_picks_spreads_over_equal_instances(api, backend):
    backend.put(*(instance(id=f"web-{at}", address=f"10.0.0.{at}") for at in range(4)))
    found = Counter(api.get("/api/services/shop.web/pick")["id"] for _ in range(40))
    assert set(found.values()) <= set(range(7, 14)), found


def test_a_key_leads_to_the_same_instance_and_past_an_excluded_one(api, backend):
    backend.put(*(instance(id=f"web-{at}", address=f"10.0.0.{at}") for at in range(4)))
    first = api.get("/api/services/shop.web/pick?key=cart-7")["id"]
    backend.clock += 2 * HELD
    assert api.get("/api/services/shop.web/pick?key=cart-7")["id"] == first
    backend.clock += 2 * HELD
    other = api.get(f"/api/services/shop.web/pick?key=cart-7&exclude={first}")["id"]
    assert other != first


@pytest.mark.parametrize("named", ["fra/a1/web-1", "10.1.0.1:8080", "web-1", "web-1,nobody"])
def test_whom_a_caller_excludes_it_is_not_told(api, backend, named):
    three(backend)
    backend.tell(backend.node.flows.share("shop.web", fra=0.5, lon=0.5))
    assert picks(api, 20, f"?exclude={named}") == {"lon": 20}


def test_a_pick_from_another_data_center_is_by_its_row(api, backend):
    three(backend)
    backend.tell(backend.node.flows.share("shop.web", source="wdc", lon=1.0))
    assert picks(api, 10, "?from=wdc") == {"lon": 10}
    assert picks(api, 10, "?from=lon") == {"lon": 10}  # no row is known: there itself
    assert picks(api, 10, "?from=fra") == {"fra": 10}


def test_mistakes_of_a_pick_name_the_nearest(api, backend):
    three(backend)
    unknown = api.problem("GET", "/api/services/shop.wbe/pick")
    assert (unknown.status, "did you mean 'shop.web'?" in unknown.hint) == (404, True)
    place = api.problem("GET", "/api/services/shop.web/pick?from=wdcc")
    assert (place.status, place.field, "did you mean 'wdc'?" in place.expected) == (422, "from", True)
    assert api.problem("GET", f"/api/services/shop.web/pick?key={'x' * 2000}").field == "key"
    assert "did you mean 'exclude'?" in api.problem("GET", "/api/services/shop.web/pick?exlude=a").expected


def test_a_check_that_fails_keeps_an_instance_out_while_another_is_known(api, backend):
    three(backend, fra={"status": Status.CRITICAL}, lon={"status": Status.CRITICAL})
    assert picks(api, 10) == {"wdc": 10}


def test_where_all_are_down_the_last_known_is_named_and_says_so(api, backend):
    backend.put(instance(status=Status.CRITICAL))
    picked = api.get("/api/services/shop.web/pick")
    assert (picked["status"], picked["age"]) == ("critical", 2.0)
    assert "nobody better is known: it is critical" in picked["why"]


def test_who_is_gone_is_named_with_the_age_of_that_knowledge(api, backend):
    backend.put(instance())
    api.get("/api/services/shop.web/pick")
    backend.put()
    backend.clock += 3 * SECOND
    picked = api.get("/api/services/shop.web/pick")
    assert (picked["id"], picked["age"]) == ("web-1", 5.0)
    assert "last known good" in picked["why"]


def test_a_service_in_maintenance_or_without_instances_is_503_with_the_reason(api, backend):
    backend.put(instance(status=Status.MAINTENANCE))
    problem = api.problem("GET", "/api/services/shop.web/pick")
    assert (problem.status, "are all in maintenance" in problem.detail) == (503, True)
    backend.put(service="empty")
    assert api.problem("GET", "/api/services/empty/pick").status == 503


def test_a_policy_that_keeps_traffic_at_home_is_named_where_nobody_is_there(api, backend):
    three(backend)
    backend.tell(backend.node.flows.govern("shop.web", Policy(spill=Spill.NEVER)))
    backend.put(instance(node="wdc/a1", datacenter="wdc"))
    assert "spill = never" in api.problem("GET", "/api/services/shop.web/pick").detail


def test_a_caller_elsewhere_whose_traffic_may_not_leave_is_told_what_it_would_be_told_there(api, backend):
    three(backend)
    backend.tell(backend.node.flows.govern("shop.web", Policy(spill=Spill.NEVER)))
    backend.put(instance())
    assert picks(api, 1) == {"fra": 1}
    assert "spill = never" in api.problem("GET", "/api/services/shop.web/pick?from=wdc").detail


def test_picks_are_reported_as_load_of_the_caller_edge(api, backend):
    three(backend)
    told = Flag()
    backend.result = lambda request: told.set()
    picks(api, 5)
    backend.clock += SECOND
    assert told.wait(60)
    (report,) = [request for request in backend.asked if isinstance(request, ReportUsage)]
    assert (report.caller, [(each.service, each.offered) for each in report.usages]) == ("edge", [("shop.web", 5.0)])
    assert report.usages[0].outcomes == ()


# ---- flows


def test_flows_say_rows_inputs_parts_and_why(api, backend):
    three(backend)
    place = PlaceInput(
        datacenter="fra",
        epoch=4,
        demand=120.0,
        endpoint_capacity=100.0,
        live=1.0,
        backlog=0.0,
        capacity=100.0,
        cost=0.0,
        tier=0,
        as_of=NOW - SECOND,
    )
    backend.tell(backend.node.flows.told("shop.web", place))
    backend.tell(backend.node.flows.share("shop.web", fra=0.6, lon=0.4))
    told = api.get("/api/services/shop.web/flows")
    assert told["rows"][0]["shares"] == [{"datacenter": "fra", "share": 0.6}, {"datacenter": "lon", "share": 0.4}]
    assert (told["inputs"][0]["demand"], told["inputs"][0]["cost_ms"], told["inputs"][0]["age"]) == (120.0, 0.0, 1.0)
    assert [each["part"] for each in told["instances"]] == [0.6, 0.4, 0.0]
    assert told["explanation"] == ["a test says so"]
    assert (told["policy"]["spill"], told["policy"]["timeout"]) == ("load", "10s")


def test_who_waits_for_flows_is_answered_by_their_next_change(api, backend):
    three(backend)
    index = api.get("/api/services/shop.web/flows")["index"]
    waiting = gevent.spawn(api.get, f"/api/services/shop.web/flows?index={index}&wait=60s")
    gevent.sleep(0)
    backend.put(instance(service="other"), service="other")
    gevent.sleep(0)
    assert not waiting.ready()
    backend.tell(backend.node.flows.share("shop.web", lon=1.0))
    assert waiting.get(timeout=60)["index"] > index
    assert backend.listeners == 0


def test_flows_of_an_unknown_service_are_404_with_the_nearest(api, backend):
    three(backend)
    assert "did you mean 'shop.web'?" in api.problem("GET", "/api/services/shop.wbe/flows").hint


# ---- policies


@pytest.fixture
def store(backend):
    backend.result = TinyStore()
    return backend.result


def test_a_policy_is_set_shown_and_deleted(api, store):
    assert api.ask("PUT", "/api/policies/shop.web", {"spill": "dead", "timeout": "2s"}).json == {"revision": 1}
    assert store.keys["policy/shop.web"].value == b'{"spill":"dead","timeout":"2s"}'
    shown = api.get("/api/policies/shop.web")
    assert (shown["set"], shown["revision"], shown["policy"]["eject"]["base"]) == (["spill", "timeout"], 1, "30s")
    assert api.ask("PUT", "/api/policies/shop.web", shown["policy"]).status_code == 200  # what is shown can be set
    assert [each["name"] for each in api.get("/api/policies")["policies"]] == ["shop.web"]
    assert api.ask("DELETE", "/api/policies/shop.web").json["deleted"] == 1
    assert "defaults hold" in api.problem("GET", "/api/policies/shop.web").hint


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        ({"spil": "dead"}, "spil", "did you mean 'spill'?"),
        ({"spill": "ded"}, "spill", "did you mean 'dead'?"),
        ({"timeout": 5}, "timeout", "a duration such as '5s'"),
        ({"eject": {"bace": "1s"}}, "eject.bace", "did you mean 'base'?"),
        ({"tiers": {"wdc": "far"}}, "tiers.wdc", "a whole number"),
        ({"target_load": 7}, "target_load", ""),
    ],
)
def test_a_policy_that_cannot_be_meant_is_told_where_and_what_and_not_kept(api, store, body, field, words):
    problem = api.problem("PUT", "/api/policies/shop.web", body)
    assert (problem.status, problem.field, words in problem.expected) == (422, field, True), problem
    assert store.keys == {}


def test_a_policy_is_set_only_at_the_revision_that_was_read(api, store):
    api.ask("PUT", "/api/policies/shop.web?cas=0", {})
    conflict = api.problem("PUT", "/api/policies/shop.web?cas=0", {})
    assert (conflict.status, conflict.revision) == (409, 1)


def test_a_policy_is_of_a_name_that_a_service_can_have(api, store):
    assert api.problem("PUT", "/api/policies/Shop", {}).field == "name"


def test_a_policy_set_by_hand_that_cannot_be_read_is_listed_with_its_problem(api, store):
    api.ask("PUT", "/api/kv/policy/shop.web", b'{"spil": 1}', Content_Type="application/octet-stream")
    (shown,) = api.get("/api/policies")["policies"]
    assert "did you mean 'spill'?" in shown["problem"]


# ---- drains, where there is no store: with one they are in test_http_drains


@pytest.fixture
def alone(backend):
    backend.node.store = store_view(group="", servers=())


def place(name, demand, capacity, **changes):
    fields = {
        "datacenter": name,
        "epoch": 4,
        "demand": demand,
        "endpoint_capacity": capacity,
        "live": 1.0,
        "backlog": 0.0,
        "capacity": capacity,
        "cost": 0.0,
        "tier": 0,
        "as_of": NOW,
    }
    return PlaceInput(**{**fields, **changes})


@pytest.mark.usefixtures("alone")
def test_a_data_center_whose_traffic_fits_elsewhere_is_drained_for_an_hour(api, backend):
    three(backend)
    backend.node.flows.told("shop.web", place("fra", 50.0, 100.0), place("lon", 10.0, 100.0), place("wdc", 0.0, 100.0))
    fits = api.get("/api/drains/fra")
    assert (fits["fits"], fits["services"][0]["demand"], fits["services"][0]["capacity"]) == (True, 60.0, 200.0)
    assert api.ask("PUT", "/api/drains/fra", {"reason": "power"}).json == {"version": 7}
    assert backend.asked == [SetDraining("fra", "datacenter", True, HOUR, "power")]


@pytest.mark.usefixtures("alone")
def test_a_data_center_whose_traffic_would_not_fit_is_refused_with_the_numbers_unless_forced(api, backend):
    three(backend)
    backend.node.flows.told("shop.web", place("fra", 150.0, 200.0), place("lon", 60.0, 100.0), place("wdc", 0.0, 100.0))
    problem = api.problem("PUT", "/api/drains/fra")
    assert (problem.status, problem.field, backend.asked) == (409, "datacenter", [])
    assert "shop.web: 210 requests a second are offered" in problem.detail
    assert "lon and wdc carry 190 requests a second" in problem.detail
    assert "force" in problem.hint
    assert api.ask("PUT", "/api/drains/fra", {"force": True}).status_code == 200
    assert backend.asked == [SetDraining("fra", "datacenter", True, HOUR)]


@pytest.mark.usefixtures("alone")
def test_the_only_home_of_a_service_is_not_drained_by_the_way(api, backend):
    backend.put(instance())
    backend.node.flows.told("shop.web", place("fra", 0.0, 100.0), place("wdc", 0.0, 0.0, live=0.0))
    assert "nobody of shop.web lives anywhere else" in api.problem("PUT", "/api/drains/fra").detail
    assert api.get("/api/drains/wdc")["services"] == []


@pytest.mark.usefixtures("alone")
def test_a_drain_of_a_data_center_has_an_end_within_three_days(api, backend):
    problem = api.problem("PUT", "/api/drains/fra", {"expires": "73h"})
    assert (problem.field, "72h" in problem.expected, backend.asked) == ("expires", True, [])
    assert api.ask("PUT", "/api/drains/fra", {"expires": "72h"}).status_code == 200


# ---- watching


def test_a_watch_tells_of_flows_only_who_asked_for_them(api, backend):
    three(backend)
    plain, both = (open_stream(api, f"/api/watch?service=shop.web{more}") for more in ("", "&flows=true"))
    assert [len(frames(stream, 1)) for stream in (plain, both)] == [1, 1]
    backend.tell(backend.node.flows.share("shop.web", lon=1.0))
    backend.tell(backend.node.flows.share("other", lon=1.0))
    assert [data["service"] for _, _, data in frames(both, 1)] == ["shop.web"]
    three(backend)
    assert [data["service"] for _, _, data in frames(plain, 1)] == ["shop.web"]  # the next that it hears of
    plain.close()
    both.close()
    assert backend.listeners == 0
