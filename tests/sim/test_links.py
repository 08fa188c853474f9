"""Links behave as ZeroMQ over TCP does: handshake, order, and the three ways in which they end."""

import pytest

from dislocate.core.boundary.effects import CloseLink, OpenLink, SendMessage
from dislocate.core.boundary.inputs import LinkLost, LinkOpened, MessageReceived, SendFailed
from dislocate.core.boundary.values import Refusal
from dislocate.core.tunables import MESSAGE_BUDGET
from dislocate.core.units import MILLISECOND, SECOND
from dislocate.linkmodel import Channel
from sim.dials import DIAL_TIMEOUT
from sim.faults import do
from sim.links import HEARTBEAT_TIMEOUT, KERNEL_BUFFERS, SEND_QUEUE
from sim.scenario import Fault
from tests.support.listener import Listeners

START = 10 * SECOND
RTT = 89 * MILLISECOND  # fra to wdc, the table's mean of both directions, about


def fault(verb, target=(), **fields):
    return Fault(time=0, do=verb, target=target, **fields)


def dial(world, origin="fra/a1", target="wdc/a1", key=None):
    process, machine = world.machines[origin].process, world.machines[target]
    peer = machine.process.node_id if machine.process else world.dialled
    world.dialled = peer
    world.links.open(process, OpenLink(peer, machine.links, key or machine.public_key))


def say(world, data, origin="fra/a1", target="wdc/a1"):
    world.links.send(world.machines[origin].process, SendMessage(world.dialled, data))


@pytest.fixture
def make_world(make_world):
    """Worlds whose nodes say nothing by themselves and know each other's keys."""
    return lambda *arguments: make_world(*arguments, new_node=Listeners())


def linked(make_world):
    world = make_world(1, ("fra", "wdc"))
    world.run(START)
    dial(world)
    world.run(START + SECOND)
    return world


def heard(turns, path="wdc/a1"):
    return [one.data for _, one in turns.of(path, MessageReceived)]


def test_a_link_opens_on_both_sides_after_six_round_trips(make_world, turns):
    linked(make_world)
    ((dialler_at, _),) = turns.of("fra/a1", LinkOpened)
    ((acceptor_at, _),) = turns.of("wdc/a1", LinkOpened)
    assert 5.8 * RTT < dialler_at - START < 6.2 * RTT
    assert 5.3 * RTT < acceptor_at - START < 5.7 * RTT


def test_two_that_dial_each_other_get_one_link(make_world, turns):
    world = make_world(1, ("fra", "wdc"))
    world.run(START)
    dial(world, "fra/a1", "wdc/a1")
    dial(world, "wdc/a1", "fra/a1")
    world.run(START + 10 * SECOND)
    assert len(turns.of("fra/a1", LinkOpened)) == len(turns.of("wdc/a1", LinkOpened)) == 1
    assert world.machines["fra/a1"].process.links["wdc/a1"] is world.machines["wdc/a1"].process.links["fra/a1"]
    assert not turns.of("fra/a1", LinkLost)


def test_a_wrong_key_is_told_after_four_round_trips(make_world, turns):
    world = make_world(1, ("fra", "wdc"))
    world.run(START)
    dial(world, key=b"?" * 32)
    world.run(START + SECOND)
    ((at, lost),) = turns.of("fra/a1", LinkLost)
    assert lost.reason.startswith("handshake failed")
    assert 3.8 * RTT < at - START < 4.2 * RTT
    assert not turns.of("wdc/a1", LinkOpened)


def test_a_stranger_is_turned_away_after_five_round_trips(make_world, turns):
    world = make_world(1, ("fra", "wdc"))
    world.run(START)
    world.machines["wdc/a1"].process.node.forget("fra/a1")
    dial(world)
    world.run(START + SECOND)
    ((at, lost),) = turns.of("fra/a1", LinkLost)
    assert lost.reason == "not authenticated"
    assert 4.8 * RTT < at - START < 5.2 * RTT


def test_a_dial_over_a_cut_times_out(make_world, turns):
    world = make_world(1, ("fra", "wdc"))
    world.run(START)
    do(world, fault("cut", origin="fra"))
    dial(world)
    world.run(START + DIAL_TIMEOUT)
    ((at, lost),) = turns.of("fra/a1", LinkLost)
    assert (at, lost.reason) == (START + DIAL_TIMEOUT, "timed out")


def test_a_dial_is_refused_where_no_agent_runs(make_world, turns):
    world = make_world(1, ("fra", "wdc"))
    world.run(START)
    world.dialled = world.machines["wdc/a1"].process.node_id
    do(world, fault("kill", "wdc/a1"))
    dial(world)
    world.run(START + SECOND)
    ((at, lost),) = turns.of("fra/a1", LinkLost)
    assert lost.reason == "refused"
    assert 0.9 * RTT < at - START < 1.1 * RTT


def test_a_kill_is_heard_one_way_later(make_world, turns):
    world = linked(make_world)
    do(world, fault("kill", "wdc/a1"))
    world.run(START + 2 * SECOND)
    ((at, lost),) = turns.of("fra/a1", LinkLost)
    assert lost.reason == "disconnected"
    assert at - START - SECOND < RTT


def test_closing_says_nothing_on_this_side(make_world, turns):
    world = linked(make_world)
    world.links.close(world.machines["fra/a1"].process, CloseLink(world.dialled))
    world.run(START + 2 * SECOND)
    assert not turns.of("fra/a1", LinkLost)
    assert [one.reason for _, one in turns.of("wdc/a1", LinkLost)] == ["disconnected"]


def test_messages_keep_their_order_through_loss(make_world, turns):
    world = linked(make_world)
    do(world, fault("drop", loss=0.4))
    for number in range(50):
        say(world, b"%d" % number)
    world.run(START + 60 * SECOND)
    assert heard(turns) == [b"%d" % number for number in range(50)]


def test_a_short_cut_delays_and_loses_nothing(make_world, turns):
    world = linked(make_world)
    say(world, b"under way")
    do(world, fault("cut", origin="fra"))
    say(world, b"into the cut")
    world.run(START + 9 * SECOND)
    assert heard(turns) == []
    do(world, fault("heal"))
    world.run(START + 60 * SECOND)
    assert heard(turns) == [b"under way", b"into the cut"]
    assert not turns.of("fra/a1", LinkLost)


def test_a_cut_that_ends_before_the_timeout_but_after_the_last_retry_still_ends_the_link(make_world, turns):
    """TCP tried 12.6 s after the loss and will again after 25.4 s: ZeroMQ gives up before."""
    world = linked(make_world)
    do(world, fault("cut", origin="fra"))
    world.run(START + 14 * SECOND)
    do(world, fault("heal"))
    world.run(START + 20 * SECOND)
    assert {one.reason for _, one in turns.of("fra/a1", LinkLost)} <= {"no heartbeat", "disconnected"}
    assert turns.of("fra/a1", LinkLost)


def test_a_long_cut_ends_the_link_by_missing_heartbeats(make_world, turns):
    world = linked(make_world)
    do(world, fault("cut", origin="fra"))
    world.run(START + SECOND + HEARTBEAT_TIMEOUT - MILLISECOND)
    assert not turns.of("fra/a1", LinkLost)
    world.run(START + SECOND + HEARTBEAT_TIMEOUT)
    for path in ("fra/a1", "wdc/a1"):
        assert [one.reason for _, one in turns.of(path, LinkLost)] == ["no heartbeat"]


def test_a_one_way_cut_is_noticed_by_the_deaf_side_which_tells_the_other(make_world, turns):
    world = linked(make_world)
    do(world, fault("cut", origin="fra", dest="wdc", oneway=True))
    world.run(START + SECOND + HEARTBEAT_TIMEOUT + SECOND)
    assert [one.reason for _, one in turns.of("wdc/a1", LinkLost)] == ["no heartbeat"]
    assert [one.reason for _, one in turns.of("fra/a1", LinkLost)] == ["disconnected"]


def test_a_cut_of_datagrams_alone_leaves_links_open(make_world, turns):
    world = linked(make_world)
    do(world, fault("cut", origin="fra", channels=(Channel.UDP,)))
    say(world, b"passes")
    world.run(START + 2 * HEARTBEAT_TIMEOUT)
    assert heard(turns) == [b"passes"]
    assert not turns.of("fra/a1", LinkLost)


def test_a_vanished_host_costs_a_heartbeat_timeout(make_world, turns):
    world = linked(make_world)
    do(world, fault("vanish", "wdc/a1"))
    world.run(START + SECOND + HEARTBEAT_TIMEOUT + SECOND)
    ((at, lost),) = turns.of("fra/a1", LinkLost)
    assert lost.reason == "no heartbeat"
    assert at == START + SECOND + HEARTBEAT_TIMEOUT


def test_a_kill_behind_a_cut_is_a_reset_after_the_heal(make_world, turns):
    world = linked(make_world)
    do(world, fault("cut", origin="fra"))
    do(world, fault("kill", "wdc/a1"))
    world.run(START + 8 * SECOND)
    assert not turns.of("fra/a1", LinkLost)
    do(world, fault("heal"))
    world.run(START + 9 * SECOND)
    assert [one.reason for _, one in turns.of("fra/a1", LinkLost)] == ["disconnected"]


def test_a_stopped_process_keeps_its_links_for_a_while_and_reads_on_later(make_world, turns):
    world = linked(make_world)
    do(world, fault("pause", "wdc/a1"))
    say(world, b"waits")
    world.run(START + 6 * SECOND)
    assert heard(turns) == []
    do(world, fault("resume", "wdc/a1"))
    world.run(START + 60 * SECOND)
    assert heard(turns) == [b"waits"]
    assert not turns.of("fra/a1", LinkLost)


def test_a_message_without_a_link_is_gone_and_a_full_queue_pushes_back(make_world, turns):
    world = make_world(1, ("fra", "wdc"))
    world.run(START)
    world.dialled = world.machines["wdc/a1"].process.node_id
    say(world, b"nowhere")
    world.run(START)
    assert [one.reason for _, one in turns.of("fra/a1", SendFailed, START)] == [Refusal.GONE]
    dial(world)
    world.run(START + SECOND)
    do(world, fault("cut", origin="fra"))
    large = bytes(MESSAGE_BUDGET)
    for _ in range(KERNEL_BUFFERS // len(large) + SEND_QUEUE + 1):
        say(world, large)
    world.run(START + SECOND)
    failed = [one.reason for _, one in turns.of("fra/a1", SendFailed, START)]
    assert failed == [Refusal.GONE, Refusal.BACKPRESSURE]


def test_a_restarted_peer_replaces_its_old_link(make_world, turns):
    world = linked(make_world)
    do(world, fault("vanish", "wdc/a1"))
    world.run(START + 3 * SECOND)
    do(world, fault("return", "wdc/a1"))
    world.run(START + 5 * SECOND)
    assert [one.reason for _, one in turns.of("fra/a1", LinkLost)] == ["disconnected"]
    dial(world)
    world.run(START + 7 * SECOND)
    assert len(turns.of("fra/a1", LinkOpened)) == 2
