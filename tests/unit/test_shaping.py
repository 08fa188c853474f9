"""Shaping: one agent's view of its links, judged by when things arrive and what never does."""

import random
from collections.abc import Callable

import gevent
import msgspec
import pytest
from gevent import socket
from hypothesis import given, settings
from hypothesis import strategies as st

from dislocate.core.boundary.inputs import ConnectTried, DatagramReceived, SendFailed
from dislocate.core.boundary.values import ConnectOutcome, Refusal
from dislocate.core.errors import ConfigError
from dislocate.core.identity import NodeId
from dislocate.core.units import MILLISECOND
from dislocate.io import clock
from dislocate.io.connects import Connects
from dislocate.io.keyring import Keyring
from dislocate.io.shaping import HELD_LIMIT, DirectedQuality, Shaping, ShapingPlan, Steer, read_plan
from dislocate.io.steering import SteeringServer, steer
from dislocate.io.udp import DatagramSocket
from dislocate.linkmodel import Channel
from tests.support.addresses import free_address, own_host

WDC = NodeId("wdc", "a1", 1)
FRA = "127.0.1.2:49701"  # a neighbour in the own data center
FAR = "127.0.2.1:49701"


def until(claim: Callable[[], object], seconds: float = 60.0) -> None:
    with gevent.Timeout(seconds):
        while not claim():
            gevent.sleep(0.002)


def plan(*qualities: DirectedQuality) -> ShapingPlan:
    hosts = {"127.0.1.1": "fra/a1", "127.0.1.2": "fra/a2", "127.0.2.0/24": "wdc", "127.0.2.1": "wdc/a1"}
    return ShapingPlan(own="fra/a1", hosts=hosts, qualities=qualities)


def cut(origin: str, target: str, **options) -> Steer:
    return Steer(do="cut", from_=origin, to=target, **options)


def heal(origin: str, target: str, **options) -> Steer:
    return Steer(do="heal", from_=origin, to=target, **options)


@pytest.fixture
def shaping():
    made: list[Shaping] = []

    def make(*qualities: DirectedQuality) -> Shaping:
        made.append(Shaping(plan(*qualities)))
        return made[-1]

    yield make
    for each in made:
        each.stop()


# ---- places and selectors


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("127.0.1.2:1", "fra/a2"),
        ("127.0.2.1:9", "wdc/a1"),
        ("127.0.2.77:9", "wdc"),
        ("10.1.1.1:9", None),
        ("name:9", None),
        ("[::1]:9", None),
    ],
)
def test_the_most_specific_entry_says_where_a_host_is(shaping, address, place):
    assert shaping().place(address) == place


def test_a_command_about_several_places_leaves_the_links_among_them_alone(shaping):
    one = shaping()
    command = cut(("fra", "wdc"), "*")
    assert command.covers("fra/a1", "tok/a1")
    assert command.covers("tok/a1", "wdc/a1")
    assert not command.covers("fra/a1", "wdc/a1")
    assert one.steer(command) == 0  # of pairs that were never used


# ---- datagrams


def test_a_datagram_takes_as_long_as_the_link(shaping):
    one = shaping(DirectedQuality(from_="fra", to="wdc", delay=30 * MILLISECOND))
    arrived: list[int] = []
    sent = clock.monotonic()
    one.send_datagram(FAR, 100, lambda: arrived.append(clock.monotonic()))
    one.send_datagram("10.9.9.9:1", 100, lambda: arrived.append(clock.monotonic()))
    assert len(arrived) == 1, "a host that is not in the plan is not shaped"
    until(lambda: len(arrived) == 2)
    assert arrived[1] - sent >= 30 * MILLISECOND


def test_a_lossy_link_loses_its_share(shaping):
    one = shaping(DirectedQuality(from_="fra", to="wdc", loss=0.5))
    arrived: list[int] = []
    for number in range(1_000):
        one.send_datagram(FAR, 100, lambda number=number: arrived.append(number))
    one.flush(60)
    assert 400 < len(arrived) < 600


def test_nothing_crosses_a_cut_not_even_what_is_under_way(shaping):
    one = shaping(DirectedQuality(from_="*", to="*", delay=20 * MILLISECOND))
    arrived: list[str] = []
    one.send_datagram(FAR, 100, lambda: arrived.append("under way"))
    one.return_refusal(FAR, lambda: arrived.append("refusal under way"))
    one.steer(cut("fra", "wdc"))
    one.send_datagram(FAR, 100, lambda: arrived.append("sent into the cut"))
    one.return_refusal(FAR, lambda: arrived.append("refused into the cut"))
    one.send_datagram(FRA, 100, lambda: arrived.append("neighbour"))
    assert not one.hears(FAR)
    assert one.hears(FRA)
    one.flush(60)
    assert arrived == ["neighbour"]
    one.steer(heal("fra", "wdc"))
    one.send_datagram(FAR, 100, lambda: arrived.append("healed"))
    one.flush(60)
    assert arrived == ["neighbour", "healed"]


def test_a_oneway_cut_still_lets_the_other_direction_through(shaping):
    one = shaping()
    arrived: list[str] = []
    one.steer(cut("wdc", "fra", oneway=True))
    one.send_datagram(FAR, 100, lambda: arrived.append("there"))
    one.return_refusal(FAR, lambda: arrived.append("a refusal cannot come back"))
    one.flush(60)
    assert arrived == ["there"]
    assert not one.hears(FAR)


def test_a_cut_of_one_channel_leaves_the_others(shaping):
    one = shaping()
    arrived: list[str] = []
    one.steer(cut("fra", "*", channels=(Channel.UDP,)))
    one.send_datagram(FAR, 100, lambda: arrived.append("datagram"))
    one.send_message(WDC, 100, lambda: arrived.append("message"))
    one.flush(60)
    assert arrived == ["message"]


def test_what_was_steered_before_holds_for_places_met_later(shaping):
    one = shaping()
    one.steer(cut("fra", "*"))
    one.steer(heal("fra", "wdc"))
    assert one.is_cut(NodeId("ams", "a1", 1))
    assert not one.is_cut(WDC)


def test_steering_again_and_again_remembers_no_more_than_what_holds(shaping):
    one = shaping()
    for _ in range(100):
        one.steer(cut("fra", "*"))
        one.steer(heal("fra", "*"))
        one.steer(Steer(do="slow", from_="fra", to="wdc", factor=3.0))
    assert len(one._steered) == 2


def test_slow_and_loss_are_undone_by_factor_one_and_zero(shaping):
    one = shaping(DirectedQuality(from_="*", to="*", delay=10 * MILLISECOND))
    one.steer(Steer(do="slow", from_="fra", to="wdc", factor=5.0))
    assert one.connect_delay(FAR) > 90 * MILLISECOND
    one.steer(Steer(do="slow", from_="fra", to="wdc"))
    one.steer(Steer(do="loss", from_="fra", to="wdc", loss=1.0))
    arrived: list[int] = []
    one.send_datagram(FAR, 1, lambda: arrived.append(1))
    one.steer(Steer(do="loss", from_="fra", to="wdc"))
    one.send_datagram(FAR, 1, lambda: arrived.append(2))
    one.flush(60)
    assert arrived == [2]


# ---- links


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["send", "cut", "heal", "slow", "fast", "wait"]), max_size=40), st.integers(0, 1 << 30))
def test_messages_keep_their_order_and_none_is_lost_whatever_is_cut(acts, seed):
    one = Shaping(plan(DirectedQuality(from_="*", to="*", delay=MILLISECOND // 2, jitter=0.3, loss=0.001)))
    chosen = random.Random(seed)
    arrived: list[int] = []
    sent = 0
    try:
        for act in acts:
            if act == "send":
                for _ in range(chosen.randint(1, 5)):
                    one.send_message(WDC, 100, lambda number=sent: arrived.append(number))
                    sent += 1
            elif act == "wait":
                gevent.sleep(chosen.choice([0, 0.0005]))
            elif act in ("cut", "heal"):
                one.steer(Steer(do=act, from_="fra", to="wdc"))
            else:
                one.steer(Steer(do="slow", from_="fra", to="wdc", factor=3.0 if act == "slow" else 1.0))
        one.steer(heal("fra", "wdc"))
        until(lambda: len(arrived) == sent)
        assert arrived == list(range(sent))
    finally:
        one.stop()


def test_what_comes_on_a_link_keeps_its_order_with_the_news_of_the_link(shaping):
    one = shaping(DirectedQuality(from_="wdc", to="fra", delay=10 * MILLISECOND))
    heard: list[str] = []
    one.report_link(WDC, lambda: heard.append("opened"))
    one.receive_message(WDC, lambda: heard.append("first"))
    one.receive_message(WDC, lambda: heard.append("second"))
    one.report_link(WDC, lambda: heard.append("lost"))
    assert heard == []
    one.flush(60)
    assert heard == ["opened", "first", "second", "lost"]


def test_a_lost_link_is_not_noticed_while_either_direction_is_cut(shaping):
    for origin, target in (("fra", "wdc"), ("wdc", "fra")):
        one = shaping()
        heard: list[str] = []
        one.steer(cut(origin, target, oneway=True))
        one.report_link(WDC, lambda heard=heard: heard.append("lost"))
        one.flush(60)
        assert heard == []
        one.steer(heal(origin, target, oneway=True))
        assert heard == ["lost"]


def test_a_cut_link_keeps_no_more_than_buffers_would(shaping):
    one = shaping()
    one.steer(cut("fra", "wdc"))
    accepted = 0
    for _ in range(HELD_LIMIT + 50):
        accepted += one.send_message(WDC, 1, lambda: None)
        if accepted % 100 == 0:
            one.flush(60)
    one.flush(60)
    assert not one.send_message(WDC, 1, lambda: None)


# ---- connects, and the socket under shaping


def test_a_connect_over_a_cut_link_times_out_whatever_the_kernel_says():
    one = Shaping(ShapingPlan(own="fra/a1", hosts={own_host(): "wdc/a1"}))
    answers: list[ConnectTried] = []
    closed = free_address()
    connects = Connects(answers.append, one)
    connects.attempt(closed)
    until(lambda: answers)
    assert answers == [ConnectTried(closed, ConnectOutcome.REFUSED)]
    one.steer(cut("fra", "wdc"))
    connects.attempt(closed)
    until(lambda: len(answers) == 2)
    assert answers[1] == ConnectTried(closed, ConnectOutcome.TIMED_OUT)
    one.stop()


def test_a_cut_withholds_real_datagrams_and_real_refusals():
    one = Shaping(ShapingPlan(own="fra/a1", hosts={"127.0.0.0/8": "wdc/a1"}))
    here: list[object] = []
    there: list[object] = []

    def open_socket(heard: list[object], shaping: Shaping | None) -> DatagramSocket:
        keyring = Keyring((bytes(32),))
        return DatagramSocket(bind=free_address(), keyring=keyring, deliver=heard.append, shaping=shaping)

    a, b, dead = open_socket(here, one), open_socket(there, None), open_socket([], None)
    dead.close()
    one.steer(cut("fra", "wdc"))
    a.send(b.address, b"lost")
    a.send(dead.address, b"lost")
    b.send(a.address, b"lost")
    until(lambda: a.withheld)
    assert (here, there) == ([], [])
    one.steer(heal("fra", "wdc"))
    a.send(dead.address, b"x")
    a.send(b.address, b"heard")
    until(lambda: there and here)
    assert there == [DatagramReceived(a.address, b"heard")]
    assert here == [SendFailed(dead.address, Refusal.REFUSED)]
    for each in (a, b):
        each.close()
    one.stop()


# ---- the plan and the steering socket


def test_a_plan_is_read_from_json_and_faults_are_named():
    assert read_plan(msgspec.json.encode(plan(DirectedQuality(from_="a", to="b", delay=1)))) == plan(
        DirectedQuality(from_="a", to="b", delay=1)
    )
    for text in (
        b"{}",
        b'{"own": "a/b", "hosts": {"not an address": "a"}}',
        b'{"own": "a/b", "hosts": {}, "qualty": []}',
    ):
        with pytest.raises(ConfigError):
            read_plan(text)


def test_commands_come_over_the_private_socket(shaping, tmp_path):
    one = shaping()
    one.place(FAR)
    one.send_datagram(FAR, 1, lambda: None)
    path = tmp_path / "shaping.sock"
    server = SteeringServer(one, path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert steer(path, cut("fra", "wdc")) == 2
    assert one.is_cut(WDC)
    assert steer(path, heal("fra", "wdc"), cut("x", "y")) == 2
    assert not one.is_cut(WDC)
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(path))
        raw.sendall(b'{"do": "destroy", "from": "a", "to": "b"}\n')
        assert b'"ok":false' in raw.recv(1_000)
    server.stop()
    assert not path.exists()
