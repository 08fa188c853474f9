"""Membership of real agents beside serf, at 3, 20 and 60.

How long joining takes, how soon a killed agent and a vanished host are known everywhere, what a stopped process suffers, and
what an idle agent costs.  Both systems run with shipped defaults, one after the other, each fleet in network and process
namespaces of its own, so that it hears only itself and leaves no process behind.  All times come from what agents said.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from math import inf
from pathlib import Path
from statistics import mean, median

import click
import msgspec
from msgspec import Struct

from bench.cluster import Cluster, Observation
from bench.peers import SYSTEMS, Fact, System, name_of
from bench.report import Bound, Figure, Table
from tests.support.switch import why_impossible

STARTED_WITHIN = 120.0  # seconds for all processes, on few cores
SEEN_WITHIN = 60.0  # seconds; what is not seen by then counts as never
LATE = 6.0  # seconds after a stall during which it may still do harm
REST = 2.0  # seconds between two trials
SEED = 0  # the agent that others join by, never harmed


class Plan(Struct, frozen=True):
    """How much is tried, on each fleet."""

    sizes: tuple[int, ...]
    settle: float  # seconds from the last join to the first measurement
    idle: float  # seconds
    kills: int
    vanishes: int
    stalls: tuple[float, ...]  # seconds each


FULL = Plan(sizes=(3, 20, 60), settle=10.0, idle=20.0, kills=5, vanishes=4, stalls=(4.0, 4.0, 8.0))
QUICK = Plan(sizes=(3, 8), settle=3.0, idle=5.0, kills=2, vanishes=1, stalls=(4.0,))


class Death(Struct, frozen=True):
    """Seconds from the end of an agent or host to the first and the last of the others that said so."""

    first: float
    all: float
    others_dead: int  # how often anybody else was declared dead meanwhile


class Stall(Struct, frozen=True):
    """What a process stopped for `seconds` and then continued suffered and caused."""

    seconds: float
    suspected_by: int
    dead_by: int
    is_split: bool  # some declared it dead and some did not
    others_dead: int
    healed: float  # seconds from its continuation until all saw all alive


class Findings(Struct, frozen=True):
    """Of one system at one size.  Seconds, unless the name says otherwise."""

    boot: float  # start of the first process to all seeing all
    join: float  # the last agent ready to all seeing all
    rejoins: list[float]  # a restarted agent ready to all seeing all
    kills: list[Death]
    vanishes: list[Death]
    stalls: list[Stall]
    cpu_percent: float  # of a core, an agent
    bytes_per_second: float  # sent, an agent
    memory_mib: float  # PSS, an agent
    idle_deaths: int

    @property
    def others_dead(self) -> int:
        trials = [*self.kills, *self.vanishes, *self.stalls]
        return self.idle_deaths + sum(trial.others_dead for trial in trials)


# ---- one fleet


def examine(system: System, size: int, plan: Plan) -> Findings:
    """All measurements on one fleet, in a namespace that is ours alone."""
    removable = min(plan.vanishes, size - 2)
    with (
        tempfile.TemporaryDirectory(prefix="dislocate-bench-") as directory,
        Cluster(system, size, removable, Path(directory)) as cluster,
    ):
        boot, join = _boot(cluster)
        cluster.run_for(plan.settle)
        mark = len(cluster.observations)
        before = cluster.usage()
        cluster.run_for(plan.idle)
        after = cluster.usage()
        elapsed = after.at - before.at
        idle_deaths = len(_deaths(cluster, mark))
        residents = size - removable
        stalls = [_stall(cluster, size - 1 - at % removable, seconds) for at, seconds in enumerate(plan.stalls)]
        kills, rejoins = [], []
        for at in range(plan.kills):
            victim = 1 + at * 7 % (residents - 1)
            kills.append(_kill(cluster, victim))
            rejoins.append(_restart(cluster, victim))
        return Findings(
            boot=boot,
            join=join,
            rejoins=rejoins,
            kills=kills,
            vanishes=[_vanish(cluster, victim) for victim in cluster.removable],
            stalls=stalls,
            cpu_percent=100 * (after.cpu - before.cpu) / elapsed / size,
            bytes_per_second=(after.traffic - before.traffic) / elapsed / size,
            memory_mib=after.memory,
            idle_deaths=idle_deaths,
        )


def _boot(cluster: Cluster) -> tuple[float, float]:
    """The seed first; when it is ready, all others at once."""
    cluster.start(SEED, None)
    _require(cluster.run_until(lambda: cluster.is_ready(SEED), STARTED_WITHIN), "the first agent did not get ready")
    began = cluster.now()
    for index in range(1, cluster.size):
        cluster.start(index, SEED)
    everybody = range(cluster.size)
    _require(
        cluster.run_until(lambda: all(map(cluster.is_ready, everybody)), STARTED_WITHIN), "not all agents got ready"
    )
    _require(cluster.run_until(cluster.all_see_all, SEEN_WITHIN), "not all agents saw all others")
    done = max(_times(cluster, 0, Fact.ALIVE))
    return done - began, max(0.0, done - max(_times(cluster, 0, Fact.READY)))


def _kill(cluster: Cluster, victim: int) -> Death:
    mark, began = len(cluster.observations), cluster.now()
    cluster.kill(victim)
    return _await_death(cluster, victim, mark, began, cluster.running())


def _vanish(cluster: Cluster, victim: int) -> Death:
    mark, began = len(cluster.observations), cluster.now()
    cluster.unplug(victim)
    present = [index for index in cluster.running() if index not in cluster.unplugged]
    return _await_death(cluster, victim, mark, began, present)


def _await_death(cluster: Cluster, victim: int, mark: int, began: float, observers: list[int]) -> Death:
    def said() -> dict[int, float]:
        return {
            seen.observer: seen.at - began
            for seen in reversed(_deaths(cluster, mark))
            if seen.member == name_of(victim) and seen.observer in observers
        }

    complete = cluster.run_until(lambda: len(said()) == len(observers), SEEN_WITHIN)
    cluster.run_for(REST)  # what else comes of it
    others = [seen for seen in _deaths(cluster, mark) if seen.member != name_of(victim) and seen.observer in observers]
    delays = said().values()
    return Death(first=min(delays, default=inf), all=max(delays) if complete else inf, others_dead=len(others))


def _restart(cluster: Cluster, victim: int) -> float:
    mark = len(cluster.observations)
    cluster.start(victim, SEED)
    _require(cluster.run_until(lambda: cluster.is_ready(victim), STARTED_WITHIN), "a restarted agent did not get ready")
    if not cluster.run_until(cluster.all_see_all, SEEN_WITHIN):
        return inf
    took = max(0.0, max(_times(cluster, mark, Fact.ALIVE)) - max(_times(cluster, mark, Fact.READY)))
    cluster.run_for(REST)
    return took


def _stall(cluster: Cluster, victim: int, seconds: float) -> Stall:
    mark = len(cluster.observations)
    cluster.pause(victim)
    cluster.run_for(seconds)
    cluster.resume(victim)
    resumed = cluster.now()
    is_healed = cluster.run_until(cluster.all_see_all, SEEN_WITHIN)
    healed = cluster.now() - resumed if is_healed else inf
    cluster.run_for(LATE)
    about_it = [seen for seen in cluster.observations[mark:] if seen.member == name_of(victim)]
    dead_by = len({seen.observer for seen in about_it if seen.fact is Fact.DEAD})
    return Stall(
        seconds=seconds,
        suspected_by=len({seen.observer for seen in about_it if seen.fact is Fact.SUSPECT}),
        dead_by=dead_by,
        is_split=0 < dead_by < cluster.size - 1,
        others_dead=sum(seen.member != name_of(victim) for seen in _deaths(cluster, mark)),
        healed=healed,
    )


def _deaths(cluster: Cluster, mark: int) -> list[Observation]:
    return [seen for seen in cluster.observations[mark:] if seen.fact is Fact.DEAD]


def _times(cluster: Cluster, mark: int, fact: Fact) -> list[float]:
    return [seen.at for seen in cluster.observations[mark:] if seen.fact is fact]


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise click.ClickException(f"{otherwise} in time: nothing can be measured")


# ---- all fleets


def measure(quick: bool) -> Iterator[Table]:
    """A table for each size, and one for what takes all of them to tell."""
    impossible = why_impossible()
    if impossible:
        yield Table("membership", "", (), f"not measured: {impossible}")
        return
    ours, serf = SYSTEMS["dislocate"], SYSTEMS["serf"]
    peer = f"serf {serf.version()}" if serf.version() else "serf (not installed)"
    vanished: tuple[list[float], list[float]] = ([], [])
    for size in (QUICK if quick else FULL).sizes:
        mine = _examine_apart(ours, size, quick)
        theirs = _examine_apart(serf, size, quick) if serf.version() else None
        yield Table(f"membership, {size} agents", peer, tuple(_figures(mine, theirs)))
        for found, delays in zip((mine, theirs), vanished, strict=True):
            delays += [one.all for one in found.vanishes] if found is not None else []
    means = tuple(mean(delays) if delays else None for delays in vanished)
    figure = Figure("vanished host to all, mean", "s", *means, Bound(1.0, of_peer=True))
    note = "pooled, since both wait for equally long a silence, and a probe comes within a second or two by chance"
    yield Table("membership, all sizes", peer, (figure,), note)


def _examine_apart(system: System, size: int, quick: bool) -> Findings:
    """In namespaces of their own: the network is theirs alone, and whatever ends this process ends all agents."""
    namespaces = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    command = [sys.executable, "-m", "bench.membership", system.name, str(size), "quick" if quick else "full"]
    output = subprocess.run([*namespaces, *command], stdout=subprocess.PIPE, check=True).stdout
    return msgspec.msgpack.decode(output, type=Findings)


def _figures(ours: Findings, peer: Findings | None) -> Iterator[Figure]:
    def figure(what: str, unit: str, value, bound: Bound | None = None) -> Figure:
        return Figure(what, unit, value(ours), value(peer) if peer is not None else None, bound)

    none = Bound(0)
    yield figure("start of the processes to all see all", "s", lambda found: found.boot)
    yield figure("last agent ready to all see all", "s", lambda found: found.join)
    yield figure("restarted agent ready to all see all, median", "s", lambda found: median(found.rejoins))
    yield figure("SIGKILL to first, median", "s", lambda found: median(kill.first for kill in found.kills))
    yield figure("SIGKILL to all, median", "s", lambda found: median(kill.all for kill in found.kills), Bound(1.5))
    yield figure("SIGKILL to all, worst", "s", lambda found: max(kill.all for kill in found.kills), Bound(3.0))
    yield figure("vanished host to first, median", "s", lambda found: median(one.first for one in found.vanishes))
    yield figure("vanished host to all, median", "s", lambda found: median(one.all for one in found.vanishes))
    yield figure("vanished host to all, worst", "s", lambda found: max(one.all for one in found.vanishes))
    for seconds in dict.fromkeys(stall.seconds for stall in ours.stalls):
        bound = none if seconds <= 4 else None
        yield figure(
            f"stopped {seconds:g} s: suspected by, mean",
            "agents",
            lambda found, s=seconds: mean(stall.suspected_by for stall in found.stalls if stall.seconds == s),
        )
        yield figure(
            f"stopped {seconds:g} s: declared dead by, most",
            "agents",
            lambda found, s=seconds: max(stall.dead_by for stall in found.stalls if stall.seconds == s),
            bound,
        )
        yield figure(
            f"stopped {seconds:g} s: views split",
            "times",
            lambda found, s=seconds: sum(stall.is_split for stall in found.stalls if stall.seconds == s),
            bound,
        )
        yield figure(
            f"stopped {seconds:g} s: continued to all see all, worst",
            "s",
            lambda found, s=seconds: max(stall.healed for stall in found.stalls if stall.seconds == s),
        )
    yield figure("anybody else declared dead, in all trials", "times", lambda found: found.others_dead, none)
    yield figure("idle CPU, % of a core", "an agent", lambda found: found.cpu_percent, Bound(1.0))
    yield figure("idle traffic", "bytes/s an agent", lambda found: found.bytes_per_second)
    yield figure("memory (PSS)", "MiB an agent", lambda found: found.memory_mib, Bound(40.0))


if __name__ == "__main__":  # one fleet, in a process of its own
    system, size, plan = sys.argv[1:4]
    found = examine(SYSTEMS[system], int(size), QUICK if plan == "quick" else FULL)
    os.write(sys.stdout.fileno(), msgspec.msgpack.encode(found))
