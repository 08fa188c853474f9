"""What the core may rely on, whatever carries out its effects: the same bodies for the real world and the simulated one."""

import pytest

from dislocate.core.boundary.effects import (
    CloseLink,
    OpenLink,
    SendDatagram,
    SendMessage,
    Store,
    TryConnect,
)
from dislocate.core.boundary.inputs import (
    ConnectTried,
    DatagramReceived,
    LinkLost,
    LinkOpened,
    MessageReceived,
    SendFailed,
    Stored,
    StoreFailed,
)
from dislocate.core.boundary.values import ConnectOutcome, Refusal, StoredRecord
from dislocate.core.identity import NodeId
from dislocate.core.tunables import DATAGRAM_BUDGET, MESSAGE_BUDGET
from tests.conformance.fabric import PATIENCE, End, Fabric, expect

LARGE = bytes(100_000)  # fits into no page that is there
BURST = 50  # messages that any world takes at once


def dial(dialler: End, peer: End) -> None:
    dialler.do(OpenLink(peer.node, peer.links, peer.public_key))


def linked(fabric: Fabric) -> tuple[End, End]:
    """Two ends with an open link that the first dialled."""
    one, two = fabric.start("a1"), fabric.start("a2")
    dial(one, two)
    assert expect(fabric, one, LinkOpened) == LinkOpened(two.node)
    assert expect(fabric, two, LinkOpened) == LinkOpened(one.node)
    return one, two


def exchange(fabric: Fabric, sender: End, receiver: End, data: bytes) -> None:
    """Whatever was under way before has arrived after this."""
    sender.do(SendMessage(receiver.node, data))
    assert expect(fabric, receiver, MessageReceived) == MessageReceived(sender.node, data)


def settle(fabric: Fabric, one: End, other: End) -> None:
    """What `one` said before has reached the host of `other`."""
    one.do(TryConnect(other.links))
    assert expect(fabric, one, ConnectTried).outcome is ConnectOutcome.ACCEPTED


# ---- datagrams


def test_a_datagram_arrives_with_the_address_to_answer(fabric):
    one, two = fabric.start("a1"), fabric.start("a2")
    data = bytes(DATAGRAM_BUDGET)
    one.do(SendDatagram(two.gossip, data))
    assert expect(fabric, two, DatagramReceived) == DatagramReceived(one.gossip, data)
    two.do(SendDatagram(one.gossip, b"answer"))
    assert expect(fabric, one, DatagramReceived) == DatagramReceived(two.gossip, b"answer")


def test_a_datagram_to_a_killed_agent_is_refused(fabric):
    one, two = fabric.start("a1"), fabric.start("a2")
    fabric.kill(two)
    one.do(SendDatagram(two.gossip, b"anybody?"))
    assert expect(fabric, one, SendFailed) == SendFailed(two.gossip, Refusal.REFUSED)


def test_a_refusal_for_one_address_spoils_no_datagram_for_another(fabric):
    one, two, three = fabric.start("a1"), fabric.start("a2"), fabric.start("a3")
    fabric.kill(two)
    for number in range(10):
        one.do(SendDatagram(two.gossip, b"x"))
        one.do(SendDatagram(three.gossip, b"%d" % number))
        assert expect(fabric, three, DatagramReceived).data == b"%d" % number


# ---- connects


def test_a_connect_is_accepted_by_a_living_agent_and_refused_by_the_host_of_a_killed_one(fabric):
    one, two = fabric.start("a1"), fabric.start("a2")
    one.do(TryConnect(two.links))
    assert expect(fabric, one, ConnectTried) == ConnectTried(two.links, ConnectOutcome.ACCEPTED)
    fabric.kill(two)
    one.do(TryConnect(two.links))
    assert expect(fabric, one, ConnectTried) == ConnectTried(two.links, ConnectOutcome.REFUSED)


def test_the_host_of_a_stopped_agent_accepts_a_connect(fabric):
    one, two = fabric.start("a1"), fabric.start("a2")
    fabric.pause(two)
    one.do(TryConnect(two.links))
    assert expect(fabric, one, ConnectTried) == ConnectTried(two.links, ConnectOutcome.ACCEPTED)


def test_nobody_accepts_a_connect_to_an_address_for_datagrams(fabric):
    one, two = fabric.start("a1"), fabric.start("a2")
    one.do(TryConnect(two.gossip))
    assert expect(fabric, one, ConnectTried) == ConnectTried(two.gossip, ConnectOutcome.REFUSED)


# ---- links: opening


def test_a_link_opens_on_both_sides_and_carries_messages_both_ways(fabric):
    one, two = linked(fabric)
    exchange(fabric, one, two, b"ping")
    exchange(fabric, two, one, b"pong")
    assert one.inputs == two.inputs == []


def test_opening_an_open_link_again_is_answered_by_nothing(fabric):
    one, two = linked(fabric)
    dial(one, two)
    dial(two, one)
    exchange(fabric, one, two, b"ping")
    exchange(fabric, two, one, b"pong")
    assert one.inputs == two.inputs == []


def test_two_ends_that_dial_at_once_get_one_link(fabric):
    one, two = fabric.start("a1"), fabric.start("a2")
    dial(one, two)
    dial(two, one)
    expect(fabric, one, LinkOpened)
    expect(fabric, two, LinkOpened)
    exchange(fabric, one, two, b"ping")
    exchange(fabric, two, one, b"pong")
    assert one.inputs == two.inputs == []


def test_a_dial_to_a_killed_agent_is_lost_as_refused(fabric):
    one, two = fabric.start("a1"), fabric.start("a2")
    fabric.kill(two)
    dial(one, two)
    assert expect(fabric, one, LinkLost) == LinkLost(two.node, "refused")


def test_a_dial_to_a_stopped_agent_times_out(fabric):
    one, two = fabric.start("a1"), fabric.start("a2")
    fabric.pause(two)
    dial(one, two)
    assert expect(fabric, one, LinkLost) == LinkLost(two.node, "timed out")


def test_whose_key_is_not_known_opens_no_link(fabric):
    one, two = fabric.start("a1", is_known=False), fabric.start("a2")
    dial(one, two)
    assert expect(fabric, one, LinkLost) == LinkLost(two.node, "not authenticated")
    assert one.inputs == two.inputs == []


def test_a_link_opens_only_to_the_holder_of_the_key(fabric):
    one, two = fabric.start("a1"), fabric.start("a2")
    one.do(OpenLink(two.node, two.links, one.public_key))
    lost = expect(fabric, one, LinkLost)
    assert lost == LinkLost(two.node, "handshake failed: another key or no agent answers there")
    assert one.inputs == two.inputs == []


def test_a_dial_to_an_earlier_start_opens_no_link_to_the_later(fabric):
    one, earlier = fabric.start("a1"), fabric.start("a2")
    fabric.kill(earlier)
    later = fabric.start("a2")
    dial(one, earlier)
    assert expect(fabric, one, LinkLost) == LinkLost(earlier.node, f"the peer closed it: this is {later.node}")
    assert one.inputs == later.inputs == []


def test_a_dial_to_an_earlier_start_is_refused_while_the_later_is_linked(fabric):
    one, earlier = fabric.start("a1"), fabric.start("a2")
    fabric.kill(earlier)
    later = fabric.start("a2")
    dial(one, later)
    expect(fabric, one, LinkOpened)
    expect(fabric, later, LinkOpened)
    dial(one, earlier)
    assert expect(fabric, one, LinkLost) == LinkLost(earlier.node, "a newer start of it is linked")
    exchange(fabric, one, later, b"not disturbed")
    assert one.inputs == later.inputs == []


def test_a_dial_to_a_stopped_agent_that_wakes_up_opens_a_link(fabric):
    one, two = fabric.start("a1"), fabric.start("a2")
    fabric.pause(two)
    dial(one, two)
    settle(fabric, one, two)
    assert one.inputs == []
    fabric.resume(two)
    assert expect(fabric, one, LinkOpened) == LinkOpened(two.node)
    assert expect(fabric, two, LinkOpened) == LinkOpened(one.node)


def test_a_dial_to_a_stopped_agent_that_is_killed_is_lost_at_once(fabric):
    one, two = fabric.start("a1"), fabric.start("a2")
    fabric.pause(two)
    dial(one, two)
    settle(fabric, one, two)
    fabric.kill(two)
    lost = expect(fabric, one, LinkLost)
    assert lost.peer == two.node
    assert lost.reason != "timed out", "it was noticed, and not given up"
    assert one.inputs == []


# ---- links: messages


def test_messages_keep_their_order_in_both_directions(fabric):
    one, two = linked(fabric)
    for number in range(BURST):
        one.do(SendMessage(two.node, b"1.%d" % number))
        two.do(SendMessage(one.node, b"2.%d" % number))
    for number in range(BURST):
        assert expect(fabric, two, MessageReceived).data == b"1.%d" % number
        assert expect(fabric, one, MessageReceived).data == b"2.%d" % number
    assert one.inputs == two.inputs == []


def test_the_largest_message_passes_and_a_larger_one_is_refused(fabric):
    one, two = linked(fabric)
    exchange(fabric, one, two, bytes(MESSAGE_BUDGET))
    one.do(SendMessage(two.node, bytes(MESSAGE_BUDGET + 1)))
    assert expect(fabric, one, SendFailed) == SendFailed(two.node, Refusal.TOO_LARGE)
    exchange(fabric, one, two, b"not disturbed")
    assert one.inputs == two.inputs == []


def test_a_message_without_a_link_is_answered_by_gone(fabric):
    one, two = fabric.start("a1"), fabric.start("a2")
    one.do(SendMessage(two.node, b"x"))
    assert expect(fabric, one, SendFailed) == SendFailed(two.node, Refusal.GONE)


def test_a_stopped_peer_pushes_back_and_what_was_taken_before_arrives(fabric):
    one, two = linked(fabric)
    fabric.pause(two)
    sent = 0
    while not any(isinstance(input_, SendFailed) for input_ in one.inputs):
        assert sent < 10_000, "nothing pushes back"
        one.do(SendMessage(two.node, sent.to_bytes(4, "big") + bytes(8_000)))
        sent += 1
        if sent % 100 == 0:
            fabric.run_until(lambda: bool(one.inputs), 0.05)
    one.do(SendMessage(two.node, bytes(MESSAGE_BUDGET + 1)))  # answered after all others
    assert fabric.run_until(lambda: SendFailed(two.node, Refusal.TOO_LARGE) in one.inputs, PATIENCE)
    refused = one.inputs[:-1]
    assert set(refused) == {SendFailed(two.node, Refusal.BACKPRESSURE)}
    fabric.resume(two)
    taken = [int.from_bytes(expect(fabric, two, MessageReceived).data[:4], "big") for _ in range(sent - len(refused))]
    assert taken == sorted(set(taken))
    assert one.inputs[:-1] == refused
    assert two.inputs == []


def test_a_stopped_agent_keeps_its_links_and_reads_on(fabric):
    one, two = linked(fabric)
    fabric.pause(two)
    for number in range(BURST):
        one.do(SendMessage(two.node, b"%d" % number))
    one.do(SendDatagram(two.gossip, b"a datagram"))
    settle(fabric, one, two)
    assert one.inputs == two.inputs == []
    fabric.resume(two)
    assert [expect(fabric, two, MessageReceived).data for _ in range(BURST)] == [b"%d" % one for one in range(BURST)]
    assert expect(fabric, two, DatagramReceived) == DatagramReceived(one.gossip, b"a datagram")
    exchange(fabric, two, one, b"still linked")
    assert one.inputs == two.inputs == []


# ---- links: ending


@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_agent_loses_its_links_whichever_side_had_dialled(fabric, killed):
    ends = linked(fabric)
    victim, survivor = ends[killed], ends[1 - killed]
    fabric.kill(victim)
    assert expect(fabric, survivor, LinkLost) == LinkLost(victim.node, "disconnected")
    survivor.do(SendMessage(victim.node, b"x"))
    assert expect(fabric, survivor, SendFailed) == SendFailed(victim.node, Refusal.GONE)
    assert survivor.inputs == []


@pytest.mark.parametrize("closer", [0, 1])
def test_a_closed_link_is_lost_for_the_other_side_only_and_can_be_opened_again(fabric, closer):
    ends = linked(fabric)
    here, there = ends[closer], ends[1 - closer]
    here.do(CloseLink(there.node))
    reason = "disconnected" if closer == 0 else "the peer closed it: closed"  # an acceptor can only ask
    assert expect(fabric, there, LinkLost) == LinkLost(here.node, reason)
    here.do(SendMessage(there.node, b"x"))
    assert expect(fabric, here, SendFailed) == SendFailed(there.node, Refusal.GONE)
    dial(there, here)
    expect(fabric, here, LinkOpened)
    expect(fabric, there, LinkOpened)
    exchange(fabric, here, there, b"again")
    assert here.inputs == there.inputs == []


def test_a_restarted_agent_is_linked_by_its_new_name(fabric):
    one, earlier = linked(fabric)
    fabric.kill(earlier)
    expect(fabric, one, LinkLost)
    later = fabric.start("a2")
    dial(later, one)
    assert expect(fabric, one, LinkOpened) == LinkOpened(later.node)
    expect(fabric, later, LinkOpened)
    exchange(fabric, one, later, b"welcome back")
    one.do(SendMessage(NodeId("lab", "a2", earlier.node.boot), b"x"))
    assert expect(fabric, one, SendFailed) == SendFailed(earlier.node, Refusal.GONE)


def test_a_later_start_takes_over_from_one_that_was_not_heard_to_end(fabric):
    one, earlier = linked(fabric)
    fabric.pause(one)
    fabric.kill(earlier)
    later = fabric.start("a2")
    dial(later, one)
    settle(fabric, later, one)
    fabric.resume(one)
    assert expect(fabric, later, LinkOpened) == LinkOpened(one.node)
    exchange(fabric, later, one, b"here I am")
    lost, opened = one.inputs
    assert isinstance(lost, LinkLost)
    assert (lost.peer, opened) == (earlier.node, LinkOpened(later.node))
    exchange(fabric, one, later, b"welcome back")


def test_closing_an_earlier_start_closes_nothing_of_the_later(fabric):
    one, two = linked(fabric)
    one.do(CloseLink(NodeId("lab", "a2", two.node.boot - 1)))
    exchange(fabric, one, two, b"still linked")
    assert one.inputs == two.inputs == []


# ---- the disk


def test_stores_are_answered_in_their_order_and_survive_a_kill(fabric):
    one = fabric.start("a1")
    for seq in range(1, BURST + 1):
        one.do(Store(seq, (StoredRecord(f"t/{seq}", b"%d" % seq), StoredRecord("t/last", b"%d" % seq)), seq % 2 == 0))
    answers = [expect(fabric, one, Stored).seq for _ in range(BURST)]
    fabric.kill(one)
    assert answers == list(range(1, BURST + 1))
    assert fabric.records(one) == {f"t/{seq}": b"%d" % seq for seq in answers} | {"t/last": b"%d" % BURST}


def test_a_stored_deletion_deletes(fabric):
    one = fabric.start("a1")
    one.do(Store(1, (StoredRecord("t/a", b"1"), StoredRecord("t/b", b"2")), True))
    one.do(Store(2, (StoredRecord("t/a", None),), True))
    assert [expect(fabric, one, Stored).seq for _ in range(2)] == [1, 2]
    fabric.kill(one)
    assert fabric.records(one) == {"t/b": b"2"}


def test_a_failed_store_is_answered_and_nothing_of_it_or_after_it_is_kept(fabric):
    one = fabric.start("a1")
    one.do(Store(1, (StoredRecord("t/before", b"1"),), True))
    assert expect(fabric, one, Stored) == Stored(1)
    fabric.fail_disk(one)
    one.do(Store(2, (StoredRecord("t/refused", b"2"), StoredRecord("t/before", b"2")), True))
    assert expect(fabric, one, StoreFailed).seq == 2
    one.do(Store(3, (StoredRecord("t/after", b"3"),), False))
    assert expect(fabric, one, StoreFailed).seq == 3
    fabric.kill(one)
    assert fabric.records(one) == {"t/before": b"1"}
    again = fabric.start("a1")
    again.do(Store(1, (StoredRecord("t/again", b"4"),), True))
    assert expect(fabric, again, Stored) == Stored(1)


def test_what_was_stored_lazily_is_there_when_a_later_store_is(fabric):
    one = fabric.start("a1")
    for seq in range(1, 5):
        one.do(Store(seq, (StoredRecord(f"t/{seq}", b"lazy"), StoredRecord("t/last", b"%d" % seq)), False))
    one.do(Store(5, (StoredRecord("t/2", None), StoredRecord("t/synced", b"5")), True))
    while expect(fabric, one, Stored).seq < 5:
        pass
    fabric.kill(one)
    assert fabric.records(one) == {"t/1": b"lazy", "t/3": b"lazy", "t/4": b"lazy", "t/last": b"4", "t/synced": b"5"}


def test_a_full_disk_refuses_and_takes_stores_by_itself_when_there_is_space(fabric):
    one = fabric.start("a1")
    one.do(Store(1, (StoredRecord("t/before", b"1"),), True))
    assert expect(fabric, one, Stored) == Stored(1)
    fabric.fill_disk(one)
    one.do(Store(2, (StoredRecord("t/before", b"2"), StoredRecord("t/large", LARGE)), True))
    refused = expect(fabric, one, StoreFailed)
    assert (refused.seq, refused.reason[:4]) == (2, "full")
    one.do(Store(3, (StoredRecord("t/large", LARGE),), False))
    refused = expect(fabric, one, StoreFailed)
    assert (refused.seq, refused.reason[:4]) == (3, "full")
    fabric.free_disk(one)
    one.do(Store(4, (StoredRecord("t/large", LARGE),), True))
    assert expect(fabric, one, Stored) == Stored(4)
    fabric.kill(one)
    assert fabric.records(one) == {"t/before": b"1", "t/large": LARGE}


def test_what_was_asked_for_together_with_what_a_full_disk_refused_is_refused_too(fabric):
    one = fabric.start("a1")
    fabric.fill_disk(one)
    for seq in range(1, 8):
        one.do(Store(seq, (StoredRecord(f"t/{seq}", LARGE),), seq % 2 == 0))
    assert [expect(fabric, one, StoreFailed).seq for _ in range(7)] == list(range(1, 8))
    fabric.kill(one)
    assert fabric.records(one) == {}
