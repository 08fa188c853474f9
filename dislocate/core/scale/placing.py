"""Placing: which node has how many of the instances that agents run themselves.

Invariants: the same arguments give the same counts everywhere; what is there stays while it may, so that a decision moves as
few instances as it can; nobody has more than `per_node`; nodes that had some and are to have none stay in the answer with 0,
so that they hear of it.
"""

from collections.abc import Iterable, Mapping, Sequence

from dislocate.core.identity import Path


def placed(
    count: int, nodes: Sequence[Path], before: Mapping[Path, int], per_node: int, gone: Iterable[Path] = ()
) -> dict[Path, int]:
    """`count` instances over `nodes` (fewer, where they have no room), given what each had `before`; by path.

    Those that are `gone`, or no longer meant, have none."""
    away = dict.fromkeys(gone)
    able = [node for node in sorted(nodes) if node not in away]
    most = per_node or count
    found = {node: min(before.get(node, 0), most) for node in able}
    while sum(found.values()) > count:
        found[max(able, key=lambda node: (found[node], node))] -= 1
    lacking = count - sum(found.values())
    while lacking and (open_ := [node for node in able if found[node] < most]):
        found[min(open_, key=lambda node: (found[node], node))] += 1
        lacking -= 1
    return {node: found.get(node, 0) for node in sorted({*found, *before})}
