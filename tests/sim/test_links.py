"""Links behave as ZeroMQ over TCP does: handshake, order, and the three ways in which they end."""

from types import SimpleNamespace

import pytest

from dislocate.core.boundary.effects import CloseLink, OpenLink, SendMessage
from dislocate.core.boundary.inputs import LinkLost, LinkOpened, MessageReceived, SendFailed
from dislocate.core.boundary.values import Refusal
from dislocate.core.outbox import NEVER
from dislocate.core.units import MILLISECOND, SECOND
from dislocate.linkmodel import Channel
from sim.faults import do
from sim.links import HANDSHAKE_TIMEOUT, HEARTBEAT_TIMEOUT, HIGH_WATER_MARK
from sim.scenario import Fault

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
def make_world(make_world, monkeypatch):
    """Worlds whose nodes say nothing by themselves and know each other's keys."""
    worlds = []

    class Mute:
        def __init__(self, settings, *_):
            self.settings = settings

        def start(self, now):
            return []

        def handle(self, input_, now):
            return []

        def deadline(self):
            return NEVER

        def member(self, path):
            return SimpleNamespace(public_key=worlds[-1].machines[path].public_key)

    def make(*arguments):
        monkeypatch.setattr("sim.world.Node", Mute)
        worlds.append(make_world(*arguments))
        return worlds[-1]

    return make


def linked(make_world):
    world = make_world(1, ("fra", "wdc"))
    world.run(START)
    dial(world)
    world.run(START + SECOND)
    return world


def heard(turns, path="wdc/a1"):
    return [one.data for _, one in turns.of(path, MessageReceived)]


def test_a_link_opens_on_both_sides_after_two_round_trips(make_world, turns):
    linked(make_world)
    ((dialler_at, _),) = turns.of("fra/a1", LinkOpened)
    ((acceptor_at, _),) = turns.of("wdc/a1", LinkOpened)
    assert 1.9 * RTT < dialler_at - START < 2.1 * RTT
    assert 1.4 * RTT < acceptor_at - START < 1.6 * RTT


def test_two_that_dial_each_other_get_one_link(make_world, turns):
    world = make_world(1, ("fra", "wdc"))
    world.run(START)
    dial(world, "fra/a1", "wdc/a1")
    dial(world, "wdc/a1", "fra/a1")
    world.run(START + 10 * SECOND)
    assert len(turns.of("fra/a1", LinkOpened)) == len(turns.of("wdc/a1", LinkOpened)) == 1
    assert world.machines["fra/a1"].process.links["wdc/a1"] is world.machines["wdc/a1"].process.links["fra/a1"]
    assert not turns.of("fra/a1", LinkLost)


def test_a_wrong_key_opens_nothing(make_world, turns):
    world = make_world(1, ("fra", "wdc"))
    world.run(START)
    dial(world, key=b"?" * 32)
    world.run(START + HANDSHAKE_TIMEOUT + SECOND)
    assert [one.reason for _, one in turns.of("fra/a1", LinkLost)] == ["timed out"]
    assert not turns.of("wdc/a1", LinkOpened)


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
    assert lost.reason == "reset"
    assert at - START - SECOND < RTT


def test_closing_says_nothing_on_this_side(make_world, turns):
    world = linked(make_world)
    world.links.close(world.machines["fra/a1"].process, CloseLink(world.dialled))
    world.run(START + 2 * SECOND)
    assert not turns.of("fra/a1", LinkLost)
    assert [one.reason for _, one in turns.of("wdc/a1", LinkLost)] == ["closed"]


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
    assert {one.reason for _, one in turns.of("fra/a1", LinkLost)} <= {"no heartbeat", "closed"}
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
    assert [one.reason for _, one in turns.of("fra/a1", LinkLost)] == ["closed"]


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
    assert [one.reason for _, one in turns.of("fra/a1", LinkLost)] == ["reset"]


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
    for _ in range(HIGH_WATER_MARK + 1):
        say(world, b"x")
    world.run(START + SECOND)
    failed = [one.reason for _, one in turns.of("fra/a1", SendFailed, START)]
    assert failed == [Refusal.GONE, Refusal.BACKPRESSURE]


def test_a_restarted_peer_replaces_its_old_link(make_world, turns):
    world = linked(make_world)
    do(world, fault("vanish", "wdc/a1"))
    world.run(START + 3 * SECOND)
    do(world, fault("return", "wdc/a1"))
    world.run(START + 5 * SECOND)
    assert [one.reason for _, one in turns.of("fra/a1", LinkLost)] == ["reset"]
    dial(world)
    world.run(START + 7 * SECOND)
    assert len(turns.of("fra/a1", LinkOpened)) == 2
