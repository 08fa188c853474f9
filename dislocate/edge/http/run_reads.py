"""What a specification needs of the store before a run begins, and a run's records: read here, for all operations.

Keys and secrets that templates name are read at one revision, by one transaction, so that all nodes get the same.
"""

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from http import HTTPStatus
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from dislocate.core.boundary.runs import Frozen, NodeTask, RunPlan, RunRecord, Secret
from dislocate.core.boundary.spec import RunSpec
from dislocate.core.boundary.store import Consistency, Get, KeysRead, KeyValue, ReadKeys, Transact
from dislocate.core.errors import LocalError
from dislocate.core.identity import Path
from dislocate.core.nearest import nearest
from dislocate.core.runs import records
from dislocate.core.tunables import READ_LIMIT, TRANSACTION_OPERATIONS
from dislocate.core.words import names
from dislocate.edge.http.call import Call
from dislocate.edge.http.problems import Rejected, not_found, problem

T = TypeVar("T")


class Named(Struct, frozen=True):
    """What the templates of a specification name, as of `revision`."""

    values: dict[str, str]
    secrets: dict[str, Secret]
    revision: int

    @property
    def digest(self) -> str:
        """Hex, over the values and the versions of the secrets: a plan holds for one."""
        versions = {name: [secret.version, secret.digest] for name, secret in self.secrets.items()}
        return blake2b(msgspec.json.encode([self.values, versions]), digest_size=16).hexdigest()

    def sealed_for(self, node: Path) -> dict[str, bytes]:
        return {name: secret.sealed[node] for name, secret in self.secrets.items()}


def read_named(call: Call, spec: RunSpec, targets: Iterable[Path]) -> Named:
    """Raises `LocalError` for a key or secret that is not there, or not for all of `targets`."""
    references = call.agent.references(spec)
    keys, secrets = tuple(references.keys), tuple(references.secrets)
    if not keys and not secrets:
        return Named({}, {}, call.node.store.revision)
    asked = (*keys, *(records.secret_key(name) for name in secrets))
    if len(asked) > TRANSACTION_OPERATIONS:
        expected = f"at most {TRANSACTION_OPERATIONS} keys and secrets in the templates of one run"
        raise LocalError("resources", got=len(asked), expected=expected)
    read = call.ask_store(Transact((), tuple(Get(key) for key in asked)))
    found = [result[0] if result else None for result in read.results]
    values = {key: _text(call, key, each) for key, each in zip(keys, found, strict=False)}
    sealed = {name: _secret(call, name, each, targets) for name, each in zip(secrets, found[len(keys) :], strict=True)}
    return Named(values, sealed, read.revision)


def _text(call: Call, key: str, found: KeyValue | None) -> str:
    if found is None:
        near = key[: key.rfind("/") + 1]
        close = nearest(key, [each.key for each in read_all(call, near)]) if near else ""
        expected = f"the key {key!r} to be there{close}; set it: dislocate kv put {key} VALUE"
        raise LocalError("resources", got=f"key({key!r})", expected=expected)
    try:
        return found.value.decode()
    except UnicodeDecodeError:
        raise LocalError("resources", got=f"key({key!r})", expected="a key whose value is text in UTF-8") from None


def _secret(call: Call, name: str, found: KeyValue | None, targets: Iterable[Path]) -> Secret:
    if found is None:
        known = [each.key.removeprefix(records.SECRETS) for each in read_all(call, records.SECRETS)]
        mend = f"put it: dislocate secret put {name} --targets EXPRESSION"
        expected = f"the secret {name!r} to be there{nearest(name, known)}; {mend}"
        raise LocalError("resources", got=f"secret({name!r})", expected=expected)
    secret = records.decode(found.value, Secret)
    if missing := [path for path in targets if path not in secret.sealed]:
        expected = f"the secret {name!r} to be one that {names(missing)} can read: put it again, for all targets"
        raise LocalError("resources", got=f"secret({name!r})", expected=expected)
    return secret


# ---- runs


def run_of(call: Call) -> str:
    """The number of the run that the path names.  Raises `Rejected` for what can be none."""
    run = call.path["run"]
    if not (run.isascii() and run.isdigit() and len(run) <= 16):
        raise _no_run(run[:100])
    return run


def read_record(call: Call, run: str, consistency: Consistency = Consistency.LINEARIZABLE) -> RunRecord:
    """The run, under way or over.  Raises `Rejected` where there is none."""
    for key in (records.active_key(run), records.over_key(run)):
        record = _read_one(call, key, RunRecord, consistency)
        if record is not None:
            return record
    raise _no_run(run)


def _no_run(run: str) -> Rejected:
    return not_found("run", run, f"There is no run {run!r}", "GET /api/runs shows what there is")


def read_plan(call: Call, run: str, consistency: Consistency = Consistency.LINEARIZABLE) -> RunPlan:
    return _read_one(call, records.plan_key(run), RunPlan, consistency) or RunPlan((), ())


def read_frozen(call: Call, run: str, consistency: Consistency = Consistency.LINEARIZABLE) -> Frozen | None:
    return _read_one(call, records.spec_key(run), Frozen, consistency)


class Tasks(Struct, frozen=True):
    """What nodes made of a run: each as of `revision`, some perhaps as of later."""

    by_node: dict[Path, NodeTask]
    revision: int


def read_tasks(call: Call, run: str, consistency: Consistency = Consistency.LINEARIZABLE) -> Tasks:
    pages = list(_pages(call, records.nodes_prefix(run), consistency))
    tasks = [records.decode(each.value, NodeTask) for page in pages for each in page.keys]
    return Tasks({task.node: task for task in tasks}, pages[0].revision)


def read_all(
    call: Call, prefix: str, consistency: Consistency = Consistency.LINEARIZABLE, after: str = ""
) -> Iterator[KeyValue]:
    """All keys below `prefix`, page by page."""
    for page in _pages(call, prefix, consistency, after):
        yield from page.keys


def _pages(call: Call, prefix: str, consistency: Consistency, after: str = "") -> Iterator[KeysRead]:
    while True:
        page: KeysRead = call.ask_store(ReadKeys(prefix, True, consistency, limit=READ_LIMIT, after=after))
        yield page
        if not page.more or not page.keys:
            return
        after = page.keys[-1].key


def _read_one(call: Call, key: str, type_: type[T], consistency: Consistency) -> T | None:
    found: Any = call.ask_store(ReadKeys(key, consistency=consistency)).keys
    return records.decode(found[0].value, type_) if found else None


def stale(detail: str) -> Rejected:
    """The plan does not hold any more.  Nothing was changed."""
    hint = "Plan again: dislocate run plan FILE --out plan.json"
    return Rejected(problem(HTTPStatus.CONFLICT, f"The plan is stale: {detail}", field="plan", hint=hint))
