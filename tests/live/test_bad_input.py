"""Everything that others can get wrong, done to a living agent: a clear error or a count, and the agent goes on.

After each case the agent still answers what was registered with it (`unharmed`).
"""

import base64
import json
import os
import socket

import msgspec
import pytest
import zmq
from dnslib import DNSRecord

from dislocate.core.identity import NodeId
from dislocate.core.membership.messages import WhoIsThere
from dislocate.core.wire import encode_envelope
from dislocate.fleet.processes import FleetProcess
from dislocate.io.keyring import Keyring, generate_secret, read_secrets
from tests.support.live import PATIENCE, HandAgent, curl, metric, new_secret, tell, until

pytestmark = pytest.mark.live

NOBODY = NodeId("fra", "nobody", 0)


@pytest.fixture(scope="module")
def agent(tmp_path_factory, network):
    """One agent with one instance, for all cases."""
    home = tmp_path_factory.mktemp("bad-input")
    agent = HandAgent(home / "a1", f"{network}.8.1", "fra/a1", [], new_secret(home))
    try:
        agent.start()
        assert curl(agent.host, "PUT", "/api/instances/kept", b'{"service": "kept", "port": 1}')[0] == 200
        yield agent
    finally:
        agent.process.terminate()


@pytest.fixture(autouse=True)
def unharmed(agent):
    yield
    assert agent.process.is_running, agent.log[-2000:]
    assert [one["id"] for one in agent.instances("kept")] == ["kept"]
    assert agent.metric("dislocate_http_failures_total") == 0
    assert "Traceback" not in agent.log


# ---- configuration: the agent does not start, and says why


def refused_start(agent, tmp_path, text):
    """(exit code, what was said) of an agent with the configuration `text`."""
    file = tmp_path / "bad.toml"
    file.write_text(text)
    process = FleetProcess("bad", ["-m", "dislocate", "agent", "--config", str(file)], tmp_path / "bad.log")
    process.start()
    code = process.wait(PATIENCE)
    process.kill()
    return code, (tmp_path / "bad.log").read_text()


def config(agent, tmp_path, *, name="a9", state="state", secret="", host="127.0.0.1", more=""):
    return f"""
[node]
name = "{name}"
datacenter = "fra"
bind = "{host}"
state_dir = "{tmp_path / state}"
[security]
secret_file = "{secret or agent.home.parent / "secret"}"
{more}
"""


@pytest.mark.parametrize(
    ("spoil", "code", "words"),
    [
        (lambda text: text + "colour = 1\n", 2, ["security.colour", "expected one of"]),
        (lambda text: text.replace("datacenter", "datacentre"), 2, ["node.datacentre", "did you mean 'datacenter'?"]),
        (lambda text: text.replace("[node]", "[node"), 2, ["line 2", "TOML"]),
        (lambda text: text.replace('"a9"', '"A_9"'), 2, ["node.name", "A_9", "a-z 0-9"]),
        (lambda text: text + '[[service]]\nname = "Web!"\nport = 1\n', 2, ["service[0].name", "Web!", "lower-case"]),
        (lambda text: text + '[[service]]\nname = "web"\nport = "x"\n', 2, ["service[0].port", "1..65535"]),
        (lambda text: text.replace('/secret"', '/none"'), 1, ["security.secret_file", "keys generate >"]),
    ],
    ids=["unknown key", "misspelt key", "bad TOML", "illegal name", "illegal service", "wrong type", "no secret"],
)
def test_a_configuration_that_cannot_be_meant_is_refused_with_field_and_mend(agent, tmp_path, spoil, code, words):
    ended, said = refused_start(agent, tmp_path, spoil(config(agent, tmp_path)))
    assert (ended, [word for word in words if word not in said], "Traceback" in said) == (code, [], False), said


def test_a_state_directory_that_is_a_file_is_named(agent, tmp_path):
    (tmp_path / "state").write_text("not a directory")
    code, said = refused_start(agent, tmp_path, config(agent, tmp_path))
    assert (code, "node.state_dir" in said, "Traceback" in said) == (1, True, False), said


def test_a_damaged_database_is_named_and_left_alone(agent, tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "state.db").write_bytes(b"rubbish" * 1000)
    code, said = refused_start(agent, tmp_path, config(agent, tmp_path))
    assert (code, "damaged" in said, "Move the damaged one" in said, "Traceback" in said) == (1, True, True, False), (
        said
    )
    assert (tmp_path / "state" / "state.db").read_bytes() == b"rubbish" * 1000


def test_a_port_in_use_is_named(agent, tmp_path):
    code, said = refused_start(agent, tmp_path, config(agent, tmp_path, host=agent.host))
    assert (code, "ports.http" in said, "ss -l" in said, "Traceback" in said) == (1, True, True, False), said


def test_a_second_agent_of_the_same_name_is_reported_and_the_older_keeps_it(agent, tmp_path, network):
    clone = HandAgent(tmp_path / "clone", f"{network}.8.2", "fra/a1", [agent.host], agent.home.parent / "secret")
    try:
        clone.start()
        until("the older reports it", lambda: agent.metric('dislocate_core_total{what="clones"}') >= 1)
        until("and so does its log", lambda: "fra/a1" in agent.log and "clone" in agent.log)
        until("the newer is told", lambda: f"fra/a1 is taken by {agent.host}:49701: rename this agent" in clone.log)
        member = agent.api.get("/api/members")["members"][0]
        assert (member["address"], member["state"]) == (f"{agent.host}:49701", "alive")
    finally:
        clone.process.kill()


def test_an_agent_with_another_secret_says_that_no_seed_answers_and_the_seed_that_a_stranger_speaks(
    agent, tmp_path, network
):
    secret = tmp_path / "secret"
    secret.write_text(base64.b64encode(other_secret(agent)).decode())
    secret.chmod(0o600)
    stranger = HandAgent(tmp_path / "stranger", f"{network}.8.3", "fra/a3", [agent.host], secret)
    try:
        stranger.start()
        until("it says what to do", lambda: "no seed has answered for 10s: run `dislocate doctor" in stranger.log)
        until("so does the seed", lambda: "under another secret and dropped: run `dislocate doctor" in agent.log)
    finally:
        stranger.process.kill()


# ---- HTTP


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "field"),
    [
        ("PUT", "/api/instances/x", b'{"service": "x", "port": ', 400, "body"),
        ("PUT", "/api/instances/x", b"\xff\xfe\x00", 400, "body"),
        ("PUT", "/api/instances/x", b"[" * 100_000, 422, "body"),
        ("PUT", "/api/instances/x", b'{"service": "x", "prot": 1}', 422, "prot"),
        ("PUT", "/api/instances/x", b'{"service": "x", "port": "80"}', 422, "port"),
        ("PUT", "/api/instances/x", b'{"service": "No Such", "port": 80}', 422, "service"),
        ("PUT", "/api/instances/%20%00", b'{"service": "x", "port": 80}', 422, "id"),
        ("PUT", "/api/instances/x", b'{"service": "x", "port": 80, "check": {"interval": 5}}', 422, "check.interval"),
        ("PUT", "/api/instances/x", b" " * ((1 << 20) + 1), 413, "body"),
        ("POST", "/api/instances/kept/drain", b'{"draining": "yes"}', 422, "draining"),
        ("POST", "/api/instances/nope/heartbeat", b"{}", 404, None),
        ("DELETE", "/api/members/fra/nobody", None, 404, None),
        ("GET", "/api/services/x?wait=soon", None, 422, "wait"),
        ("GET", "/api/nothing", None, 404, None),
        ("PATCH", "/api/members", b"{}", 405, None),
    ],
)
def test_a_bad_request_is_answered_with_field_and_mend(agent, method, path, body, status, field):
    answered, problem = curl(agent.host, method, path, body)
    assert answered == status, problem
    assert field is None or problem["field"] == field, problem
    assert problem["title"]
    assert problem["detail"]


def test_bytes_that_are_no_http_end_their_connection_only(agent):
    for rubbish in (os.urandom(4096), b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"A" * 200_000):
        with socket.create_connection((agent.host, 49700), PATIENCE) as connection:
            try:
                connection.sendall(rubbish + b"\r\n\r\n")
                while connection.recv(4096):
                    continue
            except ConnectionError:
                continue  # hung up on while we still wrote


# ---- agent.sock


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (b"", "body"),
        (b"\x00\xff", "body"),
        (b'{"op": "heartbaet", "id": "x"}', "op"),
        (b'{"op": "register", "id": "x", "service": "UP", "port": 1}', "service"),
        (b'{"op": "register", "id": "x", "service": "x", "port": 99999}', "port"),
        (b'{"op": "heartbeat", "id": "nope"}', "id"),
    ],
)
def test_a_bad_local_datagram_is_answered_with_its_field(agent, tmp_path, message, field):
    answer = tell(agent.state / "agent.sock", tmp_path / "me", message)
    assert answer["error"]["field"] == field
    assert answer["error"]["expected"]


# ---- gossip


def gossip(agent, *datagrams):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        for datagram in datagrams:
            udp.sendto(datagram, agent.gossip)


def sealed(agent, plain=b"", secret=b""):
    keyring = Keyring((secret,) if secret else read_secrets(agent.home.parent / "secret"))
    return keyring.seal(plain or encode_envelope(NOBODY, WhoIsThere(1)))


def is_counted(agent, reason, before, by=1):
    name = f'dislocate_gossip_rejected_total{{reason="{reason}"}}'
    until(f"{reason} is counted", lambda: agent.metric(name) >= before.get(reason, 0.0) + by)


def all_rejected(agent):
    return agent.metric("dislocate_gossip_rejected_total")


@pytest.fixture
def before(agent):
    reasons = ("truncated", "oversized", "unknown format", "unknown key", "not authentic", "replayed")
    return {one: agent.metric(f'dislocate_gossip_rejected_total{{reason="{one}"}}') for one in reasons}


def test_truncated_oversized_and_random_datagrams_are_counted_and_dropped(agent, before):
    good = sealed(agent)
    gossip(agent, b"", good[:41])
    is_counted(agent, "truncated", before, 2)
    gossip(agent, good[:-1])
    is_counted(agent, "not authentic", before)
    gossip(agent, good + bytes(2_000))
    is_counted(agent, "oversized", before)
    gossip(agent, b"\x7f" + os.urandom(200))
    is_counted(agent, "unknown format", before)
    for size in range(1, 1200, 70):  # a few at a time, which the buffers of any kernel hold
        counted = all_rejected(agent)
        gossip(agent, *(os.urandom(size + more) for more in range(0, 70, 7)))
        until("all are counted", lambda counted=counted: all_rejected(agent) >= counted + 10)


def test_a_wrongly_keyed_datagram_is_counted_and_dropped(agent, before):
    gossip(agent, sealed(agent, secret=other_secret(agent)))
    is_counted(agent, "unknown key", before)


def test_a_replayed_datagram_is_counted_and_dropped(agent, before):
    gossip(agent, *[sealed(agent)] * 3)
    is_counted(agent, "replayed", before, 2)


def test_an_authentic_datagram_that_makes_no_sense_is_counted_and_dropped(agent):
    dropped = agent.metric('dislocate_core_total{what="input_dropped"}')
    nonsense = [
        b"\x00",
        msgspec.msgpack.encode([1, 2, 3]),
        os.urandom(300),
        encode_envelope(NOBODY, None)[:-1] + b"\xc1",
    ]
    gossip(agent, *(sealed(agent, plain) for plain in nonsense))
    until(
        "all are counted", lambda: agent.metric('dislocate_core_total{what="input_dropped"}') >= dropped + len(nonsense)
    )


def other_secret(agent):
    """A secret with another key id than the agent's."""
    own = sealed(agent)[1]
    while True:
        secret = base64.b64decode(generate_secret())
        if sealed(agent, secret=secret)[1] != own:
            return secret


# ---- DNS


def test_garbage_on_the_dns_port_is_counted_and_dropped(agent):
    name = 'dislocate_dns_total{what="malformed"}'
    malformed = agent.metric(name)
    question = DNSRecord.question("kept.service.dislocate").pack()
    rubbish = [b"", b"\x00", os.urandom(11), question[:-3], question[:12], b"\xff" * 512]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        for packet in rubbish:
            udp.sendto(packet, (agent.host, 49703))
    with socket.create_connection((agent.host, 49703), PATIENCE) as stream:
        stream.sendall(b"\xff\xff" + os.urandom(100))
    until("some are counted", lambda: agent.metric(name) > malformed)
    reply = DNSRecord.parse(DNSRecord.question("kept.service.dislocate").send(agent.host, 49703, timeout=PATIENCE))
    assert [str(record.rdata) for record in reply.rr] == [agent.host]


# ---- ZeroMQ


@pytest.mark.parametrize("mechanism", ["a stranger's key", "no encryption"])
def test_an_unknown_zeromq_peer_is_turned_away_and_counted(agent, mechanism):
    counter = {"a stranger's key": "keys_refused", "no encryption": "handshakes_failed"}[mechanism]
    name = f'dislocate_links_total{{what="{counter}"}}'
    refused = agent.metric(name)
    context = zmq.Context()
    try:
        peer = context.socket(zmq.DEALER)
        peer.linger = 0
        peer.identity = b"fra/a1#1#00"
        if mechanism == "a stranger's key":
            peer.curve_publickey, peer.curve_secretkey = zmq.curve_keypair()
            text = (agent.state / "node.key").read_bytes().strip()
            peer.curve_serverkey = zmq.curve_public(text)
        monitor = peer.get_monitor_socket(
            zmq.EVENT_HANDSHAKE_SUCCEEDED
            | zmq.EVENT_DISCONNECTED
            | zmq.EVENT_HANDSHAKE_FAILED_AUTH
            | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
            | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
        )
        peer.connect(f"tcp://{agent.host}:49702")
        peer.send(b"hello", zmq.NOBLOCK)
        assert monitor.poll(PATIENCE * 1_000), "nothing happened"
        event = int.from_bytes(monitor.recv_multipart()[0][:2], "little")
        assert event != zmq.EVENT_HANDSHAKE_SUCCEEDED
        assert not peer.poll(200), "it was answered"
        until("it is counted", lambda: agent.metric(name) > refused)
    finally:
        context.destroy(linger=0)


def test_bytes_that_are_no_zmtp_end_their_connection_only(agent):
    for rubbish in (os.urandom(2048), b"GET / HTTP/1.1\r\n\r\n", bytes(64)):
        with socket.create_connection((agent.host, 49702), PATIENCE) as connection:
            connection.sendall(rubbish)


# ---- after all of it


def test_what_was_registered_outlives_a_kill_after_all_of_this(agent):
    agent.process.kill()
    agent.start()

    def in_file():
        return json.loads((agent.state / "services.json").read_text())["kept"]["instances"]

    until("the file, written a moment later, has it", lambda: [one["id"] for one in in_file()] == ["kept"])
    assert metric(agent.api, "dislocate_links_total") >= 0
