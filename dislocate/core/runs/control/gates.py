"""Gates: whether what was changed works, read from the live fleet.

Invariant: a reading is HOLDS, FAILS or NO_DATA, and what nobody knows is never HOLDS.  Instances whose agent is out of reach,
suspected or gone tell nothing: a gate holds without them, fails without them, or has no data.  Source: the three-valued
results of Argo's analyses.  How long a reading must last is judged by `clocks` and `rollout`; another source of data (error
ratio, latency) is another `Gauge`.
"""

from collections.abc import Sequence
from enum import Enum
from typing import Protocol

from msgspec import Struct

from dislocate.core.boundary.spec import Gate
from dislocate.core.boundary.values import Status
from dislocate.core.boundary.views import InstanceView
from dislocate.core.identity import Path
from dislocate.core.runs.control.floor import least
from dislocate.core.runs.control.picture import Seen
from dislocate.core.words import names


class Verdict(Enum):
    """Worst last."""

    HOLDS = "holds"
    NO_DATA = "no data"
    FAILS = "fails"


RANK = {verdict: rank for rank, verdict in enumerate(Verdict)}


class Reading(Struct, frozen=True):
    """What a gauge says at one moment."""

    verdict: Verdict
    words: str
    is_certain: bool = False  # of FAILS: waiting would not change it


class Gauge(Protocol):
    """One source of data."""

    def judge(self, gate: Gate, nodes: Sequence[Path], seen: Seen, since: int) -> Reading | None:
        """What it says of `gate` on `nodes`, which are changed since `since` (the leader's clock); None: it is not asked."""
        ...


class Health:
    """The part of the instances that must be passing.  Critical is certain, since checks damp it; starting may end."""

    def judge(self, gate: Gate, nodes: Sequence[Path], seen: Seen, since: int) -> Reading | None:
        found = _instances(gate, nodes, seen)
        if not found:
            return _nothing(gate, nodes)
        told = [one for one in found if _is_told(one)]
        passing = sum(one.status is Status.PASSING for one in told)
        critical = sum(one.status is Status.CRITICAL for one in told)
        need, untold = least(gate.passing, len(found)), len(found) - len(told)
        words = f"{passing} of {len(found)} {gate.service} passing, {need} wanted"
        if passing >= need:
            return Reading(Verdict.HOLDS, words)
        if passing + untold >= need:
            where = names([one.node for one in found if not _is_told(one)])
            return Reading(Verdict.NO_DATA, f"{words}: nobody knows about those on {where}")
        worst = [f"{one.node} {one.status.value}" for one in told if one.status is not Status.PASSING]
        return Reading(Verdict.FAILS, f"{words}: {names(worst)}", is_certain=len(found) - critical < need)


class Utilization:
    """How busy any of the instances may be."""

    def judge(self, gate: Gate, nodes: Sequence[Path], seen: Seen, since: int) -> Reading | None:
        if gate.utilization <= 0:
            return None
        found = _instances(gate, nodes, seen)
        if not found:
            return _nothing(gate, nodes)
        loads = [(one.node, one.load) for one in found if _is_told(one)]
        above = [f"{node} {load.utilization:g}" for node, load in loads if load and load.utilization > gate.utilization]
        if above:
            return Reading(Verdict.FAILS, f"{gate.service} is busier than {gate.utilization:g}: {names(above)}")
        silent = [one.node for one in found if one.load is None or not _is_told(one)]
        if silent:
            return Reading(Verdict.NO_DATA, f"{gate.service} reports no load on {names(silent)}")
        return Reading(Verdict.HOLDS, f"no {gate.service} is busier than {gate.utilization:g}")


GAUGES: tuple[Gauge, ...] = (Health(), Utilization())


def judge(gate: Gate, nodes: Sequence[Path], seen: Seen, since: int, gauges: Sequence[Gauge] = GAUGES) -> Reading:
    """What the gauges say together: the worst of it, in their words."""
    readings = [one for gauge in gauges if (one := gauge.judge(gate, nodes, seen, since)) is not None]
    if not readings:
        return Reading(Verdict.NO_DATA, f"nothing tells how {gate.service} does")
    verdict = max((one.verdict for one in readings), key=RANK.__getitem__)
    worst = [one for one in readings if one.verdict is verdict]
    return Reading(verdict, "; ".join(one.words for one in worst), any(one.is_certain for one in worst))


def _instances(gate: Gate, nodes: Sequence[Path], seen: Seen) -> list[InstanceView]:
    there = dict.fromkeys(nodes)
    return [one for one in seen.instances.get(gate.service, ()) if one.node in there]


def _nothing(gate: Gate, nodes: Sequence[Path]) -> Reading:
    return Reading(Verdict.NO_DATA, f"there is no {gate.service} on {names(nodes)}")


def _is_told(one: InstanceView) -> bool:
    """Whether its agent vouches for what is known of it."""
    return one.reachable and not one.suspected and one.status is not Status.UNATTENDED
