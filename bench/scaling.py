"""Scaling beside Kubernetes' HPA and AWS' target tracking, in the fluid model of `sim.scaling`.

The peers are written from their documentation and run with their defaults; all see the same demand; booting takes a minute.
What is dropped is compared where the slower rule drops anything worth a figure: two that drop less than a thousandth of a
percent are equal.  The seeds are none that the constants of the rule were chosen on (1 to 12, and after a look at 101 to 110).
"""

from collections.abc import Iterable, Sequence

from bench.report import Bound, Figure, Table
from sim.scaling import RULES, SHAPES, Outcome, run, trace

SEEDS = tuple(range(201, 211))
LONG_SEEDS = SEEDS[:3]  # of a day, which is twelve times as long
SPIKY = ("spikes",)
COST = 1.2  # of HPA's
COST_OF_SPIKES = 1.4
DROPS_OF_SPIKES = 0.25
NOTHING = 0.001  # percent


def outcomes(shape: str, seeds: Sequence[int]) -> dict[str, list[Outcome]]:
    demands = [trace(shape, seed) for seed in seeds]
    return {name: [run(make(), demand) for demand in demands] for name, make in RULES.items()}


def measure(quick: bool = False) -> Iterable[Table]:
    """A table beside each peer, for each shape of demand."""
    for shape in SHAPES:
        if quick and shape == "day":
            continue
        seeds = SEEDS[:2] if quick else LONG_SEEDS if shape == "day" else SEEDS
        found = outcomes(shape, seeds)
        yield _table(shape, seeds, found, "HPA", bounded=True)
        yield _table(shape, seeds, found, "target tracking", bounded=False)


def _table(shape: str, seeds: Sequence[int], found: dict[str, list[Outcome]], peer: str, *, bounded: bool) -> Table:
    ours, theirs = found["dislocate"], found[peer]
    is_spiky = shape in SPIKY
    cost = Bound(COST_OF_SPIKES if is_spiky else COST, of_peer=True) if bounded else None
    drops = Bound(DROPS_OF_SPIKES if is_spiky else 1.0, of_peer=True) if bounded else None
    dropped = 100 * _mean([one.dropped for one in ours]), 100 * _mean([one.dropped for one in theirs])
    if max(dropped) < NOTHING:
        drops = None
    figures = (
        Figure("dropped", "% of requests", *dropped, drops),
        Figure("loaded above 90 %", "s", _mean([one.busy for one in ours]), _mean([one.busy for one in theirs])),
        Figure(
            "instance seconds over ideal",
            "",
            _mean([one.cost for one in ours]),
            _mean([one.cost for one in theirs]),
            cost,
        ),
        Figure(
            "changes of direction", "", _mean([one.reversals for one in ours]), _mean([one.reversals for one in theirs])
        ),
    )
    return Table(f"scaling: {shape}, mean of {len(seeds)} seeds", peer, figures)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
