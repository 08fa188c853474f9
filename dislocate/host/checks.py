"""Health checks: run one `CheckSpec` on this host, and say what was found.

Invariant: `run_check` returns within the timeout of its spec, whatever it meets, and nothing of it outlives that: no socket,
no process of its group.  How many run at once is the business of `io.outlets`.

A ttl is not run: it is the core that waits for the calls.  Nothing here is monkey-patched: the sockets are gevent's.
"""

import http.client
import logging
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import gevent
from gevent import socket
from gevent.subprocess import DEVNULL, PIPE, STDOUT, Popen

from dislocate.core.boundary.values import CheckOutcome, CheckSpec, Status
from dislocate.core.identity import split_address
from dislocate.core.units import SECOND
from dislocate.host.web import open_connection

OUTPUT_LIMIT = 4 * 1024  # bytes kept of what a check printed or answered
BODY_LIMIT = 64 * 1024  # bytes searched for `body`
_LAST_WORDS = 0.1  # seconds for output that is still in the pipe when the command has ended

log = logging.getLogger(__name__)

_EXIT_STATUS = {0: Status.PASSING, 1: Status.WARNING}  # any other is critical: Nagios' and Consul's convention


def run_check(spec: CheckSpec) -> CheckOutcome:
    """Run `spec` once, in this greenlet.  Never raises; what went wrong is the outcome."""
    began = time.monotonic_ns()
    seconds = spec.timeout / SECOND
    timeout = gevent.Timeout(seconds)
    try:
        with timeout:
            status, output = _kind(spec)(spec)
    except gevent.Timeout as late:
        if late is not timeout:
            raise
        status, output = Status.CRITICAL, f"no answer within {seconds:g} s"
    except (OSError, http.client.HTTPException, ValueError) as error:
        status, output = Status.CRITICAL, _in_words(error)
    except Exception as bug:  # a check that is never answered would never be run again
        log.exception("a check met a bug")
        status, output = Status.CRITICAL, f"the check could not be run: {bug!r}"
    return CheckOutcome(status, _cut(output), time.monotonic_ns() - began)


def _kind(spec: CheckSpec) -> Callable[[CheckSpec], tuple[Status, str]]:
    if spec.tcp:
        return _check_tcp
    if spec.http:
        return _check_http
    return _check_command


def _check_tcp(spec: CheckSpec) -> tuple[Status, str]:
    """Somebody accepts."""
    path = spec.tcp.removeprefix("unix:")
    if path != spec.tcp:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(path)
    else:
        socket.create_connection(split_address(spec.tcp, "check.tcp")).close()
    return Status.PASSING, f"{spec.tcp} accepts connections"


def _check_http(spec: CheckSpec) -> tuple[Status, str]:
    """The status is one of those wanted, and the body contains what it must."""
    url = urlsplit(spec.http)
    if not url.hostname or url.scheme not in ("http", "https"):
        raise ValueError(f"{spec.http!r} is no http or https URL")
    connection = open_connection(url.scheme, url.hostname, url.port, spec.verify)
    try:
        connection.request(
            "GET",
            (url.path or "/") + (f"?{url.query}" if url.query else ""),
            headers={"User-Agent": "dislocate-check", "Accept": "*/*", "Connection": "close"},
        )
        answer = connection.getresponse()
        body = answer.read(BODY_LIMIT)
    finally:
        connection.close()
    said = f"HTTP {answer.status} {answer.reason}"
    passes = answer.status in spec.statuses if spec.statuses else 200 <= answer.status < 300
    if not passes:
        excerpt = body[:OUTPUT_LIMIT].decode(errors="replace").strip()
        return Status.CRITICAL, f"{said}: {excerpt}" if excerpt else said
    if spec.body and spec.body.encode() not in body:
        return Status.CRITICAL, f"{said}, and {spec.body!r} is not in the first {BODY_LIMIT // 1024} KiB of its body"
    return Status.PASSING, said


def _check_command(spec: CheckSpec) -> tuple[Status, str]:
    """By exit status: 0 passing, 1 warning, anything else critical.  Its process group dies with it."""
    process = Popen(spec.command, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, start_new_session=True)
    heard = bytearray()
    listener = gevent.spawn(_listen, process.stdout, heard)
    try:
        code = process.wait()
        listener.join(_LAST_WORDS)  # not for its end: a daemon that the command left behind may hold the pipe open
    finally:
        with suppress(ProcessLookupError):  # nobody is left of its group; what it put into the background is
            os.killpg(process.pid, signal.SIGKILL)
        listener.kill()
        process.stdout.close()
    output = heard.decode(errors="replace").strip()
    ended = f"ended by signal {-code}" if code < 0 else f"exit {code}"
    return _EXIT_STATUS.get(code, Status.CRITICAL), output or ended


def _listen(stream: Any, heard: bytearray) -> None:
    """Take everything, so that the command never waits for us; keep the beginning."""
    while chunk := stream.read1(OUTPUT_LIMIT):
        heard += chunk[: OUTPUT_LIMIT - len(heard)]


def _in_words(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror + (f": {error.filename}" if error.filename else "")
    return str(error) or type(error).__name__


def _cut(text: str) -> str:
    return text.encode()[:OUTPUT_LIMIT].decode(errors="ignore")
