"""Reports: what the first relays of the data centers said last, by service.

Invariants: of one relay the higher (boot, stamp) wins; of several, the first living one whose word is fresh, else the word
heard last.  Only data centers with a known member are listened to, and at most `FLOW_SERVICES` services; numbers that
cannot be measured are no report.
"""

from collections.abc import Callable
from math import isfinite

from msgspec import Struct

from dislocate.core.balance.messages import FlowReport
from dislocate.core.identity import Path
from dislocate.core.tunables import FLOW_FORGOTTEN, FLOW_FRESH, FLOW_SERVICES, RATE_LIMIT, RELAYS

PLACES_TOLD = 64  # data centers in one report: more do not fit a datagram


class Heard(Struct, frozen=True):
    """A report, and when it came (monotonic nanoseconds of this node)."""

    report: FlowReport
    at: int


def is_sound(report: FlowReport) -> bool:
    """Whether a relay can have meant it."""
    numbers = (
        report.demand,
        report.endpoint_capacity,
        report.concurrency,
        report.live,
        report.weight,
        report.backlog,
    )
    parts = (*(share for place in report.places for share in (place.target, place.share)), report.rho)
    return (
        0 < len(report.service) <= 200
        and len(report.places) <= PLACES_TOLD
        and all(isfinite(number) and 0.0 <= number <= RATE_LIMIT for number in numbers)
        and all(isfinite(part) and 0.0 <= part <= 1.0 for part in parts)
        and len({place.datacenter for place in report.places}) == len(report.places)
    )


class Reports:
    """All of them."""

    def __init__(self, relays: Callable[[str], tuple[Path, ...]]) -> None:
        self._relays = relays  # of a data center, living, first relay first
        self._by_service: dict[str, dict[str, dict[Path, Heard]]] = {}

    def services(self) -> tuple[str, ...]:
        return tuple(self._by_service)

    def hear(self, report: FlowReport, now: int) -> bool:
        """Take it in; whether it was news."""
        path, datacenter = report.relay.path, report.relay.datacenter
        places = self._by_service.get(report.service)
        if places is None:
            if len(self._by_service) >= FLOW_SERVICES:
                return False
            places = self._by_service[report.service] = {}
        relays = places.setdefault(datacenter, {})
        known = relays.get(path)
        if known is not None and (report.relay.boot, report.stamp) <= (known.report.relay.boot, known.report.stamp):
            return False
        relays[path] = Heard(report, now)
        if len(relays) > RELAYS:
            del relays[min(relays, key=lambda relay: (relays[relay].at, relay))]
        return True

    def datacenters(self, service: str) -> tuple[str, ...]:
        """Those that said anything of `service`, in order."""
        return tuple(sorted(self._by_service.get(service, {})))

    def first(self, service: str, datacenter: str, now: int) -> Heard | None:
        """The fresh word of the first living relay that has one."""
        relays = self._by_service.get(service, {}).get(datacenter, {})
        for path in self._relays(datacenter) if relays else ():
            heard = relays.get(path)
            if heard is not None and now - heard.at < FLOW_FRESH:
                return heard
        return None

    def best(self, service: str, datacenter: str, now: int) -> Heard | None:
        """That of the first living relay; where none is fresh, what was heard last, however old."""
        first = self.first(service, datacenter, now)
        if first is not None:
            return first
        relays = self._by_service.get(service, {}).get(datacenter, {})
        return max(relays.values(), key=lambda heard: (heard.at, heard.report.relay.path), default=None)

    def is_called(self, service: str, now: int) -> bool:
        """Whether anybody anywhere said of late that it is called."""
        return any(
            heard.report.demand > 0.0 and now - heard.at < FLOW_FORGOTTEN
            for relays in self._by_service.get(service, {}).values()
            for heard in relays.values()
        )

    def forget(self, service: str) -> None:
        self._by_service.pop(service, None)
