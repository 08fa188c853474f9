"""What a caller notices that tells its agent what it did and asks for its routes."""

import gevent
import pytest

from dislocate.core.boundary.balance import Outcomes, Policy, ReportUsage, Share, Usage
from dislocate.core.boundary.events import EntriesApplied, ServiceChanged
from dislocate.core.boundary.requests import Refused
from dislocate.core.units import SECOND
from dislocate.edge.http.access import Access, Role
from tests.support.api_client import ApiClient
from tests.support.fake_backend import instance
from tests.support.fake_routes import RoutingBackend, route

ASK = "/api/callers/4711-1"
HAS = {"index": 17, "epoch": 5}


@pytest.fixture
def backend():
    return RoutingBackend()


@pytest.fixture
def api(backend):
    return ApiClient(backend)


def exchange(api, **body):
    result = api.ask("POST", ASK, body)
    assert result.status_code == 200, result.text
    return result.json


def held(api, backend, **body):
    """An exchange that is being held."""
    greenlet = gevent.spawn(exchange, api, routes={"shop.web": HAS}, wait="30s", **body)
    while not backend.listeners and not greenlet.ready():
        gevent.sleep(0)
    assert not greenlet.ready(), greenlet.value
    return greenlet


def test_what_a_caller_did_is_told_to_the_core(api, backend):
    outcomes = [{"node": "fra/a1", "instance": "web-1", "calls": 9, "failed": 2, "p99": 0.25}]
    usage = {"service": "shop.web", "offered": 9.0, "retries": 1.5, "outcomes": outcomes}
    assert exchange(api, usages=[usage]) == {"routes": {}, "unknown": {}}
    told = Usage("shop.web", 9.0, 1.5, (Outcomes("fra/a1", "web-1", 9, 2, 0.25),))
    assert backend.asked == [ReportUsage("4711-1", (told,))]


def test_a_caller_that_says_nothing_of_its_use_is_not_taken_to_have_stopped(api, backend):
    exchange(api, routes={})
    assert backend.asked == []
    exchange(api, usages=[])
    assert backend.asked == [ReportUsage("4711-1", ())]


def test_who_may_only_read_gets_routes_and_counts_for_nothing(backend):
    api = ApiClient(backend, Access(loopback=Role.READ))
    backend.put_route(route(instance()))
    assert list(exchange(api, routes={"shop.web": None})["routes"]) == ["shop.web"]
    problem = api.problem("POST", ASK, {"usages": []})
    assert (problem.status, "needs the role 'register'" in problem.detail) == (403, True)
    assert backend.asked == []


def test_absurd_numbers_are_refused_with_their_field(api, backend):
    backend.result = Refused("invalid", "usages[0].offered", "offered: at least 0", got=-1)
    problem = api.problem("POST", ASK, {"usages": [{"service": "shop.web", "offered": -1}]})
    assert (problem.status, problem.field) == (422, "usages[0].offered")


def test_a_caller_without_a_route_is_given_it_at_once(api, backend):
    policy = Policy(timeout=3 * SECOND, hedge=True)
    shares = (Share("fra", 0.75), Share("wdc", 0.25))
    backend.put_route(route(instance(suspected=True), policy=policy, shares=shares))
    answer = exchange(api, routes={"shop.web": None}, wait="30s")["routes"]["shop.web"]
    assert (answer["home"], answer["index"], answer["epoch"]) == ("fra", 17, 5)
    assert answer["policy"] == {"timeout": "3s", "hedge": True}
    assert answer["shares"] == [{"datacenter": "fra", "share": 0.75}, {"datacenter": "wdc", "share": 0.25}]
    (one,) = answer["instances"]
    assert (one["node"], one["id"], one["address"], one["port"]) == ("fra/a1", "web-1", "10.0.0.1", 8080)
    assert (one["status"], one["suspected"], one["age"]) == ("passing", True, 2.0)


def test_what_a_caller_has_is_not_sent_again(api, backend):
    backend.put_route(route(instance()))
    assert exchange(api, routes={"shop.web": HAS}) == {"routes": {}, "unknown": {}}


@pytest.mark.parametrize("change", [{"index": 18}, {"epoch": 6}, {"index": 3}])
def test_what_differs_is_sent_at_once_even_if_it_is_older(api, backend, change):
    backend.put_route(route(instance(), **change))
    assert list(exchange(api, routes={"shop.web": HAS}, wait="30s")["routes"]) == ["shop.web"]


def test_an_exchange_is_held_until_its_route_changes(api, backend):
    backend.put_route(route(instance()))
    greenlet = held(api, backend)
    backend.put_route(route(instance(), epoch=6))
    assert greenlet.get(timeout=60)["routes"]["shop.web"]["epoch"] == 6
    assert backend.listeners == 0


def test_a_changed_instance_ends_the_wait_too(api, backend):
    backend.put_route(route(instance()))
    greenlet = held(api, backend)
    backend.node.flows.routes["shop.web"] = route(index=18)
    backend.tell(ServiceChanged("shop.web", 18))
    assert greenlet.get(timeout=60)["routes"]["shop.web"]["instances"] == []


def test_other_services_and_other_events_wake_nobody(api, backend):
    backend.put_route(route(instance()))
    greenlet = held(api, backend)
    backend.put_route(route(service="db.orders"))
    backend.tell(EntriesApplied(1, 1, 1, 1))
    backend.tell(ServiceChanged("shop.web", 17))  # what a caller is told is the same
    gevent.idle()
    assert not greenlet.ready()
    backend.put_route(route(epoch=7))
    assert greenlet.get(timeout=60)["routes"]["shop.web"]["epoch"] == 7


def test_any_number_of_callers_wait_with_one_listener(api, backend):
    backend.put_route(route(instance()))
    greenlets = [held(api, backend) for _ in range(5)]
    assert backend.listeners == 1
    backend.put_route(route(epoch=6))
    gevent.joinall(greenlets, timeout=60, raise_error=True)
    assert backend.listeners == 0


def test_an_exchange_ends_after_its_wait(api, backend):
    backend.put_route(route(instance()))
    assert exchange(api, routes={"shop.web": HAS}, wait="10ms") == {"routes": {}, "unknown": {}}


def test_a_caller_that_hung_up_is_not_waited_for(api, backend):
    backend.put_route(route(instance()))
    api.environ["dislocate.is_gone"] = lambda: True
    assert exchange(api, routes={"shop.web": HAS}, wait="30s") == {"routes": {}, "unknown": {}}


def test_an_unknown_service_is_said_once_with_the_nearest_name(api, backend):
    backend.put(instance())
    answer = exchange(api, routes={"shop.wbe": None}, wait="30s")
    assert answer == {"routes": {}, "unknown": {"shop.wbe": "did you mean 'shop.web'?"}}
    none = {"index": 0, "epoch": 0}
    assert exchange(api, routes={"shop.wbe": none}, wait="10ms") == {"routes": {}, "unknown": {}}


def test_a_name_that_can_be_none_is_said_beside_the_routes_of_others(api, backend):
    backend.put_route(route(instance()))
    answer = exchange(api, routes={"No Such!": None, "nosuch.service": None, "shop.web": None}, wait="30s")
    assert list(answer["routes"]) == ["shop.web"]
    assert answer["unknown"].keys() == {"No Such!", "nosuch.service"}
    assert "expected lower-case labels" in answer["unknown"]["nosuch.service"]
    none = {"index": 0, "epoch": 0}
    assert exchange(api, routes={"No Such!": none}, wait="10ms") == {"routes": {}, "unknown": {}}, "it is said once"


def test_a_service_that_appears_ends_the_wait_for_it(api, backend):
    greenlet = gevent.spawn(exchange, api, routes={"shop.web": {"index": 0, "epoch": 0}}, wait="30s")
    while not backend.listeners:
        gevent.sleep(0)
    backend.put_route(route(instance()))
    assert list(greenlet.get(timeout=60)["routes"]) == ["shop.web"]


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        ({"wait": "61s"}, "wait", "at most '60s'"),
        ({"usage": []}, "usage", "usages"),
        ({"usages": [{"service": "a"}]}, "usages[0].offered", "it is missing, add it"),
        ({"routes": {"a": {"index": 1}}}, "routes.a.epoch", "whole number"),
    ],
)
def test_a_mistake_names_field_and_mend(api, body, field, words):
    problem = api.problem("POST", ASK, body)
    assert problem.field == field
    assert words in problem.detail + problem.hint
