"""Streams of the proxy: the same bytes in both directions however they come, and each end told as it was."""

import selectors
import socket
import time
from functools import partial
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dislocate.proxy.stream import BUFFER, PATIENCE, End, Stream
from tests.support.proxied import LIMIT, is_reset, read_all, relay, reset, until

CHUNKS = st.lists(st.one_of(st.integers(1, 200), st.integers(1, 3 * BUFFER)), max_size=6)
READS = st.lists(st.integers(1, 2 * BUFFER), min_size=1, max_size=4)


def pattern(size: int, salt: int) -> bytes:
    """Bytes of which any that is lost, doubled or moved would show."""
    return Random(salt).randbytes(size)


@pytest.fixture(scope="module")
def for_all():
    """One loop for all examples."""
    with relay() as relayed:
        yield relayed


class Talker:
    """One end: sends its chunks and then its end, reads in sizes of its own; never waits."""

    def __init__(self, connection: socket.socket, chunks: list[int], reads: list[int], salt: int) -> None:
        connection.setblocking(False)
        self.connection = connection
        self.said = pattern(sum(chunks), salt)
        self.heard = bytearray()
        self.has_heard_end = False
        self._chunks = list(chunks)
        self._left = b""
        self._at = 0
        self._reads = reads
        self._turn = 0
        self.has_ended = False

    @property
    def wants(self) -> int:
        return (0 if self.has_heard_end else selectors.EVENT_READ) | (0 if self.has_ended else selectors.EVENT_WRITE)

    def go_on(self, events: int) -> None:
        if events & selectors.EVENT_WRITE and not self.has_ended:
            self._write()
        if events & selectors.EVENT_READ and not self.has_heard_end:
            self._turn += 1
            data = self.connection.recv(self._reads[self._turn % len(self._reads)])
            self.heard += data
            self.has_heard_end = not data

    def _write(self) -> None:
        if not self._left and self._chunks:
            size = self._chunks.pop(0)
            self._left, self._at = self.said[self._at : self._at + size], self._at + size
        if self._left:
            self._left = self._left[self.connection.send(self._left) :]
        elif not self._chunks:
            self.connection.shutdown(socket.SHUT_WR)
            self.has_ended = True


def has_arrived(stream: Stream, size: int) -> bool:
    return stream.held > 0 or stream.sent == size


def is_stuck(stream: Stream) -> bool:
    """Whether it holds bytes that nobody takes: the kernel may still make room, from one buffer to the next."""
    if stream.held:
        time.sleep(0.05)
    return stream.held > 0


def converse(*talkers: Talker) -> None:
    with selectors.DefaultSelector() as selector:
        for talker in talkers:
            selector.register(talker.connection, talker.wants, talker)
        while any(talker.wants for talker in talkers):
            happened = selector.select(LIMIT)
            assert happened, "nothing moves any more"
            for key, events in happened:
                key.data.go_on(events)
                if key.data.wants:
                    selector.modify(key.fileobj, key.data.wants, key.data)
                else:
                    selector.unregister(key.fileobj)


@given(there=CHUNKS, back=CHUNKS, client_reads=READS, endpoint_reads=READS, first=st.binary(max_size=60))
def test_the_bytes_are_the_same_in_both_directions_however_they_are_cut(
    for_all, there, back, client_reads, endpoint_reads, first
):
    client, endpoint, stream = for_all.stream(first)
    with client, endpoint:
        caller, callee = Talker(client, there, client_reads, 1), Talker(endpoint, back, endpoint_reads, 2)
        converse(caller, callee)
        assert bytes(callee.heard) == first + caller.said
        assert bytes(caller.heard) == callee.said
        assert for_all.end(stream) in (End.CLOSED, End.SILENT)
        assert (stream.sent, stream.received) == (len(caller.said), len(callee.said))


def test_a_client_that_says_its_last_still_hears_the_answer():
    with relay() as relayed:
        client, endpoint, stream = relayed.stream()
        with client, endpoint:
            client.sendall(b"question")
            client.shutdown(socket.SHUT_WR)
            assert read_all(endpoint) == b"question"
            endpoint.sendall(b"answer")
            endpoint.close()
            assert read_all(client) == b"answer"
            assert relayed.end(stream) is End.CLOSED


def test_an_endpoint_that_says_its_last_still_hears_the_client():
    with relay() as relayed:
        client, endpoint, stream = relayed.stream()
        with client, endpoint:
            endpoint.sendall(b"greeting")
            endpoint.shutdown(socket.SHUT_WR)
            assert read_all(client) == b"greeting"
            client.sendall(b"thanks")
            client.close()
            assert read_all(endpoint) == b"thanks"
            assert relayed.end(stream) is End.CLOSED


def test_an_endpoint_that_ends_without_a_word_is_told_from_one_that_answered():
    with relay() as relayed:
        client, endpoint, stream = relayed.stream()
        with client, endpoint:
            client.sendall(b"question")
            assert endpoint.recv(100) == b"question"
            endpoint.close()
            assert read_all(client) == b""
            client.close()
            assert relayed.end(stream) is End.SILENT


@pytest.mark.parametrize("is_bulk", [False, True])
def test_a_reader_that_stops_stops_its_writer_and_bounds_what_is_held(is_bulk):
    with relay() as relayed:
        client, endpoint, stream = relayed.stream(small=not is_bulk)
        with client, endpoint:
            client.setblocking(False)
            said = bytearray()

            def is_stopped() -> bool:
                """Nothing more is taken, and that is because the endpoint takes nothing."""
                data = pattern(BUFFER, len(said))
                try:
                    said.extend(data[: client.send(data)])
                except BlockingIOError:
                    return stream.held > 0 and stream.sent + stream.held <= len(said)
                return False

            until(is_stopped)
            moved = stream.sent
            assert 0 < stream.held <= BUFFER
            with pytest.raises(BlockingIOError):
                client.send(b"more")
            assert stream.sent == moved
            client.shutdown(socket.SHUT_WR)
            assert read_all(endpoint) == bytes(said)
            assert stream.held == 0


@pytest.mark.parametrize("is_bulk", [False, True])
def test_an_end_behind_bytes_that_nobody_takes_yet_costs_no_time_and_is_told_after_them(is_bulk):
    with relay() as relayed:
        client, endpoint, stream = relayed.stream(small=not is_bulk)
        with client, endpoint:
            endpoint.shutdown(socket.SHUT_WR)
            assert client.recv(1) == b""
            piece, pieces = b"x" * (BUFFER if is_bulk else 4096), 0
            while not is_stuck(stream):
                client.sendall(piece)
                pieces += 1
                until(partial(has_arrived, stream, pieces * len(piece)))
            size = pieces * len(piece)
            client.close()  # both of its directions are over: the kernel would tell a hang-up all the while
            until(lambda: stream._client._is_muted)
            assert len(read_all(endpoint)) == size
            endpoint.close()
            assert relayed.end(stream) in (End.CLOSED, End.SILENT)


def test_a_reset_of_the_client_reaches_the_endpoint_as_a_reset():
    with relay() as relayed:
        client, endpoint, stream = relayed.stream()
        with endpoint:
            client.sendall(b"question")
            assert endpoint.recv(100) == b"question"
            reset(client)
            assert is_reset(endpoint)
            assert relayed.end(stream) is End.RESET_BY_CLIENT


def test_a_reset_of_the_endpoint_reaches_the_client_as_a_reset():
    with relay() as relayed:
        client, endpoint, stream = relayed.stream()
        with client:
            client.sendall(b"question")
            assert endpoint.recv(100) == b"question"
            endpoint.sendall(b"half of the ans")
            reset(endpoint)
            assert is_reset(client)
            assert relayed.end(stream) is End.RESET_BY_ENDPOINT


def test_a_reset_is_noticed_while_nothing_is_read():
    with relay() as relayed:
        client, endpoint, stream = relayed.stream(small=True)
        with endpoint:
            client.setblocking(False)

            def is_stopped() -> bool:
                try:
                    client.send(b"x" * BUFFER)
                except BlockingIOError:
                    return stream.held > 0
                return False

            until(is_stopped)
            reset(client)
            assert relayed.end(stream) is End.RESET_BY_CLIENT
            assert is_reset(endpoint)


def test_a_stream_that_carried_bulk_copies_small_pieces_again_and_gives_its_pipe_up():
    with relay() as relayed:
        client, endpoint, stream = relayed.stream()
        with client, endpoint:
            bulk = pattern(40 * BUFFER, 3)
            talker, listener = Talker(client, [len(bulk)], [1], 3), Talker(endpoint, [], [BUFFER], 0)
            with selectors.DefaultSelector() as selector:
                selector.register(client, selectors.EVENT_WRITE, talker)
                selector.register(endpoint, selectors.EVENT_READ, listener)
                while len(listener.heard) < len(bulk):
                    for key, events in selector.select(LIMIT):
                        if key.data is listener or talker._left or talker._chunks:
                            key.data.go_on(events)
                        else:
                            selector.unregister(client)
            assert bytes(listener.heard) == bulk
            endpoint.setblocking(True)
            for at in range(2 * PATIENCE):
                client.send(bytes([at]))
                assert endpoint.recv(1) == bytes([at])
            way = stream._client.reads
            assert way._pipe is None
            assert way.ready == way.copy
