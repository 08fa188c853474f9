"""Called: one service that somebody calls somewhere, as one node keeps it."""

from collections.abc import Iterable, Mapping

from dislocate.core.balance.endpoints import ANSWERED, by_datacenter, grade, lives
from dislocate.core.balance.gathering import Gathering
from dislocate.core.balance.messages import FlowReport
from dislocate.core.balance.picture import Picture
from dislocate.core.balance.smoothing import Smoothing, normal
from dislocate.core.boundary.balance import Policy, Share
from dislocate.core.boundary.views import InstanceView
from dislocate.core.tunables import SHARE_STEP


class Called:
    """What is known of it, and what was said about it."""

    __slots__ = (
        "epoch",
        "gathering",
        "membership",
        "picture",
        "policy",
        "report",
        "shares",
        "smoothing",
        "told_at",
    )

    def __init__(self, home: str, epoch: int, policy: Policy, shares: tuple[Share, ...]) -> None:
        self.epoch = epoch  # of the route
        self.policy = policy  # of the route
        self.shares = shares  # of the route
        self.membership: Mapping[str, int] = {}  # who lived where when shares were last computed
        self.gathering = Gathering()
        self.smoothing = Smoothing(home)
        self.picture: Picture | None = None  # what a relay's row was last computed from
        self.report: FlowReport | None = None  # the last that was told here
        self.told_at = 0


def membership(instances: Iterable[InstanceView]) -> dict[str, int]:
    """The weight that lives in each data center within reach: shares are smoothed only while this stays."""
    found: dict[str, int] = {}
    for instance in instances:
        if lives(instance) and instance.reachable:
            found[instance.datacenter] = found.get(instance.datacenter, 0) + instance.weight
    return found


def answering(shares: tuple[Share, ...], instances: Iterable[InstanceView]) -> tuple[Share, ...]:
    """`shares` without those of data centers where nobody lives, or nobody would answer, or that cannot be reached, as
    far as others remain; empty where none does."""
    best = {name: grade(of_one) for name, of_one in by_datacenter(instances).items()}
    if all(best.get(share.datacenter) == 0 for share in shares):
        return shares
    kept = [share for share in shares if best.get(share.datacenter) == 0]
    if not kept:
        kept = [share for share in shares if best.get(share.datacenter, ANSWERED) < ANSWERED]
    return normal((share.datacenter, share.share) for share in kept)


def differ(before: tuple[Share, ...], now: tuple[Share, ...]) -> bool:
    """Whether the change is worth a word."""
    if [share.datacenter for share in before] != [share.datacenter for share in now]:
        return True
    return any(abs(one.share - other.share) >= SHARE_STEP for one, other in zip(before, now, strict=True))
