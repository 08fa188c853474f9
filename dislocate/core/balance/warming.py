"""Warming: since when each fresh instance is up, as this node saw it.

Invariant: only what was seen to become up is fresh; what was up when it was first seen is so only after this node has had
time to hear of everybody.  Remembered for as long as a slow start may last, no longer.
"""

from collections.abc import Sequence

from dislocate.core.balance.endpoints import UP, up_weight
from dislocate.core.boundary.balance import Policy
from dislocate.core.boundary.events import InstanceChanged
from dislocate.core.boundary.views import InstanceView
from dislocate.core.identity import Path
from dislocate.core.tunables import SLOW_START_LONGEST, SLOW_START_SETTLED

SWEEP_AT = 256  # remembered instances: then those are looked for that are warm


class Warming:
    """What became up of late."""

    def __init__(self) -> None:
        self._up_at: dict[tuple[Path, str], int] = {}
        self._started: int | None = None
        self._sweep_at = SWEEP_AT

    def start(self, now: int) -> None:
        self._started = now

    def changed(self, event: InstanceChanged, now: int) -> None:
        """An instance changed its status, appeared or went away."""
        key = (event.owner, event.instance_id)
        if event.status not in UP:
            self._up_at.pop(key, None)
        elif event.before not in UP and (event.before is not None or self._is_settled(now)):
            self._up_at[key] = now
            if len(self._up_at) >= self._sweep_at:
                self._sweep(now)

    def weight(self, instances: Sequence[InstanceView], now: int, policy: Policy) -> float:
        """Of all of them together, in slow start."""
        if not self._up_at:
            return float(sum(instance.weight for instance in instances))
        return sum(self._weight(instance, now, policy) for instance in instances)

    def _weight(self, instance: InstanceView, now: int, policy: Policy) -> float:
        up_at = self._up_at.get((instance.node, instance.id))
        return float(instance.weight) if up_at is None else up_weight(instance, up_at, now, policy)

    def _is_settled(self, now: int) -> bool:
        return self._started is not None and now - self._started >= SLOW_START_SETTLED

    def _sweep(self, now: int) -> None:
        self._up_at = {key: at for key, at in self._up_at.items() if now - at < SLOW_START_LONGEST}
        self._sweep_at = max(SWEEP_AT, 2 * len(self._up_at))
