"""Actions: what comes next in one journal, as a pure function, so that every point at which an agent can die is a case.

    look at a resource -> nothing to do: settle it
                       -> else: intend (durable) -> carry out -> settle (durable, with what it owes)
    all settled        -> what is owed -> end

After a crash an intent without a result is looked at again: it is as it was to become, so it was done; it is as it was, so it
was not, and is done now; else nobody can say, and the step is lost.  A command that is run once cannot be looked at: its
journal is its guard, and it is lost.  What was notified is done again unless it can be seen that it was done: twice is better
than never.

Invariant: nothing is carried out without an intent that is durable, and nothing after a failure.
"""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from dislocate.core.boundary.runs import NodeState, TaskOutcome, TaskResult, TaskVerb
from dislocate.core.boundary.spec import Command, Resource
from dislocate.core.runs.agent.journal import Entry, Journal, Purpose, touched
from dislocate.core.runs.plan import plan_digest
from dislocate.core.runs.resources import is_act, is_once, is_owed_only, is_shared, resource_id

LOST = (
    "the agent ended while this was being done, and it cannot be told whether it was: look there, then retry or revert"
)
STILL_FAILS = "fails as it did when it was applied, and what it follows was put back"
FOUND_DONE = "it had been done when the agent ended"


class Work(Struct, frozen=True):
    """A resource, and what is to be done about it."""

    resource: Resource
    verb: TaskVerb  # APPLY or REVERT
    when_owed: bool  # only if it was notified
    undo: str = ""  # REVERT: digest of how it was; '' where that is not known
    made: str = ""  # REVERT: digest of what the run made of it; '' where that is not known
    never_worked: bool = False  # on the way back, of an act: it had failed when it was applied

    @property
    def name(self) -> str:
        return resource_id(self.resource)


class Look(Struct, frozen=True):
    """See how it is."""

    work: Work


class Intend(Struct, frozen=True):
    """Write that it is begun; then it is."""

    work: Work
    before: str
    after: str


class Carry(Struct, frozen=True):
    """Do it."""

    work: Work


class Settle(Struct, frozen=True):
    """It is known without doing anything."""

    work: Work
    outcome: TaskOutcome


class Fits(Struct, frozen=True):
    """All is as the plan took it to be."""


class End(Struct, frozen=True):
    """There is nothing more to do."""

    state: NodeState
    kind: str = ""
    words: str = ""


Action: TypeAlias = Look | Intend | Carry | Settle | Fits | End
Looks: TypeAlias = Mapping[str, TaskOutcome]


def work_to_apply(resources: Sequence[Resource]) -> tuple[Work, ...]:
    """Everything, in order; what is only notified last."""
    first = [one for one in resources if not is_owed_only(one)]
    last = [one for one in resources if is_owed_only(one)]
    return tuple(Work(one, TaskVerb.APPLY, is_owed_only(one)) for one in (*first, *last))


def work_to_enforce(resources: Sequence[Resource]) -> tuple[Work, ...]:
    """The same, without what is done once a run."""
    return tuple(work for work in work_to_apply(resources) if not is_once(work.resource))


def work_to_revert(
    resources: Sequence[Resource], applied: Journal | None, enforced: Journal | None = None
) -> tuple[Work, ...]:
    """What may have been changed, in reverse order, and after that whatever it notified: that is to find it as it was.
    `enforced`: what was brought back last after it had drifted."""
    if applied is None:
        return ()
    by_name = {resource_id(one): one for one in resources}
    entries = [entry for entry in touched(applied) if entry.resource in by_name]
    notified = {name: None for entry in entries for name in by_name[entry.resource].notify}
    last = [entry for entry in entries if entry.resource in notified]
    first = [entry for entry in reversed(entries) if entry.resource not in notified]
    return tuple(_work_back(by_name[entry.resource], entry, enforced) for entry in (*first, *last))


def _work_back(resource: Resource, entry: Entry, enforced: Journal | None) -> Work:
    """A command that only follows others has no state of its own: it is run again, unless it says how it is undone."""
    is_repeated = isinstance(resource, Command) and is_act(resource)
    never_worked = is_act(resource) and entry.result is TaskResult.FAILED
    later = None if enforced is None else enforced.entry(entry.resource)
    made = later.after if later is not None and later.begun and later.after else entry.after
    verb = TaskVerb.APPLY if is_repeated else TaskVerb.REVERT
    return Work(resource, verb, False, undo=entry.before, made=made, never_worked=never_worked)


def outcome_of(work: Work, outcome: TaskOutcome) -> TaskOutcome:
    """What counts of how it ended.

    An act that fails on the way back as it did on the way there (a misspelt unit, a host without systemd) leaves nothing
    that is not as before: what it was to follow is put back, and it would fail however often the revert is tried again.  So
    it is told, and the node is reverted.  One that worked when it was applied has done something that is not undone."""
    if not work.never_worked or outcome.result is not TaskResult.FAILED:
        return outcome
    return replace(outcome, result=TaskResult.LEFT, words=f"{STILL_FAILS}: {outcome.words}")


def next_action(journal: Journal, works: Sequence[Work], looks: Looks, fresh: str = "", expected: str = "") -> Action:
    """`looks`: how resources were when this process looked, since they were last done; `fresh`: the intent that this process
    wrote itself; `expected`: digest of all looks that the plan is bound to, '' for none."""
    failed = next((entry for entry in journal.entries if entry.result is TaskResult.FAILED), None)
    if failed is not None:
        words = f"{failed.resource}: {failed.words}" if failed.words else failed.resource
        return End(_failed_state(journal), failed.kind or "apply", words)
    by_name = {work.name: work for work in works}
    intent = journal.intent
    if intent is not None:
        return _go_on(intent, by_name[intent.resource], looks.get(intent.resource), fresh, journal.owed)
    if expected and not journal.fits and not journal.entries:
        return _compare(works, looks, expected)
    for work in works:
        entry = journal.entry(work.name)
        is_owed = work.name in journal.owed
        if is_owed or (entry is None and not work.when_owed):
            return _begin(work, looks.get(work.name), is_owed)
    return End(NodeState.REVERTED if journal.purpose is Purpose.REVERT else NodeState.DONE)


def _failed_state(journal: Journal) -> NodeState:
    return NodeState.REVERT_FAILED if journal.purpose is Purpose.REVERT else NodeState.FAILED


def _compare(works: Sequence[Work], looks: Looks, expected: str) -> Action:
    for work in works:
        look = looks.get(work.name)
        if look is None:
            return Look(work)
        if look.result is TaskResult.FAILED:
            return Settle(work, look)
    own = [work for work in works if not is_shared(work.resource)]
    if plan_digest((work.name, looks[work.name].before) for work in own) == expected:
        return Fits()
    words = "something here is not as it was when the plan was made, so nothing was done: plan again"
    return End(NodeState.FAILED, "stale", words)


def _begin(work: Work, look: TaskOutcome | None, is_owed: bool) -> Action:
    if look is None:
        return Look(work)
    if work.verb is TaskVerb.REVERT:
        if work.undo and look.before == work.undo:
            return Settle(work, TaskOutcome(TaskResult.SAME, look.before, look.before))
        return Intend(work, look.before, work.undo)
    if look.result is TaskResult.FAILED:
        return Settle(work, look)
    if look.result is TaskResult.SAME and not is_owed:
        return Settle(work, look)
    return Intend(work, look.before, look.after)


def _go_on(intent: Entry, work: Work, look: TaskOutcome | None, fresh: str, owed: Sequence[str]) -> Action:
    if fresh == intent.resource:
        return Carry(work)
    if is_once(work.resource):
        return Settle(work, TaskOutcome(TaskResult.FAILED, kind="lost", words=LOST))
    if look is None:
        return Look(work)
    reverts = work.verb is TaskVerb.REVERT
    if _was_undone(intent, work, look) if reverts else _was_done(intent, look, work.name in owed):
        words = TaskOutcome(TaskResult.CHANGED, intent.before, look.before or intent.after, words=FOUND_DONE)
        return Settle(work, words)
    if reverts or look.before == intent.before or work.name in owed:
        return Carry(work)
    if look.result is TaskResult.FAILED:
        return Settle(work, look)
    return Settle(work, TaskOutcome(TaskResult.FAILED, look.before, kind="lost", words=LOST))


def _was_done(intent: Entry, look: TaskOutcome, is_owed: bool) -> bool:
    is_as_meant = bool(intent.after) and look.before == intent.after
    if is_owed:
        return is_as_meant and intent.after != intent.before
    return is_as_meant or look.result is TaskResult.SAME


def _was_undone(intent: Entry, work: Work, look: TaskOutcome) -> bool:
    if isinstance(work.resource, Command):
        return look.result is TaskResult.WOULD_CHANGE  # its guard says that it is needed again
    return bool(intent.after) and look.before == intent.after and intent.after != intent.before
