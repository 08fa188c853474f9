"""`dislocate proxy` as a process: what it says, what it survives, how it ends.  Its agent is a stand-in."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dislocate.core.boundary.balance import ReportUsage
from tests.support.agent_thread import AgentThread
from tests.support.proxied import LIMIT, dead_port, echo, instance, is_reset, read_all, says, serving, until

pytestmark = pytest.mark.live


@contextmanager
def agent() -> Iterator[AgentThread]:
    thread = AgentThread()
    try:
        yield thread
    finally:
        thread.end()


def put(places: AgentThread, *ports: int) -> None:
    """Who serves shop.web from now on."""
    places.put(*(instance(f"web-{port}", port) for port in ports), service="shop.web")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "dislocate", "proxy", *arguments]


def refused(*arguments: str) -> tuple[int, str]:
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.stdout == ""
    return done.returncode, done.stderr


class Proxy:
    def __init__(self, process: "subprocess.Popen[str]", errors: Path) -> None:
        self.process = process
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith(("ready ", '{"ready"')), line + errors.read_text()
        self.port = int(line.rpartition(":")[2].partition("=")[0])
        self._errors = errors

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=LIMIT)

    def ask(self, words: bytes) -> bytes:
        """What comes back; nothing where the stream was reset, or nobody accepts for the moment."""
        try:
            with self.connect() as client:
                client.sendall(words)
                return client.recv(100)
        except ConnectionError:
            return b""

    def said(self) -> str:
        return self._errors.read_text()

    def children(self) -> list[int]:
        return [
            int(pid) for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        ]

    def ended(self) -> tuple[int, str]:
        out, _ = self.process.communicate(timeout=LIMIT)
        return self.process.returncode, out


@contextmanager
def proxy(places: AgentThread, tmp_path: Path, *arguments: str) -> Iterator[Proxy]:
    errors = tmp_path / "errors"
    options = ["--listen", "127.0.0.1:0=shop.web", "--agent", places.where, *arguments]
    with (
        errors.open("w") as written,
        subprocess.Popen(command(*options), stdout=subprocess.PIPE, stderr=written, text=True) as process,
    ):
        try:
            yield Proxy(process, errors)
        finally:
            process.kill()


def test_an_unknown_service_is_refused_with_the_nearest_name():
    with agent() as places:
        put(places, 1)
        code, words = refused("--listen", "127.0.0.1:0=shop.wbe", "--agent", places.where)
    assert code == 1
    assert "no service 'shop.wbe' is known here" in words


def test_an_empty_service_is_refused():
    with agent() as places:
        put(places)
        code, words = refused("--listen", "127.0.0.1:0=shop.web", "--agent", places.where, "--workers", "2")
    assert code == 1
    assert "shop.web has no instances" in words


def test_without_an_agent_it_does_not_begin():
    code, words = refused("--listen", "127.0.0.1:0=shop.web", "--agent", f"http://127.0.0.1:{dead_port()}")
    assert code == 3
    assert "no agent at" in words


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_port_that_is_taken_is_refused_with_the_mend(workers):
    with agent() as places, socket.create_server(("127.0.0.1", 0)) as taken:
        put(places, 1)
        listen = f"127.0.0.1:{taken.getsockname()[1]}=shop.web"
        code, words = refused("--listen", listen, "--agent", places.where, "--workers", workers)
    assert code == 1
    assert "an address of this host that is free (address already in use)" in words


@pytest.mark.parametrize("workers", ["1", "2"])
def test_sigterm_lets_streams_finish_and_accepts_nobody_new(tmp_path, workers):
    with serving(echo) as (server,), agent() as places:
        put(places, server.port)
        with proxy(places, tmp_path, "--workers", workers) as running, running.connect() as client:
            client.sendall(b"before")
            assert client.recv(100) == b"before"
            running.process.terminate()
            until(lambda: not running.ask(b"new"), "somebody is accepted still")
            client.sendall(b"after")
            client.shutdown(socket.SHUT_WR)
            assert read_all(client) == b"after"
            code, out = running.ended()
            assert code == 0
            assert out.startswith("shop.web: 0 open, ")


def test_sigterm_resets_what_is_left_when_the_grace_is_over(tmp_path):
    with serving(echo) as (server,), agent() as places:
        put(places, server.port)
        with proxy(places, tmp_path, "--grace", "50ms", "--json") as running, running.connect() as client:
            client.sendall(b"before")
            assert client.recv(100) == b"before"
            running.process.terminate()
            assert is_reset(client)
            code, out = running.ended()
            assert code == 0
            assert json.loads(out)["services"]["shop.web"]["cut"] == 1


def test_it_goes_on_with_what_it_knew_when_the_agent_is_gone_and_says_so(tmp_path):
    with serving(says(b"alive")) as (server,), agent() as places:
        put(places, server.port)
        with proxy(places, tmp_path) as running:
            assert running.ask(b"") == b"alive"
            places.stop()
            until(lambda: "going on with what is known" in running.said())
            assert running.ask(b"") == b"alive"
            places.start()
            until(lambda: "the agent answers again" in running.said())


def test_the_agent_is_told_what_was_done(tmp_path):
    with serving(says(b"alive")) as (server,), agent() as places:
        put(places, server.port)
        with proxy(places, tmp_path) as running:
            assert running.ask(b"") == b"alive"

            def calls():
                told = [use for one in places.asked if isinstance(one, ReportUsage) for use in one.usages]
                return sum(outcome.calls for use in told for outcome in use.outcomes)

            until(lambda: calls() == 1)


def test_it_follows_a_service_that_moves(tmp_path):
    with serving(says(b"old"), says(b"new")) as (old, new), agent() as places:
        put(places, old.port)
        with proxy(places, tmp_path, "--workers", "2") as running:
            assert running.ask(b"") == b"old"
            put(places, new.port)
            until(lambda: all(running.ask(b"") == b"new" for _ in range(10)))


def test_a_worker_that_is_killed_is_started_again(tmp_path):
    with serving(says(b"alive")) as (server,), agent() as places:
        put(places, server.port)
        with proxy(places, tmp_path, "--workers", "2") as running:
            killed, stays = running.children()
            os.kill(killed, signal.SIGKILL)
            until(lambda: len(running.children()) == 2 and killed not in running.children())
            assert stays in running.children()
            assert "is started again" in running.said()
            until(lambda: all(running.ask(b"") == b"alive" for _ in range(10)))


def test_workers_end_when_who_started_them_is_killed(tmp_path):
    with serving(echo) as (server,), agent() as places:
        put(places, server.port)
        with proxy(places, tmp_path, "--workers", "2") as running:
            workers = running.children()
            running.process.kill()
            until(lambda: not any(is_running(pid) for pid in workers), "a worker is left")


def is_running(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
