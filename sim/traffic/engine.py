"""The engine: one plan over one policy, request by request.

A call is begun by its caller's demand or user, chooses a place, travels half a round trip, waits, is served, travels
back; it is tried again after an error, a refused connection or a timeout, as often as the plan and the policy let it.
Invariant: calls begun = calls ended + calls on the way.  Everything follows from plan, policy and seed.
"""

from collections.abc import Callable
from typing import TypeAlias

from dislocate.core.streams import Streams
from dislocate.core.units import MILLISECOND, SECOND
from sim.schedule import Schedule
from sim.traffic.balancer import Balancer, Call, Caller, Ended, Known, Place, Setting, Told
from sim.traffic.calls import ENDED, Calls, Patience
from sim.traffic.chances import exponential
from sim.traffic.demand import next_arrival
from sim.traffic.measures import Ending, Measured, measured
from sim.traffic.plan import Moment, Plan
from sim.traffic.station import Answer, Station

TICK = 1 * SECOND

NewBalancer: TypeAlias = Callable[[Setting], Balancer]
Job: TypeAlias = tuple[Call, int]  # and the number of the attempt


class Traffic:
    """One run."""

    def __init__(self, plan: Plan, new_balancer: NewBalancer, seed: int) -> None:
        self.plan = plan
        self.schedule = schedule = Schedule()
        self.streams = streams = Streams(f"{seed}/traffic/{plan.name}")
        self._names = names = plan.datacenters
        self._way = [[plan.round_trip(one, other) // 2 for other in names] for one in names]
        self._blocked = [[False] * len(names) for _ in names]
        self.places = tuple(
            self._place(home * plan.instances + number, name, home, number)
            for home, name in enumerate(names)
            for number in range(plan.instances)
        )
        self.callers = tuple(
            Caller(home * plan.callers + number, name, home)
            for home, name in enumerate(names)
            for number in range(plan.callers)
        )
        self._cut: dict[tuple[str, str], bool] = {}
        self.balancer = new_balancer(
            Setting(plan, self.places, self.callers, Streams(f"{seed}/policy"), self._cut, self._blocked)
        )
        self._keys = streams["keys"]
        self._pace = [streams[f"caller/{one.at}"] for one in self.callers]
        self.ends: list[Ending] = []
        patience = Patience(plan.timeout, plan.attempt_timeout, plan.connect_timeout, plan.attempts)
        self._calls = Calls(schedule, self.balancer, self, patience, self._over)
        self._moments = {"kill": self._kill, "start": self._start, "slow": self._slow, "fail": self._fail}
        self._moments |= {"drain": self._drain, "undrain": self._undrain, "cut": self._cut_off, "heal": self._heal}
        for caller in self.callers:
            self._let_begin(caller)
        for moment in plan.moments:
            schedule.call(moment.time, self._happens, moment)
        schedule.call_last(TICK, self._tick, None)

    def run(self) -> "Traffic":
        """To the end of the plan, and until the last call has ended: who waits longest must not be left out."""
        self.schedule.run(self.plan.duration + self.plan.timeout + self.plan.attempt_timeout + TICK)
        return self

    def measured(self) -> Measured:
        """What callers saw after the warm-up."""
        return measured(self.ends, self.plan, self._calls.begun, self._calls.attempts)

    @property
    def on_the_way(self) -> int:
        """Calls that have not ended."""
        return self._calls.begun - self._calls.ended

    # ---- calls

    def _let_begin(self, caller: Caller) -> None:
        stream = self._pace[caller.at]
        if self.plan.users:
            for _ in range(self.plan.users):
                self.schedule.call(exponential(stream, max(MILLISECOND, self.plan.think)), self._user, caller)
        else:
            self._arrive_next(caller, 0)

    def _arrive_next(self, caller: Caller, now: int) -> None:
        demand = self.plan.demand[caller.datacenter]
        if demand.peak > 0 and now < self.plan.duration:
            at = next_arrival(demand, 1 / self.plan.callers, now, self._pace[caller.at])
            self.schedule.call(at, self._arrived, caller)

    def _arrived(self, caller: Caller, _: None, __: None) -> None:
        self._arrive_next(caller, self.schedule.now)
        self._user(caller, None, None)

    def _user(self, caller: Caller, _: None, __: None) -> None:
        if self.schedule.now >= self.plan.duration:
            return
        self._calls.begin(caller, self.plan.keys.draw(self._keys) if self.plan.keys is not None else "")

    # ---- the way there and back

    def send(self, call: Call, attempt: int, place: Place) -> bool:
        """The request travels.  False: on one of the two ways nothing passes."""
        here, there = call.caller.home, place.home
        if self._blocked[here][there] or self._blocked[there][here]:
            return False
        place.load += 1
        self.schedule.call(self.schedule.now + self._way[here][there], self._reached, call, attempt, place)
        return True

    def _reached(self, call: Call, attempt: int, place: Place) -> None:
        if self._blocked[call.caller.home][place.home]:
            place.load -= 1
        elif place.station.is_up:
            place.station.receive((call, attempt))
        else:
            self._send_back(call, attempt, Ended.REFUSED, place)

    def _answered(self, place: Place, job: Job, answer: Answer) -> None:
        self._send_back(job[0], job[1], ENDED[answer], place)

    def _send_back(self, call: Call, attempt: int, ended: Ended, place: Place) -> None:
        place.load -= 1
        there, here = place.home, call.caller.home
        if not self._blocked[there][here]:
            at = self.schedule.now + self._way[there][here]
            self.schedule.call(at, self._calls.replied, call, attempt, ended)

    def _over(self, call: Call, where: int) -> None:
        now, caller = self.schedule.now, call.caller
        self.ends.append((call.begun, now - call.begun, caller.home, where))
        if self.plan.users:
            pause = exponential(self._pace[caller.at], self.plan.think) if self.plan.think else 0
            self.schedule.call(now + max(MILLISECOND, pause), self._user, caller)

    # ---- once a second

    def _tick(self, _: None, __: None, ___: None) -> None:
        now = self.schedule.now
        self.balancer.tick(now, [self._told(place.station) for place in self.places])
        self.schedule.call_last(now + TICK, self._tick, None)

    def _told(self, station: Station) -> Told | None:
        busy = station.take_busy()
        served, failures = station.served, station.failures
        station.served = station.failures = 0
        if not station.is_up:
            return None
        return Told(busy / (TICK * station.workers), station.in_system, float(served), float(failures))

    # ---- what happens

    def _place(self, at: int, name: str, home: int, number: int) -> Place:
        plan = self.plan
        places: list[Place] = []

        def answered(job: Job, answer: Answer) -> None:
            self._answered(places[0], job, answer)

        station = Station(
            self.schedule,
            self.streams[f"station/{name}/{number}"],
            answered,
            workers=plan.workers,
            service_time=plan.service_time,
            limit=plan.limit,
        )
        places.append(Place(at, f"{name}/a{number + 1}", home, f"shop-{number + 1}", station))
        return places[0]

    def _happens(self, moment: Moment, _: None, __: None) -> None:
        self._moments[moment.do](moment)

    def _targets(self, moment: Moment) -> list[Place]:
        numbers = dict.fromkeys(moment.target or range(self.plan.instances))
        of_it = [place for place in self.places if place.datacenter == moment.datacenter]
        return [place for number, place in enumerate(of_it) if number in numbers]

    def _kill(self, moment: Moment) -> None:
        for place in self._targets(moment):
            place.station.die()
            self._tell_later(place, Known.DOWN, self.plan.detection)

    def _start(self, moment: Moment) -> None:
        for place in self._targets(moment):
            self.schedule.call(self.schedule.now + self.plan.boot, self._booted, place)

    def _booted(self, place: Place, _: None, __: None) -> None:
        place.station.start()
        self._tell_later(place, Known.UP, self.plan.detection)

    def _slow(self, moment: Moment) -> None:
        for place in self._targets(moment):
            place.station.slowness = moment.factor

    def _fail(self, moment: Moment) -> None:
        for place in self._targets(moment):
            place.station.fails = moment.factor

    def _drain(self, moment: Moment) -> None:
        for place in self._targets(moment):
            self._tell_later(place, Known.DRAINING, self.plan.detection)

    def _undrain(self, moment: Moment) -> None:
        for place in self._targets(moment):
            self._tell_later(place, Known.UP, self.plan.detection)

    def _cut_off(self, moment: Moment) -> None:
        self._block(moment, True)

    def _heal(self, moment: Moment) -> None:
        self._block(moment, False)

    def _block(self, moment: Moment, blocked: bool) -> None:
        here, there = self._names.index(moment.datacenter), self._names.index(moment.to)
        self._blocked[here][there] = blocked
        # Relays need a reachability timeout to know; a link that works again shows at once.
        later = self.schedule.now + (self.plan.timeout if blocked else self.plan.detection)
        self.schedule.call(later, self._path_known, (moment.datacenter, moment.to), blocked)

    def _path_known(self, pair: tuple[str, str], blocked: bool, _: None) -> None:
        self._cut[pair] = blocked
        self.balancer.changed(self.schedule.now)

    def _tell_later(self, place: Place, known: Known, after: int) -> None:
        self.schedule.call(self.schedule.now + after, self._is_known, place, known)

    def _is_known(self, place: Place, known: Known, _: None) -> None:
        if known is Known.UP and not place.station.is_up:
            return  # it died again
        if place.known is not known:
            place.known = known
            self.balancer.changed(self.schedule.now)
