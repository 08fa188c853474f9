"""The real clocks.  Everything that decides takes `now` from one of these, so that a test may bring its own."""

import time
from collections.abc import Callable
from typing import TypeAlias

# Nanoseconds; never decreasing for a monotonic one.
Now: TypeAlias = Callable[[], int]

monotonic: Now = time.monotonic_ns
"""What nodes are driven with.  Stands still while a host sleeps, starts anywhere, and is nobody else's business."""

wall: Now = time.time_ns
"""Unix time, for people and for boots: it may jump either way."""
