"""The gossip socket over real loopback."""

from collections.abc import Callable

import gevent
import pytest
from gevent import socket

from dislocate.core.boundary.inputs import DatagramReceived, SendFailed
from dislocate.core.boundary.values import Refusal
from dislocate.core.errors import ConfigError
from dislocate.io.keyring import Keyring, Rejection
from dislocate.io.udp import DatagramSocket
from tests.support.addresses import own_host

SECRET = bytes(range(32))
HERE = own_host()


def until(claim: Callable[[], object], seconds: float = 60.0) -> None:
    with gevent.Timeout(seconds):
        while not claim():
            gevent.sleep(0.002)


def free_port_at(host: str) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


class Party:
    def __init__(self, host: str, secret: bytes = SECRET) -> None:
        self.heard: list[DatagramReceived | SendFailed] = []
        self.keyring = Keyring((secret,))
        bracketed = f"[{host}]" if ":" in host else host
        self.socket = DatagramSocket(
            bind=f"{bracketed}:{free_port_at(host)}", keyring=self.keyring, deliver=self.heard.append
        )

    @property
    def address(self) -> str:
        return self.socket.address


@pytest.fixture
def party():
    parties: list[Party] = []

    def make(host: str = HERE, secret: bytes = SECRET) -> Party:
        parties.append(Party(host, secret))
        return parties[-1]

    yield make
    for each in parties:
        each.socket.close()


@pytest.mark.parametrize("host", [HERE, "::1"], ids=["IPv4", "IPv6"])
def test_a_datagram_arrives_with_the_address_to_answer(party, host):
    a, b = party(host), party(host)
    a.socket.send(b.address, b"ping")
    until(lambda: b.heard)
    assert b.heard == [DatagramReceived(a.address, b"ping")]


@pytest.mark.parametrize("host", [HERE, "::1"], ids=["IPv4", "IPv6"])
def test_a_refusal_comes_back_with_the_address_that_refused(party, host):
    a, dead = party(host), party(host)
    address = dead.address
    dead.socket.close()
    a.socket.send(address, b"ping")
    until(lambda: a.heard)
    assert a.heard == [SendFailed(address, Refusal.REFUSED)]


def test_a_refusal_by_one_spoils_no_datagram_to_another(party):
    a, b, dead = party(), party(), party()
    address = dead.address
    dead.socket.close()
    for number in range(100):
        a.socket.send(address, b"anybody there?")
        a.socket.send(b.address, number.to_bytes(1, "big"))
    until(lambda: len(b.heard) == 100)
    until(lambda: SendFailed(address, Refusal.REFUSED) in a.heard)
    assert {type(each) for each in a.heard} == {SendFailed}
    assert {each.target for each in a.heard} == {address}


def test_a_socket_for_both_families_serves_both(party):
    both, four, dead = party("::"), party(HERE), party(HERE)
    address = dead.address
    dead.socket.close()
    port = both.address.rpartition(":")[2]
    both.socket.send(four.address, b"from six")
    until(lambda: four.heard)
    assert four.heard == [DatagramReceived(f"127.0.0.1:{port}", b"from six")]
    four.socket.send(f"127.0.0.1:{port}", b"from four")
    until(lambda: both.heard)
    assert both.heard == [DatagramReceived(four.address, b"from four")]
    both.socket.send(address, b"ping")
    until(lambda: len(both.heard) == 2)
    assert both.heard[1] == SendFailed(address, Refusal.REFUSED)


def test_strangers_are_counted_and_not_heard(party):
    a, stranger = party(), party(secret=bytes(32))
    stranger.socket.send(a.address, b"let me in")
    until(lambda: sum(a.keyring.rejected.values()))
    assert a.keyring.rejected[Rejection.UNKNOWN_KEY] == 1
    assert a.heard == []


def test_a_seed_may_be_a_name(party):
    a, b = party(), party("127.0.0.1")
    a.socket.send("localhost:" + b.address.rpartition(":")[2], b"hello")
    until(lambda: b.heard)


def test_an_unknown_name_is_unreachable(party):
    a = party()
    a.socket.send("no-such-host.invalid:49701", b"hello")
    until(lambda: a.heard, 120)  # as long as the resolver of this host tries
    assert a.heard == [SendFailed("no-such-host.invalid:49701", Refusal.UNREACHABLE)]


def test_a_flood_lets_others_run_and_is_read_whole(party):
    a, b = party(), party()
    turns = []
    ticking = gevent.spawn(lambda: [(turns.append(1), gevent.sleep(0)) for _ in range(10_000)])
    for number in range(600):
        a.socket.send(b.address, number.to_bytes(2, "big"))
    until(lambda: len(b.heard) == 600)
    ticking.kill()
    assert len(turns) > 2


def test_a_port_in_use_names_the_mend(party):
    a = party()
    with pytest.raises(ConfigError, match="UDP port that is free"):
        DatagramSocket(bind=a.address, keyring=a.keyring, deliver=a.heard.append)
