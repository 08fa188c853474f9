"""The other world: the same core in virtual time, with simulated links, disks and clocks.

report = simulate(read_scenario(Path("scenarios/wan-partition.toml")), seed=7)
"""

from sim.invariants import InvariantViolated
from sim.report import Report
from sim.run import Run, simulate
from sim.scenario import Scenario, parse_scenario, read_scenario
from sim.world import World

__all__ = ["InvariantViolated", "Report", "Run", "Scenario", "World", "parse_scenario", "read_scenario", "simulate"]
