"""Waiting for a first route without stopping everybody else: in a process that uses gevent and did not patch itself, a wait of
one greenlet would be one of the whole hub.  Knows gevent where it is in use, and never imports it."""

import sys
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def aside(wait: Callable[..., T], *arguments: Any) -> T:
    """`wait(*arguments)`, which sleeps or reads sockets: in a real thread where greenlets would else stand still."""
    gevent, patching = sys.modules.get("gevent"), sys.modules.get("gevent.monkey")
    if gevent is None or (patching is not None and patching.is_module_patched("socket")):
        return wait(*arguments)
    hub = gevent._hub_local.get_hub_if_exists() if hasattr(gevent, "_hub_local") else None
    if hub is None or gevent.getcurrent() is hub:  # a plain thread, or a callback, which may not switch
        return wait(*arguments)
    result: T = hub.threadpool.apply(wait, arguments)
    return result
