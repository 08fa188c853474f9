"""The plan: who goes in which order, frozen at the start of a run.

First the canaries, of the first data center; then data center after data center (`parallel` of them side by side), each in
batches.  Invariant: each target is in exactly one batch; no batch has more nodes of a data center than the strategy says.
Does not know who is reachable: what becomes of a batch is the controller's affair.
"""

from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b

import msgspec

from dislocate.core.boundary.runs import Batch, RunPlan
from dislocate.core.boundary.spec import RunSpec
from dislocate.core.errors import LocalError
from dislocate.core.identity import Path
from dislocate.core.runs.amounts import amount
from dislocate.core.tunables import RUN_NODES

CANARY = "canary"  # the wave of the first batch
BESIDE = "+"  # between data centers that go side by side


def make_plan(
    spec: RunSpec, targets: Sequence[Path], *, revision: int = 0, expected: dict[Path, str] | None = None
) -> RunPlan:
    """The plan of `spec` for these nodes.  Raises `LocalError` when there are none, or too many."""
    paths = tuple(sorted(dict.fromkeys(targets)))
    if not paths:
        raise LocalError("targets", got=spec.targets, expected="an expression that some node fits")
    if len(paths) > RUN_NODES:
        raise LocalError("targets", got=len(paths), expected=f"at most {RUN_NODES} nodes: split the run by data center")
    batches = tuple(_batches(spec, _by_datacenter(spec, paths)))
    return RunPlan(targets=paths, batches=batches, revision=revision, expected=expected or {})


def plan_digest(looks: Iterable[tuple[str, str]]) -> str:
    """Hex, over (id, digest of how it is) of the resources of one node in their order, without those that `is_shared`: what a
    plan is bound to there."""
    return blake2b(msgspec.json.encode(list(looks)), digest_size=16).hexdigest()


def _by_datacenter(spec: RunSpec, paths: Sequence[Path]) -> dict[str, tuple[Path, ...]]:
    """In the order of the waves; what is not named there follows by name."""
    found: dict[str, list[Path]] = {}
    for path in paths:
        found.setdefault(path.partition("/")[0], []).append(path)
    order = [*spec.strategy.waves, *sorted(found)]
    return {name: tuple(found[name]) for name in dict.fromkeys(order) if name in found}


def _batches(spec: RunSpec, datacenters: dict[str, tuple[Path, ...]]) -> Iterator[Batch]:
    strategy = spec.strategy
    first = next(iter(datacenters))
    canaries = datacenters[first][: amount(strategy.canary, len(datacenters[first]))]
    if canaries:
        yield Batch(CANARY, canaries)
    names = list(datacenters)
    for at in range(0, len(names), strategy.parallel):
        beside = names[at : at + strategy.parallel]
        cuts = [_cut(spec, datacenters[name], canaries if name == first else ()) for name in beside]
        wave = BESIDE.join(name for name, cut in zip(beside, cuts, strict=True) if cut)
        for turn in range(max(map(len, cuts))):
            yield Batch(wave, tuple(path for cut in cuts if turn < len(cut) for path in cut[turn]))


def _cut(spec: RunSpec, paths: tuple[Path, ...], canaries: tuple[Path, ...]) -> list[tuple[Path, ...]]:
    """The batches of one data center: parts of all its nodes, of which the canaries are done."""
    size = amount(spec.strategy.batch, len(paths))
    rest = paths[len(canaries) :]
    return [rest[at : at + size] for at in range(0, len(rest), size)]
