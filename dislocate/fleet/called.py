"""A service that live scenarios call: `python -m dislocate.fleet.called PLAN`.

What an application is with `dislocate.client.serve`: registered at its host's agent, measured, drained.  A request keeps a
worker for a time of the scenario's own distribution and does nothing in it, as one that waits for a database.  `PUT /trouble`
with `{"slowness": 5.0, "fails": 0.1}` makes it serve slowly, or answer with errors, while its check goes on passing.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import msgspec
from msgspec import Struct

from dislocate.client import serve
from dislocate.core.streams import Stream
from dislocate.core.units import SECOND, format_duration
from sim.traffic.chances import Exponential

TROUBLE = "/trouble"
FINISH = 0.5  # seconds for what is under way, when the fleet ends


class CalledPlan(Struct, frozen=True, kw_only=True):
    """One instance."""

    name: str  # 'fra/orders.api#1'
    service: str
    id: str
    agent: str  # 'unix:PATH'
    host: str
    port: int
    interval: int  # of its check, nanoseconds
    timeout: int
    workers: int
    takes: int  # nanoseconds of one request, on average; exponential
    queue: int  # requests that wait, more are turned away; 0: as many as come


class Trouble(Struct, frozen=True, forbid_unknown_fields=True):
    """How it serves."""

    slowness: float = 1.0  # serving takes so many times as long
    fails: float = 0.0  # part of all requests that are answered with an error, at once


UNLIMITED = 1 << 20  # requests


class Application:
    """The WSGI application."""

    def __init__(self, plan: CalledPlan, stream: Stream) -> None:
        self._body = f"{plan.name}\n".encode()
        self._takes = Exponential(plan.takes)
        self._stream = stream
        self._trouble = Trouble()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        if environ["PATH_INFO"] == TROUBLE and environ["REQUEST_METHOD"] == "PUT":
            return self._take(environ["wsgi.input"].read(), start_response)
        if self._trouble.fails and self._stream.chance(self._trouble.fails):
            start_response("503 Service Unavailable", [("Content-Type", "text/plain")])
            return [b"as the scenario has it\n"]
        gevent.sleep(self._takes.draw(self._stream) * self._trouble.slowness / SECOND)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [self._body]

    def _take(self, body: bytes, start_response: Callable[..., Any]) -> list[bytes]:
        try:
            self._trouble = msgspec.json.decode(body, type=Trouble)
        except msgspec.MsgspecError as error:
            start_response("400 Bad Request", [("Content-Type", "text/plain")])
            return [f"{error}\n".encode()]
        start_response("204 No Content", [])
        return []


def main() -> None:
    plan = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=CalledPlan)
    serve(
        Application(plan, Stream(plan.port)),
        plan.service,
        host=plan.host,
        port=plan.port,
        instance_id=plan.id,
        workers=plan.workers,
        queue=plan.queue or UNLIMITED,
        check="http",
        check_interval=format_duration(plan.interval),
        check_timeout=format_duration(plan.timeout),
        agent=plan.agent,
        grace=0.0,
        finish=FINISH,
    )


if __name__ == "__main__":
    main()
