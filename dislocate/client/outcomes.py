"""How a call ended, by the error that ended it.  Pure; knows gevent's errors where gevent is in use, and never imports it."""

import sys

from dislocate.core.balance.picker import Outcome


def outcome_of(error: BaseException | None) -> Outcome:
    """What the picker is told.  A block that was left by an interrupt, a killed greenlet or a closed generator says
    nothing of the endpoint."""
    match error:
        case None:
            return Outcome.OK
        case ConnectionRefusedError():
            return Outcome.REFUSED
        case TimeoutError():  # socket.timeout too
            return Outcome.TIMED_OUT
        case Exception():
            return Outcome.FAILED
    return Outcome.TIMED_OUT if _is_gevent_timeout(error) else Outcome.CANCELLED


def _is_gevent_timeout(error: BaseException) -> bool:
    """gevent.Timeout is a BaseException, so that applications do not swallow it."""
    module = sys.modules.get("gevent.timeout")
    return module is not None and isinstance(error, module.Timeout)
