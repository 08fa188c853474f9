"""What a claim of a view is: a function of one observer's answers, and whom the claim is about."""

from collections.abc import Callable
from typing import TypeAlias

from dislocate.core.identity import Path
from sim.observed import Observed
from sim.scenario import Expect

ViewClaim: TypeAlias = Callable[[Observed, Path, Expect], str | None]  # why it does not hold there, None when it does


def subjects(observed: Observed, expect: Expect) -> list[Path]:
    """The agents that a claim is about."""
    excepted = dict.fromkeys(observed.layout.agents(expect.excepting))
    return [path for path in observed.layout.agents(expect.of or "*") if path not in excepted]
