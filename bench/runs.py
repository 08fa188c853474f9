"""Config runs beside Salt: one new file on every host, real processes on loopback.

Ours is a run in the replicated store of three servers, typed as `dislocate run start` and over when every agent, asked for
what it knows, answers that all are done; Salt's is `salt '*' state.apply` of one `file.managed`, over when the command has
heard of every minion.  Both at once everywhere: ours with a strategy of no canary, one batch and nothing watched (`soak` and
`settle` of zero), since Salt watches nothing.  The shipped strategy (canary, soak, a quarter at a time) is measured for
itself.  The two fleets of the smaller size run side by side and take turns; files are read after each round.
"""

from collections.abc import Iterable
from contextlib import ExitStack
from statistics import median

from msgspec import Struct

from bench.changers import AS_SHIPPED, DislocateFleet, SaltFleet, salt_version
from bench.report import Bound, Figure, Table

FASTER = 0.2  # of Salt's time, at the smaller size
SHIPPED_GROWTH = 1.25  # times as long for three times the nodes in as many batches
MEMORY = 40.0  # MiB an agent that keeps no store, as in discovery
SERVER_MEMORY = 80.0  # MiB, as in the store's benchmark


class Plan(Struct, frozen=True):
    """How much is tried."""

    few: int  # nodes
    many: int
    rounds: int


FULL = Plan(few=20, many=60, rounds=5)
QUICK = Plan(few=5, many=10, rounds=1)


class Findings(Struct, frozen=True):
    """Of one fleet: seconds, and MiB an agent."""

    at_once: list[float]
    shipped: float | None
    memory: float
    controller: float  # of a server of the store; of Salt's master


def examine(fleet: DislocateFleet, rounds: int) -> Findings:
    """One fleet of ours alone."""
    fleet.change("warm")
    at_once = [fleet.change(f"round {at}") for at in range(rounds)]
    return Findings(at_once, fleet.change("shipped", AS_SHIPPED), fleet.memory(), fleet.server_memory())


def examine_both(ours: DislocateFleet, salt: SaltFleet, rounds: int) -> tuple[Findings, Findings]:
    """In turns."""
    took: tuple[list[float], list[float]] = ([], [])
    for at in range(-1, rounds):
        times = ours.change(f"round {at}"), salt.change(f"round {at}")
        if at >= 0:  # the one before is for what both load once
            for times_of, time in zip(took, times, strict=True):
                times_of.append(time)
    shipped = ours.change("shipped", AS_SHIPPED)
    mine = Findings(took[0], shipped, ours.memory(), ours.server_memory())
    return mine, Findings(took[1], None, salt.memory(), salt.master_memory())


def measure(quick: bool = False) -> Iterable[Table]:
    """A table beside Salt, and one of how it grows."""
    plan = QUICK if quick else FULL
    version = salt_version()
    with ExitStack() as opened:
        fleet = opened.enter_context(DislocateFleet(plan.few))
        peer = None
        if version:
            few, peer = examine_both(fleet, opened.enter_context(SaltFleet(plan.few)), plan.rounds)
        else:
            few = examine(fleet, plan.rounds)
    yield beside_salt(plan, few, peer, f"Salt {version}" if version else "Salt (not installed)")
    with DislocateFleet(plan.many) as fleet:
        many = examine(fleet, plan.rounds)
    yield growth(plan, few, many)


def beside_salt(plan: Plan, ours: Findings, peer: Findings | None, name: str) -> Table:
    faster = Bound(FASTER, of_peer=True)
    theirs = peer.at_once if peer is not None else None
    figures = (
        Figure(
            f"typed to done everywhere, all at once, median of {plan.rounds}",
            "s",
            median(ours.at_once),
            median(theirs) if theirs else None,
            faster,
        ),
        Figure("  the longest", "s", max(ours.at_once), max(theirs) if theirs else None),
        Figure(
            "typed to done everywhere, shipped strategy", "s", ours.shipped, note="canary 1, soak 10 s, batches of 25 %"
        ),
        Figure("memory after that (PSS)", "MiB an agent", ours.memory, peer.memory if peer else None, Bound(MEMORY)),
        Figure(
            "  of a server of the store, of Salt's master",
            "MiB",
            ours.controller,
            peer.controller if peer else None,
            Bound(SERVER_MEMORY),
        ),
    )
    return Table(f"runs: one file over {plan.few} agents on loopback", name, figures)


def growth(plan: Plan, few: Findings, many: Findings) -> Table:
    title = f"runs: the same over {plan.many} agents, beside {plan.few}"
    as_nodes = Bound(plan.many / plan.few, of_peer=True)  # a single batch, of which all work is done on the same cores
    figures = (
        Figure("all at once, median", "s", median(many.at_once), median(few.at_once), as_nodes),
        Figure("shipped strategy", "s", many.shipped, few.shipped, Bound(SHIPPED_GROWTH, of_peer=True)),
        Figure("memory after that (PSS)", "MiB an agent", many.memory, few.memory, Bound(MEMORY)),
    )
    return Table(title, f"{plan.few} agents", figures, "the shipped strategy has five batches at either size")
