"""Which one should I use: one instance of a service for one call, with the reasons.

    GET /api/services/shop.web/pick?key=cart-7&exclude=fra/a1/web-1   ->  {"address": "10.0.0.2", "port": 8080, "why": ...}

An instance that is out is named only when nobody better was ever known: `status` and `age` say so.  Who picks often, or can
say how calls went, is served better by `dislocate.client.Client`, which picks in-process.
"""

from collections.abc import Iterable
from http import HTTPStatus

from dislocate.core.balance.errors import NoEndpoint
from dislocate.core.boundary.balance import Route
from dislocate.core.boundary.views import InstanceView
from dislocate.core.errors import LocalError
from dislocate.edge.flow_answers import PickAnswer, pick_answer
from dislocate.edge.http.access import Role
from dislocate.edge.http.call import Call, Operation, Query
from dislocate.edge.http.problems import Rejected, problem
from dislocate.edge.http.services import no_service
from dislocate.edge.picks import seen_from
from dislocate.strict import one_of

KEY_LIMIT = 1_024  # characters


def pick_instance(call: Call) -> PickAnswer:
    name = call.path["name"]
    route = call.agent.picks.route(name)
    if route is None:
        raise no_service(call, name)
    key = call.query("key")
    if len(key) > KEY_LIMIT:
        raise LocalError("key", got=key[:100], expected=f"at most {KEY_LIMIT} characters")
    source = call.query("from")
    if source:
        route = _from(call, route, source)
    excluded = call.query_list("exclude")
    exclude, strangers = _keys(excluded, route.instances)
    _check_strangers(strangers, call)
    try:
        picked = call.agent.picks.pick(route, key=key, exclude=exclude)
    except NoEndpoint as nobody:
        raise _nobody(nobody) from None
    why = f"{picked.why}; excluded, and nobody here: {', '.join(strangers)[:200]}" if strangers else picked.why
    return pick_answer(name, picked.endpoint.view, why, call.now)


def _from(call: Call, route: Route, source: str) -> Route:
    """The route of callers in the data center `source`, which must be known.  Raises `LocalError`."""
    if source != route.home and source not in call.node.datacenters:
        known = one_of(source, [route.home, *(name for name in call.node.datacenters if name != route.home)])
        raise LocalError("from", got=source[:100], expected=known)
    flows = call.node.flows.of(route.service)
    return seen_from(route, source, () if flows is None else flows.rows)


def _keys(excluded: tuple[str, ...], instances: Iterable[InstanceView]) -> tuple[frozenset[str], tuple[str, ...]]:
    """The keys of those that are named as 'dc/node/id', 'address:port', or 'id' alone: then all that have it.  And the names
    that nobody has: whoever tries again names who failed, which may just have gone."""
    named, keys, met = frozenset(excluded), set(), set()
    for each in instances if named else ():
        key = f"{each.node}/{each.id}"
        found = named.intersection((key, each.id, f"{each.address}:{each.port}"))
        if found:
            keys.add(key)
            met |= found
    return frozenset(keys), tuple(name for name in excluded if name not in met)


def _check_strangers(strangers: Iterable[str], call: Call) -> None:
    """Raises `LocalError` for the name of a data center or a node: it reads as if all there were excluded."""
    for name in strangers:
        if name in call.node.datacenters or name.count("/") == 1:
            raise LocalError(
                "exclude", got=name[:100], expected="instances, by commas: 'dc/node/id', 'address:port' or an id"
            )


def _nobody(nobody: NoEndpoint) -> Rejected:
    hint = f"GET /api/services/{nobody.service} shows its instances, .../flows why none may be used"
    return Rejected(
        problem(HTTPStatus.SERVICE_UNAVAILABLE, f"No instance can be named: {nobody.words}", field="name", hint=hint),
        {"Retry-After": "1"},
    )


OPERATIONS = (
    Operation(
        method="GET",
        path="/api/services/{name}/pick",
        role=Role.READ,
        summary="The instance to use for one call from this data center, and why this one",
        respond=pick_instance,
        answer=PickAnswer,
        queries=(
            Query("key", "the same key gets the same instance, while it lives and is not overfull"),
            Query("exclude", "others, if there are any, than these: 'dc/node/id', 'address:port' or an id, by commas"),
            Query("from", "as a caller in that data center would be told"),
        ),
    ),
)
