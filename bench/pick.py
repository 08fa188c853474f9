"""What a pick and its report cost a caller.

CPU time of this thread, in rounds of 500 calls; what a round costs at best says what the code costs, the mean says what
it cost here, among whatever else ran, with what is done once a second.  Durations of calls are drawn beforehand, one
call ends while others are under way.  Beside it stands `random.choice` of the same endpoints, which learns nothing.
"""

import random
import time
from collections.abc import Callable, Iterator
from functools import partial

from msgspec import Struct, structs

from bench.report import Bound, Figure, Table
from dislocate.core.balance.picker import Picker
from dislocate.core.boundary.balance import Algorithm, Policy, Route, Share
from dislocate.core.boundary.values import Status
from dislocate.core.boundary.views import InstanceView
from dislocate.core.streams import Streams
from dislocate.core.units import MICROSECOND, MILLISECOND, SECOND

ROUND = 500  # calls
UNDER_WAY = 16  # calls at a time
APART = 100 * MICROSECOND  # between calls: 10,000 a second
WIDE = 1_000_000  # an aperture for all


class Case(Struct, frozen=True):
    """A fleet, and how it is picked from."""

    what: str
    endpoints: int  # a data center
    shares: tuple[Share, ...] = (Share("fra", 1.0),)
    policy: Policy = Policy()
    keys: tuple[str, ...] = ("",)
    limit: float | None = None  # microseconds


KEYS = tuple(f"customer-{at}" for at in range(100))
SPLIT = (Share("fra", 0.7), Share("ams", 0.2), Share("wdc", 0.1))
CASES = (
    Case("20 endpoints", 20, limit=1.5),
    Case("1,000 endpoints", 1_000, limit=2.0),
    Case("20 endpoints, all in the aperture", 20, policy=Policy(aperture=WIDE), limit=1.5),
    Case("1,000 endpoints, all in the aperture", 1_000, policy=Policy(aperture=WIDE), limit=2.0),
    Case("three data centers with shares, 20 endpoints each", 20, SPLIT, limit=1.5),
    Case("by weight", 20, policy=Policy(algorithm=Algorithm.WEIGHTED), limit=1.5),
    Case("by key, 20 endpoints", 20, policy=Policy(algorithm=Algorithm.HASH), keys=KEYS),
    Case("by key, 1,000 endpoints", 1_000, policy=Policy(algorithm=Algorithm.HASH), keys=KEYS),
)


def route(case: Case) -> Route:
    """The route of a case, every instance up."""
    instances = tuple(
        InstanceView(
            id="1",
            service="orders.api",
            node=f"{share.datacenter}/n{at}",
            datacenter=share.datacenter,
            address=f"10.0.{at >> 8}.{at & 255}",
            port=8080,
            status=Status.PASSING,
            tags=(),
            meta={},
            weight=1,
            load=None,
            as_of=0,
            reachable=True,
        )
        for share in case.shares
        for at in range(case.endpoints)
    )
    return Route(
        service="orders.api",
        home="fra",
        index=1,
        epoch=1,
        policy=case.policy,
        shares=case.shares,
        instances=instances,
        as_of=0,
    )


def rounds(picker: Picker, keys: tuple[str, ...], count: int) -> list[float]:
    """Microseconds of CPU of a pick and its report, a number a round."""
    pick, done = picker.pick, picker.done
    chance = random.Random(7)
    calls = [(round(chance.expovariate(1.0 / (2 * MILLISECOND))), chance.choice(keys)) for _ in range(ROUND)]
    now = 1_000_000 * SECOND
    open_calls = [pick(now) for _ in range(UNDER_WAY)]
    costs: list[float] = []
    slot = 0
    for _ in range(count):
        began = time.thread_time_ns()
        for duration, key in calls:
            done(open_calls[slot], open_calls[slot].began + duration)
            open_calls[slot] = pick(now, key=key)
            now += APART
            slot = (slot + 1) % UNDER_WAY
        costs.append((time.thread_time_ns() - began) / ROUND / 1000)
    return costs


def around(count: int) -> float:
    """Microseconds that the loop itself costs a call, at best: taken off every figure."""

    class Call:
        began = 0

    open_calls = [Call() for _ in range(UNDER_WAY)]
    costs = []
    now = 1_000_000 * SECOND
    slot = 0
    for _ in range(count):
        began = time.thread_time_ns()
        for duration, _key in [(at, "") for at in range(ROUND)]:
            open_calls[slot].began + duration
            open_calls[slot] = open_calls[slot]
            now += APART
            slot = (slot + 1) % UNDER_WAY
        costs.append((time.thread_time_ns() - began) / ROUND / 1000)
    return min(costs)


def best_of(work: Callable[[], object], count: int) -> float:
    """Microseconds of CPU of one call of `work`, at best."""
    costs = []
    for _ in range(count):
        began = time.thread_time_ns()
        for _ in range(ROUND):
            work()
        costs.append((time.thread_time_ns() - began) / ROUND / 1000)
    return min(costs)


def measure(quick: bool) -> Iterator[Table]:
    """One table: the cases, beside `random.choice`."""
    count = 60 if quick else 300
    empty = around(count)
    figures: list[Figure] = []
    peers: dict[int, float] = {}
    for case in CASES:
        picker = Picker("orders.api", Streams("bench")["picker"], "caller-1")
        picker.update(route(case), 1_000_000 * SECOND - SECOND)
        costs = rounds(picker, case.keys, count)
        if case.endpoints not in peers:
            keys = [str(at) for at in range(case.endpoints)]
            peers[case.endpoints] = best_of(partial(random.choice, keys), count // 3)
        bound = Bound(case.limit) if case.limit is not None else None
        mean = sum(costs) / len(costs) - empty
        figures.append(Figure(case.what, "us", min(costs) - empty, peers[case.endpoints], bound, f"mean {mean:.2f}"))
    yield Table(
        "A pick and its report", "random.choice", tuple(figures), f"{ROUND} calls a round, best of {count}; CPU time"
    )
    yield Table("A new route", "", tuple(_updates(quick)))


def _updates(quick: bool) -> Iterator[Figure]:
    """What a route costs that changed one of a thousand instances; a second's housekeeping is in the means above."""
    case = Case("", 1_000)
    before = route(case)
    changed = before.instances[0]
    costs: list[float] = []
    picker = Picker("orders.api", Streams("bench")["picker"], "caller-1")
    now = 1_000_000 * SECOND
    picker.update(before, now)
    for at in range(3 if quick else 20):
        status = Status.CRITICAL if at % 2 == 0 else Status.PASSING
        instances = (structs.replace(changed, status=status), *before.instances[1:])
        after = structs.replace(before, index=2 + at, instances=instances)
        began = time.thread_time_ns()
        picker.update(after, now + at * SECOND)
        costs.append((time.thread_time_ns() - began) / 1e6)
    yield Figure("one of 1,000 instances changed", "ms", min(costs), note=f"mean {sum(costs) / len(costs):.2f}")
