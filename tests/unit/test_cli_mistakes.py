"""What the commands say to a slip of the person at the keyboard: one sentence that names the mend, and an end."""

import json
from collections import deque
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from click.testing import CliRunner

from dislocate.cli.main import cli
from dislocate.client.connection import Problem
from dislocate.core.boundary.values import CheckSpec, InstanceSpec, Load
from dislocate.core.catalog.validation import check_instance, check_load
from dislocate.core.errors import LocalError
from dislocate.core.units import MILLISECOND
from dislocate.edge.bodies import InstanceBody, instance_spec
from dislocate.strict import decode


def run(*words):
    return CliRunner().invoke(cli, words, prog_name="dislocate")


@contextmanager
def agent_that_answers(*answers):
    """The URL of a server that gives `answers`, (status, body) each, in turn, and the requests it got."""
    waiting, asked = deque(answers), []

    class Answering(BaseHTTPRequestHandler):
        def answer(self):
            asked.append((self.path, self.headers))
            status, body = waiting.popleft()
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        do_GET = do_PUT = do_POST = do_DELETE = answer  # noqa: N815 (the names http.server calls)

        def log_message(self, *_):
            """Nothing: the test judges."""

    with HTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("where", ["http://127.7.7.1:xx", "http://127.7.7.1:70000", "http://[::1", "ftp://a"])
def test_an_agent_that_cannot_be_meant_is_named_with_its_option(where):
    done = run("members", "--agent", where)
    assert (done.exit_code, done.output) == (1, f"--agent: got {where!r}, expected http://HOST:PORT or unix:/PATH\n")


def test_a_trace_that_cannot_be_written_is_a_mistake_of_usage():
    done = run("sim", "run", "scenarios/wan-partition.toml", "--trace", "/nope/x")
    assert done.exit_code == 2
    assert "--trace: got '/nope/x', expected a file to write (No such file or directory)" in done.output


def test_a_watch_once_of_an_unknown_name_ends():
    names = 'event: names\ndata: {"names": []}\n\n'
    with agent_that_answers((200, names), (200, names)) as (url, asked):
        done = run("watch", "nope", "--once", "--agent", url)
        as_json = run("watch", "nope", "--once", "--json", "--agent", url)
    assert (done.exit_code, done.output) == (0, "nope #0: no instances\n")
    assert json.loads(as_json.output) == {"service": "nope", "index": 0, "instances": []}
    assert [headers["Last-Event-ID"] for _, headers in asked] == ["0", "0"]


def test_a_watch_once_of_a_prefix_tells_every_service_and_ends():
    events = 'event: names\ndata: {"names": ["db.a", "db.b"]}\n\n' + "".join(
        f'event: service\nid: {index}\ndata: {{"service": "{name}", "index": {index}, "instances": []}}\n\n'
        for index, name in ((4, "db.b"), (5, "db.a"), (6, "db.a"))
    )
    with agent_that_answers((200, events)) as (url, _):
        done = run("watch", "db.*", "--once", "--agent", url)
    assert done.output == "db.b #4: no instances\ndb.a #5: no instances\n"


@pytest.mark.parametrize(
    ("detail", "field", "said"),
    [
        ("got 0, expected a port", "port", "port: got 0, expected a port"),
        ("port: expected a port", "port", "port: expected a port"),
        ("the agent leaves", "", "the agent leaves"),
    ],
)
def test_a_refusal_leads_with_its_field_once(detail, field, said):
    assert str(Problem(422, {"detail": detail, "field": field})) == said


def test_a_refusal_says_what_stood_there_and_what_was_expected_as_a_mistake_found_here_does():
    answer = {
        "detail": "targets: expected nodes that are known",
        "field": "targets",
        "expected": "nodes that are known",
    }
    assert str(Problem(422, {**answer, "got": "fra/a9"})) == "targets: got 'fra/a9', expected nodes that are known"
    assert str(Problem(422, {**answer, "got": 0})) == "targets: got 0, expected nodes that are known"
    assert str(Problem(422, answer)) == "targets: expected nodes that are known"


def test_a_refusal_says_the_mend_where_its_words_do_not():
    answer = {"detail": "it needs the role 'operate'", "expected": "a token"}
    assert str(Problem(403, answer)) == "it needs the role 'operate'\nexpected a token"


def test_the_shape_and_the_meaning_of_a_port_have_the_same_bounds():
    with pytest.raises(LocalError) as shape:
        decode(b'{"service": "job", "port": 0}', InstanceBody)
    with pytest.raises(LocalError) as meaning:
        check_instance(InstanceSpec(id="job", service="job", port=0))
    assert str(shape.value) == str(meaning.value) == "port: got 0, expected a whole number, 1..65535"


def test_a_reserved_service_name_is_told_why():
    with pytest.raises(LocalError, match=r"63 characters a label .* none is 'service' or 'node', which are reserved"):
        check_instance(InstanceSpec(id="job", service="service", port=1))


@pytest.mark.parametrize("path", ["nope", "fra/", "fra/a1/web-1"])
def test_who_is_to_be_forgotten_is_asked_for_by_data_center_and_name(path):
    done = run("members", "forget", path)
    assert done.exit_code == 2
    assert f"got {path!r}, expected DC/NAME" in done.output


@pytest.mark.parametrize(
    "words",
    [
        ("register", "web", "--port", "80", "--id", "a/b"),
        ("deregister", "a/b"),
        ("drain", "instance", "a/b"),
        ("maint", "a/b"),
    ],
)
def test_an_id_with_a_slash_is_a_mistake_in_the_id(words):
    done = run(*words)
    assert (done.exit_code, done.output) == (1, "id: got 'a/b', expected 1 to 128 of a-z A-Z 0-9 and '._:-'\n")


@pytest.mark.parametrize(
    ("words", "answer", "said"),
    [
        (("members", "--dc", "mars"), {"members": []}, "no members match\n"),
        (("services", "--prefix", "mars"), {"services": []}, "no services match\n"),
        (("services",), {"services": []}, "no services\n"),
        (("services", "--json"), {"services": []}, '{"services": []}\n'),
    ],
)
def test_an_empty_answer_is_said_in_words(words, answer, said):
    with agent_that_answers((200, json.dumps(answer))) as (url, _):
        assert run(*words, "--agent", url).output == said


def test_a_file_that_is_no_scenario_is_named():
    done = run("sim", "run", "README.md")
    assert (done.exit_code, "README.md: line " in done.output) == (2, True)


def test_a_configuration_that_is_not_there_is_named_once():
    done = run("agent", "--config", "nofile")
    assert done.exit_code == 2
    assert done.output == "--config: got 'nofile', expected a readable TOML file (No such file or directory)\n"


def test_a_ttl_of_nothing_is_refused_as_a_ttl():
    body = decode(b'{"service": "job", "port": 1, "check": {"ttl": "0s"}}', InstanceBody)
    with pytest.raises(LocalError, match=r"check\.ttl: got '0s', expected a duration above 0"):
        instance_spec("job", body)


@pytest.mark.parametrize(
    ("check", "said"),
    [
        (CheckSpec(tcp="a:1", interval=MILLISECOND), "check.interval: got '1ms', expected a duration of 100ms to 24h"),
        (CheckSpec(tcp="a:1", timeout=0), "check.timeout: got '0s', expected a duration above 0, at most 10m"),
        (CheckSpec(ttl=MILLISECOND), "check.ttl: got '1ms', expected a duration of 100ms to 24h"),
    ],
)
def test_durations_are_told_as_they_are_written(check, said):
    with pytest.raises(LocalError) as refused:
        check_instance(InstanceSpec(id="job", service="job", port=1, check=check))
    assert str(refused.value) == said


def test_more_than_all_is_no_utilization():
    assert check_load(Load(1.0)) == Load(1.0)
    with pytest.raises(LocalError, match="utilization: got 7, expected a number from 0 to 1"):
        check_load(Load(7))


def test_a_drain_for_no_duration_names_the_option_that_was_typed():
    done = run("drain", "node", "fra/a1", "--for", "banana", "--agent", "http://127.7.7.1:1")
    assert (done.exit_code, done.output) == (1, "--for: got 'banana', expected a duration such as '5s' or '250ms'\n")
