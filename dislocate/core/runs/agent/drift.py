"""Drift: whether a host is still as its last run left it, looked at each minute; and bringing it back, where the run says so.

Looked at is, for each name, the newest run that this node has done and that was not taken back; not while the run is under
way, since it may be taken back yet.  What several runs were about belongs to the latest of them, whatever their names: else
an older one would undo a newer one, or two each other for ever.  What drifted is told once, until it is as it should be or
drifts otherwise.  Bringing back is an application of the same resources with a journal of its own (what it notifies is owed,
as in a run); what is done once a run is not done again.

What drifted is in the node's part of the run too, for whoever looks at the run (`run status`); the store is told when that
changes, and again a minute later where it did not answer.

Invariant: a look waits for every run and holds up none; nothing is brought back but by a run that asks for it (`enforce`).
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from msgspec.structs import replace

from dislocate.core.boundary.events import Drifted
from dislocate.core.boundary.requests import Refused
from dislocate.core.boundary.runs import DRIFT, NodeState, ReportTask, Task, TaskOutcome, TaskResult, TaskVerb
from dislocate.core.boundary.store import Uncertain
from dislocate.core.outbox import Outbox, Timer
from dislocate.core.runs.agent.actions import Work, work_to_enforce
from dislocate.core.runs.agent.carrying import Carrying, Writing
from dislocate.core.runs.agent.journal import REPORT_WORDS, Journal, Journals, Kept, Purpose
from dislocate.core.runs.agent.reports import PASSING
from dislocate.core.runs.door import StoreDoor
from dislocate.core.runs.resources import about, resource_id
from dislocate.core.runs.spec import ordered
from dislocate.core.units import MINUTE

DRIFT_PERIOD = 1 * MINUTE  # somebody's hand on a host; Puppet's agents look each half hour, and that is long


class DriftDue(Timer, frozen=True):
    """Look whether all is as it was left."""


def subjects(journals: Iterable[Journal], active: Sequence[str] = ()) -> tuple[Journal, ...]:
    """The journals that say how this host is to be: of each name the newest run that was done and not taken back."""
    known = tuple(journals)
    reverted = [one.run for one in known if one.purpose is Purpose.REVERT and one.state is NodeState.REVERTED]
    begun = [one.run for one in known if one.purpose is Purpose.REVERT]
    found: dict[str, Journal | None] = {}
    for journal in sorted(known, key=lambda one: -one.number):
        if journal.purpose is not Purpose.APPLY or journal.run in reverted or journal.name in found:
            continue
        is_done = journal.state is NodeState.DONE and journal.answered
        is_settled = is_done and journal.run not in begun and journal.run not in active
        found[journal.name] = journal if is_settled else None
    return tuple(one for one in found.values() if one is not None)


def owners(journals: Iterable[Journal], kept: Callable[[str], Kept | None]) -> dict[str, str]:
    """Which run each resource (see `resources.about`) belongs to here: the latest that did something about it."""
    known = tuple(journals)
    reverted = [one.run for one in known if one.purpose is Purpose.REVERT and one.state is NodeState.REVERTED]
    found: dict[str, str] = {}
    for journal in sorted(known, key=lambda one: -one.number):
        its = kept(journal.run)
        if journal.purpose is not Purpose.APPLY or journal.run in reverted or its is None:
            continue
        for resource in its.frozen.spec.resources:
            if journal.entry(resource_id(resource)) is not None:
                found.setdefault(about(resource), journal.run)
    return found


class Drift:
    """What one agent looks at when it has nothing else to do."""

    def __init__(self, out: Outbox, store: StoreDoor, journals: Journals, writing: Writing) -> None:
        self.active: Sequence[str] = ()  # runs that are under way
        self.is_free: Callable[[], bool] = lambda: True  # no run wants this host now
        self.over: Callable[[], None] = lambda: None  # it has brought something back, and the host is free again
        self._out = out
        self._store = store
        self._journals = journals
        self._writing = writing
        self._is_armed = False
        self._queue: list[tuple[Journal, Kept, Work]] = []  # to be looked at; the first one is
        self._task_id = ""
        self._tasks = 0
        self._told: dict[tuple[str, str], str] = {}  # (run, resource) -> in which words
        self._drifted: list[str] = []  # of the run that is looked at
        self._enforcing: Carrying | None = None

    def timers(self) -> dict[type, Callable[[Any], None]]:
        return {DriftDue: self._due}

    def start(self) -> None:
        """Go on with what was being brought back when the agent ended."""
        for journal in self._journals.all():
            kept = self._journals.kept(journal.run)
            if journal.purpose is Purpose.ENFORCE and journal.state is None and kept is not None:
                self._enforce(journal, kept)
                break
        self.changed()

    def needed(self) -> tuple[str, ...]:
        """Runs whose journals are looked at."""
        return tuple(journal.run for journal in subjects(self._journals.all()))

    def changed(self) -> None:
        """A run has ended here."""
        if not self._is_armed and subjects(self._journals.all()):
            self._is_armed = True
            self._out.arm(self._out.now + DRIFT_PERIOD, DriftDue())

    @property
    def is_enforcing(self) -> bool:
        """Whether this host is being changed."""
        return self._enforcing is not None

    def yield_(self) -> None:
        """A run begins: what is looked at is looked at again later."""
        if self._queue:
            self._out.cancel_task(self._task_id)
            self._queue, self._drifted = [], []

    # ---- looking

    def _due(self, _timer: DriftDue) -> None:
        self._is_armed = False
        self.changed()
        if self._queue or self._enforcing is not None or not self.is_free():
            return
        for journal in subjects(self._journals.all(), self.active):
            kept = self._journals.kept(journal.run)
            if kept is not None:
                self._queue += [(journal, kept, work) for work in self._works(kept, journal.run) if not work.when_owed]
        looked_at = [(journal.run, work.name) for journal, _, work in self._queue]
        self._told = {key: words for key, words in self._told.items() if key in looked_at}
        for run in self._passed():
            self._report(run)
        self._look()

    def _works(self, kept: Kept, run: str) -> tuple[Work, ...]:
        """What `run` keeps as it is."""
        owner = owners(self._journals.all(), self._journals.kept)
        works = work_to_enforce(ordered(kept.frozen.spec))
        return tuple(work for work in works if owner.get(about(work.resource), run) == run)

    def _look(self) -> None:
        if not self._queue:
            return
        journal, kept, work = self._queue[0]
        self._tasks += 1
        self._task_id = f"run/drift/{self._tasks}"
        task = Task(TaskVerb.LOOK, work.resource, journal.run, kept.frozen.values, kept.secrets)
        self._out.run_task(self._task_id, task)

    def task_progressed(self, task_id: str, outcome: TaskOutcome) -> None:
        if self._enforcing is not None:
            self._enforcing.task_progressed(task_id, outcome)
        if task_id != self._task_id or not self._queue or outcome.result is TaskResult.OUTPUT:
            return
        journal, kept, work = self._queue.pop(0)
        self._looked(journal.run, work.name, outcome)
        is_last_of_run = not self._queue or self._queue[0][0].run != journal.run
        if is_last_of_run:
            drifted, self._drifted = self._drifted, []
            if drifted and kept.frozen.spec.enforce:
                self._queue = []  # the others are looked at in a minute
                number = self._journals.next_number()
                fresh = Journal(
                    run=journal.run, name=journal.name, purpose=Purpose.ENFORCE, number=number, epoch=journal.epoch
                )
                self._enforce(fresh, kept)
                return
            self._report(journal.run)
        self._look()

    def _looked(self, run: str, resource: str, outcome: TaskOutcome) -> None:
        if outcome.result is TaskResult.WOULD_CHANGE:
            self._drifted.append(resource)
            self._tell(run, resource, outcome.words or "it is not as the run left it", mended=False)
        elif outcome.result is TaskResult.FAILED:
            self._tell(run, resource, f"it cannot be looked at, nor brought back: {outcome.words}", mended=False)
        elif outcome.result is TaskResult.SAME:
            self._told.pop((run, resource), None)

    def _tell(self, run: str, resource: str, words: str, *, mended: bool) -> None:
        if mended:
            self._told.pop((run, resource), None)
        elif self._told.get((run, resource)) == words:
            return
        else:
            self._told[run, resource] = words
        self._out.notify(Drifted(run, resource, words, mended))

    # ---- telling the store

    def _passed(self) -> list[str]:
        """Runs of which something had drifted that is another's now."""
        looked_at = [journal.run for journal, _, _ in self._queue]
        return [one.run for one in self._journals.all() if one.drifted and one.run not in looked_at]

    def _report(self, run: str) -> None:
        journal = self._done(run)
        told = [f"{resource}: {words}" for (of, resource), words in self._told.items() if of == run]
        words = "; ".join(told)[:REPORT_WORDS]
        if journal is None or journal.drifted == words:
            return
        epoch = journal.epoch

        def then(result: Any) -> None:
            is_passing = isinstance(result, Refused) and result.kind in PASSING
            now = self._done(run)
            if now is not None and now.epoch == epoch and not is_passing and not isinstance(result, Uncertain):
                self._out.store((self._journals.put(replace(now, drifted=words)),), sync=False)

        node = self._out.node.path
        self._store.ask(ReportTask(run, node, epoch, NodeState.DONE, DRIFT, words), then)

    def _done(self, run: str) -> Journal | None:
        journal = self._journals.get(run, Purpose.APPLY)
        is_done = journal is not None and journal.state is NodeState.DONE and journal.answered
        return journal if is_done else None

    # ---- bringing back

    def _enforce(self, journal: Journal, kept: Kept) -> None:
        works = self._works(kept, journal.run)
        self._enforcing = Carrying(
            self._out, self._journals, self._writing, kept, works, journal, self._enforced, first_task=self._tasks
        )
        self._enforcing.go_on()

    def _enforced(self, journal: Journal) -> None:
        assert self._enforcing is not None
        self._tasks = self._enforcing.tasks
        followed = [work.name for work in self._enforcing.works if work.when_owed]  # they never drift
        self._enforcing = None
        self._out.store((self._journals.put(replace(journal, answered=True)),), sync=False)
        for entry in journal.entries:
            if entry.result is TaskResult.CHANGED and entry.resource not in followed:
                self._tell(journal.run, entry.resource, entry.words or "brought back", mended=True)
            elif entry.result is TaskResult.FAILED:
                self._tell(journal.run, entry.resource, f"cannot be brought back: {entry.words}", mended=False)
        self._report(journal.run)
        self.over()
