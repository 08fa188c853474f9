"""Virtual time: one heap of what happens next.

An entry is (nanoseconds, number, action, target, payload, extra).  Numbers are unique, so nothing behind them is ever
compared; timers take numbers from a range of their own, above all others, so that of things due at one instant the
inputs come first, as a production driver drains what waits before it tells the time.
"""

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any, TypeAlias

from dislocate.core.errors import Bug

Action: TypeAlias = Callable[[Any, Any, Any], None]
Entry: TypeAlias = tuple[int, int, Action, Any, Any, Any]

LAST = 1 << 62
STANDSTILL = 200_000  # things at one instant: a fleet of thousands starts with fewer, somebody answers himself for ever


class Schedule:
    """The heap and the clock."""

    __slots__ = ("heap", "now", "number")

    def __init__(self) -> None:
        self.now = 0
        self.number = 0
        self.heap: list[Entry] = []

    def call(self, at: int, action: Action, target: Any, payload: Any = None, extra: Any = None) -> None:
        """Call `action(target, payload, extra)` at `at`, not before what is already due then."""
        self.number = number = self.number + 1
        heappush(self.heap, (at, number, action, target, payload, extra))

    def call_last(self, at: int, action: Action, target: Any, payload: Any = None) -> None:
        """The same, after everything else that is due at `at`."""
        self.number = number = self.number + 1
        heappush(self.heap, (at, LAST + number, action, target, payload, None))

    def run(self, until: int) -> None:
        """Let everything happen that is due up to and including `until`."""
        heap = self.heap
        still = 0
        while heap and heap[0][0] <= until:
            at, _, action, target, payload, extra = heappop(heap)
            still = still + 1 if at == self.now else 0
            if still > STANDSTILL:
                raise Bug(f"time stands still: {STANDSTILL} things happened at one instant, the last in {action!r}")
            self.now = at
            action(target, payload, extra)
        self.now = max(self.now, until)
