"""What an application may ask for, looked at before anything is picked: its own mistake is no endpoint's failure, costs no
retry and counts against nobody.  Pure; raises `LocalError` naming the argument and the mend.
"""

import re
from collections.abc import Mapping
from math import isfinite

from dislocate.core.balance.picker import Outcome
from dislocate.core.errors import LocalError

TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)  # RFC 9110, 5.6.2
ENDS_A_LINE = re.compile(r"[\r\n\0]")
OUTCOMES = ", ".join(f"Outcome.{one.name}" for one in Outcome)


def check_seconds(value: float | None, field: str) -> float | None:
    """`value` itself; None stands for what the policy says."""
    if value is not None and not (_is_number(value) and isfinite(value) and value > 0):
        raise LocalError(field, got=value, expected="seconds, a finite number above 0")
    return value


def check_attempts(value: int | None, field: str = "attempts") -> int | None:
    """`value` itself; None stands for what the policy says."""
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise LocalError(field, got=value, expected="a whole number, 1 for one attempt and no other")
    return value


def check_key(value: str) -> str:
    """`value` itself; '' stands for no key."""
    if not isinstance(value, str):
        raise LocalError("key", got=value, expected="a text, such as str(customer)")
    return value


def check_report(outcome: object, latency: object) -> None:
    if not isinstance(outcome, Outcome):
        raise LocalError("outcome", got=outcome, expected=f"one of {OUTCOMES}")
    if latency is not None and not (_is_number(latency) and isfinite(latency) and latency >= 0):
        raise LocalError("latency", got=latency, expected="seconds, a finite number of at least 0")


def check_request(method: object, path: object, headers: Mapping[str, object]) -> None:
    if not (isinstance(method, str) and TOKEN.fullmatch(method)):
        raise LocalError("method", got=method, expected="a method such as 'GET'")
    if not (isinstance(path, str) and path.startswith("/")):
        raise LocalError(
            "path", got=path, expected="a path that begins with '/', and may have a query: where it goes is picked"
        )
    if not _fits(path, "utf-8"):
        raise LocalError("path", got=path, expected="text that can be encoded: no half of a surrogate pair")
    for name, value in headers.items():
        if not (isinstance(name, str) and TOKEN.fullmatch(name)):
            raise LocalError("headers", got=name, expected="names of letters, digits and '-', such as 'X-Request-Id'")
        _check_value(name, value)


def _check_value(name: str, value: object) -> None:
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    if isinstance(text, int):
        return
    if not (isinstance(text, str) and _fits(text, "latin-1") and not ENDS_A_LINE.search(text)):
        raise LocalError(f"headers.{name}", got=value, expected="one line of Latin-1 text, bytes or a whole number")


def _fits(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
