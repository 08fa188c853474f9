"""Drains of data centers are decided one at a time, wherever they are asked for; with and without a store."""

import json
import time

import pytest

from dislocate.core.boundary.requests import Done, Refused, SetDraining
from dislocate.core.boundary.store import Put, Transact, Uncertain
from dislocate.core.units import HOUR, SECOND
from dislocate.edge.http.drain_claims import KEY
from tests.support.api_client import ApiClient
from tests.support.fake_backend import FakeBackend, datacenter, instance
from tests.support.fake_backend import store as no_store
from tests.support.tiny_store import TinyStore
from tests.unit.test_http_balancing import place

PLACES = ("fra", "tok", "wdc")


class Agent:
    """One of several agents in front of one store; what others drain has not reached it yet."""

    def __init__(self, store, meanwhile=None):
        self.backend = FakeBackend()
        self.backend.result = self._answer
        self._store, self._meanwhile = store, meanwhile
        for name in PLACES:
            self.backend.node.datacenters[name] = datacenter(name)
        self.backend.put(*(instance(node=f"{name}/a1", datacenter=name) for name in PLACES))
        self.backend.node.flows.told("shop.web", *(place(name, 185.0, 351.0) for name in PLACES))
        self.api = ApiClient(self.backend)

    def _answer(self, request):
        if isinstance(request, Transact) and self._meanwhile is not None:
            meanwhile, self._meanwhile = self._meanwhile, None
            meanwhile()
        return Done(7) if isinstance(request, SetDraining) else self._store(request)

    def drain(self, name, **body):
        return self.api.ask("PUT", f"/api/drains/{name}", body).status_code

    def drained(self):
        return [request.target for request in self.backend.asked if isinstance(request, SetDraining)]


@pytest.fixture
def store():
    return TinyStore()


def claims(store):
    return json.loads(store.keys[KEY].value)


def test_of_two_drains_that_do_not_fit_together_the_second_agent_refuses_with_the_numbers(store):
    one, other = Agent(store), Agent(store)
    assert one.drain("fra") == 200
    problem = other.api.problem("PUT", "/api/drains/wdc")
    assert (problem.status, other.drained()) == (409, [])
    assert "555 requests a second are offered, tok carries 333" in problem.detail
    assert "fra is drained too" in problem.detail
    assert "DELETE /api/drains/fra" in problem.hint


def test_of_two_that_judge_at_the_same_moment_the_second_is_judged_again(store):
    one = Agent(store)
    other = Agent(store, meanwhile=lambda: one.drain("fra"))
    assert (other.drain("wdc"), one.drained(), other.drained()) == (409, ["fra"], [])
    assert list(claims(store)) == ["fra"]


def test_two_that_fit_together_are_both_drained_and_written_down_with_their_ends(store):
    one, other = Agent(store), Agent(store)
    for agent in (one, other):
        agent.backend.node.flows.told("shop.web", *(place(name, 50.0, 351.0) for name in PLACES))
    assert (one.drain("fra"), other.drain("wdc", expires="2h")) == (200, 200)
    assert {name: round((end - time.time_ns()) / HOUR) for name, end in claims(store).items()} == {"fra": 1, "wdc": 2}


def test_a_drain_counts_until_it_is_ended_or_over_and_its_own_renewal_is_no_second_one(store):
    one, other = Agent(store), Agent(store)
    assert (one.drain("fra"), one.drain("fra", expires="2h"), other.drain("wdc")) == (200, 200, 409)
    assert one.api.ask("DELETE", "/api/drains/fra").status_code == 200
    assert (claims(store), other.drain("wdc")) == ({}, 200)
    store(_put(KEY, {"wdc": time.time_ns() - SECOND}))
    assert one.drain("fra") == 200


def test_a_forced_drain_is_not_judged_but_counts_for_the_next(store):
    one, other = Agent(store), Agent(store)
    assert (one.drain("fra"), other.drain("wdc", force=True)) == (200, 200)
    assert set(claims(store)) == {"fra", "wdc"}
    assert one.drain("tok") == 409


def test_a_drain_that_the_agent_did_not_do_counts_for_nobody(store):
    one = Agent(store)
    answer = one.backend.result
    one.backend.result = lambda request: (
        Refused("storage", "", "disk full") if isinstance(request, SetDraining) else answer(request)
    )
    assert (one.drain("fra"), claims(store)) == (503, {})


def test_without_a_majority_a_drain_is_refused_with_the_mend_but_can_be_forced_and_ended(store, caplog):
    one = Agent(store)
    store.missing = "fra/a1, wdc/a1, tok/a1"
    problem = one.api.problem("PUT", "/api/drains/fra")
    assert (problem.status, "force" in problem.hint, one.drained()) == (503, True, [])
    assert (one.drain("fra", force=True), one.drained()) == (200, ["fra"])
    assert one.api.ask("DELETE", "/api/drains/fra").status_code == 200
    assert "not written down" in caplog.text


def test_where_nobody_knows_whether_the_claim_was_written_it_is_not_drained_and_can_be_asked_again(store):
    one = Agent(store)
    answer = one.backend.result
    one.backend.result = lambda request: Uncertain("late") if isinstance(request, Transact) else answer(request)
    problem = one.api.problem("PUT", "/api/drains/fra")
    assert (problem.status, "Ask again" in problem.hint, one.drained()) == (504, True, [])


def test_claims_that_cannot_be_read_are_named_with_the_mend(store):
    store(_put(KEY, ["fra"]))
    one = Agent(store)
    problem = one.api.problem("PUT", "/api/drains/fra")
    assert (problem.status, problem.field, "kv delete system/drains" in problem.expected) == (422, KEY, True)
    assert (one.drain("fra", force=True), list(claims(store))) == (200, ["fra"])


def test_where_there_is_no_store_each_agent_judges_by_what_it_knows(store):
    one = Agent(store)
    one.backend.node.store = no_store(group="", servers=())
    assert (one.drain("fra"), one.drained(), store.keys) == (200, ["fra"], {})


@pytest.mark.parametrize("path", ["/api/drains/fra", "/api/drains/fra/a1"])
def test_a_drain_of_no_time_is_no_drain(store, path):
    problem = Agent(store).api.problem("PUT", path, {"expires": "0s"})
    assert (problem.status, problem.field, problem.got) == (422, "expires", "0s")


def _put(key, value):
    return Transact((), (Put(key, json.dumps(value).encode()),))
