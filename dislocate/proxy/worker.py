"""One process of a proxy: its loop, its entrances, a picker for each service, and a clean end.

It is a caller of its own: it picks by itself and tells what it did by itself, so that nothing is shared with its siblings but
the ports.  The end: nobody new is accepted, streams go on for as long as `grace` says, what is left then is reset.
"""

import gc
import logging
import os
import resource
from collections.abc import Callable, Sequence
from socket import socket
from threading import Event
from time import process_time

from dislocate.core.balance.picker import Picker
from dislocate.core.boundary.balance import Route, Usage
from dislocate.core.streams import Stream as Draws
from dislocate.core.units import MILLISECOND, SECOND
from dislocate.proxy.dial import Exchange
from dislocate.proxy.entrance import Entrance
from dislocate.proxy.loop import Loop
from dislocate.proxy.names import Names
from dislocate.proxy.routes import RouteSource
from dislocate.proxy.settings import Plan
from dislocate.proxy.stream import BUFFER, End
from dislocate.proxy.tally import Report, Tally

TICK = 1 * SECOND
ANSWERED_WITHIN = 1.0  # seconds; the loop has ended if it takes longer
SPARE = 64  # descriptors for the loop, the agent, names and logs
OF_ONE = 4  # descriptors that one stream may take: two sockets, and a pipe where it carries bulk

Say = Callable[[str], None]


class Worker:
    """Serves `bound` sockets, one for each of `plan.listens`, with routes from `source`."""

    def __init__(self, plan: Plan, source: RouteSource, bound: Sequence[socket], caller: str, say: Say) -> None:
        self.loop = Loop()
        self._plan = plan
        self._source = source
        self._say = say
        self._is_ending = False
        self._room = min(plan.limits.streams or 1 << 30, room_of_descriptors())
        self._told = dict.fromkeys(plan.services, "")  # troubles that were said
        names, buffer = Names(self.loop), bytearray(BUFFER)
        self.exchanges: dict[str, Exchange] = {}
        for service in plan.services:
            picker = Picker(service, Draws(int.from_bytes(os.urandom(8), "big")), caller)
            self.exchanges[service] = Exchange(self.loop, picker, plan.limits, names, buffer, self._left)
        self.entrances = [
            Entrance(self.loop, socket_, self._has_room, self.exchanges[listen.service].serve)
            for listen, socket_ in zip(plan.listens, bound, strict=True)
        ]
        for route in source.first():
            self._take(route)

    def run(self, ready: Callable[[], None], reported: Callable[[Report], None] | None = None) -> None:
        """Until `end`, and the streams have ended.  `reported` is called each second and at the end."""
        self._reported = reported
        for entrance in self.entrances:
            entrance.open()
        self._source.start(lambda route: self.loop.soon(lambda: self._take(route)), self._done)
        self.loop.at(self.loop.now + TICK, self._tick)
        if self._plan.limits.idle:
            self.loop.at(self.loop.now + self._look_each, self._reset_idle)
        ready()
        self.loop.run()
        self._source.stop()
        if reported is not None:
            reported(self.report())

    def end(self) -> None:
        """Stop accepting and let streams finish; asked a second time, reset them.  From any thread and signal handlers."""
        self.loop.soon(self._end)

    def report(self) -> Report:
        """What was done so far.  In the loop's thread, or when it has ended."""
        return Report({name: self._told_of(exchange) for name, exchange in self.exchanges.items()}, cpu=process_time())

    def _done(self) -> list[Usage]:
        """What was done since this was last asked.  From any thread but the loop's, which answers between two events."""
        answered, usages = Event(), list[Usage]()

        def answer() -> None:
            for exchange in self.exchanges.values():
                usage = exchange.picker.usage(self.loop.now)
                if usage is not None:
                    usages.append(usage)
            answered.set()

        self.loop.soon(answer)
        return usages if answered.wait(ANSWERED_WITHIN) else []

    # ---- within the loop

    def _take(self, route: Route) -> None:
        exchange = self.exchanges.get(route.service)
        if exchange is None:
            return
        if exchange.picker.route is route:
            exchange.picker.confirm(self.loop.now)
        else:
            exchange.picker.update(route, self.loop.now)

    def _has_room(self) -> bool:
        return sum(exchange.open for exchange in self.exchanges.values()) < self._room

    def _left(self) -> None:
        for entrance in self.entrances:
            entrance.go_on()
        if self._is_ending and not self._open:
            self.loop.stop()

    @property
    def _open(self) -> int:
        return sum(exchange.open for exchange in self.exchanges.values())

    def _tick(self) -> None:
        self.loop.at(self.loop.now + TICK, self._tick)
        for service, exchange in self.exchanges.items():
            self._tell_troubles(service, exchange)
        if self._reported is not None:
            self._reported(self.report())

    def _tell_troubles(self, service: str, exchange: Exchange) -> None:
        trouble = self._source.trouble(service)
        if trouble != self._told[service]:
            self._told[service] = trouble
            self._say(
                f"{service}: {f'{trouble}; going on with what is known' if trouble else 'the agent answers again'}"
            )
        if exchange.trouble:
            self._say(f"a client was turned away: {exchange.trouble}")
            exchange.trouble = ""

    def _told_of(self, exchange: Exchange) -> Tally:
        picker = exchange.picker
        return exchange.counted(picker.age(self.loop.now) / SECOND, self._source.trouble(picker.service))

    @property
    def _look_each(self) -> int:
        return max(10 * MILLISECOND, min(SECOND, self._plan.limits.idle // 8))

    def _reset_idle(self) -> None:
        self.loop.at(self.loop.now + self._look_each, self._reset_idle)
        for exchange in self.exchanges.values():
            exchange.reset_idle(self._plan.limits.idle)

    def _end(self) -> None:
        if self._is_ending:
            self._cut()
            return
        self._is_ending = True
        for entrance in self.entrances:
            entrance.close()
        if not self._open:
            self.loop.stop()
            return
        self._say(f"ending: {self._open} streams may go on for {self._plan.limits.grace / SECOND:g} s")
        self.loop.at(self.loop.now + self._plan.limits.grace, self._cut)

    def _cut(self) -> None:
        for exchange in self.exchanges.values():
            exchange.cut(End.CUT)
        self.loop.stop()


def settle_process() -> None:
    """For a process that is a proxy and nothing else.  What is loaded is never looked at for garbage again, and streams, whose
    parts know each other, are looked for in thousands: a search each seven hundred objects is felt at the 99th percentile."""
    logging.getLogger("dislocate.client").setLevel(logging.CRITICAL)  # what it would say is said by us
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def room_of_descriptors() -> int:
    """Streams that this process has descriptors for, after it has asked for as many as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return max(1, (soft - SPARE) // OF_ONE)
