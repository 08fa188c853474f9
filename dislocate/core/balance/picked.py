"""A call under way, and why it goes where it goes, in words for people."""

from msgspec import Struct

from dislocate.core.balance.endpoint import Endpoint
from dislocate.core.balance.endpoints import ANSWERED
from dislocate.core.boundary.balance import Route
from dislocate.core.units import SECOND

OPEN, REACHED, DONE = 0, 1, 2  # stages: it is under way, its connection was made, it ended
STALE = 10 * SECOND  # a route that nobody confirmed for so long is said to be old


class Known:
    """What a picker was told last, and when."""

    __slots__ = ("confirmed", "dark", "lost_at", "route")

    def __init__(self) -> None:
        self.route: Route | None = None
        self.confirmed = 0  # when the route was last known to be current
        self.dark: tuple[str, ...] = ()  # data centers to which no connection was made lately
        self.lost_at: int | None = None  # since when nobody is registered; None: somebody is

    def age(self, now: int) -> int:
        """Nanoseconds since the route was last known to be current."""
        return max(0, now - self.confirmed)


class Picked(Struct, gc=False):  # nothing that it refers to refers to it
    """A call under way: give it back to `done`, once."""

    endpoint: Endpoint
    began: int
    _known: Known
    _other: Endpoint | None = None  # what it was preferred to
    _note: str = ""
    stage: int = OPEN

    @property
    def is_done(self) -> bool:
        return self.stage == DONE

    @property
    def why(self) -> str:
        """The reasons in a sentence; numbers are those of the moment of asking."""
        endpoint, known, began = self.endpoint, self._known, self.began
        parts = [self._note or _compared(endpoint, self._other)]
        if known.route is not None:
            share = next((one.share for one in known.route.shares if one.datacenter == endpoint.datacenter), 0.0)
            parts.append(f"{share:.0%} of the traffic from {known.route.home} goes to {endpoint.datacenter}")
        if known.dark and endpoint.datacenter not in known.dark:
            parts.append(f"no connection to {', '.join(known.dark)} was made lately: what goes there goes elsewhere")
        if known.lost_at is not None:
            age = max(0, began - known.lost_at) / SECOND
            parts.append(f"nobody is registered any more: last known good, {age:.0f} s old")
        elif endpoint.place is not None and endpoint.place.grade >= ANSWERED:
            parts.append(f"nobody better is known: it is {endpoint.view.status.value}{_told_at(endpoint, began)}")
        if known.age(began) > STALE:
            parts.append(f"the agent was last heard {known.age(began) / SECOND:.0f} s ago")
        return "; ".join(parts)


def _compared(endpoint: Endpoint, other: Endpoint | None) -> str:
    if other is None or other is endpoint:
        return f"drawn by weight: {_expected(endpoint, besides=1)}"
    return f"the better of two: {_expected(endpoint, besides=1)}, rather than {other.key}: {_expected(other)}"


def _expected(endpoint: Endpoint, besides: int = 0) -> str:
    """`besides` calls are no reason: this one."""
    in_flight = f"{max(0, endpoint.pending - besides)} in flight"
    return (
        f"{in_flight}, {endpoint.cost * 1000.0:.3g} ms" if endpoint.stamp else in_flight
    )  # else nothing was measured yet


def _told_at(endpoint: Endpoint, now: int) -> str:
    if not endpoint.view.as_of or endpoint.view.as_of > now:
        return ""
    return f", told {(now - endpoint.view.as_of) / SECOND:.0f} s ago"
