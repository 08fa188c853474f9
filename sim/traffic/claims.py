"""Claims about calls that callers make: budgets, judged at the end, in virtual time or with real processes.

Whoever keeps count of calls can have them judged: `sim.traffic.book` does for simulated callers.
"""

from collections.abc import Callable
from typing import Protocol


class SeenRequests(Protocol):
    """What callers saw in some time."""

    @property
    def ended(self) -> int: ...  # calls
    @property
    def failed(self) -> int: ...  # of them
    @property
    def p99(self) -> float: ...  # seconds, of those that did not fail
    @property
    def astray(self) -> float: ...  # the most that a part of a source's calls differs from the published flows, 0..1
    @property
    def where(self) -> str: ...  # of that difference, in words
    @property
    def crossing(self) -> float: ...  # part of the calls that was first sent to another data center, 0..1


def requests_ok(seen: SeenRequests, at_most: float) -> tuple[bool, str]:
    """At most `at_most` calls failed, with all their attempts; and there were calls."""
    return bool(seen.ended) and seen.failed <= at_most, f"{seen.failed} of {seen.ended} calls failed"


def shares_follow_flows(seen: SeenRequests, at_most: float) -> tuple[bool, str]:
    """No data center's part of a source's calls differs by more from what the callers' agents published."""
    return bool(seen.ended) and seen.astray <= at_most, seen.where or f"{seen.ended} calls, none astray"


def request_p99(seen: SeenRequests, at_most: float) -> tuple[bool, str]:
    """The 99th percentile of calls that did not fail, in seconds."""
    return bool(seen.ended) and seen.p99 <= at_most, f"{seen.p99:.3f} s, of {seen.ended} calls"


def requests_cross(seen: SeenRequests, at_most: float) -> tuple[bool, str]:
    """No greater part of the calls is first sent to another data center than the caller's."""
    return bool(seen.ended) and seen.crossing <= at_most, f"{seen.crossing:.1%} of {seen.ended} calls crossed"


# Budgets of calls that callers make; `of`: services, `by`: the callers' agents.
REQUEST_CLAIMS: dict[str, Callable[[SeenRequests, float], tuple[bool, str]]] = {
    "requests_ok": requests_ok,
    "shares_follow_flows": shares_follow_flows,
    "request_p99": request_p99,
    "requests_cross": requests_cross,
}
