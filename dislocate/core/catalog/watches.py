"""Watches: who waits for which services, and the index that says whether there is anything new.

Invariants: one counter of the node stamps the service that changed and no other, so churn in B never wakes a watcher of A
(consul#3890); it starts above everything that an earlier start of this node gave out, so no client waits for an index that
comes later than its change.  A client that brings an index from another agent is answered at once.
"""

from dislocate.core.boundary.requests import Changed, Watch
from dislocate.core.catalog.validation import refused
from dislocate.core.errors import LocalError
from dislocate.core.identity import NodeId, check_service_name
from dislocate.core.outbox import Outbox

MAX_PATTERNS = 64
_INDEXES_PER_MS = 1_000  # a node makes fewer changes than this per millisecond of its life; stays below 2^53 for JSON


def matches(pattern: str, service: str) -> bool:
    """Whether a watched pattern covers a service: its name, 'db.*' for all below 'db', or '*'."""
    return pattern == "*" or pattern == service or (pattern.endswith(".*") and service.startswith(pattern[:-1]))


def check_patterns(patterns: tuple[str, ...]) -> None:
    """Raises `LocalError` unless each is a name, a prefix ending in '.*', or '*'."""
    if not 0 < len(patterns) <= MAX_PATTERNS:
        raise LocalError("patterns", got=len(patterns), expected=f"1 to {MAX_PATTERNS} patterns")
    for pattern in patterns:
        if pattern != "*":
            check_service_name(pattern.removesuffix(".*"), "patterns")


def patterns_of(service: str) -> list[str]:
    """Every pattern that covers `service`: 'a.b' -> ['a.b', 'a.*', '*']."""
    labels = service.split(".")
    return [service, *(".".join(labels[:count]) + ".*" for count in range(len(labels) - 1, 0, -1)), "*"]


class Watches:
    """The counter, the services by recency of change, and the requests that wait."""

    def __init__(self, out: Outbox, node: NodeId) -> None:
        self._out = out
        self._latest = node.boot * _INDEXES_PER_MS
        self._indexes: dict[str, int] = {}  # in the order of their indexes
        self._waiting: dict[str, dict[int, None]] = {}  # request ids by pattern
        self._patterns: dict[int, tuple[str, ...]] = {}

    def index(self, service: str) -> int:
        """The index of the last change of `service`; 0 when it never had one."""
        return self._indexes.get(service, 0)

    def stamp(self, service: str) -> int:
        """`service` changed: its new index, after which nobody waits for it any more."""
        self._latest += 1
        self._indexes.pop(service, None)
        self._indexes[service] = self._latest
        if self._waiting:
            for pattern in patterns_of(service):
                for request_id in tuple(self._waiting.get(pattern, ())):
                    self.cancel(request_id)
                    self._out.reply(request_id, Changed((service,), self._latest))
        return self._latest

    def forget(self, service: str) -> None:
        """`service` is known no more."""
        self._indexes.pop(service, None)

    def watch(self, request_id: int, request: Watch) -> None:
        """Answer now, when there is something newer than the caller's index, or with the next change."""
        try:
            check_patterns(request.patterns)
        except LocalError as error:
            self._out.reply(request_id, refused(error))
            return
        since = request.index if request.index <= self._latest else 0
        changed = self._newer(request.patterns, since)
        if changed:
            self._out.reply(request_id, Changed(tuple(sorted(changed)), max(changed.values())))
            return
        self._patterns[request_id] = request.patterns
        for pattern in request.patterns:
            self._waiting.setdefault(pattern, {})[request_id] = None

    def cancel(self, request_id: int) -> None:
        """Nobody waits for this reply any more."""
        for pattern in self._patterns.pop(request_id, ()):
            waiting = self._waiting.get(pattern)
            if waiting is not None:
                waiting.pop(request_id, None)
                if not waiting:
                    del self._waiting[pattern]

    def _newer(self, patterns: tuple[str, ...], since: int) -> dict[str, int]:
        newer = {name: index for name in patterns if (index := self._indexes.get(name, 0)) > since}
        globs = [pattern for pattern in patterns if pattern.endswith("*")]
        if globs:
            for name, index in reversed(self._indexes.items()):
                if index <= since:
                    break
                if any(matches(glob, name) for glob in globs):
                    newer[name] = index
        return newer
