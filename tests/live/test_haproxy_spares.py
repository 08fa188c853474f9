"""A real HAProxy, driven as its example says, when all whom it sends to die at once, and when it is reloaded meanwhile."""

import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from dislocate.haproxy.runtime import Runtime
from tests.support.addresses import free_port
from tests.support.live import until
from tests.support.real_proxies import HAPROXY, HOST, answers, listens, needs_haproxy, process
from tests.support.upstreams import Asking

pytestmark = [pytest.mark.live, needs_haproxy]

EXAMPLE = Path(__file__).parents[2] / "examples" / "haproxy-driven.cfg"
CALLERS = 8


class Region:
    """An agent and two instances of each service beside it: processes, so that they can be killed."""

    def __init__(self, agent, services, directory, opened):
        self._agent = agent
        self._directory = directory
        self._opened = opened
        self._processes = {}
        self.ports = {(service, at): free_port() for service in services for at in (1, 2)}
        for (service, at), port in self.ports.items():
            self.start(service, at)
            check = {"http": f"http://{HOST}:{port}/health", "interval": "1s"}
            body = {"service": service, "address": HOST, "port": port, "check": check}
            agent.api.send("PUT", f"/api/instances/{service.replace('.', '-')}-{at}", body)

    def start(self, service, at):
        port = self.ports[service, at]
        arguments = [sys.executable, "-m", "dislocate.fleet.service", HOST, port, port]
        running = self._opened.enter_context(process(arguments, self._directory / f"{port}.log"))
        until("it listens", lambda: listens(port))
        self._processes[service, at] = running

    def kill(self, service):
        """-9, all of them."""
        for (name, _), running in self._processes.items():
            if name == service:
                running.kill()

    def of(self, service):
        return {str(port) for (name, _), port in self.ports.items() if name == service}


@pytest.fixture
def regions(by_hand, tmp_path, opened):
    """Here, with the agent that HAProxy's driver asks, and far away, where the spares are."""
    agents = [by_hand(path).start() for path in ("fra/a1", "wdc/a1")]
    return [Region(agent, ("shop.web", "shop.api"), tmp_path, opened) for agent in agents], agents[0]


def file_in(directory, ports):
    """The example, with a frontend and a backend for each of `ports`, by the backend's name."""
    head, _, sections = EXAMPLE.read_text().replace("/run/haproxy/", f"{directory}/").partition("\nfrontend shop\n")
    file = directory / "haproxy.cfg"
    file.write_text(
        head
        + "".join(
            f"\nfrontend {name}\n{sections}".replace(" shop\n", f" {name}\n").replace(
                "bind :8080", f"bind {HOST}:{port}"
            )
            for name, port in ports.items()
        )
    )
    return file


def ready(runtime, backend, is_backup):
    return {
        str(slot.port) for slot in answers(runtime, backend) if slot.state == "ready" and slot.is_backup == is_backup
    }


def driver(runtime, agent, directory, log, bonds):
    pairs = [word for backend, service in bonds.items() for word in ("--backend", f"{backend}={service}")]
    where = ("--agent", f"unix:{agent.state}/http.sock", "--state-file", f"{directory}/state")
    command = [sys.executable, "-m", "dislocate", "haproxy", "drive", "--socket", runtime.where, *pairs, *where]
    return process(command, log)


@contextmanager
def callers(*ports):
    """`CALLERS` clients of each port, who ask all the time."""
    asking = [Asking(HOST, port) for port in ports for _ in range(CALLERS)]
    try:
        for each in asking:
            each.__enter__()
        yield asking
    finally:
        for each in asking:
            each.__exit__()


def errors(asking):
    return [words for each in asking for words in each.errors]


def test_when_all_local_instances_are_killed_no_caller_notices_and_before_and_after_no_spare_is_asked(
    regions, short, tmp_path, opened
):
    (here, far), agent = regions
    runtime, port = Runtime(f"{short}/admin.sock"), free_port()
    file = file_in(short, {"shop": port})
    opened.enter_context(process([HAPROXY, "-db", "-f", file], tmp_path / "haproxy.log"))
    until("HAProxy answers", lambda: answers(runtime))
    opened.enter_context(driver(runtime, agent, short, tmp_path / "drive.log", {"shop": "shop.web"}))
    local, spare = here.of("shop.web"), far.of("shop.web")

    def is_as_flows_say():
        return (ready(runtime, "shop", False), ready(runtime, "shop", True)) == (local, spare)

    until("who has a part is ordinary, who is spare is a backup", is_as_flows_say)
    with callers(port) as asking:
        for each in asking:
            assert set(each.next(30)) <= local
        here.kill("shop.web")
        for each in asking:
            each.next(2)  # one that was on its way, and one after
        for each in asking:
            assert set(each.next(30)) <= spare
        until("the agent has learned of it", lambda: ready(runtime, "shop", False) == spare)
        for at in (1, 2):
            here.start("shop.web", at)
        until("all is as it was", is_as_flows_say)
        for each in asking:
            each.next(1)
            assert set(each.next(30)) <= local
    assert errors(asking) == []


@pytest.mark.full
def test_a_haproxy_with_two_backends_is_reloaded_again_and_again_while_it_is_driven_and_no_caller_notices(
    regions, short, tmp_path, opened
):
    (here, far), agent = regions
    runtime, ports = Runtime(f"{short}/admin.sock"), {"web": free_port(), "api": free_port()}
    bonds = {"web": "shop.web", "api": "shop.api"}
    file = file_in(short, ports)
    running = opened.enter_context(process([HAPROXY, "-db", "-f", file], tmp_path / "haproxy.log"))
    until("HAProxy answers", lambda: answers(runtime, "web"))
    opened.enter_context(driver(runtime, agent, short, tmp_path / "drive.log", bonds))

    def is_placed(backend, ordinary, backups):
        return (ready(runtime, backend, False), ready(runtime, backend, True)) == (ordinary, backups)

    def is_as_flows_say():
        return all(is_placed(backend, here.of(service), far.of(service)) for backend, service in bonds.items())

    until("both are as flows say", is_as_flows_say)
    with callers(*ports.values()) as asking:
        for draining in (True, False, True, False):
            port = here.ports["shop.web", 1]
            agent.api.send("POST", "/api/instances/shop-web-1/drain", {"draining": draining})
            running = reloaded(running, file, runtime, tmp_path / "haproxy.log", opened)
            left = here.of("shop.web") - ({str(port)} if draining else set())
            until("it follows", lambda left=left: is_placed("web", left, far.of("shop.web")))
            for each in asking:
                each.next(10)
        here.kill("shop.api")
        running = reloaded(running, file, runtime, tmp_path / "haproxy.log", opened)
        until("the spares have their part", lambda: ready(runtime, "api", False) == far.of("shop.api"))
        for each in asking:
            each.next(10)
    assert errors(asking) == []


def reloaded(old, file, runtime, log, opened):
    """As a service manager does: a new process takes over the sockets, and the old one ends with its last connection."""
    arguments = [HAPROXY, "-db", "-f", file, "-x", runtime.where, "-sf", old.pid]
    new = opened.enter_context(process(arguments, log))
    until("the new one answers", lambda: f"Pid: {new.pid}\n" in runtime.ask("show info"))
    return new
