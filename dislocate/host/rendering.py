"""Rendering apart: a template that may loop for ever or grow without end, in bounds that hold whatever it does.

Neither a greenlet nor a thread can be ended from outside while it computes, so such a template is rendered in a process of its
own (`render_apart`), which the kernel holds to its limits.  That costs 0.2 s of a processor; what is plain (`templates`) is
rendered in a thread of the agent.
"""

import os
import signal
import sys
from collections.abc import Callable, Mapping

import msgspec
from gevent.lock import BoundedSemaphore
from gevent.subprocess import PIPE, Popen, TimeoutExpired

from dislocate.core.errors import LocalError
from dislocate.host.render_apart import MEMORY, PROCESSOR_TIME, Answer, Asked
from dislocate.host.render_error import RenderError
from dislocate.host.templates import named_in

AT_ONCE = 2  # processes: each may take `MEMORY`

_PROGRAM = (sys.executable, "-s", "-P", "-m", "dislocate.host.render_apart")


class Renderer:
    """Renders apart for one agent, a few at a time."""

    def __init__(self) -> None:
        self._places = BoundedSemaphore(AT_ONCE)

    def render(
        self,
        text: str,
        field: str,
        *,
        facts: Mapping[str, object],
        values: Mapping[str, str],
        secret: Callable[[str], str],
        within: float,
    ) -> str:
        """`text` of `field` with everything filled in, within so many seconds.  Raises `RenderError`.

        All secrets that it names are asked for, also where a condition leaves them out."""
        secrets, closed = {}, {}
        for name in _secrets_in(text, field):
            try:
                secrets[name] = secret(name)
            except RenderError as error:
                closed[name] = error.words
        asked = Asked(text, field, dict(facts), dict(values), secrets, closed)
        with self._places:
            answer = _ask(asked, within)
        if answer.mistake:
            raise RenderError(answer.mistake)
        return answer.text


def _secrets_in(text: str, field: str) -> tuple[str, ...]:
    try:
        return named_in(text, field).secrets
    except LocalError as error:
        raise RenderError(str(error)) from None


def _ask(asked: Asked, within: float) -> Answer:
    """Whoever does not wait any more leaves a process that finds nobody to answer, or reaches its limits."""
    child = Popen(
        _PROGRAM,
        stdin=PIPE,
        stdout=PIPE,
        cwd="/",
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,
    )
    try:
        said, _ = child.communicate(msgspec.msgpack.encode(asked), timeout=within)
    except TimeoutExpired:
        raise RenderError(f"{asked.field}: it was not rendered within the time of its resource") from None
    finally:
        child.kill()
    if child.returncode == -signal.SIGXCPU:
        raise RenderError(f"{asked.field}: it takes more than {PROCESSOR_TIME} s: take loops out of the template")
    try:
        return msgspec.msgpack.decode(said, type=Answer)
    except msgspec.DecodeError:
        raise RenderError(
            f"{asked.field}: the process that rendered it ended with {child.returncode}; it may take {MEMORY >> 20} MiB"
        ) from None
