"""Callers: what the programs of this host say that they do, checked and added up.

Invariants: absurd numbers count for nothing, not even in part; what one caller said is replaced by what it says next, and
forgotten CALLER_GONE after its last word.  Outcomes are added up until they are taken, each told once.
"""

from math import isfinite

from dislocate.core.boundary.balance import Outcomes, ReportUsage, Usage
from dislocate.core.boundary.requests import Refused
from dislocate.core.catalog.validation import check_id, refused
from dislocate.core.errors import LocalError
from dislocate.core.identity import Path, check_service_name, split_path
from dislocate.core.tunables import CALLER_BYTES, CALLER_GONE, CALLER_RATE_LIMIT, CALLERS, OUTCOMES_TOLD, USAGES_TOLD

CALLS_LIMIT = 1 << 40  # in one interval: far above anything that can be counted
LONGEST_CALL = 1e6  # seconds


def check_usage(report: ReportUsage) -> None:
    """Raises `LocalError` naming the field unless all of `report` can have been measured."""
    name = report.caller
    _claim(
        0 < len(name) <= CALLER_BYTES and name.isprintable(),
        "caller",
        name,
        f"a name of 1 to {CALLER_BYTES} characters",
    )
    _claim(len(report.usages) <= USAGES_TOLD, "usages", len(report.usages), f"at most {USAGES_TOLD} services")
    seen: dict[str, int] = {}
    for at, usage in enumerate(report.usages):
        field = f"usages[{at}]"
        check_service_name(usage.service, f"{field}.service")
        _claim(usage.service not in seen, f"{field}.service", usage.service, "each service once")
        seen[usage.service] = at
        for what, rate in (("offered", usage.offered), ("retries", usage.retries)):
            _claim(
                isfinite(rate) and 0.0 <= rate <= CALLER_RATE_LIMIT,
                f"{field}.{what}",
                rate,
                f"requests a second, 0 to {CALLER_RATE_LIMIT:.0f}",
            )
        _claim(
            len(usage.outcomes) <= OUTCOMES_TOLD,
            f"{field}.outcomes",
            len(usage.outcomes),
            f"at most {OUTCOMES_TOLD} instances, busiest first",
        )
        for position, outcomes in enumerate(usage.outcomes):
            _check_outcomes(outcomes, f"{field}.outcomes[{position}]")


def _check_outcomes(outcomes: Outcomes, field: str) -> None:
    split_path(outcomes.node, f"{field}.node")
    check_id(outcomes.instance, f"{field}.instance")
    _claim(0 <= outcomes.calls <= CALLS_LIMIT, f"{field}.calls", outcomes.calls, "a count of calls")
    _claim(0 <= outcomes.failed <= outcomes.calls, f"{field}.failed", outcomes.failed, "a count, at most 'calls'")
    _claim(isfinite(outcomes.p99) and 0.0 <= outcomes.p99 <= LONGEST_CALL, f"{field}.p99", outcomes.p99, "seconds")


def _claim(holds: bool, field: str, got: object, expected: str) -> None:
    if not holds:
        raise LocalError(field, got=got, expected=expected)


class _Caller:
    """What one caller said last."""

    __slots__ = ("heard", "usages")

    def __init__(self, usages: tuple[Usage, ...], now: int) -> None:
        self.usages = {usage.service: usage for usage in usages}
        self.heard = now


class Callers:
    """All callers of one host."""

    def __init__(self) -> None:
        self._callers: dict[str, _Caller] = {}
        self._calls: dict[tuple[Path, str], Outcomes] = {}  # since they were last taken

    def __len__(self) -> int:
        return len(self._callers)

    def report(self, report: ReportUsage, now: int) -> Refused | None:
        """Take it in; or why it counts for nothing."""
        try:
            check_usage(report)
        except LocalError as error:
            return refused(error)
        self.forget_the_gone(now)
        if report.caller not in self._callers and len(self._callers) >= CALLERS:
            return Refused(
                "unavailable", "caller", f"{CALLERS} callers report here already: share one `Client` a process"
            )
        self._callers[report.caller] = _Caller(report.usages, now)
        for usage in report.usages:
            for outcomes in usage.outcomes:
                self._add(outcomes)
        return None

    def _add(self, new: Outcomes) -> None:
        key = (new.node, new.instance)
        known = self._calls.get(key)
        if known is not None:
            calls, failed = known.calls + new.calls, known.failed + new.failed
            new = Outcomes(new.node, new.instance, calls, failed, max(known.p99, new.p99))
        self._calls[key] = new

    def take_outcomes(self) -> tuple[Outcomes, ...]:
        """How calls went since this was last asked, by instance."""
        calls, self._calls = self._calls, {}
        return tuple(calls[key] for key in sorted(calls))

    def forget_the_gone(self, now: int) -> None:
        """Drop those that have not said anything for too long."""
        gone = [name for name, caller in self._callers.items() if now - caller.heard >= CALLER_GONE]
        for name in gone:
            del self._callers[name]

    def offered(self) -> dict[str, tuple[float, float]]:
        """(first attempts, retries) a second by service, in order."""
        sums: dict[str, tuple[float, float]] = {}
        for caller in self._callers.values():
            for name, usage in caller.usages.items():
                offered, retries = sums.get(name, (0.0, 0.0))
                sums[name] = (offered + usage.offered, retries + usage.retries)
        return {name: sums[name] for name in sorted(sums)}
