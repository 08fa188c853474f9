"""Commands on many nodes at once, outside of any run: what they write is told line by line, as it comes.

The answer is one JSON object a line: 'start' with all nodes; 'output' of a node, and 'dropped' where some of it was not told;
'done' or 'unreachable' once for each node, whatever happens; 'end' with the numbers.  Nothing is missing in silence: who is
out of reach is named with the reason.  A command is not repeated and not undone; for what is to be so, and to stay so, there
are runs.
"""

import logging
import time
from collections.abc import Iterator
from typing import Any

import msgspec
from gevent.queue import Empty, Queue

from dislocate.core.boundary.events import Event, VisitTold
from dislocate.core.boundary.requests import Refused, Result
from dislocate.core.boundary.runs import Task, TaskOutcome, TaskResult, TaskVerb, Visit, Visited, VisitResult
from dislocate.core.boundary.spec import Command
from dislocate.core.identity import Path
from dislocate.core.runs.resources import check_resource
from dislocate.core.units import SECOND, seconds
from dislocate.edge.http.access import Role
from dislocate.edge.http.call import Agent, Call, Operation
from dislocate.edge.http.problems import encode, refused
from dislocate.edge.http.run_looks import MARGIN, with_all
from dislocate.edge.keys import text_of
from dislocate.edge.run_bodies import ExecBody, check_timeout
from dislocate.edge.run_targets import targets_of

NDJSON = "application/x-ndjson"
QUIET = 2.0  # seconds without a word, then an empty line: only by writing is it noticed that the reader has gone
VISIT_MARGIN = 5 * SECOND  # for a node besides the time of its command, so that it says itself that the time was up
QUEUE_LIMIT = 10_000  # pieces that may wait for a reader; a piece more and it is dropped

log = logging.getLogger(__name__)


def post_exec(call: Call) -> "ExecStream":
    body: ExecBody = call.body
    timeout = check_timeout(body.timeout)
    command = Command(run=body.command, once=True, directory=body.directory, timeout=timeout)
    check_resource(command, "command")
    nodes = targets_of(call.node, body.targets, body.confirm)
    log.info("%s runs on %d nodes (%s): %s", call.actor, len(nodes), body.targets, " ".join(body.command)[:500])
    task = Task(TaskVerb.APPLY, command, "", stream=True)
    call.set_header("Cache-Control", "no-store")
    return ExecStream(call.agent, Visit(nodes, (task,), body.at_once, timeout + VISIT_MARGIN))


class ExecStream:
    """One command under way, as WSGI wants it: an iterator of bytes.

    Whoever hangs up ends it: what has not begun does not begin, and what runs is killed."""

    def __init__(self, agent: Agent, visit: Visit) -> None:
        agent.streams.take()
        self._agent = agent
        self._nodes = visit.nodes
        self._opening = _line(event="start", nodes=visit.nodes)
        self._pieces: Queue[VisitTold | Result] = Queue()
        self._ended: dict[Path, str] = {}  # by node what became of it
        self._dropped: dict[Path, int] = {}  # by node, bytes that are not told
        self._is_over = False
        self._is_open = True
        turns = -(-len(visit.nodes) // visit.at_once)
        self._until = time.monotonic() + turns * (visit.timeout / SECOND + MARGIN)  # then it is given up
        self._request_id: int | None = None
        self._unsubscribe = agent.backend.subscribe(self._hear)
        self._request_id = agent.backend.ask(visit, self._pieces.put)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        opening, self._opening = self._opening, b""
        if opening:
            return opening
        if self._is_over:
            raise StopIteration
        wait = min(QUIET, self._until - time.monotonic())
        try:
            piece = self._pieces.get(timeout=max(0.0, wait))
        except Empty:
            return b"\n" if time.monotonic() < self._until else self._end()
        match piece:
            case VisitTold():
                return self._told(piece)
            case Visited(results=results):
                return self._end(results)
            case Refused():
                self._is_over = True
                return _line(event="problem", problem=msgspec.json.decode(encode(refused(piece).problem)))
        return self._end()

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._unsubscribe()
            if not self._is_over:
                self._agent.backend.cancel(self._request_id)
            self._agent.streams.give_back()

    def _hear(self, event: Event) -> None:
        """Also what is told before the id of the request is known: it is looked at again when it is taken."""
        if type(event) is not VisitTold or self._request_id not in (None, event.request_id):
            return
        if self._pieces.qsize() < QUEUE_LIMIT or event.is_last:
            self._pieces.put(event)
        else:
            self._dropped[event.node] = self._dropped.get(event.node, 0) + len(event.outcome.output)
            self._agent.counters.count("streams_dropped")

    def _told(self, piece: VisitTold) -> bytes:
        if piece.request_id != self._request_id or piece.node in self._ended:
            return b"\n"
        if piece.outcome.result is TaskResult.OUTPUT:
            text, encoding = text_of(piece.outcome.output)
            return _line(event="output", node=piece.node, text=text, **({"encoding": encoding} if encoding else {}))
        return self._done(piece.node, piece.outcome) if piece.is_last else b"\n"

    def _done(self, node: Path, outcome: TaskOutcome) -> bytes:
        is_good = outcome.result is not TaskResult.FAILED and not outcome.code
        self._ended[node] = "ok" if is_good else "failed"
        return self._missing(node) + _line(
            event="done",
            node=node,
            ok=is_good,
            code=outcome.code,
            kind=outcome.kind,
            words=outcome.words,
            took=seconds(outcome.took),
        )

    def _missing(self, node: Path) -> bytes:
        dropped = self._dropped.get(node)
        return _line(event="dropped", node=node, bytes=dropped) if dropped else b""

    def _end(self, results: tuple[VisitResult, ...] = ()) -> bytes:
        """What was not told yet, and the numbers."""
        lines = []
        for result in with_all(self._nodes, results):
            if result.node in self._ended:
                continue
            if result.unreachable or not result.outcomes:
                self._ended[result.node] = "unreachable"
                words = result.unreachable or "it told nothing of what became of the command"
                lines.append(self._missing(result.node) + _line(event="unreachable", node=result.node, words=words))
            else:
                lines.append(self._rest_of(result))
        counts = list(self._ended.values())
        numbers = {name: counts.count(name) for name in ("ok", "failed", "unreachable")}
        self._is_over = True
        return b"".join([*lines, _line(event="end", nodes=len(self._nodes), **numbers)])

    def _rest_of(self, result: VisitResult) -> bytes:
        return self._done(result.node, result.outcomes[-1])


def _line(**fields: Any) -> bytes:
    return msgspec.json.encode(fields) + b"\n"


OPERATIONS = (
    Operation(
        method="POST",
        path="/api/exec",
        role=Role.OPERATE,
        summary="Run a command on many nodes; what it writes comes as JSON objects, one a line",
        respond=post_exec,
        body=ExecBody,
        in_words=True,
        media=NDJSON,
    ),
)
