"""Webhooks: sent once, judged by the status, never waited for longer than their time."""

import gevent
import pytest
from gevent.pywsgi import WSGIServer

from dislocate.core.boundary.runs import TaskResult
from dislocate.core.boundary.scaling import Webhook
from dislocate.core.units import MILLISECOND
from tests.support.hosted import Hosted


@pytest.fixture
def host(tmp_path):
    hosted = Hosted(tmp_path / "state")
    yield hosted
    hosted.stop()


@pytest.fixture
def serve():
    servers = []

    def start(status="200 OK", pause=0.0):
        seen = []

        def app(environ, answer):
            gevent.sleep(pause)
            seen.append((environ["PATH_INFO"], environ["wsgi.input"].read(), environ.get("HTTP_IDEMPOTENCY_KEY")))
            answer(status, [("Content-Type", "text/plain")])
            return [b"as you wish"]

        server = WSGIServer(("127.0.0.1", 0), app, log=None)
        server.start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/hook", seen

    yield start
    for server in servers:
        server.stop(timeout=0)


def test_a_webhook_is_sent_with_its_body_and_key(host, serve):
    url, seen = serve("202 Accepted")
    outcome = host.apply(
        Webhook(url=url, headers={"Idempotency-Key": "orders.api/fra/4"}, body='{"desired": 3}'), run=""
    )
    assert (outcome.result, outcome.code) == (TaskResult.CHANGED, 202)
    assert seen == [("/hook", b'{"desired": 3}', "orders.api/fra/4")]


def test_a_status_that_is_no_success_is_a_failure_with_its_number_and_words(host, serve):
    url, _ = serve("503 Busy")
    outcome = host.apply(Webhook(url=url), run="")
    assert (outcome.result, outcome.code) == (TaskResult.FAILED, 503)
    assert "503 Busy: as you wish" in outcome.words


def test_nobody_who_listens_is_a_failure_in_words(host):
    outcome = host.apply(Webhook(url="http://127.0.0.1:1/hook"), run="")
    assert outcome.result is TaskResult.FAILED
    assert "refused" in outcome.words


def test_an_answer_that_does_not_come_is_given_up(host, serve):
    url, _ = serve(pause=60)
    outcome = host.apply(Webhook(url=url, timeout=100 * MILLISECOND), run="")
    assert (outcome.result, outcome.kind) == (TaskResult.FAILED, "timeout")
