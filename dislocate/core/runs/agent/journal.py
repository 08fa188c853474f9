"""The journal: what this agent began, did and owes of each run, in records of its own disk.

    run/ID/spec      Kept: the specification and the values that were frozen with it, for as long as any of the others
    run/ID/apply     Journal of what was done
    run/ID/revert    of taking it back
    run/ID/enforce   of bringing back what drifted, once the run is done

Each record is rewritten at every step.  An entry without a result is an intent: written before its effect, so that a start
after a crash knows what may have happened; what a change notifies is owed from the same write on that says that it changed.

A journal begins before the grant is asked for, so that an agent which ends before the answer knows that it may be counted in.

Invariant: there is at most one intent without a result in a journal, and it is its last entry; a journal with a state is over,
and is reported until somebody answered.  The key has no attempt in it: what was done once is not done again when a run is
granted anew.  What is next is `actions`' to say.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from enum import Enum

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from dislocate.core.boundary.runs import (
    Direction,
    Frozen,
    NodeState,
    ReportTask,
    Step,
    TaskOutcome,
    TaskResult,
)
from dislocate.core.boundary.spec import Resource
from dislocate.core.boundary.values import StoredRecord
from dislocate.core.identity import Path
from dislocate.core.runs.resources import is_owed_only, resource_id
from dislocate.core.words import both_ends

HEAD = "run/"
RUNS_REMEMBERED = 20  # of this agent: more than anybody reverts, and a few KiB each
STEP_WORDS = 300  # characters in a report: all steps of a node are one value of the store
REPORT_WORDS = 1_000


class Purpose(Enum):
    """What a journal is about."""

    APPLY = "apply"
    REVERT = "revert"
    ENFORCE = "enforce"


PURPOSES = {Direction.APPLY: Purpose.APPLY, Direction.REVERT: Purpose.REVERT}


class Kept(Struct, frozen=True, omit_defaults=True):
    """What is needed to go on with a run without asking for it again."""

    frozen: Frozen
    secrets: dict[str, bytes] = {}  # sealed to this node


class Entry(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One resource: begun, or done."""

    resource: str  # id
    before: str = ""  # digest of how it was
    after: str = ""  # of how it is to be; once it is done, of how it is
    result: TaskResult | None = None  # None: an intent, and nobody knows
    kind: str = ""
    words: str = ""
    took: int = 0
    begun: bool = False  # there was an intent: it may have been changed, whatever the result says


class Journal(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One run, one purpose."""

    run: str
    name: str  # of the run's specification
    purpose: Purpose
    number: int  # of this agent's journals: a later one is higher
    epoch: int  # that granted it, or that it was asked for under
    asked: bool = False  # a grant was asked for, and it is not known that it came: nothing was done for it
    entries: tuple[Entry, ...] = ()
    doubts: tuple[Entry, ...] = ()  # of earlier attempts that failed, and may have changed something
    owed: tuple[str, ...] = ()  # ids of resources that were notified and are not done yet
    fits: bool = False  # the plan's digest was looked at, or there was none
    state: NodeState | None = None  # it is over
    kind: str = ""
    words: str = ""
    answered: bool = False  # the report arrived
    drifted: str = ""  # what the store was told last of what is not so any more
    is_partial: bool = False  # what was begun first is in the journal of another disk

    @property
    def key(self) -> str:
        return journal_key(self.run, self.purpose)

    @property
    def intent(self) -> Entry | None:
        """What was begun and has no result."""
        return self.entries[-1] if self.entries and self.entries[-1].result is None else None

    def entry(self, resource: str) -> Entry | None:
        return next((entry for entry in reversed(self.entries) if entry.resource == resource), None)


def journal_key(run: str, purpose: Purpose) -> str:
    return f"{HEAD}{run}/{purpose.value}"


def kept_key(run: str) -> str:
    return f"{HEAD}{run}/spec"


# ---- what happens to a journal


def intended(journal: Journal, resource: str, before: str, after: str) -> Journal:
    """Its effect comes next: to be durable before."""
    entry = Entry(resource=resource, before=before, after=after, begun=True)
    return replace(journal, entries=(*_without(journal.entries, resource), entry))


def settled(journal: Journal, resource: Resource, outcome: TaskOutcome) -> Journal:
    """What became of it, with what that owes."""
    name = resource_id(resource)
    old = journal.entry(name)
    begun = old is not None and old.begun and old.result is None
    entry = Entry(
        resource=name,
        before=old.before if old is not None and begun else outcome.before,
        after=outcome.after,
        result=outcome.result,
        kind=outcome.kind,
        words=outcome.words,
        took=outcome.took,
        begun=begun,
    )
    owed = [one for one in journal.owed if one != name]
    if outcome.result is TaskResult.CHANGED and journal.purpose is not Purpose.REVERT:
        owed += [one for one in resource.notify if one not in owed]
    if outcome.result is TaskResult.FAILED and name in journal.owed:
        owed.append(name)  # a retry owes it still
    return replace(journal, entries=(*_without(journal.entries, name), entry), owed=tuple(owed))


def ended(journal: Journal, state: NodeState, kind: str = "", words: str = "") -> Journal:
    return replace(
        journal, state=state, kind=kind, words=both_ends(words, REPORT_WORDS), answered=False, asked=False, drifted=""
    )


def asked_for(journal: Journal, epoch: int) -> Journal:
    """A grant is asked for under `epoch`: to be durable before."""
    return replace(journal, epoch=epoch, asked=True)


def refused(journal: Journal) -> Journal | None:
    """The grant did not come; None: nothing is left to remember."""
    is_new = journal.state is None and not journal.entries and not journal.doubts
    return None if is_new else replace(journal, asked=False)


def is_open(journal: Journal) -> bool:
    """Whether the store may count this node in without a report being under way."""
    return journal.state is None or journal.asked


def closed(journal: Journal, words: str) -> Journal:
    """It will not be gone on with: what was begun is lost."""
    if journal.state is not None:
        return replace(journal, asked=False, answered=False)  # nothing was done since
    intent = journal.intent
    if intent is not None:
        lost = replace(intent, result=TaskResult.FAILED, kind="lost", words=words)
        journal = replace(journal, entries=(*journal.entries[:-1], lost))
    state = NodeState.REVERT_FAILED if journal.purpose is Purpose.REVERT else NodeState.FAILED
    return ended(journal, state, "lost", words)


def granted_again(journal: Journal, epoch: int) -> Journal:
    """Another attempt: what was done stays done, what failed or was as it should be is looked at again."""
    if journal.state is None:
        return replace(journal, epoch=epoch, asked=False)
    kept = tuple(one for one in journal.entries if one.result is TaskResult.CHANGED or one.result is None)
    doubts = tuple(one for one in journal.entries if one.result is TaskResult.FAILED and one.begun)
    return replace(
        journal,
        epoch=epoch,
        entries=kept,
        doubts=(*journal.doubts, *doubts),
        state=None,
        kind="",
        words="",
        answered=False,
        asked=False,
    )


def _without(entries: tuple[Entry, ...], resource: str) -> tuple[Entry, ...]:
    return tuple(entry for entry in entries if entry.resource != resource)


# ---- reports and digests


def report(journal: Journal, node: Path, resources: Sequence[Resource]) -> ReportTask:
    """What the store is told."""
    assert journal.state is not None
    return ReportTask(
        journal.run,
        node,
        journal.epoch,
        journal.state,
        journal.kind,
        journal.words,
        tuple(_step(journal, resource) for resource in resources),
        sum(entry.took for entry in journal.entries),
    )


def _step(journal: Journal, resource: Resource) -> Step:
    name = resource_id(resource)
    entry = journal.entry(name)
    if entry is not None and entry.result is not None:
        return Step(name, entry.result.value, both_ends(entry.words, STEP_WORDS), entry.took)
    is_settled = journal.state in (NodeState.DONE, NodeState.REVERTED)
    if is_settled and (is_owed_only(resource) or journal.purpose is Purpose.REVERT):
        return Step(name, TaskResult.SAME.value)  # nobody notified it; nothing of it was to be taken back
    return Step(name, "not reached")


def touched(journal: Journal) -> tuple[Entry, ...]:
    """What may have been changed, in the order in which it was: a revert is about these."""
    found: dict[str, Entry] = {}
    for entry in (*journal.doubts, *journal.entries):
        if entry.begun and entry.result is not TaskResult.SAME:
            first = found.pop(entry.resource, entry)
            found[entry.resource] = replace(entry, before=first.before)
    return tuple(found.values())


# ---- on the disk


def encode_record(key: str, value: Journal | Kept) -> StoredRecord:
    return StoredRecord(key, msgspec.json.encode(value))


class Journals:
    """All journals of this agent, as its disk has them or is about to."""

    def __init__(self, records: Iterable[StoredRecord] = ()) -> None:
        self._by_key: dict[tuple[str, Purpose], Journal] = {}
        self._kept: dict[str, Kept] = {}
        for record in records:
            if record.key.startswith(HEAD) and record.value is not None:
                with suppress(msgspec.MsgspecError, UnicodeDecodeError, ValueError):  # no agent may end for a record
                    self._recover(record.key, record.value)
        self._number = max((one.number for one in self._by_key.values()), default=0)

    def _recover(self, key: str, value: bytes) -> None:
        run, _, what = key[len(HEAD) :].rpartition("/")
        if what == "spec":
            self._kept[run] = msgspec.json.decode(value, type=Kept)
        else:
            self._by_key[run, Purpose(what)] = msgspec.json.decode(value, type=Journal)

    def all(self) -> tuple[Journal, ...]:
        return tuple(self._by_key.values())

    def get(self, run: str, purpose: Purpose) -> Journal | None:
        return self._by_key.get((run, purpose))

    def kept(self, run: str) -> Kept | None:
        return self._kept.get(run)

    def next_number(self) -> int:
        self._number += 1
        return self._number

    def keep(self, run: str, kept: Kept) -> StoredRecord:
        """The record that the disk is to have."""
        self._kept[run] = kept
        return encode_record(kept_key(run), kept)

    def put(self, journal: Journal) -> StoredRecord:
        """The record that the disk is to have."""
        self._by_key[journal.run, journal.purpose] = journal
        return encode_record(journal.key, journal)

    def drop(self, journal: Journal) -> StoredRecord:
        """Forget it; the record that deletes it."""
        del self._by_key[journal.run, journal.purpose]
        return StoredRecord(journal.key, None)

    def drop_old(self, needed: Iterable[str]) -> tuple[StoredRecord, ...]:
        """Forget all but the newest runs, those `needed`, and what nobody heard the end of; records that delete them."""
        newest: dict[str, int] = {}
        for journal in self._by_key.values():
            newest[journal.run] = max(newest.get(journal.run, 0), journal.number)
        open_ = [one.run for one in self._by_key.values() if is_open(one) or not one.answered]
        order = sorted(newest, key=lambda run: -newest[run])
        keeps = dict.fromkeys([*order[:RUNS_REMEMBERED], *needed, *open_])
        gone = [run for run in dict.fromkeys([*self._kept, *newest]) if run not in keeps]
        deletes: list[StoredRecord] = []
        for run in gone:
            deletes += [StoredRecord(one.key, None) for one in self.all() if one.run == run]
            deletes += [StoredRecord(kept_key(run), None)] if self._kept.pop(run, None) is not None else []
            for purpose in Purpose:
                self._by_key.pop((run, purpose), None)
        return tuple(deletes)
