"""Config runs: start one, see them, steer one.

    POST /api/runs                 a specification as in its file, as JSON   ->  {"id": "7", "state": "running", ...}
    GET  /api/runs/7               every target with its state, and what the run waits for
    POST /api/runs/7/pause         approve, pause, resume, promote, skip, retry, abort, revert

Whom a run is about is decided here, at its start, on what this agent knows; from then on the run is data in the store, and
nothing of it depends on this agent.  Nothing was begun when an answer is a problem other than 504.
"""

import time
from collections.abc import Iterator, Sequence
from functools import partial

import msgspec

from dislocate.core.boundary.requests import Done
from dislocate.core.boundary.runs import RunRecord, RunStarted, StartRun, SteerRun, Verb
from dislocate.core.boundary.spec import RunSpec
from dislocate.core.boundary.store import Consistency, Get, KeyValue, ReadKeys, Transact
from dislocate.core.boundary.views import InstanceView
from dislocate.core.errors import LocalError
from dislocate.core.identity import Path, split_path
from dislocate.core.nearest import nearest
from dislocate.core.runs import records
from dislocate.core.runs.ledger.draft import Last
from dislocate.core.runs.plan import make_plan
from dislocate.core.runs.spec import check_spec
from dislocate.core.tunables import TRANSACTION_OPERATIONS
from dislocate.core.units import seconds
from dislocate.core.words import names
from dislocate.edge.http import run_audit, run_looks, run_stream
from dislocate.edge.http.access import Role
from dislocate.edge.http.call import Call, Operation, Query
from dislocate.edge.http.problems import Rejected, not_found
from dislocate.edge.http.run_reads import (
    Named,
    read_all,
    read_frozen,
    read_named,
    read_plan,
    read_record,
    read_tasks,
    run_of,
    stale,
)
from dislocate.edge.run_answers import (
    RunAnswer,
    RunsAnswer,
    StartedAnswer,
    SteeredAnswer,
)
from dislocate.edge.run_bodies import PlanBody, RunBody, SteerBody, spec_of
from dislocate.edge.run_targets import check_services, doubts, targets_of
from dislocate.edge.run_told import run_answer, run_summary
from dislocate.strict import one_of

LISTED = 20  # runs that a list has unless more are asked for
LISTED_MOST = TRANSACTION_OPERATIONS
OF_A_NODE = (Verb.SKIP, Verb.RETRY)


def post_run(call: Call) -> StartedAnswer:
    spec = spec_of(call.body)
    check_spec(spec)
    if spec.strategy.approvals:
        call.require_name("a run that others are to approve")
    targets = targets_of(call.node, spec.targets, spec.confirm)
    fleet = call.node.candidates
    if not call.body.unknown_services:
        check_services(fleet, spec)
    named = read_named(call, spec, targets)
    expected: dict[Path, str] = {}
    notes = list(doubts(fleet, spec))
    if call.body.plan is not None:
        expected = _still_fitting(call, spec, call.body.plan, targets, named)
    plan = make_plan(spec, targets, revision=named.revision, expected=expected)
    if call.body.plan is None:
        notes += run_looks.try_templates(call, spec, plan, named)
    started: RunStarted = call.ask_store(StartRun(spec, plan, named.values, call.actor, time.time_ns()))
    return StartedAnswer(started.run, started.state, len(targets), tuple(notes))


def _still_fitting(
    call: Call, spec: RunSpec, plan: PlanBody, targets: tuple[Path, ...], named: Named
) -> dict[Path, str]:
    """The digests that nodes are to find, where the plan still holds.  Raises `Rejected` where it does not."""
    if plan.spec_digest != records.spec_digest(spec):
        raise stale("the specification was changed since")
    if changed := sorted(set(targets) ^ set(plan.targets)):
        raise stale(f"other nodes are meant now: {names(changed)}")
    if plan.values_digest != named.digest:
        raise stale("a key or secret that its templates name was changed since")
    if not plan.digests:
        return {}
    now = run_looks.digests_now(call, spec, tuple(path for path in targets if path in plan.digests), named)
    if changed := sorted(path for path, digest in now.items() if digest != plan.digests[path]):
        raise stale(f"something was changed since on {names(changed)}")
    return plan.digests


def list_runs(call: Call) -> RunsAnswer:
    """Those under way, and the latest that are over."""
    consistency = consistency_of(call)
    meaning = f"a whole number, 1..{LISTED_MOST}"
    limit = call.query_number("limit", LISTED_MOST, meaning, smallest=1) or LISTED
    active = [records.decode(each.value, RunRecord) for each in read_all(call, records.ACTIVE, consistency)]
    known = {record.id: record for record in active}
    try:
        over = _over(call, max(0, limit - len(active)), consistency)
    except Rejected:
        if not active or consistency is Consistency.LINEARIZABLE:
            raise
        over = []  # every agent holds what is under way, and no server is near that holds the others
    for record in over:
        known.setdefault(record.id, record)
    latest = sorted(known.values(), key=lambda record: int(record.id), reverse=True)
    return RunsAnswer(tuple(run_summary(record) for record in latest), seconds(call.age))


def _over(call: Call, limit: int, consistency: Consistency) -> list[RunRecord]:
    """The latest `limit` that are over.  Numbers that nobody had (`keeping.recovered`) are passed over."""
    (found,) = _get(call, (records.LAST,), consistency)
    last = records.decode(found[0].value, Last) if found else Last()
    over: list[RunRecord] = []
    for top in range(last.run, last.oldest - 1, -LISTED_MOST):
        if len(over) >= min(limit, last.over):
            break
        numbers = range(top, max(last.oldest - 1, top - LISTED_MOST), -1)
        read = _get(call, [records.over_key(str(number)) for number in numbers], consistency)
        over += [records.decode(each.value, RunRecord) for result in read for each in result]
    return over[:limit]


def _get(call: Call, keys: Sequence[str], consistency: Consistency) -> Iterator[tuple[KeyValue, ...]]:
    """Each key, or nothing: of now at once, of what is known here one by one, since only reads are answered there."""
    if consistency is Consistency.LINEARIZABLE:
        yield from call.ask_store(Transact((), tuple(map(Get, keys)))).results
    else:
        for key in keys:
            yield call.ask_store(ReadKeys(key, consistency=consistency)).keys


def get_run(call: Call) -> RunAnswer:
    return whole_run(call, run_of(call), consistency_of(call))


def whole_run(call: Call, run: str, consistency: Consistency = Consistency.LINEARIZABLE) -> RunAnswer:
    return run_at(call, run, consistency)[0]


def run_at(call: Call, run: str, consistency: Consistency = Consistency.LINEARIZABLE) -> tuple[RunAnswer, int]:
    """The run, with the revision as of which its nodes are told."""
    record = read_record(call, run, consistency)
    plan, tasks = read_plan(call, run, consistency), read_tasks(call, run, consistency)
    frozen, node = read_frozen(call, run, consistency), call.node

    def instances(service: str) -> Sequence[InstanceView]:
        view = node.catalog.service(service)
        return () if view is None else view.instances

    reaches = partial(run_stream.is_reachable, node)
    answer = run_answer(record, plan, tasks.by_node, frozen, instances, reaches)
    return msgspec.structs.replace(answer, age=seconds(call.age)), tasks.revision


def watch_run(call: Call) -> run_stream.RunStream:
    return run_stream.watch_run(call, run_at)


def consistency_of(call: Call) -> Consistency:
    """Raises `LocalError`."""
    known = {each.value: each for each in (Consistency.LINEARIZABLE, Consistency.LOCAL)}
    text = call.query("consistency", Consistency.LINEARIZABLE.value)
    if text not in known:
        raise LocalError("consistency", got=text[:100], expected=one_of(text, known))
    return known[text]


# ---- steering


def _steer(call: Call, verb: Verb) -> SteeredAnswer:
    run, body = run_of(call), call.body
    if verb is Verb.APPROVE:
        call.require_name("an approval")
    if verb in OF_A_NODE:
        _check_node(call, run, body.node)
    elif body.node:
        raise LocalError("node", got=body.node, expected=f"no node: '{verb.value}' is about the whole run")
    if body.force and verb is not Verb.REVERT:
        raise LocalError("force", got=True, expected=f"false: nothing of '{verb.value}' can be forced, only a revert")
    if body.force and not body.words:
        raise LocalError("words", got="", expected="why the revert is forced: the audit is to say it")
    request = SteerRun(run, verb, call.actor, time.time_ns(), body.node, body.version, body.words, body.force)
    result = call.ask_store(request)
    return SteeredAnswer(run, result.version if isinstance(result, Done) else 0)


def _check_node(call: Call, run: str, node: Path) -> None:
    split_path(node, "node")
    targets = read_plan(call, run).targets
    if targets and node not in targets:
        hint = f"GET /api/runs/{run} shows them{nearest(node, targets)}"
        raise not_found("node", node, f"{node} is no target of run {run}", hint)


_MEANINGS = {
    Verb.APPROVE: "Approve a run that somebody else started",
    Verb.PAUSE: "Begin nothing more until it is resumed; what is in flight finishes",
    Verb.RESUME: "Go on",
    Verb.PROMOTE: "Count soak and gates of the present batch as passed",
    Verb.SKIP: "Go on without a node",
    Verb.RETRY: "Grant to a node again",
    Verb.ABORT: "End it and leave everything as it is; what is in flight finishes",
    Verb.REVERT: "Take back what was done, in reverse order; also of a run that is over",
}


def _operation_of(verb: Verb) -> Operation:
    def respond(call: Call) -> SteeredAnswer:
        return _steer(call, verb)

    respond.__name__ = f"post_run_{verb.value}"
    return Operation(
        method="POST",
        path=f"/api/runs/{{run}}/{verb.value}",
        role=Role.OPERATE,
        summary=_MEANINGS[verb],
        respond=respond,
        answer=SteeredAnswer,
        body=SteerBody,
    )


_CONSISTENCY = Query("consistency", "'linearizable' unless given; 'local': what is known here, even while cut off")

OPERATIONS = (
    Operation(
        method="POST",
        path="/api/runs",
        role=Role.OPERATE,
        summary="Start a run of a specification; with 'plan' only if everything is still as it was planned",
        respond=post_run,
        answer=StartedAnswer,
        body=RunBody,
        in_words=True,
    ),
    Operation(
        method="GET",
        path="/api/runs",
        role=Role.READ,
        summary="Runs under way, and the latest that are over",
        respond=list_runs,
        answer=RunsAnswer,
        queries=(
            Query("limit", f"so many in all, {LISTED} unless given; whatever is under way is among them"),
            _CONSISTENCY,
        ),
    ),
    *run_looks.OPERATIONS,
    *run_audit.OPERATIONS,
    Operation(
        method="GET",
        path="/api/runs/{run}",
        role=Role.READ,
        summary="One run: every target with its state, and what the run waits for",
        respond=get_run,
        answer=RunAnswer,
        queries=(_CONSISTENCY,),
    ),
    Operation(
        method="GET",
        path="/api/runs/{run}/watch",
        role=Role.READ,
        summary="Server-sent events 'status' (the whole run), then 'run' and 'node' as they change, 'status' at its end",
        respond=watch_run,
        media=run_stream.EVENT_STREAM,
    ),
    *(_operation_of(verb) for verb in Verb),
)
