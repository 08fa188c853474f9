"""The stories that policies are compared in, on the fleet of `plan`.  Demand in requests a second, by data center.

One data center can do 2,000.  Balanced is 60 % everywhere; skewed is 120 % in one, 70 % over all.
"""

from dislocate.core.units import MILLISECOND, SECOND
from sim.traffic.demand import Demand, Steady
from sim.traffic.plan import Moment, Plan


def _steady(a: float, b: float, c: float) -> dict[str, Demand]:
    return {"a": Steady(a), "b": Steady(b), "c": Steady(c)}


BALANCED = Plan(name="balanced", demand=_steady(1200, 1200, 1200))

SKEW = Plan(name="skew", demand=_steady(2400, 1000, 800))

LOSS = Plan(
    name="loss",
    demand=_steady(2400, 1000, 800),
    moments=(Moment(time=10 * SECOND, do="kill", datacenter="a", target=(0, 1, 2, 3, 4, 5)),),
)

SLOW_INSTANCE = Plan(
    name="slow instance",
    demand=_steady(1200, 1200, 1200),
    duration=25 * SECOND,
    moments=(Moment(time=10 * SECOND, do="slow", datacenter="a", target=(0,), factor=10.0),),
)

FLAPPING_INSTANCE = Plan(
    name="flapping instance",
    demand=_steady(1200, 1200, 1200),
    duration=25 * SECOND,
    moments=tuple(
        Moment(time=(8 + 4 * at) * SECOND, do="kill" if at % 2 == 0 else "start", datacenter="a", target=(0,))
        for at in range(5)
    ),
)

FAST_ERRORS = Plan(
    name="fast errors",
    demand=_steady(1200, 1200, 1200),
    duration=25 * SECOND,
    moments=(Moment(time=10 * SECOND, do="fail", datacenter="a", target=(0,), factor=0.9),),
)

ONE_WAY_PARTITION = Plan(
    name="one-way partition",
    demand=_steady(2400, 1000, 800),
    duration=25 * SECOND,
    moments=(Moment(time=12 * SECOND, do="cut", datacenter="b", to="a"),),
)

DRAIN_DATACENTER = Plan(
    name="drain of a data center",
    demand=_steady(1000, 1200, 1200),
    duration=25 * SECOND,
    moments=(Moment(time=10 * SECOND, do="drain", datacenter="a"),),
)

RETRY_STORM = Plan(
    name="retry storm",
    demand=_steady(1500, 1500, 1500),
    duration=25 * SECOND,
    limit=60,
    attempt_timeout=300 * MILLISECOND,
    timeout=1 * SECOND,
    moments=tuple(
        Moment(time=time * SECOND, do="slow", datacenter=name, factor=factor)
        for time, factor in ((10, 4.0), (15, 1.0))
        for name in ("a", "b", "c")
    ),
)

STORIES: tuple[Plan, ...] = (
    BALANCED,
    SKEW,
    LOSS,
    SLOW_INSTANCE,
    FLAPPING_INSTANCE,
    FAST_ERRORS,
    ONE_WAY_PARTITION,
    DRAIN_DATACENTER,
    RETRY_STORM,
)
