"""The API over real sockets: kept connections, trust by place, hostile and slow clients, listeners that are taken."""

import hashlib
import os
import socket
import stat

import gevent
import msgspec
import pytest
from gevent import socket as gsocket

from dislocate.core.boundary.requests import Register
from dislocate.core.errors import ConfigError
from dislocate.edge.http import app as app_module
from dislocate.edge.http import server as server_module
from dislocate.edge.http import services as services_module
from dislocate.edge.http.access import PEER_UID, Access, Role, Token, load_tokens
from dislocate.edge.http.app import make_app
from dislocate.edge.http.server import HttpServer
from dislocate.edge.metrics import EdgeCounters
from dislocate.host.templates import references
from tests.support.api_client import ApiClient, Connection
from tests.support.fake_backend import SELF, FakeBackend, instance

WEB = {"service": "shop.web", "port": 8080}
COMMAND = {**WEB, "check": {"command": ["/bin/true"]}}


class Served:
    """One agent's API on a free port and a unix socket."""

    def __init__(self, directory, access=None):
        self.backend = FakeBackend()
        self.backend.put(instance())
        self.counters = EdgeCounters()
        self.path = str(directory / "http.sock")
        app = make_app(self.backend, SELF, access or Access(), self.counters, references=references)
        self.server = HttpServer(app, self.counters, addresses=(("127.0.0.1", 0),), socket_path=self.path)
        self.server.start()
        self.address = ("127.0.0.1", self.server.ports[0])

    def connect(self):
        return gsocket.create_connection(self.address, timeout=60)


@pytest.fixture
def served(tmp_path):
    served = Served(tmp_path)
    yield served
    served.server.stop(timeout=0.1)


def received(connection):
    """Everything until the server hangs up."""
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


# ---- connections


def test_one_connection_serves_many_requests_and_sends_without_delay(served):
    connection = Connection(served.address)
    for _ in range(20):
        status, answer = connection.ask("GET", "/api/services/shop.web")
        assert (status, answer["index"]) == (200, 1)
    (listener,) = [each for each in served.server._listeners if each.family == socket.AF_INET]
    assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


def test_others_are_answered_while_a_long_poll_waits(served):
    poll = gevent.spawn(Connection(served.address).ask, "GET", "/api/services/shop.web?index=1&wait=30s")
    assert Connection(served.address).ask("GET", "/api/health")[0] == 200
    served.backend.put(instance(weight=9))
    status, answer = poll.get(timeout=60)
    assert (status, answer["index"]) == (200, 2)


def test_a_watch_streams_over_http_and_its_slot_is_free_when_the_reader_is_gone(served):
    connection = served.connect()
    connection.sendall(b"GET /api/watch HTTP/1.1\r\nHost: localhost\r\n\r\n")
    seen = b""
    while b"event: service\nid: 1\n" not in seen:
        seen += connection.recv(65536)
    connection.close()
    with gevent.Timeout(60):
        while served.backend.listeners:  # noticed at the next event that cannot be delivered
            served.backend.put(instance())
            gevent.sleep(0.01)


def test_a_long_poll_whose_caller_hung_up_ends_soon(served, monkeypatch):
    monkeypatch.setattr(services_module, "LOOK_EVERY", 0.02)
    staying = gevent.spawn(Connection(served.address).ask, "GET", "/api/services/shop.web?index=1&wait=300ms")
    leaving = served.connect()
    leaving.sendall(b"GET /api/services/shop.web?index=1&wait=10m HTTP/1.1\r\nHost: localhost\r\n\r\n")
    with gevent.Timeout(60):
        while len(served.backend.asked) < 4:
            gevent.sleep(0.005)
        leaving.close()
        while served.counters.total("http_requests") < 1:
            gevent.sleep(0.005)
    assert staying.get(timeout=60)[1]["index"] == 1


def test_a_chunked_body_registers_and_an_endless_one_is_cut_off_with_413(served):
    body = msgspec.json.encode(WEB)
    head = b"PUT /api/instances/web-1 HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    connection = served.connect()
    connection.sendall(head + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
    assert b"200 OK" in connection.recv(65536)
    assert isinstance(served.backend.asked[-1], Register)

    def pour():
        chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
        try:
            while True:
                connection.sendall(chunk)
        except OSError:
            return

    connection.sendall(head)
    pouring = gevent.spawn(pour)
    assert b"413" in connection.recv(65536)
    pouring.join(timeout=60)
    assert pouring.ready()


def test_a_declared_body_that_is_too_large_is_413_and_ends_the_connection(served):
    connection = served.connect()
    connection.sendall(b"PUT /api/instances/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2000000\r\n\r\n")
    connection.shutdown(socket.SHUT_WR)
    answer = received(connection)
    assert b"413" in answer
    assert b"connection: close" in answer


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1\r\n\r\n",
        b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
        b"PUT /api/instances/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_what_is_no_http_is_answered_by_4xx_and_no_trace(served, garbage, capfd):
    connection = served.connect()
    connection.sendall(garbage)
    connection.shutdown(socket.SHUT_WR)
    assert received(connection)[9:10] == b"4"
    assert "Traceback" not in capfd.readouterr().err
    assert Connection(served.address).ask("GET", "/api/health")[0] == 200


@pytest.mark.parametrize(
    ("head", "status", "words"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n", 400, "Content-Length: -5"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\na: " + b"b" * 66_000 + b"\r\n\r\n", 400, "Line too long"),
        (b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\n\r\n", 414, "too long"),
    ],
    ids=["a negative length", "a header of 66 KB", "a line of 9 KB"],
)
def test_a_head_that_cannot_be_read_is_answered_by_a_problem_that_says_why(served, head, status, words):
    connection = served.connect()
    connection.sendall(head)
    top, _, body = received(connection).partition(b"\r\n\r\n")
    assert top.startswith(b"HTTP/1.1 %d " % status)
    assert b"application/problem+json" in top
    problem = msgspec.json.decode(body)
    assert problem["status"] == status
    assert words in problem["detail"]


def test_who_sends_its_headers_too_slowly_is_sent_away(served, monkeypatch):
    monkeypatch.setattr(server_module, "HEAD_WITHIN", 0.05)
    connection = served.connect()
    connection.sendall(b"GET / HTTP/1.1\r\nHost: loc")
    assert b"400" in received(connection)


def test_who_sends_nothing_is_sent_away_quietly(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(server_module, "IDLE", 0.05)
    served = Served(tmp_path)
    assert received(served.connect()) == b""
    assert capfd.readouterr().err == ""
    served.server.stop(timeout=0.1)


def test_a_body_that_does_not_come_is_408(served, monkeypatch):
    monkeypatch.setattr(app_module, "BODY_WITHIN", 0.05)
    monkeypatch.setattr(server_module, "DISCARD_WITHIN", 0.05)
    connection = served.connect()
    connection.sendall(b"PUT /api/instances/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{")
    assert b"408" in received(connection)


def test_a_watcher_that_takes_nothing_is_dropped(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(server_module, "IDLE", 0.1)
    served = Served(tmp_path)
    connection = served.connect()
    connection.sendall(b"GET /api/watch HTTP/1.1\r\nHost: localhost\r\n\r\n")
    with gevent.Timeout(60):
        while not served.backend.listeners:
            gevent.sleep(0.005)
        while served.backend.listeners:
            served.backend.put(instance(meta={"long": "x" * 1_000_000}))
            gevent.sleep(0.005)
    assert served.counters.total("http_rejected_connections") == 1
    assert "Traceback" not in capfd.readouterr().err
    served.server.stop(timeout=0.1)


# ---- listeners


def test_a_port_that_is_taken_is_an_error_with_its_setting_and_mend(served, tmp_path):
    with pytest.raises(ConfigError) as caught:
        HttpServer(lambda *_: [], EdgeCounters(), addresses=(served.address,), socket_path=str(tmp_path / "b.sock"))
    assert caught.value.field == "ports.http"
    assert "a free port" in caught.value.expected
    assert not (tmp_path / "b.sock").exists()


def test_an_address_of_another_host_is_an_error_that_says_so():
    with pytest.raises(ConfigError, match="an address of this host"):
        HttpServer(lambda *_: [], EdgeCounters(), addresses=(("192.0.2.1", 0),))


def test_the_socket_of_a_dead_agent_is_replaced_and_that_of_a_living_one_is_not(served, tmp_path):
    stale = tmp_path / "stale.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(stale))
    again = HttpServer(lambda *_: [], EdgeCounters(), addresses=(), socket_path=str(stale))
    again.stop()
    with pytest.raises(ConfigError, match="another agent answers"):
        HttpServer(lambda *_: [], EdgeCounters(), addresses=(), socket_path=served.path)
    plain = tmp_path / "notes.txt"
    plain.write_text("mine")
    with pytest.raises(ConfigError, match="no socket"):
        HttpServer(lambda *_: [], EdgeCounters(), addresses=(), socket_path=str(plain))
    with pytest.raises(ConfigError, match="shorter"):
        HttpServer(lambda *_: [], EdgeCounters(), addresses=(), socket_path=str(tmp_path / ("x" * 120)))


def test_the_unix_socket_is_for_its_user_and_group_and_goes_with_the_server(tmp_path):
    served = Served(tmp_path)
    assert stat.S_IMODE(os.stat(served.path).st_mode) == 0o660
    served.server.stop(timeout=0.1)
    assert not os.path.exists(served.path)


# ---- trust


def test_loopback_may_write_but_only_the_agent_s_own_user_may_have_commands_run(served):
    status, problem = Connection(served.address).ask("PUT", "/api/instances/web-1", COMMAND)
    assert status == 403
    assert "'operate'" in problem["expected"]
    assert "http.sock" in problem["expected"]
    assert Connection(served.path).ask("PUT", "/api/instances/web-1", COMMAND)[0] == 200


def test_another_user_on_the_unix_socket_has_the_role_of_loopback():
    access = Access(loopback=Role.READ, uid=1000)
    assert access.role_of({PEER_UID: 1001}) is Role.READ
    assert access.role_of({PEER_UID: 1000}) is Role.OPERATE
    assert access.role_of({PEER_UID: 0}) is Role.OPERATE


@pytest.fixture
def guarded(tmp_path):
    """An API that a token with each role may ask from anywhere."""
    entries = [
        f'[[token]]\nname = "t"\nrole = "{role.label}"\nsha256 = "{hashlib.sha256(role.label.encode()).hexdigest()}"\n'
        for role in Role
    ]
    path = tmp_path / "tokens.toml"
    path.write_text("\n".join(entries))
    api = ApiClient(FakeBackend(), Access(loopback=Role.READ, tokens=load_tokens(str(path)), names=("a1.example",)))
    api.environ = {"REMOTE_ADDR": "10.9.9.9"}
    return api


@pytest.mark.parametrize(
    ("method", "path", "body", "needed"),
    [
        ("GET", "/api/health", None, Role.READ),
        ("PUT", "/api/instances/a", WEB, Role.REGISTER),
        ("POST", "/api/instances/a/drain", None, Role.WRITE),
        ("POST", "/api/leave", None, Role.WRITE),
        ("PUT", "/api/instances/a", COMMAND, Role.OPERATE),
    ],
)
def test_each_role_may_do_what_it_may_and_the_refusal_says_which_is_needed(guarded, method, path, body, needed):
    assert guarded.problem(method, path, body).status == 401
    for role in Role:
        header = {"Authorization": f"Bearer {role.label}"}
        if role >= needed:
            assert guarded.ask(method, path, body, **header).status_code == 200
        else:
            problem = guarded.problem(method, path, body, **header)
            assert problem.status == 403
            assert f"this connection has '{role.label}'" in problem.detail


def test_a_wrong_token_is_401_even_where_none_is_needed(guarded):
    guarded.environ = {"REMOTE_ADDR": "127.3.2.1"}
    assert guarded.ask("GET", "/api/health").status_code == 200
    result = guarded.ask("GET", "/api/health", Authorization="Bearer guess")
    assert (result.status_code, result.headers["www-authenticate"]) == (401, 'Bearer realm="dislocate"')


def test_a_token_takes_no_rights_away():
    token = {hashlib.sha256(b"low").hexdigest(): Token("low", Role.READ)}
    environ = {"REMOTE_ADDR": "::1", "HTTP_AUTHORIZATION": "Bearer low"}
    assert Access(tokens=token).role_of(environ) is Role.WRITE


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("127.0.1.2:49700", 200),
        ("[::1]:49700", 200),
        ("a1.example:49700", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("127.1:49700", 403),
    ],
)
def test_a_name_that_is_not_ours_in_host_is_dns_rebinding(guarded, host, status):
    guarded.environ = {"REMOTE_ADDR": "127.0.0.1"}
    assert guarded.ask("GET", "/api/health", Host=host).status_code == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://localhost:49700"}, 200),
        ({"Origin": "http://localhost:3000"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://[::1"}, 403),
        ({"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors"}, 403),
        ({"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"}, 200),
        ({"Sec_Fetch_Site": "same-origin"}, 200),
    ],
)
def test_pages_of_other_sites_may_not_ask(guarded, headers, status):
    guarded.environ = {"REMOTE_ADDR": "127.0.0.1"}
    assert guarded.ask("GET", "/api/health", **headers).status_code == status


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("[[token]]\nname = 'a'\nrole = 'reed'\nsha256 = '" + "0" * 64 + "'", "tokens_file: token[0].role"),
        ("[[token]]\nname = 'a'\nrole = 'read'\nsha256 = 'secret'", "tokens_file: token[0].sha256"),
        ("[[token]]\nname = 'a'\nrole = 'read'", "tokens_file: token[0]"),
        ("[[tokens]]\n", "security.tokens_file"),
        ("token = [", "security.tokens_file"),
    ],
)
def test_a_wrong_tokens_file_names_the_place_and_no_secret(tmp_path, text, field):
    path = tmp_path / "tokens.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_tokens(str(path))
    assert caught.value.field == field
    assert "secret" not in str(caught.value.got)
