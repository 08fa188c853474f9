"""Forwarders: what an application notices of a connection that is shaped."""

import time

import gevent
import pytest
from gevent import socket
from gevent.server import StreamServer

from dislocate.core.units import MILLISECOND, SECOND
from dislocate.fleet.calling.forwarders import connect
from dislocate.io.shaping import DirectedQuality, Shaping, ShapingPlan, Steer
from dislocate.linkmodel import Channel

FAR = "127.0.2.1:80"
DELAY = 20 * MILLISECOND
PATIENCE = 60.0


@pytest.fixture
def shaping():
    quality = DirectedQuality(from_="*", to="*", delay=DELAY)
    made = Shaping(ShapingPlan(own="fra/a1", hosts={"127.0.2.1": "wdc/a1"}, qualities=(quality,)))
    yield made
    made.stop()


@pytest.fixture
def echo():
    """Says all back, and then hangs up if whoever asks has."""

    def answer(connection, _address):
        while data := connection.recv(1 << 16):
            connection.sendall(data)

    server = StreamServer(("127.0.0.1", 0), answer)
    server.start()
    yield server.server_port
    server.stop(timeout=0)


@pytest.fixture
def dial(shaping, echo):
    def connected(timeout=PATIENCE):
        made = connect(*shaping.links_with(FAR), lambda: socket.create_connection(("127.0.0.1", echo)), timeout)
        if made is not None:
            made.settimeout(PATIENCE)
        return made

    return connected


def cut(shaping, origin, target, do="cut"):
    shaping.steer(Steer(do=do, from_=origin, to=target))


def read_all(connection):
    return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def test_a_connection_takes_a_round_trip_and_so_does_an_answer(dial):
    began = time.monotonic_ns()
    connection = dial()
    connected = time.monotonic_ns()
    assert connected - began >= 2 * DELAY
    connection.sendall(b"a question")
    assert connection.recv(100) == b"a question"
    assert time.monotonic_ns() - connected >= 2 * DELAY


@pytest.mark.parametrize(("origin", "target"), [("fra", "wdc"), ("wdc", "fra")])
def test_no_connection_is_made_while_a_direction_is_cut(shaping, dial, origin, target):
    shaping.steer(Steer(do="cut", from_=origin, to=target, oneway=True))
    began = time.monotonic_ns()
    assert dial(timeout=0.1) is None
    assert time.monotonic_ns() - began >= SECOND // 10
    cut(shaping, origin, target, "heal")
    assert dial() is not None


def test_a_cut_of_other_channels_says_nothing_to_applications(shaping, dial):
    shaping.steer(Steer(do="cut", from_="fra", to="wdc", channels=(Channel.UDP, Channel.LINKS)))
    assert dial() is not None


def test_what_is_sent_waits_while_the_way_is_cut_and_comes_in_order(shaping, dial):
    connection = dial()
    cut(shaping, "fra", "wdc")
    connection.sendall(b"one ")
    connection.settimeout(0.1)
    with pytest.raises(TimeoutError):
        connection.recv(1)
    connection.settimeout(PATIENCE)
    connection.sendall(b"two")
    connection.shutdown(socket.SHUT_WR)
    cut(shaping, "fra", "wdc", "heal")
    assert read_all(connection) == b"one two"


def test_a_stream_ends_when_both_have_said_so_and_nothing_of_it_is_lost(dial):
    connection, data = dial(), b"0123456789" * 100_000
    sending = gevent.spawn(lambda: (connection.sendall(data), connection.shutdown(socket.SHUT_WR)))
    assert read_all(connection) == data
    sending.get(timeout=PATIENCE)


def test_a_forwarder_waits_for_an_answer_longer_than_for_a_connection(shaping, echo):
    connection = connect(
        *shaping.links_with(FAR), lambda: socket.create_connection(("127.0.0.1", echo), 0.05), PATIENCE
    )
    connection.settimeout(0.2)
    with pytest.raises(TimeoutError):
        connection.recv(1)
    connection.settimeout(PATIENCE)
    connection.sendall(b"late")
    assert connection.recv(100) == b"late"


def test_a_refusal_is_heard_a_round_trip_later(shaping):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        began = time.monotonic_ns()
        with pytest.raises(ConnectionRefusedError):
            connect(*shaping.links_with(FAR), lambda: socket.create_connection(nobody.getsockname()), PATIENCE)
    assert time.monotonic_ns() - began >= 2 * DELAY
