"""Scaling: how many instances of a service each of its data centers is to have.

    want  = offered load / (what one instance carries x target load), or more, to carry all if another data center is lost
    up    at once when more than 10 % is lacking, by the mean of `up_window`; at most doubled, or 4 more, within it; a tenth
          ahead of a climb that lasts
    down  to the most that was wanted within the `down_window`, a fifth at a time, a `pause` apart

Driven by what callers offer, first attempts only: utilization saturates just when it matters, and retries are a symptom.
What is counted is what was decided, so instances that still boot are not asked for twice.

Invariants: between `min` and `max`; more is never asked for while what is there suffices; less is never, while anything says
that the picture is not whole (a drain, a cut, a config run, old reports, failing calls, a leader that did not watch for long
enough), nor beyond the reversal budget.  A peak that comes back soon after its instances went was let go too early: then the
window is longer for hours.  Every verdict says why, in words.

Source: the project's measurements of autoscalers (offered load against utilization, asymmetric windows); reversals as a budget
instead of a dead band, as users of Kubernetes' HPA ask for.  Does not know the store, nor who carries it out.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from math import ceil, floor, isfinite

from msgspec import Struct
from msgspec.structs import replace

from dislocate.core.boundary.scaling import ScalePolicy
from dislocate.core.units import HOUR, MINUTE, SECOND, format_duration

TOLERANCE_UP = 1.10  # of what is there: less lacking is noise, and the target load has room for it; HPA's default too
TOLERANCE_SLOW = (
    1.03  # the same of the mean of a `SLOW_WINDOW`, in which there is less noise: a slow climb is seen earlier
)
SLOW_WINDOW = 1 * MINUTE
TOLERANCE_DOWN = 0.90  # less than a tenth too many is not worth a step
STEP_UP = 2.0  # times, within the up window; HPA's default too
STEP_UP_LEAST = 4  # instances, within the up window; HPA's default too
CLIMB_AFTER = 2 * MINUTE  # it has grown, time and again, for so long: that is no spike
CLIMB_GAP = 5 * MINUTE  # between two steps of one climb
CLIMB_AHEAD = 1.1  # what it grows to then, of what is wanted: an instance takes a minute to be there
STEP_DOWN = 0.8  # what stays, of each step down: the next one sees what it did
FULL = 0.95  # how loaded the others may be when one data center is lost
STALE = 30 * SECOND  # older reports are no reason to shrink, nor to grow
QUIET = 1.0  # requests a second in a data center: below it, nobody calls
ERRORS = 0.05  # part of calls failing: load that is not served is not seen, so nothing is taken away
REVERSALS_WITHIN = 1 * HOUR
REGRET_GROWTH = 3  # times the down window, for a peak that came back
REGRET_PART = 0.8  # of what was there before: that much again is the same peak
REGRET_DEPTH = 0.7  # of it: a descent that did not come so low was no mistake worth remembering
REGRET_HELD = 0.85  # of such a peak: it is brief, and what stays of the target's headroom carries the rest
REGRETS_REMEMBERED = 6 * HOUR
WINDOW_LONGEST = 1 * HOUR
BELIEVABLE = 1e9  # requests a second; more is a mistake of who reports
SCALE_MOST = 100_000  # instances in one data center


class Facts(Struct, frozen=True, kw_only=True):
    """What is known of one data center at one moment."""

    datacenter: str
    offered: float  # first attempts a second that it is to carry
    capacity: float = 0.0  # requests a second of one instance; 0: unknown
    running: int = 0  # instances that are there or boot, without those that are going
    errors: float = 0.0  # part of calls that fail
    age: int = 0  # nanoseconds since it was reported


class Action(Struct, frozen=True):
    """A decision of the past."""

    at: int  # on the clock of whoever asks
    before: int
    desired: int


class Verdict(Struct, frozen=True):
    """How many, and why."""

    desired: int
    reason: str
    changes: bool  # whether it is to be decided now


class Want(Struct, frozen=True):
    """How many instances the load of one data center asks for now."""

    count: float
    words: str
    is_firm: bool = False  # a promise, not an estimate: nothing less will do


class Track:
    """What was seen of one service in one data center: nothing but time series, each as long as the rule looks back."""

    def __init__(self, since: int) -> None:
        self._since = since  # nothing is known of before
        self._last: float | None = None  # what was offered when it was last known
        self._loads: deque[tuple[int, float]] = deque()
        self._recent: deque[tuple[int, float]] = deque()  # wants of a slow window
        self._peaks: deque[tuple[int, float]] = deque()  # decreasing: each is the most that was wanted from then on

    def observe(self, now: int, facts: Facts, window: int) -> None:
        """What cannot be believed, or is old, is not seen."""
        if 0 <= facts.offered < BELIEVABLE and isfinite(facts.offered) and facts.age <= STALE:
            self._loads.append((now, facts.offered))
            self._last = facts.offered
        while self._loads and self._loads[0][0] <= now - window:
            self._loads.popleft()

    def believed(self, facts: Facts) -> Facts:
        """The same, but that silence after next to nothing is nothing: relays tell of a service while somebody calls it, say
        that it ended, and are silent then."""
        is_quiet = facts.age > STALE and self._last is not None and self._last < QUIET
        return replace(facts, offered=0.0, age=0) if is_quiet else facts

    def load(self) -> float | None:
        """Its mean; None: nothing is known."""
        return sum(load for _, load in self._loads) / len(self._loads) if self._loads else None

    def remember(self, now: int, want: float) -> None:
        self._recent.append((now, want))
        while self._recent[0][0] <= now - SLOW_WINDOW:
            self._recent.popleft()
        while self._peaks and self._peaks[-1][1] <= want:
            self._peaks.pop()
        self._peaks.append((now, want))
        while self._peaks[0][0] < now - WINDOW_LONGEST:
            self._peaks.popleft()

    def slow(self, now: int) -> float:
        """The mean of what was wanted within a slow window; 0: it was not watched for so long."""
        if self._since > now - SLOW_WINDOW or not self._recent:
            return 0.0
        return sum(want for _, want in self._recent) / len(self._recent)

    def peak(self, now: int, window: int) -> float | None:
        """The most that was wanted within `window`; None: it was not watched for so long."""
        if self._since > now - window:
            return None
        return next((want for at, want in self._peaks if at >= now - window), None)


# ---- how many


def wants(policy: ScalePolicy, facts: Sequence[Facts], loads: Mapping[str, float | None]) -> dict[str, Want]:
    """By data center; those of which load or capacity is unknown are missing."""
    known = [one for one in facts if loads.get(one.datacenter) is not None and capacity_of(policy, one) > 0]
    found = {one.datacenter: _own_want(policy, one, loads[one.datacenter] or 0.0) for one in known}
    if policy.survive.value == "1dc":
        for datacenter, (count, lost) in survival(policy, known, loads).items():
            if count > found[datacenter].count:
                words = f"{count:.3g} to carry all of the service's traffic at {FULL:.0%} if {lost} is lost"
                found[datacenter] = Want(count, words, is_firm=True)
    return found


def capacity_of(policy: ScalePolicy, facts: Facts) -> float:
    """Requests a second of one instance; 0: unknown."""
    capacity = policy.capacity or facts.capacity
    return capacity if isfinite(capacity) and capacity > 0 else 0.0


def _own_want(policy: ScalePolicy, facts: Facts, load: float) -> Want:
    carries = capacity_of(policy, facts) * policy.target_load
    words = f"{load:.4g} req/s offered, {carries:.3g} for an instance at {policy.target_load:.0%}"
    return Want(load / carries, words)


def survival(
    policy: ScalePolicy, facts: Sequence[Facts], loads: Mapping[str, float | None]
) -> dict[str, tuple[float, str]]:
    """By data center how many it needs for the worst loss of another one, and which.

    What is lost goes to the others as their own load is, so that the large carry more; one that has none carries a little."""
    total = sum(loads[one.datacenter] or 0.0 for one in facts)
    if len(facts) < 2 or total <= 0:
        return {}
    weight = {one.datacenter: max(loads[one.datacenter] or 0.0, total * (1 - FULL)) for one in facts}
    found: dict[str, tuple[float, str]] = {}
    for lost in facts:
        others = [one for one in facts if one is not lost]
        whole = sum(weight[one.datacenter] for one in others)
        for one in others:
            count = total / FULL * weight[one.datacenter] / whole / capacity_of(policy, one)
            if count > found.get(one.datacenter, (0.0, ""))[0]:
                found[one.datacenter] = (count, lost.datacenter)
    return found


# ---- when


def decide(
    policy: ScalePolicy,
    facts: Facts,
    track: Track,
    want: Want | None,
    present: int,
    *,
    actions: Sequence[Action] = (),
    frozen: Sequence[str] = (),
    now: int,
) -> Verdict:
    """What is to become of `present`, the number last decided, or found where nothing was.

    `want` is of this moment, and remembered in `track`; `actions` are past decisions, oldest first; `frozen` says why nothing
    may be taken away."""
    if want is not None:
        track.remember(now, want.count)
    bounded = min(max(present, policy.min), policy.max)
    if bounded > present:
        return Verdict(bounded, f"at least {policy.min} are to be in {facts.datacenter}", True)
    if want is None:
        return _shrunk_to_most(
            policy, present, "nobody knows what is offered, or what an instance carries: set `capacity`"
        )
    slow = track.slow(now)
    is_slow = want.count > present and slow > present * (1.0 if want.is_firm else TOLERANCE_SLOW)
    lacking = want.count if want.count > present * TOLERANCE_UP else slow if is_slow else 0.0
    if lacking and present < policy.max:
        return _grow(policy, want, lacking, present, actions, now)
    if bounded < present:
        return _shrunk_to_most(policy, present, want.words)
    return _shrink(policy, facts, track, want, present, actions, frozen, now)


def _shrunk_to_most(policy: ScalePolicy, present: int, words: str) -> Verdict:
    """An operator lowered the limit: that is no guess, and waits for nothing."""
    if present <= policy.max:
        return Verdict(present, words, False)
    return Verdict(policy.max, f"at most {policy.max} may be there", True)


def _grow(
    policy: ScalePolicy, want: Want, lacking: float, present: int, actions: Sequence[Action], now: int
) -> Verdict:
    began = next((one.before for one in actions if one.at > now - policy.up_window), present)
    pace = max(floor(began * STEP_UP), began + STEP_UP_LEAST)
    is_climb = climbs(actions, now)
    wanted = ceil(lacking * (CLIMB_AHEAD if is_climb else 1.0))
    desired = min(wanted, policy.max, max(pace, present))
    words = f"{want.words}: {wanted} wanted{' ahead of a climb' if is_climb else ''}, {present} there"
    if desired < wanted:
        limit = (
            f"`max` is {policy.max}, the rest spills" if desired == policy.max else f"{desired} for now, the rest soon"
        )
        words = f"{words}; {limit}"
    return Verdict(desired, words, desired > present)


def climbs(actions: Sequence[Action], now: int) -> bool:
    """Whether it has been growing for a while, step upon step."""
    began = later = now
    for one in reversed(actions):
        if one.desired <= one.before or later - one.at > CLIMB_GAP:
            break
        began = later = one.at
    return now - began >= CLIMB_AFTER


def _shrink(
    policy: ScalePolicy,
    facts: Facts,
    track: Track,
    want: Want,
    present: int,
    actions: Sequence[Action],
    frozen: Sequence[str],
    now: int,
) -> Verdict:
    window = down_window(policy, actions, now)
    peak = track.peak(now, window)
    if peak is None:
        return Verdict(present, f"not watched for {format_duration(window)} yet", False)
    if window > policy.down_window:
        peak = max(peak * REGRET_HELD, want.count)
    if peak >= present * TOLERANCE_DOWN:
        return Verdict(present, f"{want.words}: {present} are right", False)
    desired = max(ceil(peak), floor(present * STEP_DOWN), policy.min)
    if desired >= present:
        return Verdict(present, f"{want.words}: {present} are right", False)
    held = why_not_shrink(policy, facts, actions, frozen, now)
    if held:
        return Verdict(present, f"{desired} would do, but {held}", False)
    words = f"{want.words}: {want.count:.3g} wanted, {peak:.3g} at most in {format_duration(window)}, {present} there"
    return Verdict(desired, words, True)


def why_not_shrink(
    policy: ScalePolicy, facts: Facts, actions: Sequence[Action], frozen: Sequence[str], now: int
) -> str:
    """What speaks against taking anything away; empty: nothing."""
    if frozen:
        return "; ".join(frozen)
    if facts.age > STALE:
        return f"reports are {format_duration(facts.age // SECOND * SECOND)} old"
    if facts.errors > ERRORS:
        return f"{facts.errors:.0%} of calls fail: what is not served is not seen"
    if actions and now - actions[-1].at < policy.pause:
        return f"the last step was less than {format_duration(policy.pause)} ago"
    if reversals(actions, now, falls=True) > policy.reversals:
        return f"it turned {policy.reversals} times within an hour"
    return ""


def reversals(actions: Sequence[Action], now: int, *, falls: bool = False) -> int:
    """Changes of direction within an hour, with the one that a step down would be now where `falls`."""
    turns, before = 0, 0
    for one in actions:
        direction = (one.desired > one.before) - (one.desired < one.before)
        if direction and before and direction != before and one.at > now - REVERSALS_WITHIN:
            turns += 1
        before = direction or before
    return turns + (falls and before > 0)


def down_window(policy: ScalePolicy, actions: Sequence[Action], now: int) -> int:
    """How far back it looks before it shrinks: longer after peaks that came back soon after they were let go."""
    window = policy.down_window
    began: Action | None = None  # of the descent
    lowest = 0
    for one in actions:
        if one.at <= now - REGRETS_REMEMBERED:
            continue
        if one.desired < one.before:
            began, lowest = began or one, one.desired
        elif began is not None and one.desired >= REGRET_PART * began.before:
            if one.at - began.at <= 2 * window and lowest <= REGRET_DEPTH * began.before:
                window = min(window * REGRET_GROWTH, max(WINDOW_LONGEST, policy.down_window))
            began = None
    return window
