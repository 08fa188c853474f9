"""Fetching: what a granted run consists of, read from the store once and kept on this disk.

The specification is immutable, so whichever server is near may say it; what does not have the digest that the run's record
names is not used.  Secrets come sealed to this node and stay so: who carries a task out opens them.
"""

import re
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

from dislocate.core.boundary.runs import Frozen, NodeTask, RunRecord
from dislocate.core.boundary.spec import RunSpec
from dislocate.core.boundary.store import Consistency, KeysRead, ReadKeys
from dislocate.core.identity import Path
from dislocate.core.runs.agent.journal import Kept
from dislocate.core.runs.door import StoreDoor
from dislocate.core.runs.records import SECRETS, decode, encode, node_key, spec_digest, spec_key

_NAMED = re.compile(r"""\bsecret\(\s*\\?["']([A-Za-z0-9._/-]+)\\?["']""")


class Sealed(Struct, frozen=True):
    """What a node needs of `records/secrets/NAME`: other fields of a secret are for others."""

    sealed: dict[Path, bytes] = {}


def named_secrets(spec: RunSpec) -> tuple[str, ...]:
    """Names of the secrets that templates of `spec` ask for, each once."""
    return tuple(dict.fromkeys(_NAMED.findall(encode(spec.resources).decode())))


def fetch(store: StoreDoor, node: Path, record: RunRecord, then: Callable[[Kept | None], None]) -> None:
    """Read what `record` is about; `then` gets None when that cannot be had now."""

    def got_spec(result: Any) -> None:
        frozen = _frozen(result, record)
        if frozen is None:
            then(None)
        else:
            _fetch_secrets(store, node, frozen, list(named_secrets(frozen.spec)), {}, then)

    store.ask(ReadKeys(spec_key(record.id), consistency=Consistency.LOCAL), got_spec)


def fetch_task(
    store: StoreDoor, node: Path, run: str, then: Callable[[NodeTask | None], None], failed: Callable[[], None]
) -> None:
    """Read what the store has of this node's part, None when that is nothing; `failed` is called when nobody can tell now."""

    def got(result: Any) -> None:
        if isinstance(result, KeysRead):
            then(decode(result.keys[0].value, NodeTask) if result.keys else None)
        else:
            failed()

    store.ask(ReadKeys(node_key(run, node)), got)


def _frozen(result: Any, record: RunRecord) -> Frozen | None:
    if not isinstance(result, KeysRead) or not result.keys:
        return None
    try:
        frozen = decode(result.keys[0].value, Frozen)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return frozen if spec_digest(frozen.spec) == record.spec_digest else None


def _fetch_secrets(
    store: StoreDoor,
    node: Path,
    frozen: Frozen,
    names: list[str],
    found: dict[str, bytes],
    then: Callable[[Kept | None], None],
) -> None:
    """One after the other; one that is not there, or not for this node, is left out: the template that names it fails."""
    if not names:
        then(Kept(frozen, found))
        return
    name = names.pop(0)

    def got(result: Any) -> None:
        if not isinstance(result, KeysRead):
            then(None)
            return
        try:
            sealed = decode(result.keys[0].value, Sealed).sealed if result.keys else {}
        except (msgspec.MsgspecError, UnicodeDecodeError):
            sealed = {}
        if node in sealed:
            found[name] = sealed[node]
        _fetch_secrets(store, node, frozen, names, found, then)

    store.ask(ReadKeys(f"{SECRETS}{name}", consistency=Consistency.LOCAL), got)
