"""Drains of whole data centers and of nodes; that of a data center is refused where the others cannot carry its traffic.

    GET /api/drains/fra                   would it fit?  {"fits": false, "services": [{"service", "demand", "capacity"}]}
    PUT /api/drains/fra {"force": true}   whether it fits or not

A drain of a data center ends by itself, after an hour unless it is said, after three days at most: one that was forgotten
must not be what an outage meets.  Drains are decided one at a time (`drain_claims`): two that each fit need not fit together.
"""

from collections.abc import Sequence
from http import HTTPStatus

from dislocate.core.balance.endpoints import lives
from dislocate.core.balance.fits import Fit, fits_without
from dislocate.core.boundary.requests import SetDraining
from dislocate.core.errors import LocalError
from dislocate.core.identity import Path, check_label
from dislocate.core.units import HOUR, format_duration
from dislocate.edge.answers import DoneAnswer
from dislocate.edge.bodies import DatacenterDrainBody, DrainBody, duration
from dislocate.edge.flow_answers import FitsAnswer, fits_answer
from dislocate.edge.http import drain_claims
from dislocate.edge.http.access import Role
from dislocate.edge.http.call import Call, Operation
from dislocate.edge.http.problems import Rejected, not_found, problem

EXPIRES = 1 * HOUR  # AWS's zonal shifts have an end too, and the same longest one
LONGEST = 72 * HOUR
NAMED = 5  # services that a refusal names; GET shows all


def get_datacenter_drain(call: Call) -> FitsAnswer:
    """Whether the others could carry what is served there now; nothing is changed."""
    name = _datacenter(call)
    return fits_answer(name, _fits(call, name))


def put_datacenter_drain(call: Call) -> DoneAnswer:
    name, body = _datacenter(call), call.body
    if not body.draining:
        return _end(call, name)
    lasting = _lasting(body.expires) or EXPIRES
    if lasting > LONGEST:
        raise LocalError(
            "expires", got=body.expires, expected=f"at most '{format_duration(LONGEST)}'; it can be renewed"
        )
    order = SetDraining(name, "datacenter", True, lasting, body.reason)
    if body.force:
        done = call.done(order)
        drain_claims.note(call, name, lasting)
        return done
    drain_claims.claim(call, name, lasting, lambda gone: _refuse_what_does_not_fit(name, _fits(call, name, gone), gone))
    try:
        return call.done(order)
    except Rejected:
        drain_claims.note(call, name, 0)
        raise


def delete_datacenter_drain(call: Call) -> DoneAnswer:
    return _end(call, _datacenter(call))


def put_node_drain(call: Call) -> DoneAnswer:
    return call.done(drain(_node(call), "node", call.body))


def delete_node_drain(call: Call) -> DoneAnswer:
    return call.done(SetDraining(_node(call), "node", draining=False))


def drain(target: str, scope: str, body: DrainBody) -> SetDraining:
    return SetDraining(target, scope, body.draining, _lasting(body.expires), body.reason)


def _end(call: Call, name: str) -> DoneAnswer:
    done = call.done(SetDraining(name, "datacenter", draining=False))
    drain_claims.note(call, name, 0)
    return done


def _lasting(text: str) -> int:
    """0: nothing was said.  Raises `LocalError` for a drain of no time, which nobody can mean."""
    lasting = duration(text, "expires")
    if text and not lasting:
        raise LocalError(
            "expires", got=text, expected="a duration above 0, such as '30m'; draining = false ends a drain"
        )
    return lasting


def _fits(call: Call, datacenter: str, gone: Sequence[str] = ()) -> list[Fit]:
    """Of each service that lives there, when those that are `gone` carry nothing either."""
    catalog, flows = call.node.catalog, call.node.flows
    found: list[Fit] = []
    for name in catalog.names():
        view = catalog.service(name)
        if view is None or not any(lives(one) for one in view.instances if one.datacenter == datacenter):
            continue
        known = flows.of(name)
        if known is not None:
            found.append(fits_without(known, datacenter, gone))
    return found


def _refuse_what_does_not_fit(datacenter: str, fits: list[Fit], gone: Sequence[str]) -> None:
    """Raises `Rejected` with the numbers."""
    heavy = [fit for fit in fits if not fit.fits]
    if not heavy:
        return
    heavy.sort(key=lambda fit: fit.capacity - fit.demand)
    words = "; ".join(fit.words for fit in heavy[:NAMED])
    more = f"; and {len(heavy) - NAMED} services more" if len(heavy) > NAMED else ""
    drained = f" ({' and '.join(gone)} {'is' if len(gone) == 1 else 'are'} drained too)" if gone else ""
    detail = f"Without {datacenter} it would not fit: {words}{more}{drained}"
    hint = f'GET /api/drains/{datacenter} shows the numbers of all services; {{"force": true}} drains it all the same'
    if gone:
        hint = f"DELETE /api/drains/{gone[0]} ends the drain there; {hint}"
    raise Rejected(problem(HTTPStatus.CONFLICT, detail, field="datacenter", got=datacenter, hint=hint))


def _datacenter(call: Call) -> str:
    """The data center of the path, which must be known: a slip of the pen must not look like success."""
    name = check_label(call.path["datacenter"], "datacenter")
    if name not in call.node.datacenters:
        hint = f"Known: {', '.join(call.node.datacenters)}"
        raise not_found("datacenter", name, f"No data center {name!r} is known here", hint)
    return name


def _node(call: Call) -> Path:
    """The member that the path names, which must be known."""
    path = f"{_datacenter(call)}/{check_label(call.path['name'], 'name')}"
    if path not in call.node.members:
        hint = "GET /api/members lists all"
        raise not_found("name", path, f"No member {path!r} is known here", hint)
    return path


OPERATIONS = (
    Operation(
        method="GET",
        path="/api/drains/{datacenter}",
        role=Role.READ,
        summary="Whether the other data centers could carry what is served in this one",
        respond=get_datacenter_drain,
        answer=FitsAnswer,
    ),
    Operation(
        method="PUT",
        path="/api/drains/{datacenter}",
        role=Role.WRITE,
        summary="Drain a whole data center; refused with the numbers where the others cannot carry it, unless forced",
        respond=put_datacenter_drain,
        answer=DoneAnswer,
        body=DatacenterDrainBody,
    ),
    Operation(
        method="DELETE",
        path="/api/drains/{datacenter}",
        role=Role.WRITE,
        summary="End the drain of a data center",
        respond=delete_datacenter_drain,
        answer=DoneAnswer,
    ),
    Operation(
        method="PUT",
        path="/api/drains/{datacenter}/{name}",
        role=Role.WRITE,
        summary="Drain all instances of a node",
        respond=put_node_drain,
        answer=DoneAnswer,
        body=DrainBody,
    ),
    Operation(
        method="DELETE",
        path="/api/drains/{datacenter}/{name}",
        role=Role.WRITE,
        summary="End the drain of a node",
        respond=delete_node_drain,
        answer=DoneAnswer,
    ),
)
