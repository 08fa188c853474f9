"""What goes wrong with a request, as problem details (RFC 9457) that name the field and the mend.

Never a stack trace: who made the mistake is told how to mend it, and what is our fault is logged and counted by `app`.
"""

from http import HTTPStatus
from typing import Any

import msgspec
from msgspec import Struct

from dislocate.core.boundary.requests import Refused
from dislocate.core.errors import LocalError, brief, require
from dislocate.strict import Malformed

MEDIA_TYPE = "application/problem+json"

# How the core's refusals look in HTTP; those of the store, where a server elsewhere judges, below.
REFUSED_STATUS = {
    "unknown": HTTPStatus.NOT_FOUND,
    "conflict": HTTPStatus.CONFLICT,
    "invalid": HTTPStatus.UNPROCESSABLE_ENTITY,
    "storage": HTTPStatus.SERVICE_UNAVAILABLE,
    "leaving": HTTPStatus.SERVICE_UNAVAILABLE,
    "unavailable": HTTPStatus.SERVICE_UNAVAILABLE,
}
STORE_STATUS = {
    **REFUSED_STATUS,
    "invalid": HTTPStatus.BAD_REQUEST,
    "storage": HTTPStatus.INSUFFICIENT_STORAGE,
}


class Problem(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """RFC 9457; `type` is always about:blank and therefore left out.  `expected` and `hint` are the mend."""

    status: int
    title: str
    detail: str
    field: str = ""
    got: Any = None
    expected: str = ""
    hint: str = ""
    revision: int | None = None  # of the key that a compare-and-set met; 0: there is none
    age: float | None = None  # seconds: of the read that found no such key


class Rejected(Exception):
    """The request is answered by a problem.  Nothing was changed."""

    def __init__(self, problem: Problem, headers: dict[str, str] | None = None) -> None:
        super().__init__(problem.detail)
        self.problem = problem
        self.headers = headers or {}


def problem(
    status: int, detail: str, *, field: str = "", got: Any = None, expected: str = "", hint: str = ""
) -> Problem:
    title = HTTPStatus(status).phrase
    return Problem(status=status, title=title, detail=detail, field=field, got=got, expected=expected, hint=hint)


def not_found(field: str, got: str, detail: str, hint: str) -> Rejected:
    return Rejected(problem(HTTPStatus.NOT_FOUND, detail, field=field, got=got, hint=hint))


def refused(refusal: Refused) -> Rejected:
    """How the core's refusal is answered.  Raises `Bug` for a kind that does not exist."""
    require(refusal.kind in REFUSED_STATUS, f"refused for a reason of unknown kind {refusal.kind!r}")
    return Rejected(_problem_of(REFUSED_STATUS[refusal.kind], refusal))


def store_refused(refusal: Refused, *, is_founded: bool, of_keys: bool = True) -> Rejected:
    """How a refusal of the store is answered.  Raises `Bug` for a kind that does not exist.

    `is_founded`: this agent knows of a store.  Before there is one nothing is known locally either, and no second helps."""
    require(refusal.kind in STORE_STATUS, f"refused for a reason of unknown kind {refusal.kind!r}")
    status = STORE_STATUS[refusal.kind]
    if status != HTTPStatus.SERVICE_UNAVAILABLE:
        return Rejected(_problem_of(status, refusal))
    if not is_founded:
        hint = "GET /api/store says how far the founding is; until then nothing is kept or known"
        return Rejected(_problem_of(status, refusal, hint))
    hint = "Ask again in a second" + ("; ?consistency=local reads what is known here, with its age" if of_keys else "")
    return Rejected(_problem_of(status, refusal, hint), {"Retry-After": "1"})


def _problem_of(status: int, refusal: Refused, hint: str = "") -> Problem:
    got, expected = refusal.got, refusal.expected
    return problem(status, refusal.reason, field=refusal.field, got=got, expected=expected, hint=hint)


def uncertain(reason: str, *, is_repeatable: bool = False) -> Rejected:
    """No answer came: neither a failure nor a success.  `is_repeatable`: what is done twice is as if done once."""
    hint = "Read before trying again: a second try may do it twice"
    if is_repeatable:
        hint = "Try again: a second try does no harm"
    return Rejected(problem(HTTPStatus.GATEWAY_TIMEOUT, f"It may have been done: {reason}", hint=hint))


def cas_missed(given: int, revision: int, words: tuple[str, str]) -> Rejected:
    """The compare-and-set met another revision.  Nothing was changed."""
    status = HTTPStatus.CONFLICT
    detail, expected = words
    return Rejected(
        Problem(
            status=status,
            title=status.phrase,
            detail=detail,
            field="cas",
            got=given,
            expected=expected,
            revision=revision,
        )
    )


def from_local_error(error: LocalError) -> Problem:
    """The caller's mistake: 400 for what is no JSON, 422 for what makes no sense."""
    status = HTTPStatus.BAD_REQUEST if isinstance(error, Malformed) else HTTPStatus.UNPROCESSABLE_ENTITY
    detail, got = f"{error.field}: expected {error.expected}", brief(error.got)
    return problem(status, detail, field=error.field, got=got, expected=error.expected)


def encode(problem_: Problem) -> bytes:
    return msgspec.json.encode(problem_)
