"""Other people's proxies as processes, and whether there are any."""

import socket
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import which

import pytest

from dislocate.fleet.processes import die_with_parent
from dislocate.haproxy.runtime import NoProxy, Runtime, Slot
from tests.support.live import PATIENCE

HOST = "127.0.0.1"
HAPROXY, NGINX = which("haproxy"), which("nginx")
needs_haproxy = pytest.mark.skipif(HAPROXY is None, reason="haproxy is not installed; .ci/run says how")
needs_nginx = pytest.mark.skipif(NGINX is None, reason="nginx is not installed; .ci/run says how")


@contextmanager
def process(arguments: Iterable[object], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is ended by its id; its output is in `log`."""
    with log.open("ab") as said:
        running = subprocess.Popen(
            [str(each) for each in arguments],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            preexec_fn=die_with_parent,
        )
    try:
        yield running
    finally:
        running.terminate()
        try:
            running.wait(PATIENCE)
        finally:
            running.kill()
            running.wait()


def listens(port: int) -> bool:
    with socket.create_connection((HOST, port), 1):
        return True


def answers(runtime: Runtime, backend: str = "shop") -> list[Slot]:
    """Its slots; none while it does not answer."""
    try:
        return runtime.slots(backend)
    except NoProxy:
        return []
