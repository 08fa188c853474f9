"""What may be asked of runs: one pure check of each request, before anything is proposed.

Invariant: what passes is small enough for the log and for one value each, and names nodes, runs and numbers that can be.
Whether it is legal as the run stands is the ledger's affair; what a specification may say is `spec`'s.
"""

import re
from collections.abc import Callable
from typing import Any

from dislocate.core.boundary.runs import AskGrant, Frozen, NodeState, ReportTask, StartRun, SteerRun, Verb
from dislocate.core.errors import LocalError
from dislocate.core.identity import split_path
from dislocate.core.runs import records
from dislocate.core.runs.ledger.starting import plan_fault
from dislocate.core.runs.spec import check_spec
from dislocate.core.tunables import REPORT_BYTES, RUN_WORDS, SPEC_BYTES, VALUE_BYTES

_NUMBER_LIMIT = 1 << 63
_ACTOR = 200  # characters of who asks
_RUN = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)
_NODE_VERBS = (Verb.SKIP, Verb.RETRY)
_REPORTED = (NodeState.DONE, NodeState.FAILED, NodeState.REVERTED, NodeState.REVERT_FAILED)


def _check_start(request: StartRun) -> None:
    _check_actor(request.actor)
    _check_number(request.at, "at")
    _claim(0 < len(request.spec.name) <= _ACTOR, "spec.name", request.spec.name, f"a name of 1 to {_ACTOR} characters")
    _check_number(request.spec.strategy.approvals, "spec.strategy.approvals")
    size = len(records.encode(request.spec))
    words = f"a specification of at most {SPEC_BYTES} bytes with its sources: keep large files elsewhere"
    _claim(size <= SPEC_BYTES, "spec", f"{size} bytes", words)
    size = len(records.encode(Frozen(spec=request.spec, values=request.values, revision=request.plan.revision)))
    words = f"at most {VALUE_BYTES} bytes with the values of keys that its templates name"
    _claim(size <= VALUE_BYTES, "values", f"{size} bytes", words)
    _check_number(request.plan.revision, "plan.revision")
    check_spec(request.spec)
    if fault := plan_fault(request.plan):
        raise LocalError("plan", got=f"{len(request.plan.targets)} targets", expected=f"another one: {fault}")
    for at, node in enumerate(request.plan.targets):
        split_path(node, f"plan.targets[{at}]")


def _check_steer(request: SteerRun) -> None:
    _check_run(request.run)
    _check_actor(request.actor)
    _check_number(request.at, "at")
    _check_number(request.version, "version")
    _claim(len(request.words) <= RUN_WORDS, "words", request.words, f"at most {RUN_WORDS} characters")
    if request.verb in _NODE_VERBS:
        split_path(request.node, "node")
    else:
        _claim(not request.node, "node", request.node, f"no node: {request.verb.value} is about the whole run")


def _check_ask(request: AskGrant) -> None:
    _check_run(request.run)
    split_path(request.node, "node")
    _claim(0 < request.epoch < _NUMBER_LIMIT, "epoch", request.epoch, "the epoch of the run's record, from 1")
    _claim(0 < request.ask < _NUMBER_LIMIT, "ask", request.ask, "a number from 1 that tells this asking from others")


def _check_report(request: ReportTask) -> None:
    _check_run(request.run)
    split_path(request.node, "node")
    _claim(0 < request.epoch < _NUMBER_LIMIT, "epoch", request.epoch, "the epoch of the grant, from 1")
    expected = ", ".join(state.value for state in _REPORTED)
    _claim(request.state in _REPORTED, "state", request.state.value, f"what a node reports: {expected}")
    _check_number(request.took, "took")
    size = len(records.encode(request))
    _claim(
        size <= REPORT_BYTES, "steps", f"{size} bytes", f"a report of at most {REPORT_BYTES} bytes: shorten its words"
    )


def _check_run(run: str) -> None:
    _claim(_RUN.fullmatch(run) is not None, "run", run, "the id of a run, a number from 1, as its start answered")


def _check_actor(actor: str) -> None:
    _claim(0 < len(actor) <= _ACTOR, "actor", actor, f"who asks, in 1 to {_ACTOR} characters")


def _check_number(number: int, field: str) -> None:
    _claim(0 <= number < _NUMBER_LIMIT, field, number, "a whole number from 0")


def _claim(holds: bool, field: str, got: object, expected: str) -> None:
    if not holds:
        raise LocalError(field, got=got, expected=expected)


# By request: raises `LocalError` naming the field and the mend.
CHECKS: dict[type, Callable[[Any], None]] = {
    StartRun: _check_start,
    SteerRun: _check_steer,
    AskGrant: _check_ask,
    ReportTask: _check_report,
}
