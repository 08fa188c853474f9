"""What must always hold, whatever the scenario: watched while a world runs, each counted, so that a vacuous one is said."""

from sim.invariants.balance import BALANCE
from sim.invariants.catalog import CATALOG
from sim.invariants.consensus import CONSENSUS
from sim.invariants.datacenters import DATACENTERS
from sim.invariants.membership import MEMBERSHIP
from sim.invariants.monitor import Invariant, InvariantViolated, Monitor
from sim.invariants.run_outcomes import RUN_OUTCOMES
from sim.invariants.runs import RUNS
from sim.invariants.scaling import SCALING
from sim.invariants.store import STORE

INVARIANTS: tuple[type[Invariant], ...] = (
    *MEMBERSHIP,
    *CATALOG,
    *DATACENTERS,
    *CONSENSUS,
    *STORE,
    *RUNS,
    *RUN_OUTCOMES,
    *BALANCE,
    *SCALING,
)

__all__ = ["INVARIANTS", "Invariant", "InvariantViolated", "Monitor"]
