"""Starting a run: what it must not meet, and what is written of it.

Invariant: no node is a target of two runs under way, and no two of them have one name; an id is given out once, also when
nothing is left of the run that had it.  What a specification may say is checked by `spec`.
"""

from collections.abc import Container, Mapping

from msgspec.structs import replace

from dislocate.core.boundary.events import RunMoved
from dislocate.core.boundary.runs import Direction, Frozen, RunPlan, RunRecord, RunStarted, RunState, StartRun
from dislocate.core.identity import Path
from dislocate.core.runs import records
from dislocate.core.runs.amounts import amount
from dislocate.core.runs.ledger.draft import Draft, Illegal, claim
from dislocate.core.tunables import RUN_NODES, RUNS_UNDER_WAY, VALUE_BYTES
from dislocate.core.words import count


def start(draft: Draft, body: StartRun) -> RunStarted:
    """Raises `Illegal`."""
    spec, plan = body.spec, body.plan
    if words := plan_fault(plan):
        raise Illegal("plan", words, "invalid")
    last = draft.last()
    number = last.run + 1
    record = RunRecord(
        id=str(number),
        name=spec.name,
        title=spec.title,
        state=RunState.AWAITING if spec.strategy.approvals > 0 else RunState.RUNNING,
        version=1,
        epoch=1,
        direction=Direction.APPLY,
        batch=0,
        targets=len(plan.targets),
        batches=len(plan.batches),
        spec_digest=records.spec_digest(spec),
        actor=body.actor,
        started_at=body.at,
        changed_at=body.at,
        words=f"started by {body.actor}",
        budget=amount(spec.strategy.max_failed, len(plan.targets)),
    )
    claim_alone(draft, record, dict.fromkeys(plan.targets))
    draft.write(records.LAST, replace(last, run=number))
    draft.write(records.active_key(record.id), record)
    draft.write(records.spec_key(record.id), Frozen(spec=spec, values=body.values, revision=plan.revision))
    draft.write(records.plan_key(record.id), plan)
    draft.write(records.counts_key(record.id), {})
    draft.events.append(RunMoved(record.id, 1, "", record.state.value, record.words))
    evidence = f"{record.state.value}; {record.name}, {count(record.targets)}, specification {record.spec_digest}"
    draft.audit(body.at, body.actor, "start", record.id, evidence)
    return RunStarted(record.id, record.state)


def claim_alone(draft: Draft, record: RunRecord, targets: Container[Path]) -> None:
    """Raises `Illegal` when a run under way has the name or one of the targets of `record`, which is not under way."""
    under_way = 0
    for other in draft.active():
        under_way += 1
        mend = "wait for it, abort it or revert it"
        claim(other.name != record.name, "name", f"run {other.id} of {other.name} is {other.state.value}: {mend}")
        if (shared := first_shared(draft.plan(other.id), targets)) is not None:
            raise Illegal(
                "targets", f"{shared} is a target of run {other.id} ({other.name}, {other.state.value}): {mend}"
            )
    claim(under_way < RUNS_UNDER_WAY, "run", f"{RUNS_UNDER_WAY} runs are under way: wait for one of them, or abort it")


def first_shared(plan: RunPlan, targets: Container[Path]) -> Path | None:
    return next((node for node in plan.targets if node in targets), None)


def plan_fault(plan: RunPlan) -> str:
    """What is wrong with its shape; empty: nothing."""
    if not plan.targets:
        return "no node matches the targets: see `dislocate run plan`"
    if len(plan.targets) > RUN_NODES:
        return f"{len(plan.targets)} nodes match the targets and a run has at most {RUN_NODES}: make several runs of it"
    known: Mapping[Path, None] = dict.fromkeys(plan.targets)
    batched = [node for batch in plan.batches for node in batch.nodes]
    if len(known) != len(plan.targets) or len(batched) != len(known) or dict.fromkeys(batched).keys() != known.keys():
        return "each target is to be in exactly one batch, once"
    if not all(batch.nodes for batch in plan.batches):
        return "a batch has no nodes"
    if not all(node in known for node in plan.expected):
        return "it expects something of a node that is no target"
    size = len(records.encode(plan))
    if size > VALUE_BYTES:
        return f"it has {size} bytes and may have {VALUE_BYTES}: make several runs of it"
    return ""
