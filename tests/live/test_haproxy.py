"""Real proxies beside a real agent: a HAProxy that is driven and asks, and an nginx that is reloaded, all under load."""

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from dislocate.client.connection import AgentConnection
from dislocate.haproxy.runtime import Runtime
from tests.support.addresses import free_port
from tests.support.live import PATIENCE, command, until
from tests.support.real_proxies import HAPROXY, HOST, NGINX, answers, listens, needs_haproxy, needs_nginx, process
from tests.support.upstreams import Asking, upstream

pytestmark = pytest.mark.live

EXAMPLES = Path(__file__).parents[2] / "examples"


class Shop:
    """An agent and the instances of `shop.web` on its host, real servers all."""

    def __init__(self, agent, opened):
        self.agent = agent
        self.api: AgentConnection = agent.api
        self.ports = [opened.enter_context(upstream(HOST)) for _ in range(3)]
        for at in range(len(self.ports)):
            self.register(at)

    def register(self, at, weight=1):
        body = {"service": "shop.web", "address": HOST, "port": self.ports[at], "weight": weight}
        self.api.send("PUT", f"/api/instances/web-{at}", body)

    def drain(self, at, draining=True):
        self.api.send("POST", f"/api/instances/web-{at}/drain", {"draining": draining})

    def remove(self, at):
        self.api.send("DELETE", f"/api/instances/web-{at}")

    @property
    def where(self):
        return f"unix:{self.agent.state}/http.sock"

    def names(self, *which_):
        return {str(self.ports[at]) for at in which_}


@pytest.fixture
def shop(by_hand, opened):
    return Shop(by_hand("fra/a1").start(), opened)


# ---- HAProxy


def haproxy_file(directory, port, servers):
    file = directory / "haproxy.cfg"
    file.write_text(f"""
global
  stats socket {directory}/admin.sock level admin
  server-state-file {directory}/state
defaults
  mode http
  load-server-state-from-file global
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  option redispatch
  retries 3
frontend shop
  bind {HOST}:{port}
  default_backend shop
backend shop
  balance roundrobin
{servers}
""")
    return file


@needs_haproxy
def test_a_haproxy_under_load_follows_instances_weights_and_drains_without_an_error(shop, short, tmp_path, opened):
    port = free_port()
    file = haproxy_file(short, port, "  server-template s 1-4 127.0.0.1:1 disabled")
    runtime = Runtime(f"{short}/admin.sock")
    drive = ("haproxy", "drive", "--socket", runtime.where, "--backend", "shop=shop.web")
    drive = (*drive, "--state-file", f"{short}/state")

    def ready():
        return {(str(slot.port), slot.weight) for slot in runtime.slots("shop") if slot.state == "ready"}

    def weights():
        return dict(ready())

    with ExitStack() as first:
        first.enter_context(process([HAPROXY, "-db", "-f", file], tmp_path / "haproxy.log"))
        until("HAProxy answers", lambda: answers(runtime))
        assert command(*drive, "--once", agent=shop.where).returncode == 0
        again = command(*drive, "--once", agent=shop.where)
        assert (again.returncode, again.stdout) == (0, ""), again.stderr  # it is so already
        assert weights() == dict.fromkeys(shop.names(0, 1, 2), 256)

        opened.enter_context(
            process([sys.executable, "-m", "dislocate", *drive, "--agent", shop.where], tmp_path / "drive.log")
        )
        with Asking(HOST, port) as asking:
            assert set(asking.next(60)) == shop.names(0, 1, 2)
            shop.register(0, weight=4)
            until("the weight is there", lambda: weights()[str(shop.ports[1])] == 64)
            found = asking.next(120)
            assert found[str(shop.ports[0])] > 2 * found[str(shop.ports[1])], found
            shop.drain(0)
            until("it drains", lambda: str(shop.ports[0]) not in weights())
            asking.next(2)  # those that were on their way
            assert set(asking.next(60)) == shop.names(1, 2)
            shop.remove(1)
            until("it is gone", lambda: set(weights()) == shop.names(2))
            shop.register(1)
            shop.drain(0, draining=False)
            until("all are back", lambda: set(weights()) == shop.names(0, 1, 2))
            assert set(asking.next(60)) == shop.names(0, 1, 2)
            shop.agent.process.kill()  # what HAProxy has holds
            assert set(asking.next(60)) == shop.names(0, 1, 2)
            shop.agent.start()
            shop.drain(2)
            until("the driver is back", lambda: set(weights()) == shop.names(0, 1))
        assert asking.errors == []

    # A HAProxy that begins anew has what the state file kept, and soon what the agent says.
    opened.enter_context(process([HAPROXY, "-db", "-f", file], tmp_path / "haproxy.log"))
    until("HAProxy answers", lambda: answers(runtime))
    assert set(weights()) == shop.names(0, 1)
    shop.drain(2, draining=False)
    until("it follows again", lambda: set(weights()) == shop.names(0, 1, 2))


@needs_haproxy
def test_a_haproxy_that_begins_anew_while_the_agent_is_away_is_given_what_is_known(shop, short, tmp_path, opened):
    file = haproxy_file(short, free_port(), "  server-template s 1-4 127.0.0.1:1 disabled")
    runtime = Runtime(f"{short}/admin.sock")
    arguments = ("haproxy", "drive", "--socket", runtime.where, "--backend", "shop=shop.web", "--agent", shop.where)

    def ready():
        return {str(slot.port) for slot in answers(runtime) if slot.state == "ready"}

    with process([HAPROXY, "-db", "-f", file], tmp_path / "haproxy.log"):
        until("HAProxy answers", lambda: answers(runtime))
        opened.enter_context(process([sys.executable, "-m", "dislocate", *arguments], tmp_path / "drive.log"))
        until("all are in", lambda: ready() == shop.names(0, 1, 2))
    shop.agent.process.kill()
    with process([HAPROXY, "-db", "-f", file], tmp_path / "haproxy.log"):
        until("all are in again", lambda: ready() == shop.names(0, 1, 2))


@needs_haproxy
def test_a_haproxy_that_asks_by_agent_checks_moves_weights_and_states(shop, short, tmp_path, opened):
    port, check = free_port(), free_port()
    asks = f"weight 100 agent-check agent-inter 100ms agent-addr {HOST} agent-port {check}"
    lines = [
        f'  server w{at} {HOST}:{number} {asks} agent-send "shop.web {HOST}:{number}\\n"'
        for at, number in enumerate(shop.ports)
    ]
    file = haproxy_file(short, port, "\n".join(lines))
    shop.register(0, weight=2)
    arguments = ("haproxy", "agent-check", "--listen", f"{HOST}:{check}", "--agent", shop.where)
    opened.enter_context(process([sys.executable, "-m", "dislocate", *arguments], tmp_path / "check.log"))
    until("it listens", lambda: listens(check))
    opened.enter_context(process([HAPROXY, "-db", "-f", file], tmp_path / "haproxy.log"))
    runtime = Runtime(f"{short}/admin.sock")

    until("HAProxy answers", lambda: answers(runtime))

    def seen():
        return [(slot.weight, slot.state) for slot in runtime.slots("shop")]

    until("weights follow", lambda: seen() == [(100, "ready"), (50, "ready"), (50, "ready")])
    with Asking(HOST, port) as asking:
        shop.drain(1)
        until("it drains", lambda: seen()[1][1] == "drain")
        asking.next(2)
        assert set(asking.next(60)) == shop.names(0, 2)
        shop.drain(1, draining=False)
        until("it is back", lambda: seen()[1][1] == "ready")
        assert set(asking.next(60)) == shop.names(0, 1, 2)
    assert asking.errors == []


@needs_haproxy
def test_the_driver_says_what_a_haproxy_lacks(shop, short, tmp_path, opened):
    where = f"{short}/admin.sock"
    drive = ("haproxy", "drive", "--socket", where, "--once", "--backend")
    done = command(*drive, "shop=shop.web", agent=shop.where)
    assert (done.returncode, "no HAProxy at" in done.stderr) == (1, True)
    file = haproxy_file(short, free_port(), "  server-template s 1-2 127.0.0.1:1 disabled")
    opened.enter_context(process([HAPROXY, "-db", "-f", file], tmp_path / "haproxy.log"))
    until("HAProxy answers", lambda: answers(Runtime(where)))
    done = command(*drive, "shop=shop.web", agent=shop.where)
    assert (done.returncode, "1 of shop.web have no slot" in done.stdout) == (0, True), done
    done = command(*drive, "web=shop.web", agent=shop.where)
    assert (done.returncode, "--backend: got 'web'" in done.stderr) == (1, True), done


@needs_haproxy
def test_the_examples_are_files_that_a_haproxy_takes(shop, tmp_path):
    out, head = tmp_path / "shop.cfg", tmp_path / "head.cfg"
    timeouts = "".join(f"  timeout {what} 1s\n" for what in ("connect", "client", "server"))
    head.write_text(f"defaults\n  mode http\n{timeouts}listen all\n  bind 127.0.0.1:1\n")
    template = str(EXAMPLES / "haproxy-backend.cfg.j2")
    shop.api.send("PUT", "/api/instances/api-1", {"service": "shop.api", "address": HOST, "port": 9})
    done = command("watch", "shop.*", "--template", template, "--out", str(out), "--once", agent=shop.where)
    assert done.returncode == 0, done.stderr
    assert out.read_text().count("\n    server fra-a1-") == 4
    for files in ((head, out), (EXAMPLES / "haproxy-driven.cfg",)):
        arguments = [HAPROXY, "-c", *(word for file in files for word in ("-f", str(file)))]
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert done.returncode == 0, done.stderr


# ---- nginx


def nginx_file(directory, port):
    file = directory / "nginx.conf"
    file.write_text(f"""
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  include {directory}/shop.conf;
  server {{
    listen {HOST}:{port};
    location / {{ proxy_pass http://shop_web; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
}}
""")
    return file


@needs_nginx
def test_a_template_keeps_a_real_nginx_as_the_service_is_without_an_error(shop, tmp_path, opened):
    port, out = free_port(), tmp_path / "shop.conf"
    file = nginx_file(tmp_path, port)
    template = EXAMPLES / "nginx-upstream.conf.j2"
    watch = ("watch", "shop.web", "--template", str(template), "--out", str(out))
    done = command(*watch, "--once", agent=shop.where)
    assert done.returncode == 0, done.stderr
    assert out.read_text().count("weight=100") == 3
    opened.enter_context(process([NGINX, "-p", tmp_path, "-c", file, "-e", "stderr"], tmp_path / "nginx.log"))
    until("nginx answers", lambda: listens(port))
    reload = [NGINX, "-p", str(tmp_path), "-c", str(file), "-e", "stderr", "-s", "reload"]
    counted = tmp_path / "reloads"
    script = f"echo >> {counted}; exec {' '.join(reload)}"
    opened.enter_context(
        process(
            [
                sys.executable,
                "-m",
                "dislocate",
                *watch,
                "--agent",
                shop.where,
                "--pause",
                "100ms",
                "--",
                "sh",
                "-c",
                script,
            ],
            tmp_path / "watch.log",
        )
    )
    with Asking(HOST, port) as asking:
        shop.drain(0)
        until("who drains is out of the file", lambda: str(shop.ports[0]) not in out.read_text())
        until("nginx has it", lambda: set(asking.next(20)) == shop.names(1, 2))
        shop.register(1, weight=9)
        until("the weight is there", lambda: "weight=11;" in out.read_text())
        shop.drain(0, draining=False)
        until("all are asked", lambda: set(asking.next(100)) == shop.names(0, 1, 2))
    assert asking.errors == []
    assert len(counted.read_text()) >= 3
    before = counted.read_text()
    shop.api.send("POST", "/api/instances/web-0/load", {"utilization": 0.9, "rate": 3})  # no reason to reload
    shop.drain(2)
    until("the next change is written", lambda: str(shop.ports[2]) not in out.read_text())
    until("one reload more", lambda: len(counted.read_text()) == len(before) + 1)


def test_a_template_that_cannot_be_rendered_says_where_and_leaves_the_old_file(shop, tmp_path):
    template, out = tmp_path / "t.j2", tmp_path / "out"
    out.write_text("as it was")
    template.write_text("{% for s in service.servers %}\n{{ s.adress }}\n{% endfor %}")
    done = command("watch", "shop.web", "--template", str(template), "--out", str(out), "--once", agent=shop.where)
    assert (done.returncode, out.read_text()) == (1, "as it was")
    assert "t.j2, line 2" in done.stderr
    assert "did you mean 'address'?" in done.stderr
