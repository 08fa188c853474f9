"""HAProxy's agent-check: it connects, says which server it asks about, and is told weight and state in one line.

    -> shop.web 10.0.0.1:8080          (`agent-send` of its server line; also 'shop.web dc/node/id')
    <- up ready 70%

The percentage is of the weight in HAProxy's file, which must be 100.  What is not known is answered by nothing: HAProxy then
leaves the server as it is.  Answers are computed from the agent's flows, asked for at most each `FRESH` a service; while the
agent is away the last answer holds.
"""

import time
from collections.abc import Mapping
from socketserver import StreamRequestHandler, TCPServer, ThreadingMixIn
from threading import Lock
from typing import Any

from dislocate.client.connection import AgentConnection, NoAgent, Problem, segment
from dislocate.client.pool import Server, State, pool, scaled

FRESH = 0.5  # seconds
PATIENCE = 2.0  # seconds that a question may take to come
LONGEST = 1_024  # bytes of a question


def line(pool_: tuple[Server, ...], who: str) -> str:
    """What HAProxy is told of `who`, 'address:port' or 'dc/node/id'; empty for who is not there."""
    server = next((each for each in pool_ if who in (each.place, each.key)), None)
    if server is None:
        return ""
    match server.state:
        case State.READY:
            return f"up ready {scaled(server.weight, 100)}%"
        case State.DRAIN:
            return "up drain"
        case State.MAINT:
            return "maint"
        case State.DOWN:
            return f"ready down #{server.status}"


class Answers:
    """What the agent said of each service last."""

    def __init__(self, agent: AgentConnection) -> None:
        self._agent = agent
        self._lock = Lock()
        self._pools: dict[str, tuple[float, tuple[Server, ...]]] = {}

    def to(self, question: str) -> str:
        """The line for 'SERVICE WHO'; empty where nothing is known."""
        service, _, who = question.strip().partition(" ")
        return line(self._pool(service), who.strip()) if service and who else ""

    def _pool(self, service: str) -> tuple[Server, ...]:
        with self._lock:
            asked, known = self._pools.get(service, (0.0, ()))
            now = time.monotonic()
            if service in self._pools and now - asked < FRESH:
                return known
            try:
                known = pool(self._flows(service), by_load=True)
            except (NoAgent, Problem):
                if not known:
                    return ()  # asked again at once, and not remembered: names come from whoever connects
            self._pools[service] = (now, known)
            return known

    def _flows(self, service: str) -> Mapping[str, Any]:
        flows: Mapping[str, Any] = self._agent.get(f"/api/services/{segment(service)}/flows")
        return flows


class AgentCheckServer(ThreadingMixIn, TCPServer):
    """Answers each connection with one line and closes it."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, host: str, port: int, answers: Answers) -> None:
        self.answers = answers
        super().__init__((host, port), _Question)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever hung up is owed nothing."""


class _Question(StreamRequestHandler):
    timeout = PATIENCE

    def handle(self) -> None:
        assert isinstance(self.server, AgentCheckServer)
        question = self.rfile.readline(LONGEST).decode("utf-8", "replace")
        answer = self.server.answers.to(question)
        if answer:
            self.wfile.write(answer.encode() + b"\n")
