"""Server-sent events of one run: first 'status', all of it; then 'run' and 'node' as they change; 'status' again at its end.

Invariant: nothing is left out in silence, and nothing is told again that the status had.  What is told is read from changes of
the store, each node's and the run's in their order but not among each other: the last status has everything.  Where changes
are forgotten already, the stream ends, and whoever comes back is told the whole status again.
"""

from collections.abc import Callable, Iterator
from typing import Any

import gevent
import msgspec
from gevent.queue import Empty, Queue

from dislocate.core.boundary.runs import OVER, NodeTask, RunRecord
from dislocate.core.boundary.store import KeyChange, KeysChanged, ReadKeys, WatchKeys
from dislocate.core.boundary.values import MemberState
from dislocate.core.identity import Path
from dislocate.core.runs import records
from dislocate.edge.answers import Answer
from dislocate.edge.http.call import EVENT_STREAM, Call
from dislocate.edge.http.problems import Rejected, encode
from dislocate.edge.http.run_reads import run_of
from dislocate.edge.http.watch import KEEP_ALIVE, RETRY, frame
from dislocate.edge.run_answers import NodeAnswer, RunAnswer
from dislocate.edge.run_told import node_answer, run_summary

__all__ = ["EVENT_STREAM", "RunStream", "is_reachable", "watch_run"]

QUEUE_LIMIT = 100  # answers of the store that may wait for one reader


class NodeEvent(Answer, frozen=True, kw_only=True):
    """One node's part, as it is now."""

    node: Path
    part: NodeAnswer


def is_reachable(node: Any, path: Path) -> bool:
    """Whether requests from this agent, whose snapshots `node` are, get to that one."""
    view = node.members.get(path)
    if view is None or view.state in (MemberState.DEAD, MemberState.LEFT):
        return False
    datacenter = node.datacenters.get(view.node.datacenter)
    return datacenter is None or bool(datacenter.reachable)


def watch_run(call: Call, read: Callable[[Call, str], tuple[RunAnswer, int]]) -> "RunStream":
    """`read` gives a run, and the revision as of which its nodes are told."""
    run = run_of(call)
    revision = call.ask_store(ReadKeys(records.active_key(run))).revision
    status, nodes_revision = read(call, run)
    call.set_header("Cache-Control", "no-store")
    return RunStream(call, lambda: read(call, run)[0], (revision, nodes_revision), status)


class RunStream:
    """One reader, as WSGI wants it: an iterator of bytes that holds a slot until `close`."""

    def __init__(self, call: Call, read: Callable[[], RunAnswer], seen: tuple[int, int], status: RunAnswer) -> None:
        """`seen`: the revisions after which the run and its nodes are told."""
        call.agent.streams.take()
        self._agent = call.agent
        self._waves = {path: part.wave for path, part in status.nodes.items()}
        run = self._run = status.id
        self._read = read
        self._version = status.version
        revision, nodes_revision = seen
        self._opening = RETRY + frame("status", msgspec.json.encode(status), revision)
        self._is_over = status.state in OVER
        self._changes: Queue[tuple[KeyChange, ...] | None] = Queue(QUEUE_LIMIT)
        self._followers = (
            []
            if self._is_over
            else [
                gevent.spawn(self._follow, records.active_key(run), False, revision),
                gevent.spawn(self._follow, records.over_key(run), False, revision),
                gevent.spawn(self._follow, records.nodes_prefix(run), True, nodes_revision),
            ]
        )
        self._has_slot = True

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        opening, self._opening = self._opening, b""
        if opening:
            return opening
        if self._is_over:
            raise StopIteration
        try:
            changes = self._changes.get(timeout=KEEP_ALIVE)
        except Empty:
            return b": still here\n\n"
        if changes is None:
            raise StopIteration
        told = b"".join(self._told(change) for change in changes) or b": still here\n\n"
        return told + self._last_status() if self._is_over else told

    def _last_status(self) -> bytes:
        try:
            return frame("status", msgspec.json.encode(self._read()))
        except Rejected as rejected:
            return frame("problem", encode(rejected.problem))

    def close(self) -> None:
        if self._has_slot:
            self._has_slot = False
            gevent.killall(self._followers, block=False)
            self._agent.streams.give_back()

    def _follow(self, key: str, is_prefix: bool, after: int) -> None:
        """Until the reader goes, or the store does not say any more what changed."""
        while True:
            try:
                result = self._agent.backend.request(WatchKeys(key, is_prefix, after), timeout=KEEP_ALIVE)
            except TimeoutError:
                continue
            if not isinstance(result, KeysChanged):
                self._changes.put(None)
                return
            after = max(after, result.revision)
            if result.changes:
                self._changes.put(result.changes)

    def _told(self, change: KeyChange) -> bytes:
        if change.now is None:
            return b""  # a record that moves on to where those lie that are over
        if change.key.startswith(records.nodes_prefix(self._run)):
            task = records.decode(change.now.value, NodeTask)
            part = node_answer(task, self._waves.get(task.node, ""), is_reachable(self._agent.backend.node, task.node))
            return frame("node", msgspec.json.encode(NodeEvent(node=task.node, part=part)), change.revision)
        record = records.decode(change.now.value, RunRecord)
        return self._told_run(record, change.revision)

    def _told_run(self, record: RunRecord, revision: int) -> bytes:
        self._is_over = record.state in OVER
        if record.version <= self._version:
            return b""  # the status had it
        self._version = record.version
        return frame("run", msgspec.json.encode(run_summary(record)), revision)
