"""Expectations: the claims of a scenario, judged while it runs, in either world.

`always` holds at every look between `after` and `until`; `eventually` at one look at most `within` after `after`;
`sometimes` at one look at all; `budget` at the end.  The judge looks when it is told to; a finding about one observer is
kept until that observer's answers change, so that a quiet fleet costs nothing to watch.
"""

from collections.abc import Sequence

from msgspec import Struct

from dislocate.core.identity import Path
from dislocate.core.units import format_duration, seconds
from sim.claims import BUDGET_CLAIMS, EVENT_CLAIMS, VIEW_CLAIMS, check_claim
from sim.observed import Observed
from sim.scenario import ALLOWED, Expect
from sim.selectors import as_tuple
from sim.traffic.claims import REQUEST_CLAIMS


class Verdict(Struct, frozen=True):
    """What became of one expectation."""

    expectation: str
    holds: bool
    why: str  # when it came true, or why it did not
    at: int | None = None  # virtual or scenario time, nanoseconds


class Open(Struct, eq=False):
    """One expectation while it is judged."""

    expect: Expect
    verdict: Verdict | None = None
    last: str = "never looked at"  # why it does not hold
    kept: dict[Path, tuple[tuple[int, int], int, str | None]] = {}  # observer: (version, who was up, finding)
    looks: int = 0


class Judge:
    """All expectations of one run."""

    def __init__(self, expects: Sequence[Expect], observed: Observed) -> None:
        """Raises `ConfigError` for a claim that nobody can judge."""
        for at, expect in enumerate(expects):
            check_claim(expect, observed.layout, f"expect[{at}]")
        self._observed = observed
        self._open = [Open(expect) for expect in expects]
        self._since: dict[str, float] = {}
        self._up: tuple[Path, ...] = ()
        self._up_changes = 0

    def look(self, now: int) -> None:
        """Judge what can be judged at `now`, nanoseconds since the start of the story."""
        up = tuple(self._observed.observers_up())
        if up != self._up:
            self._up, self._up_changes = up, self._up_changes + 1
        for one in self._open:
            if one.verdict is None and one.expect.after <= now:
                self._judge(one, now)

    def conclude(self, now: int) -> list[Verdict]:
        """The story is over: every expectation has a verdict."""
        self.look(now)
        for one in self._open:
            if one.verdict is None:
                one.verdict = self._at_the_end(one, now)
        return self.verdicts()

    def verdicts(self) -> list[Verdict]:
        """Those that are settled."""
        return [one.verdict for one in self._open if one.verdict is not None]

    def _judge(self, one: Open, now: int) -> None:
        expect = one.expect
        if expect.kind == "budget":
            return
        deadline = expect.after + expect.within if expect.within is not None else expect.until
        if deadline is not None and now > deadline and (expect.kind == "always" or one.looks):
            one.verdict = self._at_the_end(one, now)
            return
        observers = self._observers(expect)
        if not observers:
            one.last = "nobody is there to answer"
            return
        finding = self._finding(one, observers)
        one.looks += 1
        if expect.kind == "always":
            if finding is not None:
                one.verdict = Verdict(in_words(expect), False, finding, now)
        elif finding is None:
            why = f"at {_clock(now)}" + (
                f", {_clock(now - expect.after)} after {_clock(expect.after)}" if expect.after else ""
            )
            one.verdict = Verdict(in_words(expect), True, why, now)
        else:
            one.last = finding

    def _at_the_end(self, one: Open, now: int) -> Verdict:
        expect = one.expect
        if expect.kind == "budget" and expect.claim in REQUEST_CLAIMS:
            return self._of_requests(expect, now)
        if expect.kind == "budget":
            assert expect.at_most is not None
            value = self._observed.measured(BUDGET_CLAIMS[expect.claim], expect.after)
            return Verdict(in_words(expect), value <= expect.at_most, f"{value:.1f}", now)
        if expect.kind == "always":
            return Verdict(in_words(expect), one.looks > 0, "" if one.looks else one.last, now)
        return Verdict(in_words(expect), False, one.last, now)

    def _of_requests(self, expect: Expect, now: int) -> Verdict:
        at_most = ALLOWED.get(expect.claim, 0.0) if expect.at_most is None else expect.at_most
        until = now if expect.until is None else expect.until
        agents = self._observed.layout.agents(expect.by)
        seen = self._observed.requests(as_tuple(expect.of), agents, expect.after, until)
        holds, words = REQUEST_CLAIMS[expect.claim](seen, at_most)
        return Verdict(in_words(expect), holds, words, now)

    def _observers(self, expect: Expect) -> list[Path]:
        asked = dict.fromkeys(self._observed.layout.agents(expect.by))
        return [path for path in self._up if path in asked]

    def _finding(self, one: Open, observers: list[Path]) -> str | None:
        expect = one.expect
        if expect.claim in EVENT_CLAIMS:
            return None if self._observed.happened(EVENT_CLAIMS[expect.claim]) else "it never happened"
        claim = VIEW_CLAIMS[expect.claim]
        for path in observers:
            version = self._observed.version(path)
            kept = one.kept.get(path)
            if kept is None or kept[0] != version or kept[1] != self._up_changes:
                kept = one.kept[path] = (version, self._up_changes, claim(self._observed, path, expect))
            if kept[2] is not None:
                return kept[2]
        return None


def in_words(expect: Expect) -> str:
    """'eventually unreachable fra (by wdc) within 15s after 40s'."""
    words = [expect.kind, expect.claim, *as_tuple(expect.of)]
    if expect.status:
        words.append(expect.status)
    if expect.count:
        words.append(f">= {expect.count}")
    if expect.at_most is not None:
        words.append(f"<= {expect.at_most:g}")
    if as_tuple(expect.by) != ("*",):
        words.append("by " + ", ".join(as_tuple(expect.by)))
    if expect.excepting:
        words.append("except " + ", ".join(as_tuple(expect.excepting)))
    if expect.within is not None:
        words.append(f"within {format_duration(expect.within)}")
    if expect.after:
        words.append(f"after {format_duration(expect.after)}")
    if expect.until is not None:
        words.append(f"until {format_duration(expect.until)}")
    return " ".join(words)


def _clock(nanoseconds: int) -> str:
    return f"{seconds(nanoseconds):.1f}s"
