"""Smoothing: how shares follow their target.  Pure, one second at a time.

Invariants: shares add up to 1; what went away is left at once (`at_once`: a death, a drain, reachability, a policy), a
demand that moves is followed by half a second's difference each second; a change below SHARE_STEP is none.  A foreign flow
that exists stays at FLOW_LEAST until its target has been below that for FLOW_KEPT, so that it does not flap.
"""

from collections.abc import Iterable

from dislocate.core.boundary.balance import Share
from dislocate.core.tunables import FLOW_KEPT, FLOW_LEAST, SHARE_GAIN, SHARE_STEP


class Smoothing:
    """One row."""

    def __init__(self, home: str) -> None:
        self._home = home
        self._small_since: dict[str, int] = {}
        self.shares: tuple[Share, ...] = ()

    def follow(self, shares: tuple[Share, ...]) -> None:
        """Another relay's word counts: go on from there."""
        self.shares = shares

    def step(self, target: tuple[Share, ...], now: int, at_once: bool) -> None:
        """A second went by, or (`at_once`) something happened that leaves nothing to smooth."""
        if at_once or not self.shares or not target:
            self.shares = target
            self._small_since.clear()
            return
        before = {share.datacenter: share.share for share in self.shares}
        wanted = {share.datacenter: share.share for share in target}
        order = [*wanted, *(name for name in before if name not in wanted)]
        held = {name: self._held(name, before.get(name, 0.0), wanted.get(name, 0.0), now) for name in order}
        ending = any(before.get(name, 0.0) > 0.0 and held[name] <= 0.0 for name in order)
        if not ending and all(abs(held[name] - before.get(name, 0.0)) < SHARE_STEP for name in order):
            return
        moved = {name: _moved(before.get(name, 0.0), held[name]) for name in order}
        self.shares = normal((name, part) for name, part in moved.items())

    def _held(self, name: str, before: float, wanted: float, now: int) -> float:
        """What a flow moves to: a foreign one is not let go for a moment's sake."""
        if name == self._home or before <= 0.0 or wanted >= FLOW_LEAST:
            self._small_since.pop(name, None)
            return wanted
        since = self._small_since.setdefault(name, now)
        if now - since < FLOW_KEPT:
            return max(wanted, min(before, FLOW_LEAST))
        return wanted


def _moved(before: float, wanted: float) -> float:
    part = before + SHARE_GAIN * (wanted - before)
    return 0.0 if wanted <= 0.0 and part < FLOW_LEAST else part


def normal(parts: Iterable[tuple[str, float]]) -> tuple[Share, ...]:
    """Shares of those above 0 that add up to 1, in their order."""
    kept = [(name, part) for name, part in parts if part > 0.0]
    whole = sum(part for _, part in kept)
    return tuple(Share(name, part / whole) for name, part in kept)


def with_probe(shares: tuple[Share, ...], probe: float, order: Iterable[str]) -> tuple[Share, ...]:
    """`shares` with the part `probe` of the traffic to the first of `order` that has none."""
    known = {share.datacenter for share in shares}
    unknown = next((name for name in order if name not in known), None)
    if probe <= 0.0 or unknown is None or not shares:
        return shares
    return (*(Share(one.datacenter, one.share * (1.0 - probe)) for one in shares), Share(unknown, probe))
