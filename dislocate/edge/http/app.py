"""The API as one falcon application: the table of operations, and what is checked before any of them.

    app = make_app(backend, node, access, counters)

Order of checks: Host and Origin, route, role, query parameters, size, type and shape of the body.  Whatever goes wrong is
answered as a problem; what is our own fault is logged and counted, and the caller is told so without a stack trace.
"""

import logging
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

import falcon
import gevent
import msgspec

from dislocate.core.boundary.spec import References, RunSpec
from dislocate.core.errors import LocalError
from dislocate.core.identity import NodeId
from dislocate.edge.backend import Backend
from dislocate.edge.http import (
    callers,
    health,
    instances,
    kv,
    leases,
    members,
    runs,
    scale,
    secrets,
    servers,
    services,
    watch,
)
from dislocate.edge.http import exec as exec_
from dislocate.edge.http.access import Access, Role
from dislocate.edge.http.call import EVENT_STREAM, JSON, TEXT, Agent, Call, Operation, StreamSlots
from dislocate.edge.http.problems import MEDIA_TYPE, Problem, Rejected, encode, from_local_error, problem
from dislocate.edge.http.routing import RouteChanges
from dislocate.edge.keys import NOT_ALL
from dislocate.edge.metrics import EdgeCounters
from dislocate.strict import decode, parse_json

log = logging.getLogger(__name__)

BODY_LIMIT = 1 << 20  # bytes; the largest sensible body, an instance with much meta, is a thousandth of that
BODY_WITHIN = 10.0  # seconds in which a body must arrive

# `curl -d` calls everything a form.  Taking its word would help nobody: forms posted by other sites' pages carry an
# Origin, and that has been checked.
BODY_TYPES = (JSON, "application/x-www-form-urlencoded")


def make_app(
    backend: Backend,
    node: NodeId,
    access: Access,
    counters: EdgeCounters,
    *,
    references: Callable[[RunSpec], References],
    more: tuple[Operation, ...] = (),
    stream_limit: int = 64,
    seal: Callable[[bytes, bytes], bytes] | None = None,
) -> Callable[..., Iterable[bytes]]:
    """The WSGI application of one agent; `more` are operations of other parts.  `references`: which keys and secrets the
    templates of a specification name; `seal`: a value to a node's public key."""
    agent = Agent(
        backend=backend,
        node=node,
        access=access,
        counters=counters,
        streams=StreamSlots(stream_limit),
        changes=RouteChanges(backend),
        references=references,
        seal=seal,
    )
    operations = all_operations(more)
    app: Any = falcon.App(middleware=[_Gate(agent)])
    app.req_options.auto_parse_qs_csv = False
    app.req_options.strip_url_path_trailing_slash = True
    app.add_error_handler(Exception, lambda _request, response, error, _path: _failed(agent, response, error))
    app.add_error_handler(TimeoutError, lambda _request, response, _error, _path: _late(agent, response))
    app.add_error_handler(LocalError, lambda _request, response, error, _path: _put(response, from_local_error(error)))
    app.add_error_handler(Rejected, lambda _request, response, error, _path: _reject(response, error))
    app.add_error_handler(falcon.HTTPError, lambda request, response, error, _path: _mistaken(request, response, error))
    by_path: dict[str, list[Operation]] = {}
    for operation in operations:
        by_path.setdefault(operation.path, []).append(operation)
    for path, of_path in by_path.items():
        app.add_route(path, _Resource(agent, of_path))
    return app


def all_operations(more: tuple[Operation, ...] = ()) -> tuple[Operation, ...]:
    """The whole table, with the two operations that describe it."""

    def get_openapi(_call: Call) -> bytes:
        from dislocate.edge.http.openapi import describe  # rare, and its schema machinery costs memory

        return msgspec.json.format(msgspec.json.encode(describe(listed)), indent=1)

    def get_index(call: Call) -> bytes:
        width = max(len(operation.path) for operation in listed)
        lines = [f"{each.method:6} {each.path.replace(':path', ''):{width}}  {each.summary}" for each in listed]
        head = f"Dislocate agent {call.agent.node.path}. Try: curl http://localhost:49700/api/services"
        return "\n".join([head, "", *lines, ""]).encode()

    listed = (
        *health.OPERATIONS,
        *services.OPERATIONS,
        *watch.OPERATIONS,
        *instances.OPERATIONS,
        *callers.OPERATIONS,
        *members.OPERATIONS,
        *kv.OPERATIONS,
        *leases.OPERATIONS,
        *servers.OPERATIONS,
        *runs.OPERATIONS,
        *exec_.OPERATIONS,
        *secrets.OPERATIONS,
        *scale.OPERATIONS,
        *more,
        Operation(
            method="GET",
            path="/api/openapi.json",
            role=Role.READ,
            summary="This API, described in OpenAPI 3.1",
            respond=get_openapi,
        ),
        Operation(
            method="GET",
            path="/",
            role=Role.READ,
            summary="This list",
            respond=get_index,
            media=TEXT,
        ),
    )
    return listed


class _Resource:
    """The operations of one path, as falcon looks for them: on_get, on_put ..."""

    def __init__(self, agent: Agent, operations: Iterable[Operation]) -> None:
        for operation in operations:
            respond = _responder(agent, operation)
            setattr(self, f"on_{operation.method.lower()}", respond)
            if operation.method == "GET" and operation.media != EVENT_STREAM:
                self.on_head = respond  # the same without its body


def _responder(agent: Agent, operation: Operation) -> Any:
    def respond(request: falcon.Request, response: falcon.Response, **path: str) -> None:
        role = agent.access.role_of(request.env)
        agent.access.require(role, operation.role, f"{operation.method} {request.path}")
        call = Call(agent, request, response, role)
        call.check_queries(operation.queries)
        call.path = path
        if operation.body is not None:
            _check_type(request)
            read = parse_json if operation.in_words else decode
            call.body = read(_read_body(request, BODY_LIMIT) or b"{}", operation.body)
        elif operation.raw_limit:
            call.body = _read_body(request, operation.raw_limit)
        response.content_type = operation.media
        answer = operation.respond(call)
        if isinstance(answer, bytes):
            response.data = answer
        elif isinstance(answer, msgspec.Struct):
            response.data = msgspec.json.encode(answer)
        else:
            response.stream = answer

    return respond


class _Gate:
    """What holds for every request, routed or not."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def process_request(self, request: falcon.Request, response: falcon.Response) -> None:
        self._agent.access.check_browser(request.env)

    def process_response(self, request: falcon.Request, response: falcon.Response, _resource: Any, _ok: bool) -> None:
        response.set_header("X-Content-Type-Options", "nosniff")
        route = request.uri_template or "(none)"
        method = request.method if request.uri_template else "(any)"
        status = str(response.status_code)
        self._agent.counters.count("http_requests", method=method, route=route, status=status)


def _check_type(request: falcon.Request) -> None:
    """Raises `Rejected` for a body of a type that is no JSON."""
    media = (request.content_type or JSON).partition(";")[0].strip().lower()
    if request.content_length == 0 or media in BODY_TYPES or media.endswith("+json") or not _has_body(request):
        return
    detail = f"Content-Type: expected {JSON}"
    hint = f"Add -H 'Content-Type: {JSON}'"
    raise Rejected(
        problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail, field="Content-Type", got=media, expected=JSON, hint=hint)
    )


def _has_body(request: falcon.Request) -> bool:
    is_chunked = "chunked" in request.env.get("HTTP_TRANSFER_ENCODING", "").lower()
    return request.content_length is not None or is_chunked


def _read_body(request: falcon.Request, longest: int) -> bytes:
    """The whole body.  Raises `Rejected` when it is too long or too slow."""
    length = request.content_length
    if not _has_body(request):
        return b""
    if length is not None and length > longest:
        raise _too_large(longest)
    limit = longest + 1 if length is None else length
    within = BODY_WITHIN * max(1, longest // (8 * BODY_LIMIT))
    try:
        with gevent.Timeout(within, TimeoutError):
            body = _read(request.env["wsgi.input"], limit)
    except TimeoutError:
        detail = f"The body did not arrive within {within:.0f} s"
        raise _unreadable(HTTPStatus.REQUEST_TIMEOUT, detail) from None
    except OSError as error:
        raise _unreadable(HTTPStatus.BAD_REQUEST, "The body ended early or is wrongly chunked") from error
    if len(body) > longest:
        raise _too_large(longest)
    return body


def _read(stream: Any, limit: int) -> bytes:
    parts: list[bytes] = []
    while limit > 0 and (part := stream.read(min(limit, 1 << 16))):
        parts.append(part)
        limit -= len(part)
    return b"".join(parts)


def _too_large(longest: int) -> Rejected:
    status, detail = HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body is longer than {longest} bytes"
    return _unreadable(status, detail, f"at most {longest} bytes")


def _unreadable(status: int, detail: str, expected: str = "") -> Rejected:
    """What is left of the body would be taken for the next request: the connection ends."""
    return Rejected(problem(status, detail, field="body", expected=expected), {"Connection": "close"})


# ---- errors


def _put(response: falcon.Response, problem_: Problem) -> None:
    response.status = problem_.status
    response.content_type = MEDIA_TYPE
    response.data = encode(problem_)


def _reject(response: falcon.Response, rejected: Rejected) -> None:
    _put(response, rejected.problem)
    response.set_headers(rejected.headers)


def _mistaken(request: falcon.Request, response: falcon.Response, error: falcon.HTTPError) -> None:
    """Falcon's own: no such route, no such method there, a request that it cannot parse."""
    status = error.status_code
    detail, hint = error.description or error.title or "", ""
    if status == HTTPStatus.NOT_FOUND:
        detail, hint = f"There is no {request.path[:200]}", "GET / lists what there is"
    if isinstance(error, falcon.HTTPMethodNotAllowed):
        allowed = (error.headers or {}).get("Allow", "") if isinstance(error.headers, dict) else ""
        detail, hint = f"{request.method} is not for {request.path[:200]}", f"Allowed: {allowed}"
        if (request.method, request.path) == ("DELETE", kv.ROUTE.rstrip("/")):
            hint = f"Name a key, or with ?prefix=true a prefix: {NOT_ALL}"
    _put(response, problem(status, detail, hint=hint))
    if error.headers:
        response.set_headers(error.headers)


def _late(agent: Agent, response: falcon.Response) -> None:
    agent.counters.count("http_failures")
    detail = "The agent did not decide in time; it may still do what was asked"
    hint = "Look, then ask again: the same PUT or DELETE twice does no harm"
    _put(response, problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, hint=hint))
    response.set_header("Retry-After", "1")


def _failed(agent: Agent, response: falcon.Response, error: Exception) -> None:
    log.error("a request met a bug", exc_info=error)
    agent.counters.count("http_failures")
    detail = "The agent met a bug of its own; its log has the details"
    _put(response, problem(HTTPStatus.INTERNAL_SERVER_ERROR, detail))
