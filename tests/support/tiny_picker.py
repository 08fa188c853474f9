"""A caller with a clock of its own around one picker, and routes in one line."""

from collections import Counter
from collections.abc import Sequence

from dislocate.core.balance.picker import Outcome, Picked, Picker
from dislocate.core.boundary.balance import Policy, Route, Share
from dislocate.core.boundary.values import Status
from dislocate.core.boundary.views import InstanceView
from dislocate.core.streams import Streams
from dislocate.core.units import MILLISECOND, SECOND

START = 1_000 * SECOND


def instance(name: str, status: Status = Status.PASSING, **fields: object) -> InstanceView:
    """'fra/a1' has one instance, '1', on port 80."""
    known = {
        "id": "1",
        "service": "orders.api",
        "node": name,
        "datacenter": name.partition("/")[0],
        "address": "10.0.0.1",
        "port": 80,
        "status": status,
        "tags": (),
        "meta": {},
        "weight": 1,
        "load": None,
        "as_of": 0,
        "reachable": True,
    }
    return InstanceView(**{**known, **fields})


def fleet(datacenter: str, count: int, **fields: object) -> list[InstanceView]:
    """'fra/a0', 'fra/a1' ..."""
    return [instance(f"{datacenter}/a{at}", **fields) for at in range(count)]


def route(instances: Sequence[InstanceView], policy: Policy | None = None, **shares: float) -> Route:
    """All to 'fra' where no shares are given; home is 'fra'."""
    return Route(
        service="orders.api",
        home="fra",
        index=1,
        epoch=1,
        policy=policy or Policy(),
        shares=tuple(Share(name, part) for name, part in (shares or {"fra": 1.0}).items()),
        instances=tuple(instances),
        as_of=0,
    )


class Caller:
    """Calls, one after another or many at a time; time passes only when it says so."""

    def __init__(self, first: Route | None = None, seed: str = "1", name: str = "caller-1") -> None:
        self.now = START
        self.picker = Picker("orders.api", Streams(seed)["picker"], name)
        if first is not None:
            self.picker.update(first, self.now)

    def pick(self, **how: object) -> Picked:
        return self.picker.pick(self.now, **how)

    def done(self, picked: Picked, takes: int = 0, outcome: Outcome = Outcome.OK) -> None:
        self.now += takes
        self.picker.done(picked, self.now, outcome)

    def call(self, takes: int = 10 * MILLISECOND, outcome: Outcome = Outcome.OK, **how: object) -> str:
        """One call from pick to end; the endpoint's node."""
        picked = self.pick(**how)
        self.done(picked, takes, outcome)
        return picked.endpoint.node

    def calls(self, count: int, takes: int = 10 * MILLISECOND, **how: object) -> Counter[str]:
        """So many calls by node."""
        return Counter(self.call(takes, **how) for _ in range(count))

    def serve(self, count: int, broken: dict[str, Outcome], takes: int = 10 * MILLISECOND) -> Counter[str]:
        """Calls in which the nodes in `broken` fail in a tenth of the time."""
        went: Counter[str] = Counter()
        for _ in range(count):
            picked = self.pick()
            outcome = broken.get(picked.endpoint.node, Outcome.OK)
            self.done(picked, takes if outcome is Outcome.OK else takes // 10, outcome)
            went[picked.endpoint.node] += 1
        return went

    def wait(self, nanoseconds: int) -> None:
        self.now += nanoseconds


def by_datacenter(went: Counter[str]) -> Counter[str]:
    found: Counter[str] = Counter()
    for node, calls in went.items():
        found[node.partition("/")[0]] += calls
    return found
