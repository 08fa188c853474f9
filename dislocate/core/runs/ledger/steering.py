"""Steering: what an operator's verb makes of a run.

Invariant: a verb is done whole or is `Illegal`, with words that say how the run stands and what helps; so of two operators who
say the same the second one is told that it was done.  Which states a verb is for is in `transitions`.
"""

from collections.abc import Callable

from msgspec.structs import replace

from dislocate.core.boundary.runs import Direction, Hold, NodeState, NodeTask, RunRecord, RunState, SteerRun, Verb
from dislocate.core.runs.ledger.draft import Draft, Illegal, Moving, claim
from dislocate.core.runs.ledger.precedence import in_the_way
from dislocate.core.runs.ledger.starting import claim_alone
from dislocate.core.runs.ledger.transitions import MENDS, RETRYABLE, SKIPPABLE, VERBS, goes_on_as
from dislocate.core.tunables import RUN_WORDS
from dislocate.core.words import count, may


def steer(draft: Draft, body: SteerRun) -> int:
    """The version of the run after it.  Raises `Illegal`."""
    record = draft.run(body.run)
    if record is None:
        raise Illegal("run", f"there is no run {body.run}: `dislocate run list` shows those that are kept", "unknown")
    if body.version not in (0, record.version):
        words = f"run {record.id} went on to version {record.version} ({record.state.value}): look again, then decide"
        raise Illegal("version", words)
    if record.state not in VERBS[body.verb]:
        raise Illegal("verb", f"run {record.id} is {_how(record)}: {MENDS[record.state]}")
    moving = Moving(draft, record)
    evidence = _VERBS[body.verb](moving, body)
    moving.save(body.at)
    moving.audit(body.at, body.actor, body.verb.value, "; ".join(filter(None, (evidence, body.words))))
    return moving.record.version


def _how(record: RunRecord) -> str:
    return f"paused ({record.hold.value})" if record.hold is not None else record.state.value


def _because(body: SteerRun, done: str) -> str:
    words = f"{done} by {body.actor}"
    return (f"{words}: {body.words}" if body.words else words)[:RUN_WORDS]


# ---- the run


def _approve(moving: Moving, body: SteerRun) -> str:
    record, person = moving.record, _person(body.actor)
    own = f"{body.actor} started run {record.id}: somebody else is to approve it"
    claim(person != _person(record.actor), "actor", own)
    twice = f"{body.actor} has approved run {record.id} already: it waits for somebody else"
    claim(all(person != _person(one) for one in record.approved_by), "actor", twice)
    approved, needed = (*record.approved_by, body.actor), moving.draft.spec(record.id).spec.strategy.approvals
    moving.change(approved_by=approved, words=_because(body, f"approved ({len(approved)} of {needed})"))
    if len(approved) >= needed:
        moving.change(state=RunState.RUNNING)
    return f"{len(approved)} of {needed}"


def _person(actor: str) -> str:
    """'root' for 'root@fra/a1' and 'root@wdc/b1': who can be one user at two agents is one person.  Names of tokens stay."""
    user, _, place = actor.rpartition("@")
    return user if "/" in place else actor


def _pause(moving: Moving, body: SteerRun) -> str:
    record = moving.record
    already = f"run {record.id} is paused by an operator already: resume it, abort it or revert it"
    claim(record.hold is not Hold.OPERATOR, "verb", already)
    moving.change(state=RunState.PAUSED, hold=Hold.OPERATOR, words=_because(body, "paused"))
    return ""


def _resume(moving: Moving, body: SteerRun) -> str:
    record = moving.record
    failed = moving.counts().get(NodeState.FAILED, 0)
    if record.direction is Direction.APPLY and record.hold is Hold.FAILURE and failed > record.budget:
        words = f"{count(failed)} of run {record.id} failed, and {may(record.budget)}"
        raise Illegal("verb", f"{words}: retry or skip some first, or revert it")
    if record.direction is Direction.APPLY and record.hold is Hold.BUDGET and moving.is_spent:
        mend = "it goes on by itself when that changes; or retry or skip some, or revert it"
        raise Illegal("verb", f"{moving.spent}: {mend}")
    moving.change(state=goes_on_as(record.direction), hold=None, words=_because(body, "resumed"))
    return ""


def _promote(moving: Moving, body: SteerRun) -> str:
    """Neither soak nor gates are waited for.  After the last batch its gates are watched still: that ends too."""
    record = moving.record
    what = f"batch {record.batch + 1}" if record.batch < record.batches else "the end"
    claim(
        not moving.is_reverting,
        "verb",
        f"run {record.id} is being reverted, without soak and gates: nothing to promote",
    )
    already = f"{what} of run {record.id} was promoted already: the leader goes on when its nodes are done"
    claim(record.promoted != record.batch, "verb", already)
    moving.change(promoted=record.batch, words=_because(body, f"{what} promoted"))
    return what


def _abort(moving: Moving, body: SteerRun) -> str:
    moving.take_grants_back()
    epoch = moving.record.epoch + 1
    moving.change(state=RunState.ABORTED, epoch=epoch, hold=None, retries=(), words=_because(body, "aborted"))
    return ""


def _revert(moving: Moving, body: SteerRun) -> str:
    record, forced = moving.record, ""
    claim(not moving.is_reverting or moving.is_over, "verb", f"run {record.id} is being reverted: resume it")
    if moving.is_over:
        touched = [task for task in moving.draft.tasks(record.id) if moving.needs_revert(task)]
        claim(bool(touched), "run", f"run {record.id} changed nothing that is not reverted: nothing is left to do")
        claim_alone(moving.draft, record, {node: None for batch in moving.plan.batches for node in batch.nodes})
        later = in_the_way(moving.draft, record, touched)
        if later and not body.force:
            mend = "revert that one first, or start another run; or, over what it did"
            raise Illegal("run", f"{later}: {mend}: 'dislocate run revert {record.id} --force --why WORDS'")
        if later:
            forced = f"forced: {later}"
    begin_revert(moving, _because(body, "reverted"))
    return forced


def begin_revert(moving: Moving, words: str) -> None:
    """From here on what was begun is taken back, the latest batch first."""
    record = moving.record
    moving.take_grants_back()
    if moving.is_over:  # a revert that failed is tried again
        for task in moving.draft.tasks(record.id):
            if task.state is NodeState.REVERT_FAILED:
                moving.move(replace(task, state=NodeState.PENDING, direction=Direction.REVERT, ask=0))
    # Whoever was begun is gone through, also one of a batch whose turn had not come.
    begun = [moving.batch_of(task.node) for task in moving.draft.tasks(record.id) if moving.needs_revert(task)]
    present = record.batches - 1 if moving.is_over else min(record.batch, record.batches - 1)
    batch = max((present, *begun))
    moving.change(
        state=RunState.REVERTING,
        direction=Direction.REVERT,
        epoch=record.epoch + 1,
        batch=batch,
        retries=(),
        hold=None,
        words=words,
    )


# ---- a node


def _skip(moving: Moving, body: SteerRun) -> str:
    record, node = moving.record, body.node
    task = _part(moving, node)
    if moving.is_reverting:  # what applying left SKIPPED is still to be reverted, unless somebody says that it is not
        legal = task.state in SKIPPABLE[record.direction] and moving.needs_revert(task)
    else:
        legal = task.state in SKIPPABLE[record.direction]
    claim(legal, "node", f"{node} is {task.state.value} in run {record.id}: there is nothing to skip")
    words = _because(body, "skipped")
    moving.move(replace(task, state=NodeState.SKIPPED, direction=record.direction, words=words), words)
    _forget(moving, node)
    moving.change(words=f"{node}: {words}"[:RUN_WORDS])
    return node


def _retry(moving: Moving, body: SteerRun) -> str:
    """The epoch grows, so that a late report of what was tried before is not taken for one of what will be.  One of a batch
    that has yet to come waits for it there."""
    record, node = moving.record, body.node
    task = _part(moving, node)
    if task.state not in RETRYABLE[record.direction] or (moving.is_reverting and not task.touched):
        raise Illegal(
            "node",
            f"{node} is {task.state.value} in run {record.id}: only what failed, was skipped or is out of "
            "reach can be tried again",
        )
    words, epoch = _because(body, "to be tried again"), record.epoch + 1
    moving.move(
        replace(task, state=NodeState.PENDING, direction=record.direction, epoch=epoch, ask=0, kind="", words=words),
        words,
    )
    _forget(moving, node)
    retries = moving.record.retries if moving.is_ahead(node) else (*moving.record.retries, node)
    moving.change(epoch=epoch, retries=retries, words=f"{node}: {words}"[:RUN_WORDS])
    return node


def _part(moving: Moving, node: str) -> NodeTask:
    moving.batch_of(node)
    return moving.task(node)


def _forget(moving: Moving, node: str) -> None:
    """It is not to be granted, nor to ask, for what was said before."""
    record = moving.record
    granted = tuple(one for one in record.granted if one != node)
    moving.change(granted=granted, retries=tuple(one for one in record.retries if one != node))


_VERBS: dict[Verb, Callable[[Moving, SteerRun], str]] = {
    Verb.APPROVE: _approve,
    Verb.PAUSE: _pause,
    Verb.RESUME: _resume,
    Verb.PROMOTE: _promote,
    Verb.SKIP: _skip,
    Verb.RETRY: _retry,
    Verb.ABORT: _abort,
    Verb.REVERT: _revert,
}
