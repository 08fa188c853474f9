"""Two views that differ are made equal, and then nobody speaks."""

import pytest

from dislocate.core.catalog.messages import LedgerDigest, LedgerInventory
from dislocate.core.tunables import DATAGRAM_BUDGET, MESSAGE_BUDGET
from tests.support.tiny_repair import Talk, View, alive, dead

EVERYBODY = [alive(f"fra/a{i}") for i in range(40)]


def settle(talk, one, other, rounds=20):
    """Seconds of comparing until both are equal."""
    for at in range(1, rounds + 1):
        talk.compare(one, other, at)
        if one.ledger.total == other.ledger.total:
            return at
    raise AssertionError(f"still different after {rounds} s")


@pytest.mark.parametrize("on_links", [False, True])
@pytest.mark.parametrize("one_begins", [False, True])
def test_each_learns_what_only_the_other_knew(on_links, one_begins):
    one, other = View("one", *EVERYBODY[:30]), View("other", *EVERYBODY[10:])
    first, second = (one, other) if one_begins else (other, one)
    assert settle(Talk(one, other, on_links=on_links), first, second) <= 2
    assert one.living() == other.living()
    assert len(one.living()) == 40


def test_equal_views_are_silent():
    one, other = View("one", *EVERYBODY), View("other", *EVERYBODY)
    assert Talk(one, other).compare(one, other, 1) == 0


def test_after_a_repair_nobody_speaks():
    one, other = View("one", *EVERYBODY), View("other")
    talk = Talk(one, other)
    settle(talk, other, one)
    assert talk.compare(one, other, 100) == talk.compare(other, one, 101) == 0


def test_the_newer_of_two_records_wins_on_both_sides():
    one = View("one", *EVERYBODY, alive("fra/a3", 5))
    other = View("other", *EVERYBODY, alive("fra/a7", 9))
    settle(Talk(one, other), one, other)
    for view in (one, other):
        assert view.known["fra/a3"].record.incarnation == 5
        assert view.known["fra/a7"].record.incarnation == 9


@pytest.mark.parametrize("one_begins", [False, True])
def test_who_still_lists_a_dead_member_is_told(one_begins):
    one, other = View("one", *EVERYBODY, dead("fra/a3")), View("other", *EVERYBODY)
    settle(Talk(one, other), *((one, other) if one_begins else (other, one)))
    assert "fra/a3" not in other.living()
    assert len(one.living()) == 39


def test_one_difference_costs_a_handful_of_packets():
    many = [alive(f"fra/a{i}") for i in range(1_000)]
    one, other = View("one", *many), View("other", *many, alive("fra/a500", 2))
    talk = Talk(one, other)
    assert talk.compare(one, other, 1) <= 6
    assert one.ledger.total == other.ledger.total
    assert talk.bytes < 4_000


@pytest.mark.parametrize("on_links", [False, True])
def test_a_joiner_learns_a_thousand_members_in_one_conversation(on_links):
    crowd = [alive(f"fra/agent-{i:04}") for i in range(1_000)]
    seed, joiner = View("seed", *crowd), View("joiner", alive("fra/joiner"))
    talk = Talk(seed, joiner, on_links=on_links)
    assert settle(talk, joiner, seed, 3) <= 2
    assert len(seed.living()) == len(joiner.living()) == 1_001
    content = 1_000 * 180
    assert talk.bytes < 2 * content
    assert talk.largest <= (MESSAGE_BUDGET if on_links else DATAGRAM_BUDGET)


def test_two_halves_of_a_thousand_become_whole_again():
    crowd = [alive(f"fra/agent-{i:04}") for i in range(1_000)]
    one, other = View("one", *crowd[:600]), View("other", *crowd[400:])
    talk = Talk(one, other)
    assert settle(talk, one, other) <= 10
    assert talk.largest <= DATAGRAM_BUDGET


def test_loss_only_delays():
    crowd = [alive(f"fra/agent-{i:04}") for i in range(300)]
    one, other = View("one", *crowd[:200]), View("other", *crowd[100:])
    assert settle(Talk(one, other, loses=5), one, other) <= 20


def test_a_bucket_that_outgrows_a_datagram_is_told_in_ranges_that_leave_nothing_out():
    crowd = [alive(f"fra/agent-{i:05}") for i in range(6_000)]
    one, other = View("one", *crowd), View("other", *crowd[1:], alive("fra/agent-00001", 2))
    missing = other.known.pop("fra/agent-04000")
    other.ledger.remove("m", "fra/agent-04000")
    talk = Talk(one, other)
    settle(talk, one, other)
    assert other.known["fra/agent-04000"] == missing
    assert "fra/agent-00000" in other.known
    assert talk.largest <= DATAGRAM_BUDGET


def test_the_longest_names_fit_a_datagram():
    crowd = [alive(f"{'d' * 63}/{'n' * 58}{i:05}") for i in range(400)]
    one, other = View("n" * 63, *crowd[:300]), View("o" * 63, *crowd[100:])
    talk = Talk(one, other)
    settle(talk, one, other)
    assert talk.largest <= DATAGRAM_BUDGET


def test_a_peer_is_asked_at_most_once_a_second():
    one, other = View("one", *EVERYBODY), View("other", *EVERYBODY[1:])
    stubborn(other)
    talk = Talk(one, other)
    assert talk.compare(one, other, 1.0) > 0
    assert talk.compare(one, other, 1.9) == 0
    assert talk.compare(one, other, 3.1) > 0


def test_a_repair_that_changes_nothing_is_tried_ever_more_rarely_until_something_changes():
    one, other = View("one", *EVERYBODY), View("other", *EVERYBODY[1:])
    stubborn(other)
    talk = Talk(one, other)
    begun = [at for at in range(1, 200) if talk.compare(one, other, at)]
    assert len(begun) <= 12
    one.accept(alive("fra/new"))
    assert talk.compare(one, other, 201) > 0


def stubborn(view):
    """A view that takes nothing in, so that a difference stays."""
    view.accept = lambda fact: None


def test_many_peers_that_differ_are_not_all_asked_at_once():
    one = View("one", *EVERYBODY)
    others = [View(f"other{i}", *EVERYBODY[1:]) for i in range(50)]
    for other in others:
        stubborn(other)
    talk = Talk(one, *others)
    assert sum(bool(talk.compare(one, other, 1 + i / 100)) for i, other in enumerate(others)) <= 2


def test_on_a_long_link_the_first_mismatch_is_news_under_way():
    one, other = View("one", *EVERYBODY), View("other", *EVERYBODY[1:])
    talk = Talk(one, other, on_links=True)
    assert talk.compare(one, other, 1) == 0
    assert talk.compare(one, other, 2) > 0


def test_a_fact_too_large_for_a_datagram_is_left_out_and_counted():
    huge = alive("fra/huge", tags=tuple("t" * 100 for _ in range(12)))
    one, other = View("one", *EVERYBODY, huge), View("other", *EVERYBODY[:20])
    talk = Talk(one, other)
    for at in (1, 3, 5):
        talk.compare(other, one, at)
    assert len(other.living()) == 40
    assert one.out.counters["repair_fact_too_large"] >= 1
    on_links = Talk(one, other, on_links=True)
    settle(on_links, one, other)
    assert "fra/huge" in other.known


@pytest.mark.parametrize(
    "body",
    [
        LedgerDigest(()),
        LedgerDigest((0,) * 65),
        LedgerInventory((-1, 64, 1 << 40), (("", 0), ("x/y", 5), ("m", 1), ("m/nobody", 9)), True, True, "z", "a"),
    ],
)
def test_nonsense_changes_nothing(body):
    view = View("one", *EVERYBODY)
    total = view.ledger.total
    handler = view.repair.on_digest if isinstance(body, LedgerDigest) else view.repair.on_inventory
    handler(View("other").node, "other", body)
    assert view.ledger.total == total
