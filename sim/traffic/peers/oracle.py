"""The oracle: sees every queue of every instance, and all that is on its way there, at the moment of choosing; what slows an
instance or kills it, within a second or as soon as health checks do.

It sends each call where it would be answered soonest: round trip, expected wait, expected service.  No real policy can
know this; it is what the others are measured against.
"""

from collections.abc import Sequence
from operator import attrgetter

from dislocate.core.units import SECOND
from sim.traffic.balancer import Call, Known, Place, Setting, Told
from sim.traffic.peers.common import Plain

LOAD = attrgetter("load")
PER_ERROR = 1 * SECOND  # what a certain error would cost


class Oracle(Plain):
    """Knows everything but how long the next service takes."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._stream = setting.streams["ties"]
        plan = setting.plan
        self._rtt = {
            here: {there: plan.round_trip(here, there) for there in plan.datacenters} for here in plan.datacenters
        }
        self._usable: list[tuple[str, list[Place]]] = []
        self._look()

    def choose(self, call: Call, now: int, *, retry: bool) -> Place | None:
        home, plan, blocked = call.caller.home, self.setting.plan, self.setting.blocked
        mean, workers, rtt = plan.service_time.mean, plan.workers, self._rtt[call.caller.datacenter]
        best: Place | None = None
        least = 0.0
        for name, alike in self._usable:
            there = alike[0].home
            if blocked[home][there] or blocked[there][home]:
                continue
            # Whoever comes first from here wins a tie.
            first = int(self._stream.unit() * len(alike))
            place = min(alike[first:] + alike[:first], key=LOAD)
            ahead = max(0, place.load + 1 - workers)
            station = place.station
            soonest = rtt[name] + mean * station.slowness * (1.0 + ahead / workers)
            soonest += PER_ERROR * station.fails
            if best is None or soonest < least:
                best, least = place, soonest
        return best

    def tick(self, now: int, told: Sequence[Told | None]) -> None:
        self._look()

    def changed(self, now: int) -> None:
        self._look()

    def _look(self) -> None:
        """Group the places that serve alike: only among equals is the shortest queue the soonest."""
        groups: dict[tuple[str, float, float], list[Place]] = {}
        for place in self.setting.places:
            station = place.station
            if station.is_up and not station.is_stopped and place.known is not Known.DRAINING:
                groups.setdefault((place.datacenter, station.slowness, station.fails), []).append(place)
        self._usable = [(key[0], places) for key, places in groups.items()]
