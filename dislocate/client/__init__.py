"""For applications: pick the best instance of a service, call it, be one.

    client = Client()
    with client.pick("orders.api") as picked: ...            an address and a port; latency and outcome are reported
    client.http("orders.api").get("/orders/7")               picked, retried within the budget, within its deadline
    @balanced("orders.api")                                  the same for any function that takes an endpoint
    serve(app, "orders.api")                                 a WSGI application, registered, measured, drained

Needs an agent on this host and nothing of it: it speaks the HTTP API, keeps a copy of what the agent says and goes on with
that when the agent is down.  Works in threads, in gevent with and without monkey-patching, and across a fork.

Names are looked up on first use: whoever only wants `dislocate.client.connection` pays for nothing else.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dislocate.client.caller import Client, Pick, Status
    from dislocate.client.connection import NoAgent
    from dislocate.client.decorator import balanced
    from dislocate.client.errors import CallFailed, DeadlineExceeded
    from dislocate.client.serving import Server, serve
    from dislocate.core.balance.errors import NoEndpoint, RetriesSpent, Throttled
    from dislocate.core.balance.picker import Outcome

__all__ = [
    "CallFailed",
    "Client",
    "DeadlineExceeded",
    "NoAgent",
    "NoEndpoint",
    "Outcome",
    "Pick",
    "RetriesSpent",
    "Server",
    "Status",
    "Throttled",
    "balanced",
    "serve",
]

_HOMES = {
    "CallFailed": "dislocate.client.errors",
    "Client": "dislocate.client.caller",
    "DeadlineExceeded": "dislocate.client.errors",
    "NoAgent": "dislocate.client.connection",
    "NoEndpoint": "dislocate.core.balance.errors",
    "Outcome": "dislocate.core.balance.picker",
    "Pick": "dislocate.client.caller",
    "RetriesSpent": "dislocate.core.balance.errors",
    "Server": "dislocate.client.serving",
    "Status": "dislocate.client.caller",
    "Throttled": "dislocate.core.balance.errors",
    "balanced": "dislocate.client.decorator",
    "serve": "dislocate.client.serving",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
