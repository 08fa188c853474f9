"""Carrying: one journal, carried out until it ends.

The order is `actions`'; here it becomes effects.  An intent is durable before its task is given to the host; what became of it
is written at once, and the next look begins meanwhile, since nothing is changed by looking.  A disk that stores nothing is
tried again: nothing is begun until then.
"""

from collections.abc import Callable, Sequence
from typing import Any

from msgspec.structs import replace

from dislocate.core.boundary.runs import NodeState, Task, TaskOutcome, TaskResult, TaskVerb
from dislocate.core.boundary.spec import Resource
from dislocate.core.boundary.values import StoredRecord
from dislocate.core.outbox import Outbox, Timer
from dislocate.core.runs.agent.actions import Carry, End, Fits, Intend, Look, Settle, Work, next_action, outcome_of
from dislocate.core.runs.agent.journal import Journal, Journals, Kept, ended, intended, settled
from dislocate.core.tunables import RETRY_FULL


class WriteDue(Timer, frozen=True):
    """There may be space for the journal again."""

    number: int  # of the write


class Writing:
    """Records that must be durable before something else happens: tried until they are."""

    def __init__(self, out: Outbox) -> None:
        self._out = out
        self._number = 0
        self._waiting: dict[int, tuple[tuple[StoredRecord, ...], Callable[[], None]]] = {}

    def timers(self) -> dict[type, Callable[[Any], None]]:
        return {WriteDue: self._due}

    def write(self, records: tuple[StoredRecord, ...], then: Callable[[], None]) -> None:
        self._number += 1
        self._waiting[self._number] = (records, then)
        self._store(self._number)

    def _store(self, number: int) -> None:
        records, then = self._waiting[number]

        def stored() -> None:
            del self._waiting[number]
            then()

        def failed(_reason: str) -> None:
            self._out.arm(self._out.now + RETRY_FULL, WriteDue(number))

        self._out.store(records, sync=True, then=stored, failed=failed)

    def _due(self, timer: WriteDue) -> None:
        self._store(timer.number)


class Carrying:
    """One journal.  `ended` is told when its end is durable."""

    def __init__(
        self,
        out: Outbox,
        journals: Journals,
        writing: Writing,
        kept: Kept,
        works: Sequence[Work],
        journal: Journal,
        over: Callable[[Journal], None],
        *,
        expected: str = "",
        first_task: int = 0,
    ) -> None:
        self.journal = journal
        self.works = works
        self.tasks = first_task  # given out so far: numbers are not used again
        self._out = out
        self._journals = journals
        self._writing = writing
        self._kept = kept
        self._over = over
        self._expected = expected
        self._looks: dict[str, TaskOutcome] = {}
        self._fresh = ""
        self._task_id = ""
        self._doing: Look | Carry | None = None

    @property
    def resources(self) -> tuple[Resource, ...]:
        return tuple(work.resource for work in self.works)

    def go_on(self) -> None:
        """What is next, until something has to be waited for; called once to begin."""
        while True:
            action = next_action(self.journal, self.works, self._looks, self._fresh, self._expected)
            match action:
                case Look(work):
                    self._run(action, work, TaskVerb.LOOK)
                    return
                case Carry(work):
                    self._run(action, work, work.verb)
                    return
                case Intend(work, before, after):
                    self._fresh = work.name
                    self.journal = intended(self.journal, work.name, before, after)
                    self._writing.write((self._journals.put(self.journal),), self.go_on)
                    return
                case Fits():
                    self.journal = replace(self.journal, fits=True)
                    self._looks.clear()
                case Settle(work, outcome):
                    self._settle(work, outcome)
                case End(state, kind, words):
                    self._end(state, kind, words)
                    return

    def _run(self, action: Look | Carry, work: Work, verb: TaskVerb) -> None:
        self._doing = action
        self.tasks += 1
        self._task_id = f"run/{self.journal.run}/{self.journal.purpose.value}/{self.tasks}"
        frozen = self._kept.frozen
        task = Task(verb, work.resource, self.journal.run, frozen.values, self._kept.secrets, made=work.made)
        self._out.run_task(self._task_id, task)

    def task_progressed(self, task_id: str, outcome: TaskOutcome) -> None:
        """A task of this journal says something; pieces of output are nobody's here."""
        doing = self._doing
        if task_id != self._task_id or doing is None or outcome.result is TaskResult.OUTPUT:
            return
        self._doing = None
        if isinstance(doing, Look):
            self._looks[doing.work.name] = outcome
        else:
            self._settle(doing.work, outcome)
        self.go_on()

    def _settle(self, work: Work, outcome: TaskOutcome) -> None:
        was_begun = self.journal.intent is not None
        self.journal = settled(self.journal, work.resource, outcome_of(work, outcome))
        self._looks.pop(work.name, None)
        self._fresh = ""
        record = self._journals.put(self.journal)
        if was_begun:
            self._out.store((record,), sync=True)

    def _end(self, state: NodeState, kind: str, words: str) -> None:
        self.journal = ended(self.journal, state, kind, words)
        self._writing.write((self._journals.put(self.journal),), lambda: self._over(self.journal))
