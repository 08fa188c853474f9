"""Failover by health, as Envoy's priority levels do it: the local data center is level 0, the others follow by distance.

    health(P) = min(100 %, 1.4 * healthy / total)        load(P0) = health(P0), load(Pk) = min(what is left, health(Pk))

normalized where all together have less than 100 %; a level that is in panic (less than half healthy, when the levels
together are below 100 %) uses all of its hosts.  Inside a level: least request of two.  Retries: `max_retries` 3 at a time
a caller.  Sources: Envoy's documentation of priority levels, panic threshold, circuit breaking (balancing.md, 1.1).
Load is no input: that is the point of the comparison.
"""

from sim.traffic.balancer import Call, Ended, Known, Place, Setting
from sim.traffic.peers.common import LeastRequest, Plain, nearest_first, weighted

OVERPROVISIONING = 1.4
PANIC = 0.5
MAX_RETRIES = 3  # concurrent, of one caller


class HealthPriority(Plain):
    """Envoy's priority levels."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._levels = nearest_first(setting)
        self._inside = LeastRequest(setting)
        self._stream = setting.streams["level"]
        self._retrying: list[list[Call]] = [[] for _ in setting.callers]
        self._loads: dict[str, list[float]] = {}
        self.changed(0)

    def changed(self, now: int) -> None:
        super().changed(now)
        self._loads = {here: self._level_loads(levels) for here, levels in self._levels.items()}

    def _level_loads(self, levels: tuple[str, ...]) -> list[float]:
        healths = [
            min(1.0, OVERPROVISIONING * len(self.healthy.up[name]) / len(self.healthy.all[name])) for name in levels
        ]
        total = min(1.0, sum(healths))
        loads, left = [], 1.0
        for health in healths:
            load = min(left, health / total) if total else 0.0
            loads.append(load)
            left -= load
        return loads

    def _hosts(self, name: str, is_short: bool) -> tuple[Place, ...]:
        healthy, every = self.healthy.up[name], self.healthy.all[name]
        if is_short and len(healthy) < PANIC * len(every):
            return tuple(one for one in every if one.known is not Known.DRAINING)
        return healthy

    def choose(self, call: Call, now: int, *, retry: bool) -> Place | None:
        if retry:
            retrying = self._retrying[call.caller.at]
            if len(retrying) >= MAX_RETRIES:
                return None
            retrying.append(call)
        loads = self._loads[call.caller.datacenter]
        is_short = sum(loads) < 1.0 or not self.healthy.everywhere
        name = self._levels[call.caller.datacenter][weighted(self._stream, loads)]
        hosts = self._hosts(name, is_short) or self.healthy.everywhere
        return self._inside.pick(call, hosts) if hosts else None

    def done(self, call: Call, now: int, ended: Ended) -> None:
        self._inside.done(call)
        retrying = self._retrying[call.caller.at]
        if call in retrying:
            retrying.remove(call)


class ZoneAware(Plain):
    """Zone-aware routing: the local zone takes what its part of all hosts is worth, assuming that all callers send alike.

    local part = (hosts here / hosts) / (callers here / callers), at most 1; the rest goes to zones with more hosts than
    callers, by their residual.  Source: Envoy's zone aware routing.  Kubernetes' topology hints deal endpoints to zones by
    the same proportion (there: of CPU), once for all."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._inside = LeastRequest(setting)
        self._stream = setting.streams["zone"]
        self._names = setting.plan.datacenters
        self._weights: dict[str, list[float]] = {}
        self.changed(0)

    def changed(self, now: int) -> None:
        super().changed(now)
        hosts = max(1, len(self.healthy.everywhere))
        callers = len(self.setting.callers)
        upstream = {name: len(self.healthy.up[name]) / hosts for name in self._names}
        local = {name: sum(one.datacenter == name for one in self.setting.callers) / callers for name in self._names}
        residual = {name: max(0.0, upstream[name] - local[name]) for name in self._names}
        self._weights = {here: self._row(here, upstream[here] / local[here], residual) for here in self._names}

    def _row(self, here: str, at_home: float, residual: dict[str, float]) -> list[float]:
        at_home, rest = min(1.0, at_home), sum(residual.values())
        abroad = (1.0 - at_home) / rest if rest else 0.0
        return [at_home if name == here else abroad * residual[name] for name in self._names]

    def choose(self, call: Call, now: int, *, retry: bool) -> Place | None:
        name = self._names[weighted(self._stream, self._weights[call.caller.datacenter])]
        hosts = self.healthy.up[name] or self.healthy.everywhere
        return self._inside.pick(call, hosts) if hosts else None

    def done(self, call: Call, now: int, ended: Ended) -> None:
        self._inside.done(call)
