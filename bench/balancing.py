"""Balancing beside what others ship, request by request in virtual time.

Three data centers of ten instances with four workers each, 20 ms exponential service (2,000 requests a second a data
center), round trips of 20, 80 and 70 ms, 18 callers; each story under each policy with seeds that no tuning used.  What is
in the table is the median of the seeds.  The peers are our re-implementations of their documented rules in one engine, all
told of deaths and drains after 200 ms: ratios above 2 mean something, 5 % does not.  The oracle sees every queue.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from os import cpu_count
from statistics import fmean, median

from msgspec import Struct

from bench.report import Bound, Figure, Table
from sim.traffic.balancer import Balancer, Setting
from sim.traffic.engine import Traffic
from sim.traffic.measures import Measured
from sim.traffic.ours import Dislocate
from sim.traffic.peers.consul import NearestUntilEmpty
from sim.traffic.peers.envoy import HealthPriority, ZoneAware
from sim.traffic.peers.finagle import PeakEwma
from sim.traffic.peers.oracle import Oracle
from sim.traffic.stories import STORIES

POLICIES: dict[str, Callable[[Setting], Balancer]] = {
    "dislocate": Dislocate,
    "oracle": Oracle,
    "health-priority": HealthPriority,
    "zone-aware": ZoneAware,
    "peak-EWMA": PeakEwma,
    "nearest": NearestUntilEmpty,
}
AS = {
    "dislocate": "**Dislocate**",
    "oracle": "an oracle that sees every queue",
    "health-priority": "health-priority, as Envoy",
    "zone-aware": "zone-aware, as Kubernetes and Envoy",
    "peak-EWMA": "peak-EWMA over all, as Finagle",
    "nearest": "nearest until empty, as Consul",
}
MAIN = ("balanced", "skew", "loss")
SEEDS = tuple(range(9_001, 9_011))  # none of them was used while anything was tuned
QUICK_SEEDS = (1,)
NEAR_ORACLE = 1.4  # times its p99
AHEAD = 20  # times better than health-priority, under skew and loss


class Trial(Struct, frozen=True):
    """One run."""

    story: str
    policy: str
    seed: int


class Row(Struct, frozen=True):
    """One policy in one story, over all seeds: medians of times, means of parts."""

    p50: float  # milliseconds
    p99: float
    worst: float  # p99 of the worst seed
    crossing: float
    errors: float
    attempts: float


Rows = dict[tuple[str, str], Row]  # by story and policy


def run(trial: Trial) -> Measured:
    """One run, in whichever process."""
    plan = next(plan for plan in STORIES if plan.name == trial.story)
    return Traffic(plan, POLICIES[trial.policy], trial.seed).run().measured()


def rows(stories: Sequence[str], seeds: Sequence[int]) -> Rows:
    """Every policy in every story, on all processors."""
    trials = [Trial(story, policy, seed) for story in stories for policy in POLICIES for seed in seeds]
    found: dict[tuple[str, str], list[Measured]] = {}
    with ProcessPoolExecutor(cpu_count(), mp_context=get_context("spawn")) as pool:
        for trial, measured in zip(trials, pool.map(run, trials), strict=True):
            found.setdefault((trial.story, trial.policy), []).append(measured)
    return {key: _row(several) for key, several in found.items()}


def _row(several: list[Measured]) -> Row:
    return Row(
        p50=median(one.p50 for one in several),
        p99=median(one.p99 for one in several),
        worst=max(one.p99 for one in several),
        crossing=fmean(one.crossing for one in several),
        errors=fmean(one.errors for one in several),
        attempts=fmean(one.attempts for one in several),
    )


def markdown(found: Rows) -> str:
    """The table that the README shows."""
    stories = list(dict.fromkeys(story for story, _ in found))
    lines = ["| p50 / p99 ms, crossing, errors | " + " | ".join(stories) + " |", "|---" * (len(stories) + 1) + "|"]
    for policy, name in AS.items():
        cells = [_cell(found[story, policy]) for story in stories]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(row: Row) -> str:
    errors = f", **{row.errors:.1%}** failed" if row.errors >= 0.0005 else ""
    return f"{row.p50:.0f} / {row.p99:,.0f}, {row.crossing:.0%}{errors}".replace("%", " %")


def table(story: str, found: Rows) -> Table:
    """One story: ours beside the oracle, and beside health-priority."""
    ours, oracle, health = (found[story, policy] for policy in ("dislocate", "oracle", "health-priority"))
    figures = [
        Figure("p50", "ms", ours.p50, oracle.p50),
        Figure("p99", "ms", ours.p99, oracle.p99, Bound(NEAR_ORACLE, of_peer=True)),
        Figure("  of the worst seed", "ms", ours.worst, oracle.worst),
        Figure("crossing data centers", "%", 100 * ours.crossing, 100 * oracle.crossing, _crossing(story)),
        Figure("calls that failed", "%", 100 * ours.errors, 100 * oracle.errors),
        Figure("attempts a call", "", ours.attempts, oracle.attempts),
    ]
    ahead = Bound(AHEAD, at_least=True) if story in ("skew", "loss") else None
    figures.append(Figure("p99 of health-priority over ours", "times", health.p99 / ours.p99, bound=ahead))
    return Table(f"balancing: {story}", "oracle", tuple(figures))


def _crossing(story: str) -> Bound | None:
    return Bound(0.0) if story == "balanced" else None


def measure(quick: bool = False) -> Iterable[Table]:
    """A table for each story, and one of all policies as Markdown."""
    found = rows(MAIN if quick else [plan.name for plan in STORIES], QUICK_SEEDS if quick else SEEDS)
    for story in dict.fromkeys(story for story, _ in found):
        yield table(story, found)
    seeds = len(QUICK_SEEDS if quick else SEEDS)
    yield Table("balancing: every policy", "", (), f"medians over seeds: {seeds}\n\n{markdown(found)}")
