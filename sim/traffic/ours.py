"""What ships, in the engine: the real pickers, and the real waterfill at a relay of each data center.

A relay gathers what its callers offer and its instances report, once a second; the others hear it a second later.  Who
lives is known at once, as health checks tell everybody.  What an agent does besides (choosing relays, packets, staleness)
is simulated with whole fleets, not here.
"""

from collections.abc import Sequence

from msgspec import Struct

from dislocate.core.balance.endpoints import lives, up_weight
from dislocate.core.balance.flows import Costs, capacity_of, solve
from dislocate.core.balance.flows import Place as Carrier
from dislocate.core.balance.gathering import Gathering, Numbers
from dislocate.core.balance.nearby import nearest_shares
from dislocate.core.balance.picker import Picker
from dislocate.core.balance.smoothing import Smoothing
from dislocate.core.boundary.balance import Policy, Route, Share
from dislocate.core.boundary.values import Load, Status
from dislocate.core.boundary.views import InstanceView
from sim.traffic.balancer import Call, Ended, Known, Place, Setting, Told
from sim.traffic.pickers import Pickers

STATUS = {Known.UP: Status.PASSING, Known.DRAINING: Status.DRAINING, Known.DOWN: Status.CRITICAL}


class Relay(Struct):
    """Who computes the row of one data center."""

    gathering: Gathering
    smoothing: Smoothing
    heard: dict[str, Numbers]  # of the other data centers
    target: tuple[Share, ...] = ()
    rho: float = 0.0


class Dislocate:
    """Waterfill between data centers, two choices inside."""

    def __init__(self, setting: Setting, policy: Policy | None = None) -> None:
        self.setting = setting
        self.policy = policy or Policy()
        self.relays = {name: Relay(Gathering(), Smoothing(name), {}) for name in setting.plan.datacenters}
        self._up_since = {place.at: -self.policy.slow_start for place in setting.places if place.known is Known.UP}
        self._told: Sequence[Told | None] = [None] * len(setting.places)
        self._index = 0
        self._epoch = 0
        self.pickers = {
            caller.at: Picker("shop", setting.streams[f"picker/{caller.at}"], f"{caller.datacenter}/{caller.at}")
            for caller in setting.callers
        }
        self._choosing = Pickers(self.pickers, {place.key: place for place in setting.places})
        self._views: dict[str, tuple[InstanceView, ...]] = {}
        self.changed(0)

    # ---- a call

    def choose(self, call: Call, now: int, *, retry: bool) -> Place | None:
        return self._choosing.choose(call, now, retry=retry)

    def done(self, call: Call, now: int, ended: Ended) -> None:
        self._choosing.done(call, now, ended)

    # ---- once a second, and when something happens

    def tick(self, now: int, told: Sequence[Told | None]) -> None:
        self._told = told
        said = {name: relay.gathering.told for name, relay in self.relays.items()}
        for relay in self.relays.values():  # what was told a second ago
            relay.heard = dict(said)
        self._look(now)
        for caller in self.setting.callers:
            usage = self.pickers[caller.at].usage(now)
            offered = usage.offered if usage is not None else 0.0
            self.relays[caller.datacenter].gathering.offered(f"{caller.datacenter}/{caller.at}", offered, now)
        for name, relay in self.relays.items():
            living = tuple(view for view in self._views[name] if lives(view))
            relay.gathering.second(living, now)
            relay.gathering.tell(living, self._live(name, now))
        self._row(now, at_once=False)

    def changed(self, now: int) -> None:
        for place in self.setting.places:
            if place.known is not Known.UP:
                self._up_since.pop(place.at, None)
            else:
                self._up_since.setdefault(place.at, now)
        self._index += 1
        self._look(now)
        self._row(now, at_once=True)

    def _look(self, now: int) -> None:
        views: dict[str, list[InstanceView]] = {name: [] for name in self.relays}
        for place in self.setting.places:
            views[place.datacenter].append(self._view(place, now))
        self._views = {name: tuple(of_it) for name, of_it in views.items()}

    def _view(self, place: Place, now: int) -> InstanceView:
        told = self._told[place.at]
        load = None if told is None else Load(told.utilization, told.in_flight, told.rate)
        return InstanceView(
            id=place.id,
            service="shop",
            node=place.key.rpartition("/")[0],
            datacenter=place.datacenter,
            address=f"10.0.{place.home}.{place.at}",
            port=80,
            status=STATUS[place.known],
            tags=(),
            meta={},
            weight=1,
            load=load,
            as_of=now,
            reachable=True,
        )

    def _live(self, name: str, now: int) -> float:
        return sum(
            up_weight(view, self._up_since.get(place.at, now), now, self.policy)
            for place, view in zip(
                (place for place in self.setting.places if place.datacenter == name), self._views[name], strict=True
            )
            if lives(view)
        )

    def _row(self, now: int, *, at_once: bool) -> None:
        costs = self._costs()
        live = {name: self._live(name, now) for name in self.relays}
        for source, relay in self.relays.items():
            known = relay.heard | {source: relay.gathering.told}
            if all(numbers.endpoint_capacity <= 0.0 for numbers in known.values()):
                views = tuple(view for of_it in self._views.values() for view in of_it)
                relay.target = nearest_shares(source, views, self.policy, costs[source])
            else:
                relay.target = self._solved(source, known, live, costs, relay)
            relay.smoothing.step(relay.target, now, at_once)
        self._epoch += 1
        for caller in self.setting.callers:
            self.pickers[caller.at].update(self._route(caller.datacenter, now), now)

    def _solved(
        self, source: str, known: dict[str, Numbers], live: dict[str, float], costs: Costs, relay: Relay
    ) -> tuple[Share, ...]:
        # One that has not been loaded enough to tell counts as the others do.
        measured = [numbers.endpoint_capacity for numbers in known.values() if numbers.endpoint_capacity > 0.0]
        usual = sum(measured) / len(measured)
        carriers = [
            Carrier(
                name,
                numbers.demand,
                capacity_of(numbers.endpoint_capacity or usual, live[name], numbers.backlog) if live[name] else 0.0,
            )
            for name, numbers in known.items()
        ]
        row = solve(carriers, costs, self.policy)[source]
        relay.rho = row.rho
        return row.shares

    def _costs(self) -> dict[str, dict[str, int | None]]:
        plan, cut = self.setting.plan, self.setting.cut
        return {
            here: {
                there: _cost(
                    plan.round_trip(here, there), here == there, bool(cut.get((here, there)) or cut.get((there, here)))
                )
                for there in plan.datacenters
            }
            for here in plan.datacenters
        }

    def _route(self, home: str, now: int) -> Route:
        return Route(
            service="shop",
            home=home,
            index=self._index,
            epoch=self._epoch,
            policy=self.policy,
            shares=self.relays[home].smoothing.shares,
            instances=tuple(view for of_it in self._views.values() for view in of_it),
            as_of=now,
        )


def _cost(round_trip: int, is_home: bool, is_cut: bool) -> int | None:
    return None if is_cut else 0 if is_home else round_trip
