"""Callers, instances and agents under faults that nobody thought of together: what must always hold of balancing holds."""

import os

import pytest

from dislocate.core.streams import Streams
from dislocate.core.units import SECOND
from sim.run import simulate
from sim.scenario import Datacenter, Fault, Scenario, Service, checked
from sim.workload.plan import Workload

FULL = os.environ.get("DISLOCATE_PROFILE") == "full"
NAMES = ("fra", "lon", "wdc")
LASTS = 45 * SECOND


def trouble(stream):
    """One fault: on agents, hosts, instances, or what is between data centers."""
    at = stream.between(10, 38) * SECOND
    lasting = stream.between(1, 15) * SECOND
    where = stream.choice(NAMES)
    agent, instance = f"{where}/a{stream.between(1, 2)}", f"{where}/shop.web#{stream.between(1, 2)}"
    other = stream.choice([name for name in NAMES if name != where])
    return stream.choice(
        (
            Fault(at, "kill", agent, lasting=lasting),
            Fault(at, "pause", agent, lasting=lasting),
            Fault(at, "vanish", agent, lasting=lasting),
            Fault(at, "kill", instance, lasting=lasting),
            Fault(at, "pause", instance, lasting=lasting),
            Fault(at, "kill", f"{where}/shop.web#1", lasting=lasting),
            Fault(at, "drain", instance, lasting=lasting),
            Fault(at, "drain", where, lasting=lasting),
            Fault(at, "serve_slow", instance, factor=float(2 << stream.below(4)), lasting=lasting),
            Fault(at, "serve_fail", instance, loss=stream.between(1, 10) / 10, lasting=lasting),
            Fault(at, "cut", origin=where, dest=other, oneway=stream.chance(0.5), lasting=lasting),
            Fault(at, "cut", origin=where, dest="*", lasting=lasting),
            Fault(at, "slow", origin=where, dest=other, factor=8.0, lasting=lasting),
            Fault(at, "drop", origin=where, dest=other, loss=0.2, lasting=lasting),
        )
    )


def story(seed):
    stream = Streams(f"requests/{seed}")["story"]
    rates = [stream.between(5, 60) * 1.0 for _ in NAMES]
    faults = sorted((trouble(stream) for _ in range(stream.between(2, 6))), key=lambda fault: fault.time)
    return checked(
        Scenario(
            title=f"Callers under faults {seed}",
            why="Whatever fails together, flows fit, calls are accounted for, and nobody is told that there is nobody.",
            duration=LASTS,
            datacenters={name: Datacenter(2) for name in NAMES},
            services=(
                Service("shop.web", per_datacenter=2, interval=SECOND, timeout=SECOND, workers=2, takes=40_000_000),
            ),
            workloads=tuple(
                Workload(name, "requests", service="shop.web", at=name, clients=2, rate=rate / 2, begin=6 * SECOND)
                for name, rate in zip(NAMES, rates, strict=True)
            ),
            at=tuple(faults),
        )
    )


@pytest.mark.parametrize("seed", range(1, 41 if FULL else 4))
def test_what_must_hold_of_balancing_holds_under_faults(seed):
    report = simulate(story(seed), seed)
    assert report.holds, report.as_text(f"seed {seed} of this test")
