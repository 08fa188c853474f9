"""Following: the services that match a name, as they are and at each change, from an agent that may restart meanwhile.

A thread reads the agent's event stream and puts the names that changed into a queue; whoever takes them decides how often,
and what to do when nothing comes.  An agent that is gone is asked again every `RETRY`, and that is said once: what was known
stays.  Only the first connection may fail, of an agent that has not answered before: then `take` raises `NoAgent`, or what
the agent refused.
"""

import time
from collections.abc import Iterable
from queue import Empty, Queue
from threading import Thread

from dislocate.cli.absence import Absence
from dislocate.client.connection import AgentConnection, NoAgent, Problem, segment
from dislocate.core.errors import DislocateError

RETRY = 2.0  # seconds, as the agent asks of event streams


class Following:
    """Names of services that changed, of those that match `patterns`."""

    def __init__(self, agent: AgentConnection, patterns: Iterable[str], *, has_answered: bool = False) -> None:
        self._agent = agent
        self._has_answered = has_answered
        self._path = f"/api/watch?flows=true&service={','.join(segment(pattern) for pattern in patterns)}"
        self._queue: Queue[str | DislocateError] = Queue()
        Thread(target=self._read, name="following", daemon=True).start()

    def take(self, within: float) -> list[str]:
        """Those that changed since this was last called, each once; none when nothing does for `within` seconds."""
        names: dict[str, None] = {}
        try:
            said = self._queue.get(timeout=within)
            while True:
                if isinstance(said, DislocateError):
                    raise said
                names[said] = None
                said = self._queue.get_nowait()
        except Empty:
            return list(names)

    def _read(self) -> None:
        absence = Absence(self._agent, RETRY)
        while True:
            wrong: DislocateError | None = None
            try:
                for _, data in self._agent.events(self._path):
                    self._has_answered = True
                    absence.ends()
                    self._queue.put(data["service"])
            except (NoAgent, Problem) as error:
                wrong = error
                if not self._has_answered:
                    self._queue.put(error)
                    return
            absence.begins(wrong)
            time.sleep(RETRY)
