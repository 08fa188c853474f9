"""An HTTP session with a service: each request is picked, timed, retried within the budget, hedged if the policy says so.

    orders = client.http("orders.api")
    response = orders.get("/orders/7")            # of urllib3: .status, .headers, .data, .json()

A response is returned whatever its status; only calls that gave none raise.  502, 503 and 504 count as failures of the
endpoint and are tried elsewhere if the method is idempotent (RFC 9110, 9.2.2); 500 counts as one and is the answer; 4xx are
the caller's own.  Redirects are not followed: they lead out of the service.  Connections are kept, a pool an endpoint.
"""

import json as json_
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    LocationValueError,
    NewConnectionError,
    ReadTimeoutError,
)
from urllib3.util import Timeout

from dislocate.client.attempts import Broken, Call, Ended
from dislocate.client.caller import Client, Pick
from dislocate.client.checking import check_attempts, check_request, check_seconds
from dislocate.client.hedging import hedged
from dislocate.client.outcomes import outcome_of
from dislocate.client.tcp import CONNECT_WITHIN
from dislocate.core.balance.errors import NoEndpoint, RetriesSpent, Throttled
from dislocate.core.balance.picker import Outcome

IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
RETRIED = frozenset({502, 503, 504})  # the endpoint, or what is behind it, could not answer
FAILED = frozenset({500, *RETRIED})
NOT_BEGUN = "Dislocate-Not-Begun"  # in an answer of `serve`: the application did not see the request
POOLS = 256  # endpoints with kept connections; the least used is dropped
KEPT = 256  # idle connections to one endpoint; what is opened beyond is closed after its call


class HttpService:
    """Requests to one service.  Safe to share between threads and greenlets.

    `timeout`: seconds for a whole call with all of its attempts; None: the policy's.  `attempts`: None: the policy's.
    `headers`: sent with every request."""

    def __init__(
        self,
        client: Client,
        service: str,
        *,
        timeout: float | None = None,
        attempts: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.service = service
        self._client = client
        self._timeout = check_seconds(timeout, "timeout")
        self._attempts = check_attempts(attempts)
        self._headers = dict(headers or {})

    def get(self, path: str, **options: Any) -> urllib3.BaseHTTPResponse:
        return self.request("GET", path, **options)

    def head(self, path: str, **options: Any) -> urllib3.BaseHTTPResponse:
        return self.request("HEAD", path, **options)

    def put(self, path: str, **options: Any) -> urllib3.BaseHTTPResponse:
        return self.request("PUT", path, **options)

    def post(self, path: str, **options: Any) -> urllib3.BaseHTTPResponse:
        return self.request("POST", path, **options)

    def delete(self, path: str, **options: Any) -> urllib3.BaseHTTPResponse:
        return self.request("DELETE", path, **options)

    def request(
        self,
        method: str,
        path: str,
        *,
        body: bytes | str | None = None,
        json: Any = None,
        headers: Mapping[str, str] | None = None,
        key: str = "",
        timeout: float | None = None,
        attempts: int | None = None,
        idempotent: bool | None = None,
    ) -> urllib3.BaseHTTPResponse:
        """The response, its body read.  Raises `CallFailed`, `DeadlineExceeded`, what a pick raises, and `LocalError` before
        anything is picked for what cannot be sent.

        `path` begins with a slash and may have a query.  `json` is sent as the body.  `key`: requests with one key go to
        the same endpoint while it lives.  `idempotent`: whether it may be tried again after it was sent; None: if the
        method is.  `timeout` and `attempts` as those of the session."""
        sent = {**self._headers, **(headers or {})}
        check_request(method, path, sent)
        path = path.partition("#")[0]  # a fragment is not for the server
        if json is not None:
            body = json_.dumps(json).encode()
            sent.setdefault("Content-Type", "application/json")
        call: Call[urllib3.BaseHTTPResponse] = Call(
            self._client,
            self.service,
            key=key,
            timeout=self._timeout if timeout is None else timeout,
            attempts=self._attempts if attempts is None else attempts,
            is_idempotent=method.upper() in IDEMPOTENT if idempotent is None else idempotent,
        )
        ask = partial(self._ask, self._client.connections(POOLS, KEPT), method.upper(), path, body, sent)
        delay = self._client.hedge_after(self.service) if call.is_idempotent else None
        return call.run(ask if delay is None else partial(self._hedged, call, ask, delay))

    def _ask(
        self,
        connections: urllib3.PoolManager,
        method: str,
        path: str,
        body: bytes | str | None,
        headers: dict[str, str],
        picked: Pick,
        seconds: float,
    ) -> Ended[urllib3.BaseHTTPResponse]:
        """One attempt, `seconds` long at most."""
        timeout = Timeout(connect=min(CONNECT_WITHIN, seconds), total=seconds)
        try:
            pool = connections.connection_from_host(picked.address, picked.port)
            response = pool.urlopen(
                method, path, body=body, headers=headers, timeout=timeout, retries=False, redirect=False
            )
        except HTTPError as error:
            raise _broken(error) from error
        except OSError as error:  # urllib3 passes some on as they are
            raise Broken(outcome_of(error), str(error), was_sent=True) from error
        except Exception:  # not of the network: a body that cannot be sent, say, which is nobody's there
            picked.report(Outcome.CANCELLED)
            raise
        if response.status in RETRIED:
            return Ended(response, Outcome.FAILED, was_sent=NOT_BEGUN not in response.headers)
        if response.status in FAILED:
            picked.report(Outcome.FAILED)  # and yet it is the answer
        return Ended(response)

    def _hedged(
        self,
        call: Call[urllib3.BaseHTTPResponse],
        ask: Callable[[Pick, float], Ended[urllib3.BaseHTTPResponse]],
        delay: float,
        picked: Pick,
        seconds: float,
    ) -> Ended[urllib3.BaseHTTPResponse]:
        """One attempt that is joined by a second one if it takes longer than nearly all do."""
        ends = time.monotonic() + seconds

        def first() -> Ended[urllib3.BaseHTTPResponse]:
            return _reported(ask, picked, seconds)

        def second() -> Ended[urllib3.BaseHTTPResponse] | None:
            left = ends - time.monotonic()
            try:
                other = call.pick(retry=True).__enter__()
            except (NoEndpoint, RetriesSpent, Throttled):
                return None  # one attempt must do
            if other.name in call.tried or left <= 0:
                other.report(Outcome.CANCELLED)
                return None
            return _reported(ask, other, left)

        ended = hedged(first, second, delay, lambda ended: ended.outcome is Outcome.OK)
        ended.is_reported = True
        return ended


def _reported(
    ask: Callable[[Pick, float], Ended[urllib3.BaseHTTPResponse]], picked: Pick, seconds: float
) -> Ended[urllib3.BaseHTTPResponse]:
    """The attempt, its end told: whoever loses a race is told truly, too."""
    try:
        ended = ask(picked, seconds)
    except Broken as broken:
        picked.report(broken.outcome)
        raise
    except BaseException as error:
        picked.report(outcome_of(error))
        raise
    picked.report(ended.outcome)
    return ended


def _broken(error: HTTPError) -> Broken:
    match error:
        case NewConnectionError():  # nobody accepted, for whatever reason: nothing was sent
            return Broken(Outcome.REFUSED, str(error.__cause__ or error), was_sent=False)
        case ConnectTimeoutError():
            return Broken(Outcome.REFUSED, "no connection in time", was_sent=False)
        case ReadTimeoutError():
            return Broken(Outcome.TIMED_OUT, "no answer in time", was_sent=True)
        case LocationValueError():  # the path was looked at: its address is none
            return Broken(Outcome.REFUSED, str(error), was_sent=False)
    return Broken(Outcome.FAILED, str(error), was_sent=True)
