"""Processes that the agent runs: rolled from version to version, kept alive, adopted, and taken back; real services.

The catalog is of the test; the clients are greenlets that ask whichever instance it sends them to."""

import http.client
import json
import os
import signal
import sys

import gevent
import pytest
from gevent import socket

from dislocate.core.boundary.effects import CancelTask
from dislocate.core.boundary.requests import Deregister, SetDraining
from dislocate.core.boundary.runs import TaskResult, TaskVerb
from dislocate.core.boundary.spec import Process
from dislocate.core.boundary.values import Status
from dislocate.core.units import MILLISECOND, SECOND
from dislocate.host import supervise
from dislocate.host.instances import Instance, end_processes, read_instances
from dislocate.host.logs import rotate
from dislocate.host.supervise import pause_before_restart
from tests.support.hosted import PATIENCE, Hosted, until
from tests.support.tiny_catalog import TinyCatalog

SERVICE = (sys.executable, "-m", "dislocate.fleet.service", "127.0.0.1", "{port}")


def web(version: str, **fields) -> Process:
    settled = {
        "name": "web",
        "run": (*SERVICE, version),
        "service": "shop.web",
        "health": "/health",
        "count": 2,
        "drain_for": 300 * MILLISECOND,
        "ready_within": int(PATIENCE * SECOND),
        "timeout": int(2 * PATIENCE * SECOND),
        "environment": {"PYTHONPATH": os.pathsep.join(sys.path)},
    }
    return Process(**settled | fields)


def broken(**fields) -> Process:
    return web("", run=("sh", "-c", "echo this version is broken; exit 3"), **fields)


class Agents:
    """The agent of one state directory, which may end and start again."""

    def __init__(self, state_dir) -> None:
        self.state_dir = state_dir
        self.catalog = TinyCatalog()
        self.host = self.start()

    def start(self) -> Hosted:
        self.host = Hosted(self.state_dir, self.catalog.ask, instances=self.catalog.instances)
        self.host.tasks.start()
        return self.host

    def instances(self) -> list[Instance]:
        return read_instances(self.state_dir / "processes" / "web")

    def pids(self) -> list[int]:
        return [instance.record.pid for instance in self.instances() if instance.is_running]

    def forge(self, instance: Instance, **changes: int) -> None:
        """Its record as an earlier agent might have left it."""
        path = self.state_dir / "processes" / "web" / f"{instance.port}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    def end(self) -> None:
        self.host.stop()
        end_processes(self.state_dir)


@pytest.fixture
def agents(tmp_path):
    agents = Agents(tmp_path / "state")
    yield agents
    agents.end()


@pytest.fixture
def swift(monkeypatch):
    """Restarts follow each other without a wait that a test would have to share."""
    monkeypatch.setattr(supervise, "BACKOFF_MIN", 0.05)


def get(port: int, path: str = "/") -> str:
    with socket.create_connection(("127.0.0.1", port)) as sock:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.sock = sock
        connection.request("GET", path, headers={"Connection": "close"})
        answer = connection.getresponse()
        assert answer.status == 200
        return answer.read().decode().strip()


def answers(agents) -> set[str]:
    return {get(port) for port in agents.catalog.ports("shop.web")}


class Clients:
    """Ask without a pause, each time an instance that the catalog has at that moment."""

    def __init__(self, agents) -> None:
        self.heard: list[str] = []
        self.failures: list[BaseException] = []
        self._agents = agents
        self._greenlets = [gevent.spawn(self._ask, number) for number in range(3)]

    def _ask(self, number: int) -> None:
        while True:
            ports = self._agents.catalog.ports("shop.web")
            number += 1
            try:
                self.heard.append(get(ports[number % len(ports)]))
            except Exception as error:  # noqa: BLE001 - any of them is what this test is about
                self.failures.append(error)
            gevent.sleep(0.005)

    def stop(self) -> None:
        gevent.killall(self._greenlets)


def test_a_process_is_started_registered_and_told_its_port(agents):
    looked = agents.host.look(web("v1"))
    assert (looked.result, looked.before) == (TaskResult.WOULD_CHANGE, "absent")
    assert agents.instances() == []
    applied = agents.host.apply(web("v1"))
    assert applied.result is TaskResult.CHANGED
    assert (applied.before, applied.after) == (looked.before, looked.after)
    assert len(agents.catalog.ports("shop.web")) == 2
    assert answers(agents) == {"v1"}
    assert sorted(agents.catalog.specs) == sorted(f"web-{one.port}" for one in agents.instances())
    assert agents.host.look(web("v1")).result is TaskResult.SAME
    pids = agents.pids()
    assert agents.host.apply(web("v1")).result is TaskResult.SAME
    assert agents.pids() == pids


def test_it_may_find_its_port_and_address_in_its_environment(agents):
    program = (
        "import os, http.server\n"
        "TOLD = ' '.join(os.environ[name] for name in ('COLOR', 'DISLOCATE_REGISTERED', 'DISLOCATE_AGENT'))\n"
        "class H(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self): self.send_response(200); self.end_headers(); self.wfile.write(TOLD.encode())\n"
        "http.server.HTTPServer((os.environ['ADDRESS'], int(os.environ['PORT'])), H).serve_forever()\n"
    )
    agents.host.apply(
        web("", run=(sys.executable, "-c", program), environment={"COLOR": "{{ key('c') }}"}), values={"c": "blue"}
    )
    agent = f"unix:{agents.state_dir}/http.sock"
    assert answers(agents) == {f"blue shop.web web-{one.port} {one.port} {agent}" for one in agents.instances()}


def test_a_new_version_takes_over_and_no_client_notices(agents):
    agents.host.apply(web("v1"), run="1")
    old = agents.pids()
    clients = Clients(agents)
    until(lambda: len(clients.heard) > 20)
    outcome = agents.host.apply(web("v2"), run="2")
    asked = len(clients.heard)
    until(lambda: len(clients.heard) > asked + 20)
    agents.host.revert(web("v2"), run="2")
    asked = len(clients.heard)
    until(lambda: len(clients.heard) > asked + 20)
    clients.stop()
    assert outcome.result is TaskResult.CHANGED
    assert clients.failures == []
    assert list(dict.fromkeys(clients.heard))[:2] == ["v1", "v2"]
    assert clients.heard[-1] == "v1"
    assert answers(agents) == {"v1"}
    assert len(agents.instances()) == 2
    assert not set(old) & set(agents.pids())


def test_the_old_ones_are_drained_deregistered_and_only_then_ended(agents):
    agents.host.apply(web("v1", count=1))
    (old,) = agents.instances()
    alive_when: dict[type, bool] = {}
    ask = agents.catalog.ask

    def noted(request):
        if isinstance(request, SetDraining | Deregister):
            alive_when[type(request)] = old.is_running and len(agents.catalog.ports("shop.web")) > 0
        return ask(request)

    agents.catalog.ask = noted
    agents.host.stop()
    agents.start()
    agents.host.apply(web("v2", count=1))
    assert alive_when == {SetDraining: True, Deregister: True}
    assert not old.is_running


def test_a_version_that_ends_at_once_leaves_the_old_one_as_it_was(agents):
    agents.host.apply(web("v1"), run="1")
    pids, ports = agents.pids(), agents.catalog.ports("shop.web")
    before = agents.host.look(web("v1")).before
    outcome = agents.host.apply(broken(), run="2")
    assert (outcome.result, outcome.kind) == (TaskResult.FAILED, "verify")
    assert "ended with exit 3" in outcome.words
    assert "this version is broken" in outcome.words
    assert (agents.pids(), agents.catalog.ports("shop.web")) == (pids, ports)
    assert agents.host.look(web("v1")).before == before
    assert len(agents.instances()) == 2


def test_a_version_that_never_passes_is_ended_in_time_and_the_old_one_stays(agents):
    agents.host.apply(web("v1"))
    pids = agents.pids()
    outcome = agents.host.apply(
        web("v2", health="/no-such-path-passes", ready_within=500 * MILLISECOND, run=("sleep", "1000"))
    )
    assert (outcome.result, outcome.kind) == (TaskResult.FAILED, "verify")
    assert "was not ready in time" in outcome.words
    assert agents.pids() == pids


def test_while_the_catalog_does_not_see_it_pass_nobody_is_taken_away(agents, monkeypatch):
    agents.host.apply(web("v1"))
    pids = agents.pids()
    agents.host.stop()
    monkeypatch.setattr(agents.catalog, "instances", lambda service: ())
    agents.start()
    task_id = agents.host.begin(TaskVerb.APPLY, web("v2"))
    until(lambda: len(agents.catalog.specs) == 4)  # so it passes here
    gevent.sleep(0.3)
    assert not any(isinstance(asked, SetDraining) for asked in agents.catalog.asked)
    assert set(pids) < set(agents.pids())
    agents.host.tasks.cancel(CancelTask(task_id))
    until(lambda: len(agents.instances()) == 2)
    assert agents.pids() == pids
    assert sorted(agents.catalog.specs) == sorted(instance.id for instance in agents.instances())


def test_a_change_that_nobody_waits_for_any_more_is_given_up(agents):
    agents.host.apply(web("v1"))
    pids = agents.pids()
    task_id = agents.host.begin(TaskVerb.APPLY, web("v2", run=("sleep", "1000")))
    until(lambda: len(agents.pids()) == 4)
    agents.host.tasks.cancel(CancelTask(task_id))
    until(lambda: len(agents.instances()) == 2)
    assert agents.pids() == pids
    assert answers(agents) == {"v1"}


def test_a_revert_of_the_first_version_ends_it(agents):
    agents.host.apply(web("v1"))
    pids = agents.pids()
    outcome = agents.host.revert(web("v1"))
    assert (outcome.result, outcome.after) == (TaskResult.CHANGED, "absent")
    assert agents.instances() == []
    assert agents.catalog.specs == {}
    assert not any(os.path.exists(f"/proc/{pid}/fd/1") for pid in pids)


def test_a_service_that_is_not_registered_is_judged_by_its_port(agents):
    outcome = agents.host.apply(web("v1", service="", health="", count=1))
    assert outcome.result is TaskResult.CHANGED
    assert agents.catalog.asked == []
    (instance,) = agents.instances()
    assert get(instance.port) == "v1"


def test_another_count_starts_or_ends_only_the_difference(agents):
    agents.host.apply(web("v1", count=1), run="1")
    (first,) = agents.pids()
    assert "without a restart" in agents.host.apply(web("v1", count=3), run="2").words
    assert len(agents.pids()) == 3
    assert first in agents.pids()
    agents.host.apply(web("v1", count=1), run="3")
    assert agents.pids() == [first]
    assert len(agents.catalog.ports("shop.web")) == 1


def test_too_few_ports_are_refused_before_anything_is_started(agents):
    probe = socket.socket()
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
    probe.close()
    outcome = agents.host.apply(web("v1", ports=(port,)))
    assert (outcome.result, outcome.kind) == (TaskResult.FAILED, "apply")
    assert "needs 2 free ports and has 1" in outcome.words
    assert agents.instances() == []
    agents.host.apply(web("v1", ports=(port,), count=1))
    assert [instance.port for instance in agents.instances()] == [port]
    assert "has 0 of" in agents.host.apply(web("v2", ports=(port,), count=1)).words


def test_a_name_that_would_leave_its_directory_is_refused(agents):
    for name in ("../x", "a/b", "", ".hidden"):
        assert "no name of a process" in agents.host.look(web("v1", name=name)).words


# ---- lives and deaths


def test_one_that_dies_is_started_again_on_its_port(agents, swift):
    agents.host.apply(web("v1", count=1))
    (port,) = agents.catalog.ports("shop.web")
    (pid,) = agents.pids()
    os.kill(pid, signal.SIGKILL)
    (new,) = until(lambda: [one for one in agents.pids() if one != pid])
    assert new != pid
    until(lambda: accepts(port))
    assert get(port) == "v1"


def accepts(port: int) -> bool:
    try:
        return get(port, "/health") == "ok"
    except OSError:
        return False


def test_one_that_ignores_sigterm_is_killed_with_its_children(agents, tmp_path):
    program = (
        "import os, signal, subprocess, sys\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"open({str(tmp_path / 'child')!r}, 'w').write(str(subprocess.Popen(['sleep', '1000']).pid))\n"
        "from http.server import HTTPServer, SimpleHTTPRequestHandler as H\n"
        "HTTPServer(('127.0.0.1', int(os.environ['PORT'])), H).serve_forever()\n"
    )
    resource = web("", run=(sys.executable, "-c", program), health="", count=1, stop_within=200 * MILLISECOND)
    agents.host.apply(resource)
    (pid,) = agents.pids()
    child = int((tmp_path / "child").read_text())
    agents.host.revert(resource)
    until(lambda: not os.path.exists(f"/proc/{pid}/exe") and not os.path.exists(f"/proc/{child}/exe"))


def test_processes_outlive_the_agent_and_the_next_one_adopts_them(agents, swift):
    agents.host.apply(web("v1"))
    pids, ports = agents.pids(), agents.catalog.ports("shop.web")
    agents.host.stop()
    assert answers(agents) == {"v1"}
    agents.start()
    assert agents.host.apply(web("v1")).result is TaskResult.SAME
    assert agents.pids() == pids
    os.kill(pids[0], signal.SIGKILL)
    until(lambda: len(agents.pids()) == 2 and agents.pids() != pids)
    until(lambda: all(accepts(port) for port in ports))
    agents.host.apply(web("v2"))
    assert answers(agents) == {"v2"}
    assert len(agents.instances()) == 2


def test_one_that_died_while_there_was_no_agent_is_started_by_the_next(agents):
    agents.host.apply(web("v1", count=1))
    (pid,) = agents.pids()
    agents.host.stop()
    os.kill(pid, signal.SIGKILL)
    until(lambda: agents.pids() == [])
    agents.start()
    until(lambda: agents.pids())
    assert agents.pids() != [pid]


def test_another_process_with_the_number_of_one_that_died_is_never_touched(agents):
    agents.host.apply(web("v1", count=1))
    (pid,) = agents.pids()
    agents.host.stop()
    (instance,) = agents.instances()
    os.kill(pid, signal.SIGKILL)
    until(lambda: not instance.is_running)
    agents.forge(instance, pid=os.getpid(), started=1)  # this test, as if the number had been given out again
    (again,) = agents.instances()
    assert not again.is_running
    again.end()
    assert os.getpid() > 0


def test_a_roll_that_a_death_cut_short_is_cleared_away_by_the_next_agent(agents):
    agents.host.apply(web("v1"), run="1")
    pids = agents.pids()
    agents.host.begin(TaskVerb.APPLY, web("v2", run=("sleep", "1000")), run="2")
    until(lambda: len(agents.pids()) == 4)
    agents.host.stop()  # and its answer is never delivered
    assert len(agents.pids()) == 4
    agents.start()
    until(lambda: len(agents.instances()) == 2)
    assert agents.pids() == pids
    assert answers(agents) == {"v1"}
    looked = agents.host.look(web("v2"), run="2")
    assert looked.before == agents.host.look(web("v1")).before  # so the worker applies it again
    agents.host.apply(web("v2"), run="2")
    agents.host.revert(web("v2"), run="2")
    assert answers(agents) == {"v1"}


def test_a_roll_that_was_decided_when_the_agent_died_is_finished_by_the_next(agents):
    agents.host.apply(web("v1", drain_for=int(PATIENCE * SECOND)), run="1")
    old = agents.pids()
    agents.host.begin(TaskVerb.APPLY, web("v2"), run="2")
    until(lambda: Status.DRAINING in agents.catalog.status.values())
    agents.host.stop()
    assert set(old) < set(agents.pids())
    for instance in agents.instances():
        agents.forge(instance, drain_for=0)
    agents.start()
    until(lambda: len(agents.instances()) == 2)
    assert not set(old) & set(agents.pids())
    assert answers(agents) == {"v2"}
    assert agents.host.look(web("v2")).result is TaskResult.SAME


def test_one_that_was_started_and_not_noted_is_found_by_its_mark(agents):
    agents.host.apply(web("v1", count=1))
    (pid,) = agents.pids()
    agents.host.stop()
    (instance,) = agents.instances()
    agents.forge(instance, pid=0, started=0)
    agents.start()
    until(lambda: agents.pids())
    assert agents.pids() == [pid]


# ---- secrets and logs


def test_a_secret_reaches_the_process_and_nothing_else(agents, caplog):
    program = (
        "import os, http.server\n"
        "print('my password is', os.environ['PASSWORD'], flush=True)\n"
        "class H(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        self.send_response(200); self.end_headers(); self.wfile.write(os.environ['PASSWORD'].encode())\n"
        "http.server.HTTPServer(('127.0.0.1', int(os.environ['PORT'])), H).serve_forever()\n"
    )
    environment = {"PASSWORD": "{{ secret('db/password') }}"}
    resource = web("", run=(sys.executable, "-c", program), count=1, environment=environment)
    secrets = {"db/password": "correct horse"}
    looked = agents.host.look(resource, secrets=secrets)
    assert "environment PASSWORD: <secret db/password #" in looked.diff
    assert agents.host.apply(resource, secrets=secrets).result is TaskResult.CHANGED
    assert agents.host.look(resource, secrets=secrets).result is TaskResult.SAME  # though it is sealed anew
    assert answers(agents) == {"correct horse"}
    failing = web("", run=("sh", "-c", "echo $PASSWORD; exit 1"), count=1, environment=environment)
    failed = agents.host.apply(failing, run="2", secrets=secrets)
    assert "<secret db/password #" in failed.words
    rotated = agents.host.look(resource, secrets={"db/password": "battery staple"})
    assert rotated.result is TaskResult.WOULD_CHANGE
    directory = agents.state_dir / "processes" / "web"
    assert b"horse" not in (directory / "definition").read_bytes()
    assert (directory / "log").stat().st_mode & 0o077 == 0
    for said in (looked, failed, rotated):
        assert "horse" not in said.words + said.diff
    assert "horse" not in caplog.text
    agents.host.stop()
    os.kill(agents.pids()[0], signal.SIGKILL)
    until(lambda: agents.pids() == [])
    agents.start()  # the secret is opened again, from the definition
    until(lambda: agents.pids())
    until(lambda: accepts_any(agents))
    assert answers(agents) == {"correct horse"}


def test_the_end_of_a_log_shows_no_part_of_a_secret_not_of_the_version_before_either(agents):
    environment = {"TOKEN": "{{ secret('shop/token') }}", "KEY": "{{ secret('shop/key') }}"}
    old, new, key = "0ld-v4lue-0f-it", "abcdefghijklmnopqrstuvwxyz0123", "f1rst l1ne\nxyz\nan0ther l1ne"
    program = "while true; do echo old=$TOKEN; sleep 0.01; done & exec " + " ".join((*SERVICE, "v1"))
    running = web("", run=("sh", "-c", program), count=1, environment=environment | web("").environment)
    assert agents.host.apply(running, secrets={"shop/token": old, "shop/key": key}).result is TaskResult.CHANGED
    for length in range(990, 1_030, 8):
        script = f'echo "$TOKEN $KEY"; head -c {length} /dev/zero | tr "\\0" y; echo; sleep 0.1; exit 3'
        failing = web("", run=("sh", "-c", script), count=1, environment=environment)
        failed = agents.host.apply(failing, run=str(length), secrets={"shop/token": new, "shop/key": key})
        assert "Its log ends: " in failed.words
        for part in ("0ld", "v4lue", "-it", "abcdefgh", "0123", "f1rst", "xyz", "an0ther", "l1ne"):
            assert part not in failed.words


def accepts_any(agents) -> bool:
    try:
        return bool(answers(agents))
    except OSError:
        return False


def test_a_log_that_grows_is_moved_aside_while_it_is_written(tmp_path):
    path = tmp_path / "log"
    with path.open("ab") as log:
        log.write(b"x" * 100)
        log.flush()
        rotate(path, limit=200)
        assert path.stat().st_size == 100
        log.write(b"y" * 150)
        log.flush()
        rotate(path, limit=200)
        log.write(b"after")
        log.flush()
    assert path.read_bytes() == b"after"
    assert path.with_name("log.1").read_bytes() == b"x" * 100 + b"y" * 150


def test_restarts_of_one_that_always_dies_come_ever_more_seldom():
    pauses, pause = [], 0.0
    for _ in range(8):
        pause = pause_before_restart(pause, lived=0.1)
        pauses.append(pause)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    assert pause_before_restart(60, lived=3_600) == 1
