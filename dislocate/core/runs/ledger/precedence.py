"""Precedence: what is a later run's, so that nothing which it did is taken for what an earlier one did.

Invariant: a thing on a node (a file's path, a package, a key: `resources.about`) is the latest run's that began there, is
about it and was not taken back, as it is for drift; what only follows others, such as a reload, is nobody's.
"""

from collections.abc import Iterable

from dislocate.core.boundary.runs import Frozen, NodeState, NodeTask, RunRecord
from dislocate.core.runs import records
from dislocate.core.runs.ledger.draft import Draft
from dislocate.core.runs.resources import about, is_act


def in_the_way(draft: Draft, record: RunRecord, touched: Iterable[NodeTask]) -> str:
    """'run 9 changed file /etc/motd of fra/a1 after run 7', of the nodes that `record` began at; empty: nothing is."""
    begun = {task.node: None for task in touched}
    own = _things(draft, record.id)
    for number in range(int(record.id) + 1, draft.last().run + 1):
        theirs: list[str] | None = None
        prefix = records.nodes_prefix(str(number))
        for name in draft.names_below(prefix):
            node = name[len(prefix) :]
            later = draft.read(name, NodeTask) if node in begun else None
            if later is None or not later.touched or later.state is NodeState.REVERTED:
                continue
            if theirs is None:
                theirs = [one for one in _things(draft, str(number)) if one in own]
            if theirs:
                return f"run {number} changed {theirs[0]} of {node} after run {record.id}"
    return ""


def _things(draft: Draft, run: str) -> list[str]:
    frozen = draft.read(records.spec_key(run), Frozen)
    return [] if frozen is None else [about(one) for one in frozen.spec.resources if not is_act(one)]
