"""One process of the proxy on loopback: who is connected to whom, what is told, and how it ends."""

import socket
from contextlib import suppress
from threading import Event

import pytest

from dislocate.core.balance.picker import Outcome
from dislocate.core.boundary.balance import Algorithm, Eject
from dislocate.core.errors import LocalError
from dislocate.proxy.header import proxy_header
from dislocate.proxy.names import Host, Names
from dislocate.proxy.settings import Listen, parse_listen
from dislocate.proxy.tally import Report, Tally, added
from tests.support.proxied import (
    Routes,
    dead_port,
    deaf_port,
    echo,
    front,
    instance,
    is_reset,
    read_all,
    reset,
    says,
    serving,
    until,
)


def test_bytes_go_to_an_instance_of_the_service_and_back():
    with serving(echo) as (server,), front(Routes(instance("web-1", server.port))) as proxy:
        with proxy.connect() as client:
            client.sendall(b"hello")
            assert client.recv(100) == b"hello"
            client.shutdown(socket.SHUT_WR)
            assert read_all(client) == b""
        until(lambda: not proxy.exchange.open)
        assert (proxy.tally.sent, proxy.tally.received) == (5, 5)
        assert proxy.tally.connected == {"fra": 1}


def test_a_dead_endpoint_is_replaced_and_no_client_notices():
    with serving(says(b"alive")) as (server,):
        routes = Routes(instance("dead", dead_port()), instance("alive", server.port), eject=Eject(consecutive=0))
        with front(routes) as proxy:
            for _ in range(20):
                with proxy.connect() as client:
                    assert client.recv(100) == b"alive"
            assert proxy.tally.unserved == 0
            assert proxy.tally.failed_connects > 0


def test_a_data_center_where_all_are_dead_is_replaced_by_another_before_the_agent_says_so():
    with serving(says(b"alive")) as (server,):
        routes = Routes(
            *(instance(f"dead-{at}", dead_port()) for at in range(3)), instance("alive", server.port, datacenter="wdc")
        )
        with front(routes) as proxy:
            for _ in range(10):
                with proxy.connect() as client:
                    assert client.recv(100) == b"alive"
            assert proxy.tally.connected == {"wdc": 10}


def test_an_endpoint_that_does_not_answer_a_connect_is_replaced_after_the_timeout():
    with serving(says(b"alive")) as (server,), deaf_port() as deaf:
        routes = Routes(instance("deaf", deaf), instance("alive", server.port))
        with front(routes, connect_timeout=20_000_000) as proxy:
            for _ in range(10):
                with proxy.connect() as client:
                    assert client.recv(100) == b"alive"
            until(lambda: proxy.tally.failed_connects)


def test_a_client_is_reset_when_nobody_can_be_connected_to():
    with front(Routes(instance("dead", dead_port()), instance("dead-2", dead_port()))) as proxy:
        with (
            suppress(ConnectionResetError),
            proxy.connect() as client,
        ):  # which may be noticed as soon as it is connected
            assert is_reset(client)
        until(lambda: proxy.tally.unserved == 1)
        assert proxy.tally.failed_connects == 2
        assert proxy.exchange.open == 0


def test_what_is_in_flight_is_given_back_however_it_ends():
    with serving(echo) as (server,), front(Routes(instance("web-1", server.port))) as proxy:
        with proxy.connect() as client:
            client.sendall(b"x")
            assert client.recv(1) == b"x"
            endpoint = next(iter(proxy.exchange.streams.values())).endpoint
            assert endpoint.pending == 1
        reset(proxy.connect())
        until(lambda: not proxy.exchange.open)
        assert endpoint.pending == 0


def test_an_endpoint_that_hangs_up_without_a_word_counts_as_failed():
    def hang_up(connection):
        connection.recv(100)

    with serving(hang_up) as (server,), front(Routes(instance("web-1", server.port))) as proxy:
        outcomes = []
        done = proxy.exchange.picker.done
        proxy.exchange.picker.done = lambda picked, now, outcome: (outcomes.append(outcome), done(picked, now, outcome))
        with proxy.connect() as client:
            client.sendall(b"question")
            assert read_all(client) == b""
        until(lambda: not proxy.exchange.open)
        assert outcomes == [Outcome.FAILED]
        assert proxy.tally.silent == 1


def test_the_latency_of_a_stream_is_how_long_its_first_answer_took():
    go_on = Event()

    def answer_when_told(connection):
        connection.sendall(connection.recv(100))
        go_on.wait()

    with serving(answer_when_told) as (server,), front(Routes(instance("web-1", server.port))) as proxy:
        with proxy.connect() as client:
            client.sendall(b"x")
            assert client.recv(1) == b"x"
            stream, picked = next(iter(proxy.exchange.streams.items()))
            connected_at = picked.began
            go_on.set()
        until(lambda: not proxy.exchange.open)
        assert stream.answered >= stream.asked >= connected_at
        assert picked.is_done
        assert picked.began > stream.answered - (stream.answered - stream.asked)  # not since it was connected


def test_clients_follow_a_route_that_changes():
    with serving(says(b"old"), says(b"new")) as (old, new):
        routes = Routes(instance("old", old.port))
        with front(routes) as proxy, proxy.connect() as stays:
            assert stays.recv(100) == b"old"
            routes.change(instance("new", new.port))

            def is_followed():
                with proxy.connect() as client:
                    return client.recv(100) == b"new"

            until(is_followed)
            stays.sendall(b"still there")
            assert stays.recv(100) == b"still there"


def test_when_every_instance_is_gone_from_the_route_the_last_known_serve_on():
    with serving(says(b"alive")) as (server,):
        routes = Routes(instance("web-1", server.port))
        with front(routes) as proxy:
            routes.change()
            until(lambda: proxy.exchange.picker.route.epoch == 2)
            with proxy.connect() as client:
                assert client.recv(100) == b"alive"


def test_a_client_sticks_to_its_endpoint_where_the_policy_says_hash():
    with serving(says(b"1"), says(b"2"), says(b"3")) as servers:
        routes = Routes(*(instance(f"web-{s.port}", s.port) for s in servers), algorithm=Algorithm.HASH)
        with front(routes) as proxy:
            heard = set()
            for _ in range(8):
                with proxy.connect() as client:
                    heard.add(client.recv(100))
                until(lambda: not proxy.exchange.open)
            assert len(heard) == 1


def test_the_header_tells_the_endpoint_who_connected_before_anything_else():
    with (
        serving(echo) as (server,),
        front(Routes(instance("web-1", server.port)), is_proxy_header_sent=True) as proxy,
        proxy.connect() as client,
    ):
        header = proxy_header(client.getsockname(), client.getpeername())
        client.sendall(b"hello")
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == header + b"hello"


def test_hosts_are_looked_up_beside_the_loop():
    with (
        serving(says(b"found")) as (server,),
        front(Routes(instance("web-1", server.port, address="localhost"))) as proxy,
        proxy.connect() as client,
    ):
        assert client.recv(100) == b"found"


def test_a_host_that_nobody_knows_is_as_good_as_dead():
    with serving(says(b"alive")) as (server,):
        routes = Routes(
            instance("lost", server.port, address="nowhere.invalid"),
            instance("web-2", server.port),
            eject=Eject(consecutive=0),
        )
        with front(routes) as proxy:
            proxy.exchange.names._look_up = lambda _: None
            for _ in range(10):
                with proxy.connect() as client:
                    assert client.recv(100) == b"alive"
            assert proxy.tally.unserved == 0


def test_a_name_that_was_found_is_used_while_the_resolver_is_down():
    class StillLoop:
        now = 0

        def soon(self, call):
            call()

    found, loop = [Host(socket.AF_INET, "127.0.0.1"), None], StillLoop()
    names, told = Names(loop, look_up=lambda _: found.pop(0) if found else None), []
    names.find("db", told.append)
    until(lambda: told)
    loop.now = 10**12
    assert names.known("db") == told[0]
    until(lambda: not found)
    assert names.known("db") == told[0]


def test_a_stream_on_which_nothing_moves_is_reset_when_that_is_asked_for():
    with (
        serving(echo) as (server,),
        front(Routes(instance("web-1", server.port)), idle=50_000_000) as proxy,
        proxy.connect() as client,
    ):
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        assert is_reset(client)
        until(lambda: proxy.tally.idle == 1)


def test_more_clients_than_there_is_room_for_wait_and_are_served_later():
    with (
        serving(says(b"hello")) as (server,),
        front(Routes(instance("web-1", server.port)), streams=2) as proxy,
    ):
        clients = [proxy.connect() for _ in range(4)]
        try:
            assert clients[0].recv(100) == clients[1].recv(100) == b"hello"
            until(lambda: proxy.worker.entrances[0]._is_paused)
            assert proxy.exchange.open == 2
            for at in (0, 1):
                clients[at].close()
            assert clients[2].recv(100) == clients[3].recv(100) == b"hello"
        finally:
            for client in clients:
                client.close()


def test_a_client_that_hangs_up_while_it_waits_is_noticed():
    with deaf_port() as deaf, front(Routes(instance("deaf", deaf))) as proxy:
        client = proxy.connect()
        until(lambda: proxy.exchange.dials)
        reset(client)
        until(lambda: not proxy.exchange.open)
        assert proxy.tally.reset_by_client == 1


def test_the_end_accepts_nobody_new_and_lets_streams_finish():
    with serving(echo) as (server,), front(Routes(instance("web-1", server.port)), grace=10**12) as proxy:
        client = proxy.connect()
        client.sendall(b"before")
        assert client.recv(100) == b"before"
        proxy.worker.end()
        until(lambda: proxy.worker.entrances[0]._is_closed)
        with pytest.raises(ConnectionError):
            proxy.connect()
        client.sendall(b"after")
        assert client.recv(100) == b"after"
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == b""
        client.close()


def test_who_had_connected_before_the_end_is_served():
    with serving(echo) as (server,), front(Routes(instance("web-1", server.port)), grace=10**12) as proxy:
        held = Event()
        proxy.worker.loop.soon(held.wait)  # nothing is accepted meanwhile
        with proxy.connect() as client:
            proxy.worker.end()
            held.set()
            client.sendall(b"hello")
            assert client.recv(100) == b"hello"


def test_a_second_end_resets_what_is_left():
    with (
        serving(echo) as (server,),
        front(Routes(instance("web-1", server.port)), grace=10**12) as proxy,
        proxy.connect() as client,
    ):
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        proxy.worker.end()
        proxy.worker.end()
        assert is_reset(client)


def test_what_was_done_is_told_once_to_the_source_that_asks():
    with serving(says(b"hello")) as (server,):
        routes = Routes(instance("web-1", server.port))
        with front(routes) as proxy:
            with proxy.connect() as client:
                assert client.recv(100) == b"hello"
            until(lambda: not proxy.exchange.open)
            (usage,) = until(routes.done)
            assert usage.service == "shop.web"
            assert usage.offered > 0
            assert [(told.node, told.instance, told.calls, told.failed) for told in usage.outcomes] == [
                ("fra/a1", "web-1", 1, 0)
            ]
            assert routes.done() == []


@pytest.mark.parametrize(
    ("text", "listen"),
    [
        ("127.0.0.1:5432=db.orders", Listen("127.0.0.1", 5432, "db.orders")),
        ("[::1]:80=shop.web", Listen("::1", 80, "shop.web")),
        ("*:0=shop.web", Listen("0.0.0.0", 0, "shop.web")),
    ],
)
def test_what_to_listen_at_is_read(text, listen):
    assert parse_listen(text) == listen


@pytest.mark.parametrize(
    "text", ["5432=db", "127.0.0.1:99999=db", "host.example:1=db", "127.0.0.1:1", "::1:80=db", "1.2.3.4:5="]
)
def test_what_cannot_be_listened_at_is_refused_with_an_example(text):
    with pytest.raises(LocalError, match="such as"):
        parse_listen(text)


def test_reports_of_several_workers_add_up():
    one = Tally(open=1, accepted=3, connected={"fra": 2, "wdc": 1}, sent=10, age=0.5)
    two = Tally(open=2, accepted=4, connected={"fra": 4}, received=5, age=2.0, trouble="no agent")
    total = added([Report({"shop.web": one}, cpu=1.0), Report({"shop.web": two}, cpu=2.0)])
    assert total == Report(
        {
            "shop.web": Tally(
                open=3, accepted=7, connected={"fra": 6, "wdc": 1}, sent=10, received=5, age=2.0, trouble="no agent"
            )
        },
        workers=2,
        cpu=3.0,
    )
    assert total.line("shop.web") == (
        "shop.web: 3 open, 7 accepted (fra 86%, wdc 14%); 10 B sent, 5 B received; on what was known 2 s ago: no agent"
    )
