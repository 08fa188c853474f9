"""Whom an operator means: expressions resolved on what this agent knows of the fleet.

Nodes that are dead or out of reach are meant too, so that they are told and never missing; those that left are not.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from dislocate.core.boundary.spec import Process, RunSpec
from dislocate.core.errors import LocalError
from dislocate.core.identity import Path
from dislocate.core.nearest import nearest
from dislocate.core.runs.spec import CONFIRM_ABOVE
from dislocate.core.runs.targeting import Candidate, parse_target


def targets_of(node: Any, text: str, confirm: int, field: str = "targets") -> tuple[Path, ...]:
    """The nodes that `text` means, at least one; `node`: this agent's snapshots.

    Raises `LocalError` for a mistake in it, nodes that nobody knows, none at all, and more than were confirmed."""
    return targets_among(node.candidates, text, confirm, field)


def targets_among(fleet: Sequence[Candidate], text: str, confirm: int, field: str = "targets") -> tuple[Path, ...]:
    """The same of these.  Raises `LocalError` as `targets_of` does."""
    target = parse_target(text, field)
    if unknown := target.unknown_nodes(fleet):
        mend = nearest(unknown[0], [candidate.path for candidate in fleet])
        expected = f"nodes that are known{mend}; `dislocate members` shows all"
        raise LocalError(field, got=", ".join(unknown), expected=expected)
    paths = target.select(fleet)
    if not paths:
        why = "; ".join(target.strangers(fleet)) or "each term fits some node, but none fits all of them"
        raise LocalError(field, got=text, expected=f"an expression that some node fits: {why}")
    limit = confirm or CONFIRM_ABOVE
    if len(paths) > limit:
        expected = f"{len(paths)}: so many nodes are meant, and more than {limit} must be confirmed"
        raise LocalError("confirm", got=confirm, expected=expected)
    return paths


def doubts(fleet: Sequence[Candidate], spec: RunSpec) -> Iterator[str]:
    """In words, each data center and service that `spec` names besides and nobody has, which may be so or be a slip."""
    datacenters = dict.fromkeys(candidate.datacenter for candidate in fleet)
    for at, name in enumerate(spec.strategy.waves):
        if name not in datacenters:
            yield f"strategy.waves[{at}]: no node is in {name!r}{nearest(name, datacenters)}"
    for field, name, mend in unknown_services(fleet, spec):
        leads_to = "a gate without data holds the run" if field.startswith("gates") else "so no floor is kept"
        yield f"{field}: no node has an instance of {name!r}{mend}: {leads_to}; only --unknown-services starts it so"


def check_services(fleet: Sequence[Candidate], spec: RunSpec) -> None:
    """Raises `LocalError` for a floor or a gate on a service that nobody has: what is to keep a run from harm is not there."""
    for field, name, mend in unknown_services(fleet, spec):
        expected = f"a service that some node has an instance of{mend}; `--unknown-services` starts it without"
        raise LocalError(field, got=name, expected=expected)


def unknown_services(fleet: Sequence[Candidate], spec: RunSpec) -> Iterator[tuple[str, str, str]]:
    """(field, service, nearest known one) of each floor and gate on one that nobody has and `spec` does not start itself."""
    own = [each.service for each in spec.resources if isinstance(each, Process)]
    services = dict.fromkeys((*(name for candidate in fleet for name in candidate.services), *own))
    named = [("strategy.floor", name) for name in spec.strategy.floor]
    named += [(f"gates[{at}].service", gate.service) for at, gate in enumerate(spec.gates)]
    for field, name in named:
        if name not in services:
            yield field, name, nearest(name, services)
