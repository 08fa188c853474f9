"""Claims: which data centers are drained, written down in the store, so that drains are decided one at a time.

Two drains that each fit need not fit together, and the word of the first takes a moment to reach the agent that judges the
second.  So a drain is judged with all that are claimed taken as gone, and its claim is written only if no other was written
since; else it is judged again.  Without a store each agent judges by what it knows.

One key, `system/drains`: {"fra": 1700003600000000000}, the wall time at which each ends by itself.  A claim whose time is
over counts for nothing.  It sends nobody anywhere: the catalog's order does that, and needs no store.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus

import msgspec
from msgspec.structs import replace

from dislocate.core.boundary.store import ReadKeys, Transacted
from dislocate.core.errors import LocalError
from dislocate.edge.http.call import STORE_WITHIN, Call
from dislocate.edge.http.problems import Rejected, problem
from dislocate.edge.keys import put

log = logging.getLogger(__name__)

KEY = "system/drains"
TRIES = 10  # each is lost to somebody who drained: nobody drains so many at once
NOTED_WITHIN = 3.0  # seconds that the store has for what is done with or without it

Judge = Callable[[Sequence[str]], None]  # given what is drained already; raises `Rejected`


def claim(call: Call, datacenter: str, lasting: int, judge: Judge) -> None:
    """Written down, `judge` having agreed with all other claims in sight.  Raises what `judge` raises, and `Rejected` where
    the store cannot be asked; then nothing is claimed."""
    if not call.node.store.group:
        judge(())
        return
    for _ in range(TRIES):
        with _in_reach(datacenter):
            claims, revision = _read(call, STORE_WITHIN)
        judge([name for name in claims if name != datacenter])
        with _in_reach(datacenter):
            if _write(call, {**claims, datacenter: time.time_ns() + lasting}, revision, STORE_WITHIN):
                return
    detail = f"{datacenter} is not drained: others drain at the same moment"
    raise Rejected(problem(HTTPStatus.CONFLICT, detail, field="datacenter", got=datacenter, hint="Ask again"))


def note(call: Call, datacenter: str, lasting: int) -> None:
    """What is done already is written down for those who drain next; `lasting` 0: it is drained no more.

    A store that cannot be asked does not undo it: that is logged, with the mend."""
    if not call.node.store.group:
        return
    try:
        for _ in range(TRIES):
            claims, revision = _read(call, NOTED_WITHIN, lost_is_none=lasting > 0)
            new = {name: end for name, end in claims.items() if name != datacenter}
            if lasting:
                new[datacenter] = time.time_ns() + lasting
            if new == claims or _write(call, new, revision, NOTED_WITHIN):
                return
        why = "others drain at the same moment"
    except (Rejected, LocalError) as error:
        why = str(error)
    now, mend = (
        ("drained", "") if lasting else ("not drained", f"; `dislocate drain dc {datacenter} --off` tries again")
    )
    log.warning("%s is %s, which is not written down in %s (%s)%s", datacenter, now, KEY, why, mend)


def _read(call: Call, within: float, *, lost_is_none: bool = False) -> tuple[dict[str, int], int]:
    """The claims that are not over, and the revision of the key.  Raises `LocalError` for what cannot be read, unless that
    is to be written anew."""
    found = call.ask_store(ReadKeys(KEY), within).keys
    if not found:
        return {}, 0
    try:
        claims = msgspec.json.decode(found[0].value, type=dict[str, int])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        if lost_is_none:
            return {}, found[0].modified
        mend = f"a time for each data center; `dislocate kv delete {KEY}` forgets what is drained"
        raise LocalError(KEY, got=found[0].value[:80].decode(errors="replace"), expected=mend) from None
    now = time.time_ns()
    return {name: end for name, end in claims.items() if end > now}, found[0].modified


def _write(call: Call, claims: Mapping[str, int], revision: int, within: float) -> bool:
    """Whether nobody wrote since `revision`."""
    done: Transacted = call.ask_store(put(KEY, msgspec.json.encode(claims), cas=revision), within, of_one_key=True)
    return done.succeeded


@contextmanager
def _in_reach(datacenter: str) -> Iterator[None]:
    """Raises `Rejected` with the mend of a drain where the store does not answer: asking again does no harm."""
    try:
        yield
    except Rejected as rejected:
        hint = (
            f"Ask again; GET /api/drains/{datacenter} says whether it fits as far as this agent knows, "
            f'and {{"force": true}} drains it without the store'
        )
        raise Rejected(replace(rejected.problem, hint=hint), rejected.headers) from rejected
