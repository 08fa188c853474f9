"""Nearest until empty, as a Consul prepared query with failover does it.

All results are local while there is one that passes; with none, the nearest data center that has any.  Who gets which is
chance: DNS answers are shuffled.  Nothing is learnt from load, weights or outcomes.
Source: Consul's prepared queries (balancing.md, 1.8: failover only if the local result is empty).
"""

from sim.traffic.balancer import Call, Place, Setting
from sim.traffic.peers.common import Plain, nearest_first, without


class NearestUntilEmpty(Plain):
    """Consul's failover."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._nearest = nearest_first(setting)
        self._stream = setting.streams["shuffle"]

    def choose(self, call: Call, now: int, *, retry: bool) -> Place | None:
        for name in self._nearest[call.caller.datacenter]:
            hosts = self.healthy.up[name]
            if hosts:
                left = without(hosts, call.tried) or hosts
                return left[int(self._stream.unit() * len(left))]
        return None
