"""Where is it: the list of services, one service with its instances, and what happened to a service, node or instance."""

from contextlib import suppress

from dislocate.core.boundary.requests import Watch
from dislocate.core.boundary.views import ServiceView
from dislocate.core.nearest import nearest
from dislocate.edge.answers import (
    HistoryAnswer,
    ServiceAnswer,
    ServicesAnswer,
    history_answer,
    service_answer,
    service_summary,
)
from dislocate.edge.http.access import Role
from dislocate.edge.http.call import Call, Operation, Query
from dislocate.edge.http.problems import Rejected, not_found

WAIT_DEFAULT = 60.0  # seconds; proxies and clients commonly give up after that
WAIT_LONGEST = 600.0  # seconds; Consul's limit for blocking queries
LOOK_EVERY = 5.0  # seconds between looks whether the caller of a long poll is still there


def list_services(call: Call) -> ServicesAnswer:
    """Names that start with `prefix`, in order."""
    prefix = call.query("prefix")
    catalog = call.node.catalog
    views = [catalog.service(name) for name in catalog.names() if name.startswith(prefix)]
    return ServicesAnswer(services=tuple(service_summary(view) for view in views if view is not None))


def get_service(call: Call) -> ServiceAnswer:
    """The service now, or after its next change: an `index` equal to ours waits, any other is answered at once.

    An index ahead of ours came from another agent or an earlier start; waiting for it could take for ever (consul#7939)."""
    name = call.path["name"]
    wait = call.query_wait(WAIT_DEFAULT, WAIT_LONGEST) if call.query("wait") or call.query("index") else 0.0
    index = call.query_index() or 0
    view = call.node.catalog.service(name)
    if wait and index == (0 if view is None else view.index):
        view = _wait_for(call, name, index, wait)
    if view is None:
        raise no_service(call, name)
    call.set_header("X-Dislocate-Index", str(view.index))
    return service_answer(view, call.now)


def get_history(call: Call) -> HistoryAnswer:
    """What happened to 'shop.web', 'fra/a1' or 'fra/a1/web-1', oldest first."""
    name = call.path["name"]
    entries = call.node.history(name)
    if not entries and not _is_known(call, name):
        hint = "Name a service, a node as 'dc/name' or an instance as 'dc/name/id'"
        raise not_found("name", name, f"Nothing is known of {name!r}", hint)
    return history_answer(entries)


def _wait_for(call: Call, name: str, index: int, wait: float) -> ServiceView | None:
    """The service after its next change or after `wait` seconds; sooner when the caller hangs up.

    A client that gives up after 5 s and asks for 10 min would else fill all connections with its past selves."""
    while wait > 0 and not call.is_abandoned():
        with suppress(TimeoutError):  # nothing changed in this slice
            call.ask(Watch((name,), index), timeout=min(wait, LOOK_EVERY))
            break
        wait -= LOOK_EVERY
    return call.node.catalog.service(name)


def no_service(call: Call, name: str) -> Rejected:
    """404 with the nearest name."""
    hint = "GET /api/services lists all" + nearest(name, call.node.catalog.names())
    return not_found("name", name, f"No service {name!r} is known here", hint)


def _is_known(call: Call, name: str) -> bool:
    return name in call.node.members or call.node.catalog.service(name) is not None


OPERATIONS = (
    Operation(
        method="GET",
        path="/api/services",
        role=Role.READ,
        summary="All services",
        respond=list_services,
        answer=ServicesAnswer,
        queries=(Query("prefix", "only names that start so"),),
    ),
    Operation(
        method="GET",
        path="/api/services/{name}",
        role=Role.READ,
        summary="One service with its instances; with index and wait, its next change",
        respond=get_service,
        answer=ServiceAnswer,
        queries=(
            Query("index", "the index of an earlier answer: wait while it is still the newest"),
            Query("wait", "how long at most, such as '30s'; up to '10m'"),
        ),
    ),
    Operation(
        method="GET",
        path="/api/history/{name:path}",
        role=Role.READ,
        summary="What happened to a service, a node (dc/name) or an instance (dc/name/id)",
        respond=get_history,
        answer=HistoryAnswer,
    ),
)
