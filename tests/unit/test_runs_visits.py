"""Visits: asking nodes directly, and what is known of each of them afterwards."""

import pytest

from dislocate.core.boundary.inputs import LinkLost, MessageReceived, SendFailed
from dislocate.core.boundary.requests import Refused
from dislocate.core.boundary.runs import Visited
from dislocate.core.boundary.values import Refusal
from dislocate.core.runs.agent.hosting import VISITS_HOSTED
from dislocate.core.runs.messages import VisitAnswered, VisitAsked, VisitEnded, VisitOutput
from dislocate.core.units import SECOND
from dislocate.core.wire import decode_envelope, encode_envelope
from tests.support.tiny_visits import TIMEOUT, TinyVisits, command, done, failed, wrote

HOME = tuple(f"fra/a{i}" for i in range(1, 5))
ABROAD = tuple(f"wdc/b{i}" for i in range(1, 6))


@pytest.fixture
def fleet():
    return TinyVisits(*HOME, *ABROAD)


def results(fleet, number=7):
    answer = fleet.answer("fra/a1", number)
    assert isinstance(answer, Visited)
    return {result.node: result for result in answer.results}


def never(_path, _task):
    return []


def test_nodes_of_two_data_centers_and_this_one_answer_in_the_order_of_the_list(fleet):
    nodes = ("wdc/b2", "fra/a1", "fra/a3", "wdc/b5")
    fleet.does = lambda path, _task: [done(path)]
    fleet.visit("fra/a1", nodes)
    fleet.run("2s")
    found = results(fleet)
    assert tuple(found) == nodes
    assert [result.outcomes[0].words for result in found.values()] == list(nodes)
    assert [result.unreachable for result in found.values()] == [""] * 4


def test_what_a_node_writes_is_told_as_it_comes_with_the_id_of_the_request(fleet):
    fleet.does = lambda _path, _task: [wrote("one"), wrote("two"), done()]
    fleet.visit("fra/a1", ("wdc/b1",), command("a"), command("b"))
    fleet.run("2s")
    told = [(event.request_id, event.task, event.outcome.output, event.is_last) for event in fleet.told("fra/a1")]
    assert told == [
        (7, 0, b"one", False),
        (7, 0, b"two", False),
        (7, 0, b"", True),
        (7, 1, b"one", False),
        (7, 1, b"two", False),
        (7, 1, b"", True),
    ]
    assert len(results(fleet)["wdc/b1"].outcomes) == 2


def test_tasks_are_done_in_order_until_one_fails(fleet):
    fleet.does = lambda _path, task: [failed() if task.resource.run == ("b",) else done()]
    fleet.visit("fra/a1", ("fra/a2",), command("a"), command("b"), command("c"))
    fleet.run("2s")
    assert [task.resource.run for _, _, task in fleet.begun] == [("a",), ("b",)]
    assert [outcome.code for outcome in results(fleet)["fra/a2"].outcomes] == [0, 1]


def test_who_is_dead_unknown_or_cut_off_is_named_and_the_others_answer(fleet):
    fleet.kill("fra/a3")
    fleet.run("5s")
    fleet.cut(list(HOME), list(ABROAD))
    fleet.run("30s")
    fleet.visit("fra/a1", ("fra/a3", "fra/a9", "wdc/b1", "fra/a2"))
    fleet.run("2s")
    found = results(fleet)
    assert "dead" in found["fra/a3"].unreachable
    assert "no node fra/a9 is known" in found["fra/a9"].unreachable
    assert "data center wdc cannot be reached" in found["wdc/b1"].unreachable
    assert found["fra/a2"].unreachable == ""


def test_who_cannot_be_dialled_is_tried_again_and_then_named(fleet):
    far = next(path for path in ABROAD if path not in fleet.hosts["fra/a1"].links)
    fleet.loses = lambda source, target: {source, target} == {"fra/a1", far}
    fleet.visit("fra/a1", (far,))
    fleet.run("3s")
    assert "no link to it can be opened" in results(fleet)[far].unreachable
    assert fleet.dialled.count(("fra/a1", far)) == 3


def test_a_node_whose_link_ends_in_the_middle_is_named_with_what_it_said_and_its_task_is_ended(fleet):
    fleet.does = lambda _path, task: [done()] if task.resource.run == ("a",) else []
    fleet.visit("fra/a1", ("wdc/b1", "fra/a2"), command("a"), command("b"))
    fleet.run("1s")
    for one, other in (("fra/a1", "wdc/b1"), ("wdc/b1", "fra/a1")):
        fleet.hosts[one].links.pop(other, None)
        fleet.give(one, LinkLost(fleet.hosts[other].node.identity, "reset"))
    fleet.run("1s")
    assert fleet.answer("fra/a1") is None, "the other one is still at it"
    assert [path for path, _ in fleet.cancelled] == ["wdc/b1"]
    fleet.run("60s")
    found = results(fleet)
    assert "link to it ended" in found["wdc/b1"].unreachable
    assert len(found["wdc/b1"].outcomes) == 1
    assert "did not answer within" in found["fra/a2"].unreachable


def test_no_more_nodes_are_visited_at_once_than_was_said(fleet):
    fleet.does = never
    fleet.visit("fra/a1", (*HOME[1:], *ABROAD), at_once=3, timeout=TIMEOUT)
    fleet.run("4s")
    assert len(fleet.begun) == 3
    fleet.run("5s")
    assert len(fleet.begun) == 6
    assert fleet.busy() == 3


def test_each_node_has_its_time_and_what_it_does_is_ended_after(fleet):
    fleet.does = never
    fleet.visit("fra/a1", ("fra/a1", "wdc/b2"), timeout=TIMEOUT)
    fleet.run("6s")
    assert all("did not answer within 5s" in result.unreachable for result in results(fleet).values())
    assert sorted(path for path, _ in fleet.cancelled) == ["fra/a1", "wdc/b2"]


def test_when_nobody_waits_any_more_everything_is_ended_everywhere(fleet):
    fleet.does = never
    fleet.visit("fra/a1", (*HOME, *ABROAD), at_once=5)
    fleet.run("1s")
    fleet.cancel("fra/a1")
    fleet.run("1s")
    assert fleet.busy() == 0
    assert len(fleet.begun) == 5
    assert fleet.answer("fra/a1") is None


def test_a_link_that_was_dialled_for_a_visit_is_closed_after_and_others_are_not(fleet):
    far = next(path for path in ABROAD if path not in fleet.hosts["fra/a1"].links)
    near = next(path for path in fleet.hosts["fra/a1"].links)
    fleet.visit("fra/a1", (far, near))
    fleet.run("2s")
    assert all(result.unreachable == "" for result in results(fleet).values())
    assert fleet.dialled == [("fra/a1", far)]
    assert fleet.closed == [("fra/a1", far)]
    assert near in fleet.hosts["fra/a1"].links


def test_a_link_that_opens_when_its_visit_is_over_already_is_closed_too(fleet):
    far = next(path for path in ABROAD if path not in fleet.hosts["fra/a1"].links)
    fleet.visit("fra/a1", (far,))
    fleet.cancel("fra/a1")
    fleet.run("2s")
    assert far not in fleet.hosts["fra/a1"].links
    assert fleet.begun == []


def test_two_visits_of_one_node_share_its_link(fleet):
    far = next(path for path in ABROAD if path not in fleet.hosts["fra/a1"].links)
    ends = {}
    fleet.does = lambda _path, task: [] if task.resource.run == ("long",) else [done()]
    fleet.visit("fra/a1", (far,), command("long"), number=1, timeout=TIMEOUT)
    fleet.run("1s")
    fleet.visit("fra/a1", (far,), number=2)
    fleet.run("1s")
    ends[2] = results(fleet, 2)[far].unreachable
    assert fleet.closed == []
    fleet.run("5s")
    assert ends[2] == ""
    assert fleet.closed == [("fra/a1", far)]


def test_a_host_serves_so_many_visits_at_once_and_says_so_to_the_next(fleet):
    fleet.does = never
    for number in range(VISITS_HOSTED + 1):
        fleet.visit("fra/a1", ("fra/a2",), number=number + 1)
    fleet.run("1s")
    assert "ask again" in results(fleet, VISITS_HOSTED + 1)["fra/a2"].unreachable
    assert len(fleet.begun) == VISITS_HOSTED


def test_what_did_not_get_through_is_no_longer_waited_for(fleet):
    fleet.does = never
    fleet.visit("fra/a1", ("fra/a2",))
    fleet.give("fra/a1", SendFailed(fleet.hosts["fra/a2"].node.identity, Refusal.BACKPRESSURE))
    fleet.run("1s")
    assert "did not get through" in results(fleet)["fra/a2"].unreachable


def test_an_answer_of_another_node_is_not_heard(fleet):
    fleet.does = never
    fleet.visit("fra/a1", ("fra/a2",))
    fleet.run("1s")
    liar = fleet.hosts["fra/a3"].node.identity
    for body in (VisitOutput(1, done()), VisitAnswered(1)):
        fleet.give("fra/a1", MessageReceived(liar, encode_envelope(liar, body)))
    assert fleet.answer("fra/a1") is None
    assert fleet.told("fra/a1") == []


@pytest.mark.parametrize(
    "more", [{"nodes": ()}, {"at_once": 0}, {"at_once": 1_000}, {"timeout": 0}], ids=lambda more: next(iter(more))
)
def test_a_request_that_cannot_be_meant_is_refused_at_once(fleet, more):
    fleet.visit("fra/a1", more.pop("nodes", ("fra/a2",)), **more)
    refused = fleet.answer("fra/a1")
    assert isinstance(refused, Refused)
    assert refused.kind == "invalid"


@pytest.mark.parametrize(
    "body",
    [VisitAsked(3, (command("a", "b"),)), VisitOutput(3, wrote("x")), VisitAnswered(3, "busy"), VisitEnded(3)],
    ids=lambda body: type(body).__name__,
)
def test_what_is_said_on_a_visit_is_heard_as_it_was_said(fleet, body):
    sender = fleet.hosts["fra/a1"].node.identity
    assert decode_envelope(encode_envelope(sender, body), "").body == body


def test_a_visit_takes_no_time_of_those_that_come_after():
    """One that is slow holds up nobody: others go on in its place."""
    fleet = TinyVisits(*HOME)
    fleet.does = lambda path, _task: [] if path == "fra/a2" else [done()]
    fleet.visit("fra/a1", HOME, at_once=2, timeout=TIMEOUT)
    before = fleet.now
    fleet.run_until(lambda: len(fleet.told("fra/a1")) == 3, "5s")
    assert fleet.now - before < SECOND
