"""`@balanced`: any callable that takes an endpoint becomes one that is given the best.

    @balanced("orders.api", idempotent=True)
    def total(endpoint, order_id):
        with socket.create_connection((endpoint.address, endpoint.port), 1.0) as connection: ...

    total(7)

An exception fails the attempt; ConnectionRefusedError says that nothing was done, so it is tried elsewhere at no cost.  Other
errors named in `retry_on` are tried elsewhere if the function is `idempotent`, within the retry budget.  Whatever the last
attempt raised is raised, with a note on the attempts.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from dislocate.client.attempts import Broken, Call, Ended, broken_by
from dislocate.client.caller import Client, Pick
from dislocate.client.checking import check_attempts, check_seconds
from dislocate.client.errors import CallFailed
from dislocate.core.balance.picker import Outcome
from dislocate.core.errors import LocalError
from dislocate.core.identity import check_service_name

Function = TypeVar("Function", bound=Callable[..., Any])


def balanced(
    service: str,
    *,
    client: Client | None = None,
    idempotent: bool = False,
    timeout: float | None = None,
    attempts: int | None = None,
    retry_on: tuple[type[Exception], ...] = (OSError,),
    key: Callable[..., str] | None = None,
) -> Callable[[Function], Function]:
    """A decorator: the function is called with a `Pick` before its own arguments.  Raises `LocalError` for a number or a name
    that cannot be meant.

    `client`: None: one of its own, made at the first call.  `timeout`: seconds after which no further attempt is made; an
    attempt under way is the function's to end.  `attempts`: None: the policy's.  `retry_on`: errors that another
    endpoint may not have; any other passes at once.  Each counts against the endpoint, save that arguments do not fit the
    function.  `key(*arguments)`: calls with the same key go to the same endpoint.

    The call raises what the function does, and what a pick raises."""
    check_service_name(service, "service")
    check_seconds(timeout, "timeout")
    check_attempts(attempts)

    def decorate(function: Function) -> Function:
        if inspect.iscoroutinefunction(function):
            raise LocalError(
                "function", got=function.__qualname__, expected="no `async def`, whose end would not be seen"
            )
        made: list[Client] = [] if client is None else [client]

        @functools.wraps(function)
        def wrapper(*arguments: Any, **named: Any) -> Any:
            if not made:
                made.append(Client())
            call: Call[Any] = Call(
                made[0],
                service,
                key="" if key is None else key(*arguments, **named),
                timeout=timeout,
                attempts=attempts,
                is_idempotent=idempotent,
            )

            def attempt(picked: Pick, _seconds: float) -> Ended[Any]:
                try:
                    return Ended(function(picked, *arguments, **named))
                except retry_on as error:
                    raise broken_by(error, was_sent=True) from error
                except TypeError as error:
                    if error.__traceback__ is not None and error.__traceback__.tb_next is None:
                        picked.report(Outcome.CANCELLED)  # raised by the call above itself: the function did not begin
                    raise

            try:
                return call.run(attempt)
            except CallFailed as failed:
                cause = failed.__cause__
                if isinstance(cause, Exception) and not isinstance(cause, Broken):
                    cause.add_note(str(failed))
                    raise cause from None
                raise

        return wrapper  # type: ignore[return-value]  # with a Pick less, which TypeVar cannot say

    return decorate
