"""Records: how runs lie in the store, as JSON values that people can read with `dislocate kv get`.

    system/runs/ID                   RunRecord while the run is under way: every agent follows it, so it changes seldom
    records/runs/ID/run              the same once it is over
    records/runs/ID/spec             Frozen: immutable
    records/runs/ID/plan             RunPlan; grows only by `JoinNodes`
    records/runs/ID/counts           number of nodes in each state
    records/runs/ID/nodes/DC/NAME    NodeTask; only who asks reads it
    records/runs/last                the highest ID given out
    records/audit/NUMBER             AuditEntry, 16 digits
    records/secrets/NAME             Secret: sealed to each node

Nobody writes below `system/runs/` and `records/` but commands of runs, and `secret` for its own: see `store.validation`.
"""

from hashlib import blake2b
from typing import TypeVar

import msgspec

from dislocate.core.boundary.spec import RunSpec
from dislocate.core.identity import Path

ACTIVE = "system/runs/"
RECORDS = "records/"
RUNS = "records/runs/"
LAST = "records/runs/last"
AUDIT = "records/audit/"
SECRETS = "records/secrets/"

T = TypeVar("T")


def active_key(run: str) -> str:
    return f"{ACTIVE}{run}"


def over_key(run: str) -> str:
    return f"{RUNS}{run}/run"


def spec_key(run: str) -> str:
    return f"{RUNS}{run}/spec"


def plan_key(run: str) -> str:
    return f"{RUNS}{run}/plan"


def counts_key(run: str) -> str:
    return f"{RUNS}{run}/counts"


def node_key(run: str, node: Path) -> str:
    return f"{RUNS}{run}/nodes/{node}"


def nodes_prefix(run: str) -> str:
    return f"{RUNS}{run}/nodes/"


def audit_key(number: int) -> str:
    return f"{AUDIT}{number:016d}"


def secret_key(name: str) -> str:
    return f"{SECRETS}{name}"


def encode(record: object) -> bytes:
    """JSON, the same bytes for equal records."""
    return msgspec.json.encode(record)


def decode(value: bytes, type_: type[T]) -> T:
    """Raises `msgspec.ValidationError`: nobody but commands of runs writes these keys, so that is a bug."""
    return msgspec.json.decode(value, type=type_)


def spec_digest(spec: RunSpec) -> str:
    """Hex, over all of it."""
    return blake2b(encode(spec), digest_size=16).hexdigest()
