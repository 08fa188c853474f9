"""What a client makes of an agent's answer, also of one that is newer, older or wrong; and what it asks."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dislocate.client.wire import NONE_KNOWN, Held, read, request
from dislocate.core.boundary.balance import Algorithm, Eject, Outcomes, Policy, Retries, Share, Spill, Usage
from dislocate.core.boundary.values import Load, Status
from dislocate.core.errors import LocalError
from dislocate.core.units import MILLISECOND, SECOND
from dislocate.edge.http.callers import CallerBody
from dislocate.strict import decode
from tests.support.api_client import ApiClient
from tests.support.fake_backend import NOW, FakeBackend, instance, route

LATER = 77_000 * SECOND  # the client's clock has nothing to do with the agent's


def told(made):
    """What the client reads of what the agent says of `made`."""
    backend = FakeBackend()
    backend.put_route(made)
    answer = ApiClient(backend).ask("POST", "/api/callers/1-1", {"routes": {made.service: None}})
    return read(answer.content, LATER).routes[made.service]


def changed(**policy):
    """The same with another policy than an agent of today says."""
    backend = FakeBackend()
    backend.put_route(route(instance()))
    answer = msgspec.json.decode(
        ApiClient(backend).ask("POST", "/api/callers/1-1", {"routes": {"shop.web": None}}).content
    )
    answer["routes"]["shop.web"]["policy"] = policy
    return answer


def test_a_route_arrives_as_it_was_by_the_clock_of_who_gets_it():
    policy = Policy(
        spill=Spill.DEAD,
        tiers={"wdc": 1},
        price_weight=5 * MILLISECOND,
        algorithm=Algorithm.HASH,
        eject=Eject(consecutive=3, base=2 * SECOND),
        retries=Retries(attempts=2),
        timeout=1500 * MILLISECOND,
        hedge=True,
    )
    one = instance(load=Load(0.5, 2, 9.0), suspected=True, reachable=False, weight=3, status=Status.UNATTENDED)
    made = route(one, instance(id="web-2", load=None), policy=policy, shares=(Share("fra", 0.25), Share("wdc", 0.75)))
    got = told(made)
    assert (got.home, got.index, got.epoch, got.policy, got.shares) == ("fra", 17, 5, policy, made.shares)
    assert got.as_of == LATER
    for had, has in zip(made.instances, got.instances, strict=True):
        assert has == msgspec.structs.replace(had, as_of=LATER - (NOW - had.as_of))


@pytest.mark.parametrize(
    ("policy", "understood"),
    [
        ({"timeout": "3s", "novelty": 7}, Policy(timeout=3 * SECOND)),
        ({"retries": {"attempts": 2, "novelty": 7}}, Policy(retries=Retries(attempts=2))),
        ({"timeout": "3s", "spill": "sometimes"}, Policy(timeout=3 * SECOND)),
        ({"timeout": "3 parsecs", "hedge": True}, Policy(hedge=True)),
        ({"tiers": {"fra": "first"}, "eject": {"consecutive": "five"}, "throttle": 0}, Policy(throttle=0.0)),
    ],
)
def test_a_policy_of_a_newer_agent_counts_as_far_as_it_is_understood(policy, understood):
    answer = read(msgspec.json.encode(changed(**policy)), LATER)
    assert answer.routes["shop.web"].policy == understood


def test_what_a_newer_agent_says_besides_is_passed_over():
    answer = changed()
    answer["news"] = [1]
    of_route = answer["routes"]["shop.web"]
    of_route["mood"] = "good"
    of_route["instances"][0] |= {"mood": "good", "status": "resting"}
    (one,) = read(msgspec.json.encode(answer), LATER).routes["shop.web"].instances
    assert one.status is Status.STARTING, "a status unknown here is used last"


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b'{"routes": 7}', b'{"routes": {"a": {}}}', b"\xff", b"<html>"])
def test_what_is_no_answer_is_an_error_and_nothing_else(data):
    with pytest.raises(LocalError, match="expected an agent's"):
        read(data, LATER)


@given(st.binary(max_size=200))
def test_any_bytes_are_an_answer_or_a_named_error(data):
    try:
        read(data, LATER)
    except LocalError:
        return


def test_what_is_asked_is_what_the_agent_reads():
    usage = Usage("shop.web", 9.5, 1.0, (Outcomes("fra/a1", "web-1", 10, 2, 0.25),))
    held = {"shop.web": Held(3, 4), "db": None, "gone": NONE_KNOWN}
    body = decode(request([usage], held, 0.9996), CallerBody)
    assert (body.wait, body.routes["db"]) == ("1000ms", None)
    assert (body.routes["shop.web"].index, body.routes["shop.web"].epoch, body.routes["gone"].index) == (3, 4, 0)
    (told_usage,) = body.usages
    assert (told_usage.service, told_usage.offered, told_usage.retries) == ("shop.web", 9.5, 1.0)
    assert (told_usage.outcomes[0].calls, told_usage.outcomes[0].failed, told_usage.outcomes[0].p99) == (10, 2, 0.25)
    assert decode(request(None, {}, -1.0), CallerBody).usages is None
