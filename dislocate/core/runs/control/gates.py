"""Gates: whether what was changed works, read from the live fleet.

Invariant: a reading is HOLDS, FAILS or NO_DATA, and what nobody knows is never HOLDS.  Instances whose agent is out of reach,
suspected or gone tell nothing: a gate holds without them, fails without them, or has no data.  Source: the three-valued
results of Argo's analyses.  How long a reading must last is judged by `clocks` and `rollout`; another source of data is
another `Gauge`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from enum import Enum
from typing import Protocol

from msgspec import Struct

from dislocate.core.boundary.spec import Gate
from dislocate.core.boundary.values import Load, Status
from dislocate.core.boundary.views import InstanceView
from dislocate.core.identity import Path
from dislocate.core.runs.control.floor import least
from dislocate.core.runs.control.picture import Seen
from dislocate.core.units import SECOND
from dislocate.core.words import NAMED, names


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


class Called(ABC):
    """What callers say of the instances.  One that nobody calls has no data: an idle canary proves nothing.

    With `control`, too much is no failure while the unchanged ones of the same data center are nearly as bad: what ails both
    was not the change.  Where there are none, or nobody calls them, the bound counts alone."""

    def judge(self, gate: Gate, nodes: Sequence[Path], seen: Seen, since: int) -> Reading | None:
        bound = self.bound(gate)
        if bound <= 0:
            return None
        found = _instances(gate, nodes, seen)
        if not found:
            return _nothing(gate, nodes)
        told = [
            (one, self.of(one.load)) for one in found if _is_told(one) and one.load is not None and _called(one.load)
        ]
        worse = [self._worse(gate, one, value, bound, seen) for one, value in told if value > bound]
        if above := [words for words in worse if words]:
            return Reading(Verdict.FAILS, f"{self.words(gate, bound)} is exceeded: {'; '.join(above[:NAMED])}")
        silent = names([one.node for one in found if not any(one is other for other, _ in told)])
        if silent:
            return Reading(Verdict.NO_DATA, f"nobody says how calls to {gate.service} on {silent} go")
        return Reading(Verdict.HOLDS, f"{self.words(gate, bound)} is kept")

    def _worse(self, gate: Gate, one: InstanceView, value: float, bound: float, seen: Seen) -> str:
        """How bad it is; empty: no worse than its neighbours."""
        said = f"{one.node} {self.said(value)}"
        beside = self._beside(gate, one, seen) if gate.control else []
        if not beside:
            return f"{said}, and nothing unchanged is called beside it" if gate.control else said
        control = sum(beside) / len(beside)
        if value <= gate.control * control:
            return ""
        return f"{said}, {self.said(control)} without the change"

    def _beside(self, gate: Gate, one: InstanceView, seen: Seen) -> list[float]:
        return [
            self.of(other.load)
            for other in seen.instances.get(gate.service, ())
            if other.datacenter == one.datacenter
            and other.node not in seen.changed
            and other.node != one.node
            and _is_told(other)
            and other.load is not None
            and _called(other.load)
        ]

    @abstractmethod
    def bound(self, gate: Gate) -> float: ...

    @abstractmethod
    def of(self, load: Load) -> float: ...

    @abstractmethod
    def said(self, value: float) -> str: ...

    @abstractmethod
    def words(self, gate: Gate, bound: float) -> str: ...


class Errors(Called):
    """The part of the calls that fail."""

    def bound(self, gate: Gate) -> float:
        return gate.errors

    def of(self, load: Load) -> float:
        return load.errors

    def said(self, value: float) -> str:
        return f"{value:.2%}"

    def words(self, gate: Gate, bound: float) -> str:
        return f"{gate.service} failing at most {bound:.2%} of calls"


class Latency(Called):
    """How long all but one of a hundred calls take, of those that do not fail."""

    def bound(self, gate: Gate) -> float:
        return gate.p99 / SECOND

    def of(self, load: Load) -> float:
        return load.p99

    def said(self, value: float) -> str:
        return f"{value * 1000:.0f} ms"

    def words(self, gate: Gate, bound: float) -> str:
        return f"{gate.service} answering within {bound * 1000:.0f} ms (p99)"


GAUGES: tuple[Gauge, ...] = (Health(), Utilization(), Errors(), Latency())


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


def _called(load: Load) -> bool:
    """Whether callers said anything of late: where all calls fail there is no latency, where none do there are no errors."""
    return load.errors > 0 or load.p99 > 0


def _is_told(one: InstanceView) -> bool:
    """Whether its agent vouches for what is known of it."""
    return one.reachable and not one.suspected and one.status is not Status.UNATTENDED
