"""What the edge answers about sizes: built from the store's records here, and only here."""

from collections.abc import Iterable, Sequence
from typing import Any

from dislocate.core.boundary.scaling import Carried, ScaleDecision, ScalePolicy
from dislocate.core.boundary.values import Status
from dislocate.core.boundary.views import InstanceView
from dislocate.core.identity import Path
from dislocate.core.scale.facts import GOING
from dislocate.core.units import seconds
from dislocate.edge.answers import Answer
from dislocate.strict import in_words


class CarriedAnswer(Answer, frozen=True):
    """What came of a decision on one node."""

    node: Path
    epoch: int
    state: str  # 'begun', 'done' or 'failed'
    tries: int
    code: int | None  # exit code of the command, status of the HTTP answer
    words: str
    at: float  # unix seconds, by the node's clock


class SizeAnswer(Answer, frozen=True):
    """How many instances one data center is to have, and has."""

    datacenter: str
    desired: int
    before: int
    epoch: int
    reason: str
    by: Path
    at: float  # unix seconds, by the leader's clock
    running: int  # instances there that are not going
    passing: int
    nodes: dict[Path, int]  # of driver `process`
    carried: tuple[CarriedAnswer, ...]
    now: str = ""  # why it is as it is, where the agent that is asked leads the store; else empty


class ScaleAnswer(Answer, frozen=True):
    """A service's policy, its durations in words, and its sizes."""

    service: str
    policy: dict[str, Any] | None  # None: there is none, or it cannot be read
    problem: str  # why the policy cannot be read; then the one before it stays in force
    revision: int
    datacenters: tuple[SizeAnswer, ...]


class ScaleSummary(Answer, frozen=True):
    """One line of the list of what is scaled."""

    service: str
    driver: str  # 'command', 'webhook', 'process'; empty: none
    desired: int  # in all data centers
    datacenters: int
    paused: bool


class ScalesAnswer(Answer, frozen=True):
    services: tuple[ScaleSummary, ...]


class PastAnswer(Answer, frozen=True):
    """A decision of the past."""

    datacenter: str
    epoch: int
    before: int
    desired: int
    reason: str
    by: Path
    at: float


class ScaleHistoryAnswer(Answer, frozen=True):
    """Oldest first; of each data center the last fifty."""

    service: str
    decisions: tuple[PastAnswer, ...]


def size_answer(
    decision: ScaleDecision, carried: Iterable[Carried], instances: Sequence[InstanceView], now: str
) -> SizeAnswer:
    there = [one for one in instances if one.datacenter == decision.datacenter]
    return SizeAnswer(
        datacenter=decision.datacenter,
        desired=decision.desired,
        before=decision.before,
        epoch=decision.epoch,
        reason=decision.reason,
        by=decision.by,
        at=seconds(decision.at),
        running=sum(one.status not in GOING for one in there),
        passing=sum(one.status is Status.PASSING for one in there),
        nodes=decision.nodes,
        carried=tuple(_carried(one) for one in carried),
        now=now,
    )


def _carried(one: Carried) -> CarriedAnswer:
    return CarriedAnswer(one.node, one.epoch, one.state.value, one.tries, one.code, one.words, seconds(one.at))


def scale_summary(service: str, policy: ScalePolicy | None, decisions: Sequence[ScaleDecision]) -> ScaleSummary:
    driver = policy.driver if policy is not None else None
    return ScaleSummary(
        service,
        str(driver.__struct_config__.tag) if driver is not None else "",
        sum(one.desired for one in decisions),
        len(decisions),
        policy is not None and policy.paused,
    )


def past_answer(one: ScaleDecision) -> PastAnswer:
    return PastAnswer(one.datacenter, one.epoch, one.before, one.desired, one.reason, one.by, seconds(one.at))


def policy_answer(policy: ScalePolicy | None) -> dict[str, Any] | None:
    """As in a file."""
    words: dict[str, Any] | None = None if policy is None else in_words(policy)
    return words
