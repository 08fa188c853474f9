"""The outbox: timers are given back in order, and silent once outdated; a link stays as long as anybody claims it; what is
larger than a message goes in fragments."""

import pytest

from dislocate.core.boundary.effects import CloseLink, SendMessage
from dislocate.core.identity import NodeId
from dislocate.core.outbox import NEVER, Outbox, Timer
from dislocate.core.rumors import Rumors
from dislocate.core.store.messages import Answered, BackupSlice
from dislocate.core.tunables import MESSAGE_BUDGET
from dislocate.core.wire import FRAGMENTS_LIMIT, Fragment, Reassembly, decode_envelope


class Note(Timer, frozen=True):
    text: str


def outbox() -> Outbox:
    return Outbox(NodeId("fra", "a1", 1), Rumors())


def test_timers_come_back_in_order_of_their_times():
    out = outbox()
    out.arm(20, Note("later"))
    out.arm(10, Note("sooner"))
    assert (out.deadline(), out.due()) == (10, None)
    out.now = 30
    assert [out.due(), out.due(), out.due()] == [Note("sooner"), Note("later"), None]


def test_an_outdated_timer_wakes_nobody_wherever_it_waits():
    out = outbox()
    first, middle, last = (out.arm(at, Note(str(at))) for at in (10, 20, 30))
    out.outdate(middle)
    assert out.deadline() == 10
    out.outdate(first)
    assert out.deadline() == 30
    out.outdate(last)
    assert out.deadline() == NEVER
    out.now = 40
    assert out.due() is None


def test_what_is_due_goes_on_past_an_outdated_timer():
    out = outbox()
    out.arm(10, Note("first"))
    out.outdate(out.arm(20, Note("outdated")))
    out.arm(30, Note("last"))
    out.now = 10
    assert out.due() == Note("first")
    assert out.deadline() == 30


# ---- links

PEER = NodeId("wdc", "b1", 3)


def closed(out):
    return [effect.peer for effect in out.effects if isinstance(effect, CloseLink)]


def test_a_link_is_closed_when_the_last_part_lets_go_of_it():
    out = outbox()
    out.open_link(PEER, "wdc-b1:2", bytes(32), owner="ring")
    out.claim_link(PEER, "store")
    out.close_link(PEER, owner="ring")
    assert closed(out) == []
    out.close_link(PEER, owner="store")
    assert closed(out) == [PEER]


def test_a_link_that_ended_is_claimed_by_nobody():
    out = outbox()
    out.claim_link(PEER, "store")
    out.link_lost(PEER)
    out.close_link(PEER, owner="ring")
    assert closed(out) == [PEER]


def test_a_stuck_link_is_closed_whoever_wants_it_and_everybody_is_to_know():
    out = outbox()
    out.claim_link(PEER, "store")
    out.reset_link(PEER)
    assert closed(out) == [PEER]
    assert out.reset == [PEER]


# ---- fragments


def large(size, number=1):
    return Answered(number, BackupSlice(number, 0, True, bytes(range(256)) * (size // 256), 1))


def fragments(out):
    """What was sent, as its receiver reads it."""
    sent, out.effects = out.effects, []
    assert all(isinstance(effect, SendMessage) and len(effect.data) <= MESSAGE_BUDGET for effect in sent)
    return [decode_envelope(effect.data, "").body for effect in sent]


def whole(reassembly, parts):
    found = [data for part in parts if (data := reassembly.add("wdc/b1", part)) is not None]
    return [decode_envelope(data, "").body for data in found]


@pytest.mark.parametrize("size", [MESSAGE_BUDGET, MESSAGE_BUDGET * 5 // 256 * 256, 1 << 20])
def test_what_is_larger_than_a_message_arrives_whole(size):
    out = outbox()
    out.send_message(PEER, large(size))
    parts = fragments(out)
    assert all(isinstance(part, Fragment) for part in parts)
    assert whole(Reassembly(), parts) == [large(size)]


def test_what_fits_goes_as_it_is():
    out = outbox()
    out.send_message(PEER, large(256))
    assert fragments(out) == [large(256)]


def test_a_lost_part_costs_one_envelope_and_not_the_next():
    out = outbox()
    out.send_message(PEER, large(200_192, 1))
    out.send_message(PEER, large(200_192, 2))
    parts = fragments(out)
    for missing in range(4):
        assert whole(Reassembly(), parts[:missing] + parts[missing + 1 :]) == [large(200_192, 2)]


def test_a_link_that_ends_between_two_parts_leaves_nothing_behind():
    out, reassembly = outbox(), Reassembly()
    out.send_message(PEER, large(200_192, 1))
    parts = fragments(out)
    assert whole(reassembly, parts[:2]) == []
    reassembly.forget("wdc/b1")
    assert not reassembly._parts
    assert whole(reassembly, parts[2:]) == []
    assert not reassembly._parts, "the end of it begins nothing"


def test_parts_without_end_are_given_up():
    reassembly = Reassembly()
    for part in range(FRAGMENTS_LIMIT + 2):
        reassembly.add("wdc/b1", Fragment(1, part, 1 << 40, b""))
    assert not reassembly._parts
