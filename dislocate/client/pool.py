"""Pool: what a proxy should do with each instance of a service, from the answer of GET /api/services/NAME/flows.  Pure.

Invariants: weights are relative to the largest, which is 1; whoever gets any traffic has one above 0; who is spare has 0 and
stays ready.  By load: an instance that says how busy it is and how much it serves is weighted by what it could serve
(rate / utilization, as gRPC's weighted round robin, gRFC A58), within a quarter and four times the mean of its data center;
that ratio does not move with the traffic that it causes, where utilization alone would swing.
"""

from collections.abc import Iterable, Mapping
from enum import Enum
from statistics import fmean
from typing import Any

from msgspec import Struct

LEAST_UTILIZATION = 0.2  # below it the ratio is noise (the solver's bound for measuring capacity)
LEAST, MOST = 0.25, 4.0  # of the mean


class State(Enum):
    """What a proxy does with a server."""

    READY = "ready"
    DRAIN = "drain"  # nothing new; what is stuck to it may stay
    MAINT = "maint"  # an operator took it out
    DOWN = "down"  # it does not work, as far as is known


class Server(Struct, frozen=True):
    """One instance, as a proxy sees it."""

    key: str  # 'dc/node/id'
    datacenter: str
    address: str
    port: int
    weight: float  # 0..1, of the largest; 0: spare, or out
    state: State
    status: str  # of the instance, for words

    @property
    def place(self) -> str:
        """'address:port'."""
        return f"{self.address}:{self.port}"

    @property
    def is_spare(self) -> bool:
        """It works, and gets nothing now."""
        return self.state is State.READY and not self.weight


def pool(flows: Mapping[str, Any], *, by_load: bool = False) -> tuple[Server, ...]:
    """All instances of a service, in an order that does not depend on how they fare."""
    instances = sorted(flows["instances"], key=lambda each: (each["datacenter"], each["node"], each["id"]))
    factors = _factors(instances) if by_load else {}
    parts = {_key(each): (each["part"] or 0.0) * factors.get(_key(each), 1.0) for each in instances}
    largest = max(parts.values(), default=0.0)
    return tuple(
        Server(
            key=_key(each),
            datacenter=each["datacenter"],
            address=each["address"],
            port=each["port"],
            weight=parts[_key(each)] / largest if largest else 0.0,
            state=_state(each),
            status=each["status"],
        )
        for each in instances
    )


def scaled(weight: float, largest: int) -> int:
    """`weight` as a whole number of at most `largest`; 0 only for none at all."""
    return max(1, round(weight * largest)) if weight else 0


def _key(instance: Mapping[str, Any]) -> str:
    return f"{instance['node']}/{instance['id']}"


def _state(instance: Mapping[str, Any]) -> State:
    if instance["part"] is not None:
        return State.READY
    return {"draining": State.DRAIN, "maintenance": State.MAINT}.get(instance["status"], State.DOWN)


def _factors(instances: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """By key what each that tells its load could serve, for its weight, of the mean in its data center."""
    able: dict[str, dict[str, float]] = {}
    for each in instances:
        load = each["load"]
        if each["part"] and each["weight"] and load and load["rate"] and load["utilization"] > LEAST_UTILIZATION:
            ability = load["rate"] / load["utilization"] / each["weight"]
            able.setdefault(each["datacenter"], {})[_key(each)] = ability
    return {
        key: min(MOST, max(LEAST, ability / fmean(place.values())))
        for place in able.values()
        for key, ability in place.items()
    }
