"""Waiting for what another thread brings, so that in a gevent program only this greenlet waits.

Where gevent's hub runs in this thread and the module that would block is not monkey-patched, blocking is left to a thread of
the hub, and an event of threads is looked at from time to time.  Everywhere else this is a plain call and a plain wait.
Never imports gevent: who does not use it pays nothing for it.
"""

import sys
import time
from collections.abc import Callable
from threading import Event
from typing import Any

from dislocate.core.errors import DislocateError

LOOK_EVERY = 0.005  # seconds


def apart(function: Callable[..., None], *arguments: object) -> None:
    """`function`, which blocks on sockets.  Raises what it raises."""
    hub = _stalled_by("socket")
    if hub is None:
        function(*arguments)
    elif (error := hub.threadpool.apply(_error_of, (function, arguments))) is not None:
        raise error


def until(event: Event, within: float) -> bool:
    """Whether `event` is set `within` seconds."""
    if _stalled_by("threading") is None:
        return event.wait(within)
    sleep, ends = sys.modules["gevent"].sleep, time.monotonic() + within
    while not event.is_set() and time.monotonic() < ends:
        sleep(LOOK_EVERY)
    return event.is_set()


def _stalled_by(module: str) -> Any:
    """The hub that would stand still, and all its greenlets, while `module` blocks this thread; None: there is none."""
    if "gevent.hub" not in sys.modules:
        return None
    hub = sys.modules[
        "gevent._hub_local"
    ].get_hub_if_exists()  # gevent.get_hub would make one in every thread that calls
    if hub is None or sys.modules["gevent"].getcurrent() is hub:  # the hub itself cannot wait for anybody
        return None
    patching = sys.modules.get("gevent.monkey")
    return None if patching is not None and patching.is_module_patched(module) else hub


def _error_of(function: Callable[..., None], arguments: tuple[object, ...]) -> DislocateError | None:
    """What it raised: gevent prints a trace of whatever leaves a thread of its pool."""
    try:
        function(*arguments)
    except DislocateError as error:
        return error
    return None
