"""Datagrams by the batch: what comes is told without its id, what goes finds its asker, and what cannot go is counted."""

import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from dislocate.edge.dns.batch import Batch, Exchange, OneByOne, open_exchange
from tests.support.addresses import await_loopback

SIZE = 4
SLOT = 64
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="recvmmsg and sendmmsg as Linux has them")


class Post:
    """One exchange on a socket of its own, and askers."""

    def __init__(self, kind: type[Exchange], host: str, opened: ExitStack) -> None:
        self.kind, self.host, self.opened = kind, host, opened
        self.udp = self.bound()
        self.udp.setblocking(False)
        self.exchange = self.sized(SLOT)

    def bound(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        made = self.opened.enter_context(socket.socket(family, socket.SOCK_DGRAM))
        made.bind((self.host, 0))
        made.settimeout(60)
        return made

    def sized(self, slot: int) -> Exchange:
        return self.kind(self.udp, SIZE, slot)

    def asker(self, *datagrams: bytes) -> socket.socket:
        """Asks all of them; they have arrived when it returns."""
        asker = self.bound()
        asker.connect(self.udp.getsockname())
        for datagram in datagrams:
            asker.send(datagram)
        await_loopback()
        return asker


@pytest.fixture(params=[pytest.param(Batch, marks=LINUX), OneByOne])
def kind(request: pytest.FixtureRequest) -> type[Exchange]:
    return request.param


@pytest.fixture(params=["127.0.0.1", "::1"])
def post(request: pytest.FixtureRequest, kind: type[Exchange]) -> Iterator[Post]:
    with ExitStack() as opened:
        try:
            made = Post(kind, request.param, opened)
        except OSError as error:
            pytest.skip(f"no {request.param} here: {error}")
        yield made


def test_the_exchange_of_this_system_is_the_fastest_that_it_has():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        assert isinstance(open_exchange(udp, SIZE, SLOT), Batch if sys.platform == "linux" else OneByOne)


def test_each_reply_finds_its_asker_and_carries_the_id_of_its_question(post):
    one, other = post.asker(b"11first"), post.asker(b"22second", b"33third")
    assert post.exchange.receive() == [b"first", b"second", b"third"]
    assert post.exchange.reply([b"a", b"a longer reply than the question", b""]) == 0
    assert one.recv(100) == b"11a"
    assert [other.recv(100), other.recv(100)] == [b"22a longer reply than the question", b"33"]


def test_a_batch_after_another_remembers_nothing_of_it(post):
    first = post.asker(*[b"%02dlong enough to be seen later" % at for at in range(SIZE)])
    post.exchange.reply([b"x" * 40 for _ in post.exchange.receive()])
    assert {first.recv(100)[2:] for _ in range(SIZE)} == {b"x" * 40}
    second = post.asker(b"99short")
    assert post.exchange.receive() == [b"short"]
    assert post.exchange.reply([b"y"]) == 0
    assert second.recv(100) == b"99y"
    first.setblocking(False)
    with pytest.raises(BlockingIOError):
        first.recv(100)


def test_what_does_not_fit_into_a_batch_is_in_the_next(post):
    post.asker(*[b"id%d" % at for at in range(SIZE + 2)])
    assert post.exchange.receive() == [b"0", b"1", b"2", b"3"]
    assert post.exchange.receive() == [b"4", b"5"]
    with pytest.raises(BlockingIOError):
        post.exchange.receive()


def test_a_question_longer_than_its_slot_is_cut_off_and_its_neighbours_are_whole(post):
    post.asker(b"11" + b"a" * SLOT, b"22" + b"b" * (SLOT - 2), b"33c")
    assert post.exchange.receive() == [b"a" * (SLOT - 2), b"b" * (SLOT - 2), b"c"]


def test_a_datagram_without_even_an_id_is_empty(post):
    post.asker(b"", b"1", b"22", b"33x")
    assert post.exchange.receive() == [b"", b"", b"", b"x"]


@pytest.mark.parametrize("answered", [(0, 2), (1,), (1, 2, 3), (0, 1, 3), ()])
def test_garbage_in_a_batch_is_not_answered_and_the_others_are(post, answered):
    asker = post.asker(*[b"%02d?" % at for at in range(SIZE)])
    replies = [b"%d" % at if at in answered else None for at in range(len(post.exchange.receive()))]
    assert post.exchange.reply(replies) == 0
    assert [asker.recv(100) for _ in answered] == [b"%02d%d" % (at, at) for at in answered]
    asker.setblocking(False)
    with pytest.raises(BlockingIOError):
        asker.recv(100)


def test_a_reply_longer_than_its_slot_is_counted_and_its_neighbours_are_sent(post):
    asker = post.asker(b"11a", b"22b", b"33c")
    post.exchange.receive()
    assert post.exchange.reply([b"x" * (SLOT - 2), b"y" * (SLOT - 1), b"z"]) == 1
    assert [asker.recv(100), asker.recv(100)] == [b"11" + b"x" * (SLOT - 2), b"33z"]


@pytest.mark.parametrize("refused", [{0}, {1}, {1, 2}, {0, 3}, {0, 1, 2, 3}])
def test_a_reply_that_the_kernel_refuses_is_counted_and_its_neighbours_are_sent(post, refused):
    exchange = post.sized(70_000)
    asker = post.asker(*[b"%02d?" % at for at in range(SIZE)])
    exchange.receive()
    too_long = b"x" * 66_000  # EMSGSIZE: more than any datagram has
    assert exchange.reply([too_long if at in refused else b"%d" % at for at in range(SIZE)]) == len(refused)
    sent = [at for at in range(SIZE) if at not in refused]
    assert [asker.recv(100) for _ in sent] == [b"%02d%d" % (at, at) for at in sent]


def test_an_asker_that_is_gone_disturbs_neither_the_others_nor_the_next_batch(post):
    gone, stays = post.asker(b"11gone"), post.asker(b"22here")
    post.exchange.receive()
    gone.close()
    assert post.exchange.reply([b"a", b"b"]) == 0
    assert stays.recv(100) == b"22b"
    stays.send(b"33again")
    await_loopback()
    assert post.exchange.receive() == [b"again"]


def test_a_closed_socket_is_an_error_and_nobody_elses_descriptor(post):
    post.udp.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        post.exchange.receive()
