"""Threads: what waits for the disk does so in one, so that all else on this agent goes on."""

from collections.abc import Callable
from typing import TypeVar

import gevent

T = TypeVar("T")


def in_thread(call: Callable[..., T], *arguments: object) -> T:
    """Call it where it may block for the disk; only this greenlet waits.

    The pool would print what is raised as an error of its own, so it is carried out of it by hand."""

    def carried() -> tuple[bool, object]:
        try:
            return True, call(*arguments)
        except Exception as error:  # noqa: BLE001 - raised again below
            return False, error

    is_fine, got = gevent.get_hub().threadpool.apply(carried)
    if is_fine:
        return got
    raise got
