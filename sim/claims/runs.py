"""Claims about config runs.  `run`: the name, of which the last that began is meant; `status`: the state."""

from dislocate.core.identity import Path
from sim.claims.view import ViewClaim, subjects
from sim.observed import Observed
from sim.scenario import Expect


def run_is(observed: Observed, observer: Path, expect: Expect) -> str | None:
    """Every observer answers that the run is `status`."""
    run = observed.run_of(observer, expect.run)
    found = "unknown" if run is None else run.state
    return None if found == expect.status else f"{observer} says that run {expect.run} is {found}"


def run_nodes(observed: Observed, observer: Path, expect: Expect) -> str | None:
    """Every observer answers that each of `of` is `status` in the run."""
    run = observed.run_of(observer, expect.run)
    for path in subjects(observed, expect):
        found = "unknown" if run is None else run.nodes.get(path, "pending")
        if found != expect.status:
            return f"{observer} says that {path} is {found} in run {expect.run}"
    return None


RUN_CLAIMS: dict[str, ViewClaim] = {
    "run_is": run_is,
    "run_nodes": run_nodes,
}
