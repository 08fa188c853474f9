"""Floor: which nodes may be granted now so that each service keeps its part of passing instances in each data center.

Invariant: after a grant, the passing instances on nodes that nobody works on are at least `part` of all instances of that
service there, or the grant took none away.  A node that is in flight, or reported so lately that its health does not count
yet, counts as none; so does an instance whose agent is suspected or out of reach.  What is deregistered is not missed.
"""

from collections.abc import Collection, Mapping, Sequence

from msgspec import Struct

from dislocate.core.boundary.values import Status
from dislocate.core.boundary.views import InstanceView
from dislocate.core.identity import Path

PPM = 1_000_000  # parts are compared as whole millionths


class Opening(Struct, frozen=True):
    """Who may be granted, and why the first of the others may not."""

    nodes: tuple[Path, ...]
    words: str = ""


class _Service:
    """One service in one data center."""

    def __init__(self, part: float) -> None:
        self.part = part
        self.all = 0
        self.passing: dict[Path, int] = {}  # by node, of those that nobody works on
        self.left = 0

    def add(self, one: InstanceView, is_busy: bool) -> None:
        self.all += 1
        if is_busy or one.status is not Status.PASSING or one.suspected or not one.reachable:
            return
        self.passing[one.node] = self.passing.get(one.node, 0) + 1
        self.left += 1

    @property
    def need(self) -> int:
        return least(self.part, self.all)

    def spares(self, node: Path) -> bool:
        taken = self.passing.get(node, 0)
        return not taken or self.left - taken >= self.need


def least(part: float, of: int) -> int:
    """The fewest of `of` that are `part` of them: 0.5 of 3 is 2."""
    return -(-round(part * PPM) * of // PPM)


def openable(
    wanted: Sequence[Path],
    floor: Mapping[str, float],
    instances: Mapping[str, Sequence[InstanceView]],
    busy: Collection[Path],
) -> Opening:
    """Those of `wanted`, in order, whose instances can be spared, one after the other."""
    services = _services(floor, instances, busy)
    nodes, words = [], ""
    for node in wanted:
        datacenter = node.partition("/")[0]
        mine = [(name, services[name, datacenter]) for name in floor if (name, datacenter) in services]
        short = next(((name, one) for name, one in mine if not one.spares(node)), None)
        if short is None:
            nodes.append(node)
            for _, one in mine:
                one.left -= one.passing.pop(node, 0)
        elif not words:
            name, one = short
            words = f"{one.left} of {one.all} {name} in {datacenter} can be used, and {one.need} must be: {node} waits"
    return Opening(tuple(nodes), words)


def _services(
    floor: Mapping[str, float], instances: Mapping[str, Sequence[InstanceView]], busy: Collection[Path]
) -> dict[tuple[str, str], _Service]:
    services: dict[tuple[str, str], _Service] = {}
    for name, part in floor.items():
        for one in instances.get(name, ()):
            services.setdefault((name, one.datacenter), _Service(part)).add(one, one.node in busy)
    return services
