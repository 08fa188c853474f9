"""The callers of one workload at one agent: programs with the client library, in one process.

Each calls as `sim.traffic.fleet` has it: in a closed loop, or so many calls a second; it begins when its agent knows somebody,
and a call that got no good answer with all its attempts has failed.  Each second it writes down what it saw.
"""

import os
import random
import sys
import time
from collections.abc import Container
from itertools import count
from pathlib import Path
from typing import Any

import gevent
import msgspec
from urllib3 import PoolManager

from dislocate.client import Client
from dislocate.client.caller import Pick
from dislocate.client.connection import AgentConnection, NoAgent, Problem, segment
from dislocate.core.errors import DislocateError
from dislocate.core.units import MILLISECOND, SECOND
from dislocate.fleet.calling.forwarders import pools_through
from dislocate.fleet.calling.words import CallersPlan, Told
from dislocate.io.shaping import Shaping, read_plan
from dislocate.io.steering import SteeringServer

STORY_LOOKED_FOR = 0.02  # seconds between two looks
NOBODY_YET = 0.1  # until a caller asks again for a service that its agent does not know yet
NO_FLOWS = 0.2  # seconds until an agent that does not publish any is asked again
FLOWS_WAIT = 5.0  # seconds that a question waits for a change
HANGS_AFTER = 5 * SECOND  # past its time, a call should have ended in whatever way
WORDS = 20  # errors of one caller that are said in full: then they are known


class WatchedClient(Client):
    """Counts where calls are first sent; its connections pass through forwarders."""

    def __init__(self, agent: str, shaping: Shaping, first_sent: "Caller") -> None:
        super().__init__(agent)
        self._shaping = shaping
        self._pools: PoolManager | None = None
        self._first_sent = first_sent

    def pick(self, service: str, *, key: str = "", exclude: Container[str] = (), retry: bool = False) -> Pick:
        if exclude:
            return super().pick(service, key=key, exclude=exclude, retry=retry)
        return _FirstPick(self, service, key, retry, self._first_sent)

    def connections(self, pools: int, kept: int) -> PoolManager:
        if self._pools is None:
            self._pools = pools_through(self._shaping, pools, kept)
        return self._pools


class _FirstPick(Pick):
    """The pick of a call's first attempt."""

    __slots__ = ("_caller",)

    def __init__(self, client: Client, service: str, key: str, retry: bool, caller: "Caller") -> None:
        super().__init__(client, service, key, (), retry)
        self._caller = caller

    def __enter__(self) -> Pick:
        super().__enter__()
        self._caller.first_sent(self.datacenter)
        return self


class Caller:
    """One program."""

    def __init__(self, name: str, plan: CallersPlan, shaping: Shaping, began: int, reports: Any) -> None:
        self._name = name
        self._plan = plan
        self._began = began
        self._reports = reports
        self._random = random.Random(name)
        self._client = WatchedClient(plan.agent, shaping, self)
        self._agent = AgentConnection(plan.agent, timeout=2 * FLOWS_WAIT)
        self._published: dict[str, float] = {}  # by its agent now: shares by data center; empty: it does not say
        self._begun = self._failed = 0
        self._under_way: dict[int, tuple[int, int]] = {}  # by number of the call: when it began, and should be over
        self._ends: list[tuple[int, int, bool]] = []
        self._sent: dict[int, dict[str, int]] = {}
        self._wanted: dict[int, dict[str, float]] = {}

    @property
    def _now(self) -> int:
        return time.monotonic_ns() - self._began

    def run(self) -> None:
        """Until the process is ended."""
        _sleep_until(self._began + self._plan.begin)
        gevent.sleep(self._random.random())
        while not self._knows_somebody():
            gevent.sleep(NOBODY_YET)
        callers = [self._arrivals] if self._plan.rate else [self._user] * self._plan.users
        concerns = (self._look, self._tell, *callers)
        gevent.joinall([gevent.spawn(concern) for concern in concerns], raise_error=True)

    def first_sent(self, datacenter: str) -> None:
        second = self._now // SECOND
        there = self._sent.setdefault(second, {})
        there[datacenter] = there.get(datacenter, 0) + 1
        wanted = self._wanted.setdefault(second, {})
        for name, share in self._published.items():
            wanted[name] = wanted.get(name, 0.0) + share

    def _knows_somebody(self) -> bool:
        try:
            return bool(self._client.route(self._plan.service).instances)
        except DislocateError:
            return False

    # ---- calls

    def _is_over(self) -> bool:
        return self._plan.until is not None and self._now >= self._plan.until

    def _user(self) -> None:
        while not self._is_over():
            self._call()
            pause = self._random.expovariate(SECOND / self._plan.think) if self._plan.think else 0.0
            gevent.sleep(max(MILLISECOND / SECOND, pause))

    def _arrivals(self) -> None:
        at = self._now
        while not self._is_over():
            at += round(self._random.expovariate(self._plan.rate) * SECOND)
            _sleep_until(self._began + at)
            gevent.spawn(self._call)

    def _call(self) -> None:
        plan, began = self._plan, self._now
        policy = self._client.route(plan.service).policy
        timeout = min(policy.timeout, plan.timeout * policy.retries.attempts)
        key = f"k{self._random.randrange(plan.keys)}" if plan.keys else ""
        number = self._begun = self._begun + 1
        self._under_way[number] = began, began + timeout
        words = ""
        try:
            response = self._client.http(plan.service).get("/", key=key, timeout=timeout / SECOND)
            if response.status != 200:
                words = f"HTTP {response.status}"
        except Exception as error:  # noqa: BLE001 - whatever a program would have to catch is a call that failed
            words = f"{type(error).__name__}: {error}"
        took = self._now - began
        del self._under_way[number]
        self._ends.append((began, took, bool(words)))
        if words:
            self._failed += 1
            if self._failed <= WORDS:
                print(f"{began / SECOND:.3f} s, {took / SECOND:.3f} s long: {words}", flush=True)

    # ---- what is told

    def _look(self) -> None:
        """Know what its agent publishes, as soon as it does."""
        path = f"/api/services/{segment(self._plan.service)}/flows"
        index = 0
        while True:
            try:
                flows = self._agent.get(f"{path}?index={index}&wait={FLOWS_WAIT:.0f}s" if index else path)
            except (NoAgent, Problem):
                index, self._published = 0, {}
                gevent.sleep(NO_FLOWS)
            else:
                home = next(row for row in flows["rows"] if row["source"] == flows["home"])
                index = flows["index"]
                self._published = {share["datacenter"]: share["share"] for share in home["shares"]}

    def _tell(self) -> None:
        for second in count(self._now // SECOND + 1):
            _sleep_until(self._began + second * SECOND)
            now = self._now
            told = Told(
                caller=self._name,
                at=now,
                begun=self._begun,
                ends=tuple(self._ends),
                sent=self._sent,
                wanted=self._wanted,
                hanging=tuple(began for began, until in self._under_way.values() if now > until + HANGS_AFTER),
            )
            self._ends, self._sent, self._wanted = [], {}, {}
            self._reports.write(msgspec.json.encode(told) + b"\n")
            self._reports.flush()


def _sleep_until(at: int) -> None:
    """`at`: of the monotonic clock."""
    gevent.sleep(max(0.0, (at - time.monotonic_ns()) / SECOND))


def main() -> None:
    """Be ready, wait for the story to begin, and call."""
    plan = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=CallersPlan)
    shaping = Shaping(read_plan(Path(plan.shaping).read_bytes()))
    server = SteeringServer(shaping, Path(plan.steering))
    print(f"ready, pid {os.getpid()}", flush=True)
    story = Path(plan.story)
    while not story.exists():
        gevent.sleep(STORY_LOOKED_FOR)
    began = int(story.read_text())
    with open(plan.reports, "wb") as reports:
        callers = [Caller(name, plan, shaping, began, reports) for name in plan.names]
        gevent.joinall([gevent.spawn(caller.run) for caller in callers], raise_error=True)  # the fleet ends this
    server.stop()
