"""Reports: what this agent made of its grants is told to the store until the store has answered.

Invariant: a report is durable here before it is sent, is sent until it is known that it arrived or that nobody wants it, and
survives restarts.  The log takes the same report twice for once, so sending again does no harm.
"""

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from dislocate.core.boundary.requests import Refused
from dislocate.core.boundary.runs import ReportTask
from dislocate.core.boundary.store import Uncertain
from dislocate.core.outbox import Outbox, Timer
from dislocate.core.runs.agent.journal import Journal, Journals, Purpose
from dislocate.core.runs.door import StoreDoor
from dislocate.core.streams import Stream
from dislocate.core.units import SECOND

AGAIN_FIRST = 1 * SECOND
AGAIN_MAX = 8 * SECOND  # after a partition healed: what an operator waits for at most
PASSING = ("unavailable", "storage")  # refusals that end by themselves


class ReportDue(Timer, frozen=True):
    """Tell it again."""

    run: str
    purpose: Purpose
    attempt: int


class Reports:
    """The reports of one agent.  `answered` is told when one arrived."""

    def __init__(
        self,
        out: Outbox,
        store: StoreDoor,
        journals: Journals,
        stream: Stream,
        content: Callable[[Journal], ReportTask],
        answered: Callable[[Journal], None],
    ) -> None:
        self._out = out
        self._store = store
        self._journals = journals
        self._stream = stream
        self._content = content
        self._answered = answered

    def timers(self) -> dict[type, Callable[[Any], None]]:
        return {ReportDue: self._due}

    def send(self, journal: Journal, attempt: int = 0) -> None:
        """`journal` is over, and durable."""
        content = self._content(journal)

        def then(result: Any) -> None:
            self._told(journal, content, attempt, result)

        self._store.ask(content, then)

    def _told(self, journal: Journal, content: ReportTask, attempt: int, result: Any) -> None:
        if self._journals.get(journal.run, journal.purpose) != journal:
            return  # another attempt began meanwhile
        if isinstance(result, Uncertain) or (isinstance(result, Refused) and result.kind in PASSING):
            wait = min(AGAIN_MAX, AGAIN_FIRST << min(attempt, 10))
            due = ReportDue(journal.run, journal.purpose, attempt + 1)
            self._out.arm(self._out.now + wait + self._stream.below(wait // 4), due)
            return
        if isinstance(result, Refused):
            self._out.count("report_refused")
        answered = replace(journal, answered=True)
        self._out.store((self._journals.put(answered),), sync=False)
        self._answered(answered)

    def _due(self, timer: ReportDue) -> None:
        journal = self._journals.get(timer.run, timer.purpose)
        if journal is not None and journal.state is not None and not journal.answered:
            self.send(journal, timer.attempt)
