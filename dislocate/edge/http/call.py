"""One operation of the API as data, and one call of it: what a responder is given.

The table of operations is the only description of the API: routes, roles, strict query parameters, bodies, the schema in
openapi.json and the list on `/` all come from it.  A responder returns an answer struct (or a stream) or raises `Rejected`
or `LocalError`; it never sees WSGI.
"""

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any, TypeAlias

from falcon import Request as HttpRequest
from falcon import Response as HttpResponse
from msgspec import Struct

from dislocate.core.boundary.requests import Done, Refused, Request, Result
from dislocate.core.boundary.spec import References, RunSpec
from dislocate.core.boundary.store import GrantLease, KeysRead, ReadKeys, StoreRequest, Transact, Uncertain, WatchKeys
from dislocate.core.errors import LocalError
from dislocate.core.identity import NodeId
from dislocate.edge.answers import DoneAnswer
from dislocate.edge.backend import Backend
from dislocate.edge.bodies import duration
from dislocate.edge.http.access import Access, Role
from dislocate.edge.http.problems import Rejected, problem, refused, store_refused, uncertain
from dislocate.edge.http.routing import RouteChanges
from dislocate.edge.keys import named_as_asked
from dislocate.edge.metrics import EdgeCounters
from dislocate.edge.picks import Picks
from dislocate.strict import one_of

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
BYTES = "application/octet-stream"
EVENT_STREAM = "text/event-stream"

# In the WSGI environment: tells whether the caller has hung up.  Set by `server`; absent where nobody can tell.
IS_GONE = "dislocate.is_gone"

ANSWER_WITHIN = 10.0  # seconds that the core and its disk get: a sync that takes longer is a broken disk
STORE_WITHIN = 12.0  # seconds that a majority of servers gets: the core gives up and says why before that (ASK_WITHIN)


class StreamSlots:
    """How many event streams may be open at once: each holds a connection for good."""

    def __init__(self, limit: int = 64) -> None:
        self.limit = limit
        self.open = 0

    def take(self) -> None:
        """Raises `Rejected` when all are taken."""
        if self.open >= self.limit:
            detail = f"All {self.limit} event streams of this agent are in use"
            raise Rejected(
                problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, hint="Close one, or poll with index and wait"),
                {"Retry-After": "15"},
            )
        self.open += 1

    def give_back(self) -> None:
        self.open -= 1


class Agent(Struct, frozen=True, kw_only=True):
    """What the API needs to know of the agent that it speaks for."""

    backend: Backend
    picks: Picks
    node: NodeId
    access: Access
    counters: EdgeCounters
    streams: StreamSlots
    changes: RouteChanges
    references: Callable[[RunSpec], References]
    seal: Callable[[bytes, bytes], bytes] | None = None  # a value to a node's public key


class Query(Struct, frozen=True):
    """One query parameter, and what it means."""

    name: str
    meaning: str


def types_of(answer: type | tuple[type, ...] | None) -> tuple[type, ...]:
    """What an operation may answer."""
    if answer is None:
        return ()
    return answer if isinstance(answer, tuple) else (answer,)


Responder: TypeAlias = Callable[["Call"], Any]


class Operation(Struct, frozen=True, kw_only=True):
    """One method on one path."""

    method: str
    path: str  # a falcon URI template
    role: Role
    summary: str
    respond: Responder
    answer: type | tuple[type, ...] | None = None  # one of these; None: bytes or a stream of `media`
    body: type | None = None  # JSON of this shape
    in_words: bool = False  # its durations are words, as in a file
    raw_limit: int = 0  # else: that many bytes, whatever they are; 0: no body
    queries: tuple[Query, ...] = ()
    media: str = JSON


class Call:
    """One request for an operation, checked: the role suffices, parameters are known, the body is typed."""

    def __init__(self, agent: Agent, request: HttpRequest, response: HttpResponse, role: Role | None) -> None:
        self.agent = agent
        self.backend = agent.backend
        self.node = agent.backend.node
        self.role = role
        self.path: dict[str, str] = {}
        self.body: Any = None
        self.age = 0  # nanoseconds: so old may be what was read of the store for this answer
        self._request = request
        self._response = response

    @property
    def now(self) -> int:
        return self.backend.now()

    def ask(self, request: Request, timeout: float = ANSWER_WITHIN) -> Result:
        """What the core says.  Raises `Rejected` when it refuses, TimeoutError when it does not answer in time."""
        result = self.backend.request(request, timeout=timeout)
        if isinstance(result, Refused):
            raise refused(result)
        return result

    def done(self, request: Request) -> DoneAnswer:
        """`ask`, for what is answered by `Done`."""
        result = self.ask(request)
        return DoneAnswer(version=result.version if isinstance(result, Done) else 0)

    def ask_store(self, request: StoreRequest, timeout: float = STORE_WITHIN, *, of_one_key: bool = False) -> Any:
        """What the store says.  Raises `Rejected` when it refuses, and when nobody knows whether it was done.

        `of_one_key`: the caller knows of no transaction, so none of its fields is named."""
        try:
            result = self.backend.request(request, timeout=timeout)
        except TimeoutError:
            result = Uncertain(f"no answer within {timeout:.0f} s")
        if isinstance(result, KeysRead):
            self.age = max(self.age, result.age)
        return self._judged(request, result, of_one_key=of_one_key)

    def watch_store(self, request: WatchKeys, timeout: float) -> Any:
        """The same, None when nothing has changed within `timeout` seconds."""
        try:
            result = self.backend.request(request, timeout=timeout)
        except TimeoutError:
            return None
        return self._judged(request, result)

    def _judged(self, request: StoreRequest, result: Result, *, of_one_key: bool = False) -> Result:
        """`result` itself.  Raises `Rejected` for what was not done, or may have been."""
        if isinstance(result, Refused):
            if isinstance(request, Transact):
                result = named_as_asked(result, of_one_key=of_one_key)
            of_keys = isinstance(request, Transact | ReadKeys | WatchKeys)
            raise store_refused(result, is_founded=bool(self.node.store.group), of_keys=of_keys)
        if isinstance(result, Uncertain):
            raise uncertain(result.reason, is_repeatable=not isinstance(request, Transact | GrantLease))
        return result

    @property
    def actor(self) -> str:
        """Who asks, for records of runs; over TCP without a token nobody can tell."""
        here = self.agent.node.path
        return self._name or f"somebody at {self._request.env.get('REMOTE_ADDR', 'nowhere')} via {here}"

    def require_name(self, what: str) -> None:
        """Raises `Rejected` where nobody can tell who asks: he may be the one that somebody else is to check."""
        if not self._name:
            detail = f"{what}: who asks is to have a name"
            expected = (
                "a token in 'Authorization: Bearer SECRET' (security.tokens_file), or a user on the agent's http.sock"
            )
            raise Rejected(problem(HTTPStatus.FORBIDDEN, detail, field="Authorization", expected=expected))

    @property
    def _name(self) -> str:
        return self.agent.access.name_of(self._request.env, self.agent.node.path)

    def is_abandoned(self) -> bool:
        """Whether the caller hung up, so that waiting on would only hold its connection."""
        is_gone: Callable[[], bool] | None = self._request.env.get(IS_GONE)
        return is_gone is not None and is_gone()

    def require(self, role: Role, what: str) -> None:
        """Raises `Rejected` unless the caller has `role`."""
        self.agent.access.require(self.role, role, what)

    # ---- query parameters and headers

    def query(self, name: str, default: str = "") -> str:
        """Raises `LocalError` for one that is given twice: nobody knows which of them is meant."""
        value = self._request.params.get(name, default)
        if not isinstance(value, str):
            raise LocalError(name, got=",".join(value)[:100], expected=f"?{name}= once")
        return value

    def query_list(self, name: str) -> tuple[str, ...]:
        """'a,b' and repeated parameters alike."""
        value = self._request.params.get(name, [])
        texts = [value] if isinstance(value, str) else value
        return tuple(part.strip() for text in texts for part in text.split(",") if part.strip())

    def query_flag(self, name: str) -> bool:
        """'true' or 'false', which is what nothing means.  Raises `LocalError`."""
        text = self.query(name, "false")
        if text not in ("true", "false", "1", "0"):
            raise LocalError(name, got=text[:100], expected="true or false")
        return text in ("true", "1")

    def query_number(self, name: str, largest: int, meaning: str, smallest: int = 0) -> int | None:
        """A whole number; None when none was given: an empty one is a mistake.  Raises `LocalError`."""
        if name not in self._request.params:
            return None
        text = self.query(name)
        if not (text.isascii() and text.isdigit() and len(text) < 20 and smallest <= int(text) <= largest):
            raise LocalError(name, got=text[:100], expected=meaning)
        return int(text)

    def rest_of_path(self, route: str) -> str:
        """What stands after `route` in the path, to the last slash: falcon strips one from the end.  Raises `LocalError`."""
        path: bytes = self._request.env["PATH_INFO"].encode("latin-1")  # as WSGI hands bytes over
        try:
            return path.decode().removeprefix(route)
        except UnicodeDecodeError:
            raise LocalError("key", got=repr(path)[2:102], expected="UTF-8, percent-encoded") from None

    def query_index(self) -> int | None:
        """The `index` to wait from; None when none was given.  Raises `LocalError`."""
        return _index(self.query("index"), "index")

    def query_wait(self, default: float, longest: float) -> float:
        """Seconds to wait.  Raises `LocalError`."""
        text = self.query("wait")
        wait = duration(text, "wait") / 1e9 if text else default
        if wait > longest:
            raise LocalError("wait", got=text, expected=f"at most '{longest / 60:.0f}m'")
        return wait

    def last_event_id(self) -> int | None:
        """Where an event stream was interrupted.  Raises `LocalError`."""
        return _index(self._request.get_header("Last-Event-ID") or "", "Last-Event-ID")

    def set_media(self, media: str) -> None:
        """The answer is of another type than the operation's own."""
        self._response.content_type = media

    def set_header(self, name: str, value: str) -> None:
        self._response.set_header(name, value)

    def check_queries(self, known: Iterable[Query]) -> None:
        """Raises `LocalError` for a parameter that the operation does not have."""
        names = [query.name for query in known]
        for name, value in self._request.params.items():
            if name not in names:
                allowed = one_of(name, names) if names else "no query parameters here"
                got = value if isinstance(value, str) else ",".join(value)
                raise LocalError(f"?{name[:100]}", got=got[:100], expected=allowed)


def _index(text: str, field: str) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise LocalError(field, got=text[:100], expected="the index of an earlier answer, a whole number")
    return int(text)
