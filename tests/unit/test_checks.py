"""Health checks against real servers on loopback and real processes."""

import os
import sys

import gevent
import pytest
from gevent import socket, ssl
from gevent.pywsgi import WSGIServer
from gevent.server import StreamServer

from dislocate.core.boundary.values import CheckSpec, Status
from dislocate.core.units import MILLISECOND, SECOND
from dislocate.host.checks import OUTPUT_LIMIT, run_check
from dislocate.host.facts import count_processors, find_own_address, read_facts, read_load
from tests.support.addresses import own_host

PATIENCE = 60 * SECOND  # for what is to pass, on a machine as busy as it may be


def python(program: str, **fields: object):
    return run_check(CheckSpec(command=(sys.executable, "-c", program), **{"timeout": PATIENCE, **fields}))


@pytest.fixture
def web():
    """An HTTP server: /STATUS answers with that status, /slow not in time, anything with 'I am well'."""

    def respond(environ, start_response):
        path = environ["PATH_INFO"].strip("/")
        if path == "slow":
            gevent.sleep(30)
        start_response(f"{path if path.isdigit() else 200} Said", [("Content-Type", "text/plain")])
        return [b"I am well"]

    server = WSGIServer(("127.0.0.1", 0), respond, log=None)
    server.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.stop(timeout=0)


def test_an_open_port_passes_and_a_closed_one_is_critical():
    server = StreamServer((own_host(), 0), lambda connection, _: connection.close())
    server.start()
    spec = CheckSpec(tcp=f"{own_host()}:{server.server_port}", timeout=PATIENCE)
    assert run_check(spec).status is Status.PASSING
    server.stop(timeout=0)
    outcome = run_check(spec)
    assert (outcome.status, outcome.output) == (Status.CRITICAL, "Connection refused")


def test_a_unix_socket_is_checked_by_its_path(tmp_path):
    path = tmp_path / "app.sock"
    assert run_check(CheckSpec(tcp=f"unix:{path}")).status is Status.CRITICAL
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()
        assert run_check(CheckSpec(tcp=f"unix:{path}", timeout=PATIENCE)).status is Status.PASSING


@pytest.mark.parametrize(
    ("path", "fields", "status"),
    [
        ("", {}, Status.PASSING),
        ("/201", {}, Status.PASSING),
        ("/500", {}, Status.CRITICAL),
        ("/302", {}, Status.CRITICAL),
        ("/503", {"statuses": (503,)}, Status.PASSING),
        ("/200", {"statuses": (503,)}, Status.CRITICAL),
        ("?deep=1", {"body": "am well"}, Status.PASSING),
        ("", {"body": "am ill"}, Status.CRITICAL),
    ],
)
def test_an_http_answer_is_judged_by_status_and_body(web, path, fields, status):
    outcome = run_check(CheckSpec(http=web + path, timeout=PATIENCE, **fields))
    assert outcome.status is status
    assert outcome.output.startswith("HTTP ")


def test_a_server_that_does_not_answer_costs_no_more_than_the_timeout(web):
    outcome = run_check(CheckSpec(http=f"{web}/slow", timeout=100 * MILLISECOND))
    assert (outcome.status, outcome.output) == (Status.CRITICAL, "no answer within 0.1 s")
    assert outcome.duration >= 100 * MILLISECOND  # and it did not wait for the answer, which comes after 30 s


@pytest.mark.parametrize(
    "spec",
    [
        CheckSpec(http="http://127.0.0.1:notaport/"),
        CheckSpec(http="gopher://127.0.0.1/"),
        CheckSpec(http="http://"),
        CheckSpec(http="http://127.0.0.1:1/\n"),
        CheckSpec(tcp="127.0.0.1"),
        CheckSpec(tcp="unix:" + "x" * 200),
        CheckSpec(command=("/no/such/program",)),
        CheckSpec(command=("\0",)),
        CheckSpec(command=("/",)),
        CheckSpec(),
    ],
)
def test_whatever_a_check_says_it_is_answered_and_never_raises(spec):
    outcome = run_check(spec)
    assert outcome.status is Status.CRITICAL
    assert outcome.output


def test_an_https_certificate_that_nobody_signed_is_critical_unless_it_need_not_verify(tmp_path):
    key, certificate = _self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = StreamServer(("127.0.0.1", 0), _say_ok, ssl_context=context)
    server.start()
    url = f"https://127.0.0.1:{server.server_port}/"
    assert "CERTIFICATE_VERIFY_FAILED" in run_check(CheckSpec(http=url, timeout=PATIENCE)).output
    assert run_check(CheckSpec(http=url, verify=False, timeout=PATIENCE)).status is Status.PASSING
    server.stop(timeout=0)


@pytest.mark.parametrize(("code", "status"), [(0, Status.PASSING), (1, Status.WARNING), (2, Status.CRITICAL)])
def test_a_command_speaks_by_its_exit_status(code, status):
    outcome = python(f"print('because'); raise SystemExit({code})")
    assert (outcome.status, outcome.output) == (status, "because")


def test_a_command_that_kills_itself_is_critical():
    assert python("import os; os.kill(os.getpid(), 9)").output == "ended by signal 9"


def test_a_chatty_command_ends_and_its_output_is_cut():
    outcome = python("print('é' * 3_000_000)", timeout=PATIENCE)
    assert outcome.status is Status.PASSING
    assert 0 < len(outcome.output.encode()) <= OUTPUT_LIMIT


def test_a_command_that_hangs_dies_with_all_of_its_group(tmp_path):
    pids = tmp_path / "pids"
    program = f"sleep 60 & echo $$ $! > {pids}; wait"  # which takes milliseconds, unlike the start of Python
    outcome = run_check(CheckSpec(command=("sh", "-c", program), timeout=3 * SECOND))
    assert outcome.status is Status.CRITICAL
    assert "no answer within" in outcome.output
    for pid in map(int, pids.read_text().split()):
        _wait_for(lambda pid=pid: not _runs(pid))


def test_a_command_that_leaves_a_daemon_holding_its_output_is_answered_all_the_same():
    outcome = python("import subprocess; subprocess.Popen(['sleep', '600']); print('done')")  # else it came too late
    assert (outcome.status, outcome.output) == (Status.PASSING, "done")


def test_a_check_that_is_ended_leaves_no_process(tmp_path):
    pid_file = tmp_path / "pid"
    program = f"import os, time; open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    running = gevent.spawn(python, program, timeout=60 * SECOND)
    _wait_for(lambda: pid_file.exists() and pid_file.read_text())
    running.kill()
    _wait_for(lambda: not _runs(int(pid_file.read_text())))


def test_the_facts_of_this_host_make_sense():
    facts = read_facts()
    assert facts.processors == count_processors() >= 1
    assert facts.memory > 1 << 20
    assert 0.0 <= read_load().utilization <= 1.0
    assert find_own_address("node.advertise").count(".") == 3


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:  # it is gone, or goes while we read
        return False


def _wait_for(claim) -> None:
    with gevent.Timeout(60):
        while not claim():
            gevent.sleep(0.01)


def _say_ok(connection, _peer) -> None:
    connection.recv(4096)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    connection.close()


def _self_signed(directory) -> tuple[str, str]:
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(days=1)).sign(
        key, hashes.SHA256()
    )
    key_file, certificate_file = directory / "key.pem", directory / "certificate.pem"
    pem = serialization.Encoding.PEM
    key_file.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    certificate_file.write_bytes(certificate.public_bytes(pem))
    return os.fspath(key_file), os.fspath(certificate_file)


def test_what_a_command_leaves_in_the_background_dies_with_it(tmp_path):
    left = tmp_path / "left"
    outcome = run_check(CheckSpec(command=("sh", "-c", f"sleep 97 & echo $! > {left}; exit 0"), timeout=PATIENCE))
    assert outcome.status is Status.PASSING
    _wait_for(lambda: not _runs(int(left.read_text())))
