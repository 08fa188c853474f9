"""Where traffic for a service goes, and why: rows, inputs, the part of each instance; with index and wait, its next change."""

from contextlib import ExitStack

from gevent.event import Event as Flag

from dislocate.core.balance.parts import parts
from dislocate.core.boundary.balance import Route, ServiceFlows
from dislocate.core.boundary.events import Event, FlowsChanged, ServiceChanged
from dislocate.core.errors import require
from dislocate.edge.flow_answers import FlowsAnswer, flows_answer, index_of
from dislocate.edge.http.access import Role
from dislocate.edge.http.call import Call, Operation, Query
from dislocate.edge.http.services import LOOK_EVERY, WAIT_DEFAULT, WAIT_LONGEST, no_service


def get_flows(call: Call) -> FlowsAnswer:
    """The flows now, or after their next change: an `index` equal to ours waits, any other is answered at once."""
    name = call.path["name"]
    wait = call.query_wait(WAIT_DEFAULT, WAIT_LONGEST) if call.query("wait") or call.query("index") else 0.0
    index = call.query_index() or 0
    if wait and _index(call, name) == index:
        _wait_for(call, name, index, wait)
    route, flows = call.node.flows.route(name), call.node.flows.of(name)
    if route is None or flows is None:
        raise no_service(call, name)
    call.set_header("X-Dislocate-Index", str(index_of(route)))
    return _answer(call, route, flows)


def _answer(call: Call, route: Route, flows: ServiceFlows) -> FlowsAnswer:
    require(flows.service == route.service, f"flows of {flows.service} beside a route to {route.service}")
    return flows_answer(flows, route, parts(route), call.now)


def _index(call: Call, name: str) -> int:
    route = call.node.flows.route(name)
    return 0 if route is None else index_of(route)


def _wait_for(call: Call, name: str, index: int, wait: float) -> None:
    """Until the index is another, `wait` seconds are over, or the caller hangs up."""
    changed = Flag()

    def hear(event: Event) -> None:
        if isinstance(event, ServiceChanged | FlowsChanged) and event.service == name:
            changed.set()

    with ExitStack() as opened:
        opened.callback(call.backend.subscribe(hear))
        while wait > 0 and not call.is_abandoned() and _index(call, name) == index:
            changed.wait(min(wait, LOOK_EVERY))
            changed.clear()
            wait -= LOOK_EVERY


OPERATIONS = (
    Operation(
        method="GET",
        path="/api/services/{name}/flows",
        role=Role.READ,
        summary="Where traffic for a service goes, and why; with index and wait, its next change",
        respond=get_flows,
        answer=FlowsAnswer,
        queries=(
            Query("index", "the index of an earlier answer: wait while it is still the newest"),
            Query("wait", "how long at most, such as '30s'; up to '10m'"),
        ),
    ),
)
