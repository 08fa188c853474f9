"""Rumours: what is told how often, in what order, and when it is enough."""

import msgspec

from dislocate.core.identity import NodeId
from dislocate.core.membership.messages import Left, Suspect
from dislocate.core.rumors import Rumors, retransmit_limit
from dislocate.core.wire import Fact, encode_fact

PACKET = 1_000


def left(name: str) -> Left:
    return Left(NodeId("fra", name, 1), 1)


def spreading(*facts: Fact) -> Rumors:
    rumors = Rumors()
    for fact in facts:
        rumors.put(fact.node.name, fact)
    return rumors


def taken(rumors: Rumors, budget: int = PACKET, members: int = 5) -> list[str]:
    return [msgspec.msgpack.decode(raw)[1][1] for raw in rumors.take(budget, members)]


def test_the_least_told_go_first_and_the_newest_first_among_equals():
    rumors = spreading(left("a1"), left("a2"))
    room = len(encode_fact(left("a1")))
    assert taken(rumors, room) == ["a2"]
    assert taken(rumors, room) == ["a1"]
    rumors.put("a3", left("a3"))
    assert taken(rumors) == ["a3", "a1", "a2"]


def test_each_is_told_as_often_as_the_limit_says_and_then_dropped():
    rumors = spreading(left("a1"))
    limit = retransmit_limit(5)
    assert [len(taken(rumors)) for _ in range(limit + 2)] == [1] * limit + [0, 0]
    assert len(rumors) == 0


def test_a_newer_fact_of_a_key_replaces_the_older_and_is_told_from_the_start():
    rumors = spreading(left("a1"), left("a2"))
    taken(rumors)
    rumors.put("a1", left("a1"))
    assert len(rumors) == 2
    assert taken(rumors) == ["a1", "a2"]


def test_a_peer_that_shows_our_digest_counts_as_told_of_what_the_ledger_lists():
    rumors = spreading(left("a1"), Suspect(NodeId("fra", "a2", 1), 1, ("fra/a3",)))
    for _ in range(retransmit_limit(5)):
        rumors.agreed()
    assert taken(rumors) == ["a2"], "a suspicion is in no ledger"
    assert len(rumors) == 1


def test_agreement_says_nothing_of_what_became_news_after_it():
    rumors = Rumors()
    for _ in range(100):
        rumors.agreed()
    rumors.put("a1", left("a1"))
    assert taken(rumors) == ["a1"]


def test_what_does_not_fit_waits_for_a_packet_with_room():
    rumors = spreading(left("a1"), left("a" * 60))
    assert taken(rumors, len(encode_fact(left("a1")))) == ["a1"]
    assert taken(rumors)[0] == "a" * 60
