"""The ledger: what an entry of the log makes of the runs' records.

Invariants: the same entries make the same records everywhere; what is illegal is an answer and writes nothing; each entry that
is legal is whole: tasks with their counts, a run's state with its audit entry, a run that ends with the oldest that goes.
It has no clock: `at` is whatever the asker says.  Source: the design's section 6.

Does not know who asks or leads, nor revisions: `store.machine` commits what it answers.
"""

from collections.abc import Callable
from typing import Any, TypeAlias, get_args

from msgspec import Struct

from dislocate.core.boundary.events import NodeMoved, RunMoved, ScaleDecided
from dislocate.core.boundary.requests import Done, Refused
from dislocate.core.boundary.runs import AskGrant, Granted, ReportTask, RunRequest, RunStarted, StartRun, SteerRun
from dislocate.core.runs import records
from dislocate.core.runs.ledger.draft import Draft, Illegal, Last
from dislocate.core.runs.ledger.granting import ask, report
from dislocate.core.runs.ledger.keeping import let_go, recovered, restored, seen_before
from dislocate.core.runs.ledger.starting import start
from dislocate.core.runs.ledger.steering import steer
from dislocate.core.runs.ledger.stepping import step
from dislocate.core.runs.steps import RunStep
from dislocate.core.store.keys import Keys
from dislocate.core.tunables import RUNS_LEVEL

Outcome: TypeAlias = RunStarted | Granted | Done | Refused


class Ledgered(Struct, frozen=True):
    """What an entry came to."""

    result: Outcome
    puts: dict[str, bytes | None] = {}  # None: it goes away
    events: tuple[RunMoved | NodeMoved | ScaleDecided, ...] = ()


class RunsLedger:
    """The runs that these keys hold; it keeps nothing itself."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def apply(self, body: RunRequest | RunStep) -> Ledgered:
        """What becomes of it; nothing is changed here."""
        draft = Draft(self._keys)
        try:
            result = BODIES[type(body)](draft, body)
        except Illegal as illegal:
            return Ledgered(illegal.refused)
        if records.LAST in draft.puts:
            let_go(draft)
        return Ledgered(result, draft.puts, tuple(draft.events))

    def seen(self) -> tuple[Last, dict[str, int]]:
        """To be taken before a restore replaces the keys."""
        return seen_before(self._keys)

    def restored(self, seen: tuple[Last, dict[str, int]]) -> Ledgered:
        """The keys are a backup's now: what has to become of its runs."""
        draft = Draft(self._keys)
        restored(draft, seen)
        return Ledgered(Done(), draft.puts, tuple(draft.events))

    def recovered(self, epochs: int) -> Ledgered:
        """The keys are what one server had when the others were lost: what has to become of the runs."""
        draft = Draft(self._keys)
        recovered(draft, epochs)
        return Ledgered(Done(), draft.puts, tuple(draft.events))


def _step(draft: Draft, body: RunStep) -> Done:
    return Done(step(draft, body))


def _steer(draft: Draft, body: SteerRun) -> Done:
    return Done(steer(draft, body))


def _report(draft: Draft, body: ReportTask) -> Done:
    return Done(report(draft, body))


BODIES: dict[type, Callable[[Draft, Any], Outcome]] = {
    StartRun: start,
    SteerRun: _steer,
    AskGrant: ask,
    ReportTask: _report,
    **dict.fromkeys(get_args(RunStep), _step),
}


def level_refusal(level: int) -> Refused:
    """What an entry of runs comes to where older servers could not apply it."""
    words = f"the store is at feature level {level} and runs need {RUNS_LEVEL}: upgrade all servers, it rises by itself then"
    return Refused("unavailable", "store", words)
