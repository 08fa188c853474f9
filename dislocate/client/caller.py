"""`Client`: a program that calls services, and what it knows of them.

    client = Client()
    with client.pick("orders.api") as picked:
        connect(picked.address, picked.port)

One client a process is enough: it holds one connection to the agent and one background thread (greenlet), both begun with
the first pick.  Safe to share between threads and greenlets; a child made by fork begins anew with what was known.
"""

import os
import time
import weakref
from collections.abc import Callable, Container
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import Struct

from dislocate.client import waiting
from dislocate.client.checking import check_report
from dislocate.client.connection import AgentConnection, find_agent
from dislocate.client.copy import KnownService, LocalCopy
from dislocate.client.outcomes import outcome_of
from dislocate.client.sync import Sync
from dislocate.core.balance.picker import Endpoint, Outcome, Picked
from dislocate.core.boundary.balance import Route
from dislocate.core.errors import DislocateError, LocalError

if TYPE_CHECKING:
    from urllib3 import PoolManager

    from dislocate.client.session import HttpService
    from dislocate.client.tcp import TcpCall

FIRST_WITHIN = 3.0  # seconds that the first pick of a service waits for its first route

Function = TypeVar("Function", bound=Callable[..., Any])


class Status(Struct, frozen=True):
    """How well this process is informed."""

    agent: str  # where it is
    is_current: bool  # the agent answers
    problem: str  # why not; empty: it does, or nothing was asked yet
    age: float | None  # seconds since the agent last said something; None: never
    services: dict[str, float]  # seconds since the route of each was known to be current

    def __str__(self) -> str:
        if self.is_current:
            return f"{self.agent}: current"
        if self.age is None:
            return f"{self.agent}: {self.problem or 'not asked yet'}"
        return f"{self.agent}: last heard {self.age:.0f} s ago; {self.problem}"


class _Process:
    """What a client has in one process: its copy and its exchange."""

    def __init__(self, agent: AgentConnection, copy: LocalCopy) -> None:
        self.copy = copy
        self.sync = Sync(agent, copy)
        self.connections: PoolManager | None = None  # to endpoints, by HTTP


class Client:
    """Calls services by name.

    `agent`: 'unix:/PATH/http.sock' or 'http://HOST:PORT'; else DISLOCATE_AGENT, else the local agent.  `token`: else
    DISLOCATE_TOKEN.  `first_within`: seconds that the first pick of a service waits for its first route.

    Everything that picks raises `NoAgent` when there has never been an agent to ask, `NoEndpoint` when nobody may be called,
    `Throttled` when the service accepts so little that calls are kept from it, and `LocalError`, at once, for a name that
    can be no service's."""

    def __init__(
        self, agent: str | None = None, token: str | None = None, *, first_within: float = FIRST_WITHIN
    ) -> None:
        self._agent = find_agent(agent, token)
        if not first_within >= 0:  # NaN too
            raise LocalError("first_within", got=first_within, expected="seconds, at least 0")
        self._first_within = first_within
        self._process = _Process(self._agent, LocalCopy())
        self._is_closed = False
        os.register_at_fork(after_in_child=_anew_in_child(weakref.ref(self)))

    # ---- calls

    def pick(self, service: str, *, key: str = "", exclude: Container[str] = (), retry: bool = False) -> "Pick":
        """A context manager around one call: inside it there is an address, at its end outcome and latency are reported.

        An exception that leaves the block counts as a failure of the endpoint: TimeoutError (and socket.timeout) as a
        timeout, ConnectionRefusedError as refused; an interrupt or a killed greenlet counts for nothing.  `key`: the same
        endpoint for the same key, while it lives.  `exclude`: `picked.name`s that others are preferred to.  `retry`: this
        is a further attempt of a call, and takes a token of the retry budget; raises `RetriesSpent` where none is left."""
        return Pick(self, service, key, exclude, retry)

    def http(self, service: str, **options: Any) -> "HttpService":
        """An HTTP session with `service`; `options` are those of `HttpService`."""
        from dislocate.client.session import HttpService  # urllib3 costs memory, which not every program wants to spend

        return HttpService(self, service, **options)

    def tcp(self, service: str, *, key: str = "", timeout: float | None = None) -> "TcpCall":
        """A context manager around one connection to `service`, a connected socket; another endpoint is tried where one
        refuses.  `timeout`: seconds to connect in, and of each wait on the socket; None: the policy's."""
        from dislocate.client.tcp import TcpCall

        return TcpCall(self, service, key, timeout)

    def balanced(self, service: str, **options: Any) -> Callable[[Function], Function]:
        """`dislocate.client.balanced` with this client."""
        from dislocate.client.decorator import balanced

        return balanced(service, client=self, **options)

    def connections(self, pools: int, kept: int) -> "PoolManager":
        """This process's kept HTTP connections, for `HttpService`: to `pools` endpoints, `kept` idle ones each."""
        process = self._process
        if process.connections is None:
            from urllib3 import PoolManager

            with process.copy.lock:
                process.connections = process.connections or PoolManager(pools, maxsize=kept, retries=False)
        return process.connections

    # ---- knowledge

    def route(self, service: str) -> Route:
        """What is known of `service` now: shares, policy, instances.  Raises as a pick does."""
        route = self._known(self._process, service).picker.route
        assert route is not None
        return route

    def hedge_after(self, service: str) -> float | None:
        """Seconds after which an idempotent call may be tried a second time; None: do not (policy `hedge`)."""
        delay = self._known(self._process, service).picker.hedge_after()
        return None if delay is None else delay / 1e9

    @property
    def status(self) -> Status:
        copy, sync = self._process.copy, self._process.sync
        now = time.monotonic_ns()
        with copy.lock:
            ages = {name: known.picker.age(now) / 1e9 for name, known in copy.services.items() if known.picker.route}
        return Status(
            agent=self._agent.where,
            is_current=bool(sync.heard) and not sync.problem,
            problem=sync.problem,
            age=(now - sync.heard) / 1e9 if sync.heard else None,
            services=ages,
        )

    def close(self) -> None:
        """End the exchange with the agent.  What is known stays usable, and grows old."""
        self._is_closed = True
        self._process.sync.close()

    def __del__(self) -> None:
        with suppress(AttributeError):  # of one whose making failed
            self._process.sync.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- for `Pick`

    def _known(self, process: _Process, service: str) -> KnownService:
        """The service, with a route.  Raises why there is none."""
        known = process.copy.services.get(service)
        if known is not None and known.has_come.is_set():
            return known
        known, is_new = process.copy.add(service)
        if not self._is_closed:
            process.sync.start()
        if known.has_come.is_set():  # a parent knew it
            return known
        if is_new:
            waiting.apart(process.sync.fetch, known, self._first_within)
        elif known.gave_up or not waiting.until(known.has_come, self._first_within):
            raise process.sync.absence(known)
        return known

    def _forked(self) -> None:
        old = self._process
        self._process = _Process(self._agent, old.copy.anew())
        old.sync.abandon()


def _anew_in_child(reference: "weakref.ref[Client]") -> Callable[[], None]:
    def begin() -> None:
        client = reference()
        if client is not None:
            client._forked()

    return begin


class Pick:
    """One call under way.  Readable inside its block."""

    __slots__ = ("_client", "_exclude", "_is_retry", "_key", "_picked", "_process", "_service")

    def __init__(self, client: Client, service: str, key: str, exclude: Container[str], retry: bool) -> None:
        self._client = client
        self._service = service
        self._key = key
        self._exclude = exclude
        self._is_retry = retry
        self._picked: Picked | None = None
        self._process = client._process

    def __enter__(self) -> "Pick":
        process = self._process = self._client._process
        known = process.copy.services.get(self._service)
        if known is None or not known.has_come.is_set():
            known = self._client._known(process, self._service)
        with process.copy.lock:
            self._picked = known.picker.pick(
                time.monotonic_ns(), key=self._key, exclude=self._exclude, retry=self._is_retry
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._report(outcome_of(error))

    def report(self, outcome: Outcome, *, latency: float | None = None) -> None:
        """Say how the call went, now; only the first word counts.  `latency`: seconds that count instead of those since
        the pick, for what goes on after its answer, as a stream does.  Raises `LocalError` for what is neither."""
        check_report(outcome, latency)
        self._report(outcome, latency)

    def connected(self) -> None:
        """Say that a connection was made, where it may stay open for long: its data center is within reach."""
        if self._picked is not None:
            with self._process.copy.lock:
                self._process.copy.services[self._service].picker.reached(self._picked)

    def _report(self, outcome: Outcome, latency: float | None = None) -> None:
        picked = self._picked
        if picked is None or picked.is_done:
            return
        now = time.monotonic_ns()
        with self._process.copy.lock:
            if latency is not None:
                picked.began = now - round(latency * 1e9)
            known = self._process.copy.services[self._service]
            known.picker.done(picked, now, outcome)

    @property
    def endpoint(self) -> Endpoint:
        if self._picked is None:
            raise DislocateError("nothing is picked yet: `with client.pick(...) as picked:`")
        return self._picked.endpoint

    @property
    def name(self) -> str:
        """'dc/node/id', unique in the fleet; what `exclude` takes."""
        return self.endpoint.key

    @property
    def address(self) -> str:
        """A host."""
        return self.endpoint.address

    @property
    def port(self) -> int:
        return self.endpoint.port

    @property
    def datacenter(self) -> str:
        return self.endpoint.datacenter

    @property
    def instance(self) -> str:
        """Its id at its agent."""
        return self.endpoint.instance

    @property
    def meta(self) -> dict[str, str]:
        return self.endpoint.view.meta

    @property
    def netloc(self) -> str:
        """'10.0.0.1:8080', as in a URL."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"

    @property
    def why(self) -> str:
        """The reasons for this endpoint, in a sentence; that the agent is down, too."""
        assert self._picked is not None
        problem = self._process.sync.problem
        return f"{self._picked.why}; by what was known: {problem}" if problem else self._picked.why

    def __repr__(self) -> str:
        return f"Pick({self._service}, {self.name if self._picked else 'not yet'})"
